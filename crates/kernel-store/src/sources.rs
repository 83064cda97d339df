//! The sources of a kernel as far as its selftests need them, in the cache.

use super::{
    apt::Apt,
    cache::WritePurpose,
    config::Kernel,
    error::{KernelsError, Result},
    lockfile::KernelsLock,
    packages::ArchivePackage,
    source::{LocalKernel, Locked, LockedPackage, Source},
    store::KernelStore,
};
use lab_base::{arch::Architecture, file::touch, process};
use lab_guard::private;
use lab_protocol::KernelVersion;
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

/// Directory of unpacked sources below the cache.
pub const SOURCES: &str = "sources";
/// What is kept: the selftests, and what `make headers` and their programs are built from.
const KEPT: [&str; 15] = [
    "Kbuild",
    "Kconfig",
    "Makefile",
    "arch/x86",
    "include",
    // The disassembler and the JSON writer of test_progs.
    "kernel/bpf",
    "scripts",
    "tools/arch",
    "tools/bpf/bpftool",
    "tools/build",
    "tools/include",
    "tools/lib",
    "tools/scripts",
    "tools/testing/selftests",
    "usr",
];
/// What selftests in Python speak netlink with, and the first version that has it ("net: add basic C code generators for Netlink").
const YNL: [&str; 2] = ["Documentation/netlink/specs", "tools/net/ynl"];
const SINCE_YNL: KernelVersion = KernelVersion::new(6, 3, 0);
/// Counts changes of what is kept: a tree that an earlier lab unpacked is not used.
const LAYOUT: u32 = 3;
/// Where the selftests are in a kernel tree.
pub(super) const SELFTESTS: &str = "tools/testing/selftests";
/// Name of the compiler in errors.
pub(super) const CLANG: &str = "clang";
/// Why an eBPF program is not built without it.
pub(super) const NO_CLANG: &str = "there is no clang: `lab setup --tests` provides it";
/// Disk space for the package and what is kept of it, bytes: 6.12 needs 0.6 GiB.
const SPACE: u64 = 1 << 30;

/// What compiles eBPF programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfCompiler {
    /// clang.
    pub clang: PathBuf,
    /// Directories with libbpf's headers, `bpf/bpf_helpers.h`.
    pub includes: Vec<PathBuf>,
}

/// What is to be built of a collection of selftests.
#[derive(Debug, Clone, Copy)]
pub struct SelftestBuild<'a> {
    /// `net`, for example.
    pub collection: &'a str,
    /// Programs by name, and eBPF objects (`.o`) by their path from the collection on ([`object_source`]).
    pub files: &'a [String],
    /// Compiles the objects.
    pub compiler: &'a BpfCompiler,
}

/// The package with a kernel's sources.
pub(super) struct Wanted<'a> {
    suite: &'a str,
    package: String,
    version: &'a str,
    kernel: KernelVersion,
    /// Its checksum, if the lock has it. That of another package's sources comes from the signed index.
    sha256: Option<&'a str>,
}

