//! Kernels compiled from Debian's packaged sources: for what no suite carries as a binary.

use super::{
    apt::Apt,
    cache::{Finished, Writing},
    config::{Debian, Kernel},
    deb::{self, Wanted},
    error::{KernelsError, Result},
    local::Local,
    lockfile::Locked,
    packages::Package,
    recipe::{self, BASE},
    run,
};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

/// What [`BASE`] takes for granted: there it comes on top of vng's configuration, here on top of nothing.
const BARE: &str = include_str!("bare.config");
/// Where the tree has the wanted configuration; `make allnoconfig` takes it from there.
const WANTED: &str = "lab.config";
/// The archive, its tree, and the objects, bytes: 6.12 took 2.3 GiB.
const SPACE: u64 = 3 << 30;
/// What the build starts or includes, and the Debian package that brings it.
const TOOLS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
    // objtool reads the objects with it.
    ("/usr/include/gelf.h", "libelf-dev"),
];

/// Finds the package that a pattern means today.
///
/// # Errors
/// No package matches, or the one that does has no kernel's version.
pub(super) fn resolve(packages: &[Package], suite: &str, pattern: &str) -> Result<Locked> {
    let (package, kernel) = deb::choose(packages, suite, pattern)?;
    Ok(Locked::LinuxSource {
        suite: suite.to_owned(),
        package: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256.clone(),
        kernel,
    })
}

/// A build: one source package with one configuration.
pub(super) struct Build<'a> {
    pub wanted: deb::Wanted<'a>,
    pub fragment: Option<&'a Path>,
}

impl Build<'_> {
    /// Changes with the sources and with the whole configuration.
    ///
    /// # Errors
    /// The fragment cannot be read.
    pub fn identity(&self) -> Result<String> {
        Ok(recipe::identity(self.wanted.sha256, &self.configuration()?))
    }

    fn configuration(&self) -> Result<String> {
        Ok(format!("{BARE}{BASE}{}", recipe::fragment(self.fragment)?))
    }

    /// Downloads, checks, configures and compiles.
    ///
    /// # Errors
    /// A tool is missing, the package vanished or is not what was locked, the disk is too small, an option of the
    /// configuration has no effect, or the compiler fails.
    pub fn fetch(
        &self,
        writing: &Writing<'_>,
        debian: &Debian,
        kernel: &Kernel,
        identity: &str,
        progress: &dyn Fn(&str),
    ) -> Result<Finished> {
        tools(TOOLS, |tool| tool.starts_with('/') && Path::new(tool).exists() || which::which(tool).is_ok())?;
        writing.reserve(SPACE)?;
        let stage = writing.stage()?;
        let tree = self.unpack(writing, debian, stage.path(), progress)?;
        self.configure(&tree)?;
        let jobs = available_parallelism().map_or(1, usize::from);
        progress(&format!("compiling {} with {jobs} processes: this takes minutes", self.wanted.kernel));
        make(&tree, "make bzImage", [&*format!("-j{jobs}"), "bzImage"])?;
        let local = Local::from_tree(&tree);
        local.take(writing, kernel, &local.banner()?, identity)
    }

    fn unpack(&self, writing: &Writing<'_>, debian: &Debian, stage: &Path, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        let Wanted { suite, package, sha256, .. } = self.wanted;
        let apt = Apt::new(writing.root(), debian, suite)?;
        let deb = self.wanted.get(writing, &apt, (package, sha256), stage, progress)?;
        progress(&format!("unpacking {package}"));
        let (files, tree) = (stage.join("package"), stage.join("tree"));
        let args = ["-x".as_ref(), deb.as_os_str(), files.as_os_str()];
        run::capture("dpkg-deb -x", "dpkg", run::command("dpkg-deb", args))?;
        let archive = files.join("usr/src").join(format!("{package}.tar.xz"));
        fs::create_dir(&tree).map_err(KernelsError::io(&tree))?;
        let args =
            ["-xf".as_ref(), archive.as_os_str(), "--strip-components=1".as_ref(), "-C".as_ref(), tree.as_os_str()];
        run::capture("tar", "tar", run::command("tar", args))?;
        Ok(tree)
    }

    /// Writes `.config`: everything off, then what the lab and the person want.
    fn configure(&self, tree: &Path) -> Result<()> {
        let wanted = self.configuration()?;
        let path = tree.join(WANTED);
        fs::write(&path, &wanted).map_err(KernelsError::io(&path))?;
        make(tree, "make allnoconfig", ["allnoconfig"])?;
        let path = tree.join(".config");
        let got = fs::read_to_string(&path).map_err(KernelsError::io(&path))?;
        let lost = without_effect(&wanted, &got);
        if lost.is_empty() {
            return Ok(());
        }
        Err(KernelsError::BadKernel {
            path: self.fragment.map_or(path, Path::to_owned),
            reason: format!("{} has no effect in {}: see what it depends on", lost.join(", "), self.wanted.kernel),
        })
    }
}

