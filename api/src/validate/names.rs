//! What may be a name, by Kubernetes' rules and Tekton's.

use super::{FieldError, FieldErrors};
use crate::names::MAX_NAME;

/// The detail of an error about a name that is no DNS-1123 label.
pub(super) fn label_detail(what: &str) -> String {
    format!(
        "{what} must be a valid DNS Label. For more info refer to \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#names"
    )
}

/// `metadata.name` of any object; the path is `name`.
pub(super) fn validate_object_name(name: &str) -> FieldErrors {
    let mut errors = FieldErrors::default();
    if !is_dns_subdomain(name) {
        errors.push(FieldError::new(
            format!("invalid resource name \"{name}\": must be a valid DNS label"),
            &["name"],
        ));
    }
    if name.len() > MAX_NAME {
        errors.push(FieldError::new(
            format!("Invalid resource name: length must be no more than {MAX_NAME} characters"),
            &["name"],
        ));
    }
    errors
}

/// Lower-case letters, digits and inner `-`, at most 63.
pub(super) fn is_dns_label(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = name.as_bytes();
    bytes.len() <= MAX_NAME
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// DNS labels joined by dots, at most 253 characters; a label of a subdomain may be longer than 63.
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// `[A-Za-z0-9]`, with `-_.` inside, at most 63, and optionally a DNS subdomain and `/` before it.
pub(super) fn is_qualified_name(name: &str) -> bool {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    prefix.is_none_or(is_dns_subdomain) && is_label_value(name)
}

/// What the value of a label may be, when it is one: `[A-Za-z0-9]`, with `-_.` inside, at most 63.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.len() <= MAX_NAME && is_result_name(value)
}

/// `^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$`
pub(super) fn is_result_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// `^[_a-zA-Z][_a-zA-Z0-9.-]*$`, without the dot for object params and their keys.
pub(super) fn is_param_name(name: &str, dots: bool) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|b| b.is_ascii_alphabetic() || *b == b'_')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-') || (dots && *b == b'.'))
}

/// `[\w-]+:\/\/*` somewhere in it: something a resolver could take for a URL.
pub(super) fn looks_like_url(name: &str) -> bool {
    name.match_indices(":/").any(|(at, _)| {
        name[..at].bytes().next_back().is_some_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("a", true)]
    #[case("a-1", true)]
    #[case("", false)]
    #[case("-a", false)]
    #[case("a-", false)]
    #[case("A", false)]
    #[case("a.b", false)]
    #[case("a_b", false)]
    fn label_names(#[case] name: &str, #[case] valid: bool) {
        assert_eq!(is_dns_label(name), valid);
    }

    #[rstest]
    #[case("a.b", "")]
    #[case("", "invalid resource name \"\": must be a valid DNS label: name")]
    #[case("a..b", "invalid resource name \"a..b\": must be a valid DNS label: name")]
    #[case("A", "invalid resource name \"A\": must be a valid DNS label: name")]
    fn object_names(#[case] name: &str, #[case] text: &str) {
        assert_eq!(validate_object_name(name).to_string(), text);
    }

    #[test]
    fn a_long_name_is_refused_for_its_length_only() {
        let text = validate_object_name(&"a".repeat(64)).to_string();
        assert_eq!(text, "Invalid resource name: length must be no more than 63 characters: name");
    }

    #[rstest]
    #[case("git+https://x", true)]
    #[case("task", false)]
    #[case(":/x", false)]
    fn url_names(#[case] name: &str, #[case] url: bool) {
        assert_eq!(looks_like_url(name), url);
    }

    #[rstest]
    #[case("a.b", true, true)]
    #[case("a.b", false, false)]
    #[case("_a-1", false, true)]
    #[case("1a", true, false)]
    #[case("", true, false)]
    fn param_names(#[case] name: &str, #[case] dots: bool, #[case] valid: bool) {
        assert_eq!(is_param_name(name, dots), valid);
    }
}
