//! Kernels on this host: an image with its modules, or a built tree.

use super::{Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Site, SourceTable};
use crate::{
    cache::{CachedKernel, Target, Writing, sha256_of},
    error::{KernelsError, Result},
    files::{self, Identity},
    header::{self, Banner},
    modules,
};
use lab_base::{arch::Architecture, process, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fmt, fs,
    path::{Path, PathBuf},
};

/// Number of lines at the start of a configuration that contain its kernel version.
const HEADING: usize = 8;
/// Lists that a build writes in addition to the modules; a guest reads from them which modules are built in.
const LISTS: [&str; 3] = ["modules.builtin", "modules.builtin.modinfo", "modules.order"];

/// `source.path`: files on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalKernel {
    /// A kernel image.
    Image {
        /// bzImage.
        image: PathBuf,
        /// Its `lib/modules/<release>`.
        modules: Option<PathBuf>,
        /// Its `.config`.
        config: Option<PathBuf>,
    },
    /// A built kernel tree.
    Tree {
        /// Top directory of the tree, or its output directory.
        tree: PathBuf,
    },
}

/// There is no entry in the lock: the user may change the files at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeverLocked {}

impl Serialize for NeverLocked {
    fn serialize<S: serde::Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        match *self {}
    }
}

impl<'de> Deserialize<'de> for NeverLocked {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> std::result::Result<Self, D::Error> {
        Err(serde::de::Error::custom("a `path` source is never locked"))
    }
}

impl fmt::Display for NeverLocked {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

impl LockEntry for NeverLocked {
    fn kernel(&self) -> KernelVersion {
        match *self {}
    }
}

impl ConfiguredSource for LocalKernel {
    const KEYS: &'static [&'static str] = &["image", "modules", "config", "tree"];

    fn read(table: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        match (table.path("tree")?, table.path("image")?) {
            (Some(tree), None) if table.table.keys().count() == 1 => Ok(Self::Tree { tree }),
            (None, Some(image)) => {
                Ok(Self::Image { image, modules: table.path("modules")?, config: table.path("config")? })
            }
            _ => Err(table.error(format!(
                "`path` source of {} needs either only `tree`, or `image` with optional `modules` and `config`",
                table.kernel
            ))),
        }
    }
}

impl fmt::Display for LocalKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Image { image: path, .. } | Self::Tree { tree: path }) = self;
        write!(f, "path {}", path.display())
    }
}

impl LocalKernel {
    fn local(&self) -> Local {
        match self {
            Self::Image { image, modules, config } => Local::from_image(image, modules.as_deref(), config.as_deref()),
            Self::Tree { tree } => Local::from_tree(tree),
        }
    }
}

impl KernelSource for LocalKernel {
    fn is_locked(&self) -> bool {
        false
    }

    fn is_published(&self) -> bool {
        matches!(self, Self::Image { .. })
    }

    fn is_resolved_by(&self, _: &Locked) -> bool {
        false
    }

    fn resolve(&self, _: &Site<'_>, _: &mut Indexes, _: &dyn Fn(&str)) -> Result<Option<Locked>> {
        Ok(None)
    }

    fn identity(&self, _: &Site<'_>, _: Option<&Locked>) -> Result<Bound> {
        let local = self.local();
        Ok(Bound { version: local.banner()?.version, sha256: local.identity()? })
    }

    fn content(&self) -> Result<Option<String>> {
        self.local().content().map(Some)
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        (job.progress)("copying into the cache");
        let local = self.local();
        local.take(job.writing, job.target, &local.banner()?, &job.bound.sha256)
    }
}

/// The files of a kernel on this host.
pub(crate) struct Local {
    image: PathBuf,
    config: Option<PathBuf>,
    modules: Modules,
    /// Modules that are installed beside them.
    more: Vec<PathBuf>,
}

enum Modules {
    /// Everything is built in, or the user configured no modules.
    None,
    Directory(PathBuf),
    /// A kernel tree, for `make modules_install`.
    Tree(PathBuf),
}

impl Local {
    /// An image with the other configured files.
    pub fn from_image(image: &Path, modules: Option<&Path>, config: Option<&Path>) -> Self {
        let modules = modules.map_or(Modules::None, |path| Modules::Directory(path.to_owned()));
        Self { image: image.to_owned(), config: config.map(Path::to_owned), modules, more: Vec::new() }
    }

    /// The files of a built kernel tree.
    pub fn from_tree(tree: &Path) -> Self {
        let config = tree.join(".config");
        Self {
            image: tree.join("arch/x86/boot/bzImage"),
            config: Some(config),
            modules: Modules::Tree(tree.to_owned()),
            more: Vec::new(),
        }
    }

    /// With modules that were compiled outside the tree.
    pub fn with(self, more: Vec<PathBuf>) -> Self {
        Self { more, ..self }
    }

    /// Version information of the image.
    ///
    /// # Errors
    /// The file does not exist or is not a kernel image.
    pub fn banner(&self) -> Result<Banner> {
        header::banner(&self.image, Architecture::default())
    }

    /// SHA-256 of the image alone, the same on every host.
    ///
    /// # Errors
    /// The image can't be read.
    pub fn image_sha256(&self) -> Result<String> {
        sha256_of(&self.image)
    }

    /// Hash of the image and the modules. Modules are hashed by name, size and time, since a tree may have gigabytes of
    /// them.
    ///
    /// # Errors
    /// A file can't be read.
    pub fn identity(&self) -> Result<String> {
        let mut identity = self.without_modules()?;
        for (_, path) in self.files()? {
            identity.stamp(&path)?;
        }
        Ok(identity.finish())
    }

