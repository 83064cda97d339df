//! The three rows that every kernel has in addition to its cells: `boot`, `splat` and `teardown`. They are not run in a
//! guest; they summarise how the guests of a kernel started and ended, and count like cells.

use crate::{
    event::{Moment, Start},
    guest::{GuestEnd, GuestRecord, KernelRecord},
    kept::Kept,
    plan::{Expectation, PlannedCell, PlannedKernel},
    splat::Splat,
    verdict::Verdict,
};
use lab_protocol::{CapabilityState, CellId, CellInfo, CellReport, Check, ErrorKind, FailureKind, Outcome, Work};
use std::sync::LazyLock;

/// Area of the rows in listings.
pub const AREA: &str = "guest";

/// Name and title of each row.
const ROWS: [(&str, &str); 3] = [
    ("boot", "Every guest boots: its agent sends Hello and finishes its probes."),
    ("splat", "The kernel prints no splat while no cell is running."),
    ("teardown", "Every guest powers off on request and leaves no resources behind."),
];

static CELLS: LazyLock<[PlannedCell; 3]> = LazyLock::new(|| {
    ROWS.map(|(name, _)| PlannedCell { id: CellId(name.into()), required: None, expectation: Expectation::Run })
});

static INFOS: LazyLock<[CellInfo; 3]> = LazyLock::new(|| {
    ROWS.map(|(name, title)| CellInfo {
        file: String::new(),
        line: 0,
        id: CellId(name.into()),
        catalogue: String::new(),
        area: AREA.to_owned(),
        title: title.to_owned(),
        topology: String::new(),
        attach: None,
        device: None,
        requires: Vec::new(),
        deadline_ms: 0,
        work: Work::Case,
    })
});

/// A kernel's cells together with its rows: `boot` first, the others last.
pub fn around(kernel: &PlannedKernel) -> impl Iterator<Item = &PlannedCell> {
    let (before, after) = CELLS.split_at(1);
    before.iter().chain(&kernel.cells).chain(after)
}

/// The cell at a position of [`around`].
pub fn nth(kernel: &PlannedKernel, place: usize) -> Option<&PlannedCell> {
    let (before, after) = CELLS.split_at(1);
    let Some(place) = place.checked_sub(before.len()) else { return before.get(place) };
    kernel.cells.get(place).or_else(|| after.get(place.checked_sub(kernel.cells.len())?))
}

/// The listing of the rows.
pub fn infos() -> &'static [CellInfo] {
    &*INFOS
}

/// Whether a cell is a row.
pub fn is_row(cell: &CellId) -> bool {
    ROWS.iter().any(|(name, _)| *name == cell.as_str())
}

/// A row's verdict; `None` for a cell of the suite.
pub fn verdict(kernel: Option<&KernelRecord>, cell: &CellId) -> Option<Verdict> {
    let judge: fn(&KernelRecord) -> Verdict = match cell.as_str() {
        "boot" => boot,
        "splat" => splat,
        "teardown" => teardown,
        _ => return None,
    };
    let mut verdict = kernel.map_or_else(|| not_run("the run ended before the kernel was started"), judge);
    verdict.report.cell = cell.clone();
    verdict.report.outcome.clone_from(&verdict.outcome);
    Some(verdict)
}

fn row(outcome: Outcome, checks: Vec<Check>) -> Verdict {
    Verdict::on(CellReport { checks, ..CellReport::bare(CellId("".into()), outcome.clone()) }, outcome)
}

fn not_run(why: &str) -> Verdict {
    row(Outcome::NotRun { message: why.to_owned() }, Vec::new())
}

/// The verdict of a row without a guest. If no guest was started, the kernel's notes contain the reason.
fn no_guest(kernel: &KernelRecord) -> Verdict {
    let by_host =
        |kept: &Kept| kept.whole().is_some_and(|verdict| matches!(verdict.outcome, Outcome::SkippedItself { .. }));
    // Without a guest, only the host can have skipped them.
    if kernel.guests.is_empty() && !kernel.verdicts.is_empty() && kernel.verdicts.values().all(by_host) {
        let message = "no guest was needed: the host skips every cell".to_owned();
        return row(Outcome::SkippedItself { message }, Vec::new());
    }
    match kernel.notes.last() {
        Some(note) if kernel.guests.is_empty() => not_run(&format!("no guest was started: {note}")),
        _ if kernel.guests.is_empty() => not_run("no guest was started"),
        _ => not_run("no guest booted"),
    }
}

fn counted(count: usize, guests: usize) -> String {
    format!("{count} of {guests} guests")
}

fn boot(kernel: &KernelRecord) -> Verdict {
    if kernel.guests.is_empty() {
        return no_guest(kernel);
    }
    let guests = kernel.guests.len();
    let up = kernel.guests.values().filter(|guest| guest.came_up).count();
    let lost = |guest: &GuestRecord| match &guest.end {
        Some(GuestEnd::Lost { kind, message, .. }) if !guest.came_up => Some((*kind, message.clone())),
        _ => None,
    };
    let failed: Vec<(u32, ErrorKind, String)> = kernel
        .guests
        .iter()
        .filter_map(|(number, guest)| lost(guest).map(|(kind, message)| (*number, kind, message)))
        .collect();
    let known = kernel.capabilities.iter().filter(|it| it.state == CapabilityState::Supported).count();
    let checks = vec![
        Check { name: "guests boot".to_owned(), ok: failed.is_empty() && up > 0, seen: counted(up, guests) },
        Check {
            name: "probes finish".to_owned(),
            ok: up > 0,
            seen: format!("{known} of {} capabilities are supported", kernel.capabilities.len()),
        },
    ];
    let mut verdict = match failed.first() {
        Some((number, kind, message)) => {
            let message =
                format!("{} did not boot; the first, guest {number}: {message}", counted(failed.len(), guests));
            row(Outcome::Errored { kind: *kind, message }, checks)
        }
        None if up == 0 => return not_run("the run ended before a guest had booted"),
        None => row(Outcome::Passed, checks),
    };
    verdict.report.duration_us = kernel.boot.as_ref().map_or(0, |boot| boot.boot_ms * 1000);
    verdict
}

