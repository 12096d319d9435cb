//! Feature flags as the ConfigMap `feature-flags` has them. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ropewalk_api::config::Config;

/// The data of the ConfigMap, without what has its default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Features(pub BTreeMap<String, String>);

impl Features {
    /// All that upstream's own tests of its `alpha` examples switch on.
    pub fn alpha() -> Self {
        let on = |key: &str| (key.to_owned(), "true".to_owned());
        let mut data =
            BTreeMap::from(["enable-param-enum", "enable-artifacts", "enable-cel-in-whenexpression"].map(on));
        data.insert("enable-api-fields".to_owned(), "alpha".to_owned());
        Self(data)
    }

    /// As the processes read them.
    pub(super) fn config(&self) -> Result<Config> {
        let none = BTreeMap::new();
        Config::from_config_maps(&none, &self.0, &none).context("these are no feature flags")
    }
}
