//! A day with kubectl: what its users type, and what they must read.

use super::{Kubectl, Listening, WIDGET, has_kubectl, server};

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1', b: '1'}\n";
const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, ownerReferences: [OWNER]}\n\
                   spec: {containers: [{name: c, image: one}]}\n";

/// One command: what is typed, what it reads, whether it works, and a part of what it prints.
type Step<'a> = (&'a str, String, bool, &'a str);

async fn play(kubectl: &Kubectl<'_>, steps: Vec<Step<'_>>) {
    for (line, stdin, works, part) in steps {
        let (worked, printed) = kubectl.run(line, &stdin).await;
        assert!(
            worked == works && printed.contains(part),
            "kubectl {line}\nwants {part:?}, and says {printed}"
        );
    }
}

fn typed<'a>(line: &'a str, part: &'a str) -> Step<'a> {
    (line, String::new(), true, part)
}

fn refused<'a>(line: &'a str, part: &'a str) -> Step<'a> {
    (line, String::new(), false, part)
}

/// Plays the steps on a server of their own.
async fn session(steps: Vec<Step<'_>>) {
    if !has_kubectl().await {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let listening = Listening::start(server()).await;
    play(&Kubectl { server: format!("http://{}", listening.address), home: home.path() }, steps).await;
    listening.stop().await;
}

#[tokio::test]
async fn generators_send_protobuf_and_are_understood() {
    let rules = "{.rules[0].verbs} {.rules[0].resources}";
    let get_role = format!("get role r -n team -o jsonpath={}", rules.replace(' ', ""));
    session(vec![
        typed("create namespace team", "namespace/team created"),
        typed("create configmap c -n team --from-literal=k=v", "configmap/c created"),
        typed("get configmap c -n team -o jsonpath={.data.k}", "v"),
        typed("create secret generic s -n team --from-literal=k=v", "secret/s created"),
        typed("get secret s -n team -o jsonpath={.data.k}", "dg=="),
        typed("create serviceaccount sa -n team", "serviceaccount/sa created"),
        typed("create role r -n team --verb=get,list --resource=pods", "r created"),
        typed(&get_role, "[\"get\",\"list\"][\"pods\"]"),
        typed("create rolebinding rb -n team --role=r --serviceaccount=team:sa", "rb created"),
        typed("get rolebinding rb -n team -o jsonpath={.subjects[0].name}", "sa"),
        typed("create clusterrole cr --verb=get --resource=nodes", "cr created"),
        typed("create clusterrolebinding crb --clusterrole=cr --user=ann", "crb created"),
        typed("create quota q -n team --hard=pods=3,cpu=500m", "quota/q created"),
        typed("get quota q -n team -o jsonpath={.spec.hard}", "{\"cpu\":\"500m\",\"pods\":\"3\"}"),
        refused("run p -n team --image=one", "failed quota: q: must specify cpu"),
        typed("delete quota q -n team", "\"q\" deleted"),
        typed("run p -n team --image=one --port=80", "pod/p created"),
        typed("auth can-i list pods", "yes"),
        refused("create namespace team", "namespaces \"team\" already exists"),
        refused("create configmap C_", "Invalid value: \"C_\""),
        typed("delete namespace team", "namespace \"team\" deleted"),
        refused("get pod p -n team", "not found"),
    ])
    .await;
}

#[tokio::test]
async fn fields_have_managers_and_conflicts() {
    let theirs = || MAP.replace("a: '1'", "a: '2'");
    let managers = "get cm m --show-managed-fields -o jsonpath={.metadata.managedFields[*].manager}";
    let fields_of = |manager: &str| {
        format!(
            "get cm m --show-managed-fields -o jsonpath={{.metadata.managedFields[?(@.manager==\"{manager}\")].fieldsV1}}"
        )
    };
    let [kubectls, last, others] = ["kubectl", "kubectl-last-applied", "other"].map(fields_of);
    session(vec![
        ("apply -f -", MAP.to_owned(), true, "configmap/m created"),
        typed(managers, "kubectl-client-side-apply"),
        // kubectl hands over what it managed from its own side before.
        ("apply --server-side -f -", MAP.to_owned(), true, "configmap/m serverside-applied"),
        (
            "apply --server-side --field-manager=other -f -",
            theirs(),
            false,
            "conflict with \"kubectl\": .data.a",
        ),
        typed("get cm m -o jsonpath={.data.a}", "1"),
        (
            "apply --server-side --field-manager=other --dry-run=server --force-conflicts -f -",
            theirs(),
            true,
            "dry run",
        ),
        typed("get cm m -o jsonpath={.data.a}", "1"),
        ("diff --server-side --field-manager=other --force-conflicts -f -", theirs(), false, "+  a: \"2\""),
        ("diff -f -", MAP.replace("b: '1'", "b: '3'"), false, "+  b: \"3\""),
        (
            "apply --server-side --field-manager=other --force-conflicts -f -",
            theirs(),
            true,
            "serverside-applied",
        ),
        // Their order is that of the seconds in which they wrote.
        typed(
            "get cm m --show-managed-fields -o jsonpath={.metadata.managedFields[*].operation}",
            "Apply Apply Apply",
        ),
        typed(&kubectls, "f:b"),
        typed(&last, "last-applied-configuration"),
        typed(&others, "f:a"),
        typed("get cm m -o jsonpath={.data}", "{\"a\":\"2\",\"b\":\"1\"}"),
        // What its only owner leaves out goes.
        (
            "apply --server-side --field-manager=other -f -",
            MAP.replace("a: '1', b", "b"),
            true,
            "serverside-applied",
        ),
        typed("get cm m -o jsonpath={.data}", "{\"b\":\"1\"}"),
        ("apply --server-side -f -", WIDGET.to_owned(), true, "widget.example.dev/w serverside-applied"),
        (
            "apply --server-side -f -",
            WIDGET.replace("image", "imagee"),
            false,
            ".spec.imagee: field not declared in schema",
        ),
    ])
    .await;
}

#[tokio::test]
async fn objects_are_looked_at_and_changed_in_every_way() {
    if !has_kubectl().await {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let listening = Listening::start(server()).await;
    let kubectl = Kubectl { server: format!("http://{}", listening.address), home: home.path() };
    let status = r#"--patch={"status":{"conditions":[{"type":"Succeeded","status":"True"}]}}"#;
    let status = format!("patch wd w --subresource=status --type=merge {status}");
    let owner = |uid: &str| {
        POD.replace("OWNER", &format!("{{apiVersion: example.dev/v1, kind: Widget, name: w, uid: {uid}}}"))
    };
    play(&kubectl, vec![
        ("create -f -", WIDGET.to_owned(), true, "widget.example.dev/w created"),
        ("create -f -", MAP.to_owned(), true, "configmap/m created"),
        typed("get wd w -o yaml", "image: one"),
        typed("get wd w -o json", "\"image\": \"one\""),
        typed("get wd w -o wide", "IMAGE"),
        typed("get wd w -o name", "widget.example.dev/w"),
        typed("get wd -o jsonpath={.items[0].spec.image}", "one"),
        typed("get wd -o custom-columns=N:.metadata.name,I:.spec.image", "w     one"),
        typed("get wd w -o go-template={{.spec.image}}", "one"),
        typed("get wd,cm -A --chunk-size=1", "configmap/m"),
        typed("label wd w tier=one", "labeled"),
        refused("label wd w tier=two", "already has a value"),
        typed("label wd w tier=two --overwrite", "labeled"),
        typed("get wd -l tier=two -o name", "widget.example.dev/w"),
        typed("annotate wd w note=here", "annotated"),
        typed("patch wd w --type=merge --patch={\"spec\":{\"image\":\"merged\"}}", "patched"),
        typed("patch wd w --type=json --patch=[{\"op\":\"replace\",\"path\":\"/spec/image\",\"value\":\"patched\"}]", "patched"),
        refused("patch wd w --patch={\"spec\":{\"image\":\"x\"}}", "is not supported by example.dev/v1"),
        typed("patch cm m --patch={\"data\":{\"c\":\"patched\"}}", "patched"),
        typed("edit wd w", "edited"),
        typed("get wd w -o jsonpath={.spec.image}", "edited"),
        typed("edit cm m", "edited"),
        typed("get cm m -o jsonpath={.data.c}", "edited"),
        ("replace -f -", MAP.to_owned(), true, "configmap/m replaced"),
        typed(&status, "patched"),
        typed("wait wd/w --for=condition=Succeeded --timeout=30s", "condition met"),
        typed("wait wd/w --for=jsonpath={.spec.image}=edited --timeout=30s", "condition met"),
        typed("describe wd w", "Image:  edited"),
        typed("describe cm m", "Data"),
        typed("api-resources --api-group=example.dev", "widgets   wd           example.dev/v1   true         Widget"),
        typed("api-versions", "example.dev/v1"),
        typed("version", "Server Version: v1.36"),
        refused("get wd w --as=ann", "cannot get resource \"widgets\" in API group \"example.dev\""),
    ])
    .await;
    let (_, uid) = kubectl.run("get wd w -o jsonpath={.metadata.uid}", "").await;
    play(
        &kubectl,
        vec![
            ("create -f -", owner(&uid), true, "pod/p created"),
            typed("delete wd w --cascade=orphan", "\"w\" deleted"),
            typed("get pod p -o jsonpath={.metadata.ownerReferences}", ""),
            typed("delete pod p --wait=false", "\"p\" deleted"),
            ("create -f -", WIDGET.to_owned(), true, "created"),
        ],
    )
    .await;
    let (_, uid) = kubectl.run("get wd w -o jsonpath={.metadata.uid}", "").await;
    play(
        &kubectl,
        vec![
            ("create -f -", owner(&uid), true, "pod/p created"),
            typed("delete wd w --cascade=foreground", "\"w\" deleted"),
            refused("get pod p", "not found"),
            typed("delete cm --all", "\"m\" deleted"),
        ],
    )
    .await;
    listening.stop().await;
}

#[tokio::test]
async fn kinds_are_explained_and_mistakes_found() {
    let pod = || POD.replace("OWNER", "").replace("image", "imagee");
    session(vec![
        typed("explain pod.spec.containers", "FIELD: containers <[]Container>"),
        typed("explain pod.spec.volumes.image.reference", "FIELD: reference <string>"),
        typed("explain widget.spec.image", "FIELD: image <string>"),
        typed("explain widget.metadata.ownerReferences.uid --recursive", "FIELD: uid <string>"),
        refused("explain widget.spec.imagee", "field \"imagee\" does not exist"),
        ("create -f -", pod(), false, "strict decoding error: unknown field \"spec.containers[0].imagee\""),
        ("create --validate=warn -f -", pod(), true, "Warning: unknown field \"spec.containers[0].imagee\""),
        typed("delete pod p --wait=false", "deleted"),
        ("create --validate=ignore -f -", pod(), true, "pod/p created"),
        (
            "apply -f -",
            MAP.replace("a: '1'", "a: true"),
            false,
            "cannot unmarshal bool into Go struct field ConfigMap.data.a of type string",
        ),
    ])
    .await;
}
