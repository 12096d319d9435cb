//! The webhook's own certificates: an authority and a leaf in one Secret that all replicas share, and the authority in
//! the webhook configurations and the definitions that name us, where API servers look for what to trust.
//!
//! [`stored`] and [`configuration`] read and [`plan`] decides, all pure; [`issue`] makes keys and certificates;
//! [`observe`] watches, and [`keeper`] writes.

pub(crate) mod configuration;
pub(crate) mod issue;
pub(crate) mod keeper;
pub(crate) mod observe;
pub(crate) mod plan;
pub(crate) mod stored;

/// The Service under which API servers reach the webhook.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: String,
    /// Its namespace, which is the Secret's too.
    pub(crate) namespace: String,
}

impl Service {
    /// The name that API servers verify.
    pub(crate) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }

    /// Every name the Service has, for the leaf.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let Self { name, namespace } = self;
        let host = self.host();
        vec![name.clone(), format!("{name}.{namespace}"), format!("{host}.cluster.local"), host]
    }
}
