//! The configuration of kernels that the lab builds.

use super::{
    builders,
    error::{KernelsError, Result},
    files::Identity,
};
use std::{collections::BTreeMap, path::Path};

/// Options of every build, before those of the user's fragment.
pub(super) const BASE: &str = include_str!("base.config");

/// Additional options if the lab's own configuration is used.
pub(super) const BARE: &str = include_str!("bare.config");

/// make variables that make builds reproducible: the same sources, compiler and configuration give the same bytes.
pub(super) const REPRODUCIBLE: [&str; 4] =
    ["KBUILD_BUILD_USER=lab", "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_VERSION=1"];

/// The content of the user's fragment; empty if there is none.
///
/// # Errors
/// The file can't be read.
pub(super) fn fragment(path: Option<&Path>) -> Result<String> {
    path.map_or(Ok(String::new()), |path| lab_guard::bounded::text(path).map_err(KernelsError::io(path)))
}

/// Hash of all that a build's result depends on: the sources, the configuration, and the programs that compile them.
pub(super) fn identity(sources: &str, configuration: &str) -> String {
    let mut identity = Identity::default();
    identity.add(sources).add(configuration);
    builders::identify(&mut identity);
    identity.finish()
}

/// Options of the requested configuration that Kconfig did not accept; if an option is set twice, the last value counts.
pub(super) fn without_effect(wanted: &str, got: &str) -> Vec<String> {
    let options = |text: &str| -> BTreeMap<String, String> {
        let option = |line: &str| match line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")) {
            Some(name) => Some((name.to_owned(), "n".to_owned())),
            None if line.starts_with('#') => None,
            None => line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())),
        };
        text.lines().filter_map(option).collect()
    };
    let got = options(got);
    let off = "n".to_owned();
    let lost = options(wanted).into_iter().filter(|(name, value)| got.get(name).unwrap_or(&off) != value);
    lost.map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_kconfig_drops_is_named() {
        let wanted = "CONFIG_NETKIT=y\nCONFIG_VETH=y\n# a remark = nothing\n# CONFIG_NETKIT is not set\n";
        assert!(without_effect(wanted, "CONFIG_VETH=y\n# CONFIG_NETKIT is not set\n").is_empty());
        assert!(without_effect(wanted, "CONFIG_VETH=y\n").is_empty(), "an unknown option counts as off");
        assert_eq!(without_effect(wanted, "CONFIG_NETKIT=y\n"), ["CONFIG_NETKIT=n", "CONFIG_VETH=y"]);
    }
}
