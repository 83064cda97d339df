//! A kernel's test suite, with its cells as test cases.

use super::{Counts, Dialect, Kind, MAX_ATTRIBUTE, seconds, time, xml::Xml};
use crate::{attached, splats::SplatSummary};
use lab_base::text;
use lab_protocol::{AttachRecord, CellId, CellInfo, Outcome, witness::AttachRow};
use lab_record::{
    event::RunInfo,
    excuse::Excuse,
    guest::KernelRecord,
    kept::ReportedVerdict,
    plan::{PlannedCell, PlannedKernel},
    run::RunRecord,
    verdict::{Attempt, Standing},
};
use std::{
    collections::HashMap,
    fmt::Write as _,
    io,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Input of every suite.
pub(super) struct Desk<'a> {
    pub(super) record: &'a RunRecord,
    pub(super) info: &'a RunInfo,
    /// The plan's cells by id, since a run has thousands.
    pub(super) listed: HashMap<&'a CellId, &'a CellInfo>,
    /// Splats of the run, merged.
    pub(super) splats: Vec<SplatSummary>,
    pub(super) dialect: Dialect,
    /// Bytes of the longest suite so far, which the next is about as long as.
    pub(super) room: AtomicUsize,
}

/// A kernel's suite.
pub(super) struct SuiteText {
    /// With every case.
    pub(super) text: String,
    /// Where in it the cases are that passed or were skipped.
    quiet: Vec<Range<usize>>,
}

impl SuiteText {
    /// Writes the suite without the cases that passed or were skipped.
    pub(super) fn write_loud(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut from = 0;
        for Range { start, end } in &self.quiet {
            out.write_all(&self.text.as_bytes()[from..*start])?;
            from = *end;
        }
        if !self.quiet.is_empty() {
            let count = self.quiet.len();
            writeln!(
                out,
                "        <!-- {count} more that passed or were skipped are in this kernel's own junit.xml -->"
            )?;
        }
        out.write_all(&self.text.as_bytes()[from..])
    }
}

