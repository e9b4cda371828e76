//! A text message service on loopback, in the form that Twilio made common.

use std::sync::Arc;
use std::time::{Duration, Instant};

use karat_access::{Access, AccessSettings, SmsSettings};
use karat_oracle::plain_http::{answer, read_request};
use tokio::net::TcpListener;

use crate::support::{Instance, settings};

/// An instance that sends its messages through a service of its own.
pub async fn with_messages() -> (Instance, Service) {
    let service = Service::start().await;
    let mut instance = Instance::start().await;
    let with_sms = AccessSettings { sms: service.settings(), ..settings(&instance.folder) };
    instance.access = Access::open(with_sms).await.unwrap();
    (instance, service)
}

/// What was posted: request head and form, one text a request.
pub struct Service {
    port: u16,
    requests: Arc<parking_lot::Mutex<Vec<String>>>,
}

impl Service {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::<parking_lot::Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let request = read_request(&mut socket).await;
                seen.lock().push(request);
                answer(&mut socket, "201 Created", "{}").await;
            }
        });
        Self { port, requests }
    }

    pub fn settings(&self) -> SmsSettings {
        SmsSettings::Http {
            base_url: format!("http://127.0.0.1:{}", self.port),
            account: "AC1".to_owned(),
            token: "canary".to_owned().into(),
            from: "+15005550006".to_owned(),
        }
    }

    /// The code in the message to a number that came so many-th.
    pub async fn code_for(&self, number: &str, count: usize) -> String {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let found = self.requests.lock().get(count - 1).cloned();
            if let Some(request) = found {
                assert!(request.starts_with("POST /2010-04-01/Accounts/AC1/Messages.json"), "{request}");
                // `AC1:canary` in base 64.
                assert!(request.to_lowercase().contains("authorization: basic qumxomnhbmfyeq=="), "{request}");
                assert!(
                    request.contains(&format!("To={}&From=%2B15005550006&Body=", number.replace('+', "%2B"))),
                    "{request}"
                );
                let body = request.split("Body=").nth(1).unwrap();
                return body[..6].to_owned();
            }
            assert!(Instant::now() < deadline, "no message came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
