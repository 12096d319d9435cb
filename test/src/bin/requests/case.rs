//! What a case is made of: requests in order, in a namespace of their own. No IO.
//!
//! Paths, headers and bodies may say `<ns>`, the namespace, and `<STEP:/POINTER>`, a value of an earlier answer.

use http::{HeaderName, Method, header};
use serde_json::Value;

/// The name of the object that ends a watch: whoever opens one makes such an object last.
pub(crate) const LAST: &str = "last";

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, &'static str)>,
    pub(crate) body: String,
}

impl Call {
    fn new(method: Method, path: impl Into<String>, content_type: &'static str, body: String) -> Self {
        let mut call = Self { method, path: path.into(), headers: Vec::new(), body };
        // Clients name themselves; managedFields tell by whom a field was written.
        call = call.header(header::USER_AGENT, "requests/1");
        if call.body.is_empty() { call } else { call.header(header::CONTENT_TYPE, content_type) }
    }

    /// With one more header, or another value of one.
    pub(crate) fn header(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.retain(|(known, _)| *known != name);
        self.headers.push((name, value));
        self
    }

    /// Asks for another form of the answer.
    pub(crate) fn accept(self, form: &'static str) -> Self {
        self.header(header::ACCEPT, form)
    }

    /// With a body that is no JSON, or claims to be something else.
    pub(crate) fn body(mut self, content_type: &'static str, body: impl Into<String>) -> Self {
        self.body = body.into();
        self.header(header::CONTENT_TYPE, content_type)
    }
}

const JSON: &str = "application/json";

pub(crate) fn get(path: impl Into<String>) -> Call {
    Call::new(Method::GET, path, JSON, String::new())
}

pub(crate) fn post(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::POST, path, JSON, body.to_string())
}

pub(crate) fn put(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PUT, path, JSON, body.to_string())
}

pub(crate) fn delete(path: impl Into<String>) -> Call {
    Call::new(Method::DELETE, path, JSON, String::new())
}

/// A deletion with `DeleteOptions`.
pub(crate) fn delete_with(path: impl Into<String>, options: &Value) -> Call {
    Call::new(Method::DELETE, path, JSON, options.to_string())
}

pub(crate) fn json_patch(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PATCH, path, "application/json-patch+json", body.to_string())
}

pub(crate) fn merge_patch(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PATCH, path, "application/merge-patch+json", body.to_string())
}

pub(crate) fn strategic_patch(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PATCH, path, "application/strategic-merge-patch+json", body.to_string())
}

/// A configuration, applied on the server's side.
pub(crate) fn apply(path: impl Into<String>, body: &Value) -> Call {
    Call::new(Method::PATCH, path, "application/apply-patch+yaml", body.to_string())
}

/// What one step does.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Sends a request and waits for the whole answer.
    Send(Call),
    /// Opens a watch and goes on.
    Open(Call),
    /// Reads the events of the watch that this step opened: up to that of [`LAST`], or to the watch's end.
    Collect(String),
    /// Waits until a GET of this path has this status.
    Until(String, u16),
    /// Waits until a cluster's garbage collector knows whose every ConfigMap of the namespace is. It hears of them by
    /// watching, and what it has not heard of when its owner is deleted is not left behind but collected.
    Collector,
}

/// One step of a case; its name is unique in there.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) action: Action,
}

/// Steps that build on each other.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), steps: Vec::new() }
    }

    fn step(mut self, name: impl Into<String>, action: Action) -> Self {
        self.steps.push(Step { name: name.into(), action });
        self
    }

    pub(crate) fn send(self, name: impl Into<String>, call: Call) -> Self {
        self.step(name, Action::Send(call))
    }

    /// Only where it makes sense.
    pub(crate) fn send_if(self, sense: bool, name: &str, call: Call) -> Self {
        if sense { self.send(name, call) } else { self }
    }

    pub(crate) fn open(self, name: impl Into<String>, call: Call) -> Self {
        self.step(name, Action::Open(call))
    }

    /// The events of a watch opened as `name`; the step is called `NAME events`.
    pub(crate) fn collect(self, name: &str) -> Self {
        self.step(format!("{name} events"), Action::Collect(name.to_owned()))
    }

    pub(crate) fn until(self, name: impl Into<String>, path: impl Into<String>, code: u16) -> Self {
        self.step(name, Action::Until(path.into(), code))
    }

    pub(crate) fn collector(self) -> Self {
        self.step("collector", Action::Collector)
    }
}
