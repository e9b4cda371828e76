//! E-mail: to an SMTP server, or into a folder while developing.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use lettre::message::{Mailbox, header::ContentType};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use super::{Carrier, Mail};
use crate::AccessError;

/// For one message, from the connection to the last answer. Some servers hold their greeting back for seconds, to shake
/// off programs that do not wait for it. The library itself bounds the connecting only.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How e-mail leaves.
#[derive(Debug, Clone)]
pub enum MailSettings {
    /// One file a message in this folder, and a line in the log. For development.
    Outbox(PathBuf),
    /// A server: `smtp://`, `smtps://` or `smtp://...?tls=required`, with user and password when it asks for them.
    Smtp {
        /// The address, with its secrets.
        url: SecretString,
        /// `Name <address>` of the sender.
        from: String,
    },
}

pub(super) enum Mailer {
    Outbox(PathBuf),
    Smtp(Box<Server>),
}

pub(super) struct Server {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    timeout: Duration,
}

impl Mailer {
    pub(super) fn new(settings: &MailSettings) -> Result<Self, AccessError> {
        Self::within(TIMEOUT, settings)
    }

    fn within(timeout: Duration, settings: &MailSettings) -> Result<Self, AccessError> {
        match settings {
            MailSettings::Outbox(folder) => Ok(Self::Outbox(folder.clone())),
            MailSettings::Smtp { url, from } => {
                // Not the driver's own text: it may hold the address with its password.
                let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
                    .map_err(|_| failed("the server's address is no `smtp://` or `smtps://` URL"))?;
                let from = from.parse().map_err(|_| failed("the sender is no `Name <address>`"))?;
                Ok(Self::Smtp(Box::new(Server { transport: transport.build(), from, timeout })))
            }
        }
    }
}

impl Carrier for Mailer {
    type Message = Mail;

    async fn send(&self, mail: &Mail) -> Result<(), AccessError> {
        match self {
            Self::Smtp(server) => {
                let message = build(server.from.clone(), mail)?;
                let sent = tokio::time::timeout(server.timeout, server.transport.send(message)).await;
                sent.map_err(|_| failed("the server does not answer"))?.map(drop).map_err(failed)
            }
            Self::Outbox(folder) => {
                let from =
                    Mailbox::new(Some("Karat".to_owned()), "karat@localhost.localdomain".parse().map_err(failed)?);
                let bytes = build(from, mail)?.formatted();
                let file = folder.join(format!("{}.eml", Uuid::now_v7()));
                tokio::fs::create_dir_all(folder).await.map_err(failed)?;
                // Appears under its name when it is whole.
                let part = file.with_extension("part");
                tokio::fs::write(&part, bytes).await.map_err(failed)?;
                tokio::fs::rename(&part, &file).await.map_err(failed)?;
                tracing::info!(file = %file.display(), subject = mail.subject, "an e-mail is in the outbox");
                Ok(())
            }
        }
    }
}

/// The library refuses addresses and headers that hold line breaks.
fn build(from: Mailbox, mail: &Mail) -> Result<Message, AccessError> {
    let to = Mailbox::new(None, mail.to.parse().map_err(failed)?);
    let builder = Message::builder().from(from).to(to).subject(mail.subject).header(ContentType::TEXT_PLAIN);
    builder.body(mail.text.expose_secret().to_owned()).map_err(failed)
}

fn failed(reason: impl fmt::Display) -> AccessError {
    AccessError::Delivery { what: "e-mail", reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mail_server_that_says_nothing_is_given_up() {
        // The system takes the connection, and nobody ever writes to it.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("smtp://{}", silent.local_addr().unwrap()).into();
        let settings = MailSettings::Smtp { url, from: "Karat <karat@example.org>".to_owned() };
        let mailer = Mailer::within(Duration::from_millis(50), &settings).unwrap();
        let mail = Mail { to: "maria@example.org".to_owned(), subject: "A test", text: "Hello".to_owned().into() };
        let refused = mailer.send(&mail).await;
        assert!(matches!(&refused, Err(AccessError::Delivery { .. })), "{refused:?}");
    }
}
