//! Which credentials are for which image, by the rules of the kubelet's keyring. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use super::reference::{Reference, docker_hub_or, split_port};

/// The types of secret that hold credentials for registries, and the key they are under.
const TYPES: [(&str, &str); 2] =
    [("kubernetes.io/dockerconfigjson", ".dockerconfigjson"), ("kubernetes.io/dockercfg", ".dockercfg")];

/// A user of a registry. What it knows is never shown.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Credential {
    /// As it stands; robot accounts have `$` in their names.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential")
    }
}

/// The credentials a run may use.
#[derive(Debug, Default)]
pub struct Keyring {
    entries: Vec<Entry>,
    /// What was read and holds credentials.
    usable: Vec<Source>,
    /// What could not be used, and why.
    unusable: Vec<(Source, String)>,
}

/// Where credentials come from, as messages say.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Source {
    Secret(String),
    File(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Secret(name) => write!(f, "secret \"{name}\""),
            Self::File(path) => write!(f, "file \"{path}\""),
        }
    }
}

#[derive(Debug)]
struct Entry {
    source: Source,
    /// May have `*` in its labels.
    host: String,
    /// Beginning of the repositories it is for: empty, or with a leading slash.
    path: String,
    /// `None` if its `auth` cannot be decoded.
    credential: Option<Credential>,
}

/// As Docker and those who copy it write it: `null` is empty everywhere.
#[derive(Default, Deserialize)]
struct DockerConfig {
    auths: Option<RawEntries>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(rename = "credHelpers")]
    cred_helpers: Option<BTreeMap<String, Option<String>>>,
}

/// By location.
type RawEntries = BTreeMap<String, Option<RawEntry>>;

#[derive(Deserialize)]
struct RawEntry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// An `auth` that is no `user:password` in base64.
struct Undecodable;

impl Keyring {
    /// Adds what a secret holds. Secrets of other types hold nothing for registries.
    pub fn add(&mut self, name: &str, secret: &Secret) {
        let type_ = secret.type_.as_deref().unwrap_or_default();
        let Some((type_, key)) = TYPES.into_iter().find(|(known, _)| *known == type_) else { return };
        let Some(content) = secret.data.as_ref().and_then(|data| data.get(key)) else {
            self.unusable(name, format!("has no key \"{key}\""));
            return;
        };
        let parsed = if type_.ends_with("json") {
            serde_json::from_slice::<Option<DockerConfig>>(&content.0)
                .map(|config| config.and_then(|config| config.auths))
        } else {
            serde_json::from_slice::<Option<RawEntries>>(&content.0)
        };
        // What the parser says may quote a part of the secret.
        let Ok(entries) = parsed else {
            self.unusable(name, format!("has a key \"{key}\" that cannot be read"));
            return;
        };
        self.extend(&Source::Secret(name.to_owned()), entries.unwrap_or_default());
    }

    /// Adds what a file of this machine holds, in the form of Docker's `config.json`. Programs that such a file names for
    /// credentials are not called, and noted.
    pub fn add_file(&mut self, path: &str, content: &[u8]) {
        let source = Source::File(path.to_owned());
        let Ok(config) = serde_json::from_slice::<Option<DockerConfig>>(content) else {
            self.unusable.push((source, "cannot be read".to_owned()));
            return;
        };
        let config = config.unwrap_or_default();
        let helpers = config.cred_helpers.unwrap_or_default().into_values().chain([config.creds_store]);
        if let Some(helper) = helpers.flatten().find(|helper| !helper.is_empty()) {
            let why = format!(
                "leaves credentials to the program \"docker-credential-{helper}\", which is not called"
            );
            self.unusable.push((source.clone(), why));
        }
        self.extend(&source, config.auths.unwrap_or_default());
    }

    fn extend(&mut self, source: &Source, entries: RawEntries) {
        self.usable.push(source.clone());
        for (location, raw) in entries {
            let (host, path) = split_location(&location);
            let credential = match raw.map(RawEntry::credential) {
                Some(Ok(Some(credential))) => Some(credential),
                Some(Err(Undecodable)) => None,
                Some(Ok(None)) | None => continue,
            };
            self.entries.push(Entry { source: source.clone(), host, path, credential });
        }
    }

    /// Notes a secret that cannot be used: `why` goes after its name.
    pub fn unusable(&mut self, name: &str, why: impl Into<String>) {
        self.unusable.push((Source::Secret(name.to_owned()), why.into()));
    }

