//! What the Secret holds, read and checked. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use pem::{EncodeConfig, LineEnding, Pem};
use rcgen::{KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use x509_cert::der::{Decode, Encode};

use super::Service;

/// The Secret's keys; upstream's, but for the last one.
pub(crate) const SERVER_KEY: &str = "server-key.pem";
/// The leaf.
pub(crate) const SERVER_CERT: &str = "server-cert.pem";
/// The authorities to trust, the one that signs first.
pub(crate) const CA_CERT: &str = "ca-cert.pem";
/// The key of the first authority. Not there when somebody else made the certificates.
pub(crate) const CA_KEY: &str = "ca-key.pem";

/// The common name of our authorities. An authority of another name is not ours to sign with.
pub(crate) const AUTHORITY: &str = "ropewalk-webhook authority";

/// How many certificates of one PEM text are looked at: a rotation needs two, a second one on top of it three, and what
/// an administrator adds to that is read too.
pub(crate) const CERTIFICATES: usize = 8;

/// The `data` of a Secret.
pub(crate) type Data = BTreeMap<String, ByteString>;

/// What is wrong with what the Secret holds.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Flaw {
    /// A key without PEM text of the right sort.
    #[error("\"{key}\" holds nothing that can be read")]
    Unreadable {
        /// The Secret's key.
        key: &'static str,
    },
    /// The authority has expired, or is of the future.
    #[error("\"{key}\" holds no certificate that is valid now")]
    NotInForce {
        /// The Secret's key.
        key: &'static str,
    },
    /// The leaf does not belong to its key.
    #[error("\"{SERVER_CERT}\" and \"{SERVER_KEY}\" do not belong together")]
    Pair,
    /// No API server that trusts the authorities would accept the leaf.
    #[error("\"{SERVER_CERT}\" is not valid for \"{host}\" under \"{CA_CERT}\"")]
    Untrusted {
        /// The name that API servers verify.
        host: String,
    },
}

/// One X.509 certificate and what is read in it. Two are equal when their bytes are.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Certificate {
    /// The certificate itself.
    pub(crate) der: CertificateDer<'static>,
    /// Not valid earlier.
    pub(crate) not_before: Timestamp,
    /// Not valid later.
    pub(crate) not_after: Timestamp,
}

impl Certificate {
    /// `None` when it cannot be read.
    fn parse(der: CertificateDer<'static>) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(&der).ok()?;
        let validity = parsed.tbs_certificate().validity();
        let time = |time: x509_cert::time::Time| {
            Timestamp::from_second(i64::try_from(time.to_unix_duration().as_secs()).ok()?).ok()
        };
        let (not_before, not_after) = (time(validity.not_before)?, time(validity.not_after)?);
        Some(Self { der, not_before, not_after })
    }

    /// Whether it is valid.
    pub(crate) fn in_force(&self, now: Timestamp) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// When two thirds of its life are over: the last third is for whatever keeps a renewal from happening.
    pub(crate) fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        self.not_before.saturating_add(life / 3 * 2).unwrap_or(self.not_after)
    }
}

/// What is presented to clients, checked: it is valid under `signer` and belongs to its key.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    /// The certificate of the Service.
    pub(crate) certificate: Certificate,
    /// The authority it is valid under.
    pub(crate) signer: Certificate,
    /// The same with its key, as rustls takes it.
    pub(crate) certified: Arc<CertifiedKey>,
}

/// The Secret's contents.
pub(crate) struct Stored {
    /// The authorities that are valid now, the one that signs first; at least one.
    pub(crate) trusted: Vec<Certificate>,
    /// The first authority's key as PEM text, when it is there, fits, and the authority is one of ours.
    pub(crate) authority_key: Option<String>,
    /// What to present.
    pub(crate) leaf: Result<Leaf, Flaw>,
}

impl Stored {
    /// The authority that signs.
    pub(crate) fn authority(&self) -> &Certificate {
        &self.trusted[0]
    }
}

