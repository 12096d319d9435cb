//! The file that lets kubectl and every other client in, and holds the administrator's token. Writes it, no other IO.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

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

/// Puts the file in place in one step, and at no moment readable to anybody but its owner.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Made anew, so that neither its mode nor what a link points at is somebody else's choice.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn nobody_else_reads_it_whatever_was_there() {
        let root = tempfile::tempdir().expect("a directory");
        let (path, elsewhere) = (root.path().join("kubeconfig"), root.path().join("elsewhere"));
        fs::write(&path, "old").expect("written");
        fs::write(&elsewhere, "untouched").expect("written");
        std::os::unix::fs::symlink(&elsewhere, root.path().join("kubeconfig.new")).expect("linked");
        write(&path, "new").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("read"), "new");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&elsewhere).expect("read"), "untouched");
    }

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
