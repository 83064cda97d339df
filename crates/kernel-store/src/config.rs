//! `kernels.toml`: the kernels of the matrix and their sources.

use super::{
    class::Class,
    command_line,
    error::{KernelsError, Result},
};
use lab_base::strict_toml::{ConfigError, Origin, Section};
use lab_guard::Id;
use lab_protocol::{Capability, KernelVersion};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
};
use toml_edit::Document;

/// The content of `kernels.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The kernels in file order; never empty.
    pub kernels: Vec<Kernel>,
    /// Mirrors, if not those of the host's apt.
    pub debian: Debian,
    /// Directory to which relative paths in the file refer.
    pub dir: PathBuf,
    /// Keys under a former name, one hint each.
    pub hints: Vec<String>,
}

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

/// A `[kernels."…"]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the kernel in the matrix.
    pub id: Id,
    /// Class that it stands for.
    pub class: Class,
    /// Whether it runs if no kernel is selected.
    pub default: bool,
    /// Whether its failures are reported but do not count, for example of a release candidate.
    pub may_fail: bool,
    pub source: Source,
    /// Capabilities that it lacks though its version says otherwise.
    pub unsupported: Vec<UnsupportedEntry>,
    /// Capabilities that it has though its version says otherwise.
    pub has: Vec<Backport>,
    /// Why its probes are believed and not its version; none where the version counts.
    pub believe_probes: Option<String>,
    /// Extra words for the kernel's command line.
    pub cmdline: Vec<String>,
    /// Guest memory, MiB, if not the default.
    pub memory_mib: Option<u32>,
}

impl Kernel {
    /// Whether a kernel of this version may have this entry's class. The class depends on the capabilities: a kernel that
    /// was built without netkit belongs to the class of kernels before 6.7.
    pub fn fits(&self, version: KernelVersion) -> bool {
        let without_netkit = || self.unsupported.iter().any(|it| it.capability == Capability::Netkit);
        let with_netkit = || self.has.iter().any(|backport| backport.capability == Capability::Netkit);
        match self.class {
            Class::Below67 if with_netkit() => false,
            Class::Below67 | Class::From67 if self.believe_probes.is_some() => true,
            Class::Below67 => self.class.holds(version) || without_netkit(),
            Class::From67 => self.class.holds(version) || with_netkit(),
            Class::Ubuntu2510 | Class::Own(_) => self.class.holds(version),
        }
    }
}

/// A capability that is missing although the version has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedEntry {
    /// What is missing.
    pub capability: Capability,
    /// Why, for reports.
    pub reason: String,
    /// Where that can be looked up.
    pub source: Option<String>,
}

/// A capability that is there although the version does not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backport {
    /// What is there.
    pub capability: Capability,
    /// Why, for reports.
    pub reason: String,
    /// Where that can be looked up.
    pub source: Option<String>,
}

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Debian package.
    Deb {
        /// Suite that contains it.
        suite: String,
        /// Pattern of the package's name; the highest matching version is used.
        package: String,
    },
    /// A kernel compiled from a Debian source package.
    LinuxSource {
        /// Suite that contains it.
        suite: String,
        /// Pattern of the package's name; the highest matching version is used.
        package: String,
        /// Configuration fragment in addition to the lab's own.
        fragment: Option<PathBuf>,
    },
    /// A kernel image on this host.
    Image {
        /// bzImage.
        image: PathBuf,
        /// Its `lib/modules/<release>`.
        modules: Option<PathBuf>,
        /// Its `.config`.
        config: Option<PathBuf>,
    },
    /// A built kernel tree on this host.
    Tree {
        /// Top directory of the tree, or its output directory.
        tree: PathBuf,
    },
    /// A commit of a git repository on this host, built by `vng --build`.
    Git {
        tree: PathBuf,
        /// Branch, tag or commit.
        reference: String,
        /// Configuration fragment in addition to the lab's own.
        fragment: Option<PathBuf>,
    },
    /// A prebuilt mainline kernel that vng downloads.
    Mainline {
        /// `v6.12.43`.
        version: String,
    },
}

