//! Logging in through a real OpenID provider; only where `KARAT_TEST_OIDC` names one (dev/services.sh).

use crate::support::{Instance, PASSWORD, account, secret, settings, tokens, who};
use karat_access::{
    Access, AccessError, AccessSettings, Callback, CallbackOutcome, LoginOutcome, NewAccount, Origin, ProviderKind,
    ProviderSettings, Redirect, TokenPair,
};
use std::collections::HashMap;

struct Setup {
    instance: Instance,
    issuer: String,
}

impl Setup {
    /// None, with a line that says so, when no provider is named.
    async fn start() -> Option<Self> {
        let Ok(issuer) = std::env::var("KARAT_TEST_OIDC") else {
            eprintln!("skipped: KARAT_TEST_OIDC names no provider");
            return None;
        };
        let mut instance = Instance::start().await;
        let provider = |name: &str, client: &str| ProviderSettings {
            name: name.to_owned(),
            kind: ProviderKind::Oidc { issuer: issuer.clone() },
            client_id: client.to_owned(),
            client_secret: secret("a secret of the tests"),
        };
        let providers = vec![provider("test", "karat"), provider("second", "other")];
        instance.access = Access::open(AccessSettings { providers, ..settings(&instance.folder) }).await.unwrap();
        Some(Self { instance, issuer })
    }

    async fn begin(&self) -> Redirect {
        self.instance.access.begin_oauth_login("test").await.unwrap()
    }

    async fn finish(&self, callback: Callback) -> Result<CallbackOutcome, AccessError> {
        self.instance.access.finish_oauth(callback, &Origin::default()).await
    }

    async fn log_in(&self, person: &str) -> Result<TokenPair, AccessError> {
        let redirect = self.begin().await;
        let back = visit(&redirect.url, person).await;
        match self.finish(callback(&back, &redirect)).await? {
            CallbackOutcome::Login(outcome) => match *outcome {
                LoginOutcome::Tokens(pair) => Ok(*pair),
                LoginOutcome::MfaRequired { .. } => panic!("no second factor was set up"),
            },
            CallbackOutcome::Linked => panic!("nothing was to be linked"),
        }
    }
}

fn callback(back: &HashMap<String, String>, redirect: &Redirect) -> Callback {
    Callback {
        provider: "test".to_owned(),
        code: secret(&back["code"]),
        state: back["state"].clone(),
        iss: back.get("iss").cloned(),
        cookie: redirect.cookie.clone(),
    }
}

/// A browser: follows the provider's pages, with its cookies, until it is sent back to us; answers the parameters.
async fn visit(url: &str, person: &str) -> HashMap<String, String> {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let mut url = url::Url::parse(&format!("{url}&login_hint={person}")).unwrap();
    let mut cookies = HashMap::<String, String>::new();
    for _ in 0..10 {
        let line = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let answer = client.get(url.clone()).header("cookie", line).send().await.unwrap();
        for cookie in answer.headers().get_all("set-cookie") {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            cookies.insert(name.to_owned(), value.to_owned());
        }
        let Some(location) = answer.headers().get("location") else {
            panic!("{}: {}", answer.status(), answer.text().await.unwrap());
        };
        url = url.join(location.to_str().unwrap()).unwrap();
        if url.host_str() == Some("karat.example.org") {
            return url.query_pairs().into_owned().collect();
        }
    }
    panic!("the provider sends in circles");
}

#[tokio::test]
async fn a_person_gets_an_account_at_the_first_log_in_and_the_same_one_later() {
    let Some(setup) = Setup::start().await else { return };
    let first = setup.log_in("maria").await.unwrap();
    assert_eq!((first.user.email.as_deref(), first.user.is_verified), (Some("maria@example.org"), true));
    let second = setup.log_in("maria").await.unwrap();
    assert_eq!(first.user.id, second.user.id);
    let identities = setup.instance.access.list_identities(first.user.id).await.unwrap();
    assert_eq!((identities.len(), identities[0].subject.as_str()), (1, "maria"));
    assert_ne!(setup.log_in("pedro").await.unwrap().user.id, first.user.id);
}

