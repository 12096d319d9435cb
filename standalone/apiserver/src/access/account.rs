//! Tokens of service accounts: what they say, when they hold, and how they come into pods. Pure.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{User, user::account_name};
use crate::{
    body::Body,
    handle::{Call, Reply, key_of},
    object::{self, stamp},
    route::Target,
    state::{ObjectKey, State},
    status::{Failure, FieldError, Result},
    table::Behaviour,
};

/// Whom tokens are for that name nobody else: this server, under the name that pods know it by.
pub const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Where clients in pods look for their token.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The ConfigMap with the server's authority, one in each namespace.
pub(crate) const ROOT_CA: &str = "kube-root-ca.crt";

/// Seconds a token in a pod is asked for, as Kubernetes asks. The odd number marks such a token.
const POD_SECONDS: i64 = 3607;

/// Seconds such a token holds in the end: Kubernetes' year, as there are clients that never read it again. It ends with
/// its pod anyway.
const EXTENDED_SECONDS: i64 = 365 * 24 * 3600;

/// Seconds that tokens outlast the end of what they are bound to, where a finalizer still keeps that: Kubernetes' leeway
/// for clocks that differ.
const LEEWAY_SECONDS: i64 = 60;

/// The least a token can be asked for, in seconds: Kubernetes' ten minutes.
const LEAST_SECONDS: i64 = 600;

/// Mounts a token into each container of a new pod that has none there, unless the pod or else its account forbids it.
/// Only where the server can be reached at all, and so has an authority.
pub(crate) fn automount(state: &mut State, account: &Value, pod: &mut Value) {
    let wanted = |value: Option<&Value>| value.and_then(Value::as_bool);
    let own = wanted(object::at(pod, "spec.automountServiceAccountToken"));
    let wanted = own.or_else(|| wanted(account.get("automountServiceAccountToken")));
    if !state.has_authority() || wanted == Some(false) {
        return;
    }
    let name = state.names.generate("kube-api-access-");
    let mut mounted = false;
    let spec = object::map_mut(pod, "spec");
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let Some(container) = container.as_object_mut() else { continue };
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| object::text(mount, "mountPath") != MOUNT_PATH) {
                mounts.push(json!({ "name": name, "mountPath": MOUNT_PATH, "readOnly": true }));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Some(volumes) = volumes.as_array_mut() {
        let field = json!({ "apiVersion": "v1", "fieldPath": "metadata.namespace" });
        volumes.push(json!({ "name": name, "projected": { "defaultMode": 0o644, "sources": [
            { "serviceAccountToken": { "expirationSeconds": POD_SECONDS, "path": "token" } },
            { "configMap": { "name": ROOT_CA, "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace", "fieldRef": field }] } },
        ] } }));
    }
}

/// POST to a service account's `token`.
pub(crate) fn request_token(
    state: &mut State,
    call: &Call<'_>,
    target: &Target,
    body: Body,
) -> Result<Reply> {
    let request = body.object()?;
    let key = key_of(target);
    let resource = state.resource(target.id);
    let account =
        state.get(target.id, &key).cloned().ok_or_else(|| Failure::not_found(&resource, &key.name))?;
    let audiences: Vec<&str> = audiences(&request);
    let asked = object::at(&request, "spec.expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let field = "spec.expirationSeconds";
    if asked < LEAST_SECONDS {
        let error = FieldError::invalid(
            field,
            &Value::from(asked),
            "may not specify a duration less than 10 minutes",
        );
        return Err(Failure::invalid(&resource, &key.name, &[error]));
    }
    let bound = bound_pod(state, &request, &key)?;
    let extended = bound.is_some() && asked == POD_SECONDS && audiences == [AUDIENCE];
    // What is asked for beyond a year is not given; a token without end is one that cannot be taken back.
    let seconds = if extended { EXTENDED_SECONDS } else { asked.min(EXTENDED_SECONDS) };
    let now = call.context.now;
    let mut about = json!({
        "namespace": key.namespace,
        "serviceaccount": { "name": key.name, "uid": object::uid(&account) },
    });
    if let Some(pod) = &bound {
        about["pod"] = json!({ "name": object::name(pod), "uid": object::uid(pod) });
    }
    if extended {
        about["warnafter"] = json!(now.as_second() + asked);
    }
    let claims = json!({
        "iss": AUDIENCE, "sub": account_name(&key.namespace, &key.name), "aud": audiences,
        "iat": now.as_second(), "nbf": now.as_second(), "exp": now.as_second() + seconds,
        "jti": state.names.uid(), "kubernetes.io": about,
    });
    let token = call.caller.tokens.sign(&claims).ok_or_else(Failure::unknown_path)?;
    let told = if extended { asked } else { seconds };
    let mut answer = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": { "name": key.name, "namespace": key.namespace, "creationTimestamp": stamp(now) },
        "spec": { "audiences": audiences, "expirationSeconds": told },
        "status": { "token": token, "expirationTimestamp": stamp(now + SignedDuration::from_secs(told)) },
    });
    if let Some(reference) = object::at(&request, "spec.boundObjectRef") {
        answer["spec"]["boundObjectRef"] = reference.clone();
    }
    Ok(Reply::Json { code: 201, body: answer.to_string().into_bytes(), warnings: Vec::new() })
}

