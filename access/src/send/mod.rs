//! Messages to people: e-mail and SMS.
//!
//! [`Post`] takes a message and returns at once: whether an address is known must not show in the time of an answer,
//! and a slow mail server must not hold requests. A bounded queue stands between, one for each kind, so that neither
//! waits for the other's server; when it is full, a message is dropped and the log says so. Sending is tried a few times;
//! a message that was taken is lost only with the process.

mod mail;
mod sms;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use mail::MailSettings;
pub use sms::SmsSettings;

use crate::AccessError;

/// Messages of a kind that wait.
const QUEUE: usize = 1_000;
/// Messages of a kind on their way at a time: one that hangs does not hold those behind it.
const AT_A_TIME: usize = 4;
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

/// What takes messages of one kind to their server.
trait Carrier: Send + Sync + 'static {
    type Message: Send + Sync + 'static;

    fn send(&self, message: &Self::Message) -> impl Future<Output = Result<(), AccessError>> + Send;
}

/// Hands messages to the tasks that send them. A task ends when this is dropped and its queue is empty.
pub(crate) struct Post {
    mails: mpsc::Sender<Mail>,
    texts: mpsc::Sender<Sms>,
    has_sms: bool,
}

impl Post {
    pub(crate) fn new(mail: &MailSettings, sms: &SmsSettings) -> Result<Self, AccessError> {
        let has_sms = !matches!(sms, SmsSettings::Off);
        let (mailer, texter) = (mail::Mailer::new(mail)?, sms::Texter::new(sms)?);
        Ok(Self { mails: start(mailer), texts: start(texter), has_sms })
    }

    /// Whether text messages can be sent at all.
    pub(crate) fn has_sms(&self) -> bool {
        self.has_sms
    }

    pub(crate) fn mail(&self, mail: Mail) {
        put(&self.mails, mail);
    }

    pub(crate) fn sms(&self, sms: Sms) {
        put(&self.texts, sms);
    }
}

fn put<M>(queue: &mpsc::Sender<M>, message: M) {
    if queue.try_send(message).is_err() {
        tracing::error!(waiting = QUEUE, "a message was dropped: more wait to be sent than the queue holds");
    }
}

/// Starts the task of one kind of message; answers its queue.
fn start<C: Carrier>(carrier: C) -> mpsc::Sender<C::Message> {
    let (queue, mut waiting) = mpsc::channel::<C::Message>(QUEUE);
    let carrier = Arc::new(carrier);
    tokio::spawn(async move {
        let mut under_way = JoinSet::new();
        while let Some(message) = waiting.recv().await {
            while under_way.len() >= AT_A_TIME {
                under_way.join_next().await;
            }
            let carrier = carrier.clone();
            under_way.spawn(async move { deliver(carrier.as_ref(), &message).await });
        }
        while under_way.join_next().await.is_some() {}
    });
    queue
}

async fn deliver<C: Carrier>(carrier: &C, message: &C::Message) {
    for attempt in 1..=TRIES {
        match carrier.send(message).await {
            Ok(()) => return,
            Err(error) if attempt == TRIES => tracing::error!(%error, "a message could not be sent"),
            Err(error) => {
                tracing::warn!(%error, attempt, "a message could not be sent yet");
                tokio::time::sleep(PAUSE * attempt).await;
            }
        }
    }
}
