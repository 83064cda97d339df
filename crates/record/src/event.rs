//! Events of a run. The run loop emits events and reporters consume them; `events.jsonl` holds the same events on disk,
//! and every report is a function of these events alone.

use crate::{
    excuse::Expired,
    exit::Exit,
    guest_exit::GuestExit,
    plan::Plan,
    provenance::Provenance,
    shard::{MergedShard, Shard},
    slow::Slow,
    splat::Splat,
    verdict::Verdict,
};
use lab_guard::{Id, Inside};
use lab_protocol::{CapabilityReport, CellId, CellInfo, Check, ErrorKind, KernelVersion, Raw, drawing::TopologyInfo};
use serde::{Deserialize, Serialize};

/// An event with its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl Stamped {
    /// Parses a line of `events.jsonl`.
    ///
    /// # Errors
    /// The line is not an event.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        // Parsing the bytes gives an error with the position.
        let Ok(text) = str::from_utf8(line) else { return serde_json::from_slice(line) };
        // Most of a large run's bytes are verdicts and the plan, and serde takes three times as long for tagged enums.
        if let Some(FinishedLine { at_ms, kernel, guest, verdict, .. }) = FinishedLine::of(text) {
            let verdict = Box::new(verdict);
            return Ok(Self { at_ms, event: Event::CellFinished { kernel, guest, verdict } });
        }
        if begins_with(line, BEGIN)
            && let Ok(Begun { at_ms, event: Tag::RunStarted, run }) = serde_json::from_str(text)
        {
            return Ok(Self { at_ms, event: Event::RunStarted { run } });
        }
        serde_json::from_str(text)
    }
}

/// Whether an event's name is at the position where this program writes it.
fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).take(LOOK_AT).any(|window| window == name)
}

/// Prefixes of lines with a verdict or a plan as this program writes them, and the number of bytes in which to look for
/// them.
const VERDICT: &[u8] = br#""event":"cell-finished""#;
const BEGIN: &[u8] = br#""event":"run-started""#;
const LOOK_AT: usize = 40;

/// [`Event::CellFinished`] as a plain structure.
#[derive(Deserialize)]
pub(crate) struct FinishedLine<C = Check> {
    pub(crate) at_ms: u64,
    event: Tag,
    pub(crate) kernel: Id,
    pub(crate) guest: u32,
    pub(crate) verdict: Verdict<C>,
}

impl<'a, C: Deserialize<'a>> FinishedLine<C> {
    /// The event of a line, if it is one as this program writes it.
    pub(crate) fn of(line: &'a str) -> Option<Self> {
        let wanted = begins_with(line.as_bytes(), VERDICT);
        wanted.then(|| serde_json::from_str(line).ok()).flatten().filter(|it: &Self| it.event == Tag::CellFinished)
    }
}

/// [`Event::RunStarted`] as a plain structure.
#[derive(Deserialize)]
struct Begun {
    at_ms: u64,
    event: Tag,
    run: Box<RunInfo>,
}

#[derive(PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tag {
    CellFinished,
    RunStarted,
}

/// Programs whose versions a result depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The version of `lab`.
    pub lab: String,
    /// The agent's version.
    pub agent: String,
    /// virtme-ng's version.
    pub virtme_ng: String,
    /// QEMU's version. Every result names it, because QEMU 7.2 panicked guests under TCG.
    pub qemu: String,
}

/// The accelerator of the guests, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accelerator {
    /// `kvm` or `tcg`.
    pub name: String,
    /// Why this accelerator was chosen, as text.
    pub reason: String,
    /// Factor for all deadlines.
    pub time_scale: f32,
}

impl Accelerator {
    /// Name and short reason for the top of a report: without parentheses and text after a semicolon, which `lab
    /// doctor` and run.json contain.
    pub fn brief(&self) -> String {
        let reason = self.reason.split(" (").next().unwrap_or_default().split("; ").next().unwrap_or_default();
        if reason.is_empty() {
            self.name.clone()
        } else {
            format!("{}: {}", self.name, lab_base::text::line(reason, 60))
        }
    }
}

/// Version of the event format. A reader refuses all other versions, so that an old run is never judged by new rules.
pub const FORMAT: u32 = 3;

