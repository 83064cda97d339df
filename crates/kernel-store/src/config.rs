//! `kernels.toml`: the kernels of the matrix and their sources.

use super::{
    cache::{Target, WritePurpose},
    class::{ClassRule, KernelClass},
    command_line,
    debian::Debian,
    error::{KernelsError, Result},
    local,
    names::is_file_name,
    source::{Source, build_options},
    variants::{self, VariantTable},
};
use lab_base::{
    arch::Architecture,
    strict_toml::{ConfigError, Origin, Section},
};
use lab_guard::Id;
use lab_protocol::Capability;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use toml_edit::Document;

/// The content of `kernels.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelMatrix {
    /// The kernels in file order; never empty.
    pub kernels: Vec<Kernel>,
    /// Mirrors, if not those of the host's apt.
    pub debian: Debian,
    /// Directory to which relative paths in the file refer.
    pub dir: PathBuf,
    /// Hints about keys with deprecated names, one line each.
    pub hints: Vec<String>,
    /// Ids of the kernels that `kernels.local.toml` has.
    pub local: BTreeSet<String>,
}

/// A `[kernels."…"]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// Name of the kernel in the matrix.
    pub id: Id,
    /// The kernel that it is a variant of.
    pub variant_of: Option<Id>,
    /// The kernel whose files it has, if it has none of its own: its entry in the lock and its place in the cache.
    pub files_of: Option<Id>,
    /// Its class.
    pub class: KernelClass,
    /// Whether it runs if no kernel is selected.
    pub default: bool,
    /// Whether its failures are reported but do not count, for example of a release candidate.
    pub may_fail: bool,
    pub source: Source,
    /// Capabilities that it lacks although its version has them.
    pub unsupported: Vec<UnsupportedEntry>,
    /// Capabilities that it has although its version lacks them.
    pub has: Vec<BackportEntry>,
    /// Reason why its probes decide instead of its version; `None` if the version decides.
    pub believe_probes: Option<String>,
    /// Extra words for the kernel's command line.
    pub cmdline: Vec<String>,
    /// Guest memory, MiB, if not the default.
    pub memory_mib: Option<u32>,
}

impl Kernel {
    /// What a version must be for this entry's class. The class depends on the capabilities: a kernel that was built without
    /// netkit belongs to the class of kernels before 6.7.
    pub fn rule(&self) -> ClassRule {
        ClassRule {
            class: self.class.clone(),
            lacks_netkit: self.unsupported.iter().any(|it| it.capability == Capability::Netkit),
            has_netkit: self.has.iter().any(|backport| backport.capability == Capability::Netkit),
            believes_probes: self.believe_probes.is_some(),
        }
    }

    /// Whether the lab compiles it.
    pub fn is_built(&self) -> bool {
        self.source.get().purpose() == WritePurpose::Build
    }

    /// The architecture of its guests.
    pub fn architecture(&self) -> Architecture {
        self.source.get().architecture()
    }

    /// Whether `lab bisect` steps over it without being asked: a published binary, which is there at once. Two architectures have
    /// no order.
    pub fn is_published(&self) -> bool {
        self.variant_of.is_none() && self.architecture().is_own() && self.source.get().is_published()
    }

    /// The id by which the lock and the cache know its files.
    pub(super) fn stored_as(&self) -> &Id {
        self.files_of.as_ref().unwrap_or(&self.id)
    }

    /// Refuses an entry that contradicts itself.
    pub(super) fn consistent(&self, section: &Section<'_>, name: &str) -> std::result::Result<(), ConfigError> {
        if let Some(both) =
            self.has.iter().find(|it| self.unsupported.iter().any(|gone| gone.capability == it.capability))
        {
            let message =
                format!("{name} lists `{}` under `has` and under `unsupported`: remove one of them", both.capability);
            return Err(section.error_at("has", message));
        }
        match self.source.get().promised().filter(|version| !self.rule().fits(*version)) {
            None => Ok(()),
            Some(version) => {
                let message =
                    format!("{name} is kernel {version}, but class {} is for {}", self.class, self.class.rule());
                Err(section.error_at("class", message))
            }
        }
    }

