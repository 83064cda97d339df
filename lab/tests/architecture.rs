//! Checks the dependencies between crates and files against docs/architecture.md.

#[path = "support/imports.rs"]
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace crates that each crate may use.
const ARROWS: [(&str, &[&str]); 21] = [
    (
        "lab",
        &[
            "lab-base",
            "lab-guard",
            "lab-image",
            "lab-kernel-store",
            "lab-protocol",
            "lab-record",
            "lab-relay",
            "lab-report",
            "lab-share",
            "lab-vm",
        ],
    ),
    ("lab-report", &["lab-base", "lab-guard", "lab-protocol", "lab-record"]),
    ("lab-vm", &["lab-base", "lab-guard", "lab-protocol", "lab-record"]),
    ("lab-kernel-store", &["lab-base", "lab-guard", "lab-image", "lab-protocol"]),
    ("lab-record", &["lab-base", "lab-guard", "lab-protocol"]),
    ("lab-base", &["lab-guard"]),
    ("lab-image", &["lab-base"]),
    ("lab-guard", &[]),
    ("lab-fuzz", &[]),
    ("hostile-agent", &["lab-protocol"]),
    ("lab-protocol", &[]),
    ("lab-share", &[]),
    ("lab-relay", &[]),
    ("guest-agent", &["lab-protocol", "lab-harness", "lab-relay", "lab-suite"]),
    ("lab-suite", &["lab-harness", "lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink"]),
    ("lab-harness", &["lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink"]),
    ("lab-topology", &["lab-protocol", "lab-netlink"]),
    ("lab-traffic", &["lab-topology"]),
    ("lab-bpf", &["lab-protocol", "lab-abi", "lab-netlink"]),
    ("lab-netlink", &[]),
    ("lab-abi", &[]),
];

/// The crates of the host runner.
const HOST: [&str; 8] =
    ["lab", "lab-base", "lab-record", "lab-kernel-store", "lab-relay", "lab-share", "lab-vm", "lab-report"];

/// A crate of the workspace.
struct Package {
    /// Its directory, relative to the workspace.
    directory: String,
    /// Names of its normal dependencies.
    uses: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

/// Every crate of the workspace by name.
fn packages() -> BTreeMap<String, Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
    let package = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        let uses = all.iter().filter(|it| it["kind"].is_null()).map(|it| text(&it["name"])).collect();
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let directory = manifest.parent().and_then(|it| it.strip_prefix(root()).ok()).expect("below the workspace");
        Package { directory: directory.display().to_string(), uses }
    };
    let all = metadata["packages"].as_array().expect("packages");
    all.iter().map(|it| (text(&it["name"]), package(it))).collect()
}

#[test]
fn crates_use_only_the_allowed_crates() {
    let packages = packages();
    let known: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for name in packages.keys() {
        assert!(known.contains(&&**name), "{name} is not in docs/architecture.md and in this test");
    }
    for (name, allowed) in ARROWS {
        let uses = &packages.get(name).unwrap_or_else(|| panic!("no crate {name}")).uses;
        for used in uses.iter().filter(|used| known.contains(&&***used)) {
            assert!(allowed.contains(&&**used), "{name} uses {used}, which docs/architecture.md does not allow");
        }
    }
}

#[test]
fn the_host_uses_no_crate_of_the_guest() {
    let packages = packages();
    for name in HOST {
        for foreign in ["aya", "aya-obj", "lab-bpf", "lab-suite", "lab-topology", "lab-traffic"] {
            assert!(!packages[name].uses.iter().any(|used| used == foreign), "{name} uses {foreign}");
        }
    }
}

/// `--watch` must miss no source of the agent, shards must agree on every one, and a build is named by the commit that changed
/// one of them.
#[test]
fn the_lists_of_what_agent_and_lab_are_built_from_are_what_cargo_says() {
    use lab::project::sources::{AGENT, LAB};
    for (name, listed) in [("guest-agent", &AGENT[..]), ("lab", &LAB[..])] {
        let listed: BTreeSet<String> = listed.iter().map(|&it| it.to_owned()).collect();
        assert_eq!(listed, built_from(name), "{name} in lab/src/project/sources.rs against cargo metadata");
    }
}

/// Directories of a crate and of those that it uses.
fn built_from(name: &str) -> BTreeSet<String> {
    let packages = packages();
    let (mut waiting, mut directories) = (vec![name.to_owned()], BTreeSet::new());
    while let Some(name) = waiting.pop() {
        if let Some(package) = packages.get(&name)
            && directories.insert(package.directory.clone())
        {
            waiting.extend(package.uses.clone());
        }
    }
    directories
}

/// Known import cycles: the methods of a kernel's run are in several files.
const CIRCLES: [&[&str]; 1] =
    [&["run::autopsy", "run::kernel", "run::kernel::launch", "run::kernel::losses", "run::warm"]];

#[test]
fn there_are_no_import_cycles() {
    let mut seen = Vec::new();
    for name in HOST {
        let source = root().join(&packages()[name].directory).join("src");
        for circle in imports::circles(&source) {
            let known = CIRCLES.iter().any(|known| circle == *known);
            assert!(known, "{name}: these files form an import cycle: {}", circle.join(", "));
            seen.push(circle);
        }
    }
    assert_eq!(seen.len(), CIRCLES.len(), "a cycle no longer exists: remove it from the list");
}
