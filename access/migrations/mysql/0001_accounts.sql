-- Accounts. Ids are UUID v7 as text, times are microseconds since 1970 in UTC, secrets are stored only as hashes.
-- `*_key` columns hold the form that is unique (lower case), so that every database compares alike.

CREATE TABLE users (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    username VARCHAR(30) NOT NULL,
    username_key VARCHAR(30) NOT NULL UNIQUE,
    email VARCHAR(254),
    email_key VARCHAR(254) UNIQUE,
    phone VARCHAR(16) UNIQUE,
    password_hash VARCHAR(500),
    nickname VARCHAR(100),
    full_name VARCHAR(100),
    role VARCHAR(30) NOT NULL,
    avatar_url VARCHAR(500),
    is_active BIGINT NOT NULL DEFAULT 1,
    is_verified BIGINT NOT NULL DEFAULT 0,
    consent_status VARCHAR(20) NOT NULL DEFAULT 'none',
    consent_version VARCHAR(50),
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted_at BIGINT,
    version BIGINT NOT NULL DEFAULT 1
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row is one log-in: a family of refresh tokens with an absolute end that rotation does not move.
CREATE TABLE sessions (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    user_id VARCHAR(36) NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    revoked_at BIGINT,
    revoked_reason VARCHAR(40),
    ip VARCHAR(45),
    user_agent VARCHAR(200),
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX sessions_by_user ON sessions (user_id);
CREATE INDEX sessions_by_end ON sessions (expires_at);

-- Used tokens stay until their session ends: presenting one again is how theft is noticed.
CREATE TABLE refresh_tokens (
    token_hash VARCHAR(64) NOT NULL PRIMARY KEY,
    session_id VARCHAR(36) NOT NULL,
    issued_at BIGINT NOT NULL,
    used_at BIGINT,
    FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id, issued_at);

CREATE TABLE api_keys (
    id VARCHAR(36) NOT NULL PRIMARY KEY,
    user_id VARCHAR(36) NOT NULL,
    name VARCHAR(200) NOT NULL,
    prefix VARCHAR(32) NOT NULL UNIQUE,
    key_hash VARCHAR(64) NOT NULL,
    scopes TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    last_used_at BIGINT,
    revoked_at BIGINT,
    FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX api_keys_by_user ON api_keys (user_id);

-- What other processes must hear about: each tails this table and drops what it had cached.
CREATE TABLE access_changes (
    seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at BIGINT NOT NULL,
    kind VARCHAR(20) NOT NULL,
    subject_id VARCHAR(36) NOT NULL
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX access_changes_by_time ON access_changes (at);

-- Security events. Rows are only ever added.
CREATE TABLE audit_log (
    seq BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor_kind VARCHAR(20) NOT NULL,
    actor_id VARCHAR(36),
    action VARCHAR(40) NOT NULL,
    target_id VARCHAR(36),
    outcome VARCHAR(20) NOT NULL,
    ip VARCHAR(45),
    user_agent VARCHAR(200),
    request_id VARCHAR(64),
    details TEXT
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE INDEX audit_log_by_time ON audit_log (at);
CREATE INDEX audit_log_by_target ON audit_log (target_id);

CREATE TRIGGER audit_log_is_never_updated BEFORE UPDATE ON audit_log
FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit_log is append-only';

CREATE TRIGGER audit_log_is_never_deleted BEFORE DELETE ON audit_log
FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'audit_log is append-only';