/// The same sources, compiler and configuration give the same bytes.
fn make<'a>(tree: &Path, what: &str, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let command = run::command("make", ["-s"].into_iter().chain(args))
        .env("KCONFIG_ALLCONFIG", WANTED)
        .env("KBUILD_BUILD_USER", "lab")
        .env("KBUILD_BUILD_HOST", "lab")
        .env("KBUILD_BUILD_TIMESTAMP", "1970-01-01")
        .dir(tree);
    run::capture(what, "make", command).map(drop)
}

/// All that is missing in one line, with the command that brings it.
fn tools(tools: &[(&'static str, &'static str)], there: impl Fn(&str) -> bool) -> Result<()> {
    let missing: Vec<_> = tools.iter().filter(|(tool, _)| !there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let name = |tool: &str| Path::new(tool).file_name().unwrap_or(OsStr::new(tool)).to_string_lossy().into_owned();
    Err(KernelsError::MissingTools {
        tools: missing.iter().map(|(tool, _)| name(tool)).collect::<Vec<_>>().join(", "),
        packages: missing.iter().map(|(_, package)| *package).collect::<Vec<_>>().join(" "),
    })
}

/// Options of the wanted configuration that Kconfig did not take; of an option that is set twice the last counts.
fn without_effect(wanted: &str, got: &str) -> Vec<String> {
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
        assert!(without_effect(wanted, "CONFIG_VETH=y\n").is_empty(), "what does not exist is off");
        assert_eq!(without_effect(wanted, "CONFIG_NETKIT=y\n"), ["CONFIG_NETKIT=n", "CONFIG_VETH=y"]);
    }

    #[test]
    fn missing_tools_are_one_line_with_one_command() {
        assert!(tools(TOOLS, |_| true).is_ok());
        insta::assert_snapshot!(tools(TOOLS, |tool| !matches!(tool, "flex" | "/usr/include/gelf.h")).unwrap_err(),
            @"building a kernel needs flex, gelf.h: run `apt-get install flex libelf-dev`");
    }

    #[test]
    fn the_committed_configurations_contradict_nothing() {
        let mut seen = std::collections::BTreeSet::new();
        for line in BARE.lines().chain(BASE.lines()).filter(|line| line.starts_with("CONFIG_")) {
            assert!(seen.insert(line), "{line} is there twice");
        }
    }

    #[test]
    fn the_identity_follows_sources_and_fragment() {
        let dir = tempfile::tempdir().unwrap();
        let fragment = dir.path().join("my.config");
        let build = |sha256, fragment| {
            let (package, kernel) = ("linux-source-6.12", lab_protocol::KernelVersion::new(6, 12, 117));
            let wanted =
                Wanted { suite: "sid", pattern: package, package, version: "6.12.117-1", sha256, kernel, parts: &[] };
            Build { wanted, fragment }
        };
        let plain = build("00", None).identity().unwrap();
        assert_ne!(build("01", None).identity().unwrap(), plain);
        fs::write(&fragment, "# CONFIG_NETKIT is not set\n").unwrap();
        assert_ne!(build("00", Some(&fragment)).identity().unwrap(), plain);
        fs::remove_file(&fragment).unwrap();
        assert!(build("00", Some(&fragment)).identity().is_err());
    }
}