impl Desk<'_> {
    /// A kernel's suite, indented for the root element.
    pub(super) fn suite(&self, kernel: &PlannedKernel, happened: Option<&KernelRecord>, counts: Counts) -> SuiteText {
        let (facts, info) = (&kernel.facts, self.info);
        let mut xml = Xml::with_room(1, self.room.load(Ordering::Relaxed));
        let started = happened.map(|it| it.started_ms).filter(|ms| *ms > 0);
        let wall = happened.and_then(|it| it.finished).map(|(wall_ms, _)| seconds(wall_ms as f64 / 1e3));
        counts.suite(&mut xml, &facts.id, started.and_then(time), wall);
        let boot = happened.and_then(|happened| happened.boot.as_ref());
        let image = happened.and_then(|happened| happened.image.as_ref());
        xml.element("properties").open();
        let cut = |value| text::cut_line(value, MAX_ATTRIBUTE);
        for (name, value) in [
            ("kernel.release", &*cut(boot.map_or("unknown", |boot| &*boot.release))),
            ("kernel.version", &*facts.version.to_string()),
            ("kernel.class", &*facts.class),
            ("image.key", &*cut(image.map_or("unknown", |image| &*image.key))),
            ("accelerator", &*info.accelerator.name),
            ("accelerator.reason", &*cut(&info.accelerator.reason)),
            ("virtme-ng.version", &*info.versions.virtme_ng),
            ("qemu.version", &*info.versions.qemu),
            ("lab.version", &*info.versions.lab),
            ("agent.version", &*info.versions.agent),
        ] {
            property(&mut xml, name, value);
        }
        for (name, value) in info.provenance.facts() {
            property(&mut xml, name, &text::line(&value, MAX_ATTRIBUTE));
        }
        if let Some(mutant) = &info.mutant {
            property(&mut xml, "mutant", mutant);
        }
        xml.close("properties");
        let (mut told, mut quiet) = (String::new(), Vec::new());
        for (cell, verdict) in self.record.verdicts_on(kernel, happened) {
            if let Some(listed) = self.listed.get(&cell.id) {
                let (begin, standing) = (xml.len(), verdict.standing());
                self.case(&mut xml, &mut told, &Case { kernel, cell, listed, verdict });
                if matches!(standing, Standing::Passed | Standing::Skipped) {
                    quiet.push(begin..xml.len());
                }
            }
        }
        let told: Vec<&str> =
            happened.iter().flat_map(|it| it.losses.iter().chain(&it.notes)).map(|line| &**line).collect();
        if !told.is_empty() {
            xml.element("system-out").text(&told.join("\n"));
        }
        xml.close("testsuite");
        self.room.fetch_max(xml.len(), Ordering::Relaxed);
        SuiteText { text: xml.into_text(), quiet }
    }

    /// Writes a test case; `told` is a reused buffer for its output.
    fn case(&self, xml: &mut Xml, told: &mut String, case: &Case<'_>) {
        let Case { kernel, cell, listed, verdict } = case;
        let common = self.dialect == Dialect::Common;
        let class = format!("{}.{}", kernel.facts.id, text::cut_line(&listed.area, MAX_ATTRIBUTE));
        xml.element("testcase")
            .with("name", &text::cut_line(cell.id.as_str(), MAX_ATTRIBUTE))
            .with("classname", &class)
            .with_any("file", (common && !listed.file.is_empty()).then(|| listed.file.clone()))
            .with_any("line", (common && listed.line > 0).then(|| listed.line.to_string()))
            .with_any("assertions", common.then(|| verdict.checks().count().to_string()))
            .with("time", &seconds(verdict.report.duration_us as f64 / 1e6))
            .open();
        told.clear();
        // Properties first, because long output is cut off at its end.
        if common {
            xml.element("properties").open();
            self.properties(case, &mut |name, value| property(xml, name, value));
            xml.close("properties");
        } else {
            self.properties(case, &mut |name, value| {
                let _ = writeln!(told, "[[PROPERTY|{name}={value}]]");
            });
        }
        status(xml, verdict);
        // Jenkins' schema allows only the last attempt.
        if common && Kind::of(verdict.standing()) != Kind::Skipped {
            let passed = verdict.outcome == Outcome::Passed;
            verdict.earlier.iter().for_each(|attempt| rerun(xml, attempt, passed));
        }
        output(told, listed, verdict);
        for file in &verdict.files {
            let _ = writeln!(told, "[[ATTACHMENT|{}]]", text::line(&self.info.attachment(file), MAX_ATTRIBUTE));
        }
        if verdict.standing().is_bad()
            && let Some(enter) = self.record.enter(&kernel.facts.id, &cell.id)
        {
            let _ = writeln!(told, "shell: {enter}");
        }
        for splat in &verdict.splats {
            let splat = self.splats.iter().find(|it| it.fingerprint == splat.fingerprint);
            if let Some(splat) = splat {
                let _ = writeln!(told, "splat {}: {}", splat.fingerprint, splat.sightings());
            }
        }
        xml.element("system-out").text(told);
        if let Some(evidence) = &verdict.evidence {
            xml.element("system-err").text(evidence);
        }
        xml.close("testcase");
    }

    /// Passes the properties that have a value to `tell`.
    fn properties(&self, case: &Case<'_>, tell: &mut dyn FnMut(&'static str, &str)) {
        let Case { kernel, cell, listed, verdict } = case;
        let attachments = &verdict.report.attach;
        let all = |value: &dyn Fn(&AttachRecord) -> Option<String>| {
            let mut values: Vec<String> = Vec::new();
            for value in attachments.iter().filter_map(value) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            values.join("+")
        };
        let account = verdict.report.witness.as_deref();
        let seen = |value: &dyn Fn(&AttachRow) -> Option<String>| {
            let mut values: Vec<String> = Vec::new();
            for value in account.iter().flat_map(|account| &account.rows).filter_map(value) {
                if !values.contains(&value) {
                    values.push(value);
                }
            }
            text::line(&values.join("+"), MAX_ATTRIBUTE)
        };
        let number = |count: u64| if count == 0 { String::new() } else { count.to_string() };
        let used: Vec<&str> = verdict.used().iter().map(|used| used.name()).collect();
        let fingerprints: Vec<&str> = verdict.splats.iter().map(|splat| &*splat.fingerprint).collect();
        let classes: Vec<&str> = verdict.splats.iter().map(|splat| splat.class.name()).collect();
        let known = verdict.known.as_ref();
        let known =
            |value: fn(&Excuse) -> &str| known.map_or_else(String::new, |it| text::line(value(it), MAX_ATTRIBUTE));
        let attempts = if verdict.earlier.is_empty() { String::new() } else { (verdict.earlier.len() + 1).to_string() };
        let standing = match verdict.standing() {
            _ if verdict.is_unexpected_pass() => "unexpected-pass",
            standing @ (Standing::Flaky | Standing::Known) => standing.word(),
            _ => "",
        };
        let repro = text::line(&self.record.repro(&kernel.facts.id, &cell.id), MAX_ATTRIBUTE);
        for (name, value) in [
            ("standing", standing),
            ("attempts", &attempts),
            ("reused.from", verdict.reused.as_deref().unwrap_or_default()),
            ("splat.fingerprint", &fingerprints.join("+")),
            ("splat.class", &classes.join("+")),
            ("known.reason", &known(|it| &it.reason)),
            ("known.link", &known(|it| it.link.as_deref().unwrap_or_default())),
            ("known.expires", &known(|it| it.expires.as_deref().unwrap_or_default())),
            ("attach.requested", listed.attach.map_or("", |request| request.name())),
            ("attach.required", cell.required.map_or("", |required| required.name())),
            ("attach.used", &used.join("+")),
            ("attach.hook", &all(&|record| record.hook.map(|hook| hook.name().to_owned()))),
            ("attach.link_id", &all(&|record| record.link_id.map(|id| id.to_string()))),
            ("attach.prog_id", &all(&|record| Some(record.prog_id.to_string()))),
            ("attach.seen_hook", &seen(&|row| (row.attached > 0).then(|| row.place.hook.clone()))),
            ("attach.seen_way", &seen(&|row| (row.attached > 0).then(|| row.way.word().to_owned()))),
            ("attach.seen_program", &seen(&|row| Some(row.program.clone()))),
            ("attach.refused", &seen(&|row| (!row.refused.is_empty()).then(|| row.refusals()))),
            ("attach.left", &number(account.map_or(0, |account| account.left.len() as u64))),
            ("attach.lost_events", &number(account.map_or(0, |account| account.lost))),
            ("repro", &repro),
        ] {
            if !value.is_empty() {
                tell(name, value);
            }
        }
    }
}

