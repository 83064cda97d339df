//! test_progs of the kernel's BPF selftests, by single files: each file of `prog_tests` becomes a program of its own.
//!
//! Upstream's Makefile builds all of it at once: a configured kernel, its modules, bpftool and some 700 programs. One file needs the
//! programs that it names, libbpf of the same tree and a few helpers, which takes seconds. Types come from the kernel on which it will run.

use super::{
    cache::WritePurpose,
    config::Kernel,
    error::{KernelsError, Result},
    lockfile::KernelsLock,
    sources::{CLANG, NO_CLANG, SELFTESTS, install_headers, make, wanted},
    store::KernelStore,
};
use lab_base::process;
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

/// The folder of the BPF selftests in `tools/testing/selftests`.
const BPF: &str = "bpf";
/// Helpers that test_progs is linked with, where a file needs them.
const HELPERS: [&str; 13] = [
    "btf_helpers",
    "cap_helpers",
    "cgroup_helpers",
    "disasm",
    "disasm_helpers",
    "jit_disasm_helpers",
    "json_writer",
    "netlink_helpers",
    "network_helpers",
    "test_loader",
    "testing_helpers",
    "trace_helpers",
    "unpriv_helpers",
];
/// The archive of them.
const ARCHIVE: &str = "helpers.a";
/// Debian's package with the C compiler.
const GCC: &str = "gcc";
/// Debian's package with the archiver.
const BINUTILS: &str = "binutils";

/// What is to be built of `prog_tests`.
#[derive(Debug, Clone, Copy)]
pub struct TestProgsBuild<'a> {
    /// Files of `prog_tests`, without `.c`.
    pub files: &'a [String],
    /// Name for what is built for the kernel on which they will run.
    pub place: &'a str,
    /// Type information of that kernel, its section `.BTF`.
    pub types: &'a [u8],
    /// clang.
    pub clang: &'a Path,
    /// bpftool.
    pub bpftool: &'a Path,
    /// Directories with the headers of libelf and zlib, and with both as archives, where they are not those of this host.
    pub elf: Option<(&'a Path, &'a Path)>,
}

/// Where the programs of `prog_tests` for a kernel are built, in a tree's `tools/testing/selftests`. They run there.
pub fn test_progs_dir(selftests: &Path, place: &str) -> PathBuf {
    selftests.join(BPF).join(format!("lab-{place}"))
}

impl KernelStore<'_> {
    /// Builds programs of files of `prog_tests` in the sources of a kernel. What is there already is not built again. Gives those that
    /// can't be built, each with the compiler's reason.
    ///
    /// # Errors
    /// The sources are not on this host, or another build can't be waited for.
    pub fn build_test_progs(
        &self,
        kernel: &Kernel,
        lock: &KernelsLock,
        wants: TestProgsBuild<'_>,
        progress: &dyn Fn(&str),
    ) -> Result<Vec<(String, String)>> {
        let build = || {
            let tree = self.place_of_sources(&wanted(kernel, lock)?);
            let selftests = tree.join(SELFTESTS);
            let place = Place { own: selftests.join(BPF), out: test_progs_dir(&selftests, wants.place), tree, wants };
            let progress = |message: &str| progress(&format!("{}: {message}", kernel.id));
            let missing: Vec<&String> = wants.files.iter().filter(|name| !place.out.join(name).is_file()).collect();
            if missing.is_empty() {
                return Ok(Vec::new());
            }
            let _writing = self.cache.write(WritePurpose::Programs, &progress)?;
            install_headers(&place.tree, &progress)?;
            progress("building the common parts of test_progs");
            match place.prepare() {
                Err(KernelsError::MissingProgram { program, .. }) if program == CLANG => {
                    return Ok(missing.into_iter().map(|name| (name.clone(), NO_CLANG.to_owned())).collect());
                }
                other => other?,
            }
            let mut failed = Vec::new();
            for name in missing {
                progress(&format!("building {name} of {BPF}/prog_tests"));
                match place.build(name) {
                    Ok(()) => {}
                    Err(error @ KernelsError::Interrupted { .. }) => return Err(error),
                    Err(error) => failed.push((name.clone(), error.to_string())),
                }
            }
            Ok(failed)
        };
        build().map_err(|error: KernelsError| self.explain(error, kernel))
    }
}

