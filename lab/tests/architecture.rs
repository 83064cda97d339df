//! The arrows between the crates, as docs/architecture.md draws them.

#[path = "support/imports.rs"]
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// What each crate may use of the others.
const ARROWS: [(&str, &[&str]); 16] = [
    ("lab", &["lab-base", "lab-image", "lab-kernel-store", "lab-protocol", "lab-record", "lab-report", "lab-vm"]),
    ("lab-report", &["lab-base", "lab-protocol", "lab-record"]),
    ("lab-vm", &["lab-base", "lab-protocol", "lab-record"]),
    ("lab-kernel-store", &["lab-base", "lab-image", "lab-protocol"]),
    ("lab-record", &["lab-base", "lab-protocol"]),
    ("lab-base", &[]),
    ("lab-image", &["lab-base"]),
    ("lab-protocol", &[]),
    ("guest-agent", &["lab-protocol", "lab-harness", "lab-suite"]),
    ("lab-suite", &["lab-harness", "lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink"]),
    ("lab-harness", &["lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink"]),
    ("lab-topology", &["lab-protocol", "lab-netlink"]),
    ("lab-traffic", &["lab-topology"]),
    ("lab-bpf", &["lab-protocol", "lab-abi", "lab-netlink"]),
    ("lab-netlink", &[]),
    ("lab-abi", &[]),
];

/// The crates that the host runner consists of.
const HOST: [&str; 6] = ["lab", "lab-base", "lab-record", "lab-kernel-store", "lab-vm", "lab-report"];

/// A crate of the workspace.
struct Package {
    /// Its directory, below the workspace's.
    directory: String,
    /// Normal dependencies, by name.
    uses: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the workspace is there")
}

/// Every crate of the workspace, by name.
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
fn no_arrow_is_added_in_passing() {
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
fn the_host_has_nothing_of_a_guest() {
    let packages = packages();
    for name in HOST {
        for foreign in ["aya", "aya-obj", "lab-bpf", "lab-suite", "lab-topology", "lab-traffic"] {
            assert!(!packages[name].uses.iter().any(|used| used == foreign), "{name} uses {foreign}");
        }
    }
}

/// `--watch` must miss no source of the agent, and shards must agree on every one.
#[test]
fn the_list_of_what_the_agent_is_built_from_is_what_cargo_says() {
    let packages = packages();
    let (mut waiting, mut directories) = (vec!["guest-agent".to_owned()], BTreeSet::new());
    while let Some(name) = waiting.pop() {
        if let Some(package) = packages.get(&name)
            && directories.insert(package.directory.clone())
        {
            waiting.extend(package.uses.clone());
        }
    }
    let listed: BTreeSet<String> = lab::project::sources::AGENT.into_iter().map(str::to_owned).collect();
    assert_eq!(listed, directories, "lab/src/project/sources.rs against cargo metadata");
}

/// Circles that are known: a kernel's run is one type, whose methods lie with what they are about.
const CIRCLES: [&[&str]; 1] = [&[
    "run::autopsy",
    "run::kernel",
    "run::kernel::attempts",
    "run::kernel::launch",
    "run::kernel::losses",
    "run::warm",
]];

#[test]
fn no_two_files_use_each_other_in_a_circle() {
    let mut seen = Vec::new();
    for name in HOST {
        let source = root().join(&packages()[name].directory).join("src");
        for circle in imports::circles(&source) {
            let known = CIRCLES.iter().any(|known| circle == *known);
            assert!(known, "{name}: these files use each other in a circle: {}", circle.join(", "));
            seen.push(circle);
        }
    }
    assert_eq!(seen.len(), CIRCLES.len(), "a circle is gone: drop it from the list");
}
