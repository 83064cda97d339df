//! Kernels compiled from Debian's source packages, for versions that no suite has as a binary.

use super::{
    Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Packages, Site, SourceTable, checksum,
    deb::{self, LockedPackage},
    path::Local,
};
use crate::{
    apt::Apt,
    cache::{CachedKernel, Target, WritePurpose, Writing},
    debian::Debian,
    error::{KernelsError, Result},
    files, modules,
    names::is_file_name,
    packages::{self, ArchivePackage},
    recipe::{self, BARE, BASE, BuildOptions, Configuration, REPRODUCIBLE},
};
use lab_base::{
    arch::Architecture,
    process,
    strict_toml::{ConfigError, Section},
};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

/// `source.linux-source`: the newest package with sources of a suite whose name matches, and the kernel that is built from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinuxSource {
    /// Suite that contains it.
    pub suite: String,
    /// Pattern of the package's name; the highest matching version is used.
    pub package: String,
    /// What is built besides the lab's own configuration.
    pub options: BuildOptions,
    /// A change of the sources, as `patch -p1` takes it.
    pub patch: Option<PathBuf>,
}

/// A package with a kernel's sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedSources {
    pub suite: String,
    pub package: String,
    pub version: String,
    /// SHA-256 of the `.deb`, hexadecimal.
    #[serde(deserialize_with = "checksum")]
    pub sha256: String,
    /// Version of the kernel in it.
    pub kernel: KernelVersion,
}

impl ConfiguredSource for LinuxSource {
    const KEYS: &'static [&'static str] = &["suite", "package", "fragment", "patch", "selftests", "modules"];

    fn read(table: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let (suite, package) = deb::read_package(table)?;
        let options = build_options(&table.table, table.kernel, table.dir)?;
        Ok(Self { suite, package, options, patch: table.path("patch")? })
    }
}

/// Reads `fragment`, `selftests` and `modules`, which a variant has, too.
pub(crate) fn build_options(
    table: &Section<'_>,
    name: &str,
    dir: &Path,
) -> std::result::Result<BuildOptions, ConfigError> {
    let selftests: Vec<String> = table.texts("selftests")?.into_iter().map(str::to_owned).collect();
    if let Some(wrong) = selftests.iter().find(|it| !it.split('/').all(is_file_name)) {
        let message = format!(
            "{wrong:?} in `selftests` of {name} must be a directory of tools/testing/selftests: net, net/forwarding, bpf"
        );
        return Err(table.error_at("selftests", message));
    }
    let paths = |texts: Vec<&str>| texts.into_iter().map(|path| dir.join(path)).collect();
    let fragments = paths(table.text("fragment")?.into_iter().collect());
    Ok(BuildOptions { fragments, selftests, modules: paths(table.texts("modules")?) })
}

impl fmt::Display for LinuxSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux-source {} ({})", self.package, self.suite)
    }
}

impl fmt::Display for LockedSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.package, self.version, self.suite)
    }
}

impl LockEntry for LockedSources {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    fn is_older_than(&self, before: &Locked) -> Result<bool> {
        let Locked::LinuxSource(before) = before else { return Ok(false) };
        Ok(packages::compare(&self.version, &before.version)?.is_lt())
    }
}

impl LinuxSource {
    /// The same sources built with more.
    pub(super) fn with(&self, more: &BuildOptions) -> Self {
        Self { options: self.options.with(more), ..self.clone() }
    }

    fn build<'b>(&'b self, locked: Option<&'b Locked>) -> Result<SourceBuild<'b>> {
        let Some(Locked::LinuxSource(LockedSources { suite, package, version, sha256, kernel })) = locked else {
            return Err(KernelsError::Unlocked);
        };
        let pattern = &*self.package;
        let wanted =
            LockedPackage { suite, pattern, package, version, sha256, kernel: *kernel, whole: true, parts: &[] };
        Ok(SourceBuild { wanted, options: &self.options, patch: self.patch.as_deref() })
    }
}

impl KernelSource for LinuxSource {
    fn promised(&self) -> Option<KernelVersion> {
        self.package.strip_prefix("linux-source-")?.parse().ok()
    }

    fn purpose(&self) -> WritePurpose {
        WritePurpose::Build
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        matches!(locked, Locked::LinuxSource(it) if deb::is_of(&self.suite, &self.package, (&it.suite, &it.package)))
    }

    fn resolve(&self, site: &Site<'_>, indexes: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        let packages =
            deb::of_suite(indexes, writing.root(), site.debian, (&self.suite, Architecture::default()), progress)?;
        resolve(packages, &self.suite, &self.package).map(|locked| Some(Locked::LinuxSource(locked)))
    }

    fn packages<'b>(&'b self, locked: Option<&'b Locked>) -> Option<Packages<'b>> {
        match locked {
            Some(Locked::LinuxSource(LockedSources { suite, version, package, .. })) => {
                Some(Packages { suite, arch: Architecture::default(), version, names: vec![package] })
            }
            _ => None,
        }
    }

