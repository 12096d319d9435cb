//! The corpus' largest object, and what API servers ask about it. Reads files.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ropewalk_api::config::Config;
use ropewalk_api::kinds;
use ropewalk_bench::corpus;
use ropewalk_cli::documents::{self, Document};
use ropewalk_webhook::{Decision, Operation, Request, Settings, admit};
use serde_json::{Value, json};

use crate::asking::Reviews;

/// An object that is admitted.
pub(crate) struct Largest {
    file: PathBuf,
    object: Value,
    /// With its defaults.
    admitted: Value,
}

impl Largest {
    /// In the files that are measured with.
    pub(crate) fn find() -> Result<Self> {
        let mut largest: Option<Self> = None;
        for path in corpus::files()? {
            let found = documents::read(&path).ok().unwrap_or_default();
            let found = found.iter().filter_map(|document| Self::of(&path, document));
            largest = largest.into_iter().chain(found).max_by_key(|found| found.object.to_string().len());
        }
        largest.context("there is no object that is admitted")
    }

    fn of(file: &Path, document: &Document) -> Option<Self> {
        let mut object = document.value.clone();
        object["metadata"]["namespace"] = "default".into();
        let request = Request {
            operation: Operation::Create,
            group: document.api_version().split_once('/')?.0,
            kind: document.kind(),
            subresource: None,
            object: &object,
            old_object: None,
        };
        kinds::find(request.kind).filter(|kind| request.group == kind.group)?;
        let settings = Settings { release: env!("CARGO_PKG_VERSION").to_owned() };
        match admit(&request, &Config::default(), &settings) {
            Decision::Allow { object: admitted, .. } => {
                Some(Self { file: file.to_owned(), object, admitted })
            }
            Decision::Deny { .. } => None,
        }
    }

    /// What is asked about it, in order: for its defaults, then for errors with these.
    pub(crate) fn reviews(&self) -> Result<Reviews> {
        let kind = self.object["kind"].as_str().and_then(kinds::find).context("a kind of ours")?;
        let (_, version) =
            self.object["apiVersion"].as_str().and_then(|text| text.split_once('/')).context("a version")?;
        let review = |object: &Value| {
            let kind_of = json!({ "group": kind.group, "version": version, "kind": kind.kind });
            let resource = json!({ "group": kind.group, "version": version, "resource": kind.plural });
            let review = json!({
                "apiVersion": "admission.k8s.io/v1",
                "kind": "AdmissionReview",
                "request": {
                    "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
                    "kind": kind_of,
                    "resource": resource,
                    "requestKind": kind_of,
                    "requestResource": resource,
                    "name": object["metadata"]["name"],
                    "namespace": "default",
                    "operation": "CREATE",
                    "userInfo": { "username": "kubernetes-admin", "groups": ["system:masters", "system:authenticated"] },
                    "object": object,
                    "oldObject": null,
                    "dryRun": false,
                    "options": { "apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions" },
                },
            });
            review.to_string().into()
        };
        Ok([("/defaulting", review(&self.object)), ("/resource-validation", review(&self.admitted))])
    }
}

impl fmt::Display for Largest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, size) = (self.object["kind"].as_str().unwrap_or_default(), self.object.to_string().len());
        let file = self.file.file_name().unwrap_or_default().display();
        write!(f, "the largest object: the {kind} of {file}, {size} bytes of JSON")
    }
}
