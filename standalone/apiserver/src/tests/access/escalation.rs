//! Nobody hands out more than they have: roles, bindings, and roles that gather from others.

use super::*;

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
fn roles_gather_from_others_by_label() {
    let mut world = world();
    world.bind("x", "default", "admin");
    let x = user("x");
    assert_eq!(world.ask(&x, "GET", WIDGETS, &Value::Null).0, 403);
    let labels = json!({ "rbac.authorization.k8s.io/aggregate-to-view": "true" });
    let rules = json!([{ "apiGroups": ["example.dev"], "resources": ["widgets"], "verbs": ["list"] }]);
    let role = json!({ "metadata": { "name": "widgets-view", "labels": labels }, "rules": rules });
    world.make(&format!("{RBAC}/clusterroles"), &role);
    // From view to edit to admin.
    assert_eq!(world.ask(&x, "GET", WIDGETS, &Value::Null).0, 200);
    world.delete(&format!("{RBAC}/clusterroles/widgets-view"), &Value::Null);
    assert_eq!(world.ask(&x, "GET", WIDGETS, &Value::Null).0, 403);
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
