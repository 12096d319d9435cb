//! The resource table: everything the server knows of a kind. Pure.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use crate::{
    object::{self, text},
    types::Shape,
};

/// Converts an object between two `apiVersion`s of its resource. The server sets `apiVersion` itself; an error's
/// text reaches the client in a `Status` with code 500.
pub type Convert = fn(object: Value, from: &str, to: &str) -> Result<Value, String>;

/// The plural name of definitions.
pub(crate) const DEFINITIONS: &str = "customresourcedefinitions";

/// Index of a resource in its [`ResourceTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(pub(crate) usize);

/// What a built-in kind does beyond storing objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Nothing: all custom resources, and most built-in ones.
    Plain,
    /// Graceful deletion, a mostly immutable spec, `log`, `binding` and `eviction`.
    Pod,
    /// Holds other objects and takes them along when it goes.
    Namespace,
    /// `stringData` is folded into `data`.
    Secret,
    /// A claim begins its life `Pending`.
    PersistentVolumeClaim,
    /// Its defaults follow from its bounds.
    LimitRange,
    /// Kept in a bounded number.
    Event,
    /// Definitions loaded at the start; they cannot be written.
    ReadOnly,
    /// Asked by POST and answered, never stored.
    Review,
    /// Its tokens can be asked for.
    ServiceAccount,
    /// Rules for one namespace.
    Role,
    /// Rules for one namespace or all, perhaps gathered from other such roles.
    ClusterRole,
    /// Gives a role in one namespace.
    RoleBinding,
    /// Gives a role everywhere.
    ClusterRoleBinding,
}

/// A column of `kubectl get`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// `OpenAPI` type: `string`, `integer`, `date`, ...
    pub kind: String,
    /// What the column means.
    pub description: String,
    /// Where the value stands, for example `.status.startTime`.
    pub json_path: String,
    /// Columns above zero show up under `-o wide` only.
    pub priority: i64,
}

/// One version of a resource.
#[derive(Clone, Debug)]
pub struct Version {
    /// API group of this version; differs from the resource's own only for events, which live in two groups.
    pub group: String,
    /// For example `v1`.
    pub name: String,
    /// Whether clients may use it.
    pub served: bool,
    /// What whoever uses it is warned of; empty unless it is deprecated.
    pub deprecation: String,
    /// Whether `/status` exists, and the main endpoint so leaves `status` alone.
    pub status: bool,
    /// Structural `OpenAPI` v3 schema; `None` keeps everything as it came.
    pub schema: Option<Value>,
    /// Columns for tables, after the name.
    pub columns: Vec<Column>,
}

impl Version {
    /// A served version without schema.
    pub fn new(group: &str, name: &str) -> Self {
        Self {
            group: group.into(),
            name: name.into(),
            served: true,
            deprecation: String::new(),
            status: false,
            schema: None,
            columns: Vec::new(),
        }
    }

    /// The `apiVersion` of its objects.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.name.clone() } else { format!("{}/{}", self.group, self.name) }
    }
}

/// A kind of object the server stores.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a kind, as definitions have them")]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: String,
    /// For example `TaskRun`.
    pub kind: String,
    /// For example `TaskRunList`.
    pub list_kind: String,
    /// For example `taskruns`.
    pub plural: String,
    /// For example `taskrun`.
    pub singular: String,
    /// For example `tr`.
    pub short_names: Vec<String>,
    /// For example `tekton-pipelines`.
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// All versions.
    pub versions: Vec<Version>,
    /// Index in `versions` of the one objects are stored in.
    pub storage: usize,
    /// Conversion between versions.
    pub convert: Convert,
    /// Whether `metadata.generation` counts changes of the spec.
    pub counts_generations: bool,
    /// Whether it came from a definition: such objects have a schema and refuse strategic merge patches.
    pub custom: bool,
    /// Whether a deletion answers with the object instead of a `Status`.
    pub returns_deleted: bool,
    /// What it does beyond storing.
    pub behaviour: Behaviour,
    /// Of definitions: the resources that their objects define, which have the schemas that the objects are stored without.
    pub(crate) defined: Vec<Arc<Self>>,
}