#[tokio::test]
async fn security_42_and_49_a_callback_counts_once_and_in_the_browser_that_began() {
    let Some(setup) = Setup::start().await else { return };
    let (mine, theirs) = (setup.begin().await, setup.begin().await);
    let back = visit(&theirs.url, "mallory").await;
    // The attacker's address in the victim's browser: another cookie.
    assert!(matches!(setup.finish(callback(&back, &mine)).await, Err(AccessError::CodeRefused)));
    let without = Callback { cookie: secret(""), ..callback(&back, &mine) };
    assert!(matches!(setup.finish(without).await, Err(AccessError::CodeRefused)));
    let elsewhere = Callback { provider: "second".to_owned(), ..callback(&back, &theirs) };
    assert!(matches!(setup.finish(elsewhere).await, Err(AccessError::CodeRefused)));
    let good = callback(&back, &theirs);
    assert!(setup.finish(good).await.is_ok());
    assert!(matches!(setup.finish(callback(&back, &theirs)).await, Err(AccessError::CodeRefused)));
}

#[tokio::test]
async fn security_43_the_code_is_worth_nothing_without_this_attempts_verifier() {
    let Some(setup) = Setup::start().await else { return };
    let (first, second) = (setup.begin().await, setup.begin().await);
    assert!(first.url.contains("code_challenge_method=S256") && first.url.contains("nonce="));
    let stolen = visit(&first.url, "maria").await;
    let mine = visit(&second.url, "mallory").await;
    // Somebody else's code under one's own state: the provider refuses it, for its challenge is another.
    let mixed = Callback { code: secret(&stolen["code"]), ..callback(&mine, &second) };
    assert!(matches!(setup.finish(mixed).await, Err(AccessError::CodeRefused)));
}

#[tokio::test]
async fn security_44_an_answer_of_another_issuer_is_refused() {
    let Some(setup) = Setup::start().await else { return };
    for iss in [Some("https://evil.example.org".to_owned()), None] {
        let redirect = setup.begin().await;
        let back = visit(&redirect.url, "maria").await;
        assert_eq!(back["iss"], setup.issuer);
        let refused = setup.finish(Callback { iss, ..callback(&back, &redirect) }).await;
        assert!(matches!(refused, Err(AccessError::CodeRefused)));
    }
}

#[tokio::test]
async fn security_46_and_48_an_account_with_the_same_address_is_not_joined() {
    let Some(setup) = Setup::start().await else { return };
    let access = &setup.instance.access;
    let squatter = NewAccount { email: Some("maria@example.org".to_owned()), ..account("squatter") };
    let squatter = tokens(access.register(squatter, &Origin::default()).await.unwrap());
    let refused = setup.log_in("maria").await;
    assert!(matches!(refused, Err(AccessError::Taken { field: "email" })), "{refused:?}");
    assert!(access.list_identities(squatter.user.id).await.unwrap().is_empty());
    // An address that the provider did not confirm is not taken over at all.
    let unverified = setup.log_in("eve-unverified").await.unwrap();
    assert_eq!((unverified.user.email, unverified.user.is_verified), (None, false));
}

#[tokio::test]
async fn security_47_and_51_linking_is_for_the_owner_and_the_last_way_in_stays() {
    let Some(setup) = Setup::start().await else { return };
    let (access, origin) = (&setup.instance.access, Origin::default());
    let pair = setup.instance.register("maria_77").await;
    let caller = who(access, &pair).await.unwrap();
    for password in [None, Some(secret("wrong"))] {
        let refused = access.begin_oauth_link(&caller, "test", password, &origin).await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials | AccessError::Invalid(_))));
    }
    let redirect = access.begin_oauth_link(&caller, "test", Some(secret(PASSWORD)), &origin).await.unwrap();
    let back = visit(&redirect.url, "maria").await;
    assert!(matches!(setup.finish(callback(&back, &redirect)).await.unwrap(), CallbackOutcome::Linked));
    assert_eq!(setup.log_in("maria").await.unwrap().user.id, pair.user.id);

    // A log-in that belongs to one account cannot be linked to another.
    let other = setup.instance.register("pedro_12").await;
    let other = who(access, &other).await.unwrap();
    let redirect = access.begin_oauth_link(&other, "test", Some(secret(PASSWORD)), &origin).await.unwrap();
    let back = visit(&redirect.url, "maria").await;
    let refused = setup.finish(callback(&back, &redirect)).await;
    assert!(matches!(refused, Err(AccessError::Taken { field: "identity" })));

    access.unlink_oauth(&caller, "test", Some(secret(PASSWORD)), &origin).await.unwrap();
    let again = access.unlink_oauth(&caller, "test", Some(secret(PASSWORD)), &origin).await;
    assert!(matches!(again, Err(AccessError::NotFound { .. })));
    let only = setup.log_in("ana").await.unwrap();
    let only = who(access, &only).await.unwrap();
    assert!(matches!(access.unlink_oauth(&only, "test", None, &origin).await, Err(AccessError::LastWayIn)));
}
