//! E-mail over SMTP; only where `KARAT_TEST_SMTP` names a server (dev/services.sh).

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

    let deadline = Instant::now() + Duration::from_secs(20);
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
