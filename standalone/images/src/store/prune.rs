//! Which images go when there are too many. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use ropewalk_core::images::reference::Digest;

/// An image that may go.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: Digest,
    /// By their chain IDs.
    pub(super) layers: Vec<Digest>,
    pub(super) used: SystemTime,
    /// Whatever room there is.
    pub(super) stays: bool,
}

/// The images to remove so that the layers of the others have at most `keep` bytes: those least recently used, except what
/// stays.
pub(super) fn unwanted(
    mut images: Vec<Candidate>,
    sizes: &BTreeMap<Digest, u64>,
    keep: u64,
) -> BTreeSet<Digest> {
    images.sort_by(|a, b| (a.used, &a.id).cmp(&(b.used, &b.id)));
    let mut users = BTreeMap::<Digest, usize>::new();
    for layer in images.iter().flat_map(|image| &image.layers) {
        *users.entry(layer.clone()).or_default() += 1;
    }
    let mut bytes: u64 = sizes.values().sum();
    let mut unwanted = BTreeSet::new();
    for image in images.iter().filter(|image| !image.stays) {
        if bytes <= keep {
            break;
        }
        for layer in &image.layers {
            let left = users.entry(layer.clone()).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                bytes = bytes.saturating_sub(sizes.get(layer).copied().unwrap_or_default());
            }
        }
        unwanted.insert(image.id.clone());
    }
    unwanted
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn image(name: &str, layers: &[&str], used: u64, stays: bool) -> Candidate {
        let layers = layers.iter().map(|layer| digest(layer)).collect();
        Candidate {
            id: digest(name),
            layers,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
            stays,
        }
    }

    #[test]
    fn the_least_recently_used_go_until_the_rest_fits() {
        let images = vec![
            image("new", &["base", "n"], 9, false),
            image("held", &["h"], 1, true),
            image("old", &["base", "o"], 2, false),
            image("middle", &["m"], 5, false),
        ];
        let sizes = [("base", 100), ("n", 10), ("o", 10), ("m", 10), ("h", 10)];
        let sizes = sizes.into_iter().map(|(name, bytes)| (digest(name), bytes)).collect();
        for (keep, expected) in [
            (140, &[][..]),
            (139, &["old"]),
            (130, &["old"]),
            (129, &["old", "middle"]),
            (120, &["old", "middle"]),
            (119, &["old", "middle", "new"]),
            (0, &["old", "middle", "new"]),
        ] {
            let expected: BTreeSet<_> = expected.iter().map(|name| digest(name)).collect();
            assert_eq!(unwanted(images.clone(), &sizes, keep), expected, "{keep}");
        }
    }
}
