//! Pieces of a snapshot that both kinds of run share.

use std::sync::Arc;

use crate::outcome;
use crate::plan::{Resource, Target};

/// A look-up of an object that a run refers to.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup<T> {
    /// Nobody needed it.
    NotNeeded,
    /// It exists.
    Found(Arc<T>),
    /// The API server says that it does not exist.
    Missing,
}

impl<T> Lookup<T> {
    /// The object, if it was found.
    pub fn found(&self) -> Option<&T> {
        match self {
            Self::Found(object) => Some(object),
            Self::NotNeeded | Self::Missing => None,
        }
    }
}

/// A write the API server refused for good in an earlier round of the same reconcile. The next plan turns it into a
/// condition; it is never retried blindly.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What was to be written.
    pub target: Target,
    /// It was the status of the run itself, the last write of a plan.
    pub of_status: bool,
    /// The HTTP status.
    pub code: u16,
    /// The `reason` of the API's Status object.
    pub reason: String,
    /// The `message` of the API's Status object.
    pub message: String,
}

impl Refusal {
    /// The refusal of a status that is too large to be stored: no other status can be, but a smaller one.
    pub fn of_large_status(refusals: &[Self]) -> Option<&Self> {
        refusals
            .iter()
            .find(|refusal| refusal.of_status && outcome::is_too_large(refusal.code, &refusal.message))
    }

    /// The first refusal that concerns this object.
    pub fn of<'a>(refusals: &'a [Self], resource: Resource, name: &str) -> Option<&'a Self> {
        let concerns = |refusal: &&Self| {
            !refusal.of_status && refusal.target.resource == resource && refusal.target.name == name
        };
        refusals.iter().find(concerns)
    }
}
