//! Why what a passkey signed does not hold.

/// The reason in the audit log. Who asked is told only that it does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It cannot be read.
    Malformed,
    /// The challenge is unknown, used, too old, or of another attempt.
    Challenge,
    /// It was signed for another page, or inside one.
    Origin,
    /// It was signed for another name of a host.
    RelyingParty,
    /// Nobody was at the authenticator.
    Presence,
    /// The authenticator did not check who that was.
    Verification,
    /// A kind of key that is not known here.
    Key,
    /// There is no such passkey.
    Unknown,
    /// It belongs to another account.
    Owner,
    /// The signature is not of this key over this.
    Signature,
    /// It could be copied to other devices and cannot any more, or the other way round: that never changes.
    Backup,
    /// The authenticator counts less than it did before: there may be a copy.
    Counter,
}

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Challenge => "challenge",
            Self::Origin => "origin",
            Self::RelyingParty => "relying_party",
            Self::Presence => "presence",
            Self::Verification => "verification",
            Self::Key => "key",
            Self::Unknown => "unknown",
            Self::Owner => "owner",
            Self::Signature => "signature",
            Self::Backup => "backup",
            Self::Counter => "counter",
        }
    }
}
