use jiff::SignedDuration;
use rstest::rstest;

use super::*;
use crate::certificates::issue::issue;
use crate::certificates::plan::{AUTHORITY_LIFE, Issue, LEAF_LIFE};

fn service() -> Service {
    Service { name: "tekton-pipelines-webhook".to_owned(), namespace: "tekton-pipelines".to_owned() }
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn made() -> Data {
    issue(&Issue::Authority { retired: Vec::new() }, &service(), start()).unwrap()
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

#[test]
fn what_is_issued_can_be_used() {
    let stored = read(Some(&made()), &service(), start()).unwrap();
    assert!(stored.authority_key.is_some());
    assert_eq!(stored.trusted.len(), 1);
    let leaf = stored.leaf.unwrap();
    assert_eq!(leaf.signer, stored.trusted[0]);
    assert_eq!(leaf.certificate.not_before, start() - hours(1));
    assert_eq!(leaf.certificate.not_after, start() + LEAF_LIFE);
    assert_eq!(leaf.signer.not_after, start() + AUTHORITY_LIFE);
}

#[rstest]
#[case("tekton-pipelines-webhook")]
#[case("tekton-pipelines-webhook.tekton-pipelines")]
#[case("tekton-pipelines-webhook.tekton-pipelines.svc")]
#[case("tekton-pipelines-webhook.tekton-pipelines.svc.cluster.local")]
fn every_name_of_the_service_is_valid(#[case] host: &str) {
    let stored = read(Some(&made()), &service(), start()).unwrap();
    let leaf = stored.leaf.unwrap();
    assert!(is_valid_under(&leaf.certified.cert, &leaf.signer, host, start()));
}

#[test]
fn certificates_survive_being_written() {
    let made = made();
    let trusted = certificates(&made[CA_CERT].0);
    assert_eq!(to_pem(&trusted).as_bytes(), made[CA_CERT].0);
}

#[rstest]
#[case::nothing(&[(CA_CERT, None)], Flaw::Unreadable { key: CA_CERT })]
#[case::empty(&[(CA_CERT, Some(""))], Flaw::Unreadable { key: CA_CERT })]
#[case::garbage(&[(CA_CERT, Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))],
    Flaw::Unreadable { key: CA_CERT })]
fn useless_authorities(#[case] edits: &[(&str, Option<&str>)], #[case] flaw: Flaw) {
    assert_eq!(read(Some(&edited(edits)), &service(), start()).err(), Some(flaw));
}

#[rstest]
#[case::no_certificate(&[(SERVER_CERT, None)], Flaw::Unreadable { key: SERVER_CERT })]
#[case::cut_certificate(&[(SERVER_CERT, Some("-----BEGIN CERTIFICATE-----\nMIIB"))],
    Flaw::Unreadable { key: SERVER_CERT })]
#[case::no_key(&[(SERVER_KEY, Some("\u{1}\u{2}"))], Flaw::Unreadable { key: SERVER_KEY })]
fn useless_leaves(#[case] edits: &[(&str, Option<&str>)], #[case] flaw: Flaw) {
    let stored = read(Some(&edited(edits)), &service(), start()).unwrap();
    assert!(stored.authority_key.is_some());
    assert_eq!(stored.leaf.err(), Some(flaw));
}

#[test]
fn parts_of_two_pairs_do_not_make_one() {
    let (mut mixed, other) = (made(), made());
    mixed.insert(SERVER_KEY.to_owned(), other[SERVER_KEY].clone());
    assert_eq!(leaf_flaw(&mixed, start()), Some(Flaw::Pair));
    mixed.insert(SERVER_CERT.to_owned(), other[SERVER_CERT].clone());
    let host = service().host();
    assert_eq!(leaf_flaw(&mixed, start()), Some(Flaw::Untrusted { host }));
    mixed.insert(CA_CERT.to_owned(), other[CA_CERT].clone());
    let stored = read(Some(&mixed), &service(), start()).unwrap();
    assert!(stored.leaf.is_ok());
    assert_eq!(stored.authority_key, None, "the key of another authority");
}

#[test]
fn time_and_name_matter() {
    let made = made();
    let host = service().host();
    let before_all = start() - hours(2);
    assert_eq!(read(Some(&made), &service(), before_all).err(), Some(Flaw::NotInForce { key: CA_CERT }));
    let after = start() + LEAF_LIFE + hours(1);
    assert_eq!(leaf_flaw(&made, after), Some(Flaw::Untrusted { host }));
    let elsewhere = Service { namespace: "elsewhere".to_owned(), ..service() };
    let flaw = read(Some(&made), &elsewhere, start()).unwrap().leaf.err();
    assert_eq!(flaw, Some(Flaw::Untrusted { host: elsewhere.host() }));
}

#[test]
fn only_a_bounded_number_of_certificates_is_read() {
    let many: String = (0..=CERTIFICATES).map(|_| to_pem(&certificates(&made()[CA_CERT].0))).collect();
    assert_eq!(certificates(many.as_bytes()).len(), CERTIFICATES);
}

fn leaf_flaw(data: &Data, now: Timestamp) -> Option<Flaw> {
    read(Some(data), &service(), now).unwrap().leaf.err()
}

/// A good Secret with these keys removed or set.
fn edited(edits: &[(&str, Option<&str>)]) -> Data {
    let mut data = made();
    for (key, text) in edits {
        match text {
            None => drop(data.remove(*key)),
            Some(text) => drop(data.insert((*key).to_owned(), ByteString(text.as_bytes().to_vec()))),
        }
    }
    data
}
