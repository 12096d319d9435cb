//! Every type of secret, as a table: what the API server says of it, and what the pod has of it.

use rstest::rstest;
use serde_json::json;

use super::*;

/// The table that kube-apiserver 1.20 answers with, cut to what matters.
fn table(type_: &str, annotations: &Value) -> Value {
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "columnDefinitions": [
            { "name": "Name", "type": "string", "format": "name", "priority": 0 },
            { "name": "Type", "type": "string", "format": "", "priority": 0 },
            { "name": "Data", "type": "string", "format": "", "priority": 0 },
            { "name": "Age", "type": "string", "format": "", "priority": 0 },
        ],
        "rows": [{
            "cells": ["s", type_, 2, "12s"],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": { "name": "s", "namespace": "ns", "annotations": annotations },
            },
        }],
    })
}

fn secret(type_: &str, annotations: &Value) -> Secret {
    Secret::of_table(&table(type_, annotations)).expect("a table of a secret")
}

fn account(secrets: &[(&str, Answer<Secret>)]) -> Account {
    let names: Vec<Value> = secrets.iter().map(|(name, _)| json!({ "name": name })).collect();
    let account = serde_json::from_value(json!({ "secrets": names })).expect("a service account");
    let mut account = Account::new(&account);
    account.secrets = secrets.iter().map(|(name, answer)| ((*name).to_owned(), answer.clone())).collect();
    account
}

fn credentials(secrets: &[(&str, Answer<Secret>)]) -> Result<Credentials, Error> {
    Credentials::of_answer("builder", &Answer::Found(account(secrets)))
}

/// `kind secret url` of each flag.
fn shown(credentials: &Credentials) -> Vec<String> {
    credentials.flags.iter().map(|it| format!("{:?} {} {}", it.kind, it.secret, it.url)).collect()
}

const URLS: &[(&str, &str)] = &[
    ("tekton.dev/git-0", "https://b"),
    ("tekton.dev/git-1", "https://a"),
    ("tekton.dev/docker-0", "https://d"),
    ("tekton.dev/docker-x", "c"),
    ("tekton.dev/other", "https://e"),
];

#[rstest]
#[case("kubernetes.io/basic-auth", URLS, &["BasicDocker s c", "BasicDocker s https://d", "BasicGit s https://a", "BasicGit s https://b"])]
#[case("kubernetes.io/ssh-auth", URLS, &["SshGit s https://a", "SshGit s https://b"])]
#[case("kubernetes.io/dockerconfigjson", URLS, &["DockerConfig s "])]
#[case("kubernetes.io/dockerconfigjson", &[], &["DockerConfig s "])]
#[case("kubernetes.io/dockercfg", &[], &["DockerCfg s "])]
#[case("kubernetes.io/basic-auth", &[], &[])]
#[case("kubernetes.io/ssh-auth", &[("tekton.dev/docker-0", "c")], &[])]
#[case("Opaque", URLS, &[])]
#[case("kubernetes.io/service-account-token", URLS, &[])]
fn a_secret_is_for_what_its_type_and_annotations_say(
    #[case] type_: &str,
    #[case] annotations: &[(&str, &str)],
    #[case] expected: &[&str],
) {
    let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
    let found = Answer::Found(secret(type_, &json!(annotations)));
    let credentials = credentials(&[("s", found)]).expect("credentials");
    assert_eq!(shown(&credentials), expected);
    let mounted = usize::from(!expected.is_empty());
    assert_eq!((credentials.volumes.len(), credentials.mounts.len()), (mounted, mounted));
}

#[test]
fn a_secret_is_read_from_a_table_by_the_name_of_the_column() {
    let annotations = json!({ "tekton.dev/git-0": "https://a" });
    let mut wide = table("kubernetes.io/basic-auth", &annotations);
    wide["columnDefinitions"].as_array_mut().expect("columns").insert(0, json!({ "name": "Namespace" }));
    wide["rows"][0]["cells"].as_array_mut().expect("cells").insert(0, json!("ns"));
    assert_eq!(Secret::of_table(&wide), Some(secret("kubernetes.io/basic-auth", &annotations)));
    assert_eq!(secret("Opaque", &Value::Null), Secret { type_: "Opaque".to_owned(), ..Secret::default() });
    let recorded = json!({ "tekton.dev/git-0": "https://a", "kubectl.kubernetes.io/last-applied-configuration": "hidden" });
    let shown = format!("{:?}", secret("kubernetes.io/basic-auth", &recorded));
    assert!(shown.contains("https://a") && !shown.contains("hidden"), "{shown}");
    for other in
        [json!({}), json!({ "kind": "Secret", "type": "Opaque" }), json!({ "columnDefinitions": [{}] })]
    {
        assert_eq!(Secret::of_table(&other), None);
    }
}

