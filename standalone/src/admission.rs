//! The webhooks at their point of the request path, as function calls instead of HTTP.

use std::sync::Arc;

use ropewalk_api::config::Config;
use ropewalk_apiserver::{Admission, AdmissionDecision, AdmissionRequest, Operation};
use ropewalk_core::settings::Settings;
use ropewalk_webhook as webhook;

/// Defaulting and validation of our kinds.
pub struct Webhooks {
    config: Arc<Config>,
    settings: webhook::Settings,
}

impl Webhooks {
    /// The webhooks under this configuration; of the settings, the release is written on new runs.
    pub fn new(config: Arc<Config>, settings: &Settings) -> Self {
        Self { config, settings: webhook::Settings { release: settings.release.clone() } }
    }
}

impl Admission for Webhooks {
    fn admit(&self, request: &AdmissionRequest<'_>) -> AdmissionDecision {
        let request = webhook::Request {
            operation: match request.operation {
                Operation::Create => webhook::Operation::Create,
                Operation::Update => webhook::Operation::Update,
                Operation::Delete => webhook::Operation::Delete,
            },
            group: request.group,
            kind: request.kind,
            subresource: request.subresource,
            object: request.object,
            old_object: request.old_object,
        };
        match webhook::admit(&request, &self.config, &self.settings) {
            webhook::Decision::Allow { object, warnings } => {
                AdmissionDecision::Allow { object: Some(object), warnings }
            }
            webhook::Decision::Deny { code, message } => AdmissionDecision::Deny { code, message },
        }
    }
}

#[cfg(test)]
mod tests;
