//! The user and groups of a container, found in its image's `/etc/passwd` and `/etc/group` as container engines find
//! them. No IO: the texts are arguments.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// Whom a container runs as, as far as pod and image say it. The image's files say the rest.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Account {
    /// Name or number of the user.
    pub user: String,
    /// Name or number of the primary group; where there is none it is the user's own, or 0 for one without an entry.
    pub group: Option<String>,
    /// Supplementary groups.
    pub groups: BTreeSet<u32>,
    /// Whether those groups are added that list the user among their members.
    pub memberships: bool,
}

/// A user with all its numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Person {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: BTreeSet<u32>,
    /// Its home, if it has an entry.
    pub home: Option<String>,
}

/// Why there is no such user. The text is the one container engines have.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AccountError {
    /// A name without an entry.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// A name without an entry.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
}

impl Account {
    /// The user as these files have it; of images without them they are empty.
    pub fn find(&self, passwd: &str, group: &str) -> Result<Person, AccountError> {
        // What is a number is never looked up as a name, as containerd has it: whoever was told that the container does not
        // run as root was told so of the number, and the file is the image's.
        let number = id(&self.user);
        let mut entries = passwd.lines().filter_map(User::parse);
        let known =
            entries.find(|entry| number.map_or(entry.name == self.user, |number| entry.uid == number));
        let uid = number.or_else(|| known.as_ref().map(|entry| entry.uid));
        let uid = uid.ok_or_else(|| AccountError::NoUser(self.user.clone()))?;
        let gid = match &self.group {
            Some(wanted) => {
                let named = || group.lines().filter_map(Group::parse).find(|entry| entry.name == wanted);
                let gid = id(wanted).or_else(|| named().map(|entry| entry.gid));
                gid.ok_or_else(|| AccountError::NoGroup(wanted.clone()))?
            }
            None => known.as_ref().map_or(0, |entry| entry.gid),
        };
        let mut groups = self.groups.clone();
        if let Some(known) = known.as_ref().filter(|_| self.memberships) {
            let all = group.lines().filter_map(Group::parse);
            let own = all.filter(|entry| entry.members.split(',').any(|member| member.trim() == known.name));
            groups.extend(own.map(|entry| entry.gid));
        }
        let home = known.map(|entry| entry.home.to_owned()).filter(|home| !home.is_empty());
        Ok(Person { uid, gid, groups, home })
    }
}

/// A number that is a uid or gid; other texts are names.
pub(crate) fn id(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse::<i32>().ok().filter(|_| digits)?;
    u32::try_from(number).ok()
}

/// `name:password:uid:gid:comment:home:shell`
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> User<'a> {
    /// `None` for a line that is no entry.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next().filter(|name| !name.is_empty())?, fields.next()?);
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    }
}

/// `name:password:gid:member,member`
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> Group<'a> {
    /// `None` for a line that is no entry.
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next().filter(|name| !name.is_empty())?, fields.next()?);
        Some(Self { name, gid: id(fields.next()?)?, members: fields.next().unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\n\nbuild:x:1000:100:Builder:/home/build:/bin/sh\n\
        homeless:x:7:7:::\nbroken:x:many:1::/:\n1234:x:0:0::/odd:\nshort:x:8:9\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\ndocker:x:999:other,build\nwheel:x:10:build\nempty:x:11\nbroken:x:y:build\n4321:x:0:\n";

    fn account(user: &str, group: Option<&str>) -> Account {
        Account {
            user: user.to_owned(),
            group: group.map(str::to_owned),
            groups: [3000].into(),
            memberships: true,
        }
    }

    #[test]
    fn users_and_groups_by_name_and_number() {
        let home = |path: &str| Some(path.to_owned());
        for (user, group, uid, gid, groups, at) in [
            ("root", None, 0, 0, vec![3000], home("/root")),
            ("0", None, 0, 0, vec![3000], home("/root")),
            ("build", None, 1000, 100, vec![10, 999, 3000], home("/home/build")),
            ("1000", None, 1000, 100, vec![10, 999, 3000], home("/home/build")),
            ("build", Some("wheel"), 1000, 10, vec![10, 999, 3000], home("/home/build")),
            ("build", Some("5"), 1000, 5, vec![10, 999, 3000], home("/home/build")),
            ("4711", None, 4711, 0, vec![3000], None),
            ("4711", Some("docker"), 4711, 999, vec![3000], None),
            ("homeless", None, 7, 7, vec![3000], None),
            ("short", None, 8, 9, vec![3000], None),
            // What is written as a number is one, whatever the image calls its users: a pod that says `runAsUser: 1234` and
            // not root means that.
            ("1234", None, 1234, 0, vec![3000], None),
            ("1234", Some("4321"), 1234, 4321, vec![3000], None),
        ] {
            let found = account(user, group).find(PASSWD, GROUP).expect("found");
            let expected = Person { uid, gid, groups: groups.into_iter().collect(), home: at };
            assert_eq!(found, expected, "{user}:{group:?}");
        }
        let strict = Account { memberships: false, ..account("build", None) };
        assert_eq!(strict.find(PASSWD, GROUP).expect("found").groups, [3000].into());
    }

    #[test]
    fn nobody_is_made_up() {
        for user in ["nobody", "broken", "", "-1", "+5", "2147483648", "99999999999999999999", "# a comment"]
        {
            let error = account(user, None).find(PASSWD, GROUP).expect_err("nobody");
            assert_eq!(
                error.to_string(),
                format!("unable to find user {user}: no matching entries in passwd file")
            );
        }
        for group in ["staff", "broken", ""] {
            let error = account("build", Some(group)).find(PASSWD, GROUP).expect_err("no group");
            assert_eq!(
                error.to_string(),
                format!("unable to find group {group}: no matching entries in group file")
            );
        }
        assert_eq!(account("12", None).find("", "").expect("a number").gid, 0);
    }
}
