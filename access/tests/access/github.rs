//! Logging in through GitHub, which speaks OAuth 2 only: a stand-in on loopback.

use karat_access::{
    Access, AccessError, AccessSettings, Callback, CallbackOutcome, LoginOutcome, Origin, ProviderKind,
    ProviderSettings, Redirect, TokenPair,
};
use karat_oracle::plain_http::{self, read_request};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Instance, PASSWORD, secret, settings, who};

const GOOD_CODE: &str = "good-code";

/// The site and the API under one address. It answers a wrong code as GitHub does: with status 200.
async fn start_stand_in() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(answer(socket));
        }
    });
    site
}

async fn answer(mut socket: TcpStream) {
    let text = read_request(&mut socket).await;
    let body = match text.split_whitespace().nth(1) {
        Some("/login/oauth/access_token") if text.contains(&format!("code={GOOD_CODE}&")) => {
            r#"{"access_token":"gho_1","scope":"read:user","token_type":"bearer"}"#
        }
        Some("/login/oauth/access_token") => {
            r#"{"error":"bad_verification_code","error_description":"The code is incorrect or expired."}"#
        }
        Some("/user") => r#"{"id":583231,"login":"maria"}"#,
        _ => r#"[{"email":"maria@example.org","primary":true,"verified":true}]"#,
    };
    plain_http::answer(&mut socket, "200 OK", body).await;
}

async fn with_github() -> Instance {
    let site = start_stand_in().await;
    let mut instance = Instance::start().await;
    let providers = vec![ProviderSettings {
        name: "github".to_owned(),
        kind: ProviderKind::GitHub { site: site.clone(), api: site },
        client_id: "karat".to_owned(),
        client_secret: secret("a secret of the tests"),
    }];
    instance.access = Access::open(AccessSettings { providers, ..settings(&instance.folder) }).await.unwrap();
    instance
}

/// Back from the page of the provider, with a code.
async fn come_back(access: &Access, redirect: Redirect, code: &str) -> Result<CallbackOutcome, AccessError> {
    let url: url::Url = redirect.url.parse().unwrap();
    let state = url.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    let callback =
        Callback { provider: "github".to_owned(), code: secret(code), state, iss: None, cookie: redirect.cookie };
    access.finish_oauth(callback, &Origin::default()).await
}

async fn log_in(access: &Access, code: &str) -> Result<TokenPair, AccessError> {
    let redirect = access.begin_oauth_login("github").await?;
    match come_back(access, redirect, code).await? {
        CallbackOutcome::Login(outcome) => match *outcome {
            LoginOutcome::Tokens(pair) => Ok(*pair),
            LoginOutcome::MfaRequired { .. } => panic!("no second factor was set up"),
        },
        CallbackOutcome::Linked => panic!("nothing was to be linked"),
    }
}

#[tokio::test]
async fn a_code_that_github_refuses_with_status_200_is_refused() {
    let instance = with_github().await;
    let refused = log_in(&instance.access, "bad-code").await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    assert!(instance.access.list_users(None, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_person_of_github_gets_one_account_with_the_verified_address() {
    let instance = with_github().await;
    let first = log_in(&instance.access, GOOD_CODE).await.unwrap();
    assert_eq!((first.user.email.as_deref(), first.user.is_verified), (Some("maria@example.org"), true));
    let second = log_in(&instance.access, GOOD_CODE).await.unwrap();
    assert_eq!(first.user.id, second.user.id);
    let identities = instance.access.list_identities(first.user.id).await.unwrap();
    assert_eq!((identities.len(), identities[0].subject.as_str()), (1, "583231"));
}

#[tokio::test]
async fn security_26_and_47_a_link_that_a_session_began_dies_with_the_session() {
    let instance = with_github().await;
    let (access, origin) = (&instance.access, Origin::default());
    let pair = instance.register("maria_77").await;
    let caller = who(access, &pair).await.unwrap();
    let redirect = access.begin_oauth_link(&caller, "github", Some(secret(PASSWORD)), &origin).await.unwrap();
    access.logout(&caller, &origin).await.unwrap();
    let refused = come_back(access, redirect, GOOD_CODE).await;
    assert!(matches!(refused, Err(AccessError::CodeRefused)), "{refused:?}");
    assert!(access.list_identities(caller.id).await.unwrap().is_empty());

    let pair = instance.login("maria_77", PASSWORD).await.unwrap();
    let caller = who(access, &pair).await.unwrap();
    let redirect = access.begin_oauth_link(&caller, "github", Some(secret(PASSWORD)), &origin).await.unwrap();
    assert!(matches!(come_back(access, redirect, GOOD_CODE).await.unwrap(), CallbackOutcome::Linked));
    assert_eq!(log_in(access, GOOD_CODE).await.unwrap().user.id, pair.user.id);
}
