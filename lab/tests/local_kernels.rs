//! Kernels of this host whose files do not belong together are refused before any guest boots; what a guest can be given, it
//! is given, however a distribution installs it.

#[path = "support/bzimage.rs"]
mod bzimage;

use bzimage::{RELEASE, image};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const MODULES: [&str; 3] = ["veth", "dummy", "some_other"];

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A project with one kernel of this host and its modules in `m/`.
struct Host(tempfile::TempDir);

impl Host {
    fn new() -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        let matrix = "[kernels.mine]\nclass = \"6.7+\"\ndefault = true\n\
                      source.path = { image = \"bzImage\", modules = \"m\", config = \"config\" }\n";
        fs::write(host.at("kernels.toml"), matrix).unwrap();
        fs::write(host.at("bzImage"), image()).unwrap();
        fs::write(
            host.at("config"),
            "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.12.3 Kernel Configuration\n#\n",
        )
        .unwrap();
        fs::create_dir_all(host.at("m/kernel/net")).unwrap();
        MODULES.iter().for_each(|name| host.module(name, RELEASE));
        host
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.at("m/kernel/net").join(format!("{name}.ko"))
    }

    /// An object file that says for which kernel it was built, as modules do.
    fn module(&self, name: &str, release: &str) {
        let source = self.at(&format!("{name}.c"));
        let text = "__attribute__((section(\".modinfo\"), used)) static const char";
        fs::write(
            &source,
            format!("{text} a[] = \"name={name}\";\n{text} b[] = \"vermagic={release} SMP mod_unload\";\n"),
        )
        .unwrap();
        run("cc", &["-c", source.to_str().unwrap(), "-o", self.file(name).to_str().unwrap()]);
    }

    fn fetch(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("--project")
            .arg(self.0.path())
            .args(["kernels", "fetch"])
            .env("NETKIT_LAB_CACHE", self.at("cache"))
            .env("PATH", lab_base::programs::search_path())
            .output()
            .unwrap()
    }

    /// The cached kernel's modules.dep.
    #[track_caller]
    fn indexed(&self) -> String {
        let output = self.fetch();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let image = Path::new(said.trim_end().rsplit(" at ").next().unwrap());
        fs::read_to_string(image.with_file_name("modules").join("modules.dep")).unwrap()
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) {
        let output = self.fetch();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        let told: Vec<&str> = error.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(
            told.len() == 1 && words.iter().all(|word| told[0].contains(word)),
            "one line with {words:?}:\n{error}"
        );
        let kernels = fs::read_dir(self.at("cache/kernels")).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = kernels.filter(|name| !name.as_encoded_bytes().starts_with(b".lock")).collect();
        assert!(left.is_empty(), "something half made is left: {left:?}");
    }
}

#[test]
fn modules_that_are_links_are_modules() {
    let host = Host::new();
    // NixOS: a tree of links into a store, whole directories among them.
    fs::create_dir_all(host.at("store/deep")).unwrap();
    fs::rename(host.file("veth"), host.at("store/veth.ko")).unwrap();
    symlink("../../../store/veth.ko", host.file("veth")).unwrap();
    fs::rename(host.file("dummy"), host.at("store/deep/dummy.ko")).unwrap();
    symlink("../../../store/deep", host.at("m/kernel/net/linked")).unwrap();
    symlink("/", host.at("m/build")).unwrap();
    symlink("/nonexistent/source", host.at("m/source")).unwrap();
    let indexed = host.indexed();
    assert!(indexed.contains("kernel/net/veth.ko:") && indexed.contains("kernel/net/linked/dummy.ko:"), "{indexed}");
    // Another store, under the same names.
    fs::create_dir(host.at("later")).unwrap();
    fs::copy(host.at("store/veth.ko"), host.at("later/veth.ko")).unwrap();
    fs::remove_file(host.file("veth")).unwrap();
    symlink("../../../later/veth.ko", host.file("veth")).unwrap();
    host.indexed();
    let kernels = fs::read_dir(host.at("cache/kernels")).unwrap().flatten();
    assert_eq!(kernels.filter(|entry| entry.path().join("vmlinuz").is_file()).count(), 2, "it was taken anew");
}

#[test]
fn compressed_modules_are_indexed_whatever_depmod_was_built_with() {
    for (pack, suffix) in [("gzip", "gz"), ("xz", "xz")] {
        let host = Host::new();
        MODULES.iter().for_each(|name| run(pack, &[host.file(name).to_str().unwrap()]));
        assert!(host.at(&format!("m/kernel/net/veth.ko.{suffix}")).is_file());
        let indexed = host.indexed();
        assert!(MODULES.iter().all(|name| indexed.contains(&format!("kernel/net/{name}.ko"))), "{pack}: {indexed}");
    }
}

#[test]
fn files_that_do_not_belong_together_are_refused() {
    let host = Host::new();
    host.module("veth", "6.12.2-mine");
    host.refused(&["kernel mine", "kernel/net/veth.ko", "module of kernel 6.12.2-mine, but the image is 6.12.3-mine"]);

    let host = Host::new();
    fs::write(host.file("veth"), "half").unwrap();
    host.refused(&["kernel mine", "veth.ko"]);

    let host = Host::new();
    run("gzip", &[host.file("dummy").to_str().unwrap()]);
    fs::write(host.at("m/kernel/net/dummy.ko.gz"), b"\x1f\x8b\x08half").unwrap();
    host.refused(&["kernel mine", "dummy.ko.gz"]);

    let host = Host::new();
    symlink("/nonexistent/veth.ko", host.at("m/kernel/net/lost.ko")).unwrap();
    host.refused(&["kernel mine", "m/kernel/net/lost.ko", "is a broken or circular link"]);

    let host = Host::new();
    fs::remove_dir_all(host.at("m/kernel")).unwrap();
    host.refused(&["kernel mine", "contains neither modules nor modules.builtin"]);

    let host = Host::new();
    fs::write(host.at("config"), "#\n# Linux/x86 6.1.3 Kernel Configuration\n").unwrap();
    host.refused(&["kernel mine", "configuration of kernel 6.1.3, but the image is 6.12.3"]);
}
