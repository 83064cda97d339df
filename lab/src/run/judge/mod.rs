//! The host's verdict: the following steps decide how a cell counts, in this order.
//!
//! | step | input | rule |
//! |---|---|---|
//! | `report` | the guest's report and the plan | a pass needs the attach type that the plan requires, a skip is only
//! accepted if the kernel may lack the capability |
//! | `witness` | the account of what a program attached | a pass needs what `lab exec --require-attach` and its like demand |
//! | `readings` | the same account of a cell of the suite | a pass needs an account that agrees with the cell's own readings of the
//! kernel |
//! | `splats` | the splats while the cell ran | a pass or skip with a splat that no entry of `splats.toml` allows
//! becomes a failure |
//! | `rounds` | the same cell in a shared guest (`--isolate both`) | a cell with two different outcomes fails |
//! | `attempts` | earlier attempts at the cell | a crash or splat in any attempt decides the verdict; a pass after a
//! failure is flaky |
//! | [`Lists::recognise`] | `known.toml` | a failure that matches an entry counts as known |
//! The guest reports an *outcome*, the host computes a *verdict*. A verdict contains both: the guest's report, and the
//! outcome that counts.
//!
//! [`attempt`] judges one attempt, which decides whether the cell runs again; [`judge`] judges the cell, once its last
//! attempt is in. Losses of guests, interrupts and deadlines come here too, as reports that the host wrote itself
//! ([`SeenAttempt::errored`]).

mod attempts;
mod readings;
mod report;
mod rounds;
mod splats;
mod witness;

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

/// The host's information about one attempt at a cell.
#[derive(Debug)]
pub struct SeenAttempt {
    /// The guest's report, or the host's own if the guest could not send one.
    pub report: CellReport,
    /// Splats while the cell ran.
    pub splats: Vec<Splat>,
    /// The last console lines of a guest that crashed.
    pub evidence: Option<String>,
    /// Files of the cell, as paths relative to the run's directory.
    pub files: Vec<Inside>,
    /// The code location of the guest's processor when the cell hung, appended to the message.
    pub place: String,
}

impl SeenAttempt {
    /// Creates it from a guest's report only.
    pub const fn reported(report: CellReport) -> Self {
        Self { report, splats: Vec::new(), evidence: None, files: Vec::new(), place: String::new() }
    }

    /// Creates it for a cell whose guest could not report it.
    pub fn errored(cell: CellId, kind: ErrorKind, message: String) -> Self {
        Self::reported(CellReport::bare(cell, Outcome::Errored { kind, message }))
    }
}

/// Judges one attempt; `shared` is the verdict of the same cell in a shared guest.
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

/// Compares a verdict with the one of an earlier run that could have been taken over.
pub fn as_earlier(earlier: Option<Verdict>, verdict: Verdict) -> Verdict {
    rounds::as_earlier(earlier, verdict)
}

/// Judges a cell by all attempts at it, of which `last` is the last one.
pub fn judge(kernel: &KernelFacts, last: Verdict, earlier: Attempts, lists: &Lists, on_flaky: OnFlaky) -> Verdict {
    let mut verdict = attempts::combine(earlier, last, on_flaky);
    lists.recognise(kernel, &mut verdict);
    verdict
}
