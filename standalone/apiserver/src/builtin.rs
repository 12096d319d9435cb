//! The built-in kinds: their place in the resource table and the few rules they have of their own. Pure.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    admission,
    object::{self, map_mut},
    resources::Side,
    status::FieldError,
    table::{Behaviour, Column, DEFINITIONS, Resource, Version},
};

/// Namespaces that Kubernetes lets nobody delete.
pub(crate) const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

fn column(name: &str, kind: &str, json_path: &str) -> Column {
    Column {
        name: name.into(),
        kind: kind.into(),
        description: String::new(),
        json_path: json_path.into(),
        priority: 0,
    }
}

/// Everything a pipeline's objects refer to. `Service` and `StatefulSet` are stored only: nothing acts on them.
pub(crate) fn resources() -> Vec<Resource> {
    let age = || column("Age", "date", ".metadata.creationTimestamp");
    let core = |kind: &str, plural: &str, short: &[&str]| {
        let mut resource = Resource::new("", "v1", kind, plural);
        resource.short_names = short.iter().map(|&name| name.to_owned()).collect();
        resource
    };
    let with = |mut resource: Resource, status: bool, columns: Vec<Column>| {
        for version in &mut resource.versions {
            version.status = status;
            version.columns.clone_from(&columns);
        }
        resource
    };
    let mut namespace = with(core("Namespace", "namespaces", &["ns"]), true, Vec::new());
    namespace.namespaced = false;
    namespace.behaviour = Behaviour::Namespace;
    namespace.returns_deleted = true;

    let mut pod = with(core("Pod", "pods", &["po"]), true, Vec::new());
    pod.categories = vec!["all".into()];
    pod.behaviour = Behaviour::Pod;
    pod.returns_deleted = true;
    pod.counts_generations = true;

    let mut secret = core("Secret", "secrets", &[]);
    secret.behaviour = Behaviour::Secret;

    let claim = core("PersistentVolumeClaim", "persistentvolumeclaims", &["pvc"]);
    let mut claim = with(claim, true, Vec::new());
    claim.behaviour = Behaviour::PersistentVolumeClaim;
    claim.returns_deleted = true;

    let mut account = core("ServiceAccount", "serviceaccounts", &["sa"]);
    account.returns_deleted = true;
    account.behaviour = Behaviour::ServiceAccount;

    let mut host = with(core("Node", "nodes", &["no"]), true, Vec::new());
    host.namespaced = false;

    let mut event = core("Event", "events", &["ev"]);
    event.versions.push(Version::new("events.k8s.io", "v1"));
    event.convert = convert_event;
    event.behaviour = Behaviour::Event;

    let mut stateful = Resource::new("apps", "v1", "StatefulSet", "statefulsets");
    stateful.short_names = vec!["sts".into()];
    stateful.categories = vec!["all".into()];
    stateful.counts_generations = true;
    let stateful = with(stateful, true, vec![age()]);

    let holder = column("Holder", "string", ".spec.holderIdentity");
    let lease =
        with(Resource::new("coordination.k8s.io", "v1", "Lease", "leases"), false, vec![holder, age()]);

    let mut definition = Resource::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition", DEFINITIONS);
    definition.short_names = vec!["crd".into(), "crds".into()];
    definition.categories = vec!["api-extensions".into()];
    definition.namespaced = false;
    definition.behaviour = Behaviour::ReadOnly;
    let created = column("Created At", "date", ".metadata.creationTimestamp");
    let definition = with(definition, true, vec![created]);

    let mut service = with(core("Service", "services", &["svc"]), true, vec![age()]);
    service.categories = vec!["all".into()];
    service.returns_deleted = true;
    let mut quota = with(core("ResourceQuota", "resourcequotas", &["quota"]), true, vec![age()]);
    quota.returns_deleted = true;
    let mut range = with(core("LimitRange", "limitranges", &["limits"]), false, vec![age()]);
    range.behaviour = Behaviour::LimitRange;

    let rbac = [
        ("Role", "roles", true, Behaviour::Role),
        ("RoleBinding", "rolebindings", true, Behaviour::RoleBinding),
        ("ClusterRole", "clusterroles", false, Behaviour::ClusterRole),
        ("ClusterRoleBinding", "clusterrolebindings", false, Behaviour::ClusterRoleBinding),
    ]
    .map(|(kind, plural, namespaced, behaviour)| {
        let mut resource = Resource::new("rbac.authorization.k8s.io", "v1", kind, plural);
        resource.namespaced = namespaced;
        resource.behaviour = behaviour;
        resource
    });
    let reviews = [
        ("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
        ("authentication.k8s.io", "TokenReview", "tokenreviews"),
        ("authorization.k8s.io", "LocalSubjectAccessReview", "localsubjectaccessreviews"),
        ("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "SelfSubjectRulesReview", "selfsubjectrulesreviews"),
        ("authorization.k8s.io", "SubjectAccessReview", "subjectaccessreviews"),
    ]
    .map(|(group, kind, plural)| {
        let mut resource = Resource::new(group, "v1", kind, plural);
        resource.namespaced = kind.starts_with("Local");
        resource.behaviour = Behaviour::Review;
        resource
    });

    let mut resources = vec![
        namespace,
        pod,
        core("ConfigMap", "configmaps", &["cm"]),
        secret,
        account,
        claim,
        event,
        host,
        service,
        range,
        quota,
        stateful,
        lease,
        definition,
    ];
    resources.extend(rbac);
    resources.extend(reviews);
    resources
}

/// Fields of an event that have another name in `events.k8s.io`: core name first.
const EVENT_FIELDS: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

/// Events live in two groups with one storage, as in Kubernetes: what a recorder writes to `events.k8s.io` is what
/// `kubectl get events` reads from the core group.
fn convert_event(mut event: Value, from: &str, _to: &str) -> Result<Value, String> {
    let to_core = from != "v1";
    let Some(map) = event.as_object_mut() else { return Err("an event must be an object".into()) };
    let renames = EVENT_FIELDS.iter().chain([&("count", "deprecatedCount")]);
    for (core, events) in renames {
        let (old, new) = if to_core { (events, core) } else { (core, events) };
        if let Some(value) = map.remove(*old) {
            map.insert((*new).to_owned(), value);
        }
    }
    Ok(event)
}

/// What the server itself sets on a new object of a built-in kind.
pub(crate) fn prepare_create(behaviour: Behaviour, object: &mut Value) {
    match behaviour {
        Behaviour::Namespace => {
            object["spec"] = json!({ "finalizers": ["kubernetes"] });
            object["status"] = json!({ "phase": "Active" });
            label(object);
        }
        Behaviour::Pod => {
            object["status"] = json!({ "phase": "Pending", "qosClass": quality(object) });
        }
        Behaviour::PersistentVolumeClaim => {
            object["status"] = json!({ "phase": "Pending" });
        }
        _ => prepare_write(behaviour, object),
    }
}

/// How sure a pod can be of what it asks for. `Guaranteed` is one whose containers all may use exactly what they ask for,
/// of cpu as of memory, and `BestEffort` one that asks for neither.
fn quality(pod: &Value) -> &'static str {
    let containers = |list: &str| object::at(pod, list).and_then(Value::as_array).into_iter().flatten();
    let (mut asks, mut sure) = (false, true);
    for container in containers("spec.containers").chain(containers("spec.initContainers")) {
        let (requests, limits) = (Side::Requests.of(container), Side::Limits.of(container));
        for name in ["cpu", "memory"] {
            let [request, limit] =
                [&requests, &limits].map(|amounts| amounts.get(name).filter(|amount| !amount.is_zero()));
            asks |= request.is_some() || limit.is_some();
            sure &= limit.is_some() && request == limit;
        }
    }
    match (asks, sure) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// What the server itself changes at every write of a built-in kind.
pub(crate) fn prepare_write(behaviour: Behaviour, object: &mut Value) {
    if behaviour == Behaviour::Namespace && !object::name(object).is_empty() {
        label(object);
    }
    if behaviour == Behaviour::LimitRange {
        admission::complete(object);
    }
    if behaviour == Behaviour::Secret {
        let Some(Value::Object(plain)) =
            object.as_object_mut().and_then(|secret| secret.remove("stringData"))
        else {
            return;
        };
        let data = map_mut(object, "data");
        for (key, value) in plain {
            data.insert(key, Value::from(STANDARD.encode(value.as_str().unwrap_or_default())));
        }
    }
}

/// A namespace carries its name as a label, for selectors.
fn label(namespace: &mut Value) {
    let name = Value::from(object::name(namespace));
    map_mut(map_value(namespace, "metadata"), "labels").insert("kubernetes.io/metadata.name".into(), name);
}

fn map_value<'a>(object: &'a mut Value, key: &str) -> &'a mut Value {
    map_mut(object, key);
    &mut object[key]
}

