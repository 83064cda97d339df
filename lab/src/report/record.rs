//! A run as its events tell it: what every report is made from.

use crate::{
    error::Exit,
    event::{Event, ImageInfo, RunInfo, Stamped},
    judge::Verdict,
    plan::{PlannedCell, PlannedKernel},
    shard::MergedShard,
    text,
};
use lab_protocol::{AttachType, CapabilityReport, CellId, ErrorKind, KernelVersion, Outcome, drawing::TopologyInfo};
use std::{borrow::Cow, collections::BTreeMap};

/// Everything that happened so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RunRecord {
    /// Start, milliseconds since the epoch.
    pub started_ms: u64,
    /// What was known at the start.
    pub info: Option<RunInfo>,
    /// What the topologies look like.
    pub topologies: Vec<TopologyInfo>,
    /// Kernels by id.
    pub kernels: BTreeMap<String, KernelRecord>,
    /// Exit and wall time, once the run has finished.
    pub finished: Option<(Exit, u64)>,
}

/// What happened on one kernel.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KernelRecord {
    /// Its image.
    pub image: Option<ImageInfo>,
    /// The first boot that worked.
    pub boot: Option<Boot>,
    /// Guests that were launched.
    pub guests: u32,
    /// Its probes.
    pub capabilities: Vec<CapabilityReport>,
    /// Verdicts.
    pub verdicts: BTreeMap<CellId, Verdict>,
    /// The cell that is running now.
    pub running: Option<CellId>,
    /// Losses, one line each.
    pub losses: Vec<String>,
    /// Notes.
    pub notes: Vec<String>,
    /// Wall time and peak memory, once it is through.
    pub finished: Option<(u64, Option<u64>)>,
    /// When its turn came, milliseconds since the epoch.
    pub started_ms: u64,
}

/// What a guest said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// `uname -r`.
    pub release: String,
    /// `uname -v`.
    pub version: String,
    /// The real version.
    pub kernel_version: KernelVersion,
    /// Launch to hello, milliseconds.
    pub boot_ms: u64,
}

/// How many cells ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
    /// Errored.
    pub errored: usize,
    /// Never started.
    pub not_run: usize,
}

impl Counts {
    /// Adds one outcome.
    pub fn add(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Passed => &mut self.passed,
            Outcome::Failed { .. } => &mut self.failed,
            Outcome::Skipped { .. } => &mut self.skipped,
            Outcome::Errored { .. } => &mut self.errored,
            Outcome::NotRun { .. } => &mut self.not_run,
        } += 1;
    }

    /// All of them.
    pub const fn total(&self) -> usize {
        self.passed + self.failed + self.skipped + self.errored + self.not_run
    }
}

impl RunRecord {
    /// Takes one event.
    pub fn apply(&mut self, stamped: &Stamped) {
        match &stamped.event {
            Event::RunStarted { run } => {
                self.started_ms = stamped.at_ms;
                self.info = Some((**run).clone());
            }
            Event::Topologies { library } => self.topologies.clone_from(library),
            Event::KernelStarted { kernel, image } => {
                let record = self.kernel(kernel);
                record.image = Some(image.clone());
                record.started_ms = stamped.at_ms;
            }
            Event::GuestStarted { kernel, guest, .. } => self.kernel(kernel).guests = *guest,
            Event::Booted { kernel, release, version, kernel_version, boot_ms, .. } => {
                self.kernel(kernel).boot.get_or_insert_with(|| Boot {
                    release: release.clone(),
                    version: version.clone(),
                    kernel_version: *kernel_version,
                    boot_ms: *boot_ms,
                });
            }
            Event::Probed { kernel, capabilities, .. } => self.kernel(kernel).capabilities.clone_from(capabilities),
            Event::CellStarted { kernel, cell, .. } => self.kernel(kernel).running = Some(cell.clone()),
            Event::CellFinished { kernel, verdict, .. } => {
                let record = self.kernel(kernel);
                record.running = None;
                record.verdicts.insert(verdict.report.cell.clone(), (**verdict).clone());
            }
            Event::GuestLost { kernel, guest, kind, message, files, .. } => {
                let record = self.kernel(kernel);
                record.running = None;
                let files = if files.is_empty() { String::new() } else { format!(" ({})", files.join(", ")) };
                record.losses.push(format!("guest {guest}: {kind}: {message}{files}"));
            }
            Event::Note { kernel, text } => self.kernel(kernel).notes.push(text.clone()),
            Event::KernelFinished { kernel, peak_memory_kib, wall_ms, .. } => {
                self.kernel(kernel).finished = Some((*wall_ms, *peak_memory_kib));
            }
            Event::RunFinished { exit, wall_ms } => self.finished = Some((*exit, *wall_ms)),
        }
    }

