//! The port for PostgreSQL clients (`--postgres-listen`), which only binaries have that are built with the feature `postgres-wire`.

use std::net::SocketAddr;

use karat_access::Access;
use karat_api::{ApiSettings, Doors};
use karat_http::ServeSettings;

use crate::failure::{Failure, Result};

/// Adds the port to the doors, when there is to be one.
#[cfg(feature = "postgres-wire")]
pub fn open(
    address: Option<SocketAddr>,
    doors: Doors,
    access: &Access,
    api: &ApiSettings,
    serving: &ServeSettings,
) -> Result<Doors> {
    let Some(address) = address else { return Ok(doors) };
    let port = karat_api::wire::Port::bind(address, access.clone(), api, serving).map_err(|error| {
        Failure::configuration(format!("`server.postgres_listen`: cannot listen on `{address}`: {error}"))
    })?;
    Ok(doors.with_postgres(port))
}

/// Refuses a setting that this binary cannot follow.
#[cfg(not(feature = "postgres-wire"))]
pub fn open(
    address: Option<SocketAddr>,
    doors: Doors,
    _access: &Access,
    _api: &ApiSettings,
    _serving: &ServeSettings,
) -> Result<Doors> {
    match address {
        None => Ok(doors),
        Some(_) => Err(Failure::configuration(
            "`server.postgres_listen`: this binary has no port for PostgreSQL clients: leave the setting out, or build with \
             `--features postgres-wire`",
        )),
    }
}
