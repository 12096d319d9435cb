//! The webhooks behind HTTP: a review in, a review out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request as HttpRequest, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use futures::StreamExt;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation as Verb};
use kube::core::conversion::ConversionReview;
use kube::core::{DynamicObject, TypeMeta};
use ropewalk_api::config::Config;
use ropewalk_cluster::config::ConfigMapNames;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::admit::{self, DEFAULTING_WEBHOOK, Denial, Operation, Request, Settings, VALIDATING_WEBHOOK};
use crate::config_maps::{CONFIG_WEBHOOK, validate_config_map};
use crate::convert;
use crate::metrics::Metrics;

/// Gives the configuration in force; called once per request, so that a changed ConfigMap needs no restart.
pub type ConfigSource = Arc<dyn Fn() -> Arc<Config> + Send + Sync>;

/// The largest review read, in bytes: two objects of at most 3 MiB each, which is what an API server takes, and what
/// is around them.
const REVIEW_LIMIT: usize = 7 << 20;

/// How much of a review any client may send, in bytes. Nearly every review is smaller; as many of this size as there may
/// be connections are 128 MiB.
const SMALL: usize = 256 << 10;

/// How many larger reviews are read and answered at once: not more than 340 MB. Whoever sends them slowly keeps out other
/// large ones only.
const LARGE: usize = 48;

/// How long the body may take: API servers have it whole when they begin.
const BODY: Duration = Duration::from_secs(3);

/// How long the answer may take then: API servers give up after ten seconds, as we install our webhooks.
const ANSWER: Duration = Duration::from_secs(7);

#[derive(Clone)]
struct Webhooks {
    config: ConfigSource,
    settings: Arc<Settings>,
    config_maps: Arc<ConfigMapNames>,
    metrics: Metrics,
    /// For large reviews.
    slots: Arc<Semaphore>,
}

/// `POST /defaulting`, `POST /resource-validation`, `POST /config-validation` and `POST /resource-conversion`
/// (contract 1.0).
pub fn router(config: ConfigSource, settings: Settings, metrics: Metrics) -> Router {
    let slots = Arc::new(Semaphore::new(LARGE));
    let config_maps = Arc::new(ConfigMapNames::from_environment());
    let webhooks = Webhooks { config, settings: Arc::new(settings), config_maps, metrics, slots };
    Router::new()
        .route("/defaulting", post(defaulting))
        .route("/resource-validation", post(validation))
        .route("/config-validation", post(config_validation))
        .route("/resource-conversion", post(conversion))
        .layer(DefaultBodyLimit::max(REVIEW_LIMIT))
        .layer(middleware::from_fn_with_state(webhooks.clone(), bounded))
        .with_state(webhooks)
}

/// Turns away what would be too much at once, with a hint that makes API servers try again by themselves.
async fn bounded(State(webhooks): State<Webhooks>, request: HttpRequest, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (body, _slot) = match tokio::time::timeout(BODY, read(body, &webhooks)).await {
        Ok(Ok(read)) => read,
        Ok(Err(refusal)) => return refusal,
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
    };
    let request = HttpRequest::from_parts(parts, Body::from(body));
    match tokio::time::timeout(ANSWER, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}

/// The body, with the place that a large one takes until it is answered.
async fn read(body: Body, webhooks: &Webhooks) -> Result<(Vec<u8>, Option<SemaphorePermit<'_>>), Response> {
    let (mut read, mut slot) = (Vec::new(), None);
    let mut data = body.into_data_stream();
    while let Some(piece) = data.next().await {
        let piece = piece.map_err(|_| StatusCode::BAD_REQUEST.into_response())?;
        let size = read.len() + piece.len();
        if size > REVIEW_LIMIT {
            return Err(StatusCode::PAYLOAD_TOO_LARGE.into_response());
        }
        if size > SMALL && slot.is_none() {
            slot = Some(webhooks.slots.try_acquire().map_err(|_| {
                webhooks.metrics.shed();
                (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "1")]).into_response()
            })?);
        }
        read.extend_from_slice(&piece);
    }
    Ok((read, slot))
}