impl Resource {
    /// A namespaced resource with one version, no schema and no special behaviour.
    pub fn new(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            group: group.into(),
            kind: kind.into(),
            list_kind: format!("{kind}List"),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            versions: vec![Version::new(group, version)],
            storage: 0,
            convert: same,
            counts_generations: false,
            custom: false,
            returns_deleted: false,
            behaviour: Behaviour::Plain,
            defined: Vec::new(),
        }
    }

    /// The types of this version's fields.
    pub(crate) fn shape(&self, version: usize) -> Shape<'_> {
        let version = &self.versions[version];
        Shape::of(version.schema.as_ref(), &version.group, &version.name, &self.kind)
    }

    /// Reads a `CustomResourceDefinition` (`apiextensions.k8s.io/v1`).
    pub fn from_crd(crd: &Value) -> Result<Self, TableError> {
        let name = object::name(crd);
        let missing = |field: &'static str| TableError::MissingField { definition: name.to_owned(), field };
        let required = |field: &'static str| match text(crd, field) {
            "" => Err(missing(field)),
            value => Ok(value.to_owned()),
        };
        let group = required("spec.group")?;
        let kind = required("spec.names.kind")?;
        let list =
            object::at(crd, "spec.versions").and_then(Value::as_array).ok_or(missing("spec.versions"))?;
        let mut versions = Vec::with_capacity(list.len());
        for version in list {
            versions.push(Version {
                group: group.clone(),
                name: match text(version, "name") {
                    "" => return Err(missing("spec.versions[].name")),
                    name => name.to_owned(),
                },
                served: version.get("served").and_then(Value::as_bool).unwrap_or_default(),
                deprecation: deprecation(&group, &kind, version, list),
                status: object::at(version, "subresources.status").is_some(),
                schema: object::at(version, "schema.openAPIV3Schema").cloned(),
                columns: columns(version),
            });
        }
        let storage = list
            .iter()
            .position(|version| version.get("storage").and_then(Value::as_bool).unwrap_or_default())
            .ok_or(missing("spec.versions[].storage"))?;
        Ok(Self {
            plural: required("spec.names.plural")?,
            list_kind: match text(crd, "spec.names.listKind") {
                "" => format!("{kind}List"),
                list_kind => list_kind.to_owned(),
            },
            singular: match text(crd, "spec.names.singular") {
                "" => kind.to_lowercase(),
                singular => singular.to_owned(),
            },
            short_names: texts(crd, "spec.names.shortNames"),
            categories: texts(crd, "spec.names.categories"),
            namespaced: required("spec.scope")? == "Namespaced",
            group,
            kind,
            versions,
            storage,
            convert: same,
            counts_generations: true,
            custom: true,
            returns_deleted: false,
            behaviour: Behaviour::Plain,
            defined: Vec::new(),
        })
    }

    /// `taskruns.tekton.dev`, or `pods` in the core group: how errors name a resource.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Puts into a definition the schemas of the resource that it defines.
    pub(crate) fn complete(&self, definition: &mut Value) {
        let (group, plural) = (text(definition, "spec.group"), text(definition, "spec.names.plural"));
        let found = self.defined.iter().find(|defined| defined.group == group && defined.plural == plural);
        let versions = found.into_iter().flat_map(|resource| &resource.versions);
        let known = versions.filter_map(|version| version.schema.as_ref());
        for (place, schema) in schemas(definition).zip(known) {
            place.clone_from(schema);
        }
    }

    /// Brings an object from one version to another, `apiVersion` included.
    pub(crate) fn to_version(&self, object: Value, from: usize, to: usize) -> Result<Value, String> {
        if from == to {
            return Ok(object);
        }
        let (from, to) = (self.versions[from].api_version(), self.versions[to].api_version());
        let mut object = (self.convert)(object, &from, &to)?;
        object::set_field(&mut object, "apiVersion", Some(Value::from(to)));
        Ok(object)
    }
}

/// The conversion of resources whose versions share one shape; the server sets `apiVersion`.
#[expect(clippy::unnecessary_wraps, reason = "it is a `Convert`")]
pub(crate) fn same(object: Value, _from: &str, _to: &str) -> Result<Value, String> {
    Ok(object)
}

/// The places of the schemas in a definition, one for each version that has one.
fn schemas(crd: &mut Value) -> impl Iterator<Item = &mut Value> {
    let versions = crd["spec"]["versions"].as_array_mut();
    versions.into_iter().flatten().filter_map(|version| version.get_mut("schema")?.get_mut("openAPIV3Schema"))
}

