//! POST, PUT and PATCH: from what the client sent to what is stored. Pure.
//!
//! The order is kube-apiserver's: decode, prune, default, system fields, admission, prune and default again, checks,
//! conversion to the storage version.

use std::sync::Arc;

use http::{Method, header};
use serde_json::{Value, json};

use crate::{
    access,
    admission::{self, AdmissionDecision, AdmissionRequest, Operation},
    apply::{Requested, Tracker},
    body::Body,
    builtin, defaults,
    handle::{Call, Reply, key_of},
    names, object, patch, read,
    route::{self, Target},
    scheduler, schema,
    state::{ObjectKey, State},
    status::{Failure, FieldError, Result},
    table::{Behaviour, Resource, ResourceId},
    typed,
};

/// Names tried for one `generateName` before the last one's conflict is told, as in Kubernetes.
const NAME_ATTEMPTS: usize = 8;

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

/// Longest name of a field manager, as in kube-apiserver.
const MANAGER: usize = 128;

/// The field manager of a request: as it says, or the first part of its user agent.
fn manager(call: &Call<'_>) -> Result<String> {
    let is_apply = call.method == Method::PATCH && route::content_type(call.headers) == patch::APPLY;
    let options = match call.method.as_str() {
        "POST" => "CreateOptions",
        "PUT" => "UpdateOptions",
        _ => "PatchOptions",
    };
    let named = call.query.text("fieldManager");
    let fault = if is_apply && named.is_empty() {
        FieldError::required("fieldManager", "is required for apply patch")
    } else if named.len() > MANAGER {
        FieldError::too_long("fieldManager", &format!("may not be more than {MANAGER} bytes"))
    } else if named.chars().any(char::is_control) {
        FieldError::invalid("fieldManager", &Value::from(named), "should only contain printable characters")
    } else if !is_apply && call.query.get("force").is_some() {
        FieldError::forbidden("force", "may not be specified for non-apply patch")
    } else if named.is_empty() {
        let agent =
            call.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let prefix: String = agent.split('/').next().unwrap_or_default().chars().take(MANAGER).collect();
        return Ok(if prefix.is_empty() { "unknown".into() } else { prefix });
    } else {
        return Ok(named.to_owned());
    };
    Err(Failure::invalid_options(options, &[fault]))
}

impl<'a> Writer<'a> {
    /// Refuses what can be refused before anything is decoded, among it a form of answer the server does not have.
    fn new(state: &State, call: &'a Call<'a>, target: &Target, body: &mut Body) -> Result<Self> {
        call.format()?;
        let (resource, version) = (state.resource(target.id), target.version);
        let (manager, twice) = (manager(call)?, body.take_duplicates());
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
            "Strict" | "Ignore" => {}
            other => {
                return Err(Failure::bad_request(format!("fieldValidation: Unsupported value: {other:?}")));
            }
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
        let (name, wanted) = (object::name(&config), target.name.as_deref().unwrap_or_default());
        if !name.is_empty() && name != wanted {
            return Err(Failure::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({wanted})"
            )));
        }
        object::set_meta(&mut config, "name", Some(Value::from(wanted)));
        place(&self.resource, target, &mut config)?;
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

/// POST of a new object.
pub(crate) fn create(state: &mut State, call: &Call<'_>, target: &Target, mut body: Body) -> Result<Reply> {
    let writer = Writer::new(state, call, target, &mut body)?;
    create_object(state, writer, target, body.object()?, None)
}