    /// What its source and the cache need to know of it.
    pub(super) fn target(&self) -> Target {
        Target {
            id: self.stored_as().clone(),
            origin: self.source.to_string(),
            rule: self.rule(),
            architecture: self.architecture(),
        }
    }
}

/// A capability that is missing although the version has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsupportedEntry {
    /// The missing capability.
    pub capability: Capability,
    /// The reason, for reports.
    pub reason: String,
    /// Source of this fact.
    pub source: Option<String>,
}

/// A capability that the kernel has although its version does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackportEntry {
    /// The capability.
    pub capability: Capability,
    /// The reason, for reports.
    pub reason: String,
    /// Source of this fact.
    pub source: Option<String>,
}

impl KernelMatrix {
    /// Reads and checks `kernels.toml`, and merges the file of this machine's own kernels that may be beside it.
    ///
    /// # Errors
    /// A file can't be read, or a line is invalid.
    pub fn load(path: &Path) -> Result<Self> {
        let text = lab_guard::bounded::text(path).map_err(KernelsError::io(path))?;
        let dir = path.parent().unwrap_or(Path::new("")).to_owned();
        let file = path.display().to_string();
        let shared = Self::read(&text, &file, dir)?;
        let merged = match local::text(path)? {
            Some((path, text)) => {
                let own = Self::read(&text, &path.display().to_string(), shared.dir.clone())?;
                shared.over(own)
            }
            None => shared,
        };
        Ok(merged.complete(Origin { file: &file, text: &text })?)
    }

    /// Parses and checks the text of a `kernels.toml`; `file` is its name in messages, `dir` the base of relative
    /// paths.
    ///
    /// # Errors
    /// The first invalid line.
    pub fn parse(text: &str, file: &str, dir: PathBuf) -> std::result::Result<Self, ConfigError> {
        Self::read(text, file, dir)?.complete(Origin { file, text })
    }

    /// The same of a file that is not all of the matrix.
    pub(super) fn read(text: &str, file: &str, dir: PathBuf) -> std::result::Result<Self, ConfigError> {
        let origin = Origin { file, text };
        let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
        let top = Section::open(origin, document.as_table(), None, "the file".into(), &["kernels", "debian"])?;
        let debian = match top.section("debian", "[debian]".into(), Debian::KEYS)? {
            None => Debian::default(),
            Some(section) => Debian::read(&section)?,
        };
        let table = top.section("kernels", "[kernels]".into(), &[])?;
        let (mut kernels, mut hints) = (Vec::new(), Vec::new());
        for id in table.iter().flat_map(Section::keys) {
            let table = table.as_ref().ok_or_else(|| top.missing("kernels"))?;
            kernels.extend(kernel(table, id, &dir, &mut hints)?);
        }
        for (at, kernel) in kernels.iter().enumerate() {
            if let Some(other) = kernels[..at].iter().find(|it| it.id == kernel.id)
                && let Some(table) = &table
            {
                let of = other.variant_of.as_ref().or(kernel.variant_of.as_ref()).unwrap_or(&kernel.id);
                let message = format!("kernel {} is defined twice: once as a variant of {of}", kernel.id);
                return Err(table.error_at(&kernel.id, message));
            }
        }
        Ok(Self { kernels, debian, dir, hints, local: BTreeSet::new() })
    }

    /// With another file's kernels, which replace those of the same ids, and its keys of `[debian]`.
    fn over(self, own: Self) -> Self {
        let mut shared = self;
        // The variants of a kernel that is replaced are variants of files that the lock no longer has.
        shared
            .kernels
            .retain(|it| !it.variant_of.as_ref().is_some_and(|base| own.kernels.iter().any(|own| own.id == *base)));
        for kernel in own.kernels {
            shared.local.insert(kernel.id.to_string());
            match shared.kernels.iter_mut().find(|it| it.id == kernel.id) {
                Some(same) => *same = kernel,
                None => shared.kernels.push(kernel),
            }
        }
        let Debian { mirror, security_mirror, stale } = own.debian;
        shared.debian.mirror = mirror.or(shared.debian.mirror);
        shared.debian.security_mirror = security_mirror.or(shared.debian.security_mirror);
        shared.debian.stale.extend(stale);
        shared.hints.extend(own.hints);
        shared
    }