/// A build.
struct Place<'a> {
    tree: PathBuf,
    /// `tools/testing/selftests/bpf`.
    own: PathBuf,
    /// Where the results go.
    out: PathBuf,
    wants: TestProgsBuild<'a>,
}

/// An option with a path behind it.
fn joined(option: &str, path: impl AsRef<OsStr>) -> OsString {
    let mut word = OsString::from(option);
    word.push(path.as_ref());
    word
}

impl Place<'_> {
    /// Builds what all files need: types, libbpf, helpers.
    fn prepare(&self) -> Result<()> {
        fs::create_dir_all(&self.out).map_err(KernelsError::io(&self.out))?;
        self.make_file("vmlinux.h", || {
            let raw = self.out.join("kernel.btf");
            fs::write(&raw, self.wants.types).map_err(KernelsError::io(&raw))?;
            self.bpftool(["btf".into(), "dump".into(), "file".into(), raw.into(), "format".into(), "c".into()])
        })?;
        let libbpf = self.out.join("libbpf");
        fs::create_dir_all(&libbpf).map_err(KernelsError::io(&libbpf))?;
        let elf = self.wants.elf.map(|(include, _)| joined("-I", include)).unwrap_or_default();
        let mut flags = OsString::from("EXTRA_CFLAGS=-g ");
        flags.push(elf);
        let args = [
            joined("OUTPUT=", libbpf.join("")),
            joined("DESTDIR=", &self.out),
            "prefix=".into(),
            flags,
            libbpf.join("libbpf.a").into(),
            "install_headers".into(),
        ];
        make(&self.tree.join("tools/lib/bpf"), "make libbpf", &args)?;
        if self.out.join(ARCHIVE).is_file() {
            return Ok(());
        }
        let sources = HELPERS.iter().map(|name| (name, self.own.join(format!("{name}.c"))));
        let mut objects = Vec::new();
        for (name, source) in sources.filter(|(_, source)| source.exists()) {
            let object = self.out.join(format!("{name}.o"));
            // A helper that this host can't compile is missed only by the files that call it: the linker says which.
            match self.cc(&self.own, None, &source, &object) {
                Ok(()) => objects.push(object),
                Err(error @ (KernelsError::MissingProgram { .. } | KernelsError::Interrupted { .. })) => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        let archive = self.out.join("helpers.a.part");
        let _ = fs::remove_file(&archive);
        let args =
            [OsString::from("rcs"), archive.clone().into()].into_iter().chain(objects.into_iter().map(Into::into));
        process::capture("ar", BINUTILS, process::command("ar", args))?;
        fs::rename(&archive, self.out.join(ARCHIVE)).map_err(KernelsError::io(&archive))
    }

    /// Builds the program of a file.
    fn build(&self, name: &str) -> Result<()> {
        let source = self.own.join("prog_tests").join(format!("{name}.c"));
        let text = fs::read_to_string(&source).map_err(KernelsError::io(&source))?;
        let makefile = fs::read_to_string(self.own.join("Makefile")).unwrap_or_default();
        let needs = Needs::of(&text);
        for (program, kind) in &needs.skeletons {
            self.skeleton(program, *kind, &makefile)?;
        }
        for program in &needs.objects {
            if self.own.join("progs").join(format!("{program}.c")).is_file() {
                self.object(program)?;
            }
        }
        // The list of tests is another one for each file.
        let list = self.out.join(format!("{name}.tests"));
        fs::create_dir_all(list.join("prog_tests")).map_err(KernelsError::io(&list))?;
        let lines: String = tests_of_file(&text).iter().map(|test| format!("DEFINE_TEST({test})\n")).collect();
        let header = list.join("prog_tests/tests.h");
        fs::write(&header, lines).map_err(KernelsError::io(&header))?;
        let main = self.out.join(format!("{name}.main.o"));
        self.cc(&self.own, Some(&list), &self.own.join("test_progs.c"), &main)?;
        // It includes objects by their names.
        let object = self.out.join(format!("{name}.test.o"));
        self.cc(&self.out, None, &source, &object)?;
        let part = self.out.join(format!("{name}.part"));
        let mut args: Vec<OsString> = vec!["-g".into(), "-rdynamic".into(), object.into(), main.into()];
        args.extend([self.out.join(ARCHIVE).into(), self.out.join("libbpf/libbpf.a").into()]);
        args.extend(self.wants.elf.map(|(_, libraries)| joined("-L", libraries)));
        args.extend(["-lelf", "-lz", "-lrt", "-lpthread", "-o"].map(Into::into));
        args.push(part.clone().into());
        process::capture("cc", GCC, process::command("cc", args))?;
        fs::rename(&part, self.out.join(name)).map_err(KernelsError::io(&part))
    }

    /// Compiles for this host, in a directory.
    fn cc(&self, dir: &Path, first: Option<&Path>, source: &Path, object: &Path) -> Result<()> {
        let tools = self.tree.join("tools");
        let include = [
            self.own.clone(),
            self.out.join("include"),
            self.out.clone(),
            tools.join("lib"),
            tools.join("include"),
            tools.join("arch/x86/include"),
            tools.join("include/uapi"),
        ];
        let elf = self.wants.elf.map(|(include, _)| include.to_owned());
        let dirs = first.map(Path::to_owned).into_iter().chain(include).chain(elf);
        let fixed = ["-g", "-O0", "-rdynamic", "-fno-omit-frame-pointer", "-D_GNU_SOURCE", "-w", "-I."];
        let args = fixed.map(OsString::from).into_iter().chain(dirs.map(|dir| joined("-I", dir)));
        let files = ["-c".into(), source.into(), "-o".into(), object.into()];
        process::capture("cc", GCC, process::command("cc", args.chain(files)).dir(dir))?;
        Ok(())
    }

    /// Compiles an eBPF program, with upstream's flags.
    fn object(&self, program: &str) -> Result<PathBuf> {
        let object = self.out.join(format!("{program}.bpf.o"));
        if object.is_file() {
            return Ok(object);
        }
        let part = self.out.join(format!("{program}.bpf.part"));
        let dirs = [
            self.out.join("include"),
            self.out.clone(),
            self.own.clone(),
            self.tree.join("tools/include/uapi"),
            self.tree.join("usr/include"),
        ];
        let fixed = [
            "-g",
            "-O2",
            "--target=bpf",
            "-mcpu=v3",
            "-mlittle-endian",
            "-std=gnu11",
            "-fno-strict-aliasing",
            "-w",
            "-D__TARGET_ARCH_x86",
            "-D__x86_64__",
            "-DENABLE_ATOMICS_TESTS",
            "-idirafter",
            "/usr/include/x86_64-linux-gnu",
            "-idirafter",
            "/usr/include",
        ];
        let source = self.own.join("progs").join(format!("{program}.c"));
        let args = fixed.map(OsString::from).into_iter().chain(dirs.iter().map(|dir| joined("-I", dir)));
        let files = ["-c".into(), source.into(), "-o".into(), part.clone().into()];
        let command = process::command(self.wants.clang, args.chain(files)).dir(&self.own);
        process::capture(CLANG, "clang-19", command)?;
        fs::rename(&part, &object).map_err(KernelsError::io(&part))?;
        Ok(object)
    }

    /// Generates the header of an eBPF program.
    fn skeleton(&self, program: &str, kind: SkeletonKind, makefile: &str) -> Result<()> {
        let source = self.own.join("progs").join(format!("{program}.c"));
        // One without a source is linked from several.
        let parts = if source.is_file() { vec![program.to_owned()] } else { linked(makefile, program) };
        let objects = parts.iter().map(|part| self.object(part)).collect::<Result<Vec<_>>>()?;
        self.make_file(&format!("{program}.{}", kind.suffix()), || {
            // Three times, as upstream does it: the last two are the same.
            let mut inputs = objects.clone();
            for round in 1..=3 {
                let out = self.out.join(format!("{program}.linked{round}.o"));
                let words = ["gen".into(), "object".into(), OsString::from(&out)];
                self.bpftool(words.into_iter().chain(inputs.iter().map(OsString::from)))?;
                inputs = vec![out];
            }
            let (light, name) = match kind {
                SkeletonKind::Light => (Some("-L".into()), format!("{program}_lskel")),
                _ => (None, program.to_owned()),
            };
            let words = ["gen".into(), kind.verb().into()].into_iter().chain(light);
            let object = inputs.first().map(OsString::from).unwrap_or_default();
            self.bpftool(words.chain([object, "name".into(), name.into()]))
        })
    }

    /// Runs bpftool, and gives what it prints.
    fn bpftool(&self, words: impl IntoIterator<Item = OsString>) -> Result<String> {
        Ok(process::capture("bpftool", "bpftool", process::command(self.wants.bpftool, words))?)
    }

    /// Makes a file of text, if it is not there.
    fn make_file(&self, name: &str, text: impl FnOnce() -> Result<String>) -> Result<()> {
        let path = self.out.join(name);
        if path.is_file() {
            return Ok(());
        }
        let text = text()?;
        let part = self.out.join(format!("{name}.part"));
        fs::write(&part, text).map_err(KernelsError::io(&part))?;
        fs::rename(&part, &path).map_err(KernelsError::io(&path))
    }
}

/// A header that bpftool generates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum SkeletonKind {
    Usual,
    /// It loads its program without libbpf.
    Light,
    /// Of a program that is linked into others.
    Sub,
}

