//! Which name servers pods ask. Pure.

use std::net::IpAddr;

/// What pods with a network of their own find as `/etc/resolv.conf`: the machine's file, or, where that leads to a server
/// on the machine's loopback, which is not theirs, the one that lists the servers behind it. `None` where pods have no
/// server to ask.
pub(crate) fn resolv_conf<'a>(own: &'a str, behind: Option<&'a str>) -> Option<&'a str> {
    [Some(own), behind].into_iter().flatten().find(|text| servers(text).any(|server| !server.is_loopback()))
}

fn servers(text: &str) -> impl Iterator<Item = IpAddr> {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        // An IPv6 address may name the device it holds on, which pods do not have.
        words.next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_ask_servers_that_they_reach() {
        let (far, near) =
            ("# x\nnameserver 192.0.2.53\nsearch a\n", "nameserver 127.0.0.53\noptions edns0\n");
        let mixed = "nameserver ::1\nnameserver 2001:db8::1\n";
        for (own, behind, expected) in [
            (far, None, Some(far)),
            (far, Some(near), Some(far)),
            (near, Some(far), Some(far)),
            (mixed, Some(far), Some(mixed)),
            (near, None, None),
            (near, Some(near), None),
            ("", Some(far), Some(far)),
            ("nameserver fe80::1%eth0\n", None, None),
        ] {
            assert_eq!(resolv_conf(own, behind), expected, "{own:?} {behind:?}");
        }
    }
}
