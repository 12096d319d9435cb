//! Creates the objects, definitions first, and starts the runs.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::{Client, ResourceExt};
use ropewalk_api::errors::chain;

use super::follow::RunKey;
use super::objects::{Object, Objects};
use crate::diagnostic::Diagnostic;

/// Creates every object in order. Everything refused is told, and no run starts beside a refused definition.
pub async fn apply(client: &Client, objects: &Objects) -> Result<Vec<RunKey>, Vec<Diagnostic>> {
    namespaces(client, objects).await.map_err(|refused| vec![refused])?;
    let mut refused = Vec::new();
    for object in &objects.definitions {
        if let Err(diagnostic) = create(client, object).await {
            refused.push(diagnostic);
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let mut runs = Vec::new();
    for object in &objects.runs {
        let created = create(client, object).await.map_err(|refused| vec![refused])?;
        let kind = if object.kind() == "PipelineRun" { "PipelineRun" } else { "TaskRun" };
        let (namespace, name) = (created.namespace().unwrap_or_default(), created.name_any());
        runs.push(RunKey { kind, namespace, name });
    }
    Ok(runs)
}

/// Namespaces need no documents of their own here: there is nobody to ask for one.
async fn namespaces(client: &Client, objects: &Objects) -> Result<(), Diagnostic> {
    let written = |name: &str| {
        objects
            .definitions
            .iter()
            .any(|object| object.kind() == "Namespace" && object.value["metadata"]["name"] == name)
    };
    let all = objects.definitions.iter().chain(&objects.runs);
    let names: BTreeSet<_> = all.map(Object::namespace).filter(|name| !written(name)).collect();
    let api: Api<Namespace> = Api::all(client.clone());
    for name in names {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        match api.create(&PostParams::default(), &namespace).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => {
                let message = format!("cannot use namespace \"{name}\"");
                return Err(Diagnostic::new(format!("{message}: {}", reason(&error))));
            }
        }
    }
    Ok(())
}

async fn create(client: &Client, object: &Object) -> Result<DynamicObject, Diagnostic> {
    let wrong = |field: &str, message: String| match &object.document {
        Some(document) => document.error(field, message),
        None => Diagnostic::new(message),
    };
    let (api_version, kind) = (object.value["apiVersion"].as_str().unwrap_or_default(), object.kind());
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let Ok((resource, capabilities)) = pinned_kind(client, &gvk).await else {
        return Err(wrong("kind", format!("unknown kind \"{kind}\" in \"{api_version}\""))
            .hint("this machine serves Tekton's kinds and Kubernetes' core ones that pipelines use"));
    };
    let typed: DynamicObject = serde_json::from_value(object.value.clone())
        .map_err(|error| wrong("metadata", format!("{kind} cannot be read: {error}")))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Namespaced => Api::namespaced_with(client.clone(), object.namespace(), &resource),
        Scope::Cluster => Api::all_with(client.clone(), &resource),
    };
    let name = typed.name_any();
    match api.create(&PostParams::default(), &typed).await {
        Ok(created) => Ok(created),
        // Every namespace has its `default` service account from the start; a file says what is in it.
        Err(kube::Error::Api(status)) if status.code == 409 && kind == "ServiceAccount" => {
            let patched = api.patch(&name, &PatchParams::default(), &Patch::Merge(&object.value)).await;
            patched.map_err(|error| {
                wrong("metadata.name", format!("{kind} \"{name}\" was refused: {}", reason(&error)))
            })
        }
        Err(error) => {
            let reason = reason(&error);
            let field = blamed_field(&reason);
            Err(wrong(&field, format!("{kind} \"{name}\" was refused: {reason}")))
        }
    }
}

/// What the API server says, without the client's own words around it.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => chain(other),
    }
}

/// The field an admission error is about: its text ends in `: path[, path]` (contract 2).
fn blamed_field(message: &str) -> String {
    let first_line = message.lines().next().unwrap_or_default();
    let path = first_line.rsplit(": ").next().unwrap_or_default();
    let path = path.split(", ").next().unwrap_or_default();
    if path.contains(' ') { String::new() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use k8s_openapi::api::core::v1::ServiceAccount;
    use ropewalk_apiserver::{NoAdmission, ResourceTable, State};
    use ropewalk_standalone::server::{NoLogs, Server};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_service_account_that_is_there_takes_over_the_fields_of_the_file() {
        let state = State::new(ResourceTable::built_in(), 1, Timestamp::now());
        let client = Server::new(state, Arc::new(NoAdmission), Arc::new(NoLogs)).client();
        let account = json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": { "name": "default", "namespace": "default", "labels": { "team": "blue" } },
            "secrets": [{ "name": "bot" }],
            "imagePullSecrets": [{ "name": "pull" }],
            "automountServiceAccountToken": false,
        });
        let objects =
            Objects { definitions: vec![Object { value: account, document: None }], ..Objects::default() };
        apply(&client, &objects).await.expect("it is taken");
        let api: Api<ServiceAccount> = Api::namespaced(client, "default");
        let stored = serde_json::to_value(api.get("default").await.expect("it is there")).expect("JSON");
        assert_eq!(stored["secrets"], json!([{ "name": "bot" }]));
        assert_eq!(stored["imagePullSecrets"], json!([{ "name": "pull" }]));
        assert_eq!(stored["automountServiceAccountToken"], false);
        assert_eq!(stored["metadata"]["labels"], json!({ "team": "blue" }));
    }

    #[test]
    fn the_field_of_an_admission_error() {
        for (message, field) in [
            ("denied the request: validation failed: missing field(s): spec.steps", "spec.steps"),
            ("expected exactly one, got both: spec.taskRef, spec.taskSpec", "spec.taskRef"),
            ("non-existent variable in \"$(params.x)\": spec.steps[0].script", "spec.steps[0].script"),
            ("something went wrong", ""),
        ] {
            assert_eq!(blamed_field(message), field, "{message}");
        }
    }
}