impl Source {
    /// The version that follows from the source's name, if any.
    fn promised(&self) -> Option<KernelVersion> {
        match self {
            Self::Deb { package, .. } => package.strip_prefix("linux-image-")?.parse().ok(),
            Self::LinuxSource { package, .. } => package.strip_prefix("linux-source-")?.parse().ok(),
            Self::Mainline { version } => version.parse().ok(),
            Self::Git { reference, .. } => reference.strip_prefix('v')?.parse().ok(),
            Self::Image { .. } | Self::Tree { .. } => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deb { suite, package } => write!(f, "deb {package} ({suite})"),
            Self::LinuxSource { suite, package, .. } => write!(f, "linux-source {package} ({suite})"),
            Self::Image { image, .. } => write!(f, "path {}", image.display()),
            Self::Tree { tree } => write!(f, "path {}", tree.display()),
            Self::Git { tree, reference, .. } => write!(f, "git {reference} ({})", tree.display()),
            Self::Mainline { version } => write!(f, "mainline {version}"),
        }
    }
}

impl Config {
    /// Reads and checks `kernels.toml`.
    ///
    /// # Errors
    /// The file can't be read, or a line is invalid.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(KernelsError::io(path))?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        Ok(Self::parse(&text, &path.display().to_string(), dir)?)
    }

    /// Parses and checks the text of a `kernels.toml`; `file` is its name in messages, `dir` the base of relative paths.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &str, file: &str, dir: PathBuf) -> std::result::Result<Self, ConfigError> {
        let origin = Origin { file, text };
        let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
        let top = Section::open(origin, document.as_table(), None, "the file".into(), &["kernels", "debian"])?;
        let debian = match top.section("debian", "[debian]".into(), &["mirror", "security-mirror", "stale"])? {
            None => Debian::default(),
            Some(section) => debian(&section)?,
        };
        let table = top.section("kernels", "[kernels]".into(), &[])?;
        let (mut kernels, mut hints) = (Vec::new(), Vec::new());
        for id in table.iter().flat_map(Section::keys) {
            let table = table.as_ref().ok_or_else(|| top.missing("kernels"))?;
            kernels.push(kernel(table, id, &dir, &mut hints)?);
        }
        if kernels.is_empty() {
            return Err(origin.error(None, "the matrix is empty: add a [kernels.\"…\"] table"));
        }
        if !kernels.iter().any(|kernel| kernel.default) {
            return Err(origin.error(None, "no kernel has `default = true`: a run without --kernel would do nothing"));
        }
        Ok(Self { kernels, debian, dir, hints })
    }
}

fn debian(section: &Section<'_>) -> std::result::Result<Debian, ConfigError> {
    let mut stale = BTreeMap::new();
    if let Some(table) = section.section("stale", "`stale` of [debian]".into(), &[])? {
        for suite in table.keys() {
            stale.insert(suite.to_owned(), table.required(suite)?.to_owned());
        }
    }
    Ok(Debian {
        mirror: section.text("mirror")?.map(str::to_owned),
        security_mirror: section.text("security-mirror")?.map(str::to_owned),
        stale,
    })
}

const KERNEL_KEYS: &[&str] =
    &["class", "default", "may-fail", "source", "unsupported", "has", "believe", "reason", "cmdline", "memory_mib"];
const FORMER_KEYS: &[&str] = &["departures"];

fn kernel(
    table: &Section<'_>,
    id: &str,
    dir: &Path,
    hints: &mut Vec<String>,
) -> std::result::Result<Kernel, ConfigError> {
    let wrong = "must be 1 to 64 of a-z A-Z 0-9 . _ + - and begin with a letter or digit";
    let Some(checked) = Id::new(id).ok().filter(|_| is_file_name(id)) else {
        return Err(table.error_at(id, format!("kernel id {id:?} {wrong}")));
    };
    let name = format!("[kernels.\"{id}\"]");
    let section = table.section_with(id, name.clone(), KERNEL_KEYS, FORMER_KEYS)?.ok_or_else(|| table.missing(id))?;
    let class = class(&section, &name)?;
    if let Some(near) = class.near() {
        let hint = format!("class `{class}` of {name} is one of the project's own; did you mean `{near}`?");
        hints.push(section.error_at("class", hint).to_string());
    }
    let source = source(&section, &name, dir)?;
    let cmdline: Vec<String> = section.texts("cmdline")?.into_iter().map(str::to_owned).collect();
    if let Some(word) = cmdline.iter().find(|word| !is_cmdline_word(word)) {
        let message =
            format!("{word:?} in `cmdline` of {name} must be one word without quotes, one list entry per word");
        return Err(section.error_at("cmdline", message));
    }
    let kernel = Kernel {
        id: checked,
        class,
        default: section.flag("default")?,
        may_fail: section.flag("may-fail")?,
        source,
        unsupported: merged(unsupported(&section, &name, hints)?, command_line::taken(&cmdline)),
        has: backports(&section, &name)?,
        believe_probes: believed(&section, &name)?,
        cmdline,
        memory_mib: section.number("memory_mib", 128..65_537)?,
    };
    if let Some(both) =
        kernel.has.iter().find(|it| kernel.unsupported.iter().any(|gone| gone.capability == it.capability))
    {
        let message =
            format!("{name} lists `{}` under `has` and under `unsupported`: drop one of them", both.capability);
        return Err(section.error_at("has", message));
    }
    match kernel.source.promised().filter(|version| !kernel.fits(*version)) {
        None => Ok(kernel),
        Some(version) => {
            let message =
                format!("{name} is kernel {version}, but class {} is for {}", kernel.class, kernel.class.rule());
            Err(section.error_at("class", message))
        }
    }
}