impl SkeletonKind {
    const ALL: [Self; 3] = [Self::Usual, Self::Light, Self::Sub];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Usual => "skel.h",
            Self::Light => "lskel.h",
            Self::Sub => "subskel.h",
        }
    }

    const fn verb(self) -> &'static str {
        match self {
            Self::Usual | Self::Light => "skeleton",
            Self::Sub => "subskeleton",
        }
    }
}

/// The eBPF programs that a file of `prog_tests` names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    skeletons: BTreeSet<(String, SkeletonKind)>,
    objects: BTreeSet<String>,
}

impl Needs {
    fn of(text: &str) -> Self {
        let mut needs = Self::default();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        for word in text.split(|c| !is_part(c)) {
            let Some((name, rest)) = word.trim_start_matches('.').split_once('.') else { continue };
            if name.is_empty() {
                continue;
            }
            if rest == "bpf.o" {
                needs.objects.insert(name.to_owned());
            }
            let kinds = SkeletonKind::ALL.into_iter().filter(|kind| kind.suffix() == rest);
            needs.skeletons.extend(kinds.map(|kind| (name.to_owned(), kind)));
        }
        needs
    }
}

/// The parts of a linked program: `NAME.skel.h-deps := one.bpf.o two.bpf.o` of the Makefile.
fn linked(makefile: &str, program: &str) -> Vec<String> {
    let start = format!("{program}.skel.h-deps");
    let text = makefile.replace("\\\n", " ");
    let value = text.lines().find_map(|line| line.strip_prefix(&start)?.split_once('=').map(|(_, value)| value));
    value
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.strip_suffix(".bpf.o"))
        .map(str::to_owned)
        .collect()
}