    /// The credentials for an image, in the order in which to try them: for the longest path first.
    pub fn credentials(&self, reference: &Reference) -> Vec<&Credential> {
        self.matching(reference).into_iter().filter_map(|entry| entry.credential.as_ref()).collect()
    }

    fn matching(&self, reference: &Reference) -> Vec<&Entry> {
        let path = format!("/{}", reference.repository);
        let is_for =
            |entry: &&Entry| host_matches(&entry.host, &reference.host) && path.starts_with(&entry.path);
        let mut entries: Vec<&Entry> = self.entries.iter().filter(is_for).collect();
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.path.len()));
        entries
    }

    /// Which credentials there were for an image, for a message that it may not be read. Names only; without any, what to do.
    pub fn explain(&self, reference: &Reference, advice: &str) -> String {
        let (tried, undecodable): (Vec<&Entry>, Vec<&Entry>) =
            self.matching(reference).into_iter().partition(|entry| entry.credential.is_some());
        let mut tried: Vec<&Source> = tried.into_iter().map(|entry| &entry.source).collect();
        tried.dedup();
        let mut parts = Vec::new();
        if !tried.is_empty() {
            parts.push(format!("tried {}", list(&tried)));
        } else if self.usable.is_empty() {
            parts.push(format!("there are no credentials; {advice}"));
        } else {
            let usable: Vec<&Source> = self.usable.iter().collect();
            parts.push(format!("{} without credentials for it", list(&usable)));
        }
        // The image's host, which the entry is for: what stands in its place there may have a password in it.
        parts.extend(undecodable.into_iter().map(|Entry { source, .. }| {
            format!("{source} has an \"auth\" for \"{}\" that cannot be decoded", reference.host)
        }));
        parts.extend(self.unusable.iter().map(|(source, why)| format!("{source} {why}")));
        parts.join("; ")
    }
}

/// What to do so that the runs of a service account have credentials.
pub fn advice(service_account: &str) -> String {
    format!(
        "link a secret of type \"kubernetes.io/dockerconfigjson\" to service account \"{service_account}\" or name it in \
         imagePullSecrets"
    )
}

