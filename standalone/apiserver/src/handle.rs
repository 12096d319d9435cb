//! The front door: one request in, one answer and its changes out. Pure.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use jiff::Timestamp;
use serde_json::Value;

use crate::{
    access::{self, Attributes, Caller, NoTokens, User},
    admission::{self, Admission},
    body::Body,
    delete,
    discovery::{self, aggregated},
    exec,
    exec::ExecRequest,
    gc, health, log,
    log::LogRequest,
    openapi, options, read,
    route::{self, Format, Query, Route, Target},
    scheduler,
    state::{Delta, State},
    status::{Failure, Result},
    table::{Behaviour, Resource},
    watch::{self, WatchPlan},
    write,
};

/// Largest body accepted, in bytes: kube-apiserver's limit, twice what etcd would store.
pub const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// What a request is handled with besides the state.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The time it is; becomes creation and deletion timestamps.
    pub now: Timestamp,
    /// Judges writes.
    pub admission: &'a dyn Admission,
}

/// The answer to a request.
#[derive(Debug)]
pub enum Outcome {
    /// A whole response.
    Response(Response<Vec<u8>>),
    /// Status 200, and a stream of watch events as the plan says.
    Watch(Box<WatchPlan>),
    /// Status 200, and the log of a container as it is written.
    Log(LogRequest),
    /// A command to run in a container, over a WebSocket.
    Exec(ExecRequest),
    /// The output of a container as it is written from now on, over a WebSocket.
    Attach(LogRequest),
}

/// The answer to a request and the changes it made.
#[derive(Debug)]
pub struct Handled {
    /// The answer.
    pub outcome: Outcome,
    /// Changes in the order they happened: what was asked for, and what garbage collection did in its wake. A
    /// watch planned by an earlier request must be shown each of them.
    pub deltas: Vec<Arc<Delta>>,
}

/// A request as its handlers see it.
pub(crate) struct Call<'a> {
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) query: Query,
    pub(crate) dry_run: bool,
    pub(crate) context: &'a Context<'a>,
    pub(crate) caller: &'a Caller<'a>,
}

