//! A splat of a kernel as a run records it.

use crate::excuse::Excuse;
use lab_protocol::{CellId, complaint::Class};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Where a splat was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// On the serial console.
    Console,
    /// In the kernel log, as the agent read it from `/dev/kmsg`: it holds what the console's level keeps back.
    KernelLog,
    /// In both.
    Both,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Console => "console",
            Self::KernelLog => "kernel log",
            Self::Both => "console and kernel log",
        })
    }
}

/// One splat, however often it was repeated in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Splat {
    /// What sort.
    pub class: Class,
    /// Class and a hash over subject and top frames: the same on every kernel and in every run.
    pub fingerprint: String,
    /// Its header, without time stamp.
    pub title: String,
    /// The header without what differs from kernel to kernel and from run to run.
    pub subject: String,
    /// Functions that it came from, innermost first, without the kernel's own reporting.
    pub frames: Vec<String>,
    /// Header and what followed.
    pub evidence: String,
    /// Where it was seen.
    pub seen: Seen,
    /// How often.
    pub times: u32,
    /// Cells that may have caused it, latest first; only where the splat comes long after its cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspects: Vec<CellId>,
    /// Why it fails nothing: an entry of `splats.toml`, or what it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Excuse>,
}

impl Splat {
    /// Whether it is about the processor that the kernel found: a warning of the code that sets one up
    /// (`arch/x86/kernel/cpu`, `fpu`, `tsc*.c`, `arch/x86/events`).
    pub fn is_about_processor(&self) -> bool {
        const SOURCES: [&str; 4] =
            ["arch/x86/kernel/cpu/", "arch/x86/kernel/fpu/", "arch/x86/kernel/tsc", "arch/x86/events/"];
        self.class == Class::Warn
            && SOURCES.iter().any(|source| self.subject.starts_with(&format!("WARNING at {source}")))
    }

    /// One line for people: what, how often, and whom it may be about.
    pub fn line(&self) -> String {
        let times = if self.times > 1 { format!(" ({} times)", self.times) } else { String::new() };
        let suspects: Vec<&str> = self.suspects.iter().map(CellId::as_str).collect();
        let suspects = if suspects.is_empty() { String::new() } else { format!("; suspects: {}", suspects.join(", ")) };
        format!("{}: {}{times}{suspects}", self.fingerprint, self.title)
    }
}