fn list(sources: &[&Source]) -> String {
    let texts: Vec<String> = sources.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl RawEntry {
    /// `auth` is what Docker writes, and wins. An entry with nothing in it is what Docker leaves where a program keeps the
    /// credentials.
    fn credential(self) -> Result<Option<Credential>, Undecodable> {
        let auth = self.auth.unwrap_or_default();
        if auth.is_empty() {
            let (username, password) = (self.username.unwrap_or_default(), self.password.unwrap_or_default());
            let is_empty = username.is_empty() && password.is_empty();
            return Ok((!is_empty).then_some(Credential { username, password }));
        }
        let decoded = decode_base64(auth.trim()).and_then(|decoded| String::from_utf8(decoded).ok());
        let pair = decoded.as_ref().and_then(|decoded| decoded.split_once(':')).ok_or(Undecodable)?;
        Ok(Some(Credential { username: pair.0.to_owned(), password: pair.1.to_owned() }))
    }
}

/// With or without padding, in one line or several: all are found in `auth`, as `base64` breaks lines of long tokens.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let text: String = text.chars().filter(|character| !matches!(character, '\r' | '\n')).collect();
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// `https://index.docker.io/v1/` and the like, as host and path.
fn split_location(location: &str) -> (String, String) {
    let bare =
        location.strip_prefix("https://").or_else(|| location.strip_prefix("http://")).unwrap_or(location);
    let (host, path) = bare.find('/').map_or((bare, ""), |slash| bare.split_at(slash));
    // The version of a registry's API is no part of a repository.
    let path = ["/v1", "/v2"]
        .iter()
        .filter_map(|version| path.strip_prefix(version))
        .find(|rest| rest.is_empty() || rest.starts_with('/'))
        .unwrap_or(path);
    let path = if path == "/" { "" } else { path };
    (docker_hub_or(&host.to_ascii_lowercase()).to_owned(), path.to_owned())
}

/// Label by label, the port exactly.
fn host_matches(pattern: &str, host: &str) -> bool {
    let ((pattern, pattern_port), (host, port)) = (split_port(pattern), split_port(host));
    let (patterns, labels): (Vec<&str>, Vec<&str>) =
        (pattern.split('.').collect(), host.split('.').collect());
    pattern_port == port
        && patterns.len() == labels.len()
        && patterns.iter().zip(&labels).all(|(pattern, label)| label_matches(pattern, label))
}

/// `*` stands for any number of characters.
fn label_matches(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| label.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn secret(type_: &str, key: &str, content: &Value) -> Secret {
        let data = BTreeMap::from([(key.to_owned(), ByteString(content.to_string().into_bytes()))]);
        Secret { type_: Some(type_.to_owned()), data: Some(data), ..Secret::default() }
    }

    fn docker_config(auths: &Value) -> Secret {
        secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json!({ "auths": auths }))
    }

    fn users(keyring: &Keyring, image: &str) -> Vec<String> {
        let reference = image.parse().expect("a reference");
        keyring.credentials(&reference).into_iter().map(|it| it.username.clone()).collect()
    }

    #[rstest]
    #[case("https://index.docker.io/v1/", "user/img", true)]
    #[case("https://index.docker.io/v1/", "docker.io/library/ubuntu", true)]
    #[case("index.docker.io", "ubuntu", true)]
    #[case("docker.io", "ubuntu", true)]
    #[case("https://index.docker.io/v1/", "quay.io/user/img", false)]
    #[case("r.example", "r.example/a", true)]
    #[case("https://R.example/v2/", "r.example/a", true)]
    #[case("https://r.example/v1", "r.example/a", true)]
    #[case("r.example:5000", "r.example/a", false)]
    #[case("r.example:5000", "r.example:5000/a", true)]
    #[case("r.example", "r.example:5000/a", false)]
    #[case("r.example/team", "r.example/team/a", true)]
    #[case("r.example/team", "r.example/other/a", false)]
    #[case("*.example", "r.example/a", true)]
    #[case("*.example", "a.r.example/a", false)]
    #[case("r*y.exa*e", "registry.example/a", true)]
    #[case("r*y.exa*e", "registries.example/a", false)]
    #[case("127.0.0.1:5000", "127.0.0.1:5000/a", true)]
    #[case("[::1]:5000", "[::1]:5000/a", true)]
    fn locations_match_by_host_and_path(#[case] location: &str, #[case] image: &str, #[case] expected: bool) {
        let mut keyring = Keyring::default();
        keyring.add("s", &docker_config(&json!({ location: { "username": "u", "password": "p" } })));
        assert_eq!(users(&keyring, image), if expected { vec!["u"] } else { vec![] });
    }

    #[test]
    fn the_longest_path_comes_first_and_then_the_order_of_the_secrets() {
        let mut keyring = Keyring::default();
        let entry = |user: &str| json!({ "username": user, "password": "p" });
        keyring.add("one", &docker_config(&json!({ "r.example": entry("first") })));
        let both = json!({ "r.example": entry("second"), "r.example/team": entry("team") });
        keyring.add("two", &docker_config(&both));
        assert_eq!(users(&keyring, "r.example/team/a"), ["team", "first", "second"]);
    }

    #[rstest]
    #[case(json!({ "auth": "cm9ib3QkY2k6cDp3" }), Some(("robot$ci", "p:w")))]
    #[case(json!({ "auth": "dTpw" }), Some(("u", "p")))]
    #[case(json!({ "auth": "dTpwdw==", "username": "old", "password": "old" }), Some(("u", "pw")))]
    #[case(json!({ "auth": "dTpwdw" }), Some(("u", "pw")))]
    #[case(json!({ "auth": "cm9ib3Qk\nY2k6cDp3\r\n" }), Some(("robot$ci", "p:w")))]
    #[case(json!({ "username": "robot$ci", "password": "$(p)" }), Some(("robot$ci", "$(p)")))]
    #[case(json!({ "auth": "!" }), None)]
    #[case(json!({ "auth": "dQ==" }), None)]
    #[case(json!({ "email": "e" }), None)]
    #[case(json!({ "auth": "", "username": null }), None)]
    #[case(json!({ "auth": null, "username": "u", "password": "p", "email": null }), Some(("u", "p")))]
    #[case(json!(null), None)]
    fn user_names_are_literal(#[case] raw: Value, #[case] expected: Option<(&str, &str)>) {
        for secret in [
            docker_config(&json!({ "r.example": raw })),
            secret("kubernetes.io/dockercfg", ".dockercfg", &json!({ "r.example": raw })),
        ] {
            let mut keyring = Keyring::default();
            keyring.add("s", &secret);
            let reference = "r.example/a".parse().expect("a reference");
            let found = keyring.credentials(&reference);
            let found: Vec<_> = found.iter().map(|it| (it.username.as_str(), it.password.as_str())).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_was_tried_is_told_by_name_alone() {
        let reference = "r.example/a".parse().expect("a reference");
        let mut keyring = Keyring::default();
        assert_eq!(
            keyring.explain(&reference, &advice("builder")),
            "there are no credentials; link a secret of type \"kubernetes.io/dockerconfigjson\" to service account \
             \"builder\" or name it in imagePullSecrets"
        );
        keyring.add("token", &secret("kubernetes.io/service-account-token", "token", &json!("t")));
        let entry = json!({ "username": "hidden-user", "password": "hidden-password" });
        keyring.add("other", &docker_config(&json!({ "quay.io": entry })));
        assert_eq!(
            keyring.explain(&reference, &advice("builder")),
            "secret \"other\" without credentials for it"
        );
        keyring.add("mine", &docker_config(&json!({ "r.example": entry, "r.example/a": entry })));
        keyring.add("broken", &docker_config(&json!("hidden")));
        keyring.add("empty", &Secret { type_: Some("kubernetes.io/dockercfg".into()), ..Secret::default() });
        keyring.unusable("gone", "does not exist");
        assert_eq!(
            keyring.explain(&reference, &advice("builder")),
            "tried secret \"mine\"; secret \"broken\" has a key \".dockerconfigjson\" that cannot be read; secret \
             \"empty\" has no key \".dockercfg\"; secret \"gone\" does not exist"
        );
        assert!(!format!("{keyring:?}").contains("hidden"));
    }

    #[rstest]
    #[case("null")]
    #[case(r#"{"auths":null,"credHelpers":null,"credsStore":null}"#)]
    #[case(r#"{"auths":{},"credHelpers":{"r.example":null,"quay.io":""},"credsStore":""}"#)]
    fn null_is_empty(#[case] content: &str) {
        let reference = "r.example/a".parse().expect("a reference");
        let mut keyring = Keyring::default();
        let data = |key: &str| Some(BTreeMap::from([(key.to_owned(), ByteString(content.into()))]));
        for (name, (type_, key)) in ["a", "b"].into_iter().zip(TYPES) {
            // The older form has no fields of its own: they would be registries.
            if type_.ends_with("json") || content == "null" {
                let secret = Secret { type_: Some(type_.to_owned()), data: data(key), ..Secret::default() };
                keyring.add(name, &secret);
            }
        }
        keyring.add_file("/config.json", content.as_bytes());
        let told = keyring.explain(&reference, "log in");
        assert!(told.ends_with("file \"/config.json\" without credentials for it"), "{told}");
    }

    #[test]
    fn an_auth_that_cannot_be_decoded_is_told_by_its_registry() {
        let hidden = ["hidden!", "aGlkZGVu", "aGlkZGVuOv8="];
        let auths = json!({
            "https://hidden:hidden@r.example": { "auth": hidden[0] },
            "r.example": { "auth": hidden[0] },
            "*.example/team": { "auth": hidden[1] },
            "quay.io": { "auth": hidden[2] },
        });
        let mut keyring = Keyring::default();
        keyring.add("s", &docker_config(&auths));
        let explain = |image: &str| keyring.explain(&image.parse().expect("a reference"), "log in");
        let why = |host: &str| format!("secret \"s\" has an \"auth\" for \"{host}\" that cannot be decoded");
        let without = "secret \"s\" without credentials for it";
        assert_eq!(explain("r.example/a"), format!("{without}; {}", why("r.example")));
        assert_eq!(
            explain("r.example/team/a"),
            format!("{without}; {}; {}", why("r.example"), why("r.example"))
        );
        assert_eq!(explain("quay.io/a"), format!("{without}; {}", why("quay.io")));
        assert_eq!(explain("other.io/a"), without);
        assert!(!format!("{keyring:?}").contains("aGlkZGVu"));
    }

    #[test]
    fn a_file_of_the_machine_comes_after_secrets() {
        let mut keyring = Keyring::default();
        keyring.add("s", &docker_config(&json!({ "r.example": { "username": "cluster", "password": "p" } })));
        let file = json!({
            "auths": { "r.example": { "auth": "dTpwdw==" }, "https://index.docker.io/v1/": {} },
            "credsStore": "desktop",
        });
        keyring.add_file("/home/me/.docker/config.json", file.to_string().as_bytes());
        keyring.add_file("/broken", b"hidden");
        assert_eq!(users(&keyring, "r.example/a"), ["cluster", "u"]);
        assert!(users(&keyring, "ubuntu").is_empty());
        assert_eq!(
            keyring.explain(&"ubuntu".parse().expect("a reference"), "log in"),
            "secret \"s\", file \"/home/me/.docker/config.json\" without credentials for it; file \
             \"/home/me/.docker/config.json\" leaves credentials to the program \"docker-credential-desktop\", which is not \
             called; file \"/broken\" cannot be read"
        );
    }
}