/// Whether a pod is past running: it can go at once.
pub(crate) fn is_over(pod: &Value) -> bool {
    matches!(object::text(pod, "status.phase"), "Succeeded" | "Failed")
}

/// Seconds a pod has to end after its deletion.
pub(crate) fn pod_grace(pod: &Value, requested: Option<i64>) -> i64 {
    if object::text(pod, "spec.nodeName").is_empty() || is_over(pod) {
        return 0;
    }
    // 30 s is Kubernetes' default for `terminationGracePeriodSeconds`.
    let own = object::at(pod, "spec.terminationGracePeriodSeconds").and_then(Value::as_i64);
    let grace = requested.or(own).unwrap_or(30);
    // A negative one must not end a pod before its node knows: kube-apiserver makes a second of it.
    if grace < 0 { 1 } else { grace }
}

/// The spec with the few fields that may change on a pod taken out.
fn fixed_spec(pod: &Value) -> Value {
    let mut spec = pod.get("spec").cloned().unwrap_or_default();
    if let Some(spec) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "terminationGracePeriodSeconds", "tolerations"] {
            spec.remove(field);
        }
        for list in ["containers", "initContainers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                if let Some(container) = container.as_object_mut() {
                    container.remove("image");
                }
            }
        }
    }
    spec
}

/// Checks an update of a built-in kind beyond its metadata.
pub(crate) fn validate_update(behaviour: Behaviour, old: &Value, new: &Value) -> Vec<FieldError> {
    match behaviour {
        Behaviour::Pod if fixed_spec(old) != fixed_spec(new) => vec![FieldError::forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
             existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously \
             negative)",
        )],
        Behaviour::Plain | Behaviour::Secret if old.get("immutable") == Some(&Value::Bool(true)) => {
            let content = |object: &Value| (object.get("data").cloned(), object.get("binaryData").cloned());
            if content(old) == content(new) && new.get("immutable") == old.get("immutable") {
                Vec::new()
            } else {
                vec![FieldError::forbidden("data", "field is immutable when `immutable` is set")]
            }
        }
        // Whom a binding trusts with what is decided once: another role needs another binding.
        Behaviour::RoleBinding | Behaviour::ClusterRoleBinding
            if old.get("roleRef") != new.get("roleRef") =>
        {
            let role = new.get("roleRef").unwrap_or(&Value::Null);
            vec![FieldError::invalid("roleRef", role, "cannot change roleRef")]
        }
        _ => Vec::new(),
    }
}
