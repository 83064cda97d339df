//! What the loader in a guest found out: a JSON object per line, as soon as each is known, because the next step may end the guest.

use lab_protocol::{Hook, KernelVersion};
use serde::{Deserialize, Serialize};

/// Bytes of a line, at most.
pub const MAX_LINE: usize = 1 << 20;
/// Programs of an object that are kept, at most.
const MAX_PROGRAMS: usize = 10_000;

/// How the object was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadAttempt {
    /// As it is.
    AsIs,
    /// With what `check.toml` says of it.
    AsTold,
    /// With `sched_cls` for sections without a type.
    Typed,
    /// Each program without the others.
    Alone,
}

impl LoadAttempt {
    /// In reports.
    pub const fn text(self) -> &'static str {
        match self {
            Self::AsIs => "as it is",
            Self::AsTold => "as check.toml says",
            Self::Typed => "with the type sched_cls for sections without a type",
            Self::Alone => "alone",
        }
    }
}

/// One attempt to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadFact {
    /// How.
    pub attempt: LoadAttempt,
    /// The only program of this attempt.
    pub program: Option<String>,
    /// The error's number; `None` where the load succeeded.
    pub errno: Option<i32>,
    /// The program at which it failed.
    pub failed: Option<String>,
    /// What the loader said, the last lines.
    pub said: Vec<String>,
    /// What the verifier said of the program that failed, the last lines.
    pub verifier: Vec<String>,
    /// Milliseconds that it took.
    pub took_ms: u64,
}

/// The verifier's statistics (`print_verification_stats`, kernel/bpf/verifier.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifierStats {
    /// Instructions that it looked at.
    pub instructions: u32,
    /// All states that it kept.
    pub states: u32,
    /// Most of them at a time.
    pub peak_states: u32,
}

impl VerifierStats {
    /// From the line that begins with `processed`; the last one of a log.
    pub fn read(log: &str) -> Option<Self> {
        let line = log.lines().rev().find(|line| line.starts_with("processed ") && line.contains(" insns "))?;
        let mut words = line.split_whitespace();
        let instructions = words.nth(1)?.parse().ok()?;
        let after = |name: &str| {
            let mut words = line.split_whitespace().skip_while(|word| *word != name);
            words.nth(1).and_then(|word| word.parse().ok()).unwrap_or_default()
        };
        Some(Self { instructions, states: after("total_states"), peak_states: after("peak_states") })
    }
}

/// A program that is loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramFact {
    /// Its name.
    pub name: String,
    /// Its section.
    pub section: String,
    /// Its type: `sched_cls`.
    pub kind: String,
    /// How it was loaded.
    pub attempt: LoadAttempt,
    /// `bpf_prog_info.verified_insns`; 0 where the kernel does not tell.
    pub verified: u32,
    /// Instructions after the verifier's rewriting.
    pub translated: u32,
    /// Statistics of the log.
    pub stats: Option<VerifierStats>,
}

/// The answer of `BPF_PROG_TEST_RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFact {
    /// The program.
    pub program: String,
    /// The packet.
    pub packet: String,
    /// What the program returned.
    pub verdict: Option<i32>,
    /// The error's number.
    pub errno: Option<i32>,
    /// Bytes of the packet that differ afterwards: offset, before, after.
    pub changes: Vec<(u32, u8, u8)>,
    /// The packet's length afterwards.
    pub length: u32,
}

/// A program at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFact {
    /// The program.
    pub program: String,
    /// The hook.
    pub hook: Hook,
    /// What came of it.
    pub attach: AttachFact,
    /// What became of the packets.
    pub packets: Vec<PacketFact>,
}

/// What came of attaching.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttachFact {
    /// The kernel lists the program there.
    Listed,
    /// The kernel accepted it and does not list it.
    Unlisted,
    /// The kernel has no such hook.
    Absent(String),
    /// The kernel refused.
    Refused(String),
}

/// What became of a packet at a hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketFact {
    /// Its name.
    pub packet: String,
    /// How often the program ran meanwhile.
    pub ran: u64,
    /// Its fate.
    pub fate: Fate,
    /// Bytes that differ: offset, before, after. At most [`Fate::MOST_CHANGES`].
    pub changes: Vec<(u32, u8, u8)>,
    /// Its bytes where it arrived.
    pub bytes: Vec<u8>,
    /// The counters of [`crate::CheckOrder::counters`], before and after.
    #[serde(default)]
    pub counters: Vec<CounterFact>,
}

/// A number in a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CounterPlace {
    /// The map's name.
    pub map: String,
    /// The key.
    pub key: Vec<u8>,
    /// Where the number begins in the value; it ends after eight bytes, or with the value.
    pub at: u32,
}

/// A counter around a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterFact {
    /// Where it is.
    pub place: CounterPlace,
    /// Before the packet was sent; 0 where the map has no such key.
    pub before: u64,
    /// After it has arrived, or after the wait for it.
    pub after: u64,
    /// Why it can't be read.
    pub problem: Option<String>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It arrived as it was sent.
    Delivered,
    /// It arrived with other bytes.
    Changed,
    /// It left through another device.
    Redirected(String),
    /// It arrived nowhere.
    Dropped,
    /// It could not be sent.
    Unsent(String),
}

impl Fate {
    /// Changed bytes that are told, at most.
    pub const MOST_CHANGES: usize = 64;

