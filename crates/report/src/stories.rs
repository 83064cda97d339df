//! Groups failures: cells with the same message are listed once, as in the HTML report.

use lab_record::{
    kept::ReportedVerdict,
    plan::{PlannedCell, PlannedKernel},
    run::RunRecord,
    verdict::Standing,
};
use std::collections::HashMap;

/// Maximum number of further cells of a group in a text.
const NAMED: usize = 4;

/// Cells that failed with the same message.
pub struct Story<'a> {
    /// Their standing.
    pub standing: Standing,
    /// Their message.
    pub message: String,
    /// The first cell.
    pub first: (&'a PlannedKernel, &'a PlannedCell, ReportedVerdict<'a>),
    /// Kernel and cell of the others.
    pub others: Vec<(&'a str, &'a str)>,
}

impl Story<'_> {
    /// The other cells as `6.12 A02-x[tcx], 6.17 A02-x[tcx] and 6 more`; `None` if there are none.
    pub fn also(&self) -> Option<String> {
        let named: Vec<String> =
            self.others.iter().take(NAMED).map(|(kernel, cell)| format!("{kernel} {cell}")).collect();
        let more = self.others.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!named.is_empty()).then(|| named.join(", ") + &more)
    }
}

/// Groups the cells with one of these standings, in plan order of their first cells.
pub fn stories<'a>(record: &'a RunRecord, wanted: &[Standing]) -> Vec<Story<'a>> {
    let mut all: Vec<Story<'a>> = Vec::new();
    let mut places: HashMap<(Standing, String), usize> = HashMap::new();
    for (kernel, cell, verdict) in record.verdicts() {
        let standing = verdict.standing();
        if !wanted.contains(&standing) {
            continue;
        }
        let message = verdict.outcome.message();
        match places.get(&(standing, message.clone())) {
            Some(&at) => all[at].others.push((&kernel.facts.id, cell.id.as_str())),
            None => {
                places.insert((standing, message.clone()), all.len());
                all.push(Story { standing, message, first: (kernel, cell, verdict), others: Vec::new() });
            }
        }
    }
    all
}
