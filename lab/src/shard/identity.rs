//! Hashes of everything on which machines that run shards of one plan must agree.

use crate::error::Error;
use crate::project::{
    agent_package::AgentPackage,
    artifacts::{ArtifactError, Artifacts},
    home::{self, Home},
    sources,
};
use lab_base::hex::hex;
use lab_protocol::{CellInfo, Raw, Work};
use lab_record::plan::Plan;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// Files that results depend on in addition to the sources of the programs in guests: versions and settings of
/// compilers, the lab itself, and configuration of kernels.
const BESIDE: [&str; 7] = ["Cargo.lock", "Cargo.toml", "rust-toolchain.toml", ".cargo", "kernels", "lab", "crates"];
/// Files that decide which failures count.
const LISTS: [&str; 2] = [crate::lists::SPLATS_TOML, crate::lists::KNOWN_TOML];

/// Hashes of the plan's cells, its kernels, the durations that it is split by, and the sources of the programs in
/// guests. Each hash has a readable name, for the error about shards that do not belong together.
///
/// # Errors
/// A source can't be read.
pub fn identity(
    project: &Path,
    home: &Home,
    artifacts: &Artifacts,
    plan: &Plan,
    identities: &BTreeMap<String, String>,
    durations: &impl Serialize,
) -> Result<BTreeMap<String, String>, Error> {
    let kernels: Vec<_> = plan.kernels.iter().map(|kernel| &kernel.facts).collect();
    let cells: Vec<_> = plan.kernels.iter().map(|kernel| &kernel.cells).collect();
    let own: Vec<_> = plan.cells.iter().map(everywhere).collect();
    let parts = [
        ("the cells", hash(&(own, cells, plan.full_matrix, &plan.others))),
        ("the kernels", hash(&(kernels, identities))),
        ("the recorded durations", hash(durations)),
        match home {
            Home::Checkout(root) => ("the sources", sources(root, project)?),
            Home::Installed { .. } => ("the installed lab", build(artifacts)?),
        },
        ("splats.toml and known.toml", files(project, LISTS)?),
    ];
    Ok(parts.into_iter().map(|(name, hash)| (name.to_owned(), hash)).collect())
}

/// A cell, as far as it is the same on every machine, and the words of its command: directories and variables of a command are the
/// machine's.
fn everywhere(cell: &CellInfo) -> (CellInfo, Option<Vec<Raw>>) {
    match &cell.work {
        Work::Program(program) => (CellInfo { work: Work::Case, ..cell.clone() }, Some(program.argv.clone())),
        Work::Case => (cell.clone(), None),
    }
}

