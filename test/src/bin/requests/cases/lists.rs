//! Lists: selectors, pages, versions, and the forms they come in. No IO.

use serde_json::json;

use crate::case::{Case, get, post};
use crate::kinds::Kind;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const METADATA_LIST: &str =
    "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

/// Label selectors, encoded; each is asked together with that of the case.
const LABELS: &[&str] = &[
    "app=x",
    "app==x",
    "app!=x",
    "app%20in%20(x,y)",
    "app%20notin%20(x,y)",
    "app",
    "!app",
    "app=x,tier=1",
    "app=",
    "app%20in%20()",
    "app%20in%20x",
    "a=b=c",
    "-a=b",
    "app=%24",
    "app%3E1",
    "tier%3E1",
    "tier%3C2",
    "example.dev/a=b",
    "%20app%20=%20x%20",
    ",",
];

pub(super) fn of(kind: &Kind) -> Vec<Case> {
    let list = kind.list();
    let selected = format!("{list}?labelSelector=corpus=<ns>");
    let with_objects = |name: &str| {
        let mut case = Case::new(format!("{}/{name}", kind.plural));
        for (name, labels) in [
            ("a", json!({ "corpus": "<ns>", "app": "x", "tier": "1" })),
            ("b", json!({ "corpus": "<ns>", "app": "y", "tier": "2" })),
            ("c", json!({ "corpus": "<ns>" })),
        ] {
            case = case.send(format!("create {name}"), post(list.clone(), &kind.labelled(name, &labels)));
        }
        case
    };
    let mut selectors = with_objects("selectors");
    // Which labels are meant does not depend on the kind.
    let labels = if kind.plural == "configmaps" || kind.plural == "tasks" { LABELS } else { &LABELS[..3] };
    for selector in labels {
        selectors = selectors.send(*selector, get(format!("{selected},{selector}")));
    }
    let named = format!("metadata.name={}", kind.name("b"));
    for field in [
        named.as_str(),
        "metadata.namespace=<ns>",
        "metadata.namespace=elsewhere",
        "spec.nodeName=",
        "spec.nodeName=somewhere",
        "status.phase=Pending",
        "status.phase!=Pending",
        "spec.restartPolicy=Always",
        "spec.serviceAccountName=default",
        "type=Opaque",
        "involvedObject.name=p",
        "reason=Tested,involvedObject.kind=Pod",
        "spec.unknown=1",
        "metadata.labels=1",
        "nonsense",
        "metadata.name=x,",
    ] {
        selectors = selectors.send(field, get(format!("{selected}&fieldSelector={field}")));
    }
    selectors = selectors.send("everywhere", get(format!("{}?labelSelector=corpus=<ns>", kind.everywhere())));

    let pages = with_objects("pages")
        .send("first", get(format!("{selected}&limit=2")))
        .send("second", get(format!("{selected}&limit=2&continue=<first:/metadata/continue>")))
        .send("all", get(format!("{selected}&limit=3")))
        .send("no limit", get(format!("{selected}&limit=0")))
        .send("malformed limit", get(format!("{selected}&limit=two")))
        .send("malformed token", get(format!("{selected}&continue=nonsense")))
        .send(
            "token and version",
            get(format!("{selected}&continue=<first:/metadata/continue>&resourceVersion=1")),
        )
        .send(
            "not older",
            get(format!(
                "{list}?fieldSelector=metadata.name={}&resourceVersion=<create c:/metadata/resourceVersion>\
             &resourceVersionMatch=NotOlderThan",
                kind.name("c"),
            )),
        )
        .send(
            "exact",
            get(format!(
                "{selected}&resourceVersion=<first:/metadata/resourceVersion>&resourceVersionMatch=Exact"
            )),
        )
        .send("match alone", get(format!("{selected}&resourceVersionMatch=Exact")))
        .send("unknown match", get(format!("{selected}&resourceVersion=1&resourceVersionMatch=Near")))
        .send("exactly any", get(format!("{selected}&resourceVersion=0&resourceVersionMatch=Exact")))
        .send("malformed version", get(format!("{selected}&resourceVersion=new")))
        .send("from the future", get(format!("{selected}&resourceVersion=1000000000")))
        .send("object from the future", get(kind.path("a", "?resourceVersion=1000000000")));

    let forms = with_objects("forms")
        .send("table", get(selected.clone()).accept(TABLE))
        .send("table of one", get(kind.path("a", "")).accept(TABLE))
        .send("table with objects", get(format!("{selected}&includeObject=Object")).accept(TABLE))
        .send("table without objects", get(format!("{selected}&includeObject=None")).accept(TABLE))
        .send("table, unknown include", get(format!("{selected}&includeObject=Some")).accept(TABLE))
        .send("table page", get(format!("{selected}&limit=1")).accept(TABLE))
        .send("table of none", get(format!("{list}?labelSelector=corpus=none")).accept(TABLE))
        .send("metadata", get(selected.clone()).accept(METADATA_LIST))
        .send("metadata of one", get(kind.path("a", "")).accept(METADATA))
        .send("metadata of a created", post(list.clone(), &kind.object("d")).accept(METADATA))
        .send("table of a missing", get(kind.path("none", "")).accept(TABLE))
        .send("xml", get(selected.clone()).accept("application/xml"))
        .send("anything", get(kind.path("a", "")).accept("*/*"));
    vec![selectors, pages, forms]
}