/// Stores a new object; `managed` are its `managedFields` where they are known already.
fn create_object(
    state: &mut State,
    mut writer: Writer<'_>,
    target: &Target,
    mut object: Value,
    managed: Option<Value>,
) -> Result<Reply> {
    let call = writer.call;
    writer.conform(&mut object)?;
    place(&writer.resource, target, &mut object)?;
    if !object::resource_version(&object).is_empty() {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    for field in SYSTEM.into_iter().chain(["resourceVersion"]) {
        object::set_meta(&mut object, field, None);
    }
    // Whoever writes an object owns what it says and what is filled in by default. What admission adds is nobody's.
    let managed = match managed {
        Some(managed) => Some(managed),
        None => writer.tracker("").update(None, &object, &Requested::Nothing)?,
    };
    check_namespace(state, &writer.resource, &object)?;
    if writer.behaviour() == Behaviour::Pod {
        check_service_account(state, &writer.resource, &mut object)?;
    }
    admission::fill(state, &writer.resource, None, &mut object);
    state.fill_system_fields(&mut object, call.context.now);
    let (uid, created) =
        (object::uid(&object).to_owned(), object::text(&object, "metadata.creationTimestamp").to_owned());
    writer.admit(Operation::Create, &mut object, None)?;
    object::set_meta(&mut object, "uid", Some(Value::from(uid)));
    object::set_meta(&mut object, "creationTimestamp", Some(Value::from(created)));
    if writer.resource.custom && writer.has_status() {
        object::set_field(&mut object, "status", None);
        // The schema may give even an empty object a status.
        writer.default(&mut object);
    }
    name_it(state, target.id, &mut object);
    builtin::prepare_create(writer.behaviour(), &mut object);
    writer.check(&object, Vec::new())?;
    writer.warnings.extend(admission::judge(state, &writer.resource, None, &object)?);
    let key = ObjectKey::of(&object);
    if let Some(found) = state.get(target.id, &key) {
        let refused = if object::is_deleting(found) { Failure::still_there } else { Failure::already_exists };
        return Err(refused(&writer.resource, &key.name));
    }
    object::set_meta(&mut object, "managedFields", managed);
    access::check_write(state, call.caller, &writer.resource, None, &object)?;
    let stored = writer.to_storage(object)?;
    state.check_room_to_create()?;
    let stored = state.create(target.id, stored, call.context.now);
    writer.reply(201, &stored)
}

/// Puts the namespace of the URL into the object.
fn place(resource: &Resource, target: &Target, object: &mut Value) -> Result<()> {
    let Some(namespace) = target.namespace.as_deref() else {
        if resource.namespaced {
            // A namespaced object is not created through the list of all namespaces.
            return Err(Failure::method_not_allowed());
        }
        object::set_meta(object, "namespace", None);
        return Ok(());
    };
    let own = object::namespace(object);
    if !own.is_empty() && own != namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    object::set_meta(object, "namespace", Some(Value::from(namespace)));
    Ok(())
}

fn check_namespace(state: &State, resource: &Resource, object: &Value) -> Result<()> {
    let namespace = object::namespace(object);
    let Some(id) = state.table().by_behaviour(Behaviour::Namespace).filter(|_| resource.namespaced) else {
        return Ok(());
    };
    match state.get(id, &ObjectKey::new("", namespace)) {
        None => Err(Failure::not_found(state.table().get(id), namespace)),
        Some(found) if object::is_deleting(found) => {
            let why = format!(
                "unable to create new content in namespace {namespace} because it is being terminated"
            );
            let mut failure = Failure::forbidden(resource, object::name(object), &why);
            // What controllers tell by that it is no use to try again.
            failure.details["causes"] = json!([{
                "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated"),
            }]);
            Err(failure)
        }
        Some(_) => Ok(()),
    }
}

/// What the `ServiceAccount` admission plugin does: a pod has a service account, and it exists.
fn check_service_account(state: &mut State, resource: &Resource, pod: &mut Value) -> Result<()> {
    let Some((id, _)) = state.table().find("", "v1", "serviceaccounts") else { return Ok(()) };
    let account = match object::text(pod, "spec.serviceAccountName") {
        "" => "default".to_owned(),
        account => account.to_owned(),
    };
    let namespace = object::namespace(pod);
    let Some(found) = state.get(id, &ObjectKey::new(namespace, &account)).cloned() else {
        let why = format!(
            "error looking up service account {namespace}/{account}: serviceaccount \"{account}\" not found"
        );
        return Err(Failure::forbidden(resource, object::name(pod), &why));
    };
    for field in ["serviceAccountName", "serviceAccount"] {
        object::map_mut(pod, "spec").insert(field.into(), Value::from(account.as_str()));
    }
    access::automount(state, &found, pod);
    Ok(())
}