#[test]
fn secrets_come_in_the_order_of_the_account_and_once() {
    let docker = || Answer::Found(secret("kubernetes.io/dockercfg", &Value::Null));
    let both = json!({ "secrets": [{ "name": "z" }, { "name": "" }, {}, { "name": "a.b" }, { "name": "z" }],
                       "imagePullSecrets": [{ "name": "pull" }] });
    let mut account = Account::new(&serde_json::from_value(both).expect("a service account"));
    assert_eq!(account.wanted(), ["z", "a.b"]);
    account.secrets = [("z".to_owned(), docker()), ("a.b".to_owned(), docker())].into();
    let found = Credentials::of_answer("builder", &Answer::Found(account)).expect("credentials");
    assert_eq!(shown(&found), ["DockerCfg z ", "DockerCfg a.b "]);
    let volumes: Vec<_> = found.volumes.iter().map(|volume| volume.name.as_str()).collect();
    // FNV-1a of the names, in 32 bits.
    assert_eq!(volumes, ["tekton-creds-ff0c53ad", "tekton-creds-108bf50c"]);
    let mounts: Vec<_> =
        found.mounts.iter().map(|mount| (mount.name.as_str(), mount.mount_path.as_str())).collect();
    assert_eq!(mounts, [(volumes[0], "/tekton/creds-secrets/z"), (volumes[1], "/tekton/creds-secrets/a.b")]);
    assert!(found.mounts.iter().all(|mount| mount.read_only.is_none()), "as upstream has it");
    let sources =
        found.volumes.iter().map(|volume| volume.secret.as_ref().and_then(|it| it.secret_name.as_deref()));
    assert_eq!(sources.collect::<Vec<_>>(), [Some("z"), Some("a.b")]);
}

#[test]
fn names_with_the_same_hash_have_volumes_of_their_own() {
    // Their hashes in 32 bits are the same.
    let docker = || Answer::Found(secret("kubernetes.io/dockercfg", &Value::Null));
    let (one, other) = ("liquid", "costarring");
    let found = credentials(&[(one, docker()), (other, docker())]).expect("credentials");
    assert_eq!(short_hash(one, 8), short_hash(other, 8));
    assert_ne!(found.volumes[0].name, found.volumes[1].name);
    assert_eq!(found.volumes[0].name, volume_name(one));
}

#[test]
fn a_missing_secret_is_gone_without() {
    let docker = Answer::Found(secret("kubernetes.io/dockercfg", &Value::Null));
    let found = credentials(&[("gone", Answer::Missing), ("there", docker), ("too", Answer::Missing)]);
    let found = found.expect("credentials");
    assert_eq!(found.missing, ["gone", "too"]);
    assert_eq!(shown(&found), ["DockerCfg there "]);
}

#[rstest]
#[case(Answer::Missing, "serviceaccounts \"builder\" not found")]
#[case(Answer::Refused("serviceaccounts \"builder\" is forbidden".into()), "serviceaccounts \"builder\" is forbidden")]
#[case(
    Answer::Found(account(&[("s", Answer::Refused("secrets \"s\" is forbidden".into()))])),
    "secrets \"s\" is forbidden"
)]
fn what_may_not_be_read_is_told_in_the_servers_words(
    #[case] answer: Answer<Account>,
    #[case] expected: &str,
) {
    assert_eq!(
        Credentials::of_answer("builder", &answer).map_err(|error| error.to_string()),
        Err(expected.to_owned())
    );
}

#[test]
fn more_secrets_than_a_pod_should_have_are_not_looked_up() {
    let names =
        |count: usize| (0..count).map(|index| json!({ "name": format!("s{index}") })).collect::<Vec<_>>();
    let of = |count| {
        Account::new(&serde_json::from_value(json!({ "secrets": names(count) })).expect("an account"))
    };
    assert_eq!(of(MAX_SECRETS).wanted().len(), 128);
    let many = of(MAX_SECRETS + 1);
    assert!(many.wanted().is_empty());
    let error = Credentials::of_answer("builder", &Answer::Found(many)).expect_err("too many");
    assert_eq!(
        error.to_string(),
        "service account \"builder\" names 129 secrets, and 128 are looked at; name fewer"
    );
}

#[rstest]
#[case("kubernetes.io/ssh-auth", true, true)]
#[case("kubernetes.io/ssh-auth", false, false)]
#[case("kubernetes.io/basic-auth", true, false)]
fn keys_are_read_where_known_hosts_are_required(
    #[case] type_: &str,
    #[case] flag: bool,
    #[case] expected: bool,
) {
    let features = FeatureFlags { require_git_ssh_secret_known_hosts: flag, ..FeatureFlags::default() };
    assert_eq!(secret(type_, &Value::Null).wants_keys(&features), expected);
}

#[rstest]
#[case(&["ssh-privatekey", "known_hosts"], true)]
#[case(&["ssh-privatekey"], false)]
fn required_known_hosts_have_to_be_there(#[case] keys: &[&str], #[case] allowed: bool) {
    // Annotated or not.
    let mut ssh = secret("kubernetes.io/ssh-auth", &Value::Null);
    ssh.keys = Some(keys.iter().map(|key| (*key).to_owned()).collect());
    let found = credentials(&[("key", Answer::Found(ssh))]);
    let refused = Err(Error::KnownHosts { secret: "key".to_owned() });
    assert_eq!(found.map(|found| found.flags.len()), if allowed { Ok(0) } else { refused });
}
