//! Projects whose kernels come from an archive that the test makes and signs.

use sha2::{Digest, Sha256};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub fn done(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A key of the test's own.
pub struct Signer(tempfile::TempDir);

impl Signer {
    pub fn new() -> Self {
        let signer = Self(tempfile::tempdir().unwrap());
        let generate = ["--passphrase", "", "--quick-generate-key", "archive@lab.example", "ed25519", "sign", "0"];
        done(signer.gpg().args(generate));
        signer
    }

    pub fn gpg(&self) -> Command {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--yes", "--homedir"]).arg(self.0.path());
        gpg
    }

    pub fn export(&self, to: &Path) {
        done(self.gpg().arg("--output").arg(to).args(["--export", "archive@lab.example"]));
    }

    /// Writes a signature of a file.
    #[allow(dead_code, reason = "apt's index has its signature in it")]
    pub fn sign(&self, file: &Path, signature: &Path) {
        done(self.gpg().arg("--output").arg(signature).arg("--detach-sign").arg(file));
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
    }
}

/// A project in a directory of its own, with a cache of its own.
pub struct Project(tempfile::TempDir);

impl Project {
    pub fn new() -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        // depmod is one of the lab's own tools.
        fs::create_dir(project.at("cache")).unwrap();
        symlink(lab_base::paths::cache_dir().unwrap().join("tools"), project.at("cache/tools")).unwrap();
        project
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Uses the agent and the eBPF objects of this checkout, for runs.
    pub fn borrow_build(&self) {
        for name in ["target", "ebpf"] {
            symlink(Path::new(ROOT).canonicalize().unwrap().join(name), self.at(name)).unwrap();
        }
    }

    /// The lab with a cache of its own, unless the guests' is needed.
    pub fn lab(&self, arguments: &[&str], own_cache: bool) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        if own_cache {
            command.env("NETKIT_LAB_CACHE", self.at("cache"));
        }
        command.arg("--project").arg(self.0.path()).args(arguments).env("CI", "true").output().unwrap()
    }

    #[track_caller]
    pub fn fine(&self, arguments: &[&str]) -> String {
        let output = self.lab(arguments, true);
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// The one error of a command, after which the cache has no new kernel.
    #[track_caller]
    pub fn refused(&self, arguments: &[&str]) -> String {
        let before = self.kernels();
        let output = self.lab(arguments, true);
        let told = text(&output.stderr);
        assert!(!output.status.success(), "{told}");
        assert_eq!(self.kernels(), before, "{told}");
        let errors: Vec<&str> = told.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{told}");
        errors[0].to_owned()
    }

    pub fn kernels(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("cache/kernels")).into_iter().flatten().flatten();
        entries.map(|it| it.file_name().to_string_lossy().into_owned()).filter(|it| !it.starts_with('.')).collect()
    }
}

/// SHA-256, hexadecimal.
pub fn sum(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Builds the agent, and returns release and directory of a kernel of this checkout, unpacked.
pub fn debians_kernel(id: &str) -> (String, PathBuf) {
    let root = Path::new(ROOT).canonicalize().unwrap();
    let lab = |arguments: &[&str]| {
        done(Command::new(env!("CARGO_BIN_EXE_lab")).arg("--project").arg(&root).args(arguments).env("CI", "true"))
    };
    lab(&["build"]);
    let said = lab(&["kernels", "fetch", "--kernel", id]);
    let (before, image) = said.trim_end().rsplit_once(" at ").unwrap();
    (before.rsplit(' ').next().unwrap().to_owned(), Path::new(image).parent().unwrap().to_owned())
}
