//! The functional-verification cases of the attach mechanisms tc, tcx and netkit.
//! Where to start: the agent runs [`SUITE`]; `areas/` has a folder per area, and each case's entry is directly above
//! its function. `catalogue.md` lists the features to test, with the reason for each gap.
//!
//! *Architecture invariant:* this crate only contains cases; `lab-harness`, which does not depend on them, runs them.

mod areas;
mod canary;
mod catalogue;
mod mutants;
mod topologies;

use lab_harness::{Cases, Cell, Suite, fault::Mutant};
use lab_protocol::CatalogueRow;

/// The suite: all cases, the canaries, and the deliberate faults that the cases must detect.
pub static SUITE: Verification = Verification;

static CASES: Cases = Cases::new(areas::ALL);
static CANARIES: Cases = Cases::new(&[&canary::AREA]);

/// The type of [`SUITE`].
pub struct Verification;

impl Suite for Verification {
    fn cells(&self) -> Vec<Cell> {
        CASES.cells()
    }

    fn canaries(&self) -> Vec<Cell> {
        CANARIES.cells()
    }

    fn mutants(&self) -> &'static [Mutant] {
        &mutants::ALL
    }

    fn coverage(&self) -> Vec<CatalogueRow> {
        catalogue::coverage(&self.cells())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_harness::{listing, templates};

    #[test]
    fn ids_are_unique_and_printable() {
        let listing = listing(&[&SUITE], "test").unwrap();
        for info in listing.cells.iter().chain(&listing.canaries) {
            assert!(info.id.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{}", info.id);
        }
    }

    /// A case gets its topology from `Ctx::testbed`, which builds the declared one. `Netns::new` is for additional
    /// namespaces of a case.
    #[test]
    fn no_case_builds_a_topology_by_itself() {
        let (mut waiting, mut read) = (vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")], 0);
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            } else if !path.ends_with("src/lib.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(!text.contains("Net::build"), "{}", path.display());
                read += 1;
            }
        }
        assert!(read > 30, "{read} files");
    }

    /// The topology name in a cell's listing selects, in `lab topology` and `lab shell --topology`, the topology that
    /// the cell builds.
    #[test]
    fn what_a_cell_declares_is_what_is_listed_drawn_and_built() {
        let templates = templates(&[&SUITE]).unwrap();
        for cell in SUITE.cells().into_iter().chain(SUITE.canaries()) {
            let named = templates.iter().find(|template| template.name == cell.info.topology);
            let kind = cell.info.device.unwrap_or(lab_protocol::LinkKind::Veth);
            assert_eq!(
                cell.topology.map(|built| built.of(kind)),
                named.map(|named| named.of(kind)),
                "{}",
                cell.info.id
            );
            assert_eq!(named.is_none(), cell.info.topology == lab_protocol::cell::NO_TOPOLOGY, "{}", cell.info.id);
        }
    }
}