/// What is listed, and what the command line takes besides.
fn merged(mut listed: Vec<UnsupportedEntry>, taken: Vec<command_line::Taken>) -> Vec<UnsupportedEntry> {
    for command_line::Taken { capability, reason, source } in taken {
        if !listed.iter().any(|it| it.capability == capability) {
            listed.push(UnsupportedEntry { capability, reason, source: Some(source.to_owned()) });
        }
    }
    listed
}

fn class(section: &Section<'_>, name: &str) -> std::result::Result<Class, ConfigError> {
    let text = section.required("class")?;
    if !is_file_name(text) {
        let message =
            format!("class {text:?} of {name} must be 1 to 64 of a-z A-Z 0-9 . _ + - and begin with a letter or digit");
        return Err(section.error_at("class", message));
    }
    Class::named(text).map_err(|meant| {
        section.error_at("class", format!("unknown class `{text}` in {name}; did you mean `{meant}`?"))
    })
}

fn unsupported(
    section: &Section<'_>,
    name: &str,
    hints: &mut Vec<String>,
) -> std::result::Result<Vec<UnsupportedEntry>, ConfigError> {
    let key = section.renamed("unsupported", "departures")?;
    if key != "unsupported" {
        // As an error, for the file and the line.
        hints.push(section.error_at(key, format!("`{key}` in {name} is deprecated: use `unsupported`")).to_string());
    }
    let known = Capability::ALL.map(|capability| (capability.name(), capability));
    let mut found: Vec<UnsupportedEntry> = Vec::new();
    for table in section.sections(key, &format!("{key} of {name}"), &["capability", "reason", "source"])? {
        let capability = table.word("capability", &known)?;
        if found.iter().any(|it| it.capability == capability) {
            return Err(table.error_at("capability", format!("{name} lists `{capability}` as unsupported twice")));
        }
        let reason = table.required("reason")?.to_owned();
        found.push(UnsupportedEntry { capability, reason, source: table.text("source")?.map(str::to_owned) });
    }
    Ok(found)
}

/// `has`: names of capabilities, for which the kernel's own `reason` stands, or tables with a reason each.
fn backports(section: &Section<'_>, name: &str) -> std::result::Result<Vec<Backport>, ConfigError> {
    let known = Capability::ALL.map(|capability| (capability.name(), capability));
    let mut found: Vec<Backport> = Vec::new();
    if let Ok(names) = section.texts("has") {
        for text in names {
            let capability = known.iter().find(|(name, _)| *name == text).map(|(_, capability)| *capability);
            let capability = capability.ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let message = format!("`{text}` in `has` of {name} is not a capability (wanted: {})", names.join(", "));
                section.error_at("has", message)
            })?;
            let reason = reason(section, name, "has")?;
            found.push(Backport { capability, reason, source: None });
        }
    } else {
        for table in section.sections("has", &format!("has of {name}"), &["capability", "reason", "source"])? {
            let capability = table.word("capability", &known)?;
            let reason = table.required("reason")?.to_owned();
            found.push(Backport { capability, reason, source: table.text("source")?.map(str::to_owned) });
        }
    }
    for (at, backport) in found.iter().enumerate() {
        if found[..at].iter().any(|it| it.capability == backport.capability) {
            return Err(section.error_at("has", format!("{name} lists `{}` under `has` twice", backport.capability)));
        }
    }
    Ok(found)
}

