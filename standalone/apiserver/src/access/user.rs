//! Users and their groups, under Kubernetes' names. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The group that may do everything, whatever the rules say.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of everybody who said who they are.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
const ANONYMOUS: &str = "system:anonymous";
const ACCOUNT_PREFIX: &str = "system:serviceaccount:";

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// For example `system:serviceaccount:default:builder`.
    pub name: String,
    /// Tells apart users that had the same name at different times; empty where nobody does.
    pub uid: String,
    /// Groups, in the order they are told.
    pub groups: Vec<String>,
    /// What else the authentication found out.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn named(name: &str, groups: &[&str]) -> Self {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Self { name: name.to_owned(), groups, ..Self::default() }
    }

    /// The server itself and the parts that run in its process.
    pub fn server() -> Self {
        Self::named("system:apiserver", &[MASTERS, AUTHENTICATED])
    }

    /// Who holds the administrator's token.
    pub fn admin() -> Self {
        Self::named("kubernetes-admin", &[MASTERS, AUTHENTICATED])
    }

    /// Who showed no token.
    pub fn anonymous() -> Self {
        Self::named(ANONYMOUS, &[UNAUTHENTICATED])
    }

    /// A service account.
    pub(crate) fn account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = Self::account_groups(namespace);
        let name = account_name(namespace, name);
        Self { name, uid: uid.to_owned(), groups, ..Self::default() }
    }

    pub(crate) fn account_groups(namespace: &str) -> Vec<String> {
        vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            AUTHENTICATED.to_owned(),
        ]
    }

    pub(crate) fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// As reviews tell it.
    pub(crate) fn to_value(&self) -> Value {
        let mut info = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            info["uid"] = json!(self.uid);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }
}

/// The user name of a service account.
pub(crate) fn account_name(namespace: &str, name: &str) -> String {
    format!("{ACCOUNT_PREFIX}{namespace}:{name}")
}

/// Namespace and name of the service account that has this user name.
pub(crate) fn account_of(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix(ACCOUNT_PREFIX)?
        .split_once(':')
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
}
