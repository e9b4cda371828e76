//! What counts as a way into an account depends on what is set up.

use crate::passkeys::add_passkey;
use crate::support::{Instance, secret, settings, tamper, who};
use karat_access::{Access, AccessError, AccessSettings, Origin, ProviderKind, ProviderSettings, SmsSettings};
use karat_oracle::passkeys::Page;

const WITHOUT_PASSWORD: &str = "UPDATE users SET password_hash = NULL, phone = '+34600123456'";
const IDENTITY: &str = "INSERT INTO identities (id, user_id, provider, issuer, subject, created_at, last_used_at) \
                        SELECT '01900000-0000-7000-8000-000000000001', id, 'test', 'https://id.example.org', 'maria', 1, 1 \
                        FROM users";

#[tokio::test]
async fn security_51_a_way_in_that_is_not_set_up_here_is_none() {
    let instance = Instance::start().await;
    let caller = who(&instance.access, &instance.register("maria_77").await).await.unwrap();
    let (_, passkey) = add_passkey(&instance.access, &caller, &Page::of("karat.example.org")).await;
    tamper(&instance.folder, WITHOUT_PASSWORD).await.unwrap();
    tamper(&instance.folder, IDENTITY).await.unwrap();
    let here = settings(&instance.folder);
    let origin = Origin::default();

    // No code reaches the number, and the provider is not configured.
    let silent = Access::open(AccessSettings { sms: SmsSettings::Off, ..here.clone() }).await.unwrap();
    let refused = silent.remove_passkey(&caller, passkey.id, None, &origin).await;
    assert!(matches!(refused, Err(AccessError::LastWayIn)), "{refused:?}");
    // No passkey works at an address without a name.
    let nameless = AccessSettings { public_url: "http://127.0.0.1:8080".to_owned(), ..here.clone() };
    let nameless = Access::open(nameless).await.unwrap();
    let refused = nameless.unlink_phone(&caller, None, &origin).await;
    assert!(matches!(refused, Err(AccessError::LastWayIn)), "{refused:?}");

    let provider = ProviderSettings {
        name: "test".to_owned(),
        kind: ProviderKind::Oidc { issuer: "https://id.example.org".to_owned() },
        client_id: "karat".to_owned(),
        client_secret: secret("a secret of the tests"),
    };
    let linked = AccessSettings { sms: SmsSettings::Off, providers: vec![provider], ..here };
    let linked = Access::open(linked).await.unwrap();
    linked.remove_passkey(&caller, passkey.id, None, &origin).await.unwrap();
    let refused = linked.unlink_oauth(&caller, "test", None, &origin).await;
    assert!(matches!(refused, Err(AccessError::LastWayIn)), "{refused:?}");
}
