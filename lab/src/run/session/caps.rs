//! Limits for texts, lists and files from a guest.

use lab_base::text;
use lab_protocol::{
    CapabilityReport, CellReport, ErrorKind, Outcome,
    witness::{Account, AttachPlace, CHANGES, DIFFERENCES, LEFT, MARKS, NAMES, ROWS},
};

/// Maximum entries of each list in a report.
const MAX_ENTRIES: usize = 500;
/// Maximum bytes of each string in a report.
const MAX_TEXT: usize = 4096;
/// Maximum bytes of a metric's name.
const MAX_NAME: usize = 128;
/// Maximum numbers in a row of an account.
const MAX_IDS: usize = 16;
/// Maximum bytes of a kernel log message.
const MAX_LOG: usize = 256 << 10;
/// Maximum number of files in a report.
const MAX_FILES: usize = 24;
/// Maximum bytes of each file.
const MAX_FILE: usize = 512 << 10;

/// Truncates a piece of the kernel log.
pub(super) fn kernel_log(mut log: String) -> String {
    text::cap(&mut log, MAX_LOG);
    log
}

/// Truncates a kernel's probe results.
pub(super) fn probes(capabilities: &mut Vec<CapabilityReport>) {
    capabilities.truncate(MAX_ENTRIES);
    capabilities.iter_mut().for_each(|probe| text::cap(&mut probe.detail, MAX_TEXT));
}

/// Truncates a list of lines.
pub(super) fn lines(texts: &mut Vec<String>) {
    texts.truncate(MAX_ENTRIES);
    texts.iter_mut().for_each(|text| text::cap(text, MAX_TEXT));
}

/// Truncates an account of attachments.
pub(crate) fn witness(account: &mut Account) {
    lines(&mut account.sources);
    account.absent.iter_mut().chain(&mut account.partial).for_each(|reason| text::cap(reason, MAX_TEXT));
    let beyond = account.rows.len().saturating_sub(ROWS) + account.left.len().saturating_sub(LEFT);
    account.omitted = account.omitted.saturating_add(beyond as u64);
    if let Some(readings) = &mut account.readings {
        readings.differing.truncate(DIFFERENCES);
        readings.differing.iter_mut().for_each(|line| text::cap(line, MAX_TEXT));
    }
    account.devices.truncate(ROWS);
    for row in &mut account.devices {
        let texts = [&mut row.name, &mut row.namespace, &mut row.settings, &mut row.process];
        texts.into_iter().chain(&mut row.refused).for_each(|text| text::cap(text, MAX_TEXT));
    }
    account.marks.truncate(MARKS);
    for mark in &mut account.marks {
        text::cap(&mut mark.name, MAX_NAME);
        mark.changes.truncate(CHANGES);
        mark.changes.iter_mut().for_each(|line| text::cap(line, MAX_TEXT));
    }
    if let Some(effects) = &mut account.effects {
        effects.modules.truncate(NAMES);
        effects.modules.iter_mut().for_each(|name| text::cap(name, MAX_NAME));
    }
    account.rows.truncate(ROWS);
    account.left.truncate(LEFT);
    let place = |place: &mut AttachPlace| {
        let texts = [&mut place.hook, &mut place.device, &mut place.kind, &mut place.namespace];
        texts.into_iter().for_each(|text| text::cap(text, MAX_NAME));
    };
    for row in &mut account.rows {
        place(&mut row.place);
        let texts = [&mut row.program, &mut row.tag, &mut row.process, &mut row.detail];
        texts.into_iter().for_each(|text| text::cap(text, MAX_NAME));
        row.ids.truncate(MAX_IDS);
        row.refused.retain(|errno, _| errno.len() <= MAX_NAME);
        while row.refused.len() > MAX_IDS {
            row.refused.pop_last();
        }
    }
    for left in &mut account.left {
        place(&mut left.place);
        text::cap(&mut left.program, MAX_NAME);
        left.pin.iter_mut().chain(&mut left.by).for_each(|text| text::cap(text, MAX_NAME));
    }
}

/// Truncates everything in a report that a guest could make large.
pub fn report(report: &mut CellReport) {
    lines(&mut report.log);
    report.checks.truncate(MAX_ENTRIES);
    for check in &mut report.checks {
        text::cap(&mut check.name, MAX_TEXT);
        text::cap(&mut check.seen, MAX_TEXT);
    }
    report.attach.truncate(MAX_ENTRIES);
    report.attach.iter_mut().for_each(|record| text::cap(&mut record.interface, 64));
    if let Some(account) = &mut report.witness {
        witness(account);
    }
    report.attachments.truncate(MAX_FILES);
    report.attachments.iter_mut().for_each(|file| file.bytes.truncate(MAX_FILE));
    report.metrics.retain(|name, _| name.len() <= MAX_NAME);
    while report.metrics.len() > MAX_ENTRIES {
        report.metrics.pop_last();
    }
    // What a program says of itself the host reads from its output.
    if let Outcome::SkippedItself { .. } = report.outcome {
        let message = "the agent reported a skip that only the host decides".to_owned();
        report.outcome = Outcome::Errored { kind: ErrorKind::Agent, message };
    }
    match &mut report.outcome {
        Outcome::Passed => {}
        Outcome::Failed { message, .. }
        | Outcome::Errored { message, .. }
        | Outcome::NotRun { message }
        | Outcome::SkippedItself { message } => {
            text::cap(message, MAX_TEXT);
        }
        Outcome::Skipped { reason } => text::cap(&mut reason.detail, MAX_TEXT),
    }
}
