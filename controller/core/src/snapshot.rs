//! Pieces of a snapshot that both kinds of run share.

use std::sync::Arc;

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
    /// The HTTP status.
    pub code: u16,
    /// The `reason` of the API's Status object.
    pub reason: String,
    /// The `message` of the API's Status object.
    pub message: String,
}

impl Refusal {
    /// The first refusal that concerns this object.
    pub fn of<'a>(refusals: &'a [Self], resource: Resource, name: &str) -> Option<&'a Self> {
        refusals.iter().find(|refusal| refusal.target.resource == resource && refusal.target.name == name)
    }
}
