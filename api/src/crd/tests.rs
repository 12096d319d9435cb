use rstest::rstest;

use super::*;

/// Client-side apply keeps the object in an annotation; annotations together hold 256 kB.
const MAX_COMPACT: usize = 230_000;

/// The schema of a kind in the version it is stored in, or, as in `v1beta1.Task`, in another one.
fn schema(kind: &str) -> Value {
    let (version, kind) = kind.split_once('.').unwrap_or(("", kind));
    let index = kinds::ALL.iter().position(|k| k.kind == kind).unwrap();
    let definition = all().swap_remove(index);
    let versions = definition["spec"]["versions"].as_array().unwrap();
    let wanted =
        |found: &&Value| if version.is_empty() { found["storage"] == true } else { found["name"] == version };
    versions.iter().find(wanted).unwrap()["schema"]["openAPIV3Schema"].clone()
}

/// The schema of `spec.steps[].image` and the like.
fn at<'a>(mut schema: &'a Value, path: &str) -> &'a Value {
    for part in path.split('.') {
        schema = match part.strip_suffix("[]") {
            Some(field) => &schema["properties"][field]["items"],
            None => &schema["properties"][part],
        };
        assert!(!schema.is_null(), "{part} of {path}");
    }
    schema
}

#[test]
fn each_fits_client_side_apply() {
    for crd in all() {
        let (name, size) = (&crd["metadata"]["name"], crd.to_string().len());
        println!("{name}: {size} bytes");
        assert!(size <= MAX_COMPACT, "{name} has {size} bytes");
    }
}

#[test]
fn schemas_are_structural() {
    fn check(schema: &Value, path: &str) {
        let object = schema.as_object().unwrap_or_else(|| panic!("{path}: {schema}"));
        for key in object.keys() {
            assert!(
                [
                    "additionalProperties",
                    "description",
                    "enum",
                    "format",
                    "items",
                    "nullable",
                    "properties",
                    "required",
                    "type",
                    "x-kubernetes-int-or-string",
                    "x-kubernetes-preserve-unknown-fields",
                ]
                .contains(&key.as_str()),
                "{path} has the key {key:?}"
            );
        }
        let any = object.contains_key("x-kubernetes-int-or-string")
            || object.contains_key("x-kubernetes-preserve-unknown-fields");
        assert!(any || object["type"].is_string(), "{path} has no type");
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = object.get(key) {
                check(inner, &format!("{path}[]"));
            }
        }
    }
    for crd in all() {
        for version in crd["spec"]["versions"].as_array().unwrap() {
            check(&version["schema"]["openAPIV3Schema"], "");
        }
    }
}

#[rstest]
#[case("TaskRun", "spec.taskSpec", "object")]
#[case("TaskRun", "status.taskSpec", "object")]
#[case("TaskRun", "status.retriesStatus[]", "object")]
#[case("TaskRun", "spec.podTemplate.affinity", "object")]
#[case("TaskRun", "spec.podTemplate.volumes[]", "object")]
#[case("TaskRun", "spec.workspaces[].volumeClaimTemplate", "object")]
#[case("PipelineRun", "spec.pipelineSpec", "object")]
#[case("PipelineRun", "status.pipelineSpec", "object")]
#[case("PipelineRun", "spec.taskRunTemplate.podTemplate.securityContext", "object")]
#[case("Pipeline", "spec.tasks[].taskSpec", "object")]
#[case("Pipeline", "spec.tasks[].pipelineSpec", "object")]
#[case("Task", "spec.volumes[]", "object")]
#[case("CustomRun", "spec.customSpec.spec", "")]
#[case("CustomRun", "status.extraFields", "")]
#[case("TaskRun", "spec.params[].value", "")]
#[case("Task", "spec.params[].default", "")]
#[case("Pipeline", "spec.results[].value", "")]
#[case("v1beta1.TaskRun", "spec.taskSpec", "object")]
#[case("v1beta1.TaskRun", "spec.podTemplate.volumes[]", "object")]
#[case("v1beta1.PipelineRun", "spec.podTemplate.securityContext", "object")]
#[case("v1beta1.PipelineRun", "status.taskRuns", "object")]
fn left_open(#[case] kind: &str, #[case] path: &str, #[case] json_type: &str) {
    let schema = schema(kind);
    let found = at(&schema, path);
    assert_eq!(found["x-kubernetes-preserve-unknown-fields"], true, "{found}");
    assert_eq!(found["type"].as_str().unwrap_or_default(), json_type);
    assert_eq!(found.get("properties"), None);
}