    /// In tables and in `check.toml`.
    pub fn text(&self) -> String {
        match self {
            Self::Delivered => "delivered".to_owned(),
            Self::Changed => "changed".to_owned(),
            Self::Redirected(device) => format!("redirected: {device}"),
            Self::Dropped => "dropped".to_owned(),
            Self::Unsent(why) => format!("not sent: {why}"),
        }
    }

    /// Whether it is what `check.toml` expects.
    pub fn is(&self, wanted: &str) -> bool {
        self.text() == wanted || wanted == "redirected" && matches!(self, Self::Redirected(_))
    }
}

/// One line of the loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "kebab-case")]
pub enum FactLine {
    /// Who loads, and where.
    Loader {
        /// `libbpf 1.7`.
        loader: String,
        /// `uname -r`.
        release: String,
        /// The kernel's version.
        version: Option<KernelVersion>,
    },
    /// What is done next: if nothing follows, it is what ended the guest.
    Begin {
        /// In words.
        what: String,
    },
    /// An attempt to load.
    Load(LoadFact),
    /// A loaded program.
    Program(ProgramFact),
    /// A test run.
    Run(RunFact),
    /// A program at a hook.
    Hook(HookFact),
    /// Something that is no verdict on the object.
    Note {
        /// In words.
        text: String,
    },
    /// Everything was done.
    End,
}

/// Everything that is known of one object on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckFacts {
    /// `libbpf 1.7`.
    pub loader: String,
    /// The kernel's version.
    pub version: Option<KernelVersion>,
    /// What was begun last.
    pub last: String,
    /// Whether everything was done.
    pub complete: bool,
    /// The attempts to load.
    pub loads: Vec<LoadFact>,
    /// The programs that are loaded.
    pub programs: Vec<ProgramFact>,
    /// The test runs.
    pub runs: Vec<RunFact>,
    /// The programs at the hooks.
    pub hooks: Vec<HookFact>,
    /// Remarks.
    pub notes: Vec<String>,
    /// Lines that are none of the loader's.
    pub foreign: usize,
}

impl CheckFacts {
    /// Reads what the loader wrote. Lines that are none of its own are counted.
    pub fn read(text: &str) -> Self {
        let mut facts = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            match serde_json::from_str(line) {
                Ok(line) => facts.add(line),
                Err(_) => facts.foreign += 1,
            }
        }
        facts
    }

    /// Adds a line.
    pub fn add(&mut self, line: FactLine) {
        fn push<T>(list: &mut Vec<T>, value: T) {
            if list.len() < 8 * MAX_PROGRAMS {
                list.push(value);
            }
        }
        match line {
            FactLine::Loader { loader, release: _, version } => (self.loader, self.version) = (loader, version),
            FactLine::Begin { what } => self.last = what,
            FactLine::Load(load) => push(&mut self.loads, load),
            FactLine::Program(program) => push(&mut self.programs, program),
            FactLine::Run(run) => push(&mut self.runs, run),
            FactLine::Hook(hook) => push(&mut self.hooks, hook),
            FactLine::Note { text } => push(&mut self.notes, text),
            FactLine::End => self.complete = true,
        }
    }

    /// Whether the whole object was loaded at once: by the last attempt, since what `check.toml` says is tried after the object as
    /// it is.
    pub fn loaded_whole(&self) -> bool {
        self.loads.iter().rfind(|load| load.attempt != LoadAttempt::Alone).is_some_and(|load| load.errno.is_none())
    }

    /// The sum of the verified instructions.
    pub fn instructions(&self) -> u64 {
        self.programs.iter().map(|program| u64::from(program.instructions())).sum()
    }
}

impl ProgramFact {
    /// Verified instructions, as far as the kernel tells.
    pub fn instructions(&self) -> u32 {
        self.stats.map_or(self.verified, |stats| stats.instructions.max(self.verified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_statistics_are_read_from_its_last_line() {
        let log = "func#0 @0\nprocessed 146322 insns (limit 1000000) max_states_per_insn 37 total_states 9261 \
                   peak_states 2048 mark_read 122\n";
        let wanted = VerifierStats { instructions: 146_322, states: 9261, peak_states: 2048 };
        assert_eq!(VerifierStats::read(log), Some(wanted));
        assert_eq!(VerifierStats::read("processed x insns (limit"), None);
        assert_eq!(VerifierStats::read(""), None);
    }

    #[test]
    fn facts_survive_lines_that_are_not_the_loaders_and_a_guest_that_ends() {
        let lines = [
            FactLine::Loader { loader: "libbpf 1.7".into(), release: "6.1.0".into(), version: None },
            FactLine::Begin { what: "loading x".into() },
        ];
        let text: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
        let facts = CheckFacts::read(&format!("{}\nKernel panic\n{{\"fact\":\"no\"}}\n", text.join("\n")));
        assert_eq!(
            (&*facts.loader, &*facts.last, facts.complete, facts.foreign),
            ("libbpf 1.7", "loading x", false, 2)
        );
        assert!(!facts.loaded_whole());
    }

    #[test]
    fn a_fate_is_compared_as_it_is_written() {
        let away = Fate::Redirected("r0".into());
        assert!(away.is("redirected") && away.is("redirected: r0") && !away.is("redirected: r1"));
        assert!(Fate::Dropped.is("dropped") && !Fate::Dropped.is("redirected"));
    }
}