type Review = Json<AdmissionReview<DynamicObject>>;

async fn defaulting(State(webhooks): State<Webhooks>, Json(review): Review) -> Review {
    respond(review, DEFAULTING_WEBHOOK, &webhooks.metrics, |request| {
        let mutated = admit::mutate(request, &(webhooks.config)(), &webhooks.settings)?;
        Ok(Answer { patch: json_patch::diff(request.object, &mutated.object), warnings: mutated.warnings })
    })
}

async fn validation(State(webhooks): State<Webhooks>, Json(review): Review) -> Review {
    respond(review, VALIDATING_WEBHOOK, &webhooks.metrics, |request| {
        admit::validate(request, &(webhooks.config)()).map(|()| Answer::default())
    })
}

async fn config_validation(State(webhooks): State<Webhooks>, Json(review): Review) -> Review {
    respond(review, CONFIG_WEBHOOK, &webhooks.metrics, |request| {
        validate_config_map(request, &webhooks.config_maps).map(|()| Answer::default())
    })
}

async fn conversion(Json(review): Json<ConversionReview>) -> Json<ConversionReview> {
    Json(convert::answer(review))
}

/// Consent, with what goes along with it.
#[derive(Default)]
struct Answer {
    patch: json_patch::Patch,
    warnings: Vec<String>,
}

fn respond(
    review: AdmissionReview<DynamicObject>,
    webhook: &str,
    metrics: &Metrics,
    decide: impl FnOnce(&Request<'_>) -> Result<Answer, Denial>,
) -> Review {
    #[expect(clippy::disallowed_methods, reason = "measures, and decides nothing by it")]
    let start = Instant::now();
    let mut asked: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(asked) => asked,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let response = AdmissionResponse::from(&asked);
    let operation = match asked.operation {
        Verb::Create => Operation::Create,
        Verb::Update => Operation::Update,
        Verb::Delete | Verb::Connect => Operation::Delete,
    };
    let to_json = |object: Option<DynamicObject>| object.map(into_json).transpose();
    let (object, old_object) = match (to_json(asked.object.take()), to_json(asked.old_object.take())) {
        (Ok(object), Ok(old_object)) => (object.unwrap_or(Value::Null), old_object),
        (Err(error), _) | (_, Err(error)) => return Json(response.deny(error).into_review()),
    };
    let request = Request {
        operation,
        group: &asked.kind.group,
        kind: &asked.kind.kind,
        subresource: asked.sub_resource.as_deref(),
        object: &object,
        old_object: old_object.as_ref(),
    };
    let response = match decide(&request) {
        Ok(Answer { patch, warnings }) => {
            let mut response = response;
            response.warnings = (!warnings.is_empty()).then_some(warnings);
            if patch.is_empty() {
                response
            } else {
                match response.clone().with_patch(patch) {
                    Ok(patched) => patched,
                    Err(error) => response.deny(error),
                }
            }
        }
        Err(denial) => {
            let mut denied = response.deny(denial.reason);
            denied.result.code = 400;
            "BadRequest".clone_into(&mut denied.result.reason);
            denied
        }
    };
    metrics.answered(webhook, &request, response.allowed, start.elapsed());
    Json(response.into_review())
}

/// An object as JSON, without a second copy of what may be large.
fn into_json(object: DynamicObject) -> serde_json::Result<Value> {
    let DynamicObject { types, metadata, data: mut json } = object;
    if let Some(TypeMeta { api_version, kind }) = types {
        json["apiVersion"] = api_version.into();
        json["kind"] = kind.into();
    }
    json["metadata"] = serde_json::to_value(metadata)?;
    Ok(json)
}

#[cfg(test)]
mod tests;
