-- Passkeys (WebAuthn). A credential is found by the SHA-256 of its id, which may be longer than an index holds. `public_key` is
-- in COSE, in hex; `sign_count` is the highest that the authenticator said; `is_verifying` is 1 where it checked who its user is,
-- so that the passkey is a way in without a password.
CREATE TABLE passkeys (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    user_id VARCHAR(36) NOT NULL,
    name VARCHAR(100) NOT NULL,
    credential_hash VARCHAR(64) NOT NULL UNIQUE,
    credential_id VARCHAR(1400) NOT NULL,
    public_key VARCHAR(1400) NOT NULL,
    sign_count BIGINT NOT NULL,
    is_verifying BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT,
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX passkeys_by_user ON passkeys (user_id);
