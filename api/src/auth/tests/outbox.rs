//! What was mailed: each message is a file in the outbox of the application.

use std::time::Instant;

use super::*;

/// Whole messages with plain lines, oldest first.
pub(super) fn mails(app: &App) -> Vec<String> {
    let files = std::fs::read_dir(app.folder.path().join("outbox")).into_iter().flatten();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    files.sort();
    // Quoted-printable breaks long lines and writes `=` as `=3D`.
    let plain = |text: String| text.replace("=\r\n", "").replace("=3D", "=");
    files.iter().map(|path| plain(std::fs::read_to_string(path).unwrap())).collect()
}

/// Waits until so many messages have a text in them; answers the last of these.
pub(super) async fn mail_with(app: &App, text: &str, count: usize) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = mails(app).into_iter().filter(|mail| mail.contains(text)).nth(count - 1);
        if let Some(mail) = found {
            return mail;
        }
        assert!(Instant::now() < deadline, "{count} mails with `{text}` in {:?}", mails(app));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a message and takes the token out of its link.
pub(super) async fn mailed_token(app: &App, subject: &str) -> String {
    token_of(&mail_with(app, subject, 1).await)
}

pub(super) fn token_of(mail: &str) -> String {
    let token = mail.split("#token=").nth(1).unwrap();
    token.chars().take_while(char::is_ascii_hexdigit).collect()
}
