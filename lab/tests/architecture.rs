//! Checks the dependencies between crates and files against docs/architecture.md.

#[path = "support/imports.rs"]
mod imports;
#[path = "support/types.rs"]
mod types;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

/// The workspace crates that each crate may use.
const ARROWS: [(&str, &[&str]); 25] = [
    (
        "lab",
        &[
            "lab-base",
            "lab-check",
            "lab-dialects",
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
    ("lab-dialects", &["lab-base"]),
    ("lab-fuzz", &[]),
    ("hostile-agent", &["lab-protocol"]),
    ("lab-protocol", &[]),
    ("lab-share", &[]),
    ("lab-relay", &[]),
    ("guest-agent", &["lab-protocol", "lab-harness", "lab-relay", "lab-suite"]),
    ("lab-suite", &["lab-harness", "lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink"]),
    ("lab-harness", &["lab-protocol", "lab-topology", "lab-traffic", "lab-bpf", "lab-netlink", "lab-witness"]),
    ("lab-witness", &["lab-protocol", "lab-abi"]),
    ("lab-check", &["lab-protocol"]),
    ("lab-loader", &["lab-bpf", "lab-check", "lab-netlink", "lab-protocol", "lab-topology"]),
    ("lab-topology", &["lab-protocol", "lab-netlink"]),
    ("lab-traffic", &["lab-topology"]),
    ("lab-bpf", &["lab-protocol", "lab-abi", "lab-netlink"]),
    ("lab-netlink", &[]),
    ("lab-abi", &[]),
];

/// The crates of the host runner.
const HOST: [&str; 9] = [
    "lab",
    "lab-base",
    "lab-check",
    "lab-record",
    "lab-kernel-store",
    "lab-relay",
    "lab-share",
    "lab-vm",
    "lab-report",
];

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

/// `--watch` must watch all sources of the agent, shards must agree on them, and a build has the commit that last
/// changed one of them.
#[test]
fn the_lists_of_sources_of_agent_and_lab_agree_with_cargo() {
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

/// Declarations in the sources of every crate of the workspace.
fn declared(of: fn(&Path) -> Vec<types::Declared>) -> Vec<types::Declared> {
    let directories = packages().into_values().map(|package| root().join(package.directory).join("src"));
    directories.flat_map(|source| of(&source)).collect()
}

/// The name of a type must identify it.
#[test]
fn the_name_of_a_public_type_occurs_once() {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let all = declared(types::types);
    assert!(all.len() > 400, "only {} types were found", all.len());
    for it in all {
        places.entry(it.name).or_default().push(it.place);
    }
    places.retain(|_, places| places.len() > 1);
    assert!(places.is_empty(), "give these types names of their own: {places:#?}");
}

/// An error is a type, whose variants a caller can tell apart and whose text is written in one place.
#[test]
fn no_public_function_has_text_for_an_error() {
    let all = declared(types::functions);
    assert!(all.len() > 1000, "only {} functions were found", all.len());
    for (signature, wanted) in [
        ("a() -> Result<(), String> {", true),
        ("b(it: &Result<Vec<(u8, u8)>, String>);", true),
        ("c() -> Result<Result<A, String>, E> {", true),
        ("d(f: impl Fn(&str) -> Result<u32, String>, ) {", true),
        ("e() -> Result<String> {", false),
        ("f() -> Result<(u8, String), E> {", false),
        ("g() -> Result<BTreeMap<u8, String>, E> {", false),
    ] {
        assert_eq!(types::has_text_for_error(signature), wanted, "{signature}");
    }
    let wrong = all.iter().filter(|it| types::has_text_for_error(&it.rest));
    let parsers = declared(types::parsers_with_text_for_error);
    let wrong = wrong.chain(&parsers);
    let found: Vec<String> = wrong.map(|it| format!("{}: {}", it.place, it.name)).collect();
    assert!(found.is_empty(), "give these functions an error type: {found:#?}");
}

#[test]
fn no_error_prints_its_source_and_returns_it() {
    let directories = packages().into_values().map(|package| root().join(package.directory).join("src"));
    let found: Vec<String> = directories.flat_map(|source| types::sources_that_are_printed(&source)).collect();
    assert!(found.is_empty(), "name the field `error` where the text has it: {found:#?}");
}
