//! What may change in a run that exists (contract 12.1). The old object decides whether the run is done.

use super::{FieldError, FieldErrors};

/// A change of a run's spec. `same(true)` compares the specs apart from the fields that ask a run to stop,
/// `same(false)` compares them whole; both hold specs equal that differ only by today's defaults.
pub(super) struct Change<'a, F: Fn(bool) -> bool> {
    /// Before and after; compared apart from the rest.
    pub(super) managed_by: (Option<&'a str>, Option<&'a str>),
    pub(super) same: F,
}

impl<F: Fn(bool) -> bool> Change<'_, F> {
    /// Paths from the spec on. `done` is the old object's state, `free` names what may change while it is not.
    pub(super) fn validate(&self, done: bool, kind: &str, free: &str) -> FieldErrors {
        let mut errors = FieldErrors::default();
        if self.managed_by.0 != self.managed_by.1 {
            // Upstream reports this path below a second `spec`.
            errors.push(FieldError::invalid("managedBy is immutable", "spec.managedBy"));
        }
        if !(self.same)(!done) {
            let text = if done {
                format!("Once the {kind} is complete, no updates are allowed")
            } else {
                format!("Once the {kind} has started, only {free} updates are allowed")
            };
            errors.push(FieldError::invalid(text, ""));
        }
        errors
    }
}