impl KernelStore<'_> {
    /// The tree with the selftests of a kernel, if it is on this host already.
    ///
    /// # Errors
    /// The kernel is not locked, or it comes from nowhere that has packaged sources.
    pub fn known_sources(&self, kernel: &Kernel, lock: &KernelsLock) -> Result<Option<PathBuf>> {
        if let Source::Path(LocalKernel::Tree { tree }) = &kernel.source {
            return Ok(Some(tree.clone()));
        }
        let wanted = wanted(kernel, lock).map_err(|error| error.of(&kernel.id))?;
        let place = self.place_of_sources(&wanted);
        if !place.is_dir() {
            return Ok(None);
        }
        touch(&place);
        Ok(Some(place))
    }

    /// The tree with the selftests of a kernel: of a built tree that tree itself, of a Debian package the sources that it was built
    /// from, which are downloaded and unpacked the first time.
    ///
    /// # Errors
    /// As [`Self::known_sources`], and if the archive no longer has the sources, or they can't be unpacked.
    pub fn sources(&self, kernel: &Kernel, lock: &KernelsLock, progress: &dyn Fn(&str)) -> Result<PathBuf> {
        if let Some(known) = self.known_sources(kernel, lock)? {
            return Ok(known);
        }
        let fetch = || {
            let wanted = wanted(kernel, lock)?;
            let progress = |message: &str| progress(&format!("{}: {message}", kernel.id));
            let writing = self.cache.write(WritePurpose::Fetch, &progress)?;
            let place = self.place_of_sources(&wanted);
            // Another run may have unpacked them while this one waited.
            if place.is_dir() {
                return Ok(place);
            }
            writing.reserve(SPACE)?;
            let apt = Apt::new(writing.root(), &self.config.debian, wanted.suite, Architecture::default())?;
            let found = match find(&apt.kernels()?, &wanted) {
                Ok(found) => found,
                Err(_) => {
                    apt.update(&progress)?;
                    find(&apt.kernels()?, &wanted)?
                }
            };
            let stage = writing.stage()?;
            let locked = LockedPackage {
                suite: wanted.suite,
                pattern: &wanted.package,
                package: &wanted.package,
                version: &found.version,
                sha256: wanted.sha256.unwrap_or(&found.sha256),
                kernel: wanted.kernel,
                whole: true,
                parts: &[],
            };
            let deb = locked.get(&writing, &apt, (locked.package, locked.sha256), stage.path(), &progress)?;
            progress(&format!("unpacking the selftests of {} {}", wanted.package, found.version));
            let tree = unpack(&deb, stage.path(), &wanted)?;
            let parent = self.cache.root().join(SOURCES);
            private::keep(&parent)?;
            fs::rename(&tree, &place).map_err(KernelsError::io(&place))?;
            Ok(place)
        };
        fetch().map_err(|error: KernelsError| self.explain(error, kernel))
    }

    /// Builds programs and eBPF objects of a collection of selftests in the sources of a kernel. What is there already is not built
    /// again. Gives those that can't be built, each with the compiler's reason.
    ///
    /// # Errors
    /// The sources are not on this host, or another build can't be waited for.
    pub fn build_selftests(
        &self,
        kernel: &Kernel,
        lock: &KernelsLock,
        wants: SelftestBuild<'_>,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<(String, String)>> {
        let build = || {
            // A tree of a person's is not written to.
            let wanted = wanted(kernel, lock)?;
            let tree = self.place_of_sources(&wanted);
            let dir = tree.join(SELFTESTS).join(wants.collection);
            let progress = |message: &str| progress(&format!("{}: {message}", kernel.id));
            let _writing = self.cache.write(WritePurpose::Programs, &progress)?;
            install_headers(&tree, &progress)?;
            let missing: Vec<&String> = wants.files.iter().filter(|name| !dir.join(name).is_file()).collect();
            if !missing.is_empty() {
                let names: Vec<&str> = missing.iter().map(|name| &***name).collect();
                progress(&format!("building {} of {}", names.join(", "), wants.collection));
            }
            let mut failed = Vec::new();
            for name in missing {
                let built = match name.strip_suffix(".o") {
                    Some(stem) => wants.compiler.compile(&tree, &dir.join(stem)),
                    // lib.mk makes programs by the path of its output, which is the directory itself.
                    None => make(&dir, "make", &[dir.join(name).into()]),
                };
                match built {
                    Ok(()) => {}
                    // Only tests with objects miss a clang.
                    Err(KernelsError::MissingProgram { program, .. }) if program == CLANG => {
                        failed.push((name.clone(), NO_CLANG.to_owned()));
                    }
                    Err(error @ (KernelsError::MissingProgram { .. } | KernelsError::Interrupted { .. })) => {
                        return Err(error);
                    }
                    Err(error) => failed.push((name.clone(), error.to_string())),
                }
            }
            Ok(failed)
        };
        build().map_err(|error: KernelsError| self.explain(error, kernel))
    }

    pub(super) fn place_of_sources(&self, wanted: &Wanted<'_>) -> PathBuf {
        self.cache.root().join(SOURCES).join(format!("{}-{}-{LAYOUT}", wanted.package, wanted.version))
    }
}

impl BpfCompiler {
    /// The compiler's arguments before the source.
    pub fn arguments(&self) -> impl Iterator<Item = OsString> {
        let fixed = ["-target", "bpf", "-O2", "-g", "-c"].map(OsString::from);
        fixed.into_iter().chain(self.includes.iter().flat_map(|dir| ["-I".into(), dir.into()]))
    }

    /// Compiles an object of a kernel's tree, with that kernel's headers. The selftests' own rule builds
    /// libbpf and bpftool first, of which the objects need the headers only.
    fn compile(&self, tree: &Path, stem: &Path) -> Result<()> {
        let source = object_source(stem);
        let object = suffixed(stem, ".o");
        let part = suffixed(stem, ".o.part");
        let own = [OsString::from("-I"), tree.join("usr/include").into()];
        // uapi headers take libc's, which look for those of the architecture that they are told.
        let libc = ["-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include", "-D__x86_64__"];
        let files = [source.into(), "-o".into(), part.clone().into()];
        let args = own.into_iter().chain(self.arguments()).chain(libc.map(OsString::from)).chain(files);
        process::capture(CLANG, "clang-19", process::command(&self.clang, args))?;
        fs::rename(&part, &object).map_err(KernelsError::io(&object))
    }
}

/// The source of an eBPF object, which is named without its `.o`: beside it, or in `progs` of the BPF selftests.
pub fn object_source(stem: &Path) -> PathBuf {
    let name = stem.file_name().unwrap_or_default().to_string_lossy();
    match (stem.parent(), name.strip_suffix(".bpf")) {
        (Some(dir), Some(program)) if dir.ends_with("bpf") && !suffixed(stem, ".c").is_file() => {
            dir.join("progs").join(format!("{program}.c"))
        }
        _ => suffixed(stem, ".c"),
    }
}

