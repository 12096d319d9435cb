//! Who may do what: rules, refusals in kube-apiserver's words, escalation, reviews, tokens.

use std::time::Instant;

use http::{Method, Request};
use serde_json::{Value, json};

use super::World;
use crate::{Caller, Context, NoAdmission, NoTokens, Tokens, User, authenticate, handle_for, install};

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
        let handled = handle_for(&mut self.state, request, &context, &Caller { user, tokens });
        match handled.outcome {
            crate::Outcome::Watch(_) | crate::Outcome::Log(_) | crate::Outcome::Exec(_) => (200, Value::Null),
            crate::Outcome::Response(_) => self.answer(handled),
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
        let request = Request::patch(format!("{}/m?fieldManager=f", super::MAPS))
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
fn roles_cannot_be_applied_past_the_check() {
    let mut world = world();
    let rbac = json!([{ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["create", "patch"] }]);
    world.grant("r", "default", &person("x"), &rbac);
    let body = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "new" },
        "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }],
    });
    let url = format!("{RBAC}/namespaces/default/roles/new?fieldManager=f");
    let request = Request::patch(url).header("content-type", "application/apply-patch+yaml");
    let request = request.body(body.to_string().into_bytes()).unwrap();
    assert_eq!(world.ask_with(&user("x"), &NoTokens, &request).0, 403);
    assert_eq!(world.ask_with(&User::admin(), &NoTokens, &request).0, 201);
}

#[test]
fn a_binding_without_its_role_is_told() {
    let mut world = world();
    world.bind("x", "default", "gone");
    let (_, status) = world.ask(&user("x"), "GET", super::MAPS, &Value::Null);
    let expected = r#"configmaps is forbidden: User "x" cannot list resource "configmaps" in API group "" in the namespace "default": RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#;
    assert_eq!(status["message"], expected);
}

#[test]
fn what_is_taken_away_is_gone_at_once() {
    let mut world = world();
    world.bind("x", "default", "view");
    let x = user("x");
    assert_eq!(world.ask(&x, "GET", super::MAPS, &Value::Null).0, 200);
    let binding = format!("{RBAC}/namespaces/default/rolebindings/x-view");
    let (code, _) =
        world.call(Method::PATCH, &binding, "application/merge-patch+json", &json!({ "subjects": [] }));
    assert_eq!(code, 200);
    assert_eq!(world.ask(&x, "GET", super::MAPS, &Value::Null).0, 403);
    world.bind("x", "default", "edit");
    assert_eq!(world.ask(&x, "GET", super::MAPS, &Value::Null).0, 200);
    world.delete(&format!("{RBAC}/namespaces/default/rolebindings/x-edit"), &Value::Null);
    assert_eq!(world.ask(&x, "GET", super::MAPS, &Value::Null).0, 403);
}

