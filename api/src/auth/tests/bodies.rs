//! Bodies are what the document says: it is made from the types by one library, but another one reads the bodies of
//! requests; and nothing of an answer may be lost when a client reads it by the type that is documented.

use poem_openapi::types::{ParseFromJSON, ToJSON};
use serde::de::DeserializeOwned;

use super::factors::enroll;
use super::oauth::AUTHORIZE;
use super::people::admin;
use super::*;
use crate::auth::account::{PasswordRequest, ProfileRequest};
use crate::auth::consent::{ConsentRequest, ConsentView};
use crate::auth::factors::{
    CodeRequest, EnrolmentView, LinkPhoneRequest, PhoneCodeRequest, PhoneRequest, PhoneRequestView,
    RecoveryCodesRequest, RecoveryCodesView,
};
use crate::auth::oauth::{IdentityView, LinkOauthRequest, PostedCallback, RedirectView};
use crate::auth::passkey_views::{
    AddedPasskeyView, AssertionRequest, NewPasskeyRequest, PasskeyCreationView, PasskeyLoginRequest,
    PasskeyRequestView, PasskeyView,
};
use crate::auth::people_views::{AuditPage, NewUserRequest, RoleRequest, UserChangeRequest, UsersPage};
use crate::auth::recovery::{
    ChangePasswordRequest, EmailRequest, LinkRequest, ResetRequest, StrengthRequest, StrengthView,
};
use crate::auth::session::{MfaLoginRequest, SessionView};
use crate::auth::tickets::TicketView;
use crate::auth::views::{
    ApiKeyView, IssuedKeyView, LoggedOut, LoginRequest, LoginView, NewApiKeyRequest, RefreshRequest, RegisterRequest,
    TokensView, UserView,
};

/// That the document's reader and serde take the same: the whole body, and the body without each of its fields or with
/// another kind of value in it.
fn is_read_alike<T: ParseFromJSON + DeserializeOwned>(whole: &Value) {
    let is_read = |body: &Value| {
        let by_document = T::parse_from_json(Some(body.clone())).is_ok();
        let by_serde = serde_json::from_value::<T>(body.clone()).is_ok();
        assert_eq!(by_document, by_serde, "{} of {body}", T::name());
        by_serde
    };
    assert!(is_read(whole), "{} of {whole}", T::name());
    for field in whole.as_object().unwrap().keys() {
        let mut without = whole.clone();
        without.as_object_mut().unwrap().remove(field);
        is_read(&without);
        let mut other = whole.clone();
        other[field] = json!({"another": "kind"});
        assert!(!is_read(&other), "{} of {other}", T::name());
    }
}

#[test]
fn what_the_document_says_of_a_body_is_what_is_read() {
    let text = "nine-Blue-7-boats";
    is_read_alike::<RegisterRequest>(
        &json!({"username": "maria_77", "email": text, "password": text, "full_name": text}),
    );
    let mut login = json!({"username": "maria_77", "email": text, "password": text, "code": text});
    login["use_cookie"] = true.into();
    login["remember_me"] = false.into();
    is_read_alike::<LoginRequest>(&login);
    is_read_alike::<RefreshRequest>(&json!({"refresh_token": text}));
    is_read_alike::<MfaLoginRequest>(
        &json!({"mfa_token": text, "code": text, "use_cookie": true, "remember_me": true}),
    );
    let key = json!({"name": text, "scopes": ["read"], "expires_in_days": 30, "events_per_second": 7});
    is_read_alike::<NewApiKeyRequest>(&key);
    let names = json!({"username": "maria_77", "email": text, "nickname": text, "full_name": text, "version": 7});
    let with = |field: &str, value: Value| {
        let mut body = names.clone();
        body[field] = value;
        body
    };
    is_read_alike::<ProfileRequest>(&with("current_password", json!(text)));
    is_read_alike::<UserChangeRequest>(&with("is_active", json!(false)));
    is_read_alike::<PasswordRequest>(&json!({"password": text}));
    is_read_alike::<NewUserRequest>(&json!({"username": "maria_77", "email": text, "password": text, "role": "user"}));
    is_read_alike::<RoleRequest>(&json!({"role": "user"}));
    is_read_alike::<ConsentRequest>(&json!({"version": "2026-11", "source": "web"}));

    is_read_alike::<EmailRequest>(&json!({"email": text}));
    is_read_alike::<LinkRequest>(&json!({"token": text}));
    is_read_alike::<ResetRequest>(&json!({"token": text, "new_password": text}));
    is_read_alike::<ChangePasswordRequest>(&json!({"current_password": text, "new_password": text}));
    is_read_alike::<StrengthRequest>(&json!({"password": text, "username": text, "email": text}));

    is_read_alike::<CodeRequest>(&json!({"code": text}));
    is_read_alike::<RecoveryCodesRequest>(&json!({"code": text, "password": text}));
    is_read_alike::<PhoneRequest>(&json!({"phone": text}));
    let code = json!({"phone": text, "code_request": text, "code": text});
    let (mut link, mut verify) = (code.clone(), code);
    link["password"] = text.into();
    is_read_alike::<LinkPhoneRequest>(&link);
    verify["use_cookie"] = true.into();
    verify["remember_me"] = true.into();
    is_read_alike::<PhoneCodeRequest>(&verify);

    is_read_alike::<LinkOauthRequest>(&json!({"provider": "github", "password": text}));
    is_read_alike::<PostedCallback>(&json!({"code": text, "state": text, "iss": text, "error": text}));
    is_read_alike::<NewPasskeyRequest>(&json!({"client_data_json": text, "attestation_object": text, "name": text}));
    is_read_alike::<PasskeyLoginRequest>(&json!({"mfa_token": text}));
    let mut assertion = json!({"login_request": text, "mfa_token": text, "credential_id": text, "user_handle": text});
    for (field, value) in [("client_data_json", json!(text)), ("use_cookie", json!(true)), ("remember_me", json!(true))]
    {
        assertion[field] = value;
    }
    assertion["authenticator_data"] = text.into();
    assertion["signature"] = text.into();
    is_read_alike::<AssertionRequest>(&assertion);
}

