//! What a request is counted under: its credential, or where it comes from.
//!
//! One client may have a /64 of IPv6 to choose addresses from, and one customer of a provider a whole /48, which are 65,536
//! of them. So a network of IPv6 is counted by itself, and once more with everything around it.

use std::net::{IpAddr, Ipv6Addr};

use super::Quota;

/// How many times the quota of one network those of a /48 have together.
const NETWORKS_AROUND: u32 = 16;

/// Names of counts.
pub(super) struct Keys {
    /// Of the client alone.
    pub client: String,
    /// Of everything around a network of IPv6.
    pub around: Option<String>,
}

impl Keys {
    /// Of somebody who is known.
    pub(super) fn of_credential(client: String) -> Self {
        Self { client, around: None }
    }

    /// Of a client who is known by the network alone; `name` names the count of one.
    pub(super) fn of_network(network: IpAddr, name: impl Fn(&str) -> String) -> Self {
        let around = around(network).map(|prefix| name(&format!("{prefix}/48")));
        Self { client: name(&network.to_string()), around }
    }
}

/// The quota of everything around a network.
pub(super) fn quota_around(quota: Quota) -> Quota {
    Quota { requests: quota.requests.saturating_mul(NETWORKS_AROUND), ..quota }
}

/// The /48 that an address of IPv6 is in. An address of IPv4 is one client's, and counts alone.
fn around(ip: IpAddr) -> Option<Ipv6Addr> {
    let IpAddr::V6(v6) = ip.to_canonical() else { return None };
    let [a, b, c, ..] = v6.segments();
    Some(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use poem::endpoint::make;
    use poem::http::Method;
    use poem::{Request, Response};

    use super::*;
    use crate::client_ip::ClientAddress;
    use crate::limit::{LimitSettings, Limits, RouteRule};

    fn keys(ip: &str) -> (String, Option<String>) {
        let keys = Keys::of_network(ip.parse().unwrap(), |network| format!("login:{network}"));
        (keys.client, keys.around)
    }

    #[test]
    fn networks_of_one_site_share_what_is_around_them_and_nothing_else() {
        let (first, around) = keys("2001:db8:1::");
        let (second, around_too) = keys("2001:db8:1:2::");
        assert_eq!((first.as_str(), second.as_str()), ("login:2001:db8:1::", "login:2001:db8:1:2::"));
        assert_eq!((around.as_deref(), around_too.as_deref()), (Some("login:2001:db8:1::/48"), around.as_deref()));
        assert_ne!(keys("2001:db8:2:2::").1, around);
        for v4 in ["203.0.113.5", "::ffff:203.0.113.5"] {
            assert_eq!(keys(v4).1, None, "{v4}");
        }
    }

    #[tokio::test]
    async fn whoever_has_many_networks_of_one_site_has_sixteen_times_what_one_has() {
        // No window ends while this runs.
        let quota = Quota { name: "login", requests: 2, window: Duration::from_secs(60 * 60) };
        let settings = LimitSettings {
            prefixes: &["/api/v1"],
            rules: vec![RouteRule { method: "POST", path: "/auth/login", quota }],
            anonymous: quota,
            user: quota,
            api_key: quota,
            publishing: vec![],
            owner: None,
        };
        let limits = Limits::new(settings, None);
        let route = make(|_: Request| async { Ok::<_, poem::Error>(Response::default()) });
        let ask = async |ip: &str| {
            let client = ClientAddress(Some(ip.parse().unwrap()));
            let request = Request::builder().method(Method::POST).uri_str("/api/v1/auth/login").extension(client);
            limits.call(&route, request.finish()).await.unwrap().status().as_u16()
        };
        for network in 0..NETWORKS_AROUND {
            for expected in [200, 200, 429] {
                // A refusal of one takes nothing from those around it.
                assert_eq!(ask(&format!("2001:db8:1:{network:x}::5")).await, expected, "{network}");
            }
        }
        for _ in 0..3 {
            assert_eq!(ask("2001:db8:1:ffff::5").await, 429, "a network that has not asked");
        }
        assert_eq!(limits.local.full("login:2001:db8:1:ffff::", quota), None, "what was refused is not counted");
        for elsewhere in ["2001:db8:2::5", "203.0.113.5"] {
            assert_eq!(ask(elsewhere).await, 200, "{elsewhere}");
        }
    }
}
