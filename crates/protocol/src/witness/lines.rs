//! An account as text, a line for each fact.

use super::{Account, AttachRow, DeviceRow, Effects, StateMark};
use std::fmt;

impl Account {
    /// Its rows, what is left, its gaps, and from what it was read.
    pub fn lines(&self) -> Vec<String> {
        let mut out: Vec<String> = self.rows.iter().map(row).collect();
        out.extend(self.left.iter().map(|left| format!("left attached: {left}")));
        out.extend(self.devices.iter().map(ToString::to_string));
        out.extend(self.marks.iter().flat_map(mark));
        out.extend(self.effects.iter().flat_map(effects));
        out.extend(self.gaps());
        out.extend(self.readings.iter().map(|readings| {
            let unclear = match readings.unclear {
                0 => String::new(),
                count => format!(", {count} can't be: something changed meanwhile"),
            };
            format!("held against what the case read: {} readings are compared{unclear}", readings.compared)
        }));
        out.extend(self.sources.iter().map(|source| format!("source: {source}")));
        out
    }

    /// What it does not know.
    pub fn gaps(&self) -> Vec<String> {
        let counted = [
            (self.lost, "events were lost"),
            (self.omitted, "rows and leftovers are left out"),
            (self.unexplained, "attachments ended, or began, and no event says so"),
        ];
        let counted =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("gap: {count} {what}"));
        let absent = self.absent.iter().map(|reason| format!("no events: {reason}"));
        let partial = self.partial.iter().map(|reason| format!("not all is seen: {reason}"));
        absent.chain(partial).chain(counted).collect()
    }
}

impl fmt::Display for DeviceRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.is_new { "made" } else { "changed" };
        let settings = if self.settings.is_empty() { "without settings" } else { &*self.settings };
        write!(f, "netkit device {} in {} ", self.name, self.namespace)?;
        match &self.refused {
            None => f.write_str(what)?,
            Some(errno) => write!(f, "not {what}, {errno}")?,
        }
        write!(f, ": {settings}, by {} ({})", self.process, self.pid)?;
        if self.count == 1 { Ok(()) } else { write!(f, ", {} ×", self.count) }
    }
}

/// A mark: what changed since the one before.
fn mark(mark: &StateMark) -> Vec<String> {
    let head = format!("mark {} (+{} ms)", mark.name, mark.at_ms);
    if mark.changes.is_empty() {
        return vec![format!("{head}: nothing changed")];
    }
    let more = (mark.omitted > 0).then(|| format!("{head}: and {} more changes", mark.omitted));
    mark.changes.iter().map(|change| format!("{head}: {change}")).chain(more).collect()
}

/// Bits of taint by their letters (Documentation/admin-guide/tainted-kernels.rst).
const TAINT: &[u8] = b"PFSRMBUDAWCIOELKXTNJ";

/// What the program did to its machine.
fn effects(effects: &Effects) -> Vec<String> {
    let mut out = vec![format!(
        "used {:.2} s of processor time and at most {} MiB of memory, the kernel's for it included",
        effects.cpu_ms as f64 / 1000.0,
        effects.memory_kib.div_ceil(1024)
    )];
    if !effects.modules.is_empty() {
        out.push(format!("modules were loaded: {}", effects.modules.join(", ")));
    }
    if effects.taint != 0 {
        let letter = |bit: &usize| TAINT.get(*bit).map_or('?', |letter| char::from(*letter));
        let letters: String = (0..64).filter(|bit| effects.taint >> bit & 1 == 1).map(|bit| letter(&bit)).collect();
        out.push(format!("the kernel became tainted: {letters}"));
    }
    if effects.oom_kills > 0 {
        out.push(format!("the kernel killed {} processes for want of memory", effects.oom_kills));
    }
    out
}

fn row(row: &AttachRow) -> String {
    let mut line = format!("{} by {}: {}", row.place, row.way.word(), row.subject());
    let detail = if row.detail.is_empty() { String::new() } else { format!(", {}", row.detail) };
    let counts = [(row.attached, "attached"), (row.detached, "detached"), (row.replaced, "replaced")];
    let counts: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what} {count} ×")).collect();
    line += &format!("{detail}, {}", counts.join(", "));
    if !row.refused.is_empty() {
        line += &format!("{}refused {}", if counts.is_empty() { "" } else { ", " }, row.refusals());
    }
    match row.runs {
        _ if row.attached == 0 => {}
        Some(0) => line += ", never ran",
        Some(runs) => line += &format!(", ran {runs} ×"),
        None => line += ", runs unknown",
    }
    line
}