/// A path with more behind its name.
fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The package that has the sources of a locked one: Debian builds both from one source package, with one version.
pub(super) fn wanted<'a>(kernel: &Kernel, lock: &'a KernelsLock) -> Result<Wanted<'a>> {
    let none = || KernelsError::NoSelftests { origin: kernel.source.to_string() };
    if !kernel.source.get().is_locked() {
        return Err(none());
    }
    match lock.entry(kernel)? {
        Locked::Deb(deb) => Ok(Wanted {
            suite: &deb.suite,
            package: format!("linux-source-{}.{}", deb.kernel.major, deb.kernel.minor),
            version: &deb.version,
            kernel: deb.kernel,
            sha256: None,
        }),
        Locked::LinuxSource(locked) => Ok(Wanted {
            suite: &locked.suite,
            package: locked.package.clone(),
            version: &locked.version,
            kernel: locked.kernel,
            sha256: Some(&locked.sha256),
        }),
        _ => Err(none()),
    }
}

/// Installs the headers for programs in the sources, if they are not there.
pub(super) fn install_headers(tree: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    if tree.join("usr/include/linux/version.h").is_file() {
        return Ok(());
    }
    progress("installing the headers of its sources (make headers)");
    make(tree, "make headers", &["headers".into()])
}

/// Runs make in a directory of the sources.
pub(super) fn make(dir: &Path, what: &str, targets: &[OsString]) -> Result<()> {
    let args = [OsString::from("-s")].into_iter().chain(targets.iter().cloned());
    process::capture(what, "make", process::command("make", args).dir(dir))?;
    Ok(())
}

/// The version of the archive, or what it has instead.
fn find(packages: &[ArchivePackage], wanted: &Wanted<'_>) -> Result<ArchivePackage> {
    let exact = packages.iter().find(|it| it.name == wanted.package && it.version == wanted.version);
    exact.cloned().ok_or_else(|| {
        let versions: Vec<&str> =
            packages.iter().filter(|it| it.name == wanted.package).map(|it| &*it.version).collect();
        let others = packages.iter().map(|it| &*it.name).filter(|name| name.starts_with("linux-source-"));
        let mut others: Vec<&str> = others.collect();
        others.dedup();
        let available = match (&versions[..], &others[..]) {
            ([], []) => "no sources of kernels".to_owned(),
            ([], names) => names.join(", "),
            (versions, _) => versions.join(", "),
        };
        KernelsError::NoSources {
            package: wanted.package.clone(),
            version: wanted.version.to_owned(),
            suite: wanted.suite.to_owned(),
            available,
        }
    })
}

/// Unpacks what is kept, into a directory of the stage.
fn unpack(deb: &Path, stage: &Path, wanted: &Wanted<'_>) -> Result<PathBuf> {
    let package = &wanted.package;
    let ynl = YNL.iter().filter(|_| wanted.kernel >= SINCE_YNL);
    let (files, tree) = (stage.join("package"), stage.join("tree"));
    fs::create_dir(&tree).map_err(KernelsError::io(&tree))?;
    let args = ["-x".as_ref(), deb.as_os_str(), files.as_os_str()];
    process::capture("dpkg-deb -x", "dpkg", process::command("dpkg-deb", args))?;
    fs::remove_file(deb).map_err(KernelsError::io(deb))?;
    let archive = files.join("usr/src").join(format!("{package}.tar.xz"));
    let mut args: Vec<OsString> = vec!["-xf".into(), archive.into(), "--strip-components=1".into(), "-C".into()];
    args.push(tree.clone().into());
    args.extend(KEPT.iter().chain(ynl).map(|part| format!("{package}/{part}").into()));
    process::capture("tar", "tar", process::command("tar", &args))?;
    fs::remove_dir_all(&files).map_err(KernelsError::io(&files))?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_another_version_are_no_sources_of_the_kernel() {
        let package = |name: &str, version: &str| ArchivePackage {
            name: name.to_owned(),
            version: version.to_owned(),
            ..ArchivePackage::default()
        };
        let all = [package("linux-source-6.12", "6.12.113-1"), package("linux-source-6.12", "6.12.117-1")];
        let wanted = |name: &str, version: &'static str| Wanted {
            suite: "bookworm-security",
            package: name.to_owned(),
            version,
            kernel: KernelVersion::new(6, 12, 117),
            sha256: None,
        };
        assert_eq!(find(&all, &wanted("linux-source-6.12", "6.12.117-1")).unwrap().version, "6.12.117-1");
        let error = find(&all, &wanted("linux-source-6.12", "6.12.115-1")).unwrap_err().to_string();
        assert!(error.contains("6.12.113-1, 6.12.117-1"), "{error}");
        let error = find(&all, &wanted("linux-source-6.17", "6.17.13-1")).unwrap_err().to_string();
        let line = "bookworm-security has no linux-source-6.17 6.17.13-1; it has linux-source-6.12: name a kernel tree";
        assert!(error.starts_with(line), "{error}");
    }
}
