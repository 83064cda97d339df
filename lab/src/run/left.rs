//! What a cell leaves in its guest.

use lab_base::text;
use lab_protocol::{CellReport, HowEnded};
use lab_record::splat::Splat;

/// What a program did to its guest that another one would meet, one line; `None` if it left it as it was.
pub fn left_behind(report: &CellReport, splats: &[Splat]) -> Option<String> {
    if let Some(splat) = splats.first() {
        return Some(format!("caused a splat ({})", splat.line()));
    }
    // The guest's own count, and what the witness found still attached.
    let counted = report.log.iter().find_map(|line| line.strip_prefix("left behind: "));
    if let Some(left) = counted {
        return Some(format!("left behind {left}"));
    }
    let attached = report.witness.as_ref().map_or(0, |account| account.left.len());
    if attached > 0 {
        return Some(format!("left {} attached", text::count(attached, "program")));
    }
    match report.program.as_ref().map(|end| (&end.how, &end.processes[..])) {
        Some((HowEnded::TimedOut { .. }, _)) => Some("was ended at its timeout".to_owned()),
        Some((_, [first, ..])) => Some(format!("left {first} running")),
        _ => None,
    }
}
