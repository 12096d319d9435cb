//! Which finished runs go. Pure.

use jiff::{SignedDuration, Timestamp};

/// What is kept of finished runs and pods. All three hold at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many.
    pub count: usize,
    /// For how long after their end.
    pub age: SignedDuration,
    /// Bytes of their containers' logs.
    pub log_bytes: u64,
}

/// 1,000 runs are some 10,000 objects with their tasks, pods and events, which is 100 MB of memory and read in a second
/// at the start; 30 days are longer than a release takes to show its faults; 8 GiB of logs leave room on the disk of any
/// build machine.
impl Default for Limits {
    fn default() -> Self {
        Self { count: 1000, age: SignedDuration::from_hours(30 * 24), log_bytes: 8 << 30 }
    }
}

/// A run or pod that has ended and belongs to no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finished<K> {
    /// What it is.
    pub(super) key: K,
    /// When it ended.
    pub(super) ended: Timestamp,
    /// Bytes of the logs of all its pods.
    pub(super) log_bytes: u64,
}

/// Those that go, oldest first, and when the next one does if nothing else happens. Of logs, those of the newest run
/// stay however many they are: somebody is about to read them.
pub(super) fn surplus<K: Clone + Ord>(
    mut finished: Vec<Finished<K>>,
    now: Timestamp,
    limits: &Limits,
) -> (Vec<K>, Option<Timestamp>) {
    // Newest first; among equals the order is no matter, but always the same.
    finished.sort_by(|a, b| b.ended.cmp(&a.ended).then_with(|| a.key.cmp(&b.key)));
    let expires = |run: &Finished<K>| run.ended.checked_add(limits.age).unwrap_or(Timestamp::MAX);
    let mut bytes = 0_u64;
    let kept = finished.iter().enumerate().take_while(|(index, run)| {
        bytes = bytes.saturating_add(run.log_bytes);
        *index < limits.count && expires(run) > now && (*index == 0 || bytes <= limits.log_bytes)
    });
    let kept = kept.count();
    let next = kept.checked_sub(1).map(|oldest| expires(&finished[oldest]));
    (finished[kept..].iter().rev().map(|run| run.key.clone()).collect(), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).expect("a time")
    }

    fn runs(list: &[(&'static str, i64, u64)]) -> Vec<Finished<&'static str>> {
        list.iter()
            .map(|(key, minute, log_bytes)| Finished { key: *key, ended: at(*minute), log_bytes: *log_bytes })
            .collect()
    }

    #[test]
    fn the_oldest_go_first() {
        let limits = Limits { count: 3, age: SignedDuration::from_mins(60), log_bytes: 100 };
        for (what, finished, now, gone, next) in [
            ("nothing", &[][..], 0, &[][..], None),
            ("within all limits", &[("a", 1, 50), ("b", 2, 50)], 10, &[], Some(61)),
            ("one too many", &[("b", 2, 0), ("a", 1, 0), ("d", 4, 0), ("c", 3, 0)], 10, &["a"], Some(62)),
            (
                "two too many",
                &[("a", 1, 0), ("b", 2, 0), ("c", 3, 0), ("d", 4, 0), ("e", 5, 0)],
                10,
                &["a", "b"],
                Some(63),
            ),
            ("just not too old", &[("a", 1, 0)], 60, &[], Some(61)),
            ("too old", &[("a", 1, 0), ("b", 2, 0)], 61, &["a"], Some(62)),
            ("all too old", &[("b", 2, 0), ("a", 1, 0)], 1000, &["a", "b"], None),
            ("too many bytes", &[("a", 1, 50), ("b", 2, 51), ("c", 3, 0)], 10, &["a"], Some(62)),
            (
                "a large one takes those before it along",
                &[("a", 1, 0), ("b", 2, 101), ("c", 3, 1)],
                10,
                &["a", "b"],
                Some(63),
            ),
            ("the newest stays, however large", &[("a", 1, 10), ("b", 2, 1000)], 10, &["a"], Some(62)),
            (
                "more bytes than can be counted",
                &[("a", 1, u64::MAX), ("b", 2, u64::MAX)],
                10,
                &["a"],
                Some(62),
            ),
            ("at the same time", &[("b", 1, 0), ("a", 1, 0), ("d", 1, 0), ("c", 1, 0)], 10, &["d"], Some(61)),
            ("from the future, by a clock set back", &[("a", 500, 0)], 10, &[], Some(560)),
        ] {
            let (found, expires) = surplus(runs(finished), at(now), &limits);
            assert_eq!((found.as_slice(), expires), (gone, next.map(at)), "{what}");
        }
    }

    #[test]
    fn nothing_may_be_kept_and_everything_may() {
        let finished = &[("a", 1, 1), ("b", 2, 1)];
        let none = Limits { count: 0, ..Limits::default() };
        assert_eq!(surplus(runs(finished), at(3), &none), (vec!["a", "b"], None));
        let all = Limits { count: usize::MAX, age: SignedDuration::MAX, log_bytes: u64::MAX };
        assert_eq!(surplus(runs(finished), at(3), &all), (vec![], Some(Timestamp::MAX)));
    }
}
