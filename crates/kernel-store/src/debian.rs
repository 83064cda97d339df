//! `[debian]` of `kernels.toml`.

use lab_base::strict_toml::{ConfigError, Section};
use std::collections::BTreeMap;

/// `[debian]`: mirrors and exceptions for sources that apt fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Debian {
    /// Mirror of the plain suites (`mirror`).
    pub mirror: Option<String>,
    /// Mirror of the `*-security` suites (`security-mirror`).
    pub security_mirror: Option<String>,
    /// Suites whose index may be older than its `Valid-Until`, each with a reason (`stale`).
    pub stale: BTreeMap<String, String>,
}

impl Debian {
    pub(super) const KEYS: &[&str] = &["mirror", "security-mirror", "stale"];

    pub(super) fn read(section: &Section<'_>) -> Result<Self, ConfigError> {
        let mut stale = BTreeMap::new();
        if let Some(table) = section.section("stale", "`stale` of [debian]".into(), &[])? {
            for suite in table.keys() {
                stale.insert(suite.to_owned(), table.required(suite)?.to_owned());
            }
        }
        Ok(Self {
            mirror: section.text("mirror")?.map(str::to_owned),
            security_mirror: section.text("security-mirror")?.map(str::to_owned),
            stale,
        })
    }
}
