//! What happens in a run. The run loop emits events, reporters only consume them; `events.jsonl` is the same events on
//! disk, and every report is a function of them alone.

use crate::{
    excuse::Expired,
    exit::Exit,
    guest_exit::GuestExit,
    plan::Plan,
    shard::{MergedShard, Shard},
    splat::Splat,
    verdict::Verdict,
};
use lab_protocol::{CapabilityReport, CellId, ErrorKind, KernelVersion, drawing::TopologyInfo};
use serde::{Deserialize, Serialize};

/// An event and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Milliseconds since the epoch.
    pub at_ms: u64,
    /// The event.
    #[serde(flatten)]
    pub event: Event,
}

impl Stamped {
    /// Reads a line of `events.jsonl`.
    ///
    /// # Errors
    /// It is not an event.
    pub fn parse(line: &[u8]) -> serde_json::Result<Self> {
        // The error of the slice says where it is.
        let Ok(text) = str::from_utf8(line) else { return serde_json::from_slice(line) };
        // Nearly all of a large run is verdicts and its plan, and what serde does for tagged enums costs three times as much.
        if begins_with(line, VERDICT)
            && let Ok(Finished { at_ms, event: Tag::CellFinished, kernel, guest, verdict }) = serde_json::from_str(text)
        {
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

/// Whether an event's name is where it is written here.
fn begins_with(line: &[u8], name: &[u8]) -> bool {
    line.windows(name.len()).take(LOOK_AT).any(|window| window == name)
}

/// How a line looks that has a verdict or a plan, as it is written here, and how many bytes are looked at to tell.
const VERDICT: &[u8] = br#""event":"cell-finished""#;
const BEGIN: &[u8] = br#""event":"run-started""#;
const LOOK_AT: usize = 40;

/// [`Event::CellFinished`] as a plain structure.
#[derive(Deserialize)]
struct Finished {
    at_ms: u64,
    event: Tag,
    kernel: String,
    guest: u32,
    verdict: Box<Verdict>,
}

/// [`Event::RunStarted`] as a plain structure.
#[derive(Deserialize)]
struct Begun {
    at_ms: u64,
    event: Tag,
    run: Box<RunInfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tag {
    CellFinished,
    RunStarted,
}

/// Programs whose versions a result depends on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// This program's.
    pub lab: String,
    /// The agent's.
    pub agent: String,
    /// virtme-ng's.
    pub virtme_ng: String,
    /// QEMU's: version 7.2 was seen to panic guests under TCG, so every result names it.
    pub qemu: String,
}

/// How guests are executed, and why that way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Accelerator {
    /// `kvm` or `tcg`.
    pub name: String,
    /// For people.
    pub reason: String,
    /// Factor on every deadline.
    pub time_scale: f32,
}

/// Version of what events mean. A reader refuses every other one, so that an old run is never judged by new rules.
pub const FORMAT: u32 = 3;

/// What is known before the first guest boots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunInfo {
    /// [`FORMAT`] of the lab that wrote it.
    pub format: u32,
    /// `<timestamp>-<short id>`, also the directory's name.
    pub id: String,
    /// Versions.
    pub versions: Versions,
    /// Accelerator.
    pub accelerator: Accelerator,
    /// The deliberate fault of this run, where it has one.
    pub mutant: Option<String>,
    /// Whether its cells are canaries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// How often a cell that does not pass is run again.
    #[serde(default)]
    pub retries: u32,
    /// Entries of `splats.toml` and `known.toml` whose day has passed; each fails the run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expired: Vec<Expired>,
    /// The plan.
    pub plan: Plan,
    /// Which part of a larger plan this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The shards that this run was merged from, those that are missing included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub merged: Vec<MergedShard>,
}

impl RunInfo {
    /// A run of a whole plan, without a deliberate fault.
    pub fn new(id: String, versions: Versions, accelerator: Accelerator, plan: Plan) -> Self {
        Self {
            format: FORMAT,
            id,
            versions,
            accelerator,
            mutant: None,
            canary: false,
            retries: 0,
            expired: Vec::new(),
            plan,
            shard: None,
            merged: Vec::new(),
        }
    }
}

/// The image that a kernel boots with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Content key.
    pub key: String,
    /// Whether it was there already.
    pub cached: bool,
    /// Wanted modules that the kernel does not have.
    pub missing: Vec<String>,
}

