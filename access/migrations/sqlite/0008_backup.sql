-- What the authenticator of a passkey says of copies (WebAuthn level 3, 6.1.3): whether there may be any, which never changes, and
-- whether there are, as of the last log-in. NULL is a passkey from before this was kept; its next log-in says it.
ALTER TABLE passkeys ADD COLUMN is_backup_eligible INTEGER;
ALTER TABLE passkeys ADD COLUMN is_backed_up INTEGER;