fn name_it(state: &mut State, id: ResourceId, object: &mut Value) {
    let base = object::text(object, "metadata.generateName").to_owned();
    if !object::name(object).is_empty() || base.is_empty() {
        return;
    }
    for _ in 0..NAME_ATTEMPTS {
        let name = state.names.generate(&base);
        object::set_meta(object, "name", Some(Value::from(name)));
        if state.get(id, &ObjectKey::of(object)).is_none() {
            return;
        }
    }
}

/// PUT or PATCH of an object, or of its status.
pub(crate) fn update(state: &mut State, call: &Call<'_>, target: &Target, mut body: Body) -> Result<Reply> {
    let mut writer = Writer::new(state, call, target, &mut body)?;
    let status = target.subresource.is_some();
    let media_type = route::content_type(call.headers);
    let applies = call.method == Method::PATCH && media_type == patch::APPLY;
    if call.method == Method::PUT {
        check_name(target, body.peek()?)?;
    }
    let stored = match read::fetch(state, target) {
        Ok(stored) => stored,
        Err(_) if applies && !status => return create_by_apply(state, writer, target, body),
        Err(_) if writer.creates_by_put() && !status => return create_by_put(state, writer, target, body),
        Err(not_found) => {
            // The media type of a patch is judged before the object is looked for.
            if call.method == Method::PATCH && !applies {
                patch::check_type(&writer.resource, media_type)?;
            }
            return Err(not_found);
        }
    };
    let old = read::in_version(&writer.resource, target.version, &stored)?.into_owned();
    let subresource = target.subresource.as_deref().unwrap_or_default();
    let mut object = if applies {
        let config = writer.configuration(target, body)?;
        check_version_of(&writer, &old, &config)?;
        writer.tracker(subresource).apply(Some(&old), config, call.query.flag("force"))?
    } else if call.method == Method::PATCH {
        patch::check_type(&writer.resource, media_type)?;
        let mut object = old.clone();
        patch::apply(body.change()?, &mut object)?;
        object
    } else {
        body.object()?
    };
    // A subresource leaves it to the object itself who manages what.
    let requested = if status { Requested::Nothing } else { Requested::of(&object) };
    let managed = applies.then(|| object::at(&object, "metadata.managedFields").cloned());
    writer.conform(&mut object)?;
    check_identity(&writer, target, &old, &mut object)?;
    for field in SYSTEM {
        object::copy_meta(&mut object, &old, field);
    }
    object::copy_meta(&mut object, &old, "resourceVersion");
    if status {
        object = with_status(&writer, &old, &object);
    } else if writer.has_status() {
        object::set_field(&mut object, "status", old.get("status").cloned());
    }
    let managed = match managed {
        Some(managed) => managed,
        None => writer.tracker(subresource).update(Some(&old), &object, &requested)?,
    };
    if !status {
        admission::fill(state, &writer.resource, Some(&old), &mut object);
        writer.admit(Operation::Update, &mut object, Some(&old))?;
        for field in SYSTEM.into_iter().chain(["name", "namespace", "resourceVersion"]) {
            object::copy_meta(&mut object, &old, field);
        }
        if writer.has_status() {
            object::set_field(&mut object, "status", old.get("status").cloned());
        }
    }
    let mut errors = new_finalizers(&old, &object);
    if !status {
        errors.extend(builtin::validate_update(writer.behaviour(), &old, &object));
    }
    writer.check(&object, errors)?;
    if !status {
        writer.warnings.extend(admission::judge(state, &writer.resource, Some(&old), &object)?);
    }
    access::check_write(state, call.caller, &writer.resource, Some(&old), &object)?;
    if writer.resource.counts_generations && !status && content_changed(&writer, &old, &object) {
        let generation = object::at(&old, "metadata.generation").and_then(Value::as_i64).unwrap_or_default();
        object::set_meta(&mut object, "generation", Some(Value::from(generation + 1)));
    }
    object::set_meta(&mut object, "managedFields", managed);
    let object = writer.to_storage(object)?;
    if object == *stored {
        return writer.reply(200, &stored);
    }
    // The last finalizer of an object whose grace is over was all that kept it.
    let ends = object::is_deleting(&object)
        && object::finalizers(&object).is_empty()
        && object::grace(&object) == Some(0);
    if ends {
        state.remove(target.id, &key_of(target));
        return writer.reply(200, &object);
    }
    state.check_room_to_update(&object)?;
    let stored = state.put(target.id, object);
    writer.reply(200, &stored)
}

