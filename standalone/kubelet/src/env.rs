//! A container's environment and the `$(VAR)` expansion of its command and arguments, as the kubelet does them.
//! No IO.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod};

use crate::{ConfigError, HostFacts, Objects, fields};

/// The search path of a container that sets none, as every container engine gives it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces `$(NAME)` by the value of a known variable; an unknown one stays as it is, `$$` is one `$`.
pub fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Text(text) => expanded.push_str(text),
            Part::Variable(name) => match known.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            },
        }
    }
    expanded
}

/// The variables that a text refers to, in its order.
pub(crate) fn names(text: &str) -> Vec<&str> {
    let variable = |part| if let Part::Variable(name) = part { Some(name) } else { None };
    parts(text).into_iter().filter_map(variable).collect()
}

enum Part<'a> {
    Text(&'a str),
    Variable(&'a str),
}

fn parts(text: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        parts.push(Part::Text(&rest[..at]));
        rest = &rest[at + 1..];
        if let Some((name, after)) = rest.strip_prefix('(').and_then(|body| body.split_once(')')) {
            parts.push(Part::Variable(name));
            rest = after;
        } else {
            parts.push(Part::Text("$"));
            rest = rest.strip_prefix('$').unwrap_or(rest);
        }
    }
    parts.push(Part::Text(rest));
    parts
}

/// The variables that the pod gives a container, by name: where the API server is, then `envFrom`, then `env` in order (a
/// later one wins and may use the earlier ones). These are what `$(NAME)` in its command can refer to.
pub fn environment(
    pod: &Pod,
    container: &Container,
    objects: &Objects,
    facts: &HostFacts,
) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut variables = BTreeMap::new();
    if let Some((host, port)) = &facts.api {
        variables.insert("KUBERNETES_SERVICE_HOST".to_owned(), host.clone());
        variables.insert("KUBERNETES_SERVICE_PORT".to_owned(), port.to_string());
        variables.insert("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), port.to_string());
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &source.config_map_ref {
            match objects.config_map(&reference.name) {
                Ok(found) => {
                    let entries = found.data.iter().flatten();
                    variables.extend(entries.map(|(key, value)| (format!("{prefix}{key}"), value.clone())));
                }
                Err(_) if reference.optional == Some(true) => {}
                Err(missing) => return Err(missing),
            }
        }
        if let Some(reference) = &source.secret_ref {
            match objects.secret(&reference.name) {
                Ok(found) => {
                    let entries = found.data.iter().flatten();
                    variables.extend(entries.map(|(key, value)| (format!("{prefix}{key}"), text(&value.0))));
                }
                Err(_) if reference.optional == Some(true) => {}
                Err(missing) => return Err(missing),
            }
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => Some(expand(value, &variables)),
            (_, Some(source)) => from_source(pod, container, source, objects, facts)?,
            _ => Some(String::new()),
        };
        if let Some(value) = value {
            variables.insert(variable.name.clone(), value);
        }
    }
    Ok(variables)
}

/// All variables of a container but `HOME`: below those of the pod (`given`) its image's, and `HOSTNAME` and `PATH`, which
/// every container has.
pub fn complete(
    given: &BTreeMap<String, String>,
    of_image: &[String],
    hostname: &str,
) -> BTreeMap<String, String> {
    let standard = [("HOSTNAME", hostname), ("PATH", DEFAULT_PATH)];
    let of_image = of_image.iter().filter_map(|variable| variable.split_once('='));
    let below = standard.into_iter().chain(of_image).map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Of those with one name the last one holds.
    let mut all: BTreeMap<String, String> = below.collect();
    all.extend(given.clone());
    all
}

/// The host name inside the pod: its `spec.hostname`, else its name, cut to what the kernel takes.
pub fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|spec| spec.hostname.clone()).filter(|name| !name.is_empty());
    let name = given.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `None` when the reference is optional and its target is missing.