    /// A hash of all files' content, which is the same on every host; [`Self::identity`] does not read the modules.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn content(&self) -> Result<String> {
        let mut identity = self.without_modules()?;
        for (name, path) in self.files()? {
            identity.add(name.as_os_str().as_encoded_bytes()).content(&path)?;
        }
        Ok(identity.finish())
    }

    fn without_modules(&self) -> Result<Identity> {
        let mut identity = Identity::default();
        identity.content(&self.image)?;
        // A missing file must not have the same hash as an empty one.
        if let Some(config) = &self.config {
            identity.add("config").content(config)?;
        }
        Ok(identity)
    }

    /// The modules and their lists: name and path of each.
    fn files(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        Ok(match &self.modules {
            Modules::None => Vec::new(),
            Modules::Directory(dir) => {
                files::of_modules(dir)?.into_iter().map(|name| (name.clone(), dir.join(name))).collect()
            }
            Modules::Tree(tree) => {
                let lists = LISTS.iter().map(PathBuf::from).filter(|name| tree.join(name).is_file());
                modules_of(tree)?.into_iter().chain(lists).map(|name| (name.clone(), tree.join(name))).collect()
            }
        })
    }

    /// Copies all files into the cache, so that a later build can't change a kernel during a run.
    ///
    /// # Errors
    /// A file can't be copied, `make modules_install` or depmod fails, or the kernel does not belong to its class.
    pub fn take(&self, writing: &Writing<'_>, target: &Target, banner: &Banner, sha256: &str) -> Result<CachedKernel> {
        target.check(banner.version)?;
        if let Some(config) = &self.config {
            check_config(config, banner)?;
        }
        let stage = writing.stage()?;
        let copy = |from: &Path, name: &str| modules::copy_file(from, &stage.path().join(name));
        copy(&self.image, "vmlinuz")?;
        if let Some(config) = &self.config {
            copy(config, "config")?;
        }
        match &self.modules {
            Modules::None => {}
            Modules::Directory(dir) => modules::copy(dir, stage.path(), &banner.release)?,
            Modules::Tree(tree) => install(tree, stage.path(), &banner.release)?,
        }
        let updates = stage.path().join("root/lib/modules").join(&banner.release).join("updates");
        for module in &self.more {
            fs::create_dir_all(&updates).map_err(KernelsError::io(&updates))?;
            modules::copy_file(module, &updates.join(module.file_name().unwrap_or_default()))?;
        }
        modules::index(stage.path(), &banner.release)?;
        writing.finish(stage, target, banner.version, sha256)
    }
}

/// Refuses a `.config` of another series than the image: the lab reads from it whether guests need signatures of
/// modules.
fn check_config(config: &Path, banner: &Banner) -> Result<()> {
    let text = lab_guard::bounded::text(config).map_err(KernelsError::io(config))?;
    // `# Linux/x86 6.12.117 Kernel Configuration` (scripts/kconfig: conf_write_heading()).
    let heading = text.lines().take(HEADING).find_map(|line| line.strip_prefix("# Linux/")?.split(' ').nth(1));
    let Some(version) = heading.and_then(|version| version.parse::<KernelVersion>().ok()) else { return Ok(()) };
    if (version.major, version.minor) == (banner.version.major, banner.version.minor) {
        return Ok(());
    }
    let reason = format!(
        "is the configuration of kernel {version}, but the image is {}: use the image's own configuration",
        banner.version
    );
    Err(KernelsError::BadKernel { path: config.to_owned(), reason })
}

/// `modules.order` of a tree, as names of the modules themselves.
fn modules_of(tree: &Path) -> Result<Vec<PathBuf>> {
    let order = tree.join("modules.order");
    match lab_guard::bounded::text(&order) {
        // Kernels before 6.2 list `.ko`, later ones `.o`.
        Ok(text) => Ok(text.lines().map(|line| Path::new(line).with_extension("ko")).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(KernelsError::io(order)(error)),
    }
}

/// Installs a tree's modules, or at least the list of built-in ones, where [`modules::index`] expects them.
///
/// # Errors
/// A file cannot be copied or `make modules_install` fails.
pub(crate) fn install(tree: &Path, stage: &Path, release: &str) -> Result<()> {
    if modules_of(tree)?.is_empty() {
        // Without modules there is nothing to install, but the list of built-in ones is still useful.
        let to = stage.join("root/lib/modules").join(release);
        fs::create_dir_all(&to).map_err(KernelsError::io(&to))?;
        for name in LISTS {
            let from = tree.join(name);
            if from.is_file() {
                modules::copy_file(&from, &to.join(name))?;
            }
        }
        return Ok(());
    }
    let mut path = OsString::from("INSTALL_MOD_PATH=");
    path.push(stage.join("root"));
    let args = ["-s".into(), "modules_install".into(), path, "INSTALL_MOD_STRIP=1".into(), "DEPMOD=true".into()];
    process::capture("make modules_install", "make", process::command("make", args).dir(tree))?;
    let place = stage.join("root/lib/modules");
    if place.join(release).is_dir() {
        return Ok(());
    }
    let others = fs::read_dir(&place).into_iter().flatten().flatten();
    let others: Vec<String> = others.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let reason = format!(
        "its image is of kernel {release}, but its modules are of {}: build both again",
        if others.is_empty() { "none".to_owned() } else { others.join(", ") }
    );
    Err(KernelsError::BadKernel { path: tree.to_owned(), reason })
}
