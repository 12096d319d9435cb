//! `fieldRef` and `resourceFieldRef`: what a pod may learn about itself through the environment and the
//! downward API. No IO.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::{ConfigError, HostFacts};

/// The value of `fieldRef.fieldPath`, as the kubelet renders it: maps as sorted `key="value"` lines.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, facts: &HostFacts) -> Result<String, ConfigError> {
    let path = selector.field_path.as_str();
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let values = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => return Err(ConfigError::UnsupportedField(path.to_owned())),
        };
        return Ok(values.and_then(|values| values.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => spec
            .and_then(|spec| spec.service_account_name.clone())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        "status.podIP" | "status.podIPs" => facts.pod_ip.clone().unwrap_or_default(),
        _ => return Err(ConfigError::UnsupportedField(path.to_owned())),
    })
}

/// Splits `metadata.labels['x']` into the map's path and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    let unquoted = |quote| key.strip_prefix(quote).and_then(|key| key.strip_suffix(quote));
    unquoted('\'').or_else(|| unquoted('"')).map(|key| (map, key))
}

fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let entries = map.into_iter().flatten();
    entries.map(|(key, value)| format!("{key}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

/// Quotes as Go's `%q` does for the characters that occur in labels and annotations.
fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for character in value.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// The value of a `resourceFieldRef` for `container`, rounded up to the divisor as the kubelet does.
pub fn resource(
    pod: &Pod,
    container: &Container,
    selector: &ResourceFieldSelector,
    facts: &HostFacts,
) -> Result<String, ConfigError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let spec = pod.spec.as_ref();
    let container = named
        .and_then(|name| {
            let init = spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten());
            init.chain(spec.into_iter().flat_map(|spec| &spec.containers)).find(|other| other.name == name)
        })
        .unwrap_or(container);
    let (group, name) = selector
        .resource
        .split_once('.')
        .ok_or_else(|| ConfigError::UnsupportedResource(selector.resource.clone()))?;
    let resources = container.resources.as_ref();
    let list = match group {
        "limits" => resources.and_then(|resources| resources.limits.as_ref()),
        "requests" => resources.and_then(|resources| resources.requests.as_ref()),
        _ => return Err(ConfigError::UnsupportedResource(selector.resource.clone())),
    };
    let millis = |text| amount(text).map(ropewalk_quantity::Quantity::millis);
    let given = list.and_then(|list| list.get(name)).map(millis).transpose()?;
    let default = match (group, name) {
        ("limits", "cpu") => i128::from(facts.cpus) * 1000,
        ("limits", "memory") => i128::from(facts.memory_bytes) * 1000,
        (_, "cpu" | "memory" | "ephemeral-storage") => 0,
        _ => return Err(ConfigError::UnsupportedResource(selector.resource.clone())),
    };
    let divisor = selector.divisor.as_ref().map(millis).transpose()?.filter(|divisor| *divisor > 0);
    let divisor = divisor.unwrap_or(1000);
    let value = given.unwrap_or(default);
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// The amount that a text is.
pub(crate) fn amount(text: &Quantity) -> Result<ropewalk_quantity::Quantity, ConfigError> {
    text.0.parse().map_err(|_| ConfigError::BadQuantity(text.0.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    #[test]
    fn field_paths() {
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some("p".into()),
                namespace: Some("ns".into()),
                uid: Some("u".into()),
                labels: Some([("a".into(), "1".into()), ("b".into(), "say \"hi\"".into())].into()),
                annotations: Some([("tekton.dev/ready".into(), "READY".into())].into()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        let table = [
            ("metadata.name", "p"),
            ("metadata.namespace", "ns"),
            ("metadata.uid", "u"),
            ("metadata.labels['a']", "1"),
            ("metadata.labels['none']", ""),
            ("metadata.annotations['tekton.dev/ready']", "READY"),
            ("metadata.labels", "a=\"1\"\nb=\"say \\\"hi\\\"\""),
            ("spec.nodeName", "here"),
            ("spec.serviceAccountName", "default"),
            ("status.podIP", "10.209.0.9"),
        ];
        for (path, expected) in table {
            let selector = ObjectFieldSelector { field_path: path.into(), ..ObjectFieldSelector::default() };
            assert_eq!(field(&pod, &selector, &example()).as_deref(), Ok(expected), "{path}");
        }
        let selector = ObjectFieldSelector { field_path: "spec.x".into(), ..ObjectFieldSelector::default() };
        assert_eq!(field(&pod, &selector, &example()), Err(ConfigError::UnsupportedField("spec.x".into())));
    }

    #[test]
    fn resources_round_up_to_the_divisor() {
        let container = Container {
            name: "c".into(),
            resources: Some(k8s_openapi::api::core::v1::ResourceRequirements {
                limits: Some([("cpu".into(), Quantity("250m".into()))].into()),
                ..Default::default()
            }),
            ..Container::default()
        };
        for (resource_name, divisor, expected) in [
            ("limits.cpu", None, "1"),
            ("limits.cpu", Some("1m"), "250"),
            ("limits.memory", Some("1Mi"), "1024"),
            ("requests.memory", None, "0"),
        ] {
            let selector = ResourceFieldSelector {
                resource: resource_name.into(),
                divisor: divisor.map(|text| Quantity(text.into())),
                container_name: None,
            };
            let value = resource(&Pod::default(), &container, &selector, &example());
            assert_eq!(value.as_deref(), Ok(expected), "{resource_name} / {divisor:?}");
        }
    }
}
