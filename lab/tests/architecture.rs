//! The arrows between the crates, as docs/architecture.md draws them.

use std::{collections::BTreeMap, process::Command};

/// What each crate may use of the others.
const ARROWS: [(&str, &[&str]); 16] = [
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
    ("lab-base", &[]),
    ("lab-image", &["lab-base"]),
    ("lab-guard", &[]),
    ("lab-protocol", &[]),
    ("guest-agent", &["lab-protocol", "lab-suite"]),
    ("lab-suite", &["lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink"]),
    ("lab-topology", &["lab-protocol", "lab-netlink"]),
    ("lab-traffic", &["lab-topology"]),
    ("lab-bpf", &["lab-protocol", "lab-abi", "lab-netlink"]),
    ("lab-netlink", &[]),
    ("lab-abi", &[]),
];

/// Every workspace crate's normal dependencies, by name.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().expect("dependencies");
        all.iter().filter(|it| it["kind"].is_null()).map(|it| text(&it["name"])).collect()
    };
    packages.iter().map(|package| (text(&package["name"]), normal(package))).collect()
}

#[test]
fn no_arrow_is_added_in_passing() {
    let dependencies = dependencies();
    let known: Vec<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    for name in dependencies.keys() {
        assert!(known.contains(&&**name), "{name} is not in docs/architecture.md and in this test");
    }
    for (name, allowed) in ARROWS {
        let uses = dependencies.get(name).unwrap_or_else(|| panic!("no crate {name}"));
        for used in uses.iter().filter(|used| known.contains(&&***used)) {
            assert!(allowed.contains(&&**used), "{name} uses {used}, which docs/architecture.md does not allow");
        }
    }
}

#[test]
fn the_host_has_nothing_of_a_guest() {
    let uses = &dependencies()["lab"];
    for foreign in ["aya", "aya-obj", "lab-bpf", "lab-suite", "lab-topology", "lab-traffic"] {
        assert!(!uses.iter().any(|used| used == foreign), "lab uses {foreign}");
    }
}

/// `--watch` must miss no source of the agent.
#[test]
fn whatever_the_agent_is_built_from_is_watched() {
    let dependencies = dependencies();
    let (mut waiting, mut closure) = (vec!["guest-agent".to_owned()], Vec::new());
    while let Some(name) = waiting.pop() {
        if let Some(uses) = dependencies.get(&name).filter(|_| !closure.contains(&name)) {
            waiting.extend(uses.clone());
            closure.push(name);
        }
    }
    for name in closure {
        let directory = match name.strip_prefix("lab-") {
            Some("abi") => "crates/ebpf-abi".to_owned(),
            Some(short) => format!("crates/{short}"),
            None => name.clone(),
        };
        assert!(
            lab::project::watch::SOURCES.contains(&&*directory),
            "{name} is part of the agent, and {directory}/ is not watched"
        );
    }
}