/// How a guest comes to be.
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
}

/// When a kernel complained, where no cell was running.
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
    /// For people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Boot => "while it booted",
            Self::Between => "between cells",
            Self::Teardown => "after the last cell",
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// First of all.
    RunStarted {
        /// What is known.
        run: Box<RunInfo>,
    },
    /// What the topologies of the suite look like, for the reports.
    Topologies {
        /// The agent's library.
        library: Vec<TopologyInfo>,
    },
    /// A kernel's turn came.
    KernelStarted {
        /// Kernel id.
        kernel: String,
        /// Its image.
        image: ImageInfo,
    },
    /// A guest is being started.
    GuestStarted {
        /// Kernel id.
        kernel: String,
        /// Number of the guest, from 1.
        guest: u32,
        /// How, and what for.
        #[serde(default)]
        start: Start,
    },
    /// A guest's agent said hello.
    Booted {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// `uname -r`.
        release: String,
        /// `uname -v`.
        version: String,
        /// The version behind the distribution's numbering.
        kernel_version: KernelVersion,
        /// Launch to hello on the host's clock, milliseconds.
        boot_ms: u64,
    },
    /// A guest's probes are through.
    Probed {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// What the kernel can do.
        capabilities: Vec<CapabilityReport>,
        /// Modules that the agent loaded.
        modules: Vec<String>,
    },
    /// A cell began.
    CellStarted {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// The cell.
        cell: CellId,
    },
    /// A cell has its verdict: exactly one per planned cell and kernel.
    CellFinished {
        /// Kernel id.
        kernel: String,
        /// Number of the guest; 0 where none got to it.
        guest: u32,
        /// The verdict.
        verdict: Box<Verdict>,
    },
    /// An attempt at a cell did not pass, and the cell will run again in a fresh guest.
    CellRetried {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// The attempt's verdict.
        verdict: Box<Verdict>,
    },
    /// The kernel complained while no cell was running.
    Splat {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// When.
        moment: Moment,
        /// What it said.
        splat: Box<Splat>,
    },
    /// A guest had nothing left to do and was told to power off.
    GuestEnded {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// From being told to the end of its machine, milliseconds.
        shutdown_ms: u64,
        /// What went wrong, one line each: it did not power off, it left something behind, a process of it stayed.
        problems: Vec<String>,
    },
    /// A guest died, went silent or broke the protocol.
    GuestLost {
        /// Kernel id.
        kernel: String,
        /// Number of the guest.
        guest: u32,
        /// What sort of loss.
        kind: ErrorKind,
        /// One line.
        message: String,
        /// The last console lines.
        evidence: String,
        /// How its process ended, where it ended by itself.
        exit: Option<GuestExit>,
        /// The cell that it cost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cell: Option<CellId>,
        /// What it told of a hang, as paths from the run's directory on.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<String>,
    },
    /// A line for the log: from the agent, or about what was ignored.
    Note {
        /// Kernel id.
        kernel: String,
        /// One line.
        text: String,
    },
    /// A kernel is through.
    KernelFinished {
        /// Kernel id.
        kernel: String,
        /// Guests that were booted.
        guests: u32,
        /// Peak resident memory of the largest guest, KiB.
        peak_memory_kib: Option<u64>,
        /// Whether guests died until no further one was started.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        gave_up: bool,
        /// Wall time, milliseconds.
        wall_ms: u64,
    },
    /// Last of all.
    RunFinished {
        /// What the program exits with.
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
        assert_eq!(short, 1 + 300, "the plan and every verdict take the short way");
        let damaged = br#"{"at_ms":1,"event":"cell-finished","kernel":"6.1","guest":1}"#;
        assert!(Stamped::parse(damaged).unwrap_err().to_string().contains("missing field `verdict`"));
    }
}
