//! The registry of functional-verification cases, one module per area.
//!
//! A case reads aloud: topology, load, attach, assert what the kernel reports, traffic, assert counters, detach,
//! assert silence. [`cells`] lists every case in every variant; [`Runner`] runs them.

mod areas;
pub mod bench;
pub mod canary;
pub mod capabilities;
pub mod case;
mod catalogue;
pub mod ctx;
mod datapath;
pub mod detect;
mod evidence;
mod fence;
mod flows;
mod holder;
mod leaks;
mod measure;
pub mod mutants;
mod probe;
mod runner;
mod stage;
mod survey;
mod trip;
mod variants;

pub use catalogue::coverage;
pub use holder::HOLD;
pub use lab_topology::Netns;
pub use runner::{Finished, RunOptions, Runner};
pub use stage::Staged;

use case::{Case, Cell};

/// The library of topologies, drawn.
pub fn topologies() -> Vec<lab_protocol::drawing::TopologyInfo> {
    lab_topology::library::listing()
}

/// Every case in every variant, in the order in which they run.
pub fn cells() -> Vec<Cell> {
    all_variants(areas::ALL)
}

/// Every canary: cells that must not pass, and controls between them.
pub fn canaries() -> Vec<Cell> {
    all_variants(&[canary::CASES])
}

fn all_variants(areas: &[&'static [Case]]) -> Vec<Cell> {
    let cases = areas.iter().flat_map(|cases| cases.iter());
    cases.flat_map(|case| (case.variants)().into_iter().map(move |variant| Cell::new(case, variant))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_and_name_topologies_that_exist() {
        let mut seen = HashSet::new();
        for cell in cells().into_iter().chain(canaries()) {
            assert!(seen.insert(cell.info.id.clone()), "{} twice", cell.info.id);
            assert!(
                lab_topology::library::by_name(cell.case.topology, lab_topology::LinkKind::Veth).is_some(),
                "{}: no topology `{}`",
                cell.info.id,
                cell.case.topology
            );
            assert!(cell.info.id.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{}", cell.info.id);
        }
    }
}