    fn kernel(&mut self, id: &str) -> &mut KernelRecord {
        self.kernels.entry(id.to_owned()).or_default()
    }

    /// The plan's kernels, each with what happened on it.
    pub fn planned(&self) -> impl Iterator<Item = (&PlannedKernel, Option<&KernelRecord>)> {
        let kernels = self.info.iter().flat_map(|info| &info.plan.kernels);
        kernels.map(|kernel| (kernel, self.kernels.get(&kernel.facts.id)))
    }

    /// A cell's verdict; a cell that has none is one that never ran, so that no gap looks like a pass.
    pub fn verdict<'a>(&self, kernel: Option<&'a KernelRecord>, cell: &PlannedCell) -> Cow<'a, Verdict> {
        let known = kernel.and_then(|kernel| kernel.verdicts.get(&cell.id));
        known.map(Cow::Borrowed).unwrap_or_else(|| {
            let message = match kernel.and_then(|kernel| kernel.running.as_ref()) {
                Some(running) if *running == cell.id => "the run ended while the cell was running",
                _ => "the run ended before the cell",
            };
            Cow::Owned(Verdict::bare(cell.id.clone(), Outcome::NotRun { message: message.to_owned() }))
        })
    }

    /// Every planned cell with its verdict, kernel by kernel.
    pub fn verdicts(&self) -> impl Iterator<Item = (&PlannedKernel, &PlannedCell, Cow<'_, Verdict>)> {
        self.planned().flat_map(move |(kernel, record)| {
            kernel.cells.iter().map(move |cell| (kernel, cell, self.verdict(record, cell)))
        })
    }

    /// How many cells ended how, over all kernels.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.verdicts().for_each(|(_, _, verdict)| counts.add(&verdict.outcome));
        counts
    }

    /// Cases that no kernel of the full matrix can run.
    pub fn dead_cases(&self) -> Vec<String> {
        match &self.info {
            Some(info) if info.plan.full_matrix => info.plan.unrunnable_cases(),
            _ => Vec::new(),
        }
    }

    /// Shards that brought less than they should have, one line each.
    pub fn lost_shards(&self) -> Vec<String> {
        self.info.iter().flat_map(|info| &info.merged).filter_map(MergedShard::problem).collect()
    }

    /// What the verdicts add up to. A panic or hang in a cell is the kernel's failure; everything else without a
    /// verdict is infrastructure. Kernels that may fail are told of, and don't count.
    pub fn exit(&self) -> Exit {
        let mut exit = if self.dead_cases().is_empty() { Exit::Passed } else { Exit::Failed };
        let mut shards = self.info.iter().flat_map(|info| &info.merged);
        if exit == Exit::Passed && shards.any(|shard| !shard.may_fail && shard.problem().is_some()) {
            exit = Exit::Infra;
        }
        for (_, _, verdict) in self.verdicts().filter(|(kernel, _, _)| !kernel.facts.may_fail) {
            match &verdict.outcome {
                Outcome::Passed | Outcome::Skipped { .. } => {}
                Outcome::Failed { .. } | Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. } => {
                    return Exit::Failed;
                }
                Outcome::Errored { .. } | Outcome::NotRun { .. } if exit == Exit::Passed => exit = Exit::Infra,
                Outcome::Errored { .. } | Outcome::NotRun { .. } => {}
            }
        }
        exit
    }

    /// How to run one cell again.
    pub fn repro(&self, kernel: &str, cell: &CellId) -> String {
        let mutant = self.info.as_ref().and_then(|info| info.mutant.as_deref());
        let mutant = mutant.map(|name| format!(" --mutant {}", text::shell_quote(name))).unwrap_or_default();
        format!("lab run --kernel {} --case {}{mutant}", text::shell_quote(kernel), text::shell_quote(cell.as_str()))
    }
}

/// The attach types that the kernel reported for a cell, oldest first, each once.
pub fn used(verdict: &Verdict) -> Vec<AttachType> {
    let mut used: Vec<AttachType> = verdict.report.attach.iter().filter_map(|record| record.used).collect();
    used.sort_unstable();
    used.dedup();
    used
}