    /// Refuses a matrix by which a run would do nothing.
    fn complete(self, origin: Origin<'_>) -> std::result::Result<Self, ConfigError> {
        if self.kernels.is_empty() {
            return Err(origin.error(None, "the matrix is empty: add a [kernels.\"…\"] table"));
        }
        if !self.kernels.iter().any(|kernel| kernel.default) {
            return Err(origin.error(None, "no kernel has `default = true`: a run without --kernel would do nothing"));
        }
        Ok(self)
    }
}

const KERNEL_KEYS: &[&str] = &[
    "class",
    "default",
    "may-fail",
    "source",
    "unsupported",
    "has",
    "believe",
    "reason",
    "cmdline",
    "sysctls",
    "memory_mib",
    "variants",
];
const FORMER_KEYS: &[&str] = &["departures"];

fn kernel(
    table: &Section<'_>,
    id: &str,
    dir: &Path,
    hints: &mut Vec<String>,
) -> std::result::Result<Vec<Kernel>, ConfigError> {
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
    let source = Source::read(&section, &name, dir)?;
    let cmdline = [cmdline(&section, &name)?, variants::sysctls(&section, &name)?].concat();
    let listed = unsupported(&section, &name, hints)?;
    let kernel = Kernel {
        id: checked,
        variant_of: None,
        files_of: None,
        class,
        default: section.flag("default")?,
        may_fail: section.flag("may-fail")?,
        source,
        unsupported: merged(listed.clone(), command_line::taken(&cmdline)),
        has: backports(&section, &name)?,
        believe_probes: believed(&section, &name)?,
        cmdline,
        memory_mib: memory(&section)?,
    };
    kernel.consistent(&section, &name)?;
    let variants = variants::read(&section, &kernel.id, |table| variant(&kernel, &listed, &table, dir, hints))?;
    Ok([vec![kernel], variants].concat())
}

/// What a variant's table changes in its kernel.
fn variant(
    kernel: &Kernel,
    listed: &[UnsupportedEntry],
    VariantTable { id, table, title }: &VariantTable<'_>,
    dir: &Path,
    hints: &mut Vec<String>,
) -> std::result::Result<Kernel, ConfigError> {
    let own = [cmdline(table, title)?, variants::sysctls(table, title)?].concat();
    let memory_mib = memory(table)?;
    let build = build_options(table, title, dir)?;
    if own.is_empty() && memory_mib.is_none() && build.is_empty() {
        let message = format!(
            "{title} differs in nothing: it needs `cmdline`, `sysctls`, `memory_mib`, `fragment`, `selftests` or `modules`"
        );
        return Err(table.error_at("cmdline", message));
    }
    let source = if build.is_empty() { Some(kernel.source.clone()) } else { kernel.source.rebuilt(&build) };
    let source = source.ok_or_else(|| {
        let message = format!(
            "{title} is compiled, which the lab can do of a `linux-source`, of a `git` source (`fragment` only), and of a \
             `deb` for amd64 whose pattern names a series (linux-image-6.12.*); {} is none of these",
            kernel.source
        );
        let key = ["fragment", "selftests", "modules"].into_iter().find(|key| table.keys().any(|it| it == *key));
        table.error_at(key.unwrap_or("fragment"), message)
    })?;
    let words = [&*kernel.cmdline, &own].concat();
    let mut lacks = listed.to_vec();
    for entry in unsupported(table, title, hints)? {
        if lacks.iter().any(|it| it.capability == entry.capability) {
            let message = format!("{title} lists `{}`, which its kernel lists, too: remove one", entry.capability);
            return Err(table.error_at("unsupported", message));
        }
        lacks.push(entry);
    }
    let variant = Kernel {
        id: id.clone(),
        variant_of: Some(kernel.id.clone()),
        files_of: build.is_empty().then(|| kernel.id.clone()),
        source,
        default: table.flag("default")?,
        may_fail: kernel.may_fail || table.flag("may-fail")?,
        unsupported: merged(lacks, command_line::taken(&words)),
        cmdline: words,
        memory_mib: memory_mib.or(kernel.memory_mib),
        ..kernel.clone()
    };
    variant.consistent(table, title)?;
    Ok(variant)
}

