//! The client's address, as the connection itself says.

use std::net::{IpAddr, Ipv6Addr};

use poem::Request;

/// The address of the peer. Forwarding headers are not believed: without a list of trusted proxies, anyone could
/// write them.
pub fn client_ip(request: &Request) -> Option<IpAddr> {
    request.remote_addr().as_socket_addr().map(|address| address.ip().to_canonical())
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
