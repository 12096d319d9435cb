//! Looks up in registries what images run, beside the reconciles and never within one: a plan names the images it waits
//! for, the look-up goes on in the background, and its end wakes the run. IO; what is to be looked up, and what follows
//! from it, is decided in `ropewalk-core`.

mod digests;
mod look_ups;
mod pull_secrets;
mod registry;

#[cfg(test)]
mod tests;

use tokio::sync::watch;

pub(crate) use look_ups::{LookUps, start};
pub use pull_secrets::{Error as SecretsError, read as pull_secrets};

/// How registries are asked.
#[derive(Clone, Debug)]
pub struct ImageOptions {
    /// Certificates to trust besides the public ones and those of the machine, in PEM: key `cert` of ConfigMap
    /// `config-registry-cert`. Changes hold from the next request on.
    pub extra_roots: watch::Receiver<String>,
}