/// Reads `cmdline`, a word of the kernel's command line per entry.
fn cmdline(section: &Section<'_>, name: &str) -> std::result::Result<Vec<String>, ConfigError> {
    let words = section.texts("cmdline")?;
    match words.iter().find(|word| !is_cmdline_word(word)) {
        None => Ok(words.into_iter().map(str::to_owned).collect()),
        Some(word) => {
            let message =
                format!("{word:?} in `cmdline` of {name} must be one word without quotes, one list entry per word");
            Err(section.error_at("cmdline", message))
        }
    }
}

/// Reads `memory_mib`.
fn memory(section: &Section<'_>) -> std::result::Result<Option<u32>, ConfigError> {
    section.number("memory_mib", 128..65_537)
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

fn class(section: &Section<'_>, name: &str) -> std::result::Result<KernelClass, ConfigError> {
    let text = section.required("class")?;
    if !is_file_name(text) {
        let message =
            format!("class {text:?} of {name} must be 1 to 64 of a-z A-Z 0-9 . _ + - and begin with a letter or digit");
        return Err(section.error_at("class", message));
    }
    KernelClass::named(text).map_err(|meant| {
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
        // Created as an error, which has the file and the line.
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

/// Reads `has`: names of capabilities, to which the kernel's own `reason` applies, or tables with a reason each.
fn backports(section: &Section<'_>, name: &str) -> std::result::Result<Vec<BackportEntry>, ConfigError> {
    let known = Capability::ALL.map(|capability| (capability.name(), capability));
    let mut found: Vec<BackportEntry> = Vec::new();
    if let Ok(names) = section.texts("has") {
        for text in names {
            let capability = known.iter().find(|(name, _)| *name == text).map(|(_, capability)| *capability);
            let capability = capability.ok_or_else(|| {
                let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                let message =
                    format!("`{text}` in `has` of {name} is not a capability (expected: {})", names.join(", "));
                section.error_at("has", message)
            })?;
            let reason = reason(section, name, "has")?;
            found.push(BackportEntry { capability, reason, source: None });
        }
    } else {
        for table in section.sections("has", &format!("has of {name}"), &["capability", "reason", "source"])? {
            let capability = table.word("capability", &known)?;
            let reason = table.required("reason")?.to_owned();
            found.push(BackportEntry { capability, reason, source: table.text("source")?.map(str::to_owned) });
        }
    }
    for (at, backport) in found.iter().enumerate() {
        if found[..at].iter().any(|it| it.capability == backport.capability) {
            return Err(section.error_at("has", format!("{name} lists `{}` under `has` twice", backport.capability)));
        }
    }
    Ok(found)
}

/// Reads `believe`, whose only value is `"probes"`, and its reason.
fn believed(section: &Section<'_>, name: &str) -> std::result::Result<Option<String>, ConfigError> {
    if section.text("believe")?.is_none() {
        if section.text("reason")?.is_some() && !section.keys().any(|key| key == "has") {
            let message =
                format!("`reason` of {name} is only used with `believe` or `has`: remove it or add one of them");
            return Err(section.error_at("reason", message));
        }
        return Ok(None);
    }
    section.word("believe", &[("probes", ())])?;
    reason(section, name, "believe").map(Some)
}

fn reason(section: &Section<'_>, name: &str, of: &str) -> std::result::Result<String, ConfigError> {
    let reason = section.text("reason")?.map(str::to_owned);
    let why = || format!("`{of}` of {name} needs a `reason`: why this kernel differs from its version");
    reason.ok_or_else(|| section.error_at(of, why()))
}

fn is_cmdline_word(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\'' | '\\'))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
