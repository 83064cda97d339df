//! A git tree that is built like Linux: of its two modules each says whether the guest's cell fails.

use crate::bzimage;
use lab_base::programs;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

/// The version of the image.
pub const VERSION: &str = "6.12.3";
/// What a module contains if the cell fails.
const FAILS: &str = "outcome=fails";
/// Both are modules that guests load.
const NAMES: [&str; 2] = ["veth", "dummy"];

/// A module's content.
#[derive(Clone, Copy)]
pub enum Module {
    /// The cell passes with it; the number tells such modules apart.
    Passes(u32),
    Fails,
}

pub struct Tree {
    path: PathBuf,
    suffix: &'static str,
}

impl Tree {
    pub fn new(scratch: &Path, suffix: &'static str) -> Self {
        let tree = Self { path: scratch.join("linux"), suffix };
        fs::create_dir_all(tree.path.join("kernel")).unwrap();
        tree.git(&["init", "--quiet"]);
        let release = bzimage::RELEASE;
        let makefile = format!(
            "allnoconfig olddefconfig:\n\techo CONFIG_MODULES=y > .config\n\
             modules_install:\n\tmkdir -p $(INSTALL_MOD_PATH)/lib/modules/{release}/kernel\n\
             \tcp kernel/* $(INSTALL_MOD_PATH)/lib/modules/{release}/kernel\n"
        );
        fs::write(tree.path.join("Makefile"), makefile).unwrap();
        fs::write(scratch.join("image"), bzimage::image()).unwrap();
        // Linux needs them for its configuration; this tree doesn't.
        for name in ["flex", "bison"] {
            let program = tree.programs().join(name);
            fs::create_dir_all(tree.programs()).unwrap();
            fs::write(&program, "#!/bin/sh\nexit 1\n").unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A directory with programs that the lab wants and the tree doesn't use.
    pub fn programs(&self) -> PathBuf {
        self.path.with_file_name("bin")
    }

    /// Builds the same image of every commit.
    pub fn build_command(&self) -> String {
        let image = self.path.with_file_name("image");
        format!(
            "mkdir -p arch/x86/boot && cp '{}' arch/x86/boot/bzImage && echo kernel/veth.o > modules.order",
            image.display()
        )
    }

    /// Commits the two modules; returns the hash.
    pub fn commit(&self, title: &str, first: Module, second: Module) -> String {
        for (name, module) in NAMES.into_iter().zip([first, second]) {
            let bytes = self.packed(&self.compiled(name, module));
            fs::write(self.path.join(format!("kernel/{name}.ko.{}", self.suffix)), bytes).unwrap();
        }
        self.committed(title)
    }

    /// Commits a change that builds the same files.
    pub fn commit_text(&self, title: &str) -> String {
        fs::write(self.path.join("README"), title).unwrap();
        self.committed(title)
    }

    /// Commits a selftest, which a guest plays.
    pub fn commit_selftest(&self, name: &str) -> String {
        let path = self.path.join("tools/testing/selftests").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.committed("selftests: add one")
    }

    fn committed(&self, title: &str) -> String {
        self.git(&["add", "."]);
        self.git(&["commit", "--quiet", "--message", title]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("-C").arg(&self.path).args(["-c", "user.name=k", "-c", "user.email=k@k.example"]).args(arguments);
        let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn compiled(&self, name: &str, module: Module) -> Vec<u8> {
        let scratch = self.path.parent().unwrap();
        let (source, object) = (scratch.join("module.c"), scratch.join("module.o"));
        let outcome = match module {
            Module::Passes(number) => format!("number={number}"),
            Module::Fails => FAILS.to_owned(),
        };
        let text = "__attribute__((section(\".modinfo\"), used)) static const char";
        let vermagic = format!("vermagic={} SMP mod_unload", bzimage::RELEASE);
        let lines = [format!("name={name}"), vermagic, outcome].into_iter().enumerate();
        let lines: String = lines.map(|(at, line)| format!("{text} a{at}[] = \"{line}\";\n")).collect();
        fs::write(&source, lines).unwrap();
        let built = Command::new("cc").arg("-c").arg(&source).arg("-o").arg(&object).status().unwrap();
        assert!(built.success());
        fs::read(object).unwrap()
    }

    fn packed(&self, bytes: &[u8]) -> Vec<u8> {
        let program = match self.suffix {
            "gz" => "gzip",
            "xz" => "xz",
            _ => return frame(bytes),
        };
        let file = self.path.with_file_name("module");
        fs::write(&file, bytes).unwrap();
        let program = programs::find(program).expect("it is needed for packages");
        // The kernel has no other checksum of xz.
        let how: &[&str] = if self.suffix == "xz" { &["--check=crc32"] } else { &["--no-name"] };
        let output = Command::new(program).args(how).arg("--stdout").arg(file).output().unwrap();
        assert!(output.status.success());
        output.stdout
    }
}

/// A Zstandard frame with one raw block (RFC 8878, sections 3.1.1.1 and 3.1.1.2).
fn frame(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    assert!(length < 128 << 10, "a block is not larger");
    // A single segment, with four bytes of length.
    let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0b1010_0000];
    frame.extend(length.to_le_bytes());
    // The last block, raw.
    frame.extend(&(length << 3 | 1).to_le_bytes()[..3]);
    frame.extend(bytes);
    frame
}

/// Whether a module in the guest's image says that the cell fails. The strings of modules end with a zero.
pub fn fails(image: &Path) -> bool {
    let bytes = fs::read(image).expect("the guest's image");
    bytes.split(|byte| *byte == 0).any(|text| text.ends_with(FAILS.as_bytes()))
}

/// The different images of built commits.
pub fn images(cache: &Path) -> BTreeSet<Vec<u8>> {
    let entries = walkdir::WalkDir::new(cache.join("bisect")).into_iter().flatten();
    let products: Vec<_> = entries.filter(|entry| entry.file_name() == "vmlinuz").map(|it| it.into_path()).collect();
    assert!(products.len() > 1, "{products:?}");
    products.into_iter().map(|path| fs::read(path).unwrap()).collect()
}
