//! Which ways into accounts lead anywhere, by the settings of this instance.

use crate::Access;
use crate::store::UsableWays;

impl Access {
    /// For the rule that the last way in stays: what is not set up, or not any more, lets nobody in.
    pub(crate) fn usable_ways(&self) -> UsableWays {
        UsableWays {
            by_phone: self.inner.post.has_sms(),
            by_passkey: self.has_passkeys(),
            by_issuers: self.inner.providers.issuers(),
        }
    }
}