/// What a server warns of where the definition has no words of its own: with the versions to use instead.
fn deprecation(group: &str, kind: &str, version: &Value, all: &[Value]) -> String {
    let is = |version: &Value, what: &str| version.get(what).is_some_and(|value| value == true);
    if !is(version, "deprecated") {
        return String::new();
    }
    let own = text(version, "deprecationWarning");
    if !own.is_empty() {
        return own.to_owned();
    }
    let name = |version: &Value| format!("{group}/{} {kind}", text(version, "name"));
    let others = all.iter().filter(|other| is(other, "served") && !is(other, "deprecated"));
    let others: Vec<_> = others.map(|other| format!("; use {}", name(other))).collect();
    format!("{} is deprecated{}", name(version), others.concat())
}

fn texts(value: &Value, path: &str) -> Vec<String> {
    let Some(list) = object::at(value, path).and_then(Value::as_array) else { return Vec::new() };
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn columns(version: &Value) -> Vec<Column> {
    let Some(list) = version.get("additionalPrinterColumns").and_then(Value::as_array) else {
        return vec![Column {
            name: "Age".into(),
            kind: "date".into(),
            description: String::new(),
            json_path: ".metadata.creationTimestamp".into(),
            priority: 0,
        }];
    };
    list.iter()
        .map(|column| Column {
            name: text(column, "name").into(),
            kind: text(column, "type").into(),
            description: text(column, "description").into(),
            json_path: text(column, "jsonPath").into(),
            priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
        })
        .collect()
}

/// Why a resource cannot join the table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A definition lacks a field the server needs.
    #[error("the definition \"{definition}\" lacks \"{field}\"")]
    MissingField {
        /// `metadata.name` of the definition.
        definition: String,
        /// Path of the field.
        field: &'static str,
    },
    /// Two resources want the same URL.
    #[error("\"{api_version}\" already has a resource called \"{plural}\"")]
    Taken {
        /// Group and version.
        api_version: String,
        /// Plural name.
        plural: String,
    },
}

/// All resources of a server, by URL.
#[derive(Clone)]
pub struct ResourceTable {
    resources: Vec<Arc<Resource>>,
    routes: BTreeMap<(String, String, String), (ResourceId, usize)>,
    /// Until a state has them.
    definitions: Vec<Value>,
    /// Of its documents by their paths, once somebody has asked.
    hashes: OnceLock<Arc<BTreeMap<String, String>>>,
}

impl fmt::Debug for ResourceTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.resources.iter().map(|resource| resource.qualified())).finish()
    }
}

impl ResourceTable {
    /// The built-in kinds of Kubernetes that a pipeline meets.
    pub fn built_in() -> Self {
        let mut table = Self {
            resources: Vec::new(),
            routes: BTreeMap::new(),
            definitions: Vec::new(),
            hashes: OnceLock::new(),
        };
        for resource in crate::builtin::resources() {
            table.insert(resource);
        }
        table
    }

    /// Adds the resource a `CustomResourceDefinition` describes; the definition itself is served read-only.
    pub fn with_crd(self, crd: &Value) -> Result<Self, TableError> {
        self.with_crds([crd.clone()])
    }

    /// As [`ResourceTable::with_crd`] for each of these, which are large and so not copied.
    pub fn with_crds(mut self, crds: impl IntoIterator<Item = Value>) -> Result<Self, TableError> {
        for mut crd in crds {
            self.add(Resource::from_crd(&crd)?)?;
            schemas(&mut crd).for_each(|schema| drop(schema.take()));
            self.definitions.push(crd);
        }
        Ok(self)
    }

    /// Lets definitions be shown with the schemas of these resources, of which there is to be no second copy: they are the
    /// most of what an idle server holds. Resources added later are not among them.
    pub(crate) fn share_schemas(&mut self) {
        let Some((definitions, _)) = self.find("apiextensions.k8s.io", "v1", DEFINITIONS) else { return };
        let defined = self.resources.iter().filter(|resource| resource.custom).cloned().collect();
        Arc::make_mut(&mut self.resources[definitions.0]).defined = defined;
    }

