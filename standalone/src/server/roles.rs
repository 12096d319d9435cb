//! What people may do with Tekton's kinds by the roles that every cluster has: the same cluster roles that an installation
//! on a cluster brings along. No IO.

use serde_json::Value;

/// Generated from the table of permissions, with the rest of `config/`.
const ROLES: &str = include_str!("../../../config/rbac/users.yaml");

/// The cluster roles that become part of `view`, `edit` and `admin`.
pub(crate) fn of_people() -> Vec<Value> {
    // The text is part of this program, and a test has read it.
    serde_saphyr::from_multiple(ROLES).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use ropewalk_apiserver::{
        Body, Caller, Context, NoAdmission, NoTokens, Outcome, State, User, handle_for,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn who_may_edit_or_view_a_namespace_may_do_so_with_runs() {
        let now = Timestamp::now();
        let mut state = State::new(crate::resources().unwrap(), 1, now);
        ropewalk_apiserver::install(&mut state, "PEM", now);
        ropewalk_apiserver::install_roles(&mut state, of_people(), now);
        let mut ask = |user: &User, method: &str, url: &str, body: &Value| {
            let request = http::Request::builder().method(method).uri(url).body(body.to_string()).unwrap();
            let context = Context { now, admission: &NoAdmission };
            let caller = Caller { user, tokens: &NoTokens };
            match handle_for(&mut state, &request, Body::of(&request), &context, &caller).outcome {
                Outcome::Response(response) => response.status().as_u16(),
                other => panic!("{other:?}"),
            }
        };
        let user = |name: &str| User { name: name.to_owned(), ..User::default() };
        for role in ["edit", "view"] {
            let body = json!({
                "metadata": { "name": role }, "subjects": [{ "kind": "User", "name": role }],
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            });
            let url = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
            assert_eq!(ask(&User::server(), "POST", url, &body), 201);
        }
        for plural in ["tasks", "taskruns", "pipelines", "pipelineruns"] {
            let url = format!("/apis/tekton.dev/v1/namespaces/default/{plural}");
            for (who, method, expected) in [
                ("edit", "GET", 200),
                ("edit", "DELETE", 200),
                ("view", "GET", 200),
                ("view", "DELETE", 403),
                ("none", "GET", 403),
            ] {
                assert_eq!(ask(&user(who), method, &url, &json!({})), expected, "{who} {method} {plural}");
            }
        }
    }
}
