//! How much may still be written, from how much is and what the disk has left. Pure.

use std::path::Path;

use ropewalk_apiserver::Room;

/// Bytes of JSON beyond which no object is made: some 50,000 finished runs with all that belongs to them at 10 kB an
/// object. All of it is in memory as well, where it takes several times as much.
const OBJECTS: u64 = 512 << 20;

/// Bytes more by which what is there may change, so that what runs can end and be told: what 1,000 runs at 64 kB each
/// write of themselves.
const CHANGES: u64 = 64 << 20;

/// Bytes the disk has to have left for a new object: enough to end what runs, with its logs.
const FREE_TO_CREATE: u64 = 64 << 20;

/// Bytes the disk has to have left for a change. A transaction writes new pages before old ones are free, and deletions
/// need some, too.
const FREE_TO_CHANGE: u64 = 16 << 20;

/// What may be written by a store with so many bytes of objects, on a disk with so many left.
pub(crate) fn room(objects: u64, free: u64, directory: &Path) -> Room {
    let mib = |bytes: u64| bytes >> 20;
    let disk = || {
        let (left, directory) = (mib(free), directory.display());
        format!(
            "the disk of \"{directory}\" has only {left} MiB left; make room there, or delete finished runs"
        )
    };
    let full = || {
        let (taken, most) = (mib(objects), mib(OBJECTS));
        format!("the API's objects take {taken} MiB of {most}; delete finished runs, or keep fewer of them")
    };
    if free < FREE_TO_CHANGE {
        Room::None(disk().into())
    } else if objects >= OBJECTS + CHANGES {
        Room::None(full().into())
    } else if free < FREE_TO_CREATE {
        Room::Scarce(disk().into())
    } else if objects >= OBJECTS {
        Room::Scarce(full().into())
    } else {
        Room::Enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn creations_stop_before_changes() {
        let disk = |left| {
            let said = "make room there, or delete finished runs";
            format!("the disk of \"/d\" has only {left} MiB left; {said}")
        };
        let full = |taken| {
            let said = "delete finished runs, or keep fewer of them";
            format!("the API's objects take {taken} MiB of 512; {said}")
        };
        for (objects, free, expected) in [
            (0, u64::MAX, Room::Enough),
            (512 * MIB - 1, 64 * MIB, Room::Enough),
            (0, 64 * MIB - 1, Room::Scarce(disk(63).into())),
            (0, 16 * MIB, Room::Scarce(disk(16).into())),
            (0, 16 * MIB - 1, Room::None(disk(15).into())),
            (0, 0, Room::None(disk(0).into())),
            (512 * MIB, u64::MAX, Room::Scarce(full(512).into())),
            (576 * MIB - 1, u64::MAX, Room::Scarce(full(575).into())),
            (576 * MIB, u64::MAX, Room::None(full(576).into())),
            // The worse of the two counts.
            (576 * MIB, 20 * MIB, Room::None(full(576).into())),
            (512 * MIB, 0, Room::None(disk(0).into())),
        ] {
            assert_eq!(room(objects, free, Path::new("/d")), expected, "{objects} {free}");
        }
    }
}