/// A cell on a kernel.
struct Case<'a> {
    kernel: &'a PlannedKernel,
    cell: &'a PlannedCell,
    listed: &'a CellInfo,
    verdict: ReportedVerdict<'a>,
}

fn property(xml: &mut Xml, name: &str, value: &str) {
    xml.element("property").with("name", name).with("value", value).empty();
}

/// Status of a case that did not pass: the message as an attribute, and everything in the text, since many tools show
/// only the element's text.
fn status(xml: &mut Xml, verdict: &ReportedVerdict<'_>) {
    let message = || text::line(&verdict.outcome.message(), MAX_ATTRIBUTE);
    let (element, sort) = match &verdict.outcome {
        Outcome::Passed => return,
        Outcome::Failed { .. } | Outcome::Errored { .. } if let Some(known) = &verdict.known => {
            let message = text::line(&format!("known {}: {}", known.line(), message()), MAX_ATTRIBUTE);
            return xml.element("skipped").with("message", &message).with("type", "known").text(&story(verdict));
        }
        Outcome::Failed { kind, .. } => ("failure", kind.to_string()),
        Outcome::Errored { kind, .. } => ("error", kind.to_string()),
        Outcome::NotRun { .. } => ("error", "not-run".to_owned()),
        Outcome::SkippedItself { .. } => {
            // Some tools treat an element without text as absent.
            let (message, text) =
                (message(), if verdict.outcome.message().is_empty() { "skipped".to_owned() } else { message() });
            return xml.element("skipped").with("message", &message).with("type", "suite").text(&text);
        }
        Outcome::Skipped { reason } => {
            let (message, sort) = (message(), reason.capability.to_string());
            // Some tools treat an element without text as absent.
            return xml.element("skipped").with("message", &message).with("type", &sort).text(&message);
        }
    };
    xml.element(element).with("message", &message()).with("type", &sort).text(&story(verdict));
}

