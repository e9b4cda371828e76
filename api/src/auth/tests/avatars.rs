//! Pictures of accounts, wherever they are kept: in a folder, and in a bucket of the S3 server that the environment names.

use futures::TryStreamExt;
use karat_lake::objects;
use karat_oracle::s3::S3Server;

use super::*;
use crate::auth::AvatarSettings;
use crate::auth::avatars::scanner_stand_in;

/// Pictures at a location, looked at by nobody.
pub(super) async fn at(location: &str) -> AvatarSettings {
    AvatarSettings { store: objects::open(location).await.unwrap(), scanner: None }
}

/// A picture.
pub(super) fn png() -> Vec<u8> {
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(20, 20).write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

pub(super) async fn send(app: &App, token: &str, method: Method, media: &str, body: Vec<u8>) -> Reply {
    let request = Request::builder().method(method).uri_str("/api/v1/users/avatar").content_type(media);
    app.send(request.header("authorization", format!("Bearer {token}")).body(body)).await
}

async fn app_with(avatars: AvatarSettings) -> App {
    App::start_with(AuthSettings { avatars: Some(avatars), ..AuthSettings::without_limits() }).await
}

async fn count(avatars: &AvatarSettings) -> usize {
    avatars.store.list(None).try_collect::<Vec<_>>().await.unwrap().len()
}

#[tokio::test]
async fn a_picture_is_set_served_under_its_name_replaced_and_removed_wherever_pictures_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut places = vec![folder.path().to_str().unwrap().to_owned()];
    let name = format!("avatars-{}", uuid::Uuid::new_v4().simple());
    places.extend(S3Server::reached().map(|server| server.lake(&name)));
    for place in places {
        let avatars = at(&place).await;
        let app = app_with(avatars.clone()).await;
        let tokens = app.register("maria_77").await;
        let send = async |method: Method, media: &str, body: Vec<u8>| {
            send(&app, tokens.access_token(), method, media, body).await
        };
        assert_eq!(send(Method::POST, "image/svg+xml", png()).await.status, 415, "{place}");
        let set = send(Method::POST, "image/png", png()).await;
        assert_eq!(set.status, 200, "{place}: {}", set.body);
        let url = set.text("/data/avatar_url").to_owned();
        let read = async |url: &str| app.endpoint.get_response(Request::builder().uri_str(url).finish()).await;
        let mut picture = read(&url).await;
        assert_eq!(picture.headers()["content-type"], "image/jpeg");
        assert_eq!(picture.headers()["x-content-type-options"], "nosniff");
        let bytes = picture.take_body().into_vec().await.unwrap();
        assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 20, "{place}");
        let replaced = send(Method::POST, "image/png", png()).await;
        assert_ne!(replaced.text("/data/avatar_url"), url);
        assert_eq!(read(&url).await.status().as_u16(), 404, "{place}");
        assert_eq!(count(&avatars).await, 1, "{place}");
        // What another process on the same place has set is served too.
        let other = app_with(at(&place).await).await;
        let there = Request::builder().uri_str(replaced.text("/data/avatar_url")).finish();
        assert_eq!(other.endpoint.get_response(there).await.status().as_u16(), 200, "{place}");
        assert_eq!(send(Method::DELETE, "image/png", Vec::new()).await.status, 200, "{place}");
        assert_eq!(count(&avatars).await, 0, "{place}");
    }
}

#[tokio::test]
async fn what_the_scanner_refuses_or_did_not_look_at_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let place = at(folder.path().to_str().unwrap()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let infected = [png(), b"virus".to_vec()].concat();
    for (scanner, body, status, code) in [
        (free, png(), 503, Some("scanner_unavailable")),
        (scanner_stand_in().await, infected, 422, Some("validation_error")),
        (scanner_stand_in().await, png(), 200, None),
    ] {
        let app = app_with(AvatarSettings { scanner: Some(scanner), ..place.clone() }).await;
        let tokens = app.register("maria_77").await;
        let reply = send(&app, tokens.access_token(), Method::POST, "image/png", body).await;
        assert_eq!((reply.status, reply.body["code"].as_str()), (status, code), "{}", reply.body);
        assert_eq!(count(&place).await, usize::from(status == 200));
        let me = app.me(tokens.access_token()).await;
        assert_eq!(me.body["data"].get("avatar_url").is_some(), status == 200, "{}", me.body);
    }
}

#[tokio::test]
async fn while_the_place_of_pictures_fails_they_are_answered_with_503_and_accounts_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    let app = app_with(at(pictures.to_str().unwrap()).await).await;
    let tokens = app.register("maria_77").await;
    let set = send(&app, tokens.access_token(), Method::POST, "image/png", png()).await;
    let url = set.text("/data/avatar_url");
    std::fs::remove_dir_all(&pictures).unwrap();
    std::fs::write(&pictures, "in the way").unwrap();
    let refused = send(&app, tokens.access_token(), Method::POST, "image/png", png()).await;
    assert_eq!((refused.status, refused.text("/code")), (503, "pictures_unavailable"), "{}", refused.body);
    assert!(refused.headers.contains_key("retry-after"));
    let read = app.call(Method::GET, url, None, None).await;
    assert_eq!((read.status, read.text("/code")), (503, "pictures_unavailable"), "{}", read.body);
    assert_eq!(app.me(tokens.access_token()).await.text("/data/avatar_url"), url);
}

#[tokio::test]
async fn reads_of_pictures_have_a_quota_of_their_own_whoever_reads() {
    let app = App::start_with(AuthSettings::default()).await;
    let tokens = app.register("maria_77").await;
    for (read, credential) in [None, Some(tokens.access_token()), Some("kk_00_00")].into_iter().enumerate() {
        let reply = app.call(Method::GET, &format!("/api/v1/avatars/{read}.png"), credential, None).await;
        assert_eq!(reply.headers["ratelimit-policy"], "\"pictures\";q=6000;w=3600", "{credential:?}");
        let left = reply.headers["ratelimit"].to_str().unwrap();
        assert!(left.starts_with(&format!("\"pictures\";r={};", 5_999 - read)), "{credential:?}: {left}");
    }
}