fn from_source(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    objects: &Objects,
    facts: &HostFacts,
) -> Result<Option<String>, ConfigError> {
    let key_missing = |kind, name: &str, key: &str| ConfigError::KeyMissing {
        kind,
        namespace: pod.metadata.namespace.clone().unwrap_or_default(),
        name: name.to_owned(),
        key: key.to_owned(),
    };
    let (found, optional) = if let Some(selector) = &source.field_ref {
        (fields::field(pod, selector, facts), false)
    } else if let Some(selector) = &source.resource_field_ref {
        (fields::resource(pod, container, selector, facts), false)
    } else if let Some(selector) = &source.config_map_key_ref {
        let found = objects.config_map(&selector.name).and_then(|object| {
            let value = object.data.as_ref().and_then(|data| data.get(&selector.key));
            value.cloned().ok_or_else(|| key_missing("ConfigMap", &selector.name, &selector.key))
        });
        (found, selector.optional == Some(true))
    } else if let Some(selector) = &source.secret_key_ref {
        let found = objects.secret(&selector.name).and_then(|object| {
            let value = object.data.as_ref().and_then(|data| data.get(&selector.key));
            let value = value.map(|value| text(&value.0));
            value.ok_or_else(|| key_missing("Secret", &selector.name, &selector.key))
        });
        (found, selector.optional == Some(true))
    } else {
        (Ok(String::new()), false)
    };
    match found {
        Err(_) if optional => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::example;
    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::json;

    #[test]
    fn expansion() {
        let known = [("A".to_owned(), "1".to_owned()), ("EMPTY".to_owned(), String::new())].into();
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(EMPTY)", ""),
            ("$(UNKNOWN)", "$(UNKNOWN)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$$$$(A)", "$$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$", "$"),
            ("cost: 5$ $(A)", "cost: 5$ 1"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    fn objects() -> Objects {
        let config = ConfigMap {
            data: Some([("k".to_owned(), "from config".to_owned())].into()),
            ..ConfigMap::default()
        };
        let secret = Secret {
            data: Some([("s".to_owned(), ByteString(b"hidden".to_vec()))].into()),
            ..Secret::default()
        };
        Objects {
            config_maps: [("cm".to_owned(), config)].into(),
            secrets: [("sec".to_owned(), secret)].into(),
            ..Objects::default()
        }
    }

    fn variables(container: serde_json::Value) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut container = container;
        container["name"] = json!("c");
        let container: Container = serde_json::from_value(container).expect("a container");
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": "pod-1", "namespace": "ns"}})).expect("a pod");
        environment(&pod, &container, &objects(), &example())
    }

    #[test]
    fn every_source_in_order() {
        let found = variables(json!({
            "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "sec"}},
                        {"configMapRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "A", "value": "1"},
                {"name": "B", "value": "$(A)$(P_k)"},
                {"name": "A", "value": "2"},
                {"name": "S", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "s"}}},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x", "optional": true}}},
                {"name": "HOME", "value": "/here"}
            ]
        }))
        .expect("resolves");
        let expected = [
            ("A", "2"),
            ("B", "1from config"),
            ("HOME", "/here"),
            ("N", "pod-1"),
            ("P_k", "from config"),
            ("S", "hidden"),
            ("s", "hidden"),
        ];
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_api_servers_place_is_told_and_may_be_overridden() {
        let container = |env: serde_json::Value| -> Container {
            serde_json::from_value(json!({"name": "c", "env": env})).expect("a container")
        };
        let facts = HostFacts { api: Some(("127.0.0.1".to_owned(), 6443)), ..example() };
        let found =
            |env| environment(&Pod::default(), &container(env), &objects(), &facts).expect("resolves");
        let plain = found(json!([{"name": "URL", "value": "https://$(KUBERNETES_SERVICE_HOST)"}]));
        assert_eq!(plain["KUBERNETES_SERVICE_PORT"], "6443");
        assert_eq!(plain["URL"], "https://127.0.0.1");
        let own = found(json!([{"name": "KUBERNETES_SERVICE_HOST", "value": "elsewhere"}]));
        assert_eq!(own["KUBERNETES_SERVICE_HOST"], "elsewhere");
    }

    #[test]
    fn the_image_comes_below_the_pod() {
        let given = [("A".to_owned(), "pod".to_owned()), ("EMPTY".to_owned(), String::new())].into();
        let image = ["A=image", "B=1", "B=2=3", "EMPTY=image", "PATH=/opt/bin", "odd"].map(str::to_owned);
        let expected = [("A", "pod"), ("B", "2=3"), ("EMPTY", ""), ("HOSTNAME", "h"), ("PATH", "/opt/bin")];
        let found = complete(&given, &image, "h");
        assert!(found.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected), "{found:?}");
        assert_eq!(complete(&given, &[], "h")["PATH"], DEFAULT_PATH);
    }

    #[test]
    fn missing_objects_are_named() {
        for (container, message) in [
            (json!({"envFrom": [{"configMapRef": {"name": "gone"}}]}), "configmap \"gone\" not found"),
            (json!({"envFrom": [{"secretRef": {"name": " gone"}}]}), "secret \" gone\" not found"),
            (
                json!({"env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "x"}}}]}),
                "couldn't find key x in ConfigMap ns/cm",
            ),
            (
                json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "x"}}}]}),
                "couldn't find key x in Secret ns/sec",
            ),
        ] {
            assert_eq!(variables(container).expect_err("missing").to_string(), message);
        }
    }

    #[test]
    fn hostname_is_cut_for_the_kernel() {
        let mut pod = Pod::default();
        pod.metadata.name = Some(format!("{}-tail", "x".repeat(62)));
        assert_eq!(hostname(&pod), "x".repeat(62));
    }
}
