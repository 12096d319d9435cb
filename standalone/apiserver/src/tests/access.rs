//! Who may do what: rules, refusals in kube-apiserver's words, reviews, impersonation.

mod escalation;
mod tokens;

use http::{Method, Request};
use serde_json::{Value, json};

use super::{MAPS, PODS, WIDGETS, World};
use crate::{
    Body, Caller, Context, NoAdmission, NoTokens, Tokens, User, authenticate, handle_for, install,
    install_roles,
};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

/// "Signs" by writing the claims down.
struct Plain;

impl Tokens for Plain {
    fn sign(&self, claims: &Value) -> Option<String> {
        Some(claims.to_string())
    }

    fn verify(&self, token: &str) -> Option<Value> {
        serde_json::from_str(token).ok()
    }
}

fn user(name: &str) -> User {
    let groups = vec!["system:authenticated".to_owned()];
    User { name: name.to_owned(), groups, ..User::default() }
}

fn world() -> World {
    let mut world = World::new();
    install(&mut world.state, "PEM", world.now);
    world.make("/api/v1/namespaces", &json!({ "metadata": { "name": "other" } }));
    world
}

impl World {
    fn ask_with(&mut self, user: &User, tokens: &dyn Tokens, request: &Request<Vec<u8>>) -> (u16, Value) {
        let context = Context { now: self.now, admission: &NoAdmission };
        let handled =
            handle_for(&mut self.state, request, Body::of(request), &context, &Caller { user, tokens });
        match handled.outcome {
            crate::Outcome::Response(_) => self.answer(handled),
            _ => (200, Value::Null),
        }
    }

    fn ask(&mut self, user: &User, method: &str, url: &str, body: &Value) -> (u16, Value) {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = Request::builder().method(method).uri(url).header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.ask_with(user, &Plain, &request.body(body).unwrap())
    }

    /// Gives a user (or, under another kind, somebody else) rules in a namespace, or everywhere where it is empty.
    fn grant(&mut self, name: &str, namespace: &str, subject: &Value, rules: &Value) {
        let (place, kind) = if namespace.is_empty() {
            (RBAC.to_owned() + "/cluster", "ClusterRole")
        } else {
            (format!("{RBAC}/namespaces/{namespace}/"), "Role")
        };
        self.make(&format!("{place}roles"), &json!({ "metadata": { "name": name }, "rules": rules }));
        let body = json!({
            "metadata": { "name": name }, "subjects": [subject],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name },
        });
        self.make(&format!("{place}rolebindings"), &body);
    }

    /// Binds a cluster role to a user in a namespace.
    fn bind(&mut self, who: &str, namespace: &str, role: &str) {
        let body = json!({
            "metadata": { "name": format!("{who}-{role}") },
            "subjects": [{ "kind": "User", "name": who }],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        });
        self.make(&format!("{RBAC}/namespaces/{namespace}/rolebindings"), &body);
    }
}

fn person(name: &str) -> Value {
    json!({ "kind": "User", "name": name })
}

#[test]
fn refusals_are_kubes_to_the_letter() {
    let mut world = world();
    let x = user("x");
    for (method, url, message) in [
        (
            "GET",
            "/api/v1/namespaces/default/pods",
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "default""#,
        ),
        (
            "GET",
            "/api/v1/pods?watch=true",
            r#"pods is forbidden: User "x" cannot watch resource "pods" in API group "" at the cluster scope"#,
        ),
        (
            "GET",
            "/api/v1/namespaces/default/pods/p/log",
            r#"pods "p" is forbidden: User "x" cannot get resource "pods/log" in API group "" in the namespace "default""#,
        ),
        (
            "DELETE",
            "/apis/example.dev/v1/namespaces/other/widgets",
            r#"widgets.example.dev is forbidden: User "x" cannot deletecollection resource "widgets" in API group "example.dev" in the namespace "other""#,
        ),
        (
            "GET",
            "/api/v1/namespaces/other",
            r#"namespaces "other" is forbidden: User "x" cannot get resource "namespaces" in API group "" in the namespace "other""#,
        ),
        (
            "GET",
            "/api/v1/namespaces/other/secrets?fieldSelector=metadata.name%3Ds",
            r#"secrets "s" is forbidden: User "x" cannot list resource "secrets" in API group "" in the namespace "other""#,
        ),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            r#"subjectaccessreviews.authorization.k8s.io is forbidden: User "x" cannot create resource "subjectaccessreviews" in API group "authorization.k8s.io" at the cluster scope"#,
        ),
        ("POST", "/version", r#"forbidden: User "x" cannot post path "/version""#),
    ] {
        let (code, status) = world.ask(&x, method, url, &Value::Null);
        assert_eq!((code, status["message"].as_str().unwrap()), (403, message), "{method} {url}");
        assert_eq!(status["reason"], "Forbidden", "{method} {url}");
    }
    let (_, status) = world.ask(&x, "GET", "/api/v1/namespaces/other/pods/p", &Value::Null);
    assert_eq!(status["details"], json!({ "name": "p", "kind": "pods" }));
}