#[test]
fn the_default_roles_differ_as_on_any_cluster() {
    let secrets = "/api/v1/namespaces/default/secrets";
    let roles = &format!("{RBAC}/namespaces/default/roles");
    for (role, method, url, allowed) in [
        ("view", "GET", super::PODS, true),
        ("view", "POST", super::MAPS, false),
        ("view", "GET", secrets, false),
        ("edit", "GET", super::PODS, true),
        ("edit", "POST", super::MAPS, true),
        ("edit", "GET", secrets, true),
        ("edit", "GET", roles, false),
        ("admin", "GET", super::PODS, true),
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
fn roles_gather_from_others_by_label() {
    let mut world = world();
    world.bind("x", "default", "admin");
    let x = user("x");
    assert_eq!(world.ask(&x, "GET", super::WIDGETS, &Value::Null).0, 403);
    let labels = json!({ "rbac.authorization.k8s.io/aggregate-to-view": "true" });
    let rules = json!([{ "apiGroups": ["example.dev"], "resources": ["widgets"], "verbs": ["list"] }]);
    let role = json!({ "metadata": { "name": "widgets-view", "labels": labels }, "rules": rules });
    world.make(&format!("{RBAC}/clusterroles"), &role);
    // From view to edit to admin.
    assert_eq!(world.ask(&x, "GET", super::WIDGETS, &Value::Null).0, 200);
    world.delete(&format!("{RBAC}/clusterroles/widgets-view"), &Value::Null);
    assert_eq!(world.ask(&x, "GET", super::WIDGETS, &Value::Null).0, 403);
}

#[test]
fn nobody_hands_out_what_they_do_not_have() {
    let rbac = json!({ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["*"],
                       "verbs": ["create", "get", "list", "patch", "update"] });
    let verb = |verb: &str| {
        json!({ "apiGroups": ["rbac.authorization.k8s.io"],
                                    "resources": ["roles", "clusterroles"], "verbs": [verb] })
    };
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({ "apiGroups": [group], "resources": [resource], "verbs": verbs });
    let role = |rules: Value| json!({ "metadata": { "name": "new" }, "rules": rules });
    let roles = format!("{RBAC}/namespaces/default/roles");
    let cases = [
        (vec![], role(json!([rule("", "pods", &["get"])])), false),
        (vec![rule("", "pods", &["get"])], role(json!([rule("", "pods", &["get"])])), true),
        (vec![rule("", "pods", &["*"])], role(json!([rule("", "pods", &["get", "list"])])), true),
        (vec![rule("", "pods", &["get"])], role(json!([rule("", "pods", &["get", "list"])])), false),
        (
            vec![rule("", "pods", &["get"]), rule("", "pods", &["list"])],
            role(json!([rule("", "pods", &["get", "list"])])),
            true,
        ),
        (vec![rule("", "pods", &["get"])], role(json!([rule("", "*", &["get"])])), false),
        (vec![rule("", "*", &["get"])], role(json!([rule("", "pods/log", &["get"])])), true),
        (vec![rule("", "pods", &["get"])], role(json!([rule("", "pods/log", &["get"])])), false),
        (vec![verb("escalate")], role(json!([rule("*", "*", &["*"])])), true),
        (vec![verb("bind")], role(json!([rule("", "pods", &["get"])])), false),
        (vec![], role(json!([])), true),
    ];
    for (own, wanted, allowed) in cases {
        let mut world = world();
        let mut rules = own.clone();
        rules.push(rbac.clone());
        world.grant("r", "default", &person("x"), &json!(rules));
        let (code, status) = world.ask(&user("x"), "POST", &roles, &wanted);
        assert_eq!(code, if allowed { 201 } else { 403 }, "{own:?} {wanted}: {status}");
    }

    let mut world = world();
    world.grant("r", "default", &person("x"), &json!([rbac, rule("", "pods", &["get"])]));
    let x = user("x");
    let wanted =
        role(json!([rule("", "pods", &["get", "list", "delete"]), rule("apps", "statefulsets", &["get"])]));
    let (_, status) = world.ask(&x, "POST", &roles, &wanted);
    let expected = "roles.rbac.authorization.k8s.io \"new\" is forbidden: user \"x\" (groups=[\"system:authenticated\"]) \
                    is attempting to grant RBAC permissions not currently held:\n\
                    {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"list\"]}\n\
                    {APIGroups:[\"apps\"], Resources:[\"statefulsets\"], Verbs:[\"get\"]}";
    assert_eq!(status["message"], expected);

    // A role of one's own does not grow by a patch.
    assert_eq!(world.ask(&x, "POST", &roles, &role(json!([rule("", "pods", &["get"])]))).0, 201);
    let more = json!({ "rules": [rule("", "secrets", &["get"])] });
    assert_eq!(world.ask(&x, "PATCH", &format!("{roles}/new"), &more).0, 403);
    let note = json!({ "metadata": { "annotations": { "a": "b" } } });
    assert_eq!(world.ask(&x, "PATCH", &format!("{roles}/new"), &note).0, 200);
}

#[test]
fn a_label_does_not_make_a_role_part_of_another() {
    let mut world = world();
    let rbac = json!([{ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
                        "verbs": ["create", "patch"] }]);
    world.grant("r", "", &person("x"), &rbac);
    let label =
        json!({ "metadata": { "labels": { "rbac.authorization.k8s.io/aggregate-to-view": "true" } } });
    let (code, status) =
        world.ask(&user("x"), "PATCH", &format!("{RBAC}/clusterroles/cluster-admin"), &label);
    assert_eq!(code, 403, "{status}");
    let gathers =
        json!({ "metadata": { "name": "mine" }, "aggregationRule": { "clusterRoleSelectors": [{}] } });
    let (code, status) = world.ask(&user("x"), "POST", &format!("{RBAC}/clusterroles"), &gathers);
    assert_eq!(code, 403);
    let why = "clusterroles.rbac.authorization.k8s.io \"mine\" is forbidden: must have cluster-admin privileges to use the \
               aggregationRule";
    assert_eq!(status["message"], why);
}

#[test]
fn bindings_give_no_more_than_their_makers_have() {
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let to = |role: &str| {
        json!({
            "metadata": { "name": "mine" }, "subjects": [person("x")],
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
        })
    };
    let rbac = json!({ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["rolebindings"],
                       "verbs": ["create", "update", "patch"] });
    let bind = json!({ "apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
                       "resourceNames": ["edit"], "verbs": ["bind"] });
    for (rules, role, expected) in [
        (json!([rbac]), "edit", 403),
        (json!([rbac]), "cluster-admin", 403),
        (json!([rbac]), "gone", 404),
        (json!([rbac, bind]), "edit", 201),
        (json!([rbac, bind]), "cluster-admin", 403),
        (json!([rbac, { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]), "edit", 201),
    ] {
        let mut world = world();
        world.grant("r", "default", &person("x"), &rules);
        let (code, status) = world.ask(&user("x"), "POST", &bindings, &to(role));
        assert_eq!(code, expected, "{rules} {role}: {status}");
    }
    // What a binding refers to is for good.
    let mut world = world();
    world.make(&bindings, &to("view"));
    let change = json!({ "roleRef": { "name": "cluster-admin" } });
    let (code, status) = world.ask(&User::admin(), "PATCH", &format!("{bindings}/mine"), &change);
    assert_eq!(code, 422);
    assert!(status["message"].as_str().unwrap().ends_with("cannot change roleRef"), "{status}");
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
        let request = headers
            .iter()
            .fold(Request::get(super::MAPS), |request, (name, value)| request.header(*name, *value));
        request.body(Vec::new()).unwrap()
    };
    let admin = User::admin();
    for (who, headers, expected) in [
        (&admin, vec![("Impersonate-User", "x")], 200),
        (&admin, vec![("Impersonate-User", "y")], 403),
        (&admin, vec![("Impersonate-User", "y"), ("Impersonate-Group", "system:masters")], 200),
        (&admin, vec![("Impersonate-Group", "system:masters")], 400),
        (&admin, vec![("Impersonate-User", "x"), ("Impersonate-Extra-Scopes", "s")], 400),
        (&user("y"), vec![("Impersonate-User", "x")], 403),
        (&user("x"), vec![("Impersonate-User", "x"), ("Impersonate-Group", "system:masters")], 403),
    ] {
        let (code, status) = world.ask_with(who, &NoTokens, &get(&headers));
        assert_eq!(code, expected, "{headers:?}: {status}");
    }
    let as_x = get(&[("Impersonate-User", "x")]);
    let (_, status) = world.ask_with(&user("y"), &NoTokens, &as_x);
    let expected = r#"users "x" is forbidden: User "y" cannot impersonate resource "users" in API group "" at the cluster scope"#;
    assert_eq!(status["message"], expected);
}

fn token(world: &mut World, account: &str, spec: &Value) -> (u16, Value) {
    let url = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    world.ask(&User::admin(), "POST", &url, &json!({ "spec": spec }))
}

#[test]
fn tokens_hold_for_as_long_as_what_they_are_bound_to() {
    let mut world = world();
    let pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let pod = world.make(super::PODS, &pod);
    let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod["metadata"]["uid"] });
    let (code, answer) =
        token(&mut world, "default", &json!({ "expirationSeconds": 600, "boundObjectRef": bound }));
    assert_eq!(code, 201, "{answer}");
    assert_eq!(answer["status"]["expirationTimestamp"], "2026-01-02T03:14:05Z");
    let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
    let name = |world: &World, claims: &Value| {
        authenticate(&world.state, claims, &[crate::AUDIENCE], world.now).map(|user| user.name)
    };
    let account = "system:serviceaccount:default:default";
    assert_eq!(name(&world, &claims).as_deref(), Some(account));
    let user = authenticate(&world.state, &claims, &[crate::AUDIENCE], world.now).unwrap();
    assert_eq!(
        user.groups,
        ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
    );
    assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["p"]);

    for (path, value) in [
        ("/iss", json!("https://elsewhere")),
        ("/sub", json!("system:serviceaccount:default:other")),
        ("/aud", json!(["vault"])),
        ("/nbf", json!(world.now.as_second() + 1)),
        ("/exp", json!(world.now.as_second())),
        ("/kubernetes.io/namespace", json!("other")),
        ("/kubernetes.io/serviceaccount/uid", json!("another")),
        ("/kubernetes.io/serviceaccount/uid", json!("")),
        ("/kubernetes.io/pod/uid", json!("another")),
        ("/kubernetes.io/pod", json!("none")),
    ] {
        let mut wrong = claims.clone();
        *wrong.pointer_mut(path).unwrap() = value;
        assert_eq!(name(&world, &wrong), None, "{path}");
    }

    world.pass(599);
    assert!(name(&world, &claims).is_some());
    world.pass(1);
    assert_eq!(name(&world, &claims), None, "expired");

    let (_, answer) = token(&mut world, "default", &json!({ "boundObjectRef": bound }));
    let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert!(name(&world, &claims).is_some());
    world.delete(&format!("{}/p", super::PODS), &Value::Null);
    assert_eq!(name(&world, &claims), None, "its pod is gone");

    let (_, answer) = token(&mut world, "default", &json!({}));
    let claims: Value = serde_json::from_str(answer["status"]["token"].as_str().unwrap()).unwrap();
    assert!(name(&world, &claims).is_some());
    world.delete("/api/v1/namespaces/default/serviceaccounts/default", &Value::Null);
    assert_eq!(name(&world, &claims), None, "its account is gone");
}

