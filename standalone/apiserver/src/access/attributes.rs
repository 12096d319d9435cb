//! What a request wants to do, in the words that rules are written in. Pure.

use http::Method;

use super::User;
use crate::{
    route::{Query, Route},
    state::State,
    status::Failure,
};

/// What a request wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// For example `list`; for a path the method in lower case.
    pub(crate) verb: String,
    pub(crate) group: String,
    /// Plural; empty where the request is for a path.
    pub(crate) resource: String,
    pub(crate) subresource: String,
    /// Empty across namespaces and for cluster-scoped resources.
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Set where the request is not for a resource.
    pub(crate) path: String,
}

impl Attributes {
    pub(crate) fn of(state: &State, method: &Method, route: &Route, path: &str, query: &Query) -> Self {
        let Route::Object(target) = route else {
            return Self {
                verb: method.as_str().to_ascii_lowercase(),
                path: path.to_owned(),
                ..Self::default()
            };
        };
        let resource = state.table().get(target.id);
        let owned = |text: &Option<String>| text.clone().unwrap_or_default();
        let named = target.name.is_some();
        let verb = match method.as_str() {
            "POST" => "create",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" if named => "delete",
            "DELETE" => "deletecollection",
            _ if named => "get",
            _ if query.flag("watch") => "watch",
            _ => "list",
        };
        // Whoever may look at one object of a name may also list and watch just that one.
        let selected = || {
            query
                .text("fieldSelector")
                .strip_prefix("metadata.name=")
                .map(|name| name.trim_start_matches('='))
        };
        let name = match &target.name {
            Some(name) => name.clone(),
            None if verb == "create" => String::new(),
            None => selected().filter(|name| !name.contains([',', '/', '%'])).unwrap_or_default().to_owned(),
        };
        // A namespace lies in itself: a role in it may allow to look at it.
        let of_namespaces = resource.group.is_empty() && resource.plural == "namespaces";
        Self {
            verb: verb.to_owned(),
            group: resource.versions[target.version].group.clone(),
            resource: resource.plural.clone(),
            subresource: owned(&target.subresource),
            namespace: if of_namespaces { owned(&target.name) } else { owned(&target.namespace) },
            name,
            path: String::new(),
        }
    }

    /// `pods/log`: how rules name a subresource.
    pub(crate) fn combined(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// The refusal, to the letter of kube-apiserver's.
    pub(crate) fn forbidden(&self, user: &User, reason: &str) -> Failure {
        let (user, verb) = (&user.name, &self.verb);
        let mut why = if self.path.is_empty() {
            let place = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            let (resource, group) = (self.combined(), &self.group);
            format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {place}")
        } else {
            format!("User {user:?} cannot {verb} path {:?}", self.path)
        };
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Failure::forbidden_to(&self.group, &self.resource, &self.name, &why)
    }
}
