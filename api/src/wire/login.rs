//! A connection until it is a session: TLS, who it is, and what it is told.
//!
//! The password is an API key: one of an account that asks for a second factor would have no place for it here. It is asked for
//! openly, so only under TLS, or where nobody is on the way.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bytes::BufMut;
use karat_access::{Credential, Lease, Origin, Permission, TokenFault, User};
use karat_http::{ApiError, TlsAcceptor, lease_of};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};

use super::{
    Door,
    cancel::Registered,
    channel::{Broken, Channel, Fields, message, text},
    question::agent,
    refusal::{Refusal, Trouble},
    statement::Facts,
};

/// The longest from a connection to its session.
pub(super) const LOG_IN_WITHIN: Duration = Duration::from_secs(15);
/// The same to the end of looking up its key: what is left is for telling a client that this took too long.
pub(super) const LOOK_UP_WITHIN: Duration = Duration::from_secs(13);

/// First messages that are none of a session.
const CANCEL: i32 = 80_877_102;
const TLS: i32 = 80_877_103;
const GSS: i32 = 80_877_104;
/// Version 3.0.
const VERSION: i32 = 3 << 16;
/// Messages before the one that begins a session: each of the others is answered once.
const MOST_FIRST: usize = 4;
/// Parameters of a beginning.
const MOST_PARAMETERS: usize = 64;

/// What a connection is for.
pub(super) enum Begun {
    Session {
        channel: Channel,
        parameters: BTreeMap<String, String>,
        is_secure: bool,
    },
    /// Breaks a question of another connection off.
    Cancel {
        number: i32,
        secret: i32,
    },
}

/// Reads how a connection begins.
pub(super) async fn begin(mut channel: Channel, tls: Option<&TlsAcceptor>) -> Result<Begun, (Option<Channel>, Broken)> {
    let mut is_secure = false;
    for _ in 0..MOST_FIRST {
        let asked = match first(&mut channel).await {
            Ok(asked) => asked,
            Err(broken) => return Err((Some(channel), broken)),
        };
        match asked {
            First::Tls if is_secure => return Err((Some(channel), Broken::Malformed("there is TLS already"))),
            First::Tls => {
                let answer = if tls.is_some() { b'S' } else { b'N' };
                channel.out().put_u8(answer);
                if let Err(broken) = channel.send().await {
                    return Err((None, broken));
                }
                if let Some(tls) = tls {
                    channel = channel.secured(tls).await.map_err(|broken| (None, broken))?;
                    is_secure = true;
                }
            }
            First::Gss => {
                channel.out().put_u8(b'N');
                if let Err(broken) = channel.send().await {
                    return Err((None, broken));
                }
            }
            First::Cancel { number, secret } => return Ok(Begun::Cancel { number, secret }),
            First::Session(parameters) => return Ok(Begun::Session { channel, parameters, is_secure }),
        }
    }
    Err((Some(channel), Broken::Malformed("too many messages before a session")))
}

enum First {
    Tls,
    Gss,
    Cancel { number: i32, secret: i32 },
    Session(BTreeMap<String, String>),
}

async fn first(channel: &mut Channel) -> Result<First, Broken> {
    let mut fields = channel.first().await?;
    Ok(match fields.int32()? {
        TLS => First::Tls,
        GSS => First::Gss,
        CANCEL => First::Cancel { number: fields.int32()?, secret: fields.int32()? },
        version if version >> 16 == 3 => {
            let parameters = parameters(&mut fields)?;
            let unknown: Vec<&String> = parameters.keys().filter(|name| name.starts_with("_pq_.")).collect();
            if version & 0xffff != 0 || !unknown.is_empty() {
                // Version 3.0 is spoken, without options. PostgreSQL sends both halves of the number, too.
                message(channel.out(), b'v', |out| {
                    out.put_i32(VERSION);
                    out.put_i32(i32::try_from(unknown.len()).unwrap_or(i32::MAX));
                    unknown.iter().for_each(|name| text(out, name));
                });
            }
            First::Session(parameters)
        }
        _ => return Err(Broken::Malformed("only version 3 of the protocol is spoken here")),
    })
}

fn parameters(fields: &mut Fields) -> Result<BTreeMap<String, String>, Broken> {
    let mut parameters = BTreeMap::new();
    loop {
        let name = fields.text()?;
        if name.is_empty() {
            return Ok(parameters);
        }
        if parameters.len() == MOST_PARAMETERS {
            return Err(Broken::Malformed("too many parameters"));
        }
        parameters.insert(name, fields.text()?);
    }
}

