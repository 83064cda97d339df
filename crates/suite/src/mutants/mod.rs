//! Deliberate faults (mutants): each is a mistake that developers of a datapath or of this suite could make, and the suite must
//! detect it.

mod checks;
mod programs;
mod witness;

use lab_harness::fault::Mutant;
use std::sync::LazyLock;

/// The faults that `lab mutants` builds in; each must be noticed by a case, those of the witness by a watched one.
pub static ALL: LazyLock<Vec<Mutant>> = LazyLock::new(|| [programs::ALL, checks::ALL, witness::ALL].concat());

#[cfg(test)]
mod tests {
    use super::*;
    use lab_harness::Suite;
    use std::collections::HashSet;

    #[test]
    fn mutants_have_unique_names_and_existing_cells() {
        let cells = crate::SUITE.cells();
        let mut names = HashSet::new();
        for mutant in ALL.iter() {
            assert!(names.insert(mutant.name), "{} twice", mutant.name);
            for id in mutant.noticed_by {
                assert!(cells.iter().any(|cell| cell.info.id.as_str() == *id), "{}: no cell {id}", mutant.name);
            }
        }
    }
}