#[test]
fn who_said_nothing_is_asked_to_say_who_they_are() {
    let mut world = world();
    let nobody = User::anonymous();
    for (url, expected) in [
        ("/livez", 200),
        ("/readyz", 200),
        ("/version", 200),
        ("/api", 401),
        ("/apis", 401),
        ("/openapi/v3", 401),
        ("/api/v1/namespaces", 401),
    ] {
        let (code, status) = world.ask(&nobody, "GET", url, &Value::Null);
        assert_eq!(code, expected, "{url}: {status}");
    }
    let expected = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized",
        "reason": "Unauthorized", "code": 401,
    });
    assert_eq!(world.ask(&nobody, "GET", "/apis", &Value::Null).1, expected);
}

#[test]
fn rules_cover_what_they_say() {
    let pods = |verbs: &[&str], more: Value| {
        let mut rule = json!({ "apiGroups": [""], "resources": ["pods"], "verbs": verbs });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let here = "/api/v1/namespaces/default/pods";
    for (rule, method, url, allowed) in [
        (pods(&["list"], json!({})), "GET", here, true),
        (pods(&["list"], json!({})), "GET", "/api/v1/namespaces/other/pods", false),
        (pods(&["list"], json!({})), "GET", "/api/v1/pods", false),
        (pods(&["list"], json!({})), "GET", "/api/v1/namespaces/default/pods?watch=1", false),
        (pods(&["get"], json!({})), "GET", here, false),
        (pods(&["*"], json!({})), "DELETE", here, true),
        (pods(&["*"], json!({ "apiGroups": ["apps"] })), "GET", here, false),
        (pods(&["*"], json!({ "apiGroups": ["*"] })), "GET", here, true),
        // A subresource is something of its own.
        (pods(&["*"], json!({})), "GET", "/api/v1/namespaces/default/pods/p/log", false),
        (
            pods(&["get"], json!({ "resources": ["pods/log"] })),
            "GET",
            "/api/v1/namespaces/default/pods/p/log",
            true,
        ),
        (
            pods(&["get"], json!({ "resources": ["*/log"] })),
            "GET",
            "/api/v1/namespaces/default/pods/p/log",
            true,
        ),
        (
            pods(&["get"], json!({ "resources": ["*/log"] })),
            "GET",
            "/api/v1/namespaces/default/pods/p",
            false,
        ),
        (pods(&["get"], json!({ "resources": ["*"] })), "GET", "/api/v1/namespaces/default/pods/p/log", true),
        // Names narrow down, also lists of one name.
        (pods(&["get"], json!({ "resourceNames": ["p"] })), "GET", "/api/v1/namespaces/default/pods/p", true),
        (
            pods(&["get"], json!({ "resourceNames": ["p"] })),
            "GET",
            "/api/v1/namespaces/default/pods/q",
            false,
        ),
        (pods(&["list"], json!({ "resourceNames": ["p"] })), "GET", here, false),
        (
            pods(&["list"], json!({ "resourceNames": ["p"] })),
            "GET",
            "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dp",
            true,
        ),
        (
            pods(&["list"], json!({ "resourceNames": ["p,status.phase!=x"] })),
            "GET",
            "/api/v1/namespaces/default/pods?fieldSelector=metadata.name%3Dp%2Cstatus.phase%21%3Dx",
            false,
        ),
    ] {
        let mut world = world();
        world.make(
            "/api/v1/namespaces/default/pods",
            &json!({
                "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] },
            }),
        );
        world.grant("r", "default", &person("x"), &json!([rule]));
        let (code, status) = world.ask(&user("x"), method, url, &Value::Null);
        assert_eq!(code != 403, allowed, "{rule} {method} {url}: {status}");
    }
}

#[test]
fn subjects_are_users_groups_and_service_accounts() {
    let account = User {
        name: "system:serviceaccount:default:builder".into(),
        groups: vec!["system:serviceaccounts".into(), "system:serviceaccounts:default".into()],
        ..User::default()
    };
    let list = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"] }]);
    for (subject, who, allowed) in [
        (person("x"), user("x"), true),
        (person("x"), user("y"), false),
        (json!({ "kind": "Group", "name": "x" }), user("x"), false),
        (json!({ "kind": "Group", "name": "system:authenticated" }), user("x"), true),
        (json!({ "kind": "Group", "name": "system:serviceaccounts:default" }), account.clone(), true),
        (json!({ "kind": "Group", "name": "system:serviceaccounts:other" }), account.clone(), false),
        (
            json!({ "kind": "ServiceAccount", "name": "builder", "namespace": "default" }),
            account.clone(),
            true,
        ),
        (
            json!({ "kind": "ServiceAccount", "name": "builder", "namespace": "other" }),
            account.clone(),
            false,
        ),
        (person("system:serviceaccount:default:builder"), account, true),
    ] {
        let mut world = world();
        world.grant("r", "", &subject, &list);
        let (code, _) = world.ask(&who, "GET", "/api/v1/configmaps", &Value::Null);
        assert_eq!(code == 200, allowed, "{subject} as {}", who.name);
    }
}

#[test]
fn applying_what_is_not_there_is_creating() {
    let apply = |world: &mut World, verbs: &[&str]| {
        let rules = json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs }]);
        world.grant("r", "default", &person("x"), &rules);
        let request = Request::patch(format!("{MAPS}/m?fieldManager=f"))
            .header("content-type", "application/apply-patch+yaml");
        let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": { "k": "v" } });
        world.ask_with(&user("x"), &NoTokens, &request.body(body.to_string().into_bytes()).unwrap()).0
    };
    assert_eq!(apply(&mut world(), &["patch"]), 403);
    assert_eq!(apply(&mut world(), &["create"]), 403);
    assert_eq!(apply(&mut world(), &["patch", "create"]), 201);
    let mut world = world();
    world.make_map("m");
    assert_eq!(apply(&mut world, &["patch"]), 200);
}

