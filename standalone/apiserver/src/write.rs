//! POST, PUT and PATCH: from what the client sent to what is stored. Pure.
//!
//! The order is kube-apiserver's: decode, prune, default, system fields, admission, prune and default again, checks,
//! conversion to the storage version. The steps are those of the [`Writer`] here; `create` and `update` put them in
//! their order.

mod bind;
mod create;
mod identity;
mod manager;
mod update;

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::{
    admission::{AdmissionDecision, AdmissionRequest, Operation},
    apply::Tracker,
    body::Body,
    builtin, defaults,
    handle::{Call, Reply},
    names, object, patch, read,
    route::{self, Target},
    schema,
    state::State,
    status::{Failure, FieldError, Result},
    table::{Behaviour, Resource},
    typed,
};

pub(crate) use bind::bind;
pub(crate) use create::create;
pub(crate) use update::update;

/// System fields, which clients cannot set.
const SYSTEM: [&str; 7] = [
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "selfLink",
    "uid",
];

/// A request for one resource in one version, and the warnings gathered on its way.
struct Writer<'a> {
    call: &'a Call<'a>,
    resource: Arc<Resource>,
    version: usize,
    /// Who writes, in `managedFields`.
    manager: String,
    /// Paths of fields that the body has twice, until they are told.
    twice: Vec<String>,
    warnings: Vec<String>,
}

impl<'a> Writer<'a> {
    /// Refuses what can be refused before anything is decoded, among it a form of answer the server does not have.
    fn new(state: &State, call: &'a Call<'a>, target: &Target, body: &mut Body) -> Result<Self> {
        call.format()?;
        let (resource, version) = (state.resource(target.id), target.version);
        let (manager, twice) = (manager::field_manager(call)?, body.take_duplicates());
        Ok(Self { call, resource, version, manager, twice, warnings: Vec::new() })
    }

    fn tracker<'b>(&'b self, subresource: &'b str) -> Tracker<'b> {
        Tracker {
            resource: &self.resource,
            version: self.version,
            manager: &self.manager,
            subresource,
            now: self.call.context.now,
        }
    }

    fn behaviour(&self) -> Behaviour {
        self.resource.behaviour
    }

    /// Whether a PUT makes what is missing, as in Kubernetes for these kinds (`AllowCreateOnUpdate`).
    fn creates_by_put(&self) -> bool {
        self.call.method == Method::PUT
            && (self.behaviour() == Behaviour::Event
                || matches!(self.resource.plural.as_str(), "leases" | "limitranges")
                || self.resource.group == "rbac.authorization.k8s.io")
    }

    fn schema(&self) -> Option<&Value> {
        self.resource.versions[self.version].schema.as_ref()
    }

    /// Whether `status` belongs to the subresource alone.
    fn has_status(&self) -> bool {
        self.resource.versions[self.version].status
    }

    /// Checks that the object is of the kind the URL says, and sets what was left out.
    fn check_kind(&self, object: &mut Value) -> Result<()> {
        if !object.is_object() {
            return Err(Failure::bad_request("the object provided is unrecognized: it is not a JSON object"));
        }
        let expected = self.resource.versions[self.version].api_version();
        let found = object::text(object, "apiVersion").to_owned();
        if found.is_empty() {
            object::set_field(object, "apiVersion", Some(Value::from(expected)));
        } else if found != expected {
            return Err(Failure::bad_request(format!(
                "the API version in the data ({found}) does not match the expected API version ({expected})"
            )));
        }
        let kind = object::text(object, "kind").to_owned();
        if kind.is_empty() {
            object::set_field(object, "kind", Some(Value::from(self.resource.kind.clone())));
        } else if kind != self.resource.kind {
            let expected = &self.resource.kind;
            return Err(Failure::bad_request(format!(
                "the kind in the data ({kind}) does not match the expected kind ({expected})"
            )));
        }
        names::check_types(&self.resource, object)
    }

