//! An agent with its own suite, from a package outside of this workspace: `own-suite/`.

use lab::project::{
    agent_listing::{listing, topologies},
    artifacts::Builder,
    home::Home,
};
use lab_base::facts::Facts;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/own-suite");
const CELLS: [&str; 3] = ["Y01-pod-reaches-host[veth]", "Y01-pod-reaches-host[nk-l2]", "Y01-pod-reaches-host[nk-l3]"];

/// A project whose `lab.toml` names the package. It shares the kernels, eBPF objects and build directory of this project.
fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().unwrap();
    fs::create_dir_all(Path::new(ROOT).join("target")).unwrap();
    for shared in ["ebpf", "kernels", "kernels.lock", "kernels.toml", "target"] {
        symlink(PathBuf::from(ROOT).canonicalize().unwrap().join(shared), project.path().join(shared)).unwrap();
    }
    fs::write(project.path().join("lab.toml"), format!("[agent]\npackage = \"{PACKAGE}\"\n")).unwrap();
    project
}

/// A build would update it otherwise, and a checkout with changes is refused by the test of shards.
#[test]
fn the_packages_lock_is_up_to_date() {
    let mut cargo = Command::new("cargo");
    let output = cargo.args(["metadata", "--locked", "--format-version", "1"]).current_dir(PACKAGE).output().unwrap();
    assert!(
        output.status.success(),
        "run `cargo update --workspace` in {PACKAGE}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn an_agent_with_its_own_suite_needs_at_most_twenty_lines() {
    let source = fs::read_to_string(Path::new(PACKAGE).join("src/main.rs")).unwrap();
    assert!(source.lines().count() <= 20, "{source}");

    let project = project();
    let home = Home::of(project.path());
    let builder = Builder { project: project.path(), home: &home, cache: Path::new("/nonexistent"), say: &|_| {} };
    let agent = builder.agent().unwrap();
    let facts = Facts::below(project.path());
    let listing = listing(&agent, &facts).unwrap();
    let ids: Vec<&str> = listing.cells.iter().map(|cell| cell.id.as_str()).collect();
    assert_eq!(ids, CELLS);
    assert!(listing.canaries.is_empty() && listing.mutants.is_empty(), "the lab's own suite is not in it");
    assert!(listing.cells.iter().all(|cell| cell.topology == "pair" && cell.area == "own"));
    let library = topologies(&agent, &facts).unwrap();
    assert!(library.iter().any(|topology| topology.name == "pair"));
    // A drawing with anything else is stored as text, so that no browser shows it.
    for drawing in library.iter().flat_map(|topology| &topology.drawings) {
        assert!(lab::run::only_draws(drawing.svg.as_bytes()), "{}", drawing.svg);
    }
}

/// Boots a guest; the test fails if it does not boot.
#[test]
fn lab_run_runs_it_on_a_real_guest() {
    let (project, results) = (project(), tempfile::tempdir().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(project.path()).args(["run", "--kernel", "6.17", "--out"]).arg(results.path());
    let output = command.output().unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    let events = fs::read_to_string(results.path().join("latest/events.jsonl")).unwrap();
    for cell in CELLS {
        let finished = events
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .find(|event| event["event"] == "cell-finished" && event["verdict"]["report"]["cell"] == cell);
        let finished = finished.unwrap_or_else(|| panic!("{cell} did not run\n{said}"));
        assert_eq!(finished["verdict"]["outcome"]["outcome"], "passed", "{finished}");
    }
}
