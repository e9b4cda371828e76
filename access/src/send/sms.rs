//! Text messages: through an HTTP service in the form that Twilio made common, or into the log while developing.

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::{Carrier, Sms};
use crate::AccessError;

const TIMEOUT: Duration = Duration::from_secs(10);

/// How text messages leave.
#[derive(Debug, Clone)]
pub enum SmsSettings {
    /// They do not: routes that need them answer so.
    Off,
    /// Into the log, codes and all. For development only.
    Log,
    /// `POST {base_url}/2010-04-01/Accounts/{account}/Messages.json` with `To`, `From` and `Body`.
    Http {
        /// Address of the service without a path.
        base_url: String,
        /// Name of the account, and user name of the request.
        account: String,
        /// Password of the request.
        token: SecretString,
        /// The sender's number in E.164.
        from: String,
    },
}

pub(super) struct Texter {
    settings: SmsSettings,
    client: Option<reqwest::Client>,
}

impl Texter {
    pub(super) fn new(settings: &SmsSettings) -> Result<Self, AccessError> {
        let client = match settings {
            SmsSettings::Http { .. } => {
                // A service that sends us elsewhere would get the account's password there.
                let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
                Some(builder.build().map_err(failed)?)
            }
            _ => None,
        };
        Ok(Self { settings: settings.clone(), client })
    }
}

impl Carrier for Texter {
    type Message = Sms;

    async fn send(&self, sms: &Sms) -> Result<(), AccessError> {
        let (to, text) = (sms.to.as_str(), sms.text.expose_secret());
        match (&self.settings, &self.client) {
            (SmsSettings::Http { base_url, account, token, from }, Some(client)) => {
                let url = format!("{}/2010-04-01/Accounts/{account}/Messages.json", base_url.trim_end_matches('/'));
                let form = url::form_urlencoded::Serializer::new(String::new())
                    .append_pair("To", to)
                    .append_pair("From", from)
                    .append_pair("Body", text)
                    .finish();
                let request = client
                    .post(url)
                    .basic_auth(account, Some(token.expose_secret()))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(form);
                let status = request.send().await.map_err(|error| failed(error.without_url()))?.status();
                if status.is_success() { Ok(()) } else { Err(failed(format!("the service answered {status}"))) }
            }
            (SmsSettings::Log, _) => {
                tracing::info!(to, text, "an SMS would be sent");
                Ok(())
            }
            _ => Err(failed("no service is set up")),
        }
    }
}

fn failed(reason: impl fmt::Display) -> AccessError {
    AccessError::Delivery { what: "SMS", reason: reason.to_string() }
}
