//! A kernel splat (warning, BUG, KASAN report and others) as a run records it.

use crate::excuse::Excuse;
use lab_protocol::{CellId, complaint::SplatClass};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Source of a splat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SplatPlace {
    /// On the serial console.
    Console,
    /// In the kernel log, which the agent reads from `/dev/kmsg`: it includes messages below the console's log level.
    KernelLog,
    /// In both.
    Both,
}

impl fmt::Display for SplatPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Console => "console",
            Self::KernelLog => "kernel log",
            Self::Both => "console and kernel log",
        })
    }
}

/// A splat, merged with its repetitions in the same cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// Kind of the splat.
    pub class: SplatClass,
    /// Class and a hash of subject and top frames: the same on every kernel and in every run.
    pub fingerprint: String,
    /// First line, without time stamp.
    pub title: String,
    /// First line without parts that differ between kernels and runs.
    pub subject: String,
    /// Functions of its call trace, innermost first, without the kernel's reporting functions.
    pub frames: Vec<String>,
    /// First line and the lines that follow.
    pub evidence: String,
    /// Its source.
    pub seen: SplatPlace,
    /// Number of occurrences.
    pub times: u32,
    /// Cells that may have caused it, latest first; only for splats that occur long after their cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<CellId>,
    /// Why it does not count: an entry of `splats.toml`, or its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Excuse>,
}

impl Splat {
    /// Whether it is about the processor: a warning of the code that sets up a processor (`arch/x86/kernel/cpu`, `fpu`,
    /// `tsc*.c`, `arch/x86/events`).
    pub fn is_about_processor(&self) -> bool {
        const SOURCES: [&str; 4] =
            ["arch/x86/kernel/cpu/", "arch/x86/kernel/fpu/", "arch/x86/kernel/tsc", "arch/x86/events/"];
        self.class == SplatClass::Warn
            && SOURCES.iter().any(|source| self.subject.starts_with(&format!("WARNING at {source}")))
    }

    /// Title, number of occurrences and suspects in one line.
    pub fn line(&self) -> String {
        let times = if self.times > 1 { format!(" ({} times)", self.times) } else { String::new() };
        let suspects: Vec<&str> = self.suspects.iter().map(CellId::as_str).collect();
        let suspects = if suspects.is_empty() { String::new() } else { format!("; suspects: {}", suspects.join(", ")) };
        format!("{}: {}{times}{suspects}", self.fingerprint, self.title)
    }
}
