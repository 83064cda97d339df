//! The catalogue of features to test, and which of them the suite covers.

use lab_harness::Cell;
use lab_protocol::CatalogueRow;
use std::collections::BTreeMap;

/// The file with the numbers, their titles and the reasons for gaps.
const TABLE: &str = include_str!("../catalogue.md");

/// Every row of the catalogue, with its number of cells. A row without cells has a reason.
pub fn coverage(run: &[Cell]) -> Vec<CatalogueRow> {
    let mut cells: BTreeMap<&str, u32> = BTreeMap::new();
    for cell in run {
        *cells.entry(&cell.info.catalogue).or_default() += 1;
    }
    rows()
        .map(|[id, title, reason]| {
            let cells = cells.get(id).copied().unwrap_or(0);
            let missing = (cells == 0).then(|| reason.to_owned());
            CatalogueRow { id: id.to_owned(), title: title.to_owned(), cells, missing }
        })
        .collect()
}

/// Number, title and reason of each row: the lines whose first column is a letter with two digits.
fn rows() -> impl Iterator<Item = [&'static str; 3]> {
    TABLE.lines().filter_map(|line| {
        let mut columns = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim);
        let row = [columns.next()?, columns.next()?, columns.next()?];
        let is_number = matches!(*row[0].as_bytes(), [b'A'..=b'Z', b'0'..=b'9', b'0'..=b'9']);
        (is_number && columns.next().is_none()).then_some(row)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_harness::Suite;
    use std::collections::BTreeSet;

    #[test]
    fn every_case_is_in_the_catalogue_and_every_gap_has_a_reason() {
        let listed: Vec<&str> = rows().map(|[id, ..]| id).collect();
        let unique: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(listed.len(), unique.len(), "a number occurs twice");
        for cell in crate::SUITE.cells() {
            assert!(unique.contains(&*cell.info.catalogue), "{} is not in suite/catalogue.md", cell.info.id);
        }
        for row in crate::SUITE.coverage() {
            assert!(!row.title.is_empty(), "{} has no title", row.id);
            assert_ne!(row.missing.as_deref(), Some(""), "{} has neither cells nor a reason", row.id);
        }
    }

    #[test]
    fn every_row_of_the_table_is_read() {
        let lines = TABLE.lines().filter(|line| line.starts_with('|')).count();
        assert_eq!(rows().count(), lines - 2, "all lines except the two of the heading");
    }
}