#[test]
fn tokens_are_refused_that_nobody_should_have() {
    let mut world = world();
    world.make("/api/v1/namespaces/default/serviceaccounts", &json!({ "metadata": { "name": "other" } }));
    let pod =
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    world.make(super::PODS, &pod);
    let bound = |kind: &str, name: &str, uid: &str| json!({ "boundObjectRef": { "kind": kind, "name": name, "uid": uid } });
    for (account, spec, expected) in [
        ("gone", json!({}), 404),
        ("default", json!({ "expirationSeconds": 599 }), 422),
        ("default", bound("Pod", "q", ""), 404),
        ("default", bound("Pod", "p", "another"), 409),
        ("default", bound("Node", "p", ""), 400),
        ("other", bound("Pod", "p", ""), 400),
        ("default", bound("Pod", "p", ""), 201),
    ] {
        let (code, answer) = token(&mut world, account, &spec);
        assert_eq!(code, expected, "{account} {spec}: {answer}");
    }
    // No server without keys issues any.
    let request = Request::post("/api/v1/namespaces/default/serviceaccounts/default/token");
    let request = request.body(b"{}".to_vec()).unwrap();
    assert_eq!(world.ask_with(&User::admin(), &NoTokens, &request).0, 404);
}

#[test]
fn token_reviews_tell_whose_a_token_is() {
    let mut world = world();
    let (_, answer) = token(&mut world, "default", &json!({ "audiences": ["vault"] }));
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let url = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = |token: &str, audience: &str| json!({ "spec": { "token": token, "audiences": [audience] } });
    let (_, answer) = world.ask(&User::admin(), "POST", url, &review(&token, "vault"));
    assert_eq!(answer["status"]["user"]["username"], "system:serviceaccount:default:default");
    assert_eq!(
        (&answer["status"]["authenticated"], &answer["status"]["audiences"]),
        (&json!(true), &json!(["vault"]))
    );
    assert!(answer["spec"].get("token").is_none(), "a token is sent back");
    for wrong in [review(&token, crate::AUDIENCE), review("x", "vault")] {
        let (_, answer) = world.ask(&User::admin(), "POST", url, &wrong);
        assert_eq!(answer["status"]["authenticated"], false);
    }
}

