//! Tickets by which a browser opens a connection that stays open.

use karat_access::{Access, Permission, TICKET_LIFE};
use karat_http::{Answer, Authenticated, error_answers, lease, ok};
use poem::Request;
use poem_openapi::{Object, OpenApi, types::Example};
use secrecy::ExposeSecret;

use super::AuthTag;

error_answers! {
    /// Errors of `POST /auth/ws-ticket`.
    pub TicketError: 401, 403, 404, 503;
}

/// A ticket. This is the only time that it is known.
#[derive(Object)]
#[oai(example)]
pub struct TicketView {
    /// For `?ticket=`, once.
    pub ticket: String,
    /// Its life, in seconds.
    pub expires_in: u64,
}

impl Example for TicketView {
    fn example() -> Self {
        Self { ticket: "5f0c".repeat(16), expires_in: TICKET_LIFE.as_secs() }
    }
}

/// Operations on tickets.
#[derive(Clone)]
pub struct TicketApi {
    access: Access,
}

impl TicketApi {
    pub(super) fn new(access: Access) -> Self {
        Self { access }
    }
}

#[OpenApi(prefix_path = "/auth", tag = "AuthTag::Accounts")]
impl TicketApi {
    /// Get a ticket for a WebSocket or a stream of events
    ///
    /// A page cannot send a header when it opens one, and a token has no place in an address. A ticket works once, within 30
    /// seconds, as `?ticket=`; what it opens ends with the access token that it was asked for by.
    #[oai(path = "/ws-ticket", method = "post", operation_id = "create_ws_ticket")]
    async fn create(&self, request: &Request, caller: Authenticated) -> Result<Answer<TicketView>, TicketError> {
        caller.require(Permission::ManageOwnAccount)?;
        let ticket = self.access.issue_ticket(&lease(request, None).await?).await?;
        let view = TicketView { ticket: ticket.expose_secret().to_owned(), expires_in: TICKET_LIFE.as_secs() };
        Ok(ok(view, "open a connection with this ticket, once"))
    }
}
