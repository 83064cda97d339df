//! Splats of all kernels of a run, each listed once.

use lab_protocol::complaint::Class;
use lab_record::{
    excuse::Excuse,
    run::RunRecord,
    splat::{Seen, Splat},
};
use serde::Serialize;
use std::collections::BTreeMap;

/// One splat, wherever it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplatSummary {
    /// What it is known by.
    pub fingerprint: String,
    /// What sort.
    pub class: Class,
    /// Its header where it was seen first.
    pub title: String,
    /// The header without what differs.
    pub subject: String,
    /// Functions that it came from.
    pub frames: Vec<String>,
    /// How often it was seen.
    pub times: u32,
    /// Kernels, in the plan's order.
    pub kernels: Vec<String>,
    /// Kernel and cell, wherever it was seen; the cell is `splat` where it fell into none.
    pub cells: Vec<(String, String)>,
    /// Cells that may have caused it where it was seen first.
    pub suspects: Vec<String>,
    /// Where it was seen first: console, kernel log or both.
    pub seen: Seen,
    /// Why it fails nothing; none as soon as one sighting is not excused.
    pub allowed: Option<Excuse>,
    /// What the kernel wrote where it was seen first.
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

/// Every splat of a run, in the order in which its kernels and cells are planned. Attempts before the last count.
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
        // A crash that no later attempt takes back stands in both.
        let own = verdict.splats.iter().filter(|_| !verdict.repeats_an_attempt());
        for splat in earlier.chain(own) {
            take(&kernel.facts.id, cell.id.as_str(), splat);
        }
    }
    found
}