#[test]
fn pods_get_a_token_unless_they_want_none() {
    let mut world = world();
    world.make(
        "/api/v1/namespaces/default/serviceaccounts",
        &json!({ "metadata": { "name": "shy" }, "automountServiceAccountToken": false }),
    );
    let containers = json!([{ "name": "c", "image": "i", "volumeMounts": null }]);
    for (name, spec, expected) in [
        ("a", json!({}), true),
        ("b", json!({ "automountServiceAccountToken": false }), false),
        ("c", json!({ "serviceAccountName": "shy" }), false),
        ("d", json!({ "serviceAccountName": "shy", "automountServiceAccountToken": true }), true),
    ] {
        let mut pod = json!({ "metadata": { "name": name }, "spec": spec });
        pod["spec"]["containers"] = containers.clone();
        let pod = world.make(super::PODS, &pod);
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array();
        let path = mounts.and_then(|mounts| mounts.first()).map(|mount| mount["mountPath"].clone());
        let wanted = expected.then(|| json!("/var/run/secrets/kubernetes.io/serviceaccount"));
        assert_eq!(path, wanted, "{name}: {pod}");
        let volumes = pod["spec"]["volumes"].as_array().map_or(0, Vec::len);
        assert_eq!(volumes, usize::from(expected), "{name}: {pod}");
    }
    let url = "/api/v1/namespaces/other/configmaps/kube-root-ca.crt";
    assert_eq!(world.get(url).1["data"]["ca.crt"], "PEM");
}

