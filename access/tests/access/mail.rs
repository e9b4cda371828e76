//! E-mail over SMTP. What reads it back runs only where `KARAT_TEST_SMTP` names a server (dev/services.sh).

use crate::sms::Service;
use crate::support::{Instance, account, settings, tokens};
use karat_access::{Access, AccessSettings, MailSettings, NewAccount, Origin};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_message_reaches_the_mailbox_of_its_address_over_smtp() {
    let (Ok(url), Ok(folder)) = (std::env::var("KARAT_TEST_SMTP"), std::env::var("KARAT_TEST_MAIL_DIR")) else {
        eprintln!("skipped: KARAT_TEST_SMTP names no server");
        return;
    };
    let mut instance = Instance::start().await;
    let mail = MailSettings::Smtp { url: url.into(), from: "Karat <karat@example.org>".to_owned() };
    instance.access = Access::open(AccessSettings { mail, ..settings(&instance.folder) }).await.unwrap();
    let address = format!("maria.{}@example.org", uuid::Uuid::now_v7().simple());
    let account = NewAccount { email: Some(address.clone()), ..account("maria_77") };
    tokens(instance.access.register(account, &Origin::default()).await.unwrap());

    let deadline = Instant::now() + Duration::from_secs(60);
    let text = loop {
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let found = files.into_iter().find(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.starts_with(&address) && name.ends_with(".eml")
        });
        if let Some(path) = found {
            break std::fs::read_to_string(path).unwrap();
        }
        assert!(Instant::now() < deadline, "nothing came");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert!(text.contains("Subject: Confirm your e-mail address"), "{text}");
    assert!(
        text.contains(&format!("To: {address}")) && text.contains("https://karat.example.org/verify-email"),
        "{text}"
    );
}

#[tokio::test]
async fn a_mail_server_that_says_nothing_holds_no_text_message() {
    // The system takes the connections, and nobody ever writes to them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap()).into();
    let mail = MailSettings::Smtp { url, from: "Karat <karat@example.org>".to_owned() };
    let (mut instance, service) = (Instance::start().await, Service::start().await);
    let with_both = AccessSettings { mail, sms: service.settings(), ..settings(&instance.folder) };
    instance.access = Access::open(with_both).await.unwrap();
    // More than are on their way at a time.
    for n in 0..6 {
        let account = NewAccount { email: Some(format!("maria{n}@example.org")), ..account(&format!("maria_{n}")) };
        tokens(instance.access.register(account, &Origin::default()).await.unwrap());
    }
    instance.access.request_phone_code("+34600123456", &Origin::default()).await.unwrap();
    // A mail server is given up after thirty seconds: what waits for the mails comes later.
    let code = tokio::time::timeout(Duration::from_secs(20), service.code_for("+34600123456", 1)).await;
    assert_eq!(code.expect("the text message waits for the mail server").len(), 6);
}