#[test]
fn a_binding_without_its_role_is_told() {
    let mut world = world();
    world.bind("x", "default", "gone");
    let (_, status) = world.ask(&user("x"), "GET", MAPS, &Value::Null);
    let expected = r#"configmaps is forbidden: User "x" cannot list resource "configmaps" in API group "" in the namespace "default": RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(status["message"], expected);
}

#[test]
fn what_is_taken_away_is_gone_at_once() {
    let mut world = world();
    world.bind("x", "default", "view");
    let x = user("x");
    assert_eq!(world.ask(&x, "GET", MAPS, &Value::Null).0, 200);
    let binding = format!("{RBAC}/namespaces/default/rolebindings/x-view");
    let (code, _) =
        world.call(Method::PATCH, &binding, "application/merge-patch+json", &json!({ "subjects": [] }));
    assert_eq!(code, 200);
    assert_eq!(world.ask(&x, "GET", MAPS, &Value::Null).0, 403);
    world.bind("x", "default", "edit");
    assert_eq!(world.ask(&x, "GET", MAPS, &Value::Null).0, 200);
    world.delete(&format!("{RBAC}/namespaces/default/rolebindings/x-edit"), &Value::Null);
    assert_eq!(world.ask(&x, "GET", MAPS, &Value::Null).0, 403);
}

#[test]
fn the_default_roles_differ_as_on_any_cluster() {
    let secrets = "/api/v1/namespaces/default/secrets";
    let roles = &format!("{RBAC}/namespaces/default/roles");
    for (role, method, url, allowed) in [
        ("view", "GET", PODS, true),
        ("view", "POST", MAPS, false),
        ("view", "GET", secrets, false),
        ("edit", "GET", PODS, true),
        ("edit", "POST", MAPS, true),
        ("edit", "GET", secrets, true),
        ("edit", "GET", roles, false),
        ("admin", "GET", PODS, true),
        ("admin", "GET", secrets, true),
        ("admin", "GET", roles, true),
        ("admin", "GET", "/api/v1/nodes", false),
        ("cluster-admin", "GET", roles, true),
    ] {
        let mut world = world();
        world.bind("x", "default", role);
        let body = if method == "POST" { json!({ "metadata": { "name": "m" } }) } else { Value::Null };
        let (code, status) = world.ask(&user("x"), method, url, &body);
        assert_eq!(code < 300, allowed, "{role} {method} {url}: {status}");
    }
}