/// The audiences of a request for or about a token.
pub(super) fn audiences(request: &Value) -> Vec<&str> {
    let list = object::at(request, "spec.audiences").and_then(Value::as_array).into_iter().flatten();
    let mut audiences: Vec<&str> = list.filter_map(Value::as_str).collect();
    if audiences.is_empty() {
        audiences.push(AUDIENCE);
    }
    audiences
}

/// The pod that a token is asked for.
fn bound_pod(state: &State, request: &Value, account: &ObjectKey) -> Result<Option<std::sync::Arc<Value>>> {
    let Some(reference) = object::at(request, "spec.boundObjectRef").filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let (kind, name) = (object::text(reference, "kind"), object::text(reference, "name"));
    let Some(pods) = state.table().by_behaviour(Behaviour::Pod).filter(|_| kind == "Pod") else {
        let why =
            format!("cannot bind token for serviceaccount {:?} to object of kind {kind:?}", account.name);
        return Err(Failure::bad_request(why));
    };
    let resource = state.table().get(pods);
    let pod = state.get(pods, &ObjectKey::new(&account.namespace, name));
    let pod = pod.ok_or_else(|| Failure::not_found(resource, name))?;
    if object::text(pod, "spec.serviceAccountName") != account.name {
        return Err(Failure::bad_request(format!(
            "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
            account.name
        )));
    }
    let uid = object::text(reference, "uid");
    if !uid.is_empty() && uid != object::uid(pod) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have \
             been deleted and then recreated"
        );
        return Err(Failure::conflict(resource, name, &why));
    }
    Ok(Some(std::sync::Arc::clone(pod)))
}

/// Whom a token with these claims is, if it still holds for one of these audiences: it has not expired, its account is
/// the one it was made for, and so is the pod it is bound to. The signature has been checked.
pub fn authenticate(state: &State, claims: &Value, audiences: &[&str], now: Timestamp) -> Option<User> {
    let time = |key: &str| claims.get(key).and_then(Value::as_i64);
    let mut meant = claims.get("aud")?.as_array()?.iter().filter_map(Value::as_str);
    let holds = claims.get("iss")?.as_str() == Some(AUDIENCE)
        && meant.any(|audience| audiences.contains(&audience))
        && time("nbf")? <= now.as_second()
        && now.as_second() < time("exp")?;
    if !holds {
        return None;
    }
    // Not a dotted path: the key has a dot of its own.
    let about = claims.get("kubernetes.io")?;
    let namespace = about.get("namespace")?.as_str()?;
    let same = |part: &Value, object: &Value| {
        let end = object::text(object, "metadata.deletionTimestamp").parse::<Timestamp>();
        !object::uid(object).is_empty()
            && part.get("uid").and_then(Value::as_str) == Some(object::uid(object))
            && end.map_or(true, |end| now.as_second() <= end.as_second() + LEEWAY_SECONDS)
    };
    let find = |group: &str, plural: &str, name: &str| {
        let (id, _) = state.table().find(group, "v1", plural)?;
        state.get(id, &ObjectKey::new(namespace, name))
    };
    let part = about.get("serviceaccount")?;
    let name = part.get("name")?.as_str()?;
    let account = find("", "serviceaccounts", name).filter(|account| same(part, account))?;
    let mut user = User::account(namespace, name, object::uid(account));
    if claims.get("sub")?.as_str() != Some(user.name.as_str()) {
        return None;
    }
    if let Some(part) = about.get("pod") {
        let name = part.get("name")?.as_str()?;
        let pod = find("", "pods", name).filter(|pod| same(part, pod))?;
        let extra = [("pod-name", name), ("pod-uid", object::uid(pod))];
        user.extra.extend(
            extra.map(|(key, value)| (format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()])),
        );
    }
    if let Some(id) = claims.get("jti").and_then(Value::as_str) {
        user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![format!("JTI={id}")]);
    }
    Some(user)
}
