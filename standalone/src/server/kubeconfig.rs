//! The file that lets kubectl and every other client in, and holds the administrator's token: its text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

/// Where clients on this machine reach a server that listens there.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// A kubeconfig for the administrator of the server at this address; JSON, which is YAML, too.
pub(crate) fn text(address: SocketAddr, authority: &str, token: &str) -> String {
    let name = "ropewalk";
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": name,
        "clusters": [{ "name": name, "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": STANDARD.encode(authority),
        } }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name, "namespace": "default" } }],
        "users": [{ "name": name, "user": { "token": token } }],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_sent_to_an_address_that_exists() {
        for (listening, reached) in [
            ("127.0.0.1:6443", "127.0.0.1:6443"),
            ("0.0.0.0:6443", "127.0.0.1:6443"),
            ("[::]:6443", "[::1]:6443"),
            ("10.0.0.7:1", "10.0.0.7:1"),
        ] {
            assert_eq!(reachable(listening.parse().expect("an address")).to_string(), reached);
        }
    }
}
