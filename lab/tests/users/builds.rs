//! What a fresh checkout compiles, and what it says meanwhile.

use super::{
    bzimage::image,
    support::{stderr, stdout},
};
use lab::project::artifacts::BPF_OBJECTS;
use lab_protocol::{Listing, PROTOCOL_VERSION};
use lab_record::testing::cell;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const AGENT: &str = "target/guest/x86_64-unknown-linux-gnu/release/guest-agent";

/// A checkout with one kernel of this host, and a cargo that notes its calls, takes a while and fails.
struct Checkout(tempfile::TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(checkout.at("guest-agent/src")).unwrap();
        fs::create_dir_all(checkout.at("ebpf")).unwrap();
        fs::create_dir_all(checkout.at("m")).unwrap();
        fs::write(checkout.at("m/modules.builtin"), "kernel/drivers/net/veth.ko\n").unwrap();
        fs::write(checkout.at("bzImage"), image()).unwrap();
        let matrix = "[kernels.mine]\nclass = \"6.7+\"\ndefault = true\n\
                      source.path = { image = \"bzImage\", modules = \"m\" }\n";
        fs::write(checkout.at("kernels.toml"), matrix).unwrap();
        let called = checkout.at("called");
        let script =
            format!("echo \"$*\" >> '{}'; sleep 2; echo 'error: could not compile' >&2; exit 101", called.display());
        program(&checkout.at("bin/cargo"), &script);
        program(&checkout.at("bin/bpf-linker"), "exit 1");
        checkout
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn lab(&self, arguments: &[&str]) -> Output {
        let path = lab_base::programs::search_path().into_string().unwrap();
        Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("--project")
            .arg(self.0.path())
            .args(arguments)
            .env("NETKIT_LAB_CACHE", self.at("cache"))
            .env("CARGO", self.at("bin/cargo"))
            .env("PATH", format!("{}:{path}", self.at("bin").display()))
            .output()
            .unwrap()
    }

    /// The calls of cargo, and forgets them.
    fn called(&self) -> String {
        let called = fs::read_to_string(self.at("called")).unwrap_or_default();
        let _ = fs::remove_file(self.at("called"));
        called
    }

    /// An agent and objects that were built earlier.
    fn build(&self) {
        let listing = Listing {
            protocol: PROTOCOL_VERSION,
            agent: "1".to_owned(),
            cells: vec![cell("B02-second[tcx,veth]")],
            coverage: Vec::new(),
            mutants: Vec::new(),
            canaries: Vec::new(),
        };
        program(&self.at(AGENT), &format!("cat <<'END'\n{}\nEND", serde_json::to_string(&listing).unwrap()));
        let objects = self.at("ebpf/target/bpfel-unknown-none/release");
        fs::create_dir_all(&objects).unwrap();
        BPF_OBJECTS.iter().for_each(|(name, _)| fs::write(objects.join(name), "").unwrap());
    }
}

fn program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_command_that_compiles_says_what() {
    let checkout = Checkout::new();
    for arguments in [&["shell", "mine", "--", "true"][..], &["list"], &["run"], &["build"]] {
        let output = checkout.lab(arguments);
        let told = stderr(&output);
        assert!(!output.status.success() && checkout.called().contains("guest-agent"), "{arguments:?}: {told}");
        let (said, failed) = (told.find("building the guest agent …\n"), told.find("error: "));
        assert!(said.is_some() && said < failed, "{arguments:?}: the line comes before the result: {told}");
        assert!(told.contains("could not compile"), "{arguments:?}: {told}");
    }
}

#[test]
fn lists_compile_nothing_where_something_was_built() {
    let checkout = Checkout::new();
    checkout.build();
    for arguments in [&["list"][..], &["list", "--json"], &["list", "--coverage"]] {
        let output = checkout.lab(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert_eq!(checkout.called(), "", "{arguments:?}");
        assert!(!stderr(&output).contains("building"), "{arguments:?}: {}", stderr(&output));
    }
    let output = checkout.lab(&["list"]);
    assert!(stdout(&output).contains("B02-second"), "{}", stdout(&output));
    // A source that changed since is named, and still nothing is compiled.
    let agent = fs::metadata(checkout.at(AGENT)).unwrap().modified().unwrap();
    let source = checkout.at("guest-agent/src/main.rs");
    fs::write(&source, "").unwrap();
    let later = agent + std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&source).unwrap().set_modified(later).unwrap();
    let output = checkout.lab(&["list"]);
    assert!(output.status.success() && checkout.called().is_empty(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("guest-agent/src/main.rs has changed since the agent was built; `lab build`"),
        "{}",
        stderr(&output)
    );
}