/// An answer before it is put on the wire.
pub(crate) enum Reply {
    Json { code: u16, body: Vec<u8>, warnings: Vec<String> },
    Text(&'static str),
    Whole(Response<Vec<u8>>),
    Watch(Box<WatchPlan>),
    Log(LogRequest),
    Exec(ExecRequest),
    Attach(LogRequest),
}

impl Reply {
    pub(crate) fn json(value: &Value) -> Self {
        Self::Json { code: 200, body: value.to_string().into_bytes(), warnings: Vec::new() }
    }
}

/// Handles one request of the server's own process, which may do everything. A refused one changes nothing.
pub fn handle<B: AsRef<[u8]>>(state: &mut State, request: &Request<B>, context: &Context<'_>) -> Handled {
    handle_for(
        state,
        request,
        Body::of(request),
        context,
        &Caller { user: &User::server(), tokens: &NoTokens },
    )
}

/// Handles one request of somebody, who is refused what they may not do. Its body has been read.
pub fn handle_for<B>(
    state: &mut State,
    request: &Request<B>,
    body: Body,
    context: &Context<'_>,
    caller: &Caller<'_>,
) -> Handled {
    let reply = respond(state, request, body, context, caller);
    let outcome = match reply {
        Ok(Reply::Json { code, body, warnings }) => Outcome::Response(json(code, body, &warnings)),
        Ok(Reply::Text(text)) => {
            let mut response = Response::new(text.as_bytes().to_vec());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            Outcome::Response(response)
        }
        Ok(Reply::Whole(response)) => Outcome::Response(response),
        Ok(Reply::Watch(plan)) => Outcome::Watch(plan),
        Ok(Reply::Log(request)) => Outcome::Log(request),
        Ok(Reply::Exec(request)) => Outcome::Exec(request),
        Ok(Reply::Attach(request)) => Outcome::Attach(request),
        Err(failure) => {
            Outcome::Response(json(failure.code, failure.to_value().to_string().into_bytes(), &[]))
        }
    };
    Handled { outcome, deltas: state.take_fresh() }
}

fn json(code: u16, body: Vec<u8>, warnings: &[String]) -> Response<Vec<u8>> {
    let mut response = Response::new(body);
    if let Ok(code) = http::StatusCode::from_u16(code) {
        *response.status_mut() = code;
    }
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    for warning in warnings {
        let quoted = format!("299 - {warning:?}");
        // Text that cannot stand in a header is left out: the write went well, and that must be told.
        if let Ok(value) = HeaderValue::from_str(&quoted) {
            headers.append(header::WARNING, value);
        }
    }
    response
}

fn respond<B>(
    state: &mut State,
    request: &Request<B>,
    body: Body,
    context: &Context<'_>,
    caller: &Caller<'_>,
) -> Result<Reply> {
    let method = request.method();
    route::check_method(method)?;
    if body.is_too_large() {
        return Err(Failure::too_large(BODY_LIMIT));
    }
    let route = Route::parse(state, request.uri().path())?;
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let headers = request.headers();
    let user = match access::impersonate(state, caller.user, headers)? {
        Some(other) => Cow::Owned(other),
        None => Cow::Borrowed(caller.user),
    };
    let caller = &Caller { user: &user, tokens: caller.tokens };
    access::check(state, &user, &Attributes::of(state, method, &route, request.uri().path(), &query))?;
    let target = match route {
        Route::Object(target) => target,
        other => return about_server(state, &other, request, &query, context.now),
    };
    options::check(method, &query)?;
    let dry_run = options::is_dry_run(method, &query, &target, &body)?;
    let call = Call { method, headers, query, dry_run, context, caller };
    if dry_run {
        // The whole path runs, on a copy that is thrown away. What is made up there is not made up again.
        let mut rehearsal = state.rehearsal();
        let reply = act(&mut rehearsal, &call, &target, body);
        state.names = rehearsal.names;
        return reply.map(|reply| warned(reply, state, &target));
    }
    let reply = warned(act(state, &call, &target, body)?, state, &target);
    gc::settle(state, context.now);
    access::aggregate(state);
    scheduler::settle(state, context.now);
    admission::settle(state);
    state.expire_events(context.now);
    Ok(reply)
}

/// The answer with what is to be said about the version that was used.
fn warned(mut reply: Reply, state: &State, target: &Target) -> Reply {
    let deprecation = &state.resource(target.id).versions[target.version].deprecation;
    if let Reply::Json { warnings, .. } = &mut reply
        && !deprecation.is_empty()
    {
        warnings.push(deprecation.clone());
    }
    reply
}

fn about_server<B>(
    state: &State,
    route: &Route,
    request: &Request<B>,
    query: &Query,
    now: Timestamp,
) -> Result<Reply> {
    let method = request.method();
    if method != Method::GET && method != Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    if let Route::CoreVersions | Route::Groups = route
        && aggregated::is_wanted(request.headers())
    {
        let core = *route == Route::CoreVersions;
        return Ok(Reply::Whole(aggregated::answer(state.table(), core, request.headers())));
    }
    let value = match route {
        Route::Health(endpoint) => return Ok(Reply::Text(health::answer(*endpoint, query))),
        Route::Version => discovery::version(),
        Route::CoreVersions => discovery::core_versions(),
        Route::Groups => discovery::groups(state.table()),
        Route::Group(group) => discovery::group(state.table(), group).ok_or_else(Failure::unknown_path)?,
        Route::Resources(group, version) => {
            discovery::resources(state.table(), group, version).ok_or_else(Failure::unknown_path)?
        }
        Route::OpenApi => openapi::index(state.table()),
        Route::OpenApiV2 => return openapi::v2::answer(state.table(), request.headers()).map(Reply::Whole),
        Route::OpenApiOf(group, version) => {
            let answer = openapi::answer(state.table(), (group, version), query, request.headers(), now);
            return answer.map(Reply::Whole).ok_or_else(Failure::unknown_path);
        }
        Route::Object(_) => return Err(Failure::unknown_path()),
    };
    // As JSON whatever form is asked for (kubectl would like protobuf): clients read the content type.
    Ok(Reply::json(&value))
}

fn act(state: &mut State, call: &Call<'_>, target: &Target, body: Body) -> Result<Reply> {
    let resource = state.resource(target.id);
    if let Some(subresource) = target.subresource.as_deref() {
        return act_on_subresource(state, call, target, body, &resource, subresource);
    }
    if resource.behaviour == Behaviour::Review {
        return access::review(state, call, target, body);
    }
    let writable = resource.behaviour != Behaviour::ReadOnly;
    match (call.method.as_str(), &target.name) {
        ("GET" | "HEAD", Some(_)) => read::get(state, call, target),
        ("GET" | "HEAD", None) if call.query.flag("watch") => watch::plan(state, call, target),
        ("GET" | "HEAD", None) => read::list(state, call, target),
        ("POST", None) if writable => write::create(state, call, target, body),
        ("PUT" | "PATCH", Some(_)) if writable => write::update(state, call, target, body),
        ("DELETE", Some(_)) if writable => delete::one(state, call, target, body),
        ("DELETE", None) if writable => delete::collection(state, call, target, body),
        _ => Err(Failure::method_not_allowed()),
    }
}

fn act_on_subresource(
    state: &mut State,
    call: &Call<'_>,
    target: &Target,
    body: Body,
    resource: &Resource,
    subresource: &str,
) -> Result<Reply> {
    let has_it = match subresource {
        "status" => resource.versions[target.version].status,
        "token" => resource.behaviour == Behaviour::ServiceAccount,
        "log" | "exec" | "attach" | "binding" | "eviction" => resource.behaviour == Behaviour::Pod,
        _ => false,
    };
    if !has_it {
        let name = target.name.as_deref().unwrap_or_default();
        return Err(match not_served(subresource).filter(|_| resource.behaviour == Behaviour::Pod) {
            _ if resource.custom => Failure::not_found(resource, name),
            Some(instead) => Failure::not_served(&format!("pods/{subresource}"), instead),
            None => Failure::unknown_path(),
        });
    }
    let writable = resource.behaviour != Behaviour::ReadOnly;
    match (call.method.as_str(), subresource) {
        ("GET" | "HEAD", "status") => read::get(state, call, target),
        ("PUT" | "PATCH", "status") if writable => write::update(state, call, target, body),
        ("GET" | "HEAD", "log") => {
            let pod = read::fetch(state, target)?;
            Ok(log::request(&pod, &call.query)?.map_or(Reply::Text(""), Reply::Log))
        }
        ("GET" | "POST", "exec" | "attach") => {
            // A WebSocket can only begin with GET; whoever may look at a pod's commands may not run any by that.
            access::check_create(state, call.caller.user, target)?;
            let pod = read::fetch(state, target)?;
            match subresource {
                "exec" => exec::request(&pod, &call.query).map(Reply::Exec),
                _ => exec::attach(&pod, &call.query).map(Reply::Attach),
            }
        }
        ("POST", "token") => access::request_token(state, call, target, body),
        ("POST", "binding") => write::bind(state, call, target, body),
        ("POST", "eviction") => delete::evict(state, call, target, body),
        _ => Err(Failure::method_not_allowed()),
    }
}

/// What to do in place of asking for a subresource that pods have on a cluster and not here.
fn not_served(subresource: &str) -> Option<&'static str> {
    Some(match subresource {
        "portforward" | "proxy" => "connect to the address in the pod's status.podIP from this machine",
        "ephemeralcontainers" => "run a command in one of the pod's containers with kubectl exec",
        "resize" => "make the pod again with the resources that it needs",
        _ => return None,
    })
}

impl Call<'_> {
    pub(crate) fn format(&self) -> Result<Format> {
        Format::negotiate(self.headers)
    }
}

/// The namespace and name a request is about.
pub(crate) fn key_of(target: &Target) -> crate::state::ObjectKey {
    crate::state::ObjectKey {
        namespace: target.namespace.clone().unwrap_or_default(),
        name: target.name.clone().unwrap_or_default(),
    }
}
