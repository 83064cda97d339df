//! Checks the dependencies between crates and files against docs/architecture.md.

#[path = "support/imports.rs"]
mod imports;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace crates that each crate may use.
const ARROWS: [(&str, &[&str]); 19] = [
    (
        "lab",
        &[
            "lab-base",
            "lab-guard",
            "lab-image",
            "lab-kernel-store",
            "lab-protocol",
            "lab-record",
            "lab-report",
            "lab-vm",
        ],
    ),
    ("lab-report", &["lab-base", "lab-guard", "lab-protocol", "lab-record"]),
    ("lab-vm", &["lab-base", "lab-guard", "lab-protocol", "lab-record"]),
    ("lab-kernel-store", &["lab-base", "lab-guard", "lab-protocol"]),
    ("lab-record", &["lab-base", "lab-guard", "lab-protocol"]),
    ("lab-base", &["lab-guard"]),
    ("lab-image", &["lab-base"]),
    ("lab-guard", &[]),
    ("lab-fuzz", &[]),
    ("hostile-agent", &["lab-protocol"]),
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

/// The crates of the host runner.
const HOST: [&str; 6] = ["lab", "lab-base", "lab-record", "lab-kernel-store", "lab-vm", "lab-report"];

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

/// `--watch` must watch all sources of the agent, and shards must hash all of them.
#[test]
fn the_list_of_the_agents_sources_matches_cargos_metadata() {
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

/// Known import cycles: the methods of a kernel's run are in several files.
const CIRCLES: [&[&str]; 1] = [&[
    "run::autopsy",
    "run::kernel",
    "run::kernel::attempts",
    "run::kernel::launch",
    "run::kernel::losses",
    "run::warm",
]];

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