#[rstest]
#[case("Task", "spec.steps[].image", "string")]
#[case("Task", "spec.steps[].env[].valueFrom.secretKeyRef.key", "string")]
#[case("Task", "spec.steps[].securityContext.runAsUser", "integer")]
#[case("Task", "spec.steps[].timeout", "string")]
#[case("Task", "spec.sidecars[].readinessProbe.periodSeconds", "integer")]
#[case("Task", "spec.params[].enum", "array")]
#[case("Pipeline", "spec.tasks[].matrix.include[].params", "array")]
#[case("PipelineRun", "spec.timeouts.pipeline", "string")]
#[case("PipelineRun", "spec.taskRunTemplate.podTemplate.hostNetwork", "boolean")]
#[case("PipelineRun", "status.conditions[].lastTransitionTime", "string")]
#[case("TaskRun", "status.steps[].terminated.exitCode", "integer")]
#[case("StepAction", "spec.volumeMounts[].name", "string")]
#[case("CustomRun", "spec.customRef.kind", "string")]
#[case("v1beta1.Task", "spec.steps[].resources.limits", "object")]
#[case("v1beta1.Task", "spec.steps[].livenessProbe.periodSeconds", "integer")]
#[case("v1beta1.TaskRun", "spec.stepOverrides[].resources.limits", "object")]
#[case("v1beta1.PipelineRun", "spec.timeout", "string")]
#[case("v1beta1.PipelineRun", "status.pipelineResults[].name", "string")]
#[case("v1alpha1.StepAction", "spec.volumeMounts[].name", "string")]
#[case("VerificationPolicy", "spec.authorities[].key.secretRef.namespace", "string")]
#[case("ResolutionRequest", "spec.params[].name", "string")]
#[case("ResolutionRequest", "status.source.uri", "string")]
#[case("v1alpha1.ResolutionRequest", "spec.params", "object")]
#[case("v1alpha1.ResolutionRequest", "status.refSource.uri", "string")]
fn spelled_out(#[case] kind: &str, #[case] path: &str, #[case] json_type: &str) {
    assert_eq!(at(&schema(kind), path)["type"], json_type);
}

#[test]
fn quantities_and_ports_are_numbers_or_texts() {
    let schema = schema("Task");
    for path in ["spec.steps[].computeResources.limits", "spec.sidecars[].readinessProbe.httpGet.port"] {
        let found = at(&schema, path);
        let found = found.get("additionalProperties").unwrap_or(found);
        assert_eq!(found["x-kubernetes-int-or-string"], true, "{path}: {found}");
    }
}

#[test]
fn names_columns_and_subresources_are_tektons() {
    let crds = all();
    let names: Vec<_> = crds.iter().map(|crd| crd["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "tasks.tekton.dev",
            "taskruns.tekton.dev",
            "pipelines.tekton.dev",
            "pipelineruns.tekton.dev",
            "stepactions.tekton.dev",
            "customruns.tekton.dev",
            "verificationpolicies.tekton.dev",
            "resolutionrequests.resolution.tekton.dev",
        ]
    );
    for crd in &crds {
        assert_eq!(crd["spec"]["names"]["categories"], json!(["tekton", "tekton-pipelines"]));
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let status = crd["spec"]["names"]["kind"] != "VerificationPolicy";
            let expected = if status { json!({"status": {}}) } else { Value::Null };
            assert_eq!(version["subresources"], expected);
            assert_eq!(version["served"], true);
        }
    }
    assert_eq!(crds[1]["spec"]["names"]["shortNames"], json!(["tr", "trs"]));
    let columns = &crds[3]["spec"]["versions"][0]["additionalPrinterColumns"];
    assert_eq!(columns[1]["jsonPath"], ".status.conditions[?(@.type==\"Succeeded\")].reason");
    assert_eq!(crds[0]["spec"]["versions"][0].get("additionalPrinterColumns"), None);
    let requests = crds[7]["spec"]["versions"].as_array().unwrap();
    let columns = requests.iter().map(|version| {
        let columns = version["additionalPrinterColumns"].as_array().unwrap().iter();
        columns.map(|column| column["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
    });
    let expected = ["OwnerKind Owner Succeeded Reason StartTime EndTime", "Succeeded Reason"];
    assert_eq!(columns.collect::<Vec<_>>(), expected);
    let deprecated: Vec<_> = requests.iter().map(|version| version.get("deprecated")).collect();
    assert_eq!(deprecated, [None, Some(&json!(true))]);
}

#[test]
fn each_is_stored_in_one_version_and_served_in_tektons() {
    let versions: Vec<_> = all()
        .iter()
        .map(|crd| {
            let names = crd["spec"]["versions"].as_array().unwrap().iter().map(|version| {
                let name = version["name"].as_str().unwrap();
                if version["storage"] == true { format!("{name} stored") } else { name.to_owned() }
            });
            let webhook = &crd["spec"]["conversion"]["webhook"]["clientConfig"]["service"]["path"];
            (names.collect::<Vec<_>>().join(", "), webhook.as_str().unwrap_or("same").to_owned())
        })
        .collect();
    let both = ("v1 stored, v1beta1".to_owned(), "/resource-conversion".to_owned());
    assert_eq!(versions[..4], [both.clone(), both.clone(), both.clone(), both]);
    assert_eq!(versions[4], ("v1beta1 stored, v1alpha1".to_owned(), "same".to_owned()));
    assert_eq!(versions[5], ("v1beta1 stored".to_owned(), "same".to_owned()));
    assert_eq!(versions[6], ("v1alpha1 stored".to_owned(), "same".to_owned()));
    assert_eq!(versions[7], ("v1beta1 stored, v1alpha1".to_owned(), "/resource-conversion".to_owned()));
}
