//! Looks up in registries what images run, beside the reconciles and never within one: a plan names the images it waits
//! for, the look-up goes on in the background, and its end wakes the run. IO; what is to be looked up, and what follows
//! from it, is decided in `ropewalk-core`.

mod digests;
mod look_ups;
mod pull_secrets;
mod registry;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use ropewalk_core::images::Image;
use tokio::sync::watch;

pub(crate) use look_ups::{LookUps, start};
pub use pull_secrets::{Error as SecretsError, read as pull_secrets};

/// How registries are asked.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Certificates to trust besides the public ones and those of the machine, in PEM: key `cert` of ConfigMap
    /// `config-registry-cert`. Changes hold from the next request on.
    pub extra_roots: watch::Receiver<String>,
    /// Directory that says how registries are reached, in the form of containerd's `certs.d`; with one, advice about
    /// certificates is to use it.
    pub registries: Option<PathBuf>,
    /// Images for which no registry is asked.
    pub local: Option<Local>,
}

/// Finds an image, by its reference, among those that pods run from without a registry being asked. May block.
#[derive(Clone)]
pub struct Local(Arc<Find>);

type Find = dyn Fn(&str) -> Option<Image> + Send + Sync;

impl Local {
    /// Images that this function finds.
    pub fn new(find: impl Fn(&str) -> Option<Image> + Send + Sync + 'static) -> Self {
        Self(Arc::new(find))
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}