/// Who has logged in.
pub(super) struct LoggedIn {
    pub(super) lease: Lease,
    pub(super) key: SecretString,
    pub(super) facts: Facts,
}

/// Asks for the password, and whether whoever sends it may ask questions here, which has to be found out until `looked_up`.
pub(super) async fn log_in(
    channel: &mut Channel,
    parameters: &BTreeMap<String, String>,
    door: &Door,
    client: IpAddr,
    is_secure: bool,
    looked_up: Instant,
) -> Result<LoggedIn, Trouble> {
    if door.needs_tls && !is_secure {
        return Err(Refusal::new("28000", "log in under TLS: set `sslmode=require`, or `verify-full`").into());
    }
    if parameters.get("replication").is_some_and(|value| !["false", "off", "no", "0"].contains(&value.as_str())) {
        return Err(Refusal::new("0A000", "nothing is replicated here").into());
    }
    let name = parameters.get("user").cloned().unwrap_or_default();
    let application = parameters.get("application_name").cloned().unwrap_or_default();
    message(channel.out(), b'R', |out| out.put_i32(3));
    channel.send().await?;
    let (kind, mut fields) = channel.next(false).await?;
    if kind != b'p' {
        return Err(Broken::Malformed("expected a password").into());
    }
    let key = SecretString::from(fields.text()?);
    let origin = Origin::new(Some(client.to_canonical()), Some(&agent(&application)), None);
    let lease = before(looked_up, recognise(door, &name, &key, &origin)).await?;
    let username = lease.caller().username.to_string();
    Ok(LoggedIn { lease, key, facts: Facts { username, application } })
}

/// What is looked up, unless that takes too long.
async fn before<T>(end: Instant, looked_up: impl Future<Output = Result<T, Refusal>>) -> Result<T, Refusal> {
    timeout_at(end, looked_up).await.unwrap_or_else(|_| {
        tracing::debug!("the key of a PostgreSQL client could not be looked up in time");
        Err(Refusal::new("53000", "too much is asked of the accounts at the moment: try again soon"))
    })
}

async fn recognise(door: &Door, name: &str, key: &SecretString, origin: &Origin) -> Result<Lease, Refusal> {
    let access = &door.access;
    let credential = Credential::ApiKey(key.expose_secret());
    let lease = match lease_of(access, door.limits.as_deref(), credential, origin).await {
        Ok(lease) => lease,
        Err(error) if error.status().as_u16() == 401 => return Err(wrong()),
        Err(error) => return Err(error.into()),
    };
    let caller = lease.caller();
    let owner = access.find_user(caller.id).await.map_err(ApiError::from)?;
    let is_name = |own: &str| own.to_lowercase() == name.to_lowercase();
    let is_owner = |owner: &User| is_name(&owner.username) || owner.email.as_deref().is_some_and(is_name);
    if !owner.as_ref().is_some_and(is_owner) {
        access.note_bad_credential(TokenFault::Invalid, origin).await;
        return Err(wrong());
    }
    if !caller.may_call("/query") {
        access.note_route_denied(caller, origin).await;
        return Err(Refusal::new("42501", "the scopes of this API key do not cover the route `/query`"));
    }
    if let Err(error) = caller.require(Permission::Query) {
        access.note_access_denied(caller, Permission::Query, origin).await;
        return Err(ApiError::from(error).into());
    }
    Ok(lease)
}

/// The same for a name that nobody has, a key that does not hold, and a key of another account.
fn wrong() -> Refusal {
    let words =
        "the name or the API key is wrong: the password here is one of the account's API keys with the scope `read`";
    Refusal::new("28P01", words)
}

/// Tells that the session is there.
pub(super) fn welcome(channel: &mut Channel, facts: &Facts, registered: &Registered) {
    let out = channel.out();
    message(out, b'R', |out| out.put_i32(0));
    for name in Facts::AT_ONCE {
        message(out, b'S', |out| {
            text(out, name);
            text(out, &facts.tell(name).unwrap_or_default());
        });
    }
    message(out, b'K', |out| {
        out.put_i32(registered.number);
        out.put_i32(registered.secret);
    });
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_look_up_that_takes_too_long_is_told_while_the_log_in_still_has_time() {
        let rest = LOG_IN_WITHIN.checked_sub(LOOK_UP_WITHIN);
        assert!(rest.is_some_and(|rest| rest >= Duration::from_secs(1)), "{rest:?}");
        let refused = before(Instant::now(), pending::<Result<(), Refusal>>()).await;
        assert_eq!(refused.unwrap_err().sqlstate, "53000");
        assert_eq!(before(Instant::now(), ready(Ok(1))).await, Ok(1), "what is known needs no time");
    }
}
