//! Splats of all kernels of a run, merged by fingerprint.

use lab_protocol::complaint::SplatClass;
use lab_record::{
    excuse::Excuse,
    run::RunRecord,
    splat::{Splat, SplatPlace},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A splat with all its occurrences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplatSummary {
    /// Fingerprint of the splat.
    pub fingerprint: String,
    /// Kind of the splat.
    pub class: SplatClass,
    /// First line of the first occurrence.
    pub title: String,
    /// First line without parts that differ between kernels and runs.
    pub subject: String,
    /// Functions of its call trace.
    pub frames: Vec<String>,
    /// Number of occurrences.
    pub times: u32,
    /// Kernels in plan order.
    pub kernels: Vec<String>,
    /// Kernel and cell of each occurrence; the cell is `splat` if no cell was running.
    pub cells: Vec<(String, String)>,
    /// Cells that may have caused the first occurrence.
    pub suspects: Vec<String>,
    /// Source of the first occurrence: console, kernel log or both.
    pub seen: SplatPlace,
    /// The entry that allows it; `None` if any occurrence is not allowed.
    pub allowed: Option<Excuse>,
    /// Kernel text of the first occurrence.
    pub evidence: String,
}

impl SplatSummary {
    /// `seen 3 times on 6.12, 6.17, first in 6.12 A02-x[tcx,veth]`.
    pub fn sightings(&self) -> String {
        let times = if self.times == 1 { "once".to_owned() } else { format!("{} times", self.times) };
        let first = self.cells.first().map_or_else(String::new, |(kernel, cell)| format!(", first in {kernel} {cell}"));
        format!("seen {times} on {}{first}", self.kernels.join(", "))
    }
}

/// All splats of a run in the order of its kernels and cells, earlier attempts included.
pub fn splats(record: &RunRecord) -> Vec<SplatSummary> {
    let mut found: Vec<SplatSummary> = Vec::new();
    let mut by_fingerprint: BTreeMap<String, usize> = BTreeMap::new();
    let mut take = |kernel: &str, cell: &str, splat: &Splat| {
        let place = (kernel.to_owned(), cell.to_owned());
        let at = *by_fingerprint.entry(splat.fingerprint.clone()).or_insert_with(|| {
            found.push(SplatSummary {
                fingerprint: splat.fingerprint.clone(),
                class: splat.class,
                title: splat.title.clone(),
                subject: splat.subject.clone(),
                frames: splat.frames.clone(),
                times: 0,
                kernels: Vec::new(),
                cells: Vec::new(),
                suspects: splat.suspects.iter().map(ToString::to_string).collect(),
                seen: splat.seen,
                allowed: splat.allowed.clone(),
                evidence: splat.evidence.clone(),
            });
            found.len() - 1
        });
        let known = &mut found[at];
        known.times += splat.times;
        if !known.kernels.iter().any(|it| it == kernel) {
            known.kernels.push(kernel.to_owned());
        }
        if !known.cells.contains(&place) {
            known.cells.push(place);
        }
        if splat.allowed.is_none() {
            known.allowed = None;
        }
    };
    for (kernel, cell, verdict) in record.verdicts().filter(|(_, _, verdict)| !verdict.is_plain()) {
        let earlier = verdict.earlier.iter().flat_map(|attempt| &attempt.splats);
        // A crash that no later attempt revokes is in both the attempt and the verdict.
        let own = verdict.splats.iter().filter(|_| !verdict.repeats_an_attempt());
        for splat in earlier.chain(own) {
            take(&kernel.facts.id, cell.id.as_str(), splat);
        }
    }
    found
}
