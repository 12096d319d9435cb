//! Making keys and certificates. Draws on the system's randomness; decides nothing, see [`super::plan`].

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::OffsetDateTime;

use super::Service;
use super::plan::{AUTHORITY_LIFE, BACKDATED, Issue, LEAF_LIFE};
use super::stored::{self, AUTHORITY, CA_CERT, CA_KEY, Certificate, Data, SERVER_CERT, SERVER_KEY};

/// Why there is no new certificate. The texts are the library's, which name no key material.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Key generation or signing failed.
    #[error("cannot issue {what}")]
    Generate {
        /// The certificate.
        what: &'static str,
        /// Why.
        source: rcgen::Error,
    },
}

/// What has to be written into the Secret; keys that are not in it stay as they are.
pub(crate) fn issue(issue: &Issue, service: &Service, now: Timestamp) -> Result<Data, Error> {
    match issue {
        Issue::Authority { retired } => new_authority(retired, service, now)
            .map_err(|source| Error::Generate { what: "an authority and a certificate", source }),
        Issue::Leaf { key, until } => {
            let signed = KeyPair::from_pem(key).and_then(|key| new_leaf(&key, *until, service, now));
            signed.map(data).map_err(|source| Error::Generate { what: "a certificate", source })
        }
        Issue::Trust { authorities } => Ok(data([(CA_CERT, stored::to_pem(authorities))])),
    }
}

fn data<const N: usize>(entries: [(&str, String); N]) -> Data {
    entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect()
}

fn new_authority(retired: &[Certificate], service: &Service, now: Timestamp) -> Result<Data, rcgen::Error> {
    let key = KeyPair::generate()?;
    let until = now + AUTHORITY_LIFE;
    let mut params = authority();
    (params.not_before, params.not_after) = (at(now - BACKDATED)?, at(until)?);
    let certificate = params.self_signed(&key)?;
    let leaf = new_leaf(&key, until, service, now)?;
    let trusted = stored::certificates(certificate.pem().as_bytes());
    let trusted = stored::to_pem(trusted.iter().chain(retired));
    let mut made = data(leaf);
    made.extend(data([(CA_CERT, trusted), (CA_KEY, key.serialize_pem())]));
    Ok(made)
}

/// A leaf and its key. It does not outlive its authority.
fn new_leaf(
    authority_key: &KeyPair,
    until: Timestamp,
    service: &Service,
    now: Timestamp,
) -> Result<[(&'static str, String); 2], rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(service.hosts())?;
    (params.not_before, params.not_after) = (at(now - BACKDATED)?, at(until.min(now + LEAF_LIFE))?);
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, service.name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &Issuer::from_params(&authority(), authority_key))?;
    Ok([(SERVER_CERT, certificate.pem()), (SERVER_KEY, key.serialize_pem())])
}

/// What all our authorities have in common: enough to sign in the name of one of which only the key is at hand.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, AUTHORITY);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn at(time: Timestamp) -> Result<OffsetDateTime, rcgen::Error> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).map_err(|_| rcgen::Error::Time)
}