/// Everything that is known before the first guest boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// [`FORMAT`] of the lab that wrote the run.
    pub format: u32,
    /// `<timestamp>-<short id>`, also the name of the run's directory.
    pub id: Id,
    /// Versions of the programs.
    pub versions: Versions,
    /// The accelerator.
    pub accelerator: Accelerator,
    /// The deliberate fault of this run, if any.
    pub mutant: Option<String>,
    /// Whether the run's cells are canaries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// How often a cell that does not pass is repeated.
    #[serde(default)]
    pub retries: u32,
    /// Whether a kernel that is much slower than recorded fails the run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slow_fails: bool,
    /// Expired entries of `splats.toml` and `known.toml`; each of them fails the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<Expired>,
    /// The words of the `lab exec` that the run is, without those that name kernels; empty for cells of the suite.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec: Vec<Raw>,
    /// How long the run will take by earlier durations of its cells, milliseconds; none where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_ms: Option<u64>,
    /// What was tested, and who started it.
    #[serde(default, skip_serializing_if = "Provenance::is_empty")]
    pub provenance: Provenance,
    /// The plan.
    pub plan: Plan,
    /// The shard that this run is, if it runs a part of a larger plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The shards that this run was merged from, including missing ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<MergedShard>,
}

impl RunInfo {
    /// Path of a file of the run for a CI system: relative to the project's root if that is known.
    pub fn attachment(&self, file: &str) -> String {
        match &self.provenance.results {
            Some(results) => format!("{results}/{}/{file}", self.id),
            None => file.to_owned(),
        }
    }

    /// The information of a run of a whole plan without a deliberate fault.
    pub fn new(id: Id, versions: Versions, accelerator: Accelerator, plan: Plan) -> Self {
        Self {
            format: FORMAT,
            id,
            versions,
            accelerator,
            mutant: None,
            canary: false,
            retries: 0,
            slow_fails: false,
            expired: Vec::new(),
            exec: Vec::new(),
            expected_ms: None,
            provenance: Provenance::default(),
            plan,
            shard: None,
            merged: Vec::new(),
        }
    }
}

/// The image that a kernel boots with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Content key of the image.
    pub key: String,
    /// Whether the image was in the cache.
    pub cached: bool,
    /// Wanted modules that the kernel does not have.
    pub missing: Vec<String>,
    /// Hash over everything that a verdict on the kernel depends on, apart from the cell. A later run with the same hash can take
    /// over verdicts. `None` where they must not be taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// How a guest is started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Booted to run cells.
    #[default]
    Boot,
    /// Booted to become a snapshot.
    Snapshot,
    /// Restored from a snapshot to run cells.
    Restore,
    /// Restored from a snapshot before it was asked for: `lab serve` held it.
    Held,
}

/// When a splat occurred while no cell was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// Before the first cell.
    Boot,
    /// After a cell.
    Between,
    /// After the last one.
    Teardown,
}

impl Moment {
    /// The moment as text for reports.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Boot => "while it booted",
            Self::Between => "between cells",
            Self::Teardown => "after the last cell",
        }
    }
}

impl Event {
    /// The number of the event's guest.
    pub const fn guest(&self) -> Option<u32> {
        match self {
            Self::GuestStarted { guest, .. }
            | Self::Booted { guest, .. }
            | Self::Probed { guest, .. }
            | Self::CellStarted { guest, .. }
            | Self::CellRetried { guest, .. }
            | Self::CellFinished { guest, .. }
            | Self::Splat { guest, .. }
            | Self::GuestEnded { guest, .. }
            | Self::GuestLost { guest, .. } => Some(*guest),
            Self::RunStarted { .. }
            | Self::Topologies { .. }
            | Self::KernelStarted { .. }
            | Self::Note { .. }
            | Self::CellAdopted { .. }
            | Self::KernelFinished { .. }
            | Self::Slow { .. }
            | Self::RunFinished { .. } => None,
        }
    }
}