/// The names of hashes that differ; `None` if both are equal.
pub(super) fn difference(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Option<String> {
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ: Vec<&str> =
        names.into_iter().filter(|&name| one.get(name) != other.get(name)).map(|it| &**it).collect();
    (!differ.is_empty()).then(|| differ.join(" and "))
}

fn hash(what: &impl Serialize) -> String {
    // Maps of the plan are ordered, so its JSON is canonical.
    short(Sha256::digest(serde_json::to_vec(what).unwrap_or_default()).as_slice())
}

fn files(root: &Path, names: impl IntoIterator<Item = &'static str>) -> Result<String, Error> {
    let own = names.into_iter().map(|name| (root.to_owned(), root.join(name)));
    digest(own.filter(|(_, path)| path.exists()).collect())
}

/// An installed lab and what its guests run, by their bytes: the files of the project have no part in it.
fn build(artifacts: &Artifacts) -> Result<String, Error> {
    let program = home::program().ok_or_else(|| Error::Host("the running program can't be found".to_owned()))?;
    let program = fs::read(&program).map_err(Error::file("read", program))?;
    let mut hasher = Sha256::new();
    hasher.update(Sha256::digest(program));
    for built in [&artifacts.agent].into_iter().chain(artifacts.objects.values()) {
        hasher.update(Sha256::digest(built.bytes().map_err(Error::file("read", built.path()))?));
    }
    Ok(short(hasher.finalize().as_slice()))
}

/// The sources of the lab, of the programs in guests, and of an agent outside of the project.
fn sources(root: &Path, project: &Path) -> Result<String, Error> {
    let own: std::collections::BTreeSet<&str> = sources::all().chain(BESIDE).collect();
    let own = own.into_iter().map(|name| (root.to_owned(), root.join(name))).filter(|(_, path)| path.exists());
    // Its paths are relative to its own directory, which may differ between machines.
    let package = AgentPackage::load(project).map_err(ArtifactError::from)?.directory;
    digest(own.chain(package.map(|directory| (directory.clone(), directory))).collect())
}

/// Hashes files below places, each by its path from a base.
fn digest(places: Vec<(PathBuf, PathBuf)>) -> Result<String, Error> {
    let mut hasher = Sha256::new();
    for (base, place) in places {
        // A checkout may contain links to files; their targets are built.
        let files = WalkDir::new(&place).follow_links(true).sort_by_file_name().into_iter();
        for entry in files.filter_entry(|entry| entry.file_name() != "target") {
            let entry = entry.map_err(|error| Error::file("read", &place)(error.into()))?;
            if entry.file_type().is_file() {
                let bytes = fs::read(entry.path()).map_err(Error::file("read", entry.path()))?;
                let path = entry.path().strip_prefix(&base).unwrap_or(entry.path());
                hasher.update(path.as_os_str().as_encoded_bytes());
                hasher.update(Sha256::digest(bytes));
            }
        }
    }
    Ok(short(hasher.finalize().as_slice()))
}

fn short(digest: &[u8]) -> String {
    hex(&digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::{cell, facts};

    #[test]
    fn each_input_changes_its_own_hash() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("crates/suite/target")).unwrap();
        fs::create_dir(root.path().join("elsewhere")).unwrap();
        fs::write(root.path().join("elsewhere/linked.rs"), "one").unwrap();
        std::os::unix::fs::symlink("../../elsewhere/linked.rs", root.path().join("crates/suite/linked.rs")).unwrap();
        let plan = |cells: &[&str], version| {
            Plan::new(vec![facts("6.12", version)], cells.iter().map(|id| cell(id)).collect(), true)
        };
        let kernel = |identity: &str| [("6.12".to_owned(), identity.to_owned())].into();
        let home = Home::Checkout(root.path().to_owned());
        let none = Artifacts::of_bytes(b"");
        let of =
            |plan: &Plan, durations: u32| identity(root.path(), &home, &none, plan, &kernel("a"), &durations).unwrap();
        let base = of(&plan(&["A01-x[tc,veth]"], "6.12.43"), 1);
        let differs = |other: &BTreeMap<String, String>| difference(&base, other).unwrap_or_default();
        assert_eq!(differs(&of(&plan(&["A01-x[tc,veth]"], "6.12.43"), 1)), "");
        assert_eq!(differs(&of(&plan(&["A01-x[tcx,veth]"], "6.12.43"), 1)), "the cells");
        assert_eq!(differs(&of(&plan(&["A01-x[tc,veth]"], "6.12.44"), 2)), "the kernels and the recorded durations");
        let plan = plan(&["A01-x[tc,veth]"], "6.12.43");
        let other = identity(root.path(), &home, &none, &plan, &kernel("b"), &1).unwrap();
        assert_eq!(differs(&other), "the kernels", "another kernel of this host under the same name");
        fs::write(root.path().join("crates/suite/target/built"), "x").unwrap();
        assert_eq!(differs(&of(&plan, 1)), "", "build output is not a source");
        fs::write(root.path().join("known.toml"), "").unwrap();
        assert_eq!(differs(&of(&plan, 1)), "splats.toml and known.toml");
        fs::remove_file(root.path().join("known.toml")).unwrap();
        fs::write(root.path().join("elsewhere/linked.rs"), "two").unwrap();
        assert_eq!(differs(&of(&plan, 1)), "the sources");
    }

    #[test]
    fn an_installed_lab_is_identified_by_its_own_bytes_and_not_by_the_projects_files() {
        let root = tempfile::tempdir().unwrap();
        let plan = Plan::new(vec![facts("6.12", "6.12.43")], vec![cell("A01-x[tc,veth]")], true);
        let home = Home::Installed { library: "/nonexistent".into(), share: "/nonexistent".into() };
        let of = |agent: &[u8]| {
            identity(root.path(), &home, &Artifacts::of_bytes(agent), &plan, &BTreeMap::new(), &1).unwrap()
        };
        let base = of(b"one");
        fs::create_dir_all(root.path().join("crates/mine")).unwrap();
        fs::write(root.path().join("crates/mine/lib.rs"), "somebody's own").unwrap();
        fs::write(root.path().join("Cargo.lock"), "somebody's own").unwrap();
        assert_eq!(difference(&base, &of(b"one")), None);
        assert_eq!(difference(&base, &of(b"two")).as_deref(), Some("the installed lab"));
    }

    #[test]
    fn the_agents_package_is_a_source_at_any_path() {
        let agent = |place: &str, source: &str| {
            let root = tempfile::tempdir().unwrap();
            let package = root.path().join(place);
            fs::create_dir_all(package.join("src")).unwrap();
            fs::write(package.join("Cargo.toml"), "[package]\nname = \"mine\"\n").unwrap();
            fs::write(package.join("src/main.rs"), source).unwrap();
            fs::write(root.path().join("lab.toml"), format!("[agent]\npackage = \"{place}\"\n")).unwrap();
            sources(root.path(), root.path()).unwrap()
        };
        assert_eq!(agent("here", "fn main() {}"), agent("there", "fn main() {}"));
        assert_ne!(agent("here", "fn main() {}"), agent("here", "fn main() { }"));
    }
}
