-- Everything else that accounts need: log-ins by others, codes, second factors, consent, attempts, and a hash chain
-- over the audit log.

-- Log-ins at another provider. What names one is (issuer, subject), never an address.
CREATE TABLE identities (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    provider     TEXT    NOT NULL,
    issuer       TEXT    NOT NULL,
    subject      TEXT    NOT NULL,
    email        TEXT,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    UNIQUE (issuer, subject)
) STRICT;
CREATE INDEX identities_by_user ON identities (user_id);

-- Codes and tokens that work once. At most one a purpose and address is alive: a new one replaces it.
CREATE TABLE one_time_codes (
    id         TEXT    NOT NULL PRIMARY KEY,
    purpose    TEXT    NOT NULL,
    user_id    TEXT    REFERENCES users (id) ON DELETE CASCADE,
    address    TEXT    NOT NULL,
    code_hash  TEXT    NOT NULL,
    tries_left INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    used_at    INTEGER
) STRICT;
CREATE INDEX one_time_codes_by_address ON one_time_codes (purpose, address, created_at);
CREATE INDEX one_time_codes_by_hash ON one_time_codes (code_hash);
CREATE INDEX one_time_codes_by_end ON one_time_codes (expires_at);

-- The secret is sealed with the key beside the signing keys. `last_step` is the newest time step that was used.
CREATE TABLE mfa_factors (
    id           TEXT    NOT NULL PRIMARY KEY,
    user_id      TEXT    NOT NULL UNIQUE REFERENCES users (id) ON DELETE CASCADE,
    kind         TEXT    NOT NULL,
    secret       TEXT    NOT NULL,
    last_step    INTEGER NOT NULL DEFAULT 0,
    created_at   INTEGER NOT NULL,
    confirmed_at INTEGER
) STRICT;

CREATE TABLE recovery_codes (
    code_hash TEXT    NOT NULL PRIMARY KEY,
    user_id   TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    used_at   INTEGER
) STRICT;
CREATE INDEX recovery_codes_by_user ON recovery_codes (user_id);

-- What was agreed to and taken back, and when. Rows are only ever added while the account lives.
CREATE TABLE consents (
    id      TEXT    NOT NULL PRIMARY KEY,
    user_id TEXT    NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    status  TEXT    NOT NULL,
    version TEXT    NOT NULL,
    source  TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    ip      TEXT
) STRICT;
CREATE INDEX consents_by_user ON consents (user_id, at);

-- Failed attempts, counted before the attempt is checked, so that parallel ones cannot pass together.
CREATE TABLE attempts (
    name       TEXT    NOT NULL PRIMARY KEY,
    failures   INTEGER NOT NULL,
    next_at    INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
CREATE INDEX attempts_by_end ON attempts (expires_at);

-- One row: the newest link of the chain. Locking it is also what puts commits in the order of their numbers.
CREATE TABLE audit_head (
    id        INTEGER NOT NULL PRIMARY KEY,
    seq       INTEGER NOT NULL,
    hash      TEXT    NOT NULL,
    first_seq INTEGER NOT NULL
) STRICT;
INSERT INTO audit_head (id, seq, hash, first_seq)
SELECT 1, coalesce(max(seq), 0), '', coalesce(max(seq), 0) + 1 FROM audit_log;

-- Rows from before the chain have no hash.
ALTER TABLE audit_log ADD COLUMN hash TEXT NOT NULL DEFAULT '';
CREATE INDEX audit_log_by_actor ON audit_log (actor_id);
CREATE INDEX users_by_state ON users (deleted_at);
CREATE INDEX sessions_by_ip ON sessions (user_id, ip);