fn splat(kernel: &KernelRecord) -> Verdict {
    if !kernel.guests.values().any(|guest| guest.came_up) && kernel.splats.is_empty() {
        return no_guest(kernel);
    }
    let bad: Vec<&(u32, Moment, Splat)> = kernel.splats.iter().filter(|(_, _, it)| it.allowed.is_none()).collect();
    let check = Check {
        name: "no splat outside of a cell".to_owned(),
        ok: bad.is_empty(),
        seen: format!("{} splats, {} of them allowed", kernel.splats.len(), kernel.splats.len() - bad.len()),
    };
    let outcome = match bad.first() {
        None => Outcome::Passed,
        Some((guest, moment, first)) => {
            let more = if bad.len() > 1 { format!(", and {} more", bad.len() - 1) } else { String::new() };
            let message = format!("{} ({}, guest {guest}){more}", first.title, moment.words());
            Outcome::Failed { kind: FailureKind::Splat, message }
        }
    };
    let mut verdict = row(outcome, vec![check]);
    verdict.evidence = bad.first().map(|(_, _, first)| first.evidence.clone());
    verdict.splats = kernel.splats.iter().map(|(_, _, splat)| splat.clone()).collect();
    verdict
}

fn teardown(kernel: &KernelRecord) -> Verdict {
    if !kernel.guests.values().any(|guest| guest.came_up) {
        return no_guest(kernel);
    }
    let (mut off, mut frozen, mut cost) = (0, 0, 0);
    let mut problems: Vec<String> = Vec::new();
    let mut lost: Option<(ErrorKind, String)> = None;
    let mut shutdown_ms = 0;
    let mut cut = 0;
    for (number, guest) in &kernel.guests {
        match &guest.end {
            Some(GuestEnd::Off { shutdown_ms: ms, problems: seen }) => {
                off += usize::from(seen.is_empty());
                shutdown_ms = shutdown_ms.max(*ms);
                problems.extend(seen.iter().map(|problem| format!("guest {number}: {problem}")));
            }
            // This loss is reported by the cell that was running, or by the boot row.
            Some(GuestEnd::Lost { cell: Some(_), .. }) => cost += 1,
            Some(GuestEnd::Lost { .. }) if !guest.came_up => cost += 1,
            Some(GuestEnd::Lost { kind, message, .. }) => {
                lost.get_or_insert((*kind, format!("guest {number} was lost between cells: {message}")));
            }
            None if guest.start == Start::Snapshot => frozen += 1,
            // This guest never answered: its snapshot was discarded and another guest ran its cells.
            None if !guest.came_up => {}
            None => cut += 1,
        }
    }
    let guests = kernel.guests.len();
    let check = Check {
        name: "guests end cleanly".to_owned(),
        ok: problems.is_empty() && lost.is_none(),
        seen: format!(
            "of {guests} guests, {off} powered off cleanly, {frozen} became snapshots, {cost} crashed in a cell"
        ),
    };
    let outcome = match (lost, problems.first()) {
        (Some((kind, message)), _) => Outcome::Errored { kind, message },
        (None, Some(first)) => {
            let more = if problems.len() > 1 { format!(", and {} more", problems.len() - 1) } else { String::new() };
            Outcome::Failed { kind: FailureKind::Teardown, message: format!("{first}{more}") }
        }
        (None, None) if cut > 0 => return not_run(&format!("the run ended before {}", counted(cut, guests))),
        (None, None) => Outcome::Passed,
    };
    let mut verdict = row(outcome, vec![check]);
    verdict.report.duration_us = shutdown_ms * 1000;
    verdict.report.log = problems;
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{excuse::Excuse, testing::splat as splat_of};

    const BAD: &str = "BUG: kernel NULL pointer dereference, address: 0";

    #[test]
    fn the_row_of_splats_shows_the_first_that_no_list_allows() {
        let allowed = Some(Excuse { reason: "harmless".to_owned(), link: None, expires: None });
        let harmless =
            Splat { allowed, ..splat_of("warn-ce77f79386", "WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2") };
        let bad = splat_of("oops-231927afab", BAD);
        let worse = splat_of("oops-331927afab", "BUG: unable to handle page fault for address: 1");
        let of = |splats: &[&Splat]| {
            let splats = splats.iter().map(|it| (2, Moment::Teardown, (*it).clone())).collect();
            splat(&KernelRecord { splats, ..KernelRecord::default() })
        };
        let told = of(&[&harmless, &bad, &worse]);
        assert_eq!(told.evidence.as_deref(), Some(BAD));
        let message = format!("{BAD} (after the last cell, guest 2), and 1 more");
        assert!(told.outcome.message().ends_with(&message), "{:?}", told.outcome);
        assert_eq!(told.splats.len(), 3);
        let told = of(&[&harmless]);
        assert_eq!((told.outcome, told.evidence), (Outcome::Passed, None));
    }
}
