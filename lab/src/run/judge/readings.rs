//! The suite under the witness: what a cell says of its attachments, and what the kernel's functions say of them.

use super::witness::{AttachFault, NoVerdict};
use lab_base::text;
use lab_protocol::{AttachRecord, CellReport, FailureKind, Outcome, witness::Account};

/// Characters of a difference.
const WIDTH: usize = 400;
/// Ids of programs in a row of an account: a row that is full may lack one.
const FULL: usize = 16;

/// What differs between a cell's own readings and the witness's account of it; nothing for a cell that was not watched. The
/// error says why they can't be compared. Events that were lost are none: a function of the kernel that is preempted while it is
/// watched hides the next call of itself, and what such a cell passes without the witness, it passes with a warning.
pub(super) fn differences(report: &CellReport, warnings: &mut Vec<String>) -> Result<Vec<AttachFault>, NoVerdict> {
    if report.program.is_some() || matches!(report.outcome, Outcome::Skipped { .. }) {
        return Ok(Vec::new());
    }
    let Some(account) = report.witness.as_deref() else { return Ok(Vec::new()) };
    if let Some(reason) = &account.absent {
        return Err(NoVerdict::Unwatched(text::line(reason, WIDTH)));
    }
    if account.lost > 0 {
        warnings.push(format!(
            "{} events of the witness were lost: its account of this cell is not compared",
            account.lost
        ));
        return Ok(Vec::new());
    }
    let read = account.readings.iter().flat_map(|readings| readings.differing.iter().cloned());
    let records = report.attach.iter().filter_map(|record| of_record(account, record));
    let told = |line: String| AttachFault {
        kind: FailureKind::AttachMismatch,
        line: text::line(&format!("the suite and the witness differ: {line}"), WIDTH),
    };
    Ok(read.chain(records).map(told).collect())
}

fn of_record(account: &Account, record: &AttachRecord) -> Option<String> {
    let hook = record.hook?;
    let mut of_program = Vec::new();
    for row in account.rows.iter().filter(|row| row.attached > 0) {
        let is_its = row.ids.contains(&record.prog_id);
        let is_there =
            row.place.hook == hook.name() && row.place.device == record.interface && row.place.attach == record.used;
        if is_there && (is_its || row.ids.len() == FULL) {
            return None;
        }
        if is_its {
            of_program.push(row.place.to_string());
        }
    }
    // What was left out may have been it.
    if account.omitted > 0 {
        return None;
    }
    let witness = if of_program.is_empty() { "attached nowhere".to_owned() } else { of_program.join(" and ") };
    Some(format!(
        "program {} is on {hook} of {} by the suite, {witness} by the witness",
        record.prog_id, record.interface
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{
        AttachRequest, AttachType, DeviceKind,
        witness::{AttachPlace, AttachRow, AttachWay, Readings},
    };
    use lab_record::testing::{attached, passed};

    fn row(hook: &str, device: &str, ids: Vec<u32>) -> AttachRow {
        AttachRow {
            place: AttachPlace {
                attach: Some(AttachType::Tcx),
                hook: hook.to_owned(),
                device: device.to_owned(),
                kind: "veth".to_owned(),
                namespace: "w0".to_owned(),
            },
            way: AttachWay::Link,
            program: "tc_main".to_owned(),
            tag: String::new(),
            ids,
            process: "case".to_owned(),
            pid: 1,
            first_ms: 0,
            attached: 1,
            refused: std::collections::BTreeMap::new(),
            detached: 1,
            replaced: 0,
            runs: None,
            detail: String::new(),
        }
    }

    fn told(account: Account) -> Result<Vec<String>, String> {
        let record = attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tcx);
        let mut report = passed("A01-x[tcx]", vec![record]);
        report.witness = Some(Box::new(account));
        let mut warnings = Vec::new();
        let faults = differences(&report, &mut warnings).map_err(|error| error.to_string())?;
        Ok(faults.into_iter().map(|fault| fault.line).chain(warnings).collect())
    }

    #[test]
    fn a_record_needs_a_row_of_its_program_at_its_place() {
        let with = |rows| Account { rows, readings: Some(Readings::default()), ..Account::default() };
        assert!(told(with(vec![row("tcx/ingress", "eth0", vec![3, 7])])).unwrap().is_empty());
        assert!(told(with(vec![row("tcx/ingress", "eth0", (100..116).collect())])).unwrap().is_empty(), "a full row");
        for (rows, seen) in [
            (vec![row("tcx/egress", "eth0", vec![7])], "tcx/egress of eth0 (veth) in w0 by the witness"),
            (vec![row("tcx/ingress", "eth1", vec![7])], "tcx/ingress of eth1 (veth) in w0 by the witness"),
            (vec![row("tcx/ingress", "eth0", vec![8])], "attached nowhere by the witness"),
            (vec![], "attached nowhere by the witness"),
        ] {
            let lines = told(with(rows)).unwrap();
            let line =
                format!("the suite and the witness differ: program 7 is on tcx/ingress of eth0 by the suite, {seen}");
            assert_eq!(lines, [line]);
        }
    }

    #[test]
    fn what_was_not_watched_whole_is_not_compared() {
        assert_eq!(
            told(Account::absent("no type information")).unwrap_err(),
            "they could not be watched: no type information"
        );
        let lossy = Account { lost: 2, ..Account::default() };
        assert_eq!(
            told(lossy).unwrap(),
            ["2 events of the witness were lost: its account of this cell is not compared"]
        );
        let differing = Readings { compared: 3, unclear: 0, differing: vec!["x".to_owned()] };
        let rows = vec![row("tcx/ingress", "eth0", vec![7])];
        let read = Account { rows, readings: Some(differing), ..Account::default() };
        assert_eq!(told(read).unwrap(), ["the suite and the witness differ: x"]);
    }
}
