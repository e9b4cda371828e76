//! The client's address: what the connection says, or what a trusted proxy in front says.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use poem::Request;
use poem::http::HeaderMap;

/// The address that [`crate::harden_with`] found, kept with the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub Option<IpAddr>);

/// The address of the client. Forwarding headers count only when the peer is a trusted proxy: anyone could write them.
pub fn client_ip(request: &Request) -> Option<IpAddr> {
    match request.data::<ClientAddress>() {
        Some(ClientAddress(found)) => *found,
        None => peer_ip(request),
    }
}

fn peer_ip(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical())
}

/// Networks of proxies whose `X-Forwarded-For` is believed. Empty by default.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Arc<[Network]>);

#[derive(Debug, Clone, Copy)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl TrustedProxies {
    /// The client of a request: from the right of `X-Forwarded-For`, the first address that is no trusted proxy.
    /// What stands further left was written by the client itself.
    pub(crate) fn client_of(&self, request: &Request) -> Option<IpAddr> {
        Some(self.client_behind(peer_ip(request)?, request.headers()))
    }

    fn client_behind(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let lines = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
        let lines: Vec<&str> = lines.collect();
        let mut hops = lines.iter().flat_map(|line| line.split(',')).rev();
        while self.trusts(client) {
            // A proxy that writes something else than an address is not followed further.
            let Some(Ok(next)) = hops.next().map(|hop| hop.trim().parse::<IpAddr>()) else { break };
            client = next.to_canonical();
        }
        client
    }

    /// Whether this is the address of a proxy that is believed.
    pub(crate) fn trusts(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(ip))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Addresses and networks such as `10.0.0.0/8`, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self(parts.map(Network::from_str).collect::<Result<Vec<_>, _>>()?.into()))
    }
}

impl Network {
    fn contains(&self, ip: IpAddr) -> bool {
        let same_start = |a: u128, b: u128, width: u32| {
            let shift = width - u32::from(self.bits);
            self.bits == 0 || a >> shift == b >> shift
        };
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same_start(u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same_start(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{}` is no network: expected an address such as `10.0.0.1` or `10.0.0.0/8`", text.escape_debug())
        };
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(widest), str::parse).map_err(|_| wrong())?;
        if bits > widest { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

/// What limits count by: an IPv4 address, or the /64 network of an IPv6 address, since one client owns all of that.
pub(crate) fn limit_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let s = v6.segments();
            IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &str, peer: &str, forwarded: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        headers.insert("x-real-ip", "9.9.9.9".parse().unwrap());
        headers.insert("forwarded", "for=9.9.9.9".parse().unwrap());
        let proxies: TrustedProxies = proxies.parse().unwrap();
        proxies.client_behind(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn security_18_headers_of_anyone_but_a_trusted_proxy_change_nothing() {
        assert_eq!(client("", "203.0.113.5", &["1.1.1.1"]), "203.0.113.5");
        assert_eq!(client("10.0.0.0/8", "203.0.113.5", &["1.1.1.1"]), "203.0.113.5");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &[]), "10.1.2.3");
    }

    #[test]
    fn behind_proxies_the_client_is_the_last_address_that_is_none_of_them() {
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &["6.6.6.6, 203.0.113.5"]), "203.0.113.5");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &["6.6.6.6", "203.0.113.5, 10.9.9.9"]), "203.0.113.5");
        assert_eq!(client("10.0.0.0/8", "10.1.2.3", &["6.6.6.6, nonsense"]), "10.1.2.3");
        assert_eq!(client("fd00::/8, 127.0.0.1", "127.0.0.1", &["2001:db8::7, fd00::1"]), "2001:db8::7");
    }

    #[test]
    fn networks_that_are_none_are_refused() {
        for bad in ["10.0.0.0/33", "10.0.0", "x", "10.0.0.0/-1", "::/129", "10.0.0.0/8/8"] {
            assert!(bad.parse::<TrustedProxies>().is_err(), "{bad}");
        }
    }
}