/// An earlier attempt: `flakyFailure` if the cell passed later, `rerunFailure` otherwise, as surefire writes them.
fn rerun(xml: &mut Xml, attempt: &Attempt, passed: bool) {
    let (element, sort) = match &attempt.outcome {
        Outcome::Failed { kind, .. } => (["rerunFailure", "flakyFailure"], kind.to_string()),
        Outcome::Errored { kind, .. } => (["rerunError", "flakyError"], kind.to_string()),
        other => (["rerunError", "flakyError"], other.word().to_owned()),
    };
    let element = element[usize::from(passed)];
    xml.element(element)
        .with("time", &seconds(attempt.duration_us as f64 / 1e6))
        .with("message", &text::cut_line(&attempt.outcome.message(), MAX_ATTRIBUTE))
        .with("type", &sort)
        .open();
    if let Some(evidence) = &attempt.evidence {
        xml.element("stackTrace").text(evidence);
    }
    xml.close(element);
}

/// Why a case did not pass: message, failed checks and remarks.
fn story(verdict: &ReportedVerdict<'_>) -> String {
    let checks = verdict.checks().filter(|check| !check.ok);
    let checks = checks.map(|check| format!("FAIL {}: {}", check.name.text, check.seen.text));
    let files = verdict.files.iter().map(|file| format!("attachment: {file}"));
    let lines: Vec<String> = std::iter::once(text::line(&verdict.outcome.message(), MAX_ATTRIBUTE))
        .chain(checks)
        .chain(verdict.remarks().iter().map(|remark| text::line(remark, MAX_ATTRIBUTE)))
        .chain(files)
        .collect();
    lines.join("\n")
}

/// A case's checks, attachments, metrics and log.
fn output(out: &mut String, listed: &CellInfo, verdict: &ReportedVerdict<'_>) {
    let mut line = |parts: &[&str]| {
        parts.iter().for_each(|part| out.push_str(part));
        out.push('\n');
    };
    line(&[&listed.title]);
    for check in verdict.checks() {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        line(&[mark, " ", check.name.text, ": ", check.seen.text]);
    }
    let report = &verdict.report;
    for record in &report.attach {
        let place = record.hook.map_or("nowhere", |hook| hook.name());
        let _ = write!(out, "attach {} ({}): {} -> {place}", record.interface, record.device, record.requested);
        let _ = write!(out, ", prog {}", record.prog_id);
        if let Some(link) = record.link_id {
            let _ = write!(out, ", link {link}");
        }
        if let Some(ran) = record.ran {
            let _ = write!(out, ", ran {ran}");
        }
        out.push('\n');
    }
    for line in report.witness.iter().flat_map(|account| attached::lines(account)) {
        let _ = writeln!(out, "witness: {line}");
    }
    for (name, value) in &report.metrics {
        let _ = writeln!(out, "metric {name} = {value}");
    }
    for remark in verdict.remarks() {
        let _ = writeln!(out, "warning: {}", text::cut_line(&remark, MAX_ATTRIBUTE));
    }
    for line in &report.log {
        let _ = writeln!(out, "{line}");
    }
}