/// An event of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first event.
    RunStarted {
        /// Everything that is known before the run.
        run: Box<RunInfo>,
    },
    /// The topologies of the suite, for reports.
    Topologies {
        /// The topology library of the agent.
        library: Vec<TopologyInfo>,
    },
    /// The run reached a kernel.
    KernelStarted {
        /// Kernel id.
        kernel: Id,
        /// Its image.
        image: ImageInfo,
    },
    /// A guest is being started.
    GuestStarted {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest, from 1.
        guest: u32,
        /// How the guest is started, and for which purpose.
        #[serde(default)]
        start: Start,
    },
    /// A guest's agent has sent its Hello.
    Booted {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
        /// The upstream version behind the distribution's numbering.
        kernel_version: KernelVersion,
        /// Time from launch to Hello on the host's clock, milliseconds.
        boot_ms: u64,
    },
    /// A guest has finished its probes.
    Probed {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// Capabilities of the kernel.
        capabilities: Vec<CapabilityReport>,
        /// Modules that the agent loaded.
        modules: Vec<String>,
    },
    /// A cell was started.
    CellStarted {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// The cell.
        cell: CellId,
    },
    /// A cell has its final verdict: exactly one event per planned cell and kernel.
    CellFinished {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest; 0 if no guest ran the cell.
        guest: u32,
        /// The verdict.
        verdict: Box<Verdict>,
    },
    /// A test that only showed up while a cell of another suite ran. It has a verdict of its own, which comes next.
    CellAdopted {
        /// Kernel id.
        kernel: Id,
        /// The cell that reported it.
        parent: CellId,
        /// What is known of it.
        info: Box<CellInfo>,
    },
    /// An attempt at a cell did not pass, and the cell will be repeated in a fresh guest.
    CellRetried {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// The attempt's verdict.
        verdict: Box<Verdict>,
    },
    /// The kernel printed a splat while no cell was running.
    Splat {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// When it was printed.
        moment: Moment,
        /// The splat.
        splat: Box<Splat>,
    },
    /// A guest had no cells left and was told to power off.
    GuestEnded {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// Time from the request to the end of its machine, milliseconds.
        shutdown_ms: u64,
        /// Problems, one line each: the guest did not power off, left resources behind, or left a process running.
        problems: Vec<String>,
    },
    /// A guest crashed, stopped answering or broke the protocol.
    GuestLost {
        /// Kernel id.
        kernel: Id,
        /// Number of the guest.
        guest: u32,
        /// Kind of the loss.
        kind: ErrorKind,
        /// Cause, one line.
        message: String,
        /// The last console lines.
        evidence: String,
        /// How the guest's process ended, if it ended by itself.
        exit: Option<GuestExit>,
        /// The cell that was running in the guest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cell: Option<CellId>,
        /// Files with information about a hang, as paths relative to the run's directory.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<Inside>,
    },
    /// A line for the log: from the agent, or about ignored input.
    Note {
        /// Kernel id.
        kernel: Id,
        /// One line.
        text: String,
    },
    /// A kernel is finished.
    KernelFinished {
        /// Kernel id.
        kernel: Id,
        /// Number of guests that were booted.
        guests: u32,
        /// Peak resident memory of the largest guest, KiB.
        peak_memory_kib: Option<u64>,
        /// Whether the run gave up on the kernel because too many guests crashed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        gave_up: bool,
        /// Wall time, milliseconds.
        wall_ms: u64,
    },
    /// Cells of a kernel took much longer than recorded.
    Slow {
        /// Kernel id.
        kernel: Id,
        /// Which, and how much.
        finding: Slow,
    },
    /// The last event.
    RunFinished {
        /// Exit status of the program.
        exit: Exit,
        /// Wall time, milliseconds.
        wall_ms: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::synthetic;

    #[test]
    fn both_ways_of_reading_a_line_agree() {
        let mut short = 0;
        for stamped in synthetic::events(synthetic::run_info("x", synthetic::plan(2, 150))) {
            let line = serde_json::to_vec(&stamped).unwrap();
            short += usize::from(begins_with(&line, VERDICT) || begins_with(&line, BEGIN));
            assert_eq!(Stamped::parse(&line).unwrap(), stamped);
            assert_eq!(serde_json::from_slice::<Stamped>(&line).unwrap(), stamped);
        }
        assert_eq!(short, 1 + 300, "the plan and all verdicts use the fast path");
        let damaged = br#"{"at_ms":1,"event":"cell-finished","kernel":"6.1","guest":1}"#;
        assert!(Stamped::parse(damaged).unwrap_err().to_string().contains("missing field `verdict`"));
    }
}
