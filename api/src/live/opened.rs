//! [`Opened`]: who opens a connection that stays open, as an argument of a handler.

use karat_access::Lease;
use karat_http::{Authenticated, lease};
use poem::{Request, RequestBody, Result};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, registry::Registry};
use secrecy::SecretString;
use url::form_urlencoded;

/// The name of the parameter in which a ticket is.
const TICKET: &str = "ticket";

/// A caller by token, key or ticket, with the lease that the connection goes on by.
pub struct Opened {
    pub(super) lease: Lease,
}

impl<'a> ApiExtractor<'a> for Opened {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        <Authenticated as ApiExtractor<'a>>::register(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        <Authenticated as ApiExtractor<'a>>::security_schemes()
    }

    async fn from_request(
        request: &'a Request,
        _body: &mut RequestBody,
        _options: ExtractParamOptions<Self::ParamType>,
    ) -> Result<Self> {
        Ok(Self { lease: lease(request, ticket_of(request).as_ref()).await? })
    }
}

fn ticket_of(request: &Request) -> Option<SecretString> {
    let query = request.uri().query().unwrap_or_default();
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == TICKET).map(|(_, value)| value.into_owned().into())
}
