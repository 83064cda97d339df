//! The configuration of kernels that the lab builds.

use super::{
    builders,
    error::{KernelsError, Result},
    files::Identity,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Options of every build, before those of the user's fragment.
pub(super) const BASE: &str = include_str!("base.config");

/// Additional options if the lab's own configuration is used.
pub(super) const BARE: &str = include_str!("bare.config");

/// make variables that make builds reproducible: the same sources, compiler and configuration give the same bytes.
pub(super) const REPRODUCIBLE: [&str; 4] =
    ["KBUILD_BUILD_USER=lab", "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_TIMESTAMP=1970-01-01", "KBUILD_BUILD_VERSION=1"];

/// Options of a build with modules.
const WITH_MODULES: &str = "CONFIG_MODULES=y\nCONFIG_MODULE_UNLOAD=y\n";

/// What a build has besides the sources and the lab's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildOptions {
    /// Configuration fragments, in the order in which they apply.
    pub fragments: Vec<PathBuf>,
    /// Collections of the sources' selftests, `net` for example, whose `config` is added as far as it has an effect.
    pub selftests: Vec<String>,
    /// Directories of modules that are compiled against the kernel and installed beside its own.
    pub modules: Vec<PathBuf>,
}

impl BuildOptions {
    /// With those of a variant after them.
    pub fn with(&self, more: &Self) -> Self {
        Self {
            fragments: [&*self.fragments, &more.fragments].concat(),
            selftests: [&*self.selftests, &more.selftests].concat(),
            modules: [&*self.modules, &more.modules].concat(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the build has modules.
    pub fn has_modules(&self) -> bool {
        !self.modules.is_empty() || !self.selftests.is_empty()
    }

    /// The configuration that the options ask for, without that of the selftests.
    ///
    /// # Errors
    /// A fragment can't be read.
    pub fn configuration(&self) -> Result<String> {
        let modules = if self.has_modules() { WITH_MODULES } else { "" };
        Ok(format!("{modules}{}", fragments(&self.fragments)?))
    }

    /// A hash of what is not part of the configuration; empty if there is nothing.
    ///
    /// # Errors
    /// A file of a module can't be read.
    pub fn identity(&self) -> Result<String> {
        if !self.has_modules() {
            return Ok(String::new());
        }
        let mut identity = Identity::default();
        for collection in &self.selftests {
            identity.add(collection);
        }
        for dir in &self.modules {
            identity.add("module").modules(dir)?;
        }
        Ok(identity.finish())
    }
}

/// The content of the user's fragments, one after another.
///
/// # Errors
/// A file can't be read.
pub(super) fn fragments(paths: &[PathBuf]) -> Result<String> {
    let read = |path: &PathBuf| {
        let mut text = lab_guard::bounded::text(path).map_err(KernelsError::io(path))?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    };
    paths.iter().map(read).collect()
}

/// A file that a build reads; empty if there is none.
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
    lost(&options(wanted), &options(got))
}

/// A whole configuration. A later part overrules an earlier one.
pub(super) struct Configuration {
    /// Options of the lab.
    lab: String,
    /// Those of the selftests, which need not have an effect: their files name options of every version and architecture.
    selftests: BTreeMap<String, String>,
    /// Those of the user.
    own: String,
}

impl Configuration {
    /// Of the lab's options, the text of the selftests' files, and the user's options. What the lab has built in stays built in.
    pub fn new(lab: String, selftests: &str, own: String) -> Self {
        let built_in = options(&lab);
        let mut theirs = options(selftests);
        theirs.retain(|name, value| value != "m" || built_in.get(name).is_none_or(|value| value != "y"));
        Self { lab, selftests: theirs, own }
    }

    /// The text for `KCONFIG_ALLCONFIG`.
    pub fn text(&self) -> String {
        let theirs = self.selftests.iter().map(|(name, value)| format!("{name}={value}\n"));
        format!("{}{}{}", self.lab, theirs.collect::<String>(), self.own)
    }

    /// Whether one of these options, as [`Self::without_effect`] names them, is the user's.
    pub fn is_of_user(&self, lost: &[String]) -> bool {
        let own = options(&self.own);
        lost.iter().any(|option| option.split_once('=').is_some_and(|(name, _)| own.contains_key(name)))
    }

    /// What Kconfig did not accept: of the lab's and the user's options, and of the selftests'.
    pub fn without_effect(&self, got: &str) -> (Vec<String>, Vec<String>) {
        let (own, got) = (options(&self.own), options(got));
        let mut wanted = options(&self.lab);
        wanted.retain(|name, _| !self.selftests.contains_key(name));
        wanted.extend(own.clone());
        let mut theirs = self.selftests.clone();
        let is_built_in = |name: &String| got.get(name).is_some_and(|value| value == "y");
        let is_met = |name: &String, value: &str| value == "m" && is_built_in(name);
        theirs.retain(|name, value| !own.contains_key(name) && !is_met(name, value));
        (lost(&wanted, &got), lost(&theirs, &got))
    }
}

fn options(text: &str) -> BTreeMap<String, String> {
    let option = |line: &str| match line.strip_prefix("# ").and_then(|line| line.strip_suffix(" is not set")) {
        Some(name) => Some((name.to_owned(), "n".to_owned())),
        None if line.starts_with('#') => None,
        None => line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())),
    };
    text.lines().filter_map(option).collect()
}

