//! VerificationPolicy (contract 2.6). Upstream's paths begin below the spec and name no place in lists but one of keys;
//! tools are told the true ones.

mod pattern;

use super::{FieldError, FieldErrors, Validated};
use crate::config::Config;
use crate::{KeyRef, VerificationPolicy, VerificationPolicySpec};

impl Validated for VerificationPolicy {
    fn validate(&self, _config: &Config) -> FieldErrors {
        let mut errors = self.validate_metadata();
        errors.also(spec(&self.spec));
        errors
    }
}

fn spec(spec: &VerificationPolicySpec) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if spec.resources.is_empty() {
        errors.push(FieldError::missing(&["resources"]).place("spec.resources"));
    }
    for (index, resource) in spec.resources.iter().enumerate() {
        if let Err(why) = pattern::check(&resource.pattern) {
            let error = FieldError::invalid(&resource.pattern, "ResourcePattern")
                .detail(format!("resourcePattern cannot be compiled by regex: {why}"))
                .place(format!("spec.resources[{index}].pattern"));
            errors.push(error.hint("it is a regular expression, in which \".*\" stands for anything"));
        }
    }
    if spec.authorities.is_empty() {
        errors.push(FieldError::missing(&["authorities"]).place("spec.authorities"));
    }
    for (index, authority) in spec.authorities.iter().enumerate() {
        // An authority without a key is let in, as upstream does.
        if let Some(key) = &authority.key {
            errors.also(key_ref(key, index));
        }
    }
    if !["", "enforce", "warn"].contains(&spec.mode.as_str()) {
        let text = format!("available values are: enforce, warn, but got: {}", spec.mode);
        errors.push(FieldError::invalid(text, "mode").place("spec.mode"));
    }
    errors
}

/// Paths from the spec on, as all here.
fn key_ref(key: &KeyRef, index: usize) -> FieldErrors {
    let mut errors = FieldErrors::default();
    let place = format!("spec.authorities[{index}].key");
    let paths = ["data", "kms", "secretref"].map(|source| format!("key[{index}].{source}"));
    let paths = paths.each_ref().map(String::as_str);
    match usize::from(!key.data.is_empty())
        + usize::from(!key.kms.is_empty())
        + usize::from(key.secret_ref.is_some())
    {
        0 => errors.push(FieldError::neither(&paths).place(&place)),
        1 => {}
        _ => errors.push(FieldError::both(&paths).place(&place)),
    }
    if !ALGORITHMS.contains(&key.hash_algorithm.to_lowercase().as_str()) {
        errors.push(
            FieldError::invalid(&key.hash_algorithm, &format!("key[{index}].HashAlgorithm"))
                .place(format!("{place}.hashAlgorithm"))
                .hint("there are sha224, sha256, sha384 and sha512"),
        );
    }
    errors
}

const ALGORITHMS: [&str; 5] = ["", "sha224", "sha256", "sha384", "sha512"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn tools_are_told_where_it_stands() {
        let spec = json!({
            "resources": [{"pattern": "ok"}, {"pattern": "https://example.com/**"}],
            "authorities": [{"name": "a", "key": {"data": "k", "kms": "k", "hashAlgorithm": "md5"}}],
            "mode": "audit",
        });
        let errors = super::spec(&serde_json::from_value(spec).unwrap());
        let places: Vec<_> =
            errors.distinct().map(|error| (error.paths.join(" "), error.place.as_str())).collect();
        assert_eq!(
            places,
            [
                ("ResourcePattern".to_owned(), "spec.resources[1].pattern"),
                ("key[0].data key[0].kms key[0].secretref".to_owned(), "spec.authorities[0].key"),
                ("key[0].HashAlgorithm".to_owned(), "spec.authorities[0].key.hashAlgorithm"),
                ("mode".to_owned(), "spec.mode"),
            ]
        );
    }
}
