//! Who may do what: users, RBAC, the reviews that ask about it, and the tokens of service accounts. Pure.
//!
//! Every request has a [`Caller`]. Those of this process are the server itself, which may do everything; those from
//! outside are whom their token says. The rules are the objects of `rbac.authorization.k8s.io` as the state holds
//! them, evaluated as kube-apiserver does, and refused in its words.

mod account;
mod aggregate;
mod attributes;
mod authorize;
mod defaults;
mod escalation;
mod impersonate;
mod review;
mod rule;
mod user;

use serde_json::Value;

use crate::status::{Failure, Result};

pub use account::{AUDIENCE, authenticate};
pub(crate) use account::{ROOT_CA, automount, request_token};
pub(crate) use aggregate::aggregate;
pub(crate) use attributes::Attributes;
pub(crate) use authorize::subjects;
pub use defaults::{install, install_roles};
pub(crate) use escalation::check_write;
pub(crate) use impersonate::impersonate;
pub(crate) use review::review;
pub use user::User;

/// Signs and checks service account tokens; the keys are with whoever runs the kernel.
pub trait Tokens {
    /// A token that says this; `None` where the server issues none.
    fn sign(&self, claims: &Value) -> Option<String>;

    /// What a token says, if it was signed here; whether it still holds is for [`authenticate`] to decide.
    fn verify(&self, token: &str) -> Option<Value>;
}

/// Issues no tokens, and knows none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTokens;

impl Tokens for NoTokens {
    fn sign(&self, _claims: &Value) -> Option<String> {
        None
    }

    fn verify(&self, _token: &str) -> Option<Value> {
        None
    }
}

/// Who makes a request, and what their tokens are made with.
#[derive(Clone, Copy)]
pub struct Caller<'a> {
    /// The user, as authenticated.
    pub user: &'a User,
    /// Makes and checks tokens.
    pub tokens: &'a dyn Tokens,
}

/// A patch that makes the object needs leave to create it, as well as to patch it; so does a command, which may begin
/// with GET.
pub(crate) fn check_create(state: &crate::State, user: &User, target: &crate::route::Target) -> Result<()> {
    let resource = state.table().get(target.id);
    let owned = |text: &Option<String>| text.clone().unwrap_or_default();
    let wanted = Attributes {
        verb: "create".into(),
        group: resource.versions[target.version].group.clone(),
        resource: resource.plural.clone(),
        subresource: owned(&target.subresource),
        namespace: owned(&target.namespace),
        name: owned(&target.name),
        ..Attributes::default()
    };
    check(state, user, &wanted)
}

/// Refuses what the user may not do. Who did not say who they are is asked to, everybody else reads what is missing.
pub(crate) fn check(state: &crate::State, user: &User, attributes: &Attributes) -> Result<()> {
    let decision = authorize::decide(state, user, attributes);
    if decision.allowed {
        Ok(())
    } else if user.is_anonymous() {
        Err(Failure::unauthorized())
    } else {
        Err(attributes.forbidden(user, &decision.reason))
    }
}
