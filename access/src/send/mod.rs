//! Messages to people: e-mail and SMS.
//!
//! [`Post`] takes a message and returns at once: whether an address is known must not show in the time of an answer,
//! and a slow mail server must not hold requests. A bounded queue stands between; when it is full, a message is
//! dropped and the log says so. Sending is tried a few times; a message that was taken is lost only with the process.

mod mail;
mod sms;

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::mpsc;

pub use mail::MailSettings;
pub use sms::SmsSettings;

use crate::AccessError;

const QUEUE: usize = 1_000;
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);

/// An e-mail in plain text.
pub(crate) struct Mail {
    pub to: String,
    pub subject: &'static str,
    pub text: SecretString,
}

/// A text message.
pub(crate) struct Sms {
    /// E.164.
    pub to: String,
    pub text: SecretString,
}

enum Message {
    Mail(Mail),
    Sms(Sms),
}

/// Hands messages to the task that sends them. The task ends when this is dropped and its queue is empty.
pub(crate) struct Post {
    queue: mpsc::Sender<Message>,
    has_sms: bool,
}

impl Post {
    pub(crate) fn new(mail: &MailSettings, sms: &SmsSettings) -> Result<Self, AccessError> {
        let has_sms = !matches!(sms, SmsSettings::Off);
        let carrier = Arc::new((mail::Mailer::new(mail)?, sms::Texter::new(sms)?));
        let (queue, mut waiting) = mpsc::channel::<Message>(QUEUE);
        tokio::spawn(async move {
            while let Some(message) = waiting.recv().await {
                deliver(&carrier, &message).await;
            }
        });
        Ok(Self { queue, has_sms })
    }

    /// Whether text messages can be sent at all.
    pub(crate) fn has_sms(&self) -> bool {
        self.has_sms
    }

    pub(crate) fn mail(&self, mail: Mail) {
        self.put(Message::Mail(mail));
    }

    pub(crate) fn sms(&self, sms: Sms) {
        self.put(Message::Sms(sms));
    }

    fn put(&self, message: Message) {
        if self.queue.try_send(message).is_err() {
            tracing::error!(waiting = QUEUE, "a message was dropped: more wait to be sent than the queue holds");
        }
    }
}

async fn deliver(carrier: &(mail::Mailer, sms::Texter), message: &Message) {
    for attempt in 1..=TRIES {
        let sent = match message {
            Message::Mail(mail) => carrier.0.send(mail).await,
            Message::Sms(sms) => carrier.1.send(&sms.to, sms.text.expose_secret()).await,
        };
        match sent {
            Ok(()) => return,
            Err(error) if attempt == TRIES => tracing::error!(%error, "a message could not be sent"),
            Err(error) => {
                tracing::warn!(%error, attempt, "a message could not be sent yet");
                tokio::time::sleep(PAUSE * attempt).await;
            }
        }
    }
}