    /// Converts the versions of this group's custom resources by `convert`.
    #[must_use]
    pub fn converting(mut self, group: &str, convert: Convert) -> Self {
        for resource in
            self.resources.iter_mut().filter(|resource| resource.custom && resource.group == group)
        {
            Arc::make_mut(resource).convert = convert;
        }
        self
    }

    /// Adds a resource; its URLs must be free.
    pub fn add(&mut self, resource: Resource) -> Result<ResourceId, TableError> {
        for version in &resource.versions {
            if self.find(&version.group, &version.name, &resource.plural).is_some() {
                return Err(TableError::Taken {
                    api_version: version.api_version(),
                    plural: resource.plural.clone(),
                });
            }
        }
        Ok(self.insert(resource))
    }

    fn insert(&mut self, resource: Resource) -> ResourceId {
        let id = ResourceId(self.resources.len());
        for (index, version) in resource.versions.iter().enumerate().filter(|(_, version)| version.served) {
            let key = (version.group.clone(), version.name.clone(), resource.plural.clone());
            self.routes.insert(key, (id, index));
        }
        self.resources.push(Arc::new(resource));
        self.hashes = OnceLock::new();
        id
    }

    /// The resource with this id; ids come from this table or a clone of it.
    pub fn get(&self, id: ResourceId) -> &Arc<Resource> {
        &self.resources[id.0]
    }

    /// The resource behind a URL, and which of its versions.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<(ResourceId, usize)> {
        self.routes.get(&(group.to_owned(), version.to_owned(), plural.to_owned())).copied()
    }

    /// Brings an object that was stored, perhaps by an earlier version of the program, to the version it is stored in
    /// now. What cannot be is named in the error.
    pub(crate) fn to_storage(&self, object: Value) -> Result<(ResourceId, Value), String> {
        let (api_version, kind) = (object::text(&object, "apiVersion"), object::text(&object, "kind"));
        let mut found = self.iter().filter(|(_, resource)| resource.kind == kind);
        let found = found.find_map(|(id, resource)| {
            let mut versions = resource.versions.iter();
            Some((id, versions.position(|version| version.api_version() == api_version)?))
        });
        let name = || {
            let place = [object::namespace(&object), object::name(&object)].join("/");
            format!("{api_version} {kind} \"{}\"", place.trim_start_matches('/'))
        };
        let Some((id, version)) = found else { return Err(name()) };
        let resource = self.get(id);
        let named = name();
        let stored = resource.to_version(object, version, resource.storage);
        Ok((id, stored.map_err(|why| format!("{named}: {why}"))?))
    }

    /// The hashes of the documents about these resources, by their paths.
    pub(crate) fn hashes(&self) -> &BTreeMap<String, String> {
        self.hashes.get_or_init(|| Arc::new(crate::openapi::hashes(self)))
    }

    /// All resources with their ids, in the order they were added.
    pub fn iter(&self) -> impl Iterator<Item = (ResourceId, &Arc<Resource>)> {
        self.resources.iter().enumerate().map(|(index, resource)| (ResourceId(index), resource))
    }

    /// The resource of this kind in this group, in any version.
    pub(crate) fn of_kind(&self, group: &str, kind: &str) -> Option<ResourceId> {
        let mut found = self.iter().filter(|(_, resource)| resource.kind == kind);
        let in_group = |resource: &Resource| resource.versions.iter().any(|version| version.group == group);
        found.find_map(|(id, resource)| in_group(resource).then_some(id))
    }

    /// Every served (group, version, resource, version index), sorted.
    pub(crate) fn routes(&self) -> impl Iterator<Item = (&str, &str, &Arc<Resource>, usize)> {
        self.routes.iter().map(|((group, version, _), (id, index))| {
            (group.as_str(), version.as_str(), self.get(*id), *index)
        })
    }

    /// The definitions the custom resources came from, for the one who serves them. Their schemas are with the resources,
    /// see [`ResourceTable::complete`]: they are large, and so there once.
    pub(crate) fn take_definitions(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.definitions)
    }

    pub(crate) fn by_behaviour(&self, behaviour: Behaviour) -> Option<ResourceId> {
        self.iter().find(|(_, resource)| resource.behaviour == behaviour).map(|(id, _)| id)
    }

    pub(crate) fn len(&self) -> usize {
        self.resources.len()
    }
}
