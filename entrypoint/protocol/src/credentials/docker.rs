//! `.docker/config.json`. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{CredentialError, Layout, Secrets, keys, of_kind};
use crate::flags::{Credential, CredentialKind};

const PATH: &str = ".docker/config.json";

/// For the same registry a `.dockerconfigjson` goes before a `.dockercfg`, an annotation before both, and the later
/// secret before the earlier.
pub(super) fn lay_out(
    credentials: &[Credential],
    secrets: &Secrets,
    layout: &mut Layout,
) -> Result<(), CredentialError> {
    let mut auths = Map::new();
    for kind in [CredentialKind::DockerCfg, CredentialKind::DockerConfig] {
        for Credential { secret, .. } in of_kind(credentials, kind) {
            for key in keys(kind) {
                match entries(kind, secrets.need(secret, key)?) {
                    Some(entries) => auths.extend(entries),
                    None => layout.doubts.push(CredentialError::NotDocker { secret: secret.clone(), key }),
                }
            }
        }
    }
    for Credential { secret, url, .. } in of_kind(credentials, CredentialKind::BasicDocker) {
        auths.insert(url.clone(), entry(secrets.user(secret)?));
    }
    if !auths.is_empty() {
        layout.files.insert(PATH.to_owned(), json!({ "auths": auths }).to_string().into_bytes());
    }
    Ok(())
}

/// As they stand: they may hold tokens in place of a password.
fn entries(kind: CredentialKind, content: &[u8]) -> Option<Map<String, Value>> {
    // The parser's words may quote a part of the secret.
    let Value::Object(mut config) = serde_json::from_slice(content).ok()? else { return None };
    if kind == CredentialKind::DockerCfg {
        return Some(config);
    }
    match config.remove("auths") {
        None | Some(Value::Null) => Some(Map::new()),
        Some(Value::Object(auths)) => Some(auths),
        Some(_) => None,
    }
}

fn entry((username, password): (&[u8], &[u8])) -> Value {
    json!({
        "username": String::from_utf8_lossy(username),
        "password": String::from_utf8_lossy(password),
        "auth": STANDARD.encode([username, b":", password].concat()),
        // Upstream's; some clients want one.
        "email": "not@val.id",
    })
}
