//! The two webhooks behind HTTP: `AdmissionReview` in, `AdmissionReview` out.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation as Verb};
use ropewalk_api::config::Config;
use serde_json::Value;

use crate::admit::{self, Denial, Operation, Request, Settings};

/// Gives the configuration in force; called once per request, so that a changed ConfigMap needs no restart.
pub type ConfigSource = Arc<dyn Fn() -> Arc<Config> + Send + Sync>;

/// The largest review read, in bytes: two objects of at most 3 MiB each, which is what an API server takes, and what
/// is around them.
const REVIEW_LIMIT: usize = 7 << 20;

#[derive(Clone)]
struct Webhooks {
    config: ConfigSource,
    settings: Arc<Settings>,
}

/// `POST /defaulting` and `POST /resource-validation` (contract 1.0), and the probes `GET /health` and
/// `GET /readiness`.
pub fn router(config: ConfigSource, settings: Settings) -> Router {
    Router::new()
        .route("/defaulting", post(defaulting))
        .route("/resource-validation", post(validation))
        .route("/health", get(|| async {}))
        .route("/readiness", get(|| async {}))
        .layer(DefaultBodyLimit::max(REVIEW_LIMIT))
        .with_state(Webhooks { config, settings: Arc::new(settings) })
}

type Review = Json<AdmissionReview<DynamicObject>>;

async fn defaulting(State(webhooks): State<Webhooks>, Json(review): Review) -> Review {
    respond(review, |request| {
        let mutated = admit::mutate(request, &(webhooks.config)(), &webhooks.settings)?;
        Ok(Answer { patch: json_patch::diff(request.object, &mutated.object), warnings: mutated.warnings })
    })
}

async fn validation(State(webhooks): State<Webhooks>, Json(review): Review) -> Review {
    respond(review, |request| admit::validate(request, &(webhooks.config)()).map(|()| Answer::default()))
}

/// Consent, with what goes along with it.
#[derive(Default)]
struct Answer {
    patch: json_patch::Patch,
    warnings: Vec<String>,
}

fn respond(
    review: AdmissionReview<DynamicObject>,
    decide: impl FnOnce(&Request<'_>) -> Result<Answer, Denial>,
) -> Review {
    let asked: AdmissionRequest<DynamicObject> = match review.try_into() {
        Ok(asked) => asked,
        Err(error) => return Json(AdmissionResponse::invalid(error).into_review()),
    };
    let response = AdmissionResponse::from(&asked);
    let operation = match asked.operation {
        Verb::Create => Operation::Create,
        Verb::Update => Operation::Update,
        Verb::Delete | Verb::Connect => Operation::Delete,
    };
    let to_json = |object: &Option<DynamicObject>| object.as_ref().map(serde_json::to_value).transpose();
    let (object, old_object) = match (to_json(&asked.object), to_json(&asked.old_object)) {
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
    Json(response.into_review())
}

#[cfg(test)]
mod tests;