    /// Prunes and defaults what a client sent, and tells of unknown fields as `fieldValidation` asks.
    fn conform(&mut self, object: &mut Value) -> Result<()> {
        self.check_kind(object)?;
        let (kind, version) = (&self.resource.kind, &self.resource.versions[self.version]);
        let refuse = |why: &str| {
            Failure::bad_request(format!(
                "{kind} in version {:?} cannot be handled as a {kind}: {why}",
                version.name
            ))
        };
        let shape = self.resource.shape(self.version);
        let mut unknown = schema::prune(object, self.schema());
        unknown.extend(typed::conform(object, shape).map_err(|why| refuse(&why))?);
        let mut faults: Vec<String> =
            unknown.into_iter().map(|path| format!("unknown field \"{path}\"")).collect();
        let twice = std::mem::take(&mut self.twice).into_iter();
        faults.extend(twice.map(|path| format!("duplicate field \"{path}\"")));
        match self.call.query.text("fieldValidation") {
            "Strict" if !faults.is_empty() => {
                return Err(refuse(&format!("strict decoding error: {}", faults.join(", "))));
            }
            "" | "Warn" => self.warnings.extend(faults),
            _ => {}
        }
        self.default(object);
        Ok(())
    }

    fn default(&self, object: &mut Value) {
        if let Some(schema) = self.schema() {
            schema::default(object, schema);
        }
        defaults::fill(object, self.resource.shape(self.version));
        builtin::prepare_write(self.behaviour(), object);
    }

    /// The body of an apply, which must be about the object of the URL.
    fn configuration(&self, target: &Target, body: Body) -> Result<Value> {
        let mut config = body.object()?;
        if ["apiVersion", "kind"].iter().any(|key| object::text(&config, key).is_empty()) {
            return Err(Failure::bad_request("apiVersion and kind must be set in an applied configuration"));
        }
        self.check_kind(&mut config)?;
        if object::at(&config, "metadata.managedFields").is_some() {
            return Err(Failure::bad_request("metadata.managedFields must be nil"));
        }
        identity::check_name(target, &config)?;
        object::set_meta(&mut config, "name", target.name.as_deref().map(Value::from));
        identity::place(&self.resource, target, &mut config)?;
        Ok(config)
    }

    /// Asks admission, and takes over the object it returns.
    fn admit(&mut self, operation: Operation, object: &mut Value, old: Option<&Value>) -> Result<()> {
        let version = &self.resource.versions[self.version];
        let decision = self.call.context.admission.admit(&AdmissionRequest {
            operation,
            group: &version.group,
            version: &version.name,
            kind: &self.resource.kind,
            resource: &self.resource.plural,
            subresource: None,
            namespace: object::namespace(object),
            name: object::name(object),
            object,
            old_object: old,
            dry_run: self.call.dry_run,
        });
        match decision {
            AdmissionDecision::Allow { object: changed, warnings } => {
                self.warnings.extend(warnings);
                if let Some(changed) = changed {
                    *object = changed;
                    self.check_kind(object)?;
                    schema::prune(object, self.schema());
                    self.default(object);
                }
                Ok(())
            }
            AdmissionDecision::Deny { code, message } => Err(Failure::denied(code, message)),
        }
    }

    fn check(&self, object: &Value, mut errors: Vec<FieldError>) -> Result<()> {
        errors.extend(names::validate(&self.resource, object));
        if let Some(schema) = self.schema() {
            errors.extend(schema::validate(object, schema));
        }
        if errors.is_empty() { Ok(()) } else { Err(self.invalid(object, &errors)) }
    }

    fn invalid(&self, object: &Value, errors: &[FieldError]) -> Failure {
        Failure::invalid(&self.resource, object::name(object), errors)
    }

    fn to_storage(&self, object: Value) -> Result<Value> {
        let stored = self.resource.to_version(object, self.version, self.resource.storage);
        let stored = stored.map_err(|why| Failure::internal(format!("conversion failed: {why}")))?;
        if object::fits(&stored) { Ok(stored) } else { Err(Failure::too_large(object::OBJECT_LIMIT)) }
    }

    fn reply(self, code: u16, stored: &Value) -> Result<Reply> {
        let shown = read::present(&self.resource, self.version, self.call.format()?, stored, self.call)?;
        Ok(Reply::Json { code, body: shown.to_string().into_bytes(), warnings: self.warnings })
    }
}

/// Whether this is a server-side apply.
fn applies(call: &Call<'_>) -> bool {
    call.method == Method::PATCH && route::content_type(call.headers) == patch::APPLY
}
