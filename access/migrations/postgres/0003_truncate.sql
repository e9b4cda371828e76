-- TRUNCATE fires no trigger of a row, so it would empty the audit log past the one that refuses deletes.
CREATE TRIGGER audit_log_is_never_truncated BEFORE TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION audit_log_is_append_only();