    fn version(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<KernelVersion> {
        Ok(self.build(locked)?.wanted.kernel)
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let build = self.build(locked)?;
        Ok(Bound { version: build.wanted.kernel, sha256: build.identity()? })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        self.build(job.locked)?.fetch(job.writing, job.site.debian, job.target, &job.bound.sha256, job.progress)
    }

    fn unpack(&self, site: &Site<'_>, locked: Option<&Locked>, to: &Path, progress: &dyn Fn(&str)) -> Result<bool> {
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        let build = self.build(locked)?;
        build.unpack(&writing, site.debian, to, progress)?;
        build.change(to)?;
        Ok(true)
    }
}

/// File in the tree with the wanted configuration, which `make allnoconfig` reads.
const WANTED: &str = "lab.config";
/// Disk space for archive, tree and objects, bytes: 6.12 needs 2.3 GiB.
const SPACE: u64 = 3 << 30;
/// Programs and headers that the build needs, and their Debian packages.
const TOOLS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz", "xz-utils"),
    // objtool needs it to read object files.
    ("/usr/include/gelf.h", "libelf-dev"),
];
/// What a patch needs besides.
const PATCH: (&str, &str) = ("patch", "patch");
/// Those of them that Kconfig needs.
const CONFIGURE: [&str; 4] = ["make", "gcc", "flex", "bison"];

/// Finds the current package of a pattern.
///
/// # Errors
/// No package matches, or the matching one has no kernel version.
pub(crate) fn resolve(packages: &[ArchivePackage], suite: &str, pattern: &str) -> Result<LockedSources> {
    let (package, kernel) = deb::choose(packages, suite, pattern)?;
    Ok(LockedSources {
        suite: suite.to_owned(),
        package: package.name.clone(),
        version: package.version.clone(),
        sha256: package.sha256.clone(),
        kernel,
    })
}

/// A build: one source package with one configuration.
pub(crate) struct SourceBuild<'a> {
    pub wanted: deb::LockedPackage<'a>,
    pub options: &'a BuildOptions,
    pub patch: Option<&'a Path>,
}