/// That a client which reads `data` of an answer by the type that is documented has all of it.
fn is_whole<T: ParseFromJSON + ToJSON>(reply: &Reply) {
    assert!((200..303).contains(&reply.status), "{}", reply.body);
    let data = reply.body["data"].clone();
    let read = T::parse_from_json(Some(data.clone())).unwrap_or_else(|error| panic!("{}: {data}", error.message()));
    assert_eq!(read.to_json(), Some(data), "{}", T::name());
}

#[tokio::test]
async fn answers_are_whole_when_they_are_read_by_their_types() {
    let app = oauth::start().await;
    let root = admin(&app, "root_1", Role::Admin).await;
    let body =
        json!({"username": "maria_77", "email": "maria@example.org", "password": PASSWORD, "full_name": "Maria"});
    let maria = app.post("/api/v1/auth/register", body).await;
    is_whole::<LoginView>(&maria);
    is_whole::<TokensView>(&maria);
    let refresh = json!({"refresh_token": maria.refresh_token()});
    is_whole::<TokensView>(&app.post("/api/v1/auth/refresh", refresh).await);
    let ask =
        async |caller: &Reply, method, path, body| app.call(method, path, Some(caller.access_token()), body).await;
    is_whole::<UserView>(&ask(&maria, Method::GET, "/api/v1/auth/me", None).await);
    is_whole::<Vec<SessionView>>(&ask(&maria, Method::GET, "/api/v1/auth/sessions", None).await);
    is_whole::<TicketView>(&ask(&maria, Method::POST, "/api/v1/auth/ws-ticket", None).await);
    let key = Some(json!({"name": "nightly", "scopes": ["read"], "expires_in_days": 30, "events_per_second": 7}));
    is_whole::<IssuedKeyView>(&ask(&maria, Method::POST, "/api/v1/api-keys", key).await);
    is_whole::<Vec<ApiKeyView>>(&ask(&maria, Method::GET, "/api/v1/api-keys", None).await);
    let consent = Some(json!({"version": "2026-11"}));
    is_whole::<ConsentView>(&ask(&maria, Method::POST, "/api/v1/consent", consent).await);
    is_whole::<UsersPage>(&ask(&root, Method::GET, "/api/v1/users?limit=1", None).await);
    is_whole::<AuditPage>(&ask(&root, Method::GET, "/api/v1/admin/audit?limit=3", None).await);
    let strength = app.post("/api/v1/auth/password-strength", json!({"password": "password"})).await;
    is_whole::<StrengthView>(&strength);
    let asked = app.post("/api/v1/auth/phone/request", json!({"phone": phones::PHONE})).await;
    is_whole::<PhoneRequestView>(&asked);

    is_whole::<RedirectView>(&app.call(Method::GET, AUTHORIZE, None, None).await);
    let by_provider = oauth::log_in(&app).await;
    is_whole::<LoginView>(&by_provider);
    is_whole::<Vec<IdentityView>>(&ask(&by_provider, Method::GET, "/api/v1/auth/oauth/identities", None).await);

    let password = Some(json!({"password": PASSWORD}));
    is_whole::<EnrolmentView>(&ask(&maria, Method::POST, "/api/v1/auth/mfa/totp", password).await);
    let (secret, _) = enroll(&app, maria.access_token()).await;
    let renew = Some(json!({"code": factors::code(&secret, 1), "password": PASSWORD}));
    is_whole::<RecoveryCodesView>(&ask(&maria, Method::POST, "/api/v1/auth/mfa/recovery-codes", renew).await);
    let step = app.post("/api/v1/auth/login", json!({"username": "maria_77", "password": PASSWORD})).await;
    assert_eq!(step.body["data"]["mfa_required"], true, "{}", step.body);
    is_whole::<LoginView>(&step);
    is_whole::<LoggedOut>(&ask(&maria, Method::POST, "/api/v1/auth/logout-all", None).await);
}

#[tokio::test]
async fn answers_about_passkeys_are_whole_when_they_are_read_by_their_types() {
    let app = passkeys::app().await;
    let tokens = app.register("maria_77").await;
    let token = Some(tokens.access_token());
    let (_, added) = passkeys::add(&app, tokens.access_token()).await;
    is_whole::<AddedPasskeyView>(&added);
    let password = Some(json!({"password": PASSWORD}));
    is_whole::<PasskeyCreationView>(&app.call(Method::POST, passkeys::PASSKEYS, token, password).await);
    is_whole::<Vec<PasskeyView>>(&app.call(Method::GET, passkeys::PASSKEYS, token, None).await);
    is_whole::<PasskeyRequestView>(&app.post(&format!("{}/login", passkeys::PASSKEYS), json!({})).await);
}