fn lost(wanted: &BTreeMap<String, String>, got: &BTreeMap<String, String>) -> Vec<String> {
    let value_of = |name: &String| got.get(name).map_or("n", String::as_str);
    let lost = wanted.iter().filter(|(name, value)| value_of(name) != value.as_str());
    lost.map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn an_option_that_kconfig_drops_is_named() {
        let wanted = "CONFIG_NETKIT=y\nCONFIG_VETH=y\n# a remark = nothing\n# CONFIG_NETKIT is not set\n";
        assert!(without_effect(wanted, "CONFIG_VETH=y\n# CONFIG_NETKIT is not set\n").is_empty());
        assert!(without_effect(wanted, "CONFIG_VETH=y\n").is_empty(), "an unknown option counts as off");
        assert_eq!(without_effect(wanted, "CONFIG_NETKIT=y\n"), ["CONFIG_NETKIT=n", "CONFIG_VETH=y"]);
    }

    #[test]
    fn every_directory_of_modules_counts_for_the_key_of_a_build() {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let write = |number: usize, text: &str| fs::write(dirs[number].path().join("Makefile"), text).unwrap();
        write(0, "obj-m := a.o\n");
        write(1, "obj-m := b.o\n");
        let modules = dirs.iter().map(|dir| dir.path().to_owned()).collect();
        let options = BuildOptions { modules, ..BuildOptions::default() };
        let mut seen = vec![options.identity().unwrap()];
        assert_eq!(seen[0], options.identity().unwrap());
        for number in 0..dirs.len() {
            write(number, "obj-m := c.o\n");
            let now = options.identity().unwrap();
            assert!(!seen.contains(&now), "directory {number}");
            seen.push(now);
        }
    }

    #[test]
    fn options_of_the_selftests_come_between_the_labs_and_the_users() {
        let lab = "CONFIG_NF_NAT=y\nCONFIG_VETH=y\n# CONFIG_DEBUG_INFO_BTF is not set\n".to_owned();
        let theirs =
            "CONFIG_NF_NAT=m\nCONFIG_DEBUG_INFO_BTF=y\nCONFIG_GENEVE=m\nCONFIG_IFB=m\nCONFIG_OLD=y\nCONFIG_HZ=1000\n";
        let all = Configuration::new(lab, theirs, "CONFIG_HZ=100\n".to_owned());
        let text = all.text();
        assert_eq!(options(&text)["CONFIG_NF_NAT"], "y", "{text}");
        assert_eq!(options(&text)["CONFIG_DEBUG_INFO_BTF"], "y", "{text}");
        assert_eq!(options(&text)["CONFIG_HZ"], "100", "{text}");
        let got = "CONFIG_NF_NAT=y\nCONFIG_VETH=y\nCONFIG_GENEVE=m\nCONFIG_IFB=y\nCONFIG_HZ=100\n";
        let (wanted, lost) = all.without_effect(got);
        assert!(wanted.is_empty(), "{wanted:?}");
        assert_eq!(lost, ["CONFIG_DEBUG_INFO_BTF=y", "CONFIG_OLD=y"]);
        let (wanted, _) = all.without_effect("CONFIG_NF_NAT=y\nCONFIG_HZ=250\n");
        assert_eq!(wanted, ["CONFIG_HZ=100", "CONFIG_VETH=y"]);
        assert!(all.is_of_user(&wanted), "HZ is the user's");
        assert!(!all.is_of_user(&wanted[1..]), "VETH is the lab's");
    }
}