impl SourceBuild<'_> {
    /// Hash of the sources, their change, the whole configuration and the modules.
    ///
    /// # Errors
    /// A fragment, the patch or a file of a module can't be read.
    pub fn identity(&self) -> Result<String> {
        let sources = match self.patch {
            Some(_) => format!("{}\n{}", self.wanted.sha256, recipe::fragment(self.patch)?),
            None => self.wanted.sha256.to_owned(),
        };
        let sources = format!("{sources}{}", self.options.identity()?);
        // Of the selftests' configuration, the sources' checksum and the collections' names are enough.
        Ok(recipe::identity(&sources, &self.configuration("")?.text()))
    }

    /// Applies the patch to the unpacked sources.
    ///
    /// # Errors
    /// It does not apply, or `patch` is missing.
    fn change(&self, tree: &Path) -> Result<()> {
        let Some(path) = self.patch else { return Ok(()) };
        tools(&[PATCH], on_host)?;
        // Without fuzz: a change that lands at another place is another change.
        let args = ["-s", "-p1", "-F0", "-d"].map(OsStr::new).into_iter().chain([
            tree.as_os_str(),
            "-i".as_ref(),
            path.as_os_str(),
        ]);
        process::capture("patch", "patch", process::command("patch", args)).map_err(|error| {
            KernelsError::BadKernel {
                path: path.to_owned(),
                reason: format!("does not apply to {}: {error}", self.wanted.kernel),
            }
        })?;
        Ok(())
    }

    fn configuration(&self, selftests: &str) -> Result<Configuration> {
        Ok(Configuration::new(format!("{BARE}{BASE}"), selftests, self.options.configuration()?))
    }

    /// The configurations of the selftests, one after another.
    fn of_selftests(&self, tree: &Path) -> Result<String> {
        let read = |collection: &String| {
            let path = tree.join("tools/testing/selftests").join(collection).join("config");
            fs::read_to_string(&path).map(|text| format!("{text}\n")).map_err(KernelsError::io(path))
        };
        self.options.selftests.iter().map(read).collect()
    }

    /// Downloads, checks, configures and compiles the sources.
    ///
    /// # Errors
    /// A tool is missing, the package no longer exists or its hash differs, the disk is too small, an option of the
    /// configuration has no effect, or the compiler fails.
    pub fn fetch(
        &self,
        writing: &Writing<'_>,
        debian: &Debian,
        target: &Target,
        identity: &str,
        progress: &dyn Fn(&str),
    ) -> Result<CachedKernel> {
        need_tools()?;
        writing.reserve(SPACE)?;
        let stage = writing.stage()?;
        let tree = stage.path().join("tree");
        fs::create_dir(&tree).map_err(KernelsError::io(&tree))?;
        self.unpack(writing, debian, &tree, progress)?;
        self.change(&tree)?;
        self.configure(&tree, progress)?;
        let jobs = available_parallelism().map_or(1, usize::from);
        progress(&format!("compiling {} with {jobs} processes: this takes minutes", self.wanted.kernel));
        let jobs = format!("-j{jobs}");
        make(&tree, "make bzImage", [&*jobs, "bzImage"])?;
        if self.options.has_modules() {
            make(&tree, "make modules", [&*jobs, "modules"])?;
        }
        let own = self.own_modules(&tree, &jobs, progress)?;
        let local = Local::from_tree(&tree).with(own);
        local.take(writing, target, &local.banner()?, identity)
    }

    /// Compiles the modules that are not of the sources, each in a copy of its directory, and gives their files.
    fn own_modules(&self, tree: &Path, jobs: &str, progress: &dyn Fn(&str)) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for (at, dir) in self.options.modules.iter().enumerate() {
            progress(&format!("compiling the modules of {}", dir.display()));
            let copy = tree.join(format!("lab-modules-{at}"));
            fs::create_dir_all(&copy).map_err(KernelsError::io(&copy))?;
            for file in files::of_modules(dir)? {
                let place = copy.join(&file);
                place.parent().map_or(Ok(()), fs::create_dir_all).map_err(KernelsError::io(&place))?;
                modules::copy_file(&dir.join(&file), &place)?;
            }
            let what = format!("make M={}", dir.display());
            make(tree, &what, [jobs, &*format!("M={}", copy.display()), "modules"])?;
            let before = found.len();
            let built = files::of_modules(&copy)?.into_iter().filter(|it| it.extension() == Some("ko".as_ref()));
            found.extend(built.map(|file| copy.join(file)));
            if found.len() == before {
                let reason = "its Kbuild file makes no module: add `obj-m := NAME.o`".to_owned();
                return Err(KernelsError::BadKernel { path: dir.clone(), reason });
            }
        }
        Ok(found)
    }

    /// Downloads and checks the sources, and unpacks them into `tree`, which must be empty.
    ///
    /// # Errors
    /// The package no longer exists or its hash differs, or the disk is too small.
    pub fn unpack(&self, writing: &Writing<'_>, debian: &Debian, tree: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let LockedPackage { suite, package, sha256, .. } = self.wanted;
        let (apt, stage) = (Apt::new(writing.root(), debian, suite, Architecture::default())?, writing.stage()?);
        let deb = self.wanted.get(writing, &apt, (package, sha256), stage.path(), progress)?;
        progress(&format!("unpacking {package}"));
        let files = stage.path().join("package");
        let args = ["-x".as_ref(), deb.as_os_str(), files.as_os_str()];
        process::capture("dpkg-deb -x", "dpkg", process::command("dpkg-deb", args))?;
        let archive = files.join("usr/src").join(format!("{package}.tar.xz"));
        let args =
            ["-xf".as_ref(), archive.as_os_str(), "--strip-components=1".as_ref(), "-C".as_ref(), tree.as_os_str()];
        process::capture("tar", "tar", process::command("tar", args))?;
        Ok(())
    }

    /// Writes `.config`: all options off, except those of the lab and the user.
    fn configure(&self, tree: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let wanted = self.configuration(&self.of_selftests(tree)?)?;
        let path = tree.join(WANTED);
        fs::write(&path, wanted.text()).map_err(KernelsError::io(&path))?;
        make(tree, "make allnoconfig", ["allnoconfig"])?;
        let path = tree.join(".config");
        let got = fs::read_to_string(&path).map_err(KernelsError::io(&path))?;
        let (lost, of_selftests) = wanted.without_effect(&got);
        if !of_selftests.is_empty() {
            progress(&format!("without effect of the selftests' options: {}", of_selftests.join(", ")));
        }
        if lost.is_empty() {
            return Ok(());
        }
        Err(KernelsError::BadKernel {
            path: self.options.fragments.last().filter(|_| wanted.is_of_user(&lost)).cloned().unwrap_or(path),
            reason: format!(
                "{} has no effect in {}: add the options that it depends on",
                lost.join(", "),
                self.wanted.kernel
            ),
        })
    }
}

/// Runs make reproducibly: the same sources, compiler and configuration give the same bytes.
fn make<'a>(tree: &Path, what: &str, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let command = process::command("make", ["-s"].into_iter().chain(args)).env("KCONFIG_ALLCONFIG", WANTED).dir(tree);
    let command = REPRODUCIBLE
        .iter()
        .filter_map(|word| word.split_once('='))
        .fold(command, |command, (name, value)| command.env(name, value));
    process::capture(what, "make", command)?;
    Ok(())
}

/// Checks that a kernel can be built on this host.
///
/// # Errors
/// Tools are missing; the error has the command that installs them.
pub(crate) fn need_tools() -> Result<()> {
    tools(TOOLS, on_host)
}

/// Checks that a kernel can be configured on this host, for a build by the user's own command, which may find its other
/// tools elsewhere, for example in a container.
///
/// # Errors
/// As [`need_tools`].
pub(crate) fn need_configuration_tools() -> Result<()> {
    let needed: Vec<_> = TOOLS.iter().filter(|(tool, _)| CONFIGURE.contains(tool)).copied().collect();
    tools(&needed, on_host)
}

fn on_host(tool: &str) -> bool {
    tool.starts_with('/') && Path::new(tool).exists() || lab_base::programs::find(tool).is_some()
}

/// All missing tools in one line, with the command that installs them.
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

#[cfg(test)]
#[path = "linux_source_tests.rs"]
mod tests;
