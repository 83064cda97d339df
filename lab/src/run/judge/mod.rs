//! The host's verdict: all that decides how a cell counts is here, in this order.
//!
//! | step | what it sees | what it makes of it |
//! |---|---|---|
//! | `report` | the guest's report against the plan | a pass stands only on the attach type that the plan demands, a skip only where the kernel may lack the capability |
//! | `splats` | what the kernel printed while the cell ran | a pass or skip with a splat that no entry of `splats.toml` allows fails |
//! | `rounds` | the same cell in a guest that it shared (`--isolate both`) | one that ends differently fails |
//! | `attempts` | earlier attempts at the cell | a crash or splat stays, whatever came later; a late pass is flaky |
//! | [`Lists::recognise`] | `known.toml` | a failure that an entry expects counts as known |
//!
//! Two words for an end: the guest reports an *outcome*, the host gives a *verdict*. A verdict holds both: the guest's
//! report, and the outcome that counts.
//!
//! [`attempt`] judges one attempt, which decides whether the cell runs again; [`judge`] judges the cell, once its last attempt
//! is in. Losses of guests, interrupts and deadlines come here too, as reports that the host wrote itself ([`SeenAttempt::errored`]).

mod attempts;
mod report;
mod rounds;
mod splats;

pub use attempts::may_end_otherwise;
pub use report::probe_warnings;
#[cfg(test)]
pub(crate) use splats::with_splats;

use super::common::OnFlaky;
use crate::lists::Lists;
use lab_guard::Inside;
use lab_protocol::{CellId, CellInfo, CellReport, ErrorKind, Outcome};
use lab_record::{
    plan::{KernelFacts, PlannedKernel},
    splat::Splat,
    verdict::Verdict,
};

/// Attempts that did not pass, oldest first, each with the number of its guest.
pub type Attempts = Vec<(u32, Verdict)>;

/// What the host saw of one attempt at a cell.
#[derive(Debug)]
pub struct SeenAttempt {
    /// What the guest reported, or the host's own report where the guest could not.
    pub report: CellReport,
    /// What the kernel printed while the cell ran.
    pub splats: Vec<Splat>,
    /// Console lines around a death.
    pub evidence: Option<String>,
    /// Files that the cell left, as paths from the run's directory on.
    pub files: Vec<Inside>,
    /// Where the guest's processor was when the cell hung, as the end of a message.
    pub place: String,
}

impl SeenAttempt {
    /// A guest's report, with nothing beside it.
    pub const fn reported(report: CellReport) -> Self {
        Self { report, splats: Vec::new(), evidence: None, files: Vec::new(), place: String::new() }
    }

    /// A cell whose guest could not report it.
    pub fn errored(cell: CellId, kind: ErrorKind, message: String) -> Self {
        Self::reported(CellReport::bare(cell, Outcome::Errored { kind, message }))
    }
}

/// Judges one attempt; `shared` is the same cell's verdict in a guest that it shared.
pub fn attempt(
    kernel: &PlannedKernel,
    info: &CellInfo,
    seen: SeenAttempt,
    lists: &Lists,
    shared: Option<Verdict>,
) -> Verdict {
    let SeenAttempt { report, splats, evidence, files, place } = seen;
    let mut verdict = Verdict { evidence, files, ..report::against_plan(kernel, info, report) };
    if let Outcome::Errored { message, .. } = &mut verdict.outcome {
        message.push_str(&place);
    }
    splats::with_splats(&mut verdict, splats::allowed(&kernel.facts, splats, lists));
    let mut verdict = rounds::compare(shared, verdict);
    lists.recognise(&kernel.facts, &mut verdict);
    verdict
}

/// Judges a cell by all attempts at it, of which `last` is the last one.
pub fn judge(kernel: &KernelFacts, last: Verdict, earlier: Attempts, lists: &Lists, on_flaky: OnFlaky) -> Verdict {
    let mut verdict = attempts::combine(earlier, last, on_flaky);
    lists.recognise(kernel, &mut verdict);
    verdict
}