#[test]
fn reviews_answer_what_the_server_would() {
    let mut world = world();
    world.bind("x", "default", "view");
    let x = user("x");
    let attributes = |verb: &str, resource: &str, namespace: &str| json!({ "spec": { "resourceAttributes": { "verb": verb, "resource": resource, "namespace": namespace } } });
    for (review, expected) in [
        (
            attributes("list", "pods", "default"),
            json!({ "allowed": true,
                    "reason": "RBAC: allowed by RoleBinding \"x-view/default\" of ClusterRole \"view\" to User \"x\"" }),
        ),
        (attributes("list", "secrets", "default"), json!({ "allowed": false })),
        (attributes("list", "pods", "other"), json!({ "allowed": false })),
        (
            json!({ "spec": { "nonResourceAttributes": { "verb": "get", "path": "/version" } } }),
            json!({ "allowed": true,
                    "reason": "RBAC: allowed by ClusterRoleBinding \"system:discovery\" of ClusterRole \
                               \"system:discovery\" to Group \"system:authenticated\"" }),
        ),
    ] {
        let (code, answer) = world.ask(&x, "POST", &format!("{REVIEWS}/selfsubjectaccessreviews"), &review);
        assert_eq!((code, &answer["status"]), (201, &expected), "{review}");
        assert_eq!(answer["kind"], "SelfSubjectAccessReview");
        // The administrator asks for somebody else.
        let mut review = review;
        review["spec"]["user"] = json!("x");
        review["spec"]["groups"] = json!(["system:authenticated"]);
        let url = format!("{REVIEWS}/subjectaccessreviews");
        assert_eq!(world.ask(&User::admin(), "POST", &url, &review).1["status"], expected, "{review}");
    }
    let (code, _) =
        world.ask(&x, "POST", &format!("{REVIEWS}/selfsubjectaccessreviews"), &json!({ "spec": {} }));
    assert_eq!(code, 422);
    let (_, answer) = world.ask(
        &x,
        "POST",
        &format!("{REVIEWS}/selfsubjectrulesreviews"),
        &json!({ "spec": { "namespace": "default" } }),
    );
    let lists_pods = |rule: &Value| {
        let has = |key: &str, wanted: &str| rule[key].as_array().unwrap().contains(&json!(wanted));
        has("resources", "pods") && has("verbs", "list")
    };
    assert!(answer["status"]["resourceRules"].as_array().unwrap().iter().any(lists_pods), "{answer}");
    let (_, answer) = world.ask(&x, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &json!({}));
    assert_eq!(answer["status"]["userInfo"], json!({ "username": "x", "groups": ["system:authenticated"] }));
    assert_eq!(world.ask(&x, "GET", &format!("{REVIEWS}/selfsubjectaccessreviews"), &Value::Null).0, 403);
    let masters = User::admin();
    assert_eq!(
        world.ask(&masters, "GET", &format!("{REVIEWS}/selfsubjectaccessreviews"), &Value::Null).0,
        405
    );
}

#[test]
fn requests_are_done_as_somebody_else_by_who_may() {
    let mut world = world();
    world.bind("x", "default", "view");
    let get = |headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::get(MAPS), |request, (name, value)| request.header(*name, *value));
        request.body(Vec::new()).unwrap()
    };
    let admin = User::admin();
    for (who, headers, expected) in [
        (&admin, vec![("Impersonate-User", "x")], 200),
        (&admin, vec![("Impersonate-User", "y")], 403),
        (&admin, vec![("Impersonate-User", "y"), ("Impersonate-Group", "system:masters")], 200),
        (&admin, vec![("Impersonate-Group", "system:masters")], 400),
        (&admin, vec![("Impersonate-User", "x"), ("Impersonate-Extra-Scopes", "s")], 400),
        (&admin, vec![("Impersonate-User", "x"), ("Impersonate-Uid", "u")], 400),
        (&admin, vec![("Impersonate-User", "")], 200),
        (&admin, vec![("Impersonate-User", "system:anonymous")], 401),
        (&user("y"), vec![("Impersonate-User", "x")], 403),
        (&User::anonymous(), vec![("Impersonate-User", "x")], 401),
        (&user("x"), vec![("Impersonate-User", "x"), ("Impersonate-Group", "system:masters")], 403),
    ] {
        let (code, status) = world.ask_with(who, &NoTokens, &get(&headers));
        assert_eq!(code, expected, "{headers:?}: {status}");
    }
    let as_x = get(&[("Impersonate-User", "x")]);
    let (_, status) = world.ask_with(&user("y"), &NoTokens, &as_x);
    let expected = r#"users "x" is forbidden: User "y" cannot impersonate resource "users" in API group "" at the cluster scope"#;
    assert_eq!(status["message"], expected);
    // Nobody in particular may what all may who did not say who they are.
    let live =
        Request::get("/livez").header("Impersonate-User", "system:anonymous").body(Vec::new()).unwrap();
    assert_eq!(world.ask_with(&admin, &NoTokens, &live).0, 200);
}