/// The tests of a file of `prog_tests`, as upstream's Makefile finds them: `void test_NAME(void)` and `void serial_test_NAME()` at the
/// beginning of a line.
pub fn tests_of_file(text: &str) -> BTreeSet<String> {
    let one = |line: &str| {
        let rest = line.strip_prefix("void ")?;
        let (name, rest) = rest.strip_prefix("serial_").unwrap_or(rest).strip_prefix("test_")?.split_once('(')?;
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (is_name && rest.trim_start_matches("void").starts_with(')')).then(|| name.to_owned())
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_tests_and_programs() {
        let text = "#include \"test_tc_link.skel.h\"\n#include \"a.lskel.h\"\n#include \"tc_helpers.h\"\n\
                    void serial_test_tc_links_basic(void)\n{\n\topen(\"./test_xdp.bpf.o\");\n}\n\
                    void test_tunnel()\n{ }\nstatic void test_not(void)\nvoid test_with(int x)\n void test_indented(void)\n";
        assert_eq!(tests_of_file(text).into_iter().collect::<Vec<_>>(), ["tc_links_basic", "tunnel"]);
        let needs = Needs::of(text);
        let skeletons = [("a", SkeletonKind::Light), ("test_tc_link", SkeletonKind::Usual)];
        assert_eq!(needs.skeletons, skeletons.map(|(name, kind)| (name.to_owned(), kind)).into());
        assert_eq!(needs.objects, ["test_xdp".to_owned()].into());
    }

    #[test]
    fn a_linked_program_has_the_parts_of_the_makefile() {
        let makefile = "x := y\nlinked_vars.skel.h-deps := linked_vars1.bpf.o \\\n\tlinked_vars2.bpf.o\n";
        assert_eq!(linked(makefile, "linked_vars"), ["linked_vars1", "linked_vars2"]);
        assert!(linked(makefile, "linked_maps").is_empty());
    }
}
