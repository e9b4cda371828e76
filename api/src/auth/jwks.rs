//! `GET /.well-known/jwks.json`: the public signing keys, for others who check our tokens.

use karat_access::Access;
use poem::http::header;
use poem::{Endpoint, Request, Response, endpoint};

/// The route's endpoint. It answers a plain JWK set (RFC 7517), not the envelope, as its readers expect.
pub fn jwks(access: &Access) -> impl Endpoint<Output = Response> + 'static {
    let access = access.clone();
    endpoint::make_sync(move |_: Request| {
        Response::builder()
            .content_type("application/jwk-set+json")
            // Short, so that a new key is known before the first token that it signs is old.
            .header(header::CACHE_CONTROL, "public, max-age=300")
            .body(access.jwks().to_string())
    })
}
