//! HTTPS with an authority of its own. Makes keys from the system's randomness, and asks it what this machine is called; no
//! other IO.
//!
//! The authority is kept, so that clients and pods go on trusting the server when it starts again; its certificate is
//! made anew at each start. So nothing has to be renewed, and the certificates have the library's distant dates.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use nix::{ifaddrs, unistd};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;

/// Names that clients may know the server by, besides its addresses: this machine, and what pods call it.
const NAMES: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Addresses of this machine in a certificate: more are those of other programs' containers, and a client reads them all.
const ADDRESSES: usize = 64;

/// The first line of a certificate in PEM.
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// Why there is no certificate. The texts are the libraries', which name no key material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key generation or signing failed.
    #[error("cannot issue the server's certificate")]
    Issue(#[from] rcgen::Error),
    /// The TLS library refused it.
    #[error("cannot set up HTTPS")]
    Setup(#[from] rustls::Error),
}

/// Who vouches for the server's certificate.
pub struct Authority {
    /// Key and certificate, PEM.
    text: String,
    key: KeyPair,
}

impl Authority {
    /// A new one.
    pub fn generate() -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let certificate = Self::params().self_signed(&key)?;
        Ok(Self { text: key.serialize_pem() + &certificate.pem(), key })
    }

    /// The one with this [`text`](Self::text).
    pub fn from_text(text: String) -> Result<Self, TlsError> {
        Ok(Self { key: KeyPair::from_pem(&text)?, text })
    }

    /// Everything there is to keep: the private key, too.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What clients trust, PEM.
    pub fn certificate(&self) -> &str {
        self.text.find(BEGIN).map_or("", |start| &self.text[start..])
    }

    /// Who issues is known by name and key alone, so nothing has to be read from the certificate.
    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, "ropewalk-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }
}

/// A server's certificate, and the authority that vouches for it.
pub struct Identity {
    /// The authority, PEM.
    pub authority: String,
    /// TLS 1.2 and 1.3, for HTTP/1.1 only: each watch is a connection of its own, which bounds what one client takes.
    pub config: Arc<ServerConfig>,
}

impl Identity {
    /// A new one for this machine's loopback addresses and these. The unspecified one stands for all that it has, and its
    /// name.
    pub fn issue(authority: &Authority, addresses: &[IpAddr]) -> Result<Self, TlsError> {
        let params = Authority::params();
        let (leaf, leaf_key) = leaf(addresses, &Issuer::from_params(&params, &authority.key))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::Pkcs8(leaf_key.serialize_der().into()),
            )?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { authority: authority.certificate().to_owned(), config: Arc::new(config) })
    }
}

/// What clients may call the server.
fn hosts(addresses: &[IpAddr]) -> Vec<String> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let mut hosts: Vec<String> = NAMES.map(str::to_owned).into();
    hosts.extend(loopback.map(|address| address.to_string()));
    let is_named = |address: &&IpAddr| !address.is_loopback() && !address.is_unspecified();
    hosts.extend(addresses.iter().filter(is_named).map(IpAddr::to_string));
    if addresses.iter().any(IpAddr::is_unspecified) {
        // Those of networks that come later are in the next certificate.
        let own = ifaddrs::getifaddrs().into_iter().flatten().filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
        });
        hosts.extend(
            own.filter(|address| is_named(&address)).map(|address| address.to_string()).take(ADDRESSES),
        );
        let name = unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        hosts.extend(name.filter(|name| !name.is_empty() && name.is_ascii()));
    }
    hosts
}

fn leaf(
    addresses: &[IpAddr],
    issuer: &Issuer<'_, &KeyPair>,
) -> Result<(rcgen::Certificate, KeyPair), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(hosts(addresses))?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "ropewalk");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate, key))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn who_listens_everywhere_goes_by_all_names() {
        let everywhere = hosts(&[Ipv4Addr::UNSPECIFIED.into()]);
        let name = unistd::gethostname().expect("a name").into_string().expect("text");
        assert!(everywhere.contains(&name), "{everywhere:?}");
        // Nothing is sent; without a route there is no address that others could use.
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        if socket.connect("192.0.2.1:9").is_ok() {
            let address = socket.local_addr().expect("an address").ip().to_string();
            assert!(everywhere.contains(&address), "{everywhere:?} lacks {address}");
        }
        let key = KeyPair::generate().expect("a key");
        let params = Authority::params();
        leaf(&[Ipv4Addr::UNSPECIFIED.into()], &Issuer::from_params(&params, &key)).expect("a certificate");
    }

    #[test]
    fn who_listens_at_one_address_goes_by_that() {
        let address = Ipv4Addr::new(198, 51, 100, 7);
        let mut expected: Vec<String> = NAMES.map(str::to_owned).into();
        expected.extend(["127.0.0.1", "::1", "198.51.100.7"].map(str::to_owned));
        assert_eq!(hosts(&[address.into(), Ipv4Addr::LOCALHOST.into()]), expected);
    }
}