/// `believe`, which takes `"probes"`, and the reason for it.
fn believed(section: &Section<'_>, name: &str) -> std::result::Result<Option<String>, ConfigError> {
    if section.text("believe")?.is_none() {
        if section.text("reason")?.is_some() && !section.keys().any(|key| key == "has") {
            let message = format!("`reason` of {name} is one for `believe` or `has`, and there is neither");
            return Err(section.error_at("reason", message));
        }
        return Ok(None);
    }
    section.word("believe", &[("probes", ())])?;
    reason(section, name, "believe").map(Some)
}

fn reason(section: &Section<'_>, name: &str, of: &str) -> std::result::Result<String, ConfigError> {
    let reason = section.text("reason")?.map(str::to_owned);
    let why = || format!("`{of}` of {name} needs a `reason`: why the version does not tell what this kernel has");
    reason.ok_or_else(|| section.error_at(of, why()))
}

const SOURCE_KINDS: &[&str] = &["deb", "linux-source", "path", "git", "mainline"];

fn source(kernel: &Section<'_>, name: &str, dir: &Path) -> std::result::Result<Source, ConfigError> {
    let section = kernel.section("source", format!("`source` of {name}"), SOURCE_KINDS)?;
    let section = section.ok_or_else(|| kernel.missing("source"))?;
    let mut kinds = section.keys();
    let (Some(kind), None) = (kinds.next(), kinds.next()) else {
        let message = format!("`source` of {name} must have exactly one of: {}", SOURCE_KINDS.join(", "));
        return Err(kernel.error_at("source", message));
    };
    let table = |allowed: &[&str]| {
        let table = section.section(kind, format!("`{kind}` source of {name}"), allowed)?;
        table.ok_or_else(|| section.missing(kind))
    };
    let at = |path: &str| dir.join(path);
    match kind {
        "deb" | "linux-source" => {
            let built = kind == "linux-source";
            let table = table(if built { &["suite", "package", "fragment"] } else { &["suite", "package"] })?;
            let (suite, package) = (table.required("suite")?, table.required("package")?);
            if !is_file_name(suite) {
                return Err(table.error_at("suite", format!("{suite:?} in {name} is not a suite's name")));
            }
            if let Err(error) = globset::Glob::new(package) {
                return Err(table.error_at("package", format!("`package` in {name}: {}", error.kind())));
            }
            let (suite, package) = (suite.to_owned(), package.to_owned());
            if built {
                return Ok(Source::LinuxSource { suite, package, fragment: table.text("fragment")?.map(at) });
            }
            Ok(Source::Deb { suite, package })
        }
        "path" => {
            let table = table(&["image", "modules", "config", "tree"])?;
            match (table.text("tree")?, table.text("image")?) {
                (Some(tree), None) if table.keys().count() == 1 => Ok(Source::Tree { tree: at(tree) }),
                (None, Some(image)) => Ok(Source::Image {
                    image: at(image),
                    modules: table.text("modules")?.map(at),
                    config: table.text("config")?.map(at),
                }),
                _ => Err(section.error_at(
                    kind,
                    format!("`path` source of {name} wants either `tree` alone, or `image` with optional `modules` and `config`"),
                )),
            }
        }
        "git" => {
            let table = table(&["tree", "ref", "fragment"])?;
            let reference = table.required("ref")?;
            if reference.starts_with('-') {
                return Err(table.error_at("ref", format!("{reference:?} in {name} is not a git revision")));
            }
            Ok(Source::Git {
                tree: at(table.required("tree")?),
                reference: reference.to_owned(),
                fragment: table.text("fragment")?.map(at),
            })
        }
        _ => {
            let table = table(&["version"])?;
            let version = table.required("version")?;
            if !is_mainline_tag(version) {
                let message = format!("{version:?} in {name} must look like v6.12.43 or v6.12-rc1");
                return Err(table.error_at("version", message));
            }
            Ok(Source::Mainline { version: version.to_owned() })
        }
    }
}

/// Ids and suites become file names in the cache and in the results.
pub(super) fn is_file_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

/// A version as vng understands it; `vng --run` would take other text as the path of an image.
fn is_mainline_tag(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let release = text.strip_prefix('v').map(|rest| rest.split_once("-rc").unwrap_or((rest, "0")));
    release.is_some_and(|(numbers, candidate)| {
        numbers.split('.').all(digits) && digits(candidate) && numbers.parse::<KernelVersion>().is_ok()
    })
}

fn is_cmdline_word(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