/// Whose token it is, is whose rights are asked for, whatever is asked for as somebody else.
#[test]
fn who_may_be_somebody_else_is_a_matter_of_rules() {
    let account = "system:serviceaccount:other:default";
    for (rule, headers, expected) in [
        (("users", "x"), vec![("Impersonate-User", "x")], 200),
        (("users", "z"), vec![("Impersonate-User", "x")], 403),
        (("users", "x"), vec![("Impersonate-User", "x"), ("Impersonate-Group", "admins")], 403),
        (("groups", "admins"), vec![("Impersonate-User", "x"), ("Impersonate-Group", "admins")], 403),
        (("serviceaccounts", "default"), vec![("Impersonate-User", account)], 200),
        (("serviceaccounts", "builder"), vec![("Impersonate-User", account)], 403),
        (("users", account), vec![("Impersonate-User", account)], 403),
    ] {
        let mut world = world();
        world.bind("x", "default", "view");
        world.bind(account, "default", "view");
        let (resource, name) = rule;
        let rules = json!([{
            "apiGroups": [""], "resources": [resource], "resourceNames": [name], "verbs": ["impersonate"],
        }]);
        world.grant("as", "", &person("y"), &rules);
        let request =
            headers.iter().fold(Request::get(MAPS), |request, (name, value)| request.header(*name, *value));
        let (code, status) = world.ask_with(&user("y"), &NoTokens, &request.body(Vec::new()).unwrap());
        assert_eq!(code, expected, "{rule:?} {headers:?}: {status}");
    }
}

#[test]
fn commands_need_leave_to_create_them() {
    let mut world = world();
    let spec = json!({ "nodeName": "n", "containers": [{ "name": "c" }] });
    world.make(PODS, &json!({ "metadata": { "name": "p" }, "spec": spec }));
    let running = json!({ "status": { "containerStatuses": [{ "name": "c", "state": { "running": {} } }] } });
    assert_eq!(world.merge(&format!("{PODS}/p/status"), &running).0, 200);
    let rule =
        |verbs: &[&str]| json!([{ "apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": verbs }]);
    world.grant("reader", "default", &person("reader"), &rule(&["get"]));
    world.grant("writer", "default", &person("writer"), &rule(&["create"]));
    world.grant("both", "default", &person("both"), &rule(&["get", "create"]));
    let url = format!("{PODS}/p/exec?command=x&stdout=true");
    for (name, get, post) in [("reader", 403, 403), ("writer", 403, 200), ("both", 200, 200), ("x", 403, 403)]
    {
        assert_eq!(world.ask(&user(name), "GET", &url, &Value::Null).0, get, "{name}");
        assert_eq!(world.ask(&user(name), "POST", &url, &Value::Null).0, post, "{name}");
    }
    let (_, refused) = world.ask(&user("reader"), "GET", &url, &Value::Null);
    let expected = "User \"reader\" cannot create resource \"pods/exec\" in API group \"\"";
    assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
}

#[test]
fn further_roles_become_part_of_those_that_gather_them() {
    let mut world = world();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": "widgets", "labels": { "rbac.authorization.k8s.io/aggregate-to-edit": "true" } },
        "rules": [{ "apiGroups": ["example.dev"], "resources": ["widgets"], "verbs": ["create", "list"] }],
    });
    world.bind("eve", "default", "edit");
    world.bind("vic", "default", "view");
    let (eve, vic) = (user("eve"), user("vic"));
    assert_eq!(world.ask(&eve, "GET", WIDGETS, &Value::Null).0, 403);
    for _ in 0..2 {
        let now = world.now;
        install_roles(&mut world.state, [role.clone()], now);
        assert_eq!(world.ask(&eve, "GET", WIDGETS, &Value::Null).0, 200);
        assert_eq!(world.ask(&vic, "GET", WIDGETS, &Value::Null).0, 403);
    }
}