/// The name in the body of a PUT, which is judged before the object is looked for.
fn check_name(target: &Target, object: &Value) -> Result<()> {
    let (sent, known) = (object::text(object, "metadata.name"), target.name.as_deref().unwrap_or_default());
    if sent.is_empty() || sent == known {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "the name of the object ({sent}) does not match the name on the URL ({known})"
    )))
}

/// A PUT of an object of one of the kinds that clients may so create.
fn create_by_put(state: &mut State, writer: Writer<'_>, target: &Target, body: Body) -> Result<Reply> {
    // Whoever may change what is there may not for that reason make what is not.
    access::check_create(state, writer.call.caller.user, target)?;
    let mut object = body.object()?;
    if !object::resource_version(&object).is_empty() || !object::uid(&object).is_empty() {
        return Err(Failure::not_found(&writer.resource, target.name.as_deref().unwrap_or_default()));
    }
    object::set_meta(&mut object, "name", target.name.as_deref().map(Value::from));
    create_object(state, writer, target, object, None)
}

/// An applied configuration for which there is no object yet.
fn create_by_apply(state: &mut State, writer: Writer<'_>, target: &Target, body: Body) -> Result<Reply> {
    // Whoever may patch what is there may not for that reason make what is not.
    access::check_create(state, writer.call.caller.user, target)?;
    let mut config = writer.configuration(target, body)?;
    let uid = object::uid(&config);
    if !uid.is_empty() {
        let why = format!(
            "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
        );
        return Err(Failure::conflict(&writer.resource, object::name(&config), &why));
    }
    if !object::resource_version(&config).is_empty() {
        return Err(Failure::not_found(&writer.resource, object::name(&config)));
    }
    object::set_meta(&mut config, "uid", None);
    let mut object = writer.tracker("").apply(None, config, false)?;
    let managed = object::meta_mut(&mut object).remove("managedFields");
    create_object(state, writer, target, object, managed)
}

/// The versions an applied configuration insists on.
fn check_version_of(writer: &Writer<'_>, old: &Value, config: &Value) -> Result<()> {
    let wanted = object::resource_version(config);
    if wanted.is_empty() || wanted == object::resource_version(old) {
        Ok(())
    } else {
        Err(Failure::modified(&writer.resource, object::name(old)))
    }
}

