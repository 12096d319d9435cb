//! GET of one object and of a list, and how objects look to the client. Pure.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    handle::{Call, Reply, key_of},
    print::{self, Include},
    route::{Format, Target},
    selector::Selector,
    state::{ObjectKey, State},
    status::{Failure, FieldError, Result},
    table::Resource,
};

/// The object a request names.
pub(crate) fn fetch(state: &State, target: &Target) -> Result<Arc<Value>> {
    let key = key_of(target);
    state
        .get(target.id, &key)
        .cloned()
        .ok_or_else(|| Failure::not_found(state.table().get(target.id), &key.name))
}

/// A stored object in the version asked for; not copied where it is stored like that.
pub(crate) fn in_version<'a>(
    resource: &Resource,
    version: usize,
    stored: &'a Value,
) -> Result<Cow<'a, Value>> {
    if !resource.defined.is_empty() {
        let mut definition = stored.clone();
        resource.complete(&mut definition);
        return Ok(Cow::Owned(definition));
    }
    if version == resource.storage {
        return Ok(Cow::Borrowed(stored));
    }
    let converted = resource.to_version(stored.clone(), resource.storage, version);
    converted.map(Cow::Owned).map_err(|why| Failure::internal(format!("conversion failed: {why}")))
}

/// A stored object as the client wants to see it.
pub(crate) fn present<'a>(
    resource: &Resource,
    version: usize,
    format: Format,
    stored: &'a Value,
    call: &Call<'_>,
) -> Result<Cow<'a, Value>> {
    let object = in_version(resource, version, stored)?;
    Ok(match format {
        Format::Json => object,
        Format::Metadata => Cow::Owned(partial(&object)),
        Format::Table => {
            let (include, one) = (Include::of(&call.query)?, std::slice::from_ref(&object));
            Cow::Owned(print::table(resource, version, one, include, call.context.now))
        }
    })
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({
        "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// GET of one object, or of its status.
pub(crate) fn get(state: &State, call: &Call<'_>, target: &Target) -> Result<Reply> {
    if let Some(wanted) = call.query.version()?.filter(|wanted| *wanted > state.version()) {
        return Err(Failure::version_too_large(wanted, state.version()));
    }
    let stored = fetch(state, target)?;
    let resource = state.table().get(target.id);
    present(resource, target.version, call.format()?, &stored, call).map(|object| Reply::json(&object))
}

/// Where the next page of a list begins, and which version the first page showed.
struct Page {
    version: u64,
    after: ObjectKey,
}

impl Page {
    fn parse(token: &str) -> Option<Self> {
        let value: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let text = |key: &str| value.get(key)?.as_str();
        let after = ObjectKey::new(text("namespace")?, text("name")?);
        Some(Self { version: value.get("rv")?.as_u64()?, after })
    }

    fn token(&self) -> String {
        let value = json!({ "rv": self.version, "namespace": self.after.namespace, "name": self.after.name });
        URL_SAFE_NO_PAD.encode(value.to_string())
    }
}

pub(crate) fn selector(state: &State, call: &Call<'_>, target: &Target) -> Result<Selector> {
    let resource = state.table().get(target.id);
    Selector::parse(resource, call.query.text("labelSelector"), call.query.text("fieldSelector"))
}

/// GET of a collection: always the newest state, whatever resourceVersion is asked for.
pub(crate) fn list(state: &State, call: &Call<'_>, target: &Target) -> Result<Reply> {
    let resource = state.table().get(target.id);
    let format = call.format()?;
    check_options(call)?;
    let selector = selector(state, call, target)?;
    let page = match call.query.text("continue") {
        "" => None,
        token => Some(Page::parse(token).ok_or_else(|| Failure::bad_request("continue key is not valid"))?),
    };
    let limit = call.query.number("limit")?.filter(|limit| *limit > 0);
    match &page {
        Some(page) if state.changes_since(page.version).is_none() => return Ok(expired(state, page)),
        Some(_) => {}
        None => check_version(state, call, limit.is_some())?,
    }
    // Later pages show the newest state under the first page's resourceVersion: a watch from there repeats
    // whatever changed in between, so that nothing is missed although no old state is kept.
    let version = page.as_ref().map_or(state.version(), |page| page.version);
    let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut found = state
        .objects(target.id, target.namespace.as_deref())
        .filter(|(key, _)| page.as_ref().is_none_or(|page| **key > page.after))
        .filter(|(_, object)| selector.matches(object))
        .peekable();
    let mut items: Vec<Cow<'_, Value>> = Vec::new();
    let mut last = None;
    while items.len() < limit
        && let Some((key, object)) = found.next()
    {
        items.push(in_version(resource, target.version, object)?);
        last = Some(key);
    }
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some(last) = last
        && found.peek().is_some()
    {
        metadata["continue"] = Value::from(Page { version, after: last.clone() }.token());
        if selector.is_empty() {
            metadata["remainingItemCount"] = Value::from(found.count());
        }
    }
    let body = match format {
        Format::Table => {
            let include = Include::of(&call.query)?;
            let mut table = print::table(resource, target.version, &items, include, call.context.now);
            table["metadata"] = metadata;
            table.to_string().into_bytes()
        }
        Format::Metadata => {
            let items: Vec<_> = items.iter().map(|item| Cow::Owned(partial(item))).collect();
            list_body("meta.k8s.io/v1", "PartialObjectMetadataList", &metadata, &items)
        }
        Format::Json => {
            let api_version = resource.versions[target.version].api_version();
            list_body(&api_version, &resource.list_kind, &metadata, &items)
        }
    };
    Ok(Reply::Json { code: 200, body, warnings: Vec::new() })
}

/// Options that make no sense together, with the messages of k8s.io/apimachinery.
fn check_options(call: &Call<'_>) -> Result<()> {
    let text = |key: &str| call.query.text(key);
    let (matching, version) = (text("resourceVersionMatch"), text("resourceVersion"));
    let forbidden = |field: &str, why: &str| Some(FieldError::forbidden(field, why));
    let matching_is = |why: &str| forbidden("resourceVersionMatch", why);
    let fault = if call.query.get("sendInitialEvents").is_some() {
        forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list")
    } else if matching.is_empty() {
        None
    } else if version.is_empty() {
        matching_is("resourceVersionMatch is forbidden unless resourceVersion is provided")
    } else if !text("continue").is_empty() {
        matching_is("resourceVersionMatch is forbidden when continue is provided")
    } else if !["Exact", "NotOlderThan"].contains(&matching) {
        let supported = ["Exact", "NotOlderThan", ""].map(Value::from);
        Some(FieldError::not_supported("resourceVersionMatch", &Value::from(matching), &supported))
    } else if matching == "Exact" && version == "0" {
        matching_is("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
    } else {
        None
    };
    if let Some(fault) = fault {
        return Err(Failure::invalid_options("ListOptions", &[fault]));
    }
    if !text("continue").is_empty() && !["", "0"].contains(&version) {
        return Err(Failure::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(())
}

/// What is said of a page whose changes since the first one are forgotten: that, and how to go on without them, for whoever
/// would rather have a list that may not be all of one moment.
fn expired(state: &State, page: &Page) -> Reply {
    let failure = Failure::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let rest = Page { version: state.version(), after: page.after.clone() };
    let mut status = failure.to_value();
    status["metadata"]["continue"] = Value::from(rest.token());
    Reply::Json { code: failure.code, body: status.to_string().into_bytes(), warnings: Vec::new() }
}

/// The version that is asked for against the newest, which is all there is. The first page of several is for one version
/// exactly, unless it says otherwise.
fn check_version(state: &State, call: &Call<'_>, is_page: bool) -> Result<()> {
    let exactly = match call.query.text("resourceVersionMatch") {
        "" => is_page,
        matching => matching == "Exact",
    };
    match call.query.version()?.filter(|wanted| *wanted > 0) {
        Some(wanted) if wanted > state.version() => Err(Failure::version_too_large(wanted, state.version())),
        // Old states are not kept.
        Some(wanted) if exactly && wanted != state.version() => {
            Err(Failure::expired(format!("The resourceVersion for the provided list is too old: {wanted}")))
        }
        _ => Ok(()),
    }
}

/// A list object, written without copying its items.
pub(crate) fn list_body(
    api_version: &str,
    kind: &str,
    metadata: &Value,
    items: &[Cow<'_, Value>],
) -> Vec<u8> {
    let mut body = format!(
        "{{\"apiVersion\":{},\"kind\":{},\"metadata\":{metadata},\"items\":[",
        Value::from(api_version),
        Value::from(kind)
    );
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        body.push_str(&item.to_string());
    }
    body.push_str("]}");
    body.into_bytes()
}
