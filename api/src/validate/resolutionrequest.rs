//! ResolutionRequest (contract 2.6). Who makes them gives them names; upstream has no rule for those.

use super::{FieldError, FieldErrors, Validated};
use crate::config::Config;
use crate::{ResolutionRequest, labels};

impl Validated for ResolutionRequest {
    fn validate(&self, _config: &Config) -> FieldErrors {
        self.validate_metadata()
    }

    fn validate_metadata(&self) -> FieldErrors {
        let labels = self.metadata.labels.as_ref();
        if labels.and_then(|labels| labels.get(labels::RESOLVER_TYPE)).is_some_and(|name| !name.is_empty()) {
            return FieldErrors::default();
        }
        let path = format!("meta.labels.{}", labels::RESOLVER_TYPE);
        FieldError::missing(&[&path])
            .place("metadata.labels")
            .hint("it says which resolver is asked: bundles, cluster, git, http or hub")
            .into()
    }
}
