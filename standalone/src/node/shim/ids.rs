//! Whether the container's user and groups are there at all in a user namespace: the runtimes would only say that an
//! argument is invalid.

use std::fs;
use std::path::Path;

use ropewalk_images::is_in_user_namespace;
use ropewalk_kubelet::oci::Spec;

use super::ShimError;
use crate::node::files;

/// Refuses a container whose document names ids that this process cannot hand out.
pub(super) fn check(directory: &Path) -> Result<(), ShimError> {
    if !is_in_user_namespace() {
        return Ok(());
    }
    let own = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).map_err(ShimError::State);
    let (users, groups, setgroups) = (own("uid_map")?, own("gid_map")?, own("setgroups")?);
    let spec: Option<Spec> = files::read_json(&directory.join(files::CONFIG)).map_err(ShimError::State)?;
    let Some(user) = spec.and_then(|spec| spec.process().as_ref().map(|process| process.user().clone()))
    else {
        return Ok(());
    };
    let further = user.additional_gids().clone().unwrap_or_default();
    match missing((user.uid(), &users), (user.gid(), &groups), (&further, setgroups.trim() == "deny")) {
        Some(what) => Err(ShimError::Ids { what }),
        None => Ok(()),
    }
}

/// What there is not, of ids and the maps that they have to be in.
fn missing(
    (user, users): (u32, &str),
    (group, groups): (u32, &str),
    (further, denied): (&[u32], bool),
) -> Option<String> {
    if !has(users, user) {
        return Some(format!("as user {user}"));
    }
    if !has(groups, group) {
        return Some(format!("as group {group}"));
    }
    let further = further.iter().find(|group| denied || !has(groups, **group));
    further.map(|group| format!("with the further group {group}"))
}

/// Whether a map, as the kernel writes it, has the id: lines of the first inside, the first outside and their number.
fn has(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u64>().ok());
        let (first, count) = (numbers.next(), numbers.nth(1));
        first.zip(count).is_some_and(|(first, count)| (first..first + count).contains(&u64::from(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_not_there_are_named() {
        let (alone, many) = ("         0       1000          1\n", "0 1000 1\n1 100000 65536\n");
        for (user, group, further, map, expected) in [
            (0, 0, &[][..], alone, None),
            (1000, 0, &[], alone, Some("as user 1000")),
            (0, 5, &[], alone, Some("as group 5")),
            (0, 0, &[0], alone, Some("with the further group 0")),
            (65_536, 1, &[0, 9], many, None),
            (65_537, 1, &[], many, Some("as user 65537")),
            (1, 1, &[9, 70_000], many, Some("with the further group 70000")),
        ] {
            let found = missing((user, map), (group, map), (further, map == alone));
            assert_eq!(found.as_deref(), expected, "{user}:{group} {further:?} in {map}");
        }
    }
}
