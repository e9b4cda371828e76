-- A refresh counts those of its session in the last hour. By the time of use that is a look at a few entries; by the time of
-- issue it was one at every token that the session ever had. The new one also serves what needs the tokens of a session.
CREATE INDEX refresh_tokens_by_use ON refresh_tokens (session_id, used_at);
DROP INDEX refresh_tokens_by_session;
