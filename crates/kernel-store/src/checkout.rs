//! Builds many commits of a checkout with the same configuration, as needed for bisecting.
//!
//! Build results are cached by the tree hash of the sources, the configuration, the compiler and the command, so that
//! no commit is built twice. Builds are reproducible: time, user, host and build number are fixed.

use super::{
    builders,
    class::KernelClass,
    error::{KernelsError, Result},
    files::Identity,
    header, modules,
    recipe::{self, BARE, BASE},
    source,
    store::BootableKernel,
};
use lab_base::{file::touch, process};
use lab_guard::Id;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Disk space for sources, objects and image, bytes: the lab's configuration of 6.12 needs 1.1 GiB.
const SPACE: u64 = 2 << 30;
/// Messages of a build that mean a failure of the host, not of the sources.
const HOST: [&str; 5] = [
    "No space left on device",
    "Cannot allocate memory",
    "Killed signal",
    "virtual memory exhausted",
    "Input/output error",
];
/// Exit code of `git bisect run` for "can't be tested".
const SKIP: i32 = 125;
/// How commits are built.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A complete `.config`; if `None`, the lab's own.
    pub config: Option<PathBuf>,
    /// Additional options, all of which must have an effect.
    pub fragments: Vec<PathBuf>,
    /// Shell command instead of `vng --build`.
    pub command: Option<String>,
    /// Number of parallel compilers.
    pub jobs: usize,
    pub vng: PathBuf,
    /// Home directory of the build command.
    pub home: PathBuf,
}

/// Result of a build.
#[derive(Debug, Clone)]
pub enum BuildResult {
    /// The kernel.
    Kernel(Box<BootableKernel>),
    /// The sources do not compile, at least with this configuration; one line.
    Cannot(String),
}

/// A checkout and its build results.
pub struct Checkout<'a> {
    /// The checkout.
    pub tree: PathBuf,
    /// Directory of the build results.
    pub products: PathBuf,
    /// How commits are built.
    pub settings: Settings,
    /// Returns true if the build is to be interrupted.
    pub stop: &'a dyn Fn() -> bool,
}

