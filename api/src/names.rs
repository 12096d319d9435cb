//! Derived names: the same input always gives the same name, so a stale cache cannot create twins.

use std::fmt::Write as _;

use md5::{Digest, Md5};

/// What Kubernetes allows in a label value, and therefore in a child's name.
pub const MAX_NAME: usize = 63;

/// An md5 in hex is 32 characters; this is left for the rest.
const LEFT: usize = MAX_NAME - 32;

/// The name of a child of `parent` (contract 5.1): `parent + suffix` when that fits in 63 characters, else cut and
/// made unique by a digest of the parent.
pub fn child_name(parent: &str, suffix: &str) -> String {
    if parent.len() + suffix.len() <= MAX_NAME {
        return format!("{parent}{suffix}");
    }
    let cut = |text: &str, at: usize| text.chars().take(at).collect::<String>();
    if suffix.len() < LEFT {
        return format!("{}{}{suffix}", cut(parent, LEFT - suffix.len()), md5_hex(parent));
    }
    let whole = format!("{}{}", cut(parent, LEFT), md5_hex(&format!("{parent}{suffix}")));
    let padding = cut(suffix, MAX_NAME.saturating_sub(whole.len()));
    format!("{whole}{padding}").trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

/// The container of a step: `step-<name>`, or `step-unnamed-<index>`.
pub fn step_container(name: &str, index: usize) -> String {
    let name = if name.is_empty() { format!("step-unnamed-{index}") } else { format!("step-{name}") };
    name.chars()
        .take(MAX_NAME)
        .collect::<String>()
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned()
}

/// FNV-1a of 32 bits in unpadded lower hex, cut to `length` and padded on the right with `0` (contract 5.3). Written
/// here because the names it makes are part of the contract and no kept crate has the 32-bit form.
pub fn short_hash(text: &str, length: usize) -> String {
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let mut hex = format!("{hash:x}");
    hex.truncate(length);
    format!("{hex:0<length$}")
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_is_joined() {
        assert_eq!(child_name("run", "-pod"), "run-pod");
        assert_eq!(child_name(&"a".repeat(59), "-pod").len(), 63);
    }

    #[test]
    fn a_long_parent_is_cut_and_hashed() {
        let parent = "a".repeat(70);
        let name = child_name(&parent, "-pod");
        assert_eq!(name.len(), 63);
        assert!(name.starts_with(&"a".repeat(27)) && name.ends_with("-pod"), "{name}");
        assert_ne!(name, child_name(&"a".repeat(71), "-pod"), "different parents, different names");
    }

    #[test]
    fn a_long_suffix_is_hashed_with_its_parent() {
        let (one, two) = (format!("-{}-1", "b".repeat(40)), format!("-{}-2", "b".repeat(40)));
        let parent = "a".repeat(40);
        assert_eq!(child_name(&parent, &one).len(), 63);
        assert_ne!(child_name(&parent, &one), child_name(&parent, &two));
    }

    #[test]
    fn containers_are_named_after_their_steps() {
        assert_eq!(step_container("build", 3), "step-build");
        assert_eq!(step_container("", 3), "step-unnamed-3");
    }

    #[test]
    fn hashes_have_the_length_asked_for() {
        assert_eq!(short_hash("", 8), "811c9dc5");
        assert_eq!(short_hash("a", 8), "e40c292c");
        assert_eq!(short_hash("source", 5).len(), 5);
    }
}
