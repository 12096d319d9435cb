//! A container's `/etc/resolv.conf`. No IO.

use k8s_openapi::api::core::v1::Pod;

/// The file's text: `given`, with what the pod's `dnsConfig` adds to it, or `dnsConfig` alone with `dnsPolicy: None`.
pub fn resolv_conf(pod: &Pod, given: &str) -> String {
    let spec = pod.spec.as_ref();
    let alone = spec.and_then(|spec| spec.dns_policy.as_deref()) == Some("None");
    let config = spec.and_then(|spec| spec.dns_config.clone());
    if !alone && config.is_none() {
        return given.to_owned();
    }
    let (mut servers, mut domains, mut options) = (Vec::new(), Vec::new(), Vec::new());
    for line in given.lines().filter(|_| !alone) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => servers.extend(words),
            // The last line of several counts.
            Some("search" | "domain") => domains = words.collect(),
            Some("options") => options.extend(words),
            _ => {}
        }
    }
    let config = config.unwrap_or_default();
    let add = |list: &mut Vec<String>, more: Option<Vec<String>>| {
        for word in more.into_iter().flatten() {
            if !list.contains(&word) {
                list.push(word);
            }
        }
    };
    add(&mut servers, config.nameservers);
    add(&mut domains, config.searches);
    for option in config.options.into_iter().flatten() {
        let name = option.name.unwrap_or_default();
        options.retain(|known| known.split(':').next() != Some(name.as_str()));
        options.push(option.value.map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
    }
    let mut text = String::new();
    for server in &servers {
        text.extend(["nameserver ", server, "\n"]);
    }
    for (word, list) in [("search", domains), ("options", options)] {
        if !list.is_empty() {
            text.extend([word, " ", &list.join(" "), "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const GIVEN: &str = "# by hand\nnameserver 10.0.0.1\nsearch one.test two.test\noptions ndots:5 rotate\n";

    fn of(spec: Value) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        resolv_conf(&pod, GIVEN)
    }

    #[test]
    fn the_pod_adds_to_what_is_given() {
        assert_eq!(of(json!({})), GIVEN);
        let config = json!({"nameservers": ["10.0.0.2", "10.0.0.1"], "searches": ["two.test", "three.test"],
            "options": [{"name": "ndots", "value": "1"}, {"name": "edns0"}]});
        assert_eq!(
            of(json!({"dnsConfig": config.clone()})),
            "nameserver 10.0.0.1\nnameserver 10.0.0.2\nsearch one.test two.test three.test\noptions rotate ndots:1 edns0\n"
        );
        assert_eq!(
            of(json!({"dnsPolicy": "None", "dnsConfig": config})),
            "nameserver 10.0.0.2\nnameserver 10.0.0.1\nsearch two.test three.test\noptions ndots:1 edns0\n"
        );
    }
}
