//! Orders to rebuild what pipelines made, for the audit log.

use serde_json::json;
use uuid::Uuid;

use crate::{Access, AccessError, Action, Actor, AuditEvent, Origin};

impl Access {
    /// Writes that a replay of a pipeline is ordered; under `id` it is found later.
    ///
    /// # Errors
    /// [`AccessError::Store`]: then nothing may be ordered.
    pub async fn note_replay(
        &self,
        actor: Actor,
        id: Uuid,
        pipeline: &str,
        origin: &Origin,
    ) -> Result<(), AccessError> {
        let event = AuditEvent::success(actor, Action::ReplayOrder, id, origin);
        self.inner.store.append_audit(&event.with_details(json!({"pipeline": pipeline}))).await
    }
}
