//! The definitions of the built-in kinds: `k8s-openapi` knows their fields, the tables here what the generated types
//! leave out, which is how lists and maps merge. Pure.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        authentication::v1::{SelfSubjectReview, TokenRequest, TokenReview},
        authorization::v1::{
            LocalSubjectAccessReview, SelfSubjectAccessReview, SelfSubjectRulesReview, SubjectAccessReview,
        },
        coordination::v1::Lease,
        core::v1::{
            Binding, ConfigMap, Event, LimitRange, Namespace, Node, PersistentVolumeClaim, Pod,
            ResourceQuota, Secret, Service, ServiceAccount,
        },
        events::v1::Event as NewEvent,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

/// Lists whose elements merge by keys, from the `listType=map` tags of k8s.io/api.
const LIST_KEYS: [(&str, &str, &[&str]); 29] = [
    ("Container", "env", &["name"]),
    ("Container", "ports", &["containerPort", "protocol"]),
    ("Container", "volumeDevices", &["devicePath"]),
    ("Container", "volumeMounts", &["mountPath"]),
    ("EphemeralContainer", "env", &["name"]),
    ("EphemeralContainer", "ports", &["containerPort", "protocol"]),
    ("EphemeralContainer", "volumeDevices", &["devicePath"]),
    ("EphemeralContainer", "volumeMounts", &["mountPath"]),
    ("NamespaceStatus", "conditions", &["type"]),
    ("NodeStatus", "addresses", &["type"]),
    ("NodeStatus", "conditions", &["type"]),
    ("ObjectMeta", "ownerReferences", &["uid"]),
    ("PersistentVolumeClaimStatus", "conditions", &["type"]),
    ("PodSpec", "containers", &["name"]),
    ("PodSpec", "ephemeralContainers", &["name"]),
    ("PodSpec", "hostAliases", &["ip"]),
    ("PodSpec", "imagePullSecrets", &["name"]),
    ("PodSpec", "initContainers", &["name"]),
    ("PodSpec", "resourceClaims", &["name"]),
    ("PodSpec", "schedulingGates", &["name"]),
    ("PodSpec", "topologySpreadConstraints", &["topologyKey", "whenUnsatisfiable"]),
    ("PodSpec", "volumes", &["name"]),
    ("PodStatus", "conditions", &["type"]),
    ("PodStatus", "podIPs", &["ip"]),
    ("ResourceRequirements", "claims", &["name"]),
    ("ServiceAccount", "secrets", &["name"]),
    ("ServiceSpec", "ports", &["port", "protocol"]),
    ("ServiceStatus", "conditions", &["type"]),
    ("StatefulSetStatus", "conditions", &["type"]),
];

/// Lists that are sets.
const SETS: [(&str, &str); 2] = [("NodeSpec", "podCIDRs"), ("ObjectMeta", "finalizers")];

/// Maps that are one value, by definition.
const ATOMIC: [&str; 13] = [
    "ConfigMapKeySelector",
    "LabelSelector",
    "LocalObjectReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "ObjectFieldSelector",
    "ObjectReference",
    "ResourceFieldSelector",
    "RoleRef",
    "SecretKeySelector",
    "SecretReference",
    "Subject",
    "TypedLocalObjectReference",
];

/// Maps that are one value, by field.
const ATOMIC_FIELDS: [(&str, &str); 2] = [("PodSpec", "nodeSelector"), ("ServiceSpec", "selector")];

/// Fields that are what Go's types call them when they are left out.
const DEFAULTS: [(&str, &str, &str); 2] =
    [("ContainerPort", "protocol", "TCP"), ("ServicePort", "protocol", "TCP")];

/// Definitions that hold anything.
const RAW: [&str; 4] = ["FieldsV1", "RawExtension", "JSON", "JSONSchemaPropsOrBool"];

/// All definitions by name; with or without the descriptions, which are most of their size.
pub(super) fn definitions(described: bool) -> Map<String, Value> {
    let mut generator = SchemaGenerator::new(SchemaSettings::openapi3());
    macro_rules! add {
        ($($kind:ty),+ $(,)?) => { $(generator.subschema_for::<$kind>();)+ };
    }
    add!(
        Binding,
        DeleteOptions,
        LocalSubjectAccessReview,
        SelfSubjectAccessReview,
        SelfSubjectReview,
        SelfSubjectRulesReview,
        SubjectAccessReview,
        TokenRequest,
        TokenReview,
        ClusterRole,
        ClusterRoleBinding,
        ConfigMap,
        CustomResourceDefinition,
        Event,
        Lease,
        LimitRange,
        Namespace,
        NewEvent,
        Node,
        PersistentVolumeClaim,
        Pod,
        ResourceQuota,
        Role,
        RoleBinding,
        Secret,
        Service,
        ServiceAccount,
        StatefulSet,
    );
    let mut definitions = generator.take_definitions(true);
    let mut annotated = Map::new();
    for (name, schema) in &mut definitions {
        if !described {
            strip(schema);
        }
        annotate(name.rsplit('.').next().unwrap_or_default(), schema);
        annotated.insert(name.clone(), schema.take());
    }
    annotated
}

/// Drops the descriptions of a schema; a property may be called `description` itself.
fn strip(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    map.remove("description");
    for (key, value) in map {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => properties.values_mut().for_each(strip),
            ("items" | "additionalProperties", value) => strip(value),
            _ => {}
        }
    }
}

fn annotate(name: &str, schema: &mut Value) {
    if ATOMIC.contains(&name) {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    if RAW.contains(&name) {
        schema["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (_, field, keys) in LIST_KEYS.iter().filter(|(definition, ..)| *definition == name) {
        if let Some(property) = properties.get_mut(*field) {
            property["x-kubernetes-list-type"] = json!("map");
            property["x-kubernetes-list-map-keys"] = json!(keys);
            property["x-kubernetes-patch-merge-key"] = json!(keys[0]);
            property["x-kubernetes-patch-strategy"] =
                json!(if *field == "volumes" { "merge,retainKeys" } else { "merge" });
        }
    }
    for (_, field) in SETS.iter().filter(|(definition, _)| *definition == name) {
        if let Some(property) = properties.get_mut(*field) {
            property["x-kubernetes-list-type"] = json!("set");
            property["x-kubernetes-patch-strategy"] = json!("merge");
        }
    }
    for (_, field) in ATOMIC_FIELDS.iter().filter(|(definition, _)| *definition == name) {
        if let Some(property) = properties.get_mut(*field) {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
    }
    for (_, field, value) in DEFAULTS.iter().filter(|(definition, ..)| *definition == name) {
        if let Some(property) = properties.get_mut(*field) {
            property["default"] = json!(value);
        }
    }
}