/// Name, namespace, UID and resourceVersion of what the client sent against what is there.
fn check_identity(writer: &Writer<'_>, target: &Target, old: &Value, object: &mut Value) -> Result<()> {
    let (name, patched) = (object::name(old).to_owned(), writer.call.method == Method::PATCH);
    for (field, known) in [("name", name.as_str()), ("namespace", object::namespace(old))] {
        let sent = object::text(object, &format!("metadata.{field}"));
        if sent == known || (sent.is_empty() && !patched && field == "namespace") {
            continue;
        }
        if patched && sent.is_empty() {
            let error =
                FieldError::invalid(format!("metadata.{field}"), &Value::from(sent), "field is immutable");
            return Err(Failure::invalid(&writer.resource, &name, &[error]));
        }
        return Err(Failure::bad_request(if field == "name" {
            format!("the name of the object ({sent}) does not match the name on the URL ({known})")
        } else {
            "the namespace of the provided object does not match the namespace sent on the request".into()
        }));
    }
    if let Some(namespace) = &target.namespace {
        object::set_meta(object, "namespace", Some(Value::from(namespace.as_str())));
    }
    let uid = object::uid(object);
    if !uid.is_empty() && uid != object::uid(old) && patched {
        let error = FieldError::invalid("metadata.uid", &Value::from(uid), "field is immutable");
        return Err(Failure::invalid(&writer.resource, &name, &[error]));
    }
    if !uid.is_empty() && uid != object::uid(old) {
        let found = object::uid(old);
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Failure::conflict(&writer.resource, &name, &why));
    }
    match object::resource_version(object) {
        "" if (writer.resource.custom || writer.resource.plural == "leases") && !patched => {
            let error = FieldError {
                field: "metadata.resourceVersion".into(),
                reason: "FieldValueInvalid",
                message: "Invalid value: 0: must be specified for an update".into(),
            };
            // kube-apiserver has the plural here where a kind belongs.
            Err(Failure::invalid_kind(&writer.resource.group, &writer.resource.plural, &name, &[error]))
        }
        "" => Ok(()),
        version if version == object::resource_version(old) => Ok(()),
        _ => Err(Failure::modified(&writer.resource, &name)),
    }
}

/// What a write to `/status` changes: of a custom resource the status alone, of a built-in one also labels,
/// annotations and finalizers.
fn with_status(writer: &Writer<'_>, old: &Value, object: &Value) -> Value {
    let mut result = old.clone();
    object::set_field(&mut result, "status", object.get("status").cloned());
    if !writer.resource.custom {
        for field in ["labels", "annotations", "finalizers"] {
            object::copy_meta(&mut result, object, field);
        }
    }
    result
}

fn new_finalizers(old: &Value, object: &Value) -> Vec<FieldError> {
    if !object::is_deleting(old) {
        return Vec::new();
    }
    let known = object::finalizers(old);
    let added: Vec<String> = object::finalizers(object)
        .into_iter()
        .filter(|finalizer| !known.contains(finalizer))
        .map(|finalizer| format!("{finalizer:?}"))
        .collect();
    if added.is_empty() {
        return Vec::new();
    }
    let why = format!(
        "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
        added.join(", ")
    );
    vec![FieldError::forbidden("metadata.finalizers", &why)]
}

/// Whether anything changed that `metadata.generation` counts: all but metadata and a status of its own.
fn content_changed(writer: &Writer<'_>, old: &Value, new: &Value) -> bool {
    let counts = |key: &str| key != "metadata" && !(key == "status" && writer.has_status());
    let (Some(old), Some(new)) = (old.as_object(), new.as_object()) else { return old != new };
    old.keys().chain(new.keys()).any(|key| counts(key) && old.get(key) != new.get(key))
}

/// POST to a pod's `binding`: which node it runs on.
pub(crate) fn bind(state: &mut State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    let binding = body.object()?;
    let node = object::text(&binding, "target.name");
    let stored = read::fetch(state, target)?;
    let resource = state.resource(target.id);
    let name = object::name(&stored);
    if node.is_empty() {
        let error = FieldError::required("target.name", "");
        return Err(Failure::invalid(&resource, name, &[error]));
    }
    let bound = object::text(&stored, "spec.nodeName");
    if !bound.is_empty() {
        let why = format!("pod {name} is already assigned to node {bound:?}");
        return Err(Failure::conflict(&resource, name, &why));
    }
    state.put(target.id, scheduler::bound(&stored, node, call.context.now));
    let body =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(Reply::Json { code: 201, body: body.to_string().into_bytes(), warnings: Vec::new() })
}
