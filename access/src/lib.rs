//! Accounts and access: who is calling, and what they may do.
//!
//! [`Access`] is the whole of it: it opens the accounts database, registers and logs people in, rotates and revokes
//! their sessions, keeps API keys, and turns a presented credential into a [`Caller`].
//!
//! # Vocabulary
//! * A *session* is one log-in. Its *refresh tokens* form a family: each works once and is replaced by the next;
//!   presenting a used one revokes the family.
//! * An *access token* is a signed JWT that names its session. It is checked without the database.
//! * A *lease* is what a connection that stays open goes on by, and a *ticket* opens one once.
//! * A *passkey* is a key pair of an authenticator (WebAuthn): a second factor, and a way in where the authenticator checks
//!   who its user is.
//! * An *API key* (`kk_...`) belongs to a user and has *scopes* that narrow what that user may do.
//! * A *permission* is one thing that a [`Caller`] may be asked for with [`Caller::require`].
//!
//! # Guarantees
//! * A revocation (log-out, key revoked, role changed, account disabled, consent taken back) holds at once in this
//!   process and within five seconds in every other process on the same database.
//! * Secrets are stored as hashes only. A committed change survives a crash; an uncommitted one leaves no trace.
//! * Several processes may use one database at the same time, a command line beside a running server included.

mod accounts;
mod api_keys;
mod audit;
mod authenticate;
mod cache;
mod caller;
mod changes;
mod codes;
mod consent;
mod error;
mod export;
mod fields;
mod known_consents;
mod lease;
mod mfa;
mod oidc;
mod orders;
mod origin;
mod passkeys;
mod password;
mod people;
mod permission;
mod phone;
mod profile;
mod queries;
mod reauthenticate;
mod recovery;
mod refusal_budget;
mod refusals;
mod scope;
mod seal;
mod secret;
mod send;
mod service;
mod sessions;
mod settings;
mod sms_caps;
mod store;
mod throttle;
mod time;
mod token;
mod user_settings;
mod ways_in;

pub use accounts::{NewAccount, NewUser, Registration};
pub use api_keys::{ApiKey, IssuedKey, NewApiKey};
pub use audit::{Action, Actor, AuditEvent, AuditFilter, AuditRow, ChainBreak, ChainReport, Outcome};
pub use authenticate::Credential;
pub use caller::{Caller, CallerKind, RowScope};
pub use consent::ConsentRule;
pub use error::{AccessError, ErrorDomain, TokenFault};
pub use export::{OwnData, OwnEvent};
pub use fields::{Email, Phone, Username};
pub use lease::{Lease, TICKET_LIFE};
pub use mfa::{Enrolment, LoginOutcome};
pub use oidc::{Callback, CallbackOutcome, FLOW_LIFE, ProviderKind, ProviderSettings, Redirect};
pub use origin::Origin;
pub use passkeys::{ALGORITHMS, AddedPasskey, Assertion, CHALLENGE_LIFE, CreationOptions, NewPasskey, RequestOptions};
pub use password::HashLoad;
pub use permission::{Permission, Role};
pub use profile::ProfileChange;
pub use queries::QueryNote;
pub use recovery::Strength;
pub use scope::{Scope, Scopes};
pub use secret::derived_guard;
pub use send::{MailSettings, SmsSettings};
pub use service::Access;
pub use sessions::TokenPair;
pub use settings::{AccessSettings, DatabaseAddress, DatabaseSettings, HashSettings, PasswordRules, SmsCaps};
pub use store::{
    Consent, ConsentPlace, Factors, Identity, OwnCode, OwnFactor, OwnSession, Passkey, Schema, Session, User,
    UserFilter,
};
pub use token::Rotation;
pub use user_settings::{SettingsChange, UserSettings};