impl Checkout<'_> {
    /// Checks that everything is installed that a build needs.
    ///
    /// # Errors
    /// One line with the command that installs it.
    pub fn ready(&self) -> Result<()> {
        match self.settings.command {
            Some(_) => source::need_configuration_tools(),
            None => source::need_tools(),
        }
    }

    /// The key by which a build result is cached.
    ///
    /// # Errors
    /// A file of the configuration can't be read.
    pub fn key(&self, sources: &str) -> Result<String> {
        let mut identity = Identity::default();
        identity.add(recipe::identity(sources, &self.wanted()?));
        identity.add(self.settings.command.as_deref().unwrap_or_default());
        builders::identify_environment(&mut identity);
        Ok(identity.finish())
    }

    /// The configuration as requested.
    fn wanted(&self) -> Result<String> {
        let base = match &self.settings.config {
            Some(path) => fs::read_to_string(path).map_err(KernelsError::io(path))?,
            None => format!("{BARE}{BASE}"),
        };
        Ok(format!("{base}\n{}", self.fragments()?))
    }

    fn fragments(&self) -> Result<String> {
        self.settings.fragments.iter().map(|path| recipe::fragment(Some(path))).collect()
    }

    /// The cached result of an earlier build.
    pub fn find(&self, key: &str) -> Option<BuildResult> {
        let place = self.products.join(key);
        touch(&place);
        if let Ok(why) = fs::read_to_string(place.join("failed")) {
            return Some(BuildResult::Cannot(why));
        }
        product(&place).ok().map(|kernel| BuildResult::Kernel(Box::new(kernel)))
    }

    /// Builds the current commit, and caches the result.
    ///
    /// # Errors
    /// A failure of the host: a tool is missing, the disk is full, or the build was interrupted.
    pub fn build(&self, key: &str) -> Result<BuildResult> {
        fs::create_dir_all(&self.products).map_err(KernelsError::io(&self.products))?;
        super::cache::reserve(&self.products, SPACE)?;
        let stage = tempfile::Builder::new().prefix(".stage-").tempdir_in(&self.products);
        let stage = stage.map_err(KernelsError::io(&self.products))?;
        let path = stage.path().join("build.log");
        let log = File::options().create(true).read(true).append(true).open(&path).map_err(KernelsError::io(&path))?;
        let failed = match self.configure(&log)? {
            None => self.compile(&log)?,
            lost => lost,
        };
        match failed {
            Some(why) => {
                let path = stage.path().join("failed");
                fs::write(&path, why).map_err(KernelsError::io(&path))?;
            }
            None => {
                let image = self.tree.join("arch/x86/boot/bzImage");
                let banner = header::banner(&image, lab_base::arch::Architecture::default())?;
                modules::copy_file(&image, &stage.path().join("vmlinuz"))?;
                modules::copy_file(&self.tree.join(".config"), &stage.path().join("config"))?;
                source::install(&self.tree, stage.path(), &banner.release)?;
                modules::index(stage.path(), &banner.release)?;
            }
        }
        let place = self.products.join(key);
        if place.exists() {
            fs::remove_dir_all(&place).map_err(KernelsError::io(&place))?;
        }
        fs::rename(stage.keep(), &place).map_err(KernelsError::io(&place))?;
        self.find(key).ok_or_else(|| KernelsError::BadKernel {
            path: place,
            reason: "was built, but can't be read: build it again".into(),
        })
    }

    /// Writes the configuration and lets Kconfig complete it. Returns the options without an effect.
    fn configure(&self, log: &File) -> Result<Option<String>> {
        let config = self.tree.join(".config");
        let wanted = self.wanted()?;
        let fixed = self.products.join(format!("{}.config", recipe::identity("", &wanted)));
        let target = if fixed.is_file() || self.settings.config.is_some() {
            let text = if fixed.is_file() {
                fs::read_to_string(&fixed).map_err(KernelsError::io(&fixed))?
            } else {
                wanted.clone()
            };
            // make compares its time, so it is written only if it differs.
            if fs::read_to_string(&config).ok().as_ref() != Some(&text) {
                fs::write(&config, text).map_err(KernelsError::io(&config))?;
            }
            "olddefconfig"
        } else {
            "allnoconfig"
        };
        let all = self.products.join("wanted.config");
        fs::write(&all, &wanted).map_err(KernelsError::io(&all))?;
        let make = process::command("make", ["-s", target]).env("KCONFIG_ALLCONFIG", &all);
        if let Some(why) = self.run(make, log)? {
            return Ok(Some(format!("make {target}: {why}")));
        }
        let got = fs::read_to_string(&config).map_err(KernelsError::io(&config))?;
        let lost = recipe::without_effect(&self.fragments()?, &got);
        if !lost.is_empty() {
            return Ok(Some(format!("{} has no effect here", lost.join(", "))));
        }
        if !fixed.is_file() {
            fs::write(&fixed, got).map_err(KernelsError::io(&fixed))?;
        }
        Ok(None)
    }

    fn compile(&self, log: &File) -> Result<Option<String>> {
        let image = self.tree.join("arch/x86/boot/bzImage");
        let command = match &self.settings.command {
            Some(command) => process::command("sh", ["-c", command]),
            None => {
                let jobs = self.settings.jobs.to_string();
                let mut args = vec!["--build", "--verbose", "--jobs", &jobs];
                // Only the image, unless the configuration has modules.
                let config = fs::read_to_string(self.tree.join(".config")).unwrap_or_default();
                if !config.contains("\nCONFIG_MODULES=y\n") {
                    args.push("--skip-modules");
                }
                if lab_base::programs::find("ccache").is_some() {
                    args.push("CC=ccache gcc");
                }
                args.extend(recipe::REPRODUCIBLE);
                process::vng(&self.settings.vng, &self.settings.home, args)
            }
        };
        // Remove results of an earlier commit: the image, and the list by which modules are installed.
        for left in [&image, &self.tree.join("modules.order")] {
            match fs::remove_file(left) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(KernelsError::io(left)(error));
                }
                _ => {}
            }
        }
        match self.run(command, log)? {
            None if !image.is_file() => Ok(Some("the build created no arch/x86/boot/bzImage".to_owned())),
            other => Ok(other),
        }
    }

    /// Runs a part of the build in a process group of its own, so that it can be ended as a whole. Returns why it
    /// failed.
    fn run(&self, command: duct::Expression, log: &File) -> Result<Option<String>> {
        let io = || KernelsError::io(&self.tree);
        let output = log.try_clone().map_err(io())?;
        let command = command.dir(&self.tree).stderr_to_stdout().stdout_file(output);
        let output = process::to_end(&command, |_| (self.stop)());
        let output = output.map_err(|error| process::start_error("the build", "make", &error))?;
        let Some(output) = output else { return Err(KernelsError::Interrupted { what: "the build".to_owned() }) };
        let status = output.status;
        if status.success() {
            return Ok(None);
        }
        let said = said(log)?;
        if status.code().is_none() || HOST.iter().any(|words| said.contains(words)) {
            let detail = format!("{status}: {}", cause(&said));
            return Err(KernelsError::Program { what: "the build".to_owned(), detail });
        }
        Ok(Some(if status.code() == Some(SKIP) { "the build command skips it".to_owned() } else { cause(&said) }))
    }
}

/// The end of a log.
fn said(log: &File) -> Result<String> {
    use std::os::unix::fs::FileExt;
    const TAIL: u64 = 256 << 10;
    let io = || KernelsError::io("the build's log");
    let length = log.metadata().map_err(io())?.len();
    let from = length.saturating_sub(TAIL);
    let mut bytes = vec![0; usize::try_from(length - from).unwrap_or_default()];
    log.read_exact_at(&mut bytes, from).map_err(io())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The line with the cause: the compiler's first error, else make's last line.
fn cause(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let compiler = lines().find(|line| line.contains(" error: ") || line.contains("undefined reference to"));
    let make = || lines().find(|line| line.contains("*** "));
    let line = compiler.or_else(make).or_else(|| lines().next_back()).unwrap_or("no output");
    lab_base::text::line(line, 200)
}

/// Reads a product.
fn product(place: &Path) -> Result<BootableKernel> {
    let vmlinuz = place.join("vmlinuz");
    let banner = header::banner(&vmlinuz, lab_base::arch::Architecture::default())?;
    let class = KernelClass::PREDEFINED
        .into_iter()
        .rev()
        .find(|class| class.holds(banner.version))
        .unwrap_or(KernelClass::Below67);
    // The configuration decides whether the guest's modules keep their signatures.
    let mut identity = Identity::default();
    identity.content(&vmlinuz)?.content(&place.join("config"))?.modules(&place.join("modules"))?;
    let sha256 = identity.finish();
    Ok(BootableKernel {
        architecture: lab_base::arch::Architecture::default(),
        id: Id::new(&format!("commit-{}", &sha256[..12])).expect("letters, a dash and digits"),
        class,
        version: banner.version,
        release: banner.release,
        modules: place.join("modules"),
        config: Some(place.join("config")),
        vmlinuz,
        unsupported: Vec::new(),
        cmdline: Vec::new(),
        memory_mib: None,
        may_fail: false,
        has: Vec::new(),
        believe_probes: None,
        sha256,
    })
}

#[cfg(test)]
#[path = "checkout_tests.rs"]
mod tests;
