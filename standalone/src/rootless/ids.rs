//! Which ids a user namespace has. No IO.

use std::fmt;

/// The ranges of ids that somebody may hand out, as subuid(5) has them.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct SubIds(Vec<(u32, u32)>);

impl SubIds {
    /// The ranges of a user, who is known by name or by number, in a file of this text.
    pub(super) fn of(text: &str, name: Option<&str>, user: u32) -> Self {
        let number = user.to_string();
        let range = |line: &str| {
            let mut fields = line.split(':').map(str::trim);
            let owner = fields.next()?;
            let is_own = owner == number || Some(owner) == name;
            let (first, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            (is_own && count > 0).then_some((first, count))
        };
        Self(text.lines().filter_map(range).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A namespace's ids: 0 is the user's own, those from 1 on are those of the ranges, in their order.
pub(super) struct Ids<'a> {
    pub(super) own: u32,
    pub(super) ranges: &'a SubIds,
}

/// Arguments for newuidmap and newgidmap.
impl fmt::Display for Ids<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "0 {} 1", self.own)?;
        let mut inside = 1_u32;
        for (first, count) in &self.ranges.0 {
            let room = u32::MAX - inside;
            let count = *count.min(&room);
            if count > 0 {
                write!(formatter, " {inside} {first} {count}")?;
                inside += count;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_user() {
        let text = "root:1:2\nalice:100000:65536\n# alice:5:5\n1000:300000:10\nalice:9:0\nalice:x:1\nbob:200000:65536\n";
        let found = |name, user| SubIds::of(text, name, user);
        assert_eq!(found(Some("alice"), 1000), SubIds(vec![(100_000, 65_536), (300_000, 10)]));
        assert_eq!(found(None, 1000), SubIds(vec![(300_000, 10)]));
        assert!(found(Some("carol"), 1003).is_empty());
    }

    #[test]
    fn arguments() {
        let shown = |ranges: Vec<(u32, u32)>| Ids { own: 1000, ranges: &SubIds(ranges) }.to_string();
        assert_eq!(shown(vec![(100_000, 65_536), (300_000, 10)]), "0 1000 1 1 100000 65536 65537 300000 10");
        assert_eq!(shown(vec![(5, u32::MAX), (7, 1)]), format!("0 1000 1 1 5 {}", u32::MAX - 1));
    }
}