/// Reads a Secret. The outer error is for an authority that cannot be used, which makes the rest useless.
pub(crate) fn read(data: Option<&Data>, service: &Service, now: Timestamp) -> Result<Stored, Flaw> {
    let nothing = Data::new();
    let data = data.unwrap_or(&nothing);
    let first = certificates(text(data, CA_CERT));
    let authority = first.first().ok_or(Flaw::Unreadable { key: CA_CERT })?;
    if !authority.in_force(now) {
        return Err(Flaw::NotInForce { key: CA_CERT });
    }
    let authority_key = signing_key(data, authority);
    let trusted: Vec<Certificate> =
        first.into_iter().filter(|certificate| certificate.in_force(now)).collect();
    let leaf = leaf(data, &trusted, service, now);
    Ok(Stored { trusted, authority_key, leaf })
}

/// The certificates in a PEM text, no more than [`CERTIFICATES`], each once. What is none is passed over.
pub(crate) fn certificates(pem: &[u8]) -> Vec<Certificate> {
    let mut found = Vec::new();
    let readable = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES).filter_map(Result::ok);
    for certificate in readable.filter_map(Certificate::parse) {
        if !found.contains(&certificate) {
            found.push(certificate);
        }
    }
    found
}

/// The certificates as one PEM text, the same for the same certificates wherever it is made.
pub(crate) fn to_pem<'a>(certificates: impl IntoIterator<Item = &'a Certificate>) -> String {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    certificates
        .into_iter()
        .map(|certificate| pem::encode_config(&Pem::new("CERTIFICATE", certificate.der.as_ref()), config))
        .collect()
}

fn text<'a>(data: &'a Data, key: &str) -> &'a [u8] {
    data.get(key).map_or(&[], |value| &value.0)
}

fn signing_key(data: &Data, authority: &Certificate) -> Option<String> {
    let key = str::from_utf8(text(data, CA_KEY)).ok()?;
    let pair = KeyPair::from_pem(key).ok()?;
    let parsed = x509_cert::Certificate::from_der(&authority.der).ok()?;
    let parsed = parsed.tbs_certificate();
    let fits = parsed.subject_public_key_info().to_der().ok()? == pair.subject_public_key_info()
        && parsed.subject().to_string() == format!("CN={AUTHORITY}");
    fits.then(|| key.to_owned())
}

fn leaf(data: &Data, trusted: &[Certificate], service: &Service, now: Timestamp) -> Result<Leaf, Flaw> {
    let unreadable = |key| Flaw::Unreadable { key };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text(data, SERVER_CERT))
        .take(CERTIFICATES)
        .collect::<Result<_, _>>()
        .map_err(|_| unreadable(SERVER_CERT))?;
    let first = chain.first().ok_or(unreadable(SERVER_CERT))?;
    let certificate = Certificate::parse(first.clone()).ok_or(unreadable(SERVER_CERT))?;
    let key = PrivateKeyDer::from_pem_slice(text(data, SERVER_KEY)).map_err(|_| unreadable(SERVER_KEY))?;
    let host = service.host();
    let signer = trusted.iter().find(|authority| is_valid_under(&chain, authority, &host, now)).cloned();
    let signer = signer.ok_or(Flaw::Untrusted { host })?;
    let certified = CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|_| Flaw::Pair)?;
    Ok(Leaf { certificate, signer, certified: Arc::new(certified) })
}

fn is_valid_under(chain: &[CertificateDer<'_>], authority: &Certificate, host: &str, now: Timestamp) -> bool {
    let (Some((leaf, intermediates)), Ok(name)) = (chain.split_first(), ServerName::try_from(host)) else {
        return false;
    };
    let mut roots = RootCertStore::empty();
    if roots.add(authority.der.clone()).is_err() {
        return false;
    }
    let provider = Arc::new(ring::default_provider());
    let Ok(verifier) = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build() else {
        return false;
    };
    // Before 1970 nothing is valid.
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    verifier.verify_server_cert(leaf, intermediates, &name, &[], now).is_ok()
}

#[cfg(test)]
mod tests;
