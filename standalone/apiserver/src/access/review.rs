//! Reviews: objects that are asked, not stored. Pure.

use serde_json::{Value, json};

use super::{
    Attributes, User, account,
    authorize::{self, decide},
    rule,
};
use crate::{
    body::Body,
    handle::{Call, Reply},
    object,
    route::Target,
    state::State,
    status::{Failure, FieldError, Result},
    table::Resource,
};

/// POST of a review: the same object with its status.
pub(crate) fn review(state: &State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    if call.method != http::Method::POST || target.name.is_some() {
        return Err(Failure::method_not_allowed());
    }
    let resource = state.table().get(target.id);
    let mut object = body.object()?;
    if !object.is_object() {
        return Err(Failure::bad_request("the object provided is unrecognized: it is not a JSON object"));
    }
    let user = call.caller.user;
    let status = match resource.kind.as_str() {
        "SelfSubjectReview" => json!({ "userInfo": user.to_value() }),
        "SelfSubjectRulesReview" => rules(state, user, &object),
        "SelfSubjectAccessReview" => access(state, user, resource, &object, None)?,
        "SubjectAccessReview" => access(state, &subject(&object), resource, &object, None)?,
        "LocalSubjectAccessReview" => {
            access(state, &subject(&object), resource, &object, target.namespace.as_deref())?
        }
        "TokenReview" => token(state, call, &object)?,
        _ => return Err(Failure::unknown_path()),
    };
    object["kind"] = json!(resource.kind);
    object["apiVersion"] = json!(resource.versions[target.version].api_version());
    object::meta_mut(&mut object);
    object["status"] = status;
    Ok(Reply::Json { code: 201, body: object.to_string().into_bytes(), warnings: Vec::new() })
}

/// The user that a review asks about.
fn subject(review: &Value) -> User {
    let groups = object::at(review, "spec.groups").and_then(Value::as_array).into_iter().flatten();
    User {
        name: object::text(review, "spec.user").to_owned(),
        uid: object::text(review, "spec.uid").to_owned(),
        groups: groups.filter_map(Value::as_str).map(str::to_owned).collect(),
        ..User::default()
    }
}

fn access(
    state: &State,
    user: &User,
    resource: &Resource,
    review: &Value,
    within: Option<&str>,
) -> Result<Value> {
    let text = |path: &str| object::text(review, &format!("spec.{path}")).to_owned();
    let invalid = |field: &str, value: &str, why: &str| {
        let error = FieldError::invalid(format!("spec{field}"), &Value::from(value), why);
        Err(Failure::invalid(resource, object::name(review), &[error]))
    };
    let given = |key: &str| object::at(review, &format!("spec.{key}")).is_some_and(Value::is_object);
    let wanted = match (given("resourceAttributes"), given("nonResourceAttributes")) {
        (true, false) => Attributes {
            verb: text("resourceAttributes.verb"),
            group: text("resourceAttributes.group"),
            resource: text("resourceAttributes.resource"),
            subresource: text("resourceAttributes.subresource"),
            namespace: text("resourceAttributes.namespace"),
            name: text("resourceAttributes.name"),
            path: String::new(),
        },
        (false, true) => Attributes {
            verb: text("nonResourceAttributes.verb"),
            path: text("nonResourceAttributes.path"),
            ..Attributes::default()
        },
        _ => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            return invalid("", "", why);
        }
    };
    if let Some(namespace) = within
        && wanted.namespace != namespace
    {
        return invalid(".resourceAttributes.namespace", &wanted.namespace, "must match metadata.namespace");
    }
    let asks_about = resource.kind != "SelfSubjectAccessReview";
    if asks_about && user.name.is_empty() && user.groups.is_empty() {
        return invalid(".user", "", "at least one of user or group must be specified");
    }
    let decision = decide(state, user, &wanted);
    let mut status = json!({ "allowed": decision.allowed });
    if !decision.reason.is_empty() {
        status["reason"] = json!(decision.reason);
    }
    Ok(status)
}

fn rules(state: &State, user: &User, review: &Value) -> Value {
    let (all, error) = authorize::rules_for(state, user, object::text(review, "spec.namespace"));
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in &all {
        let kept = |keys: &[&str]| -> Value {
            keys.iter().filter_map(|&key| Some((key.to_owned(), rule.get(key)?.clone()))).collect()
        };
        if rule::list(rule, "resources").next().is_some() {
            resources.push(kept(&["verbs", "apiGroups", "resources", "resourceNames"]));
        }
        if rule::list(rule, "nonResourceURLs").next().is_some() {
            paths.push(kept(&["verbs", "nonResourceURLs"]));
        }
    }
    let mut status = json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false });
    if !error.is_empty() {
        status["evaluationError"] = json!(error);
    }
    status
}

/// Whether a service account's token holds. Others, the administrator's above all, are nobody's business but this
/// server's.
fn token(state: &State, call: &Call<'_>, review: &Value) -> Result<Value> {
    let shown = object::text(review, "spec.token");
    if shown.is_empty() {
        return Err(Failure::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = account::audiences(review);
    let claims = call.caller.tokens.verify(shown);
    let user =
        claims.as_ref().and_then(|claims| account::authenticate(state, claims, &audiences, call.context.now));
    Ok(match (claims, user) {
        (Some(claims), Some(user)) => {
            let meant =
                claims.get("aud").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
            let shared: Vec<&str> = meant.filter(|audience| audiences.contains(audience)).collect();
            json!({ "authenticated": true, "user": user.to_value(), "audiences": shared })
        }
        _ => json!({ "authenticated": false, "error": "invalid bearer token" }),
    })
}
