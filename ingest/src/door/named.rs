//! People whom a program names in its events (`user_id`). Where consent is required, that of the person whom an event is
//! about counts too: who took it back is not counted any more by way of somebody else's key.
//!
//! Only keys that may publish for others are looked at: what others write there decides nothing behind the door
//! (decision 24), and neither does it in OpenLineage events. Who has no account here cannot consent here, and is not asked.

use std::collections::HashSet;

use karat_access::{Access, Caller};
use karat_http::{ApiError, origin};
use karat_schemas::json::{self, Node};
use poem::Request;
use poem::http::StatusCode;
use uuid::Uuid;

use super::budget::Budget;
use crate::event::{Code, Decoded, Event, Rejection};
use crate::limits::MAX_NAMED_PEOPLE;
use crate::lineage;

/// Refuses each event that is about somebody with an account here and without consent; leaves one row a minute in the
/// audit log. A body that names too many people is refused whole.
pub(super) async fn with_consent(
    request: &Request,
    caller: &Caller,
    budget: &Budget,
    events: Decoded,
) -> Result<Decoded, ApiError> {
    let Some(access) = request.data::<Access>() else { return Ok(events) };
    let rule = &access.settings().consent;
    if !rule.is_required() || !caller.may_publish_for_others() {
        return Ok(events);
    }
    let find = move || {
        let named: Vec<Option<Uuid>> = events.iter().map(|event| event.as_ref().ok().and_then(named_in)).collect();
        (events, named)
    };
    let (events, named) = budget.decode(find).await?;
    let people: HashSet<Uuid> = named.iter().flatten().copied().collect();
    if people.len() > MAX_NAMED_PEOPLE {
        return Err(too_many_people());
    }
    let people: Vec<Uuid> = people.into_iter().collect();
    let without = access.without_consent(&people).await?;
    if without.is_empty() {
        return Ok(events);
    }
    let version = rule.version().unwrap_or_default();
    access.note_consent_needed(caller, version, &origin(request)).await;
    let judged = events.into_iter().zip(named).map(|(event, named)| match event {
        Ok(event) if named.is_some_and(|person| without.contains(&person)) => Err(refusal(event.index, version)),
        event => event,
    });
    Ok(judged.collect())
}

/// The account that an event names, if it is an id of one.
fn named_in(event: &Event) -> Option<Uuid> {
    if event.event_type == lineage::EVENT_TYPE {
        return None;
    }
    let data = json::text_of(&event.payload).and_then(json::parse).ok()?;
    data.get("user_id").and_then(Node::as_text)?.parse().ok()
}

fn too_many_people() -> ApiError {
    let message = format!(
        "the events of the body name more than {MAX_NAMED_PEOPLE} people, the most whose consent is looked up for one \
         request: send them in several"
    );
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_many_people", message)
        .detail(format!("limit: {MAX_NAMED_PEOPLE} people"))
}

fn refusal(index: usize, version: &str) -> Rejection {
    let message = format!(
        "whom `user_id` names has not consented to version `{version}` of the text: that person gives consent by \
         `POST /api/v1/consent`"
    );
    Rejection::new(index, Code::ConsentNeeded, "/data/user_id", message)
}