/// Printed, not judged: how long a decision takes however many bindings others have.
#[test]
#[expect(clippy::disallowed_methods, reason = "a figure is printed")]
fn a_decision_does_not_follow_the_bindings_of_others() {
    let mut world = world();
    for index in 0..2000 {
        world.bind(&format!("user-{index}"), if index % 2 == 0 { "default" } else { "other" }, "view");
    }
    let x = user("user-7");
    let review = json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "secrets", "namespace": "other" } } });
    let begun = Instant::now();
    for _ in 0..1000 {
        let (_, answer) = world.ask(&x, "POST", &format!("{REVIEWS}/selfsubjectaccessreviews"), &review);
        assert_eq!(answer["status"]["allowed"], false);
    }
    println!("2000 bindings, one of the user's: {:?} for a review and its own check", begun.elapsed() / 1000);
}

#[test]
fn commands_need_leave_to_create_them() {
    let mut world = world();
    let spec = json!({ "nodeName": "n", "containers": [{ "name": "c" }] });
    world.make(super::PODS, &json!({ "metadata": { "name": "p" }, "spec": spec }));
    let running = json!({ "status": { "containerStatuses": [{ "name": "c", "state": { "running": {} } }] } });
    assert_eq!(world.merge(&format!("{}/p/status", super::PODS), &running).0, 200);
    let rule =
        |verbs: &[&str]| json!([{ "apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": verbs }]);
    world.grant("reader", "default", &person("reader"), &rule(&["get"]));
    world.grant("writer", "default", &person("writer"), &rule(&["create"]));
    world.grant("both", "default", &person("both"), &rule(&["get", "create"]));
    let url = format!("{}/p/exec?command=x&stdout=true", super::PODS);
    for (name, get, post) in [("reader", 403, 403), ("writer", 403, 200), ("both", 200, 200), ("x", 403, 403)]
    {
        assert_eq!(world.ask(&user(name), "GET", &url, &Value::Null).0, get, "{name}");
        assert_eq!(world.ask(&user(name), "POST", &url, &Value::Null).0, post, "{name}");
    }
    let (_, refused) = world.ask(&user("reader"), "GET", &url, &Value::Null);
    let expected = "User \"reader\" cannot create resource \"pods/exec\" in API group \"\"";
    assert!(refused["message"].as_str().unwrap().contains(expected), "{refused}");
}
