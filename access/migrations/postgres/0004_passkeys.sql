-- Passkeys (WebAuthn). A credential is found by the SHA-256 of its id, which may be longer than an index holds. `public_key` is
-- in COSE, in hex; `sign_count` is the highest that the authenticator said; `is_verifying` is 1 where it checked who its user is,
-- so that the passkey is a way in without a password.
CREATE TABLE passkeys (
    id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    credential_hash TEXT NOT NULL UNIQUE,
    credential_id TEXT NOT NULL,
    public_key TEXT NOT NULL,
    sign_count BIGINT NOT NULL,
    is_verifying BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT
);
CREATE INDEX passkeys_by_user ON passkeys (user_id);
