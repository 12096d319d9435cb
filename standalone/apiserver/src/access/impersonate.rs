//! `kubectl --as`: doing a request as somebody else, for those who may. Pure.

use http::HeaderMap;

use super::{
    Attributes, User, check,
    user::{AUTHENTICATED, UNAUTHENTICATED, account_of},
};
use crate::{
    state::State,
    status::{Failure, Result},
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";

/// The user a request is done as, where its headers name one.
pub(crate) fn impersonate(state: &State, user: &User, headers: &HeaderMap) -> Result<Option<User>> {
    let mut named = headers.keys().filter(|name| name.as_str().starts_with("impersonate-"));
    if named.any(|name| name != USER && name != GROUP) {
        return Err(Failure::bad_request(
            "only users and groups can be impersonated here, not UIDs and extras",
        ));
    }
    let text = |value: &http::HeaderValue| {
        let text = value.to_str().map(str::to_owned);
        text.map_err(|_| Failure::bad_request("a name to impersonate is not text"))
    };
    let mut groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>>>()?;
    let Some(name) = headers.get(USER).map(text).transpose()?.filter(|name| !name.is_empty()) else {
        if groups.is_empty() {
            return Ok(None);
        }
        return Err(Failure::bad_request(format!("requested {groups:?} without impersonating a user")));
    };
    let asks = |resource: &str, namespace: &str, name: &str| {
        let wanted = Attributes {
            verb: "impersonate".into(),
            resource: resource.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        };
        check(state, user, &wanted)
    };
    match account_of(&name) {
        Some((namespace, account)) => asks("serviceaccounts", namespace, account)?,
        None => asks("users", "", &name)?,
    }
    groups.iter().try_for_each(|group| asks("groups", "", group))?;
    if let Some((namespace, _)) = account_of(&name)
        && groups.is_empty()
    {
        groups = User::account_groups(namespace);
    }
    let mut other = User { name, groups, ..User::default() };
    let group = if other.is_anonymous() { UNAUTHENTICATED } else { AUTHENTICATED };
    if !other.is_in(group) && !other.is_in(UNAUTHENTICATED) {
        other.groups.push(group.to_owned());
    }
    Ok(Some(other))
}
