//! The path of a request without the names in it, so that a metric has one series per kind of request.

/// `/api/v1/namespaces/{namespace}/pods/{name}/log` for the path of one pod's log, and the like for every resource.
pub fn url_template(path: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    // The group and version of a resource come first: two parts in the core group, three in others.
    let mut at = if parts.first() == Some(&"api") { 2 } else { 3 };
    if parts.get(at) == Some(&"namespaces") && parts.len() > at + 2 {
        parts[at + 1] = "{namespace}";
        at += 2;
    }
    if let Some(name) = parts.get_mut(at + 1) {
        *name = "{name}";
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("/api/v1/namespaces/ns/pods", "/api/v1/namespaces/{namespace}/pods")]
    #[case("/api/v1/namespaces/ns/pods/x/log", "/api/v1/namespaces/{namespace}/pods/{name}/log")]
    #[case("/api/v1/pods", "/api/v1/pods")]
    #[case("/api/v1/namespaces/ns", "/api/v1/namespaces/{name}")]
    #[case("/apis/tekton.dev/v1/taskruns", "/apis/tekton.dev/v1/taskruns")]
    #[case(
        "/apis/tekton.dev/v1/namespaces/ns/taskruns/run/status",
        "/apis/tekton.dev/v1/namespaces/{namespace}/taskruns/{name}/status"
    )]
    #[case("/version", "/version")]
    #[case("", "/")]
    fn names_are_left_out(#[case] path: &str, #[case] template: &str) {
        assert_eq!(url_template(path), template);
    }
}
