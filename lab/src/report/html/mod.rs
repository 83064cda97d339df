//! The HTML report: one self-contained file per run, a heat map of kernels × cells with the attach type in every field.
//!
//! The file asks nothing of the network: style, script and data are in it. The data is one JSON text in which no
//! character can end its element, and the script only ever sets text, so that names and logs from a guest stay text.

use super::{
    Reporter, directory,
    record::{Counts, RunRecord, used},
};
use crate::{
    error::Error,
    event::{Event, RunInfo, Stamped},
    judge::Verdict,
    plan::PlannedCell,
    text,
};
use lab_protocol::{AttachRequest, AttachType, CapabilityReport, Outcome};
use serde::Serialize;
use std::{collections::HashMap, path::PathBuf};

/// The file's name.
pub const FILE: &str = "report.html";
/// Characters of a cell's message.
const MAX_MESSAGE: usize = 2_000;
/// Characters of a failed cell's evidence; passed cells have none, and junit.xml has everything.
const MAX_EVIDENCE: usize = 32 << 10;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Writes the file when the run has finished.
#[derive(Debug)]
pub struct HtmlReporter {
    /// The run's directory.
    pub directory: PathBuf,
}

impl Reporter for HtmlReporter {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), Error> {
        match &stamped.event {
            Event::RunFinished { .. } => self.write(record),
            _ => Ok(()),
        }
    }
}

impl HtmlReporter {
    /// Writes the file.
    ///
    /// # Errors
    /// It can't be written.
    pub fn write(&self, record: &RunRecord) -> Result<(), Error> {
        let path = self.directory.join(FILE);
        let page = render(record).map_err(|error| Error::file("write", &path)(error.into()))?;
        directory::replace(&path, page.as_bytes())
    }
}

#[derive(Serialize)]
struct Page<'a> {
    run: Option<&'a RunInfoBrief>,
    started_ms: u64,
    wall_ms: Option<u64>,
    exit: u8,
    counts: Counts,
    dead_cases: Vec<String>,
    kernels: Vec<Kernel<'a>>,
    /// Every cell once, in the plan's order; a kernel's results go by the same order.
    cells: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct RunInfoBrief {
    id: String,
    accelerator: String,
    reason: String,
    virtme_ng: String,
    qemu: String,
    mutant: Option<String>,
}

impl From<&RunInfo> for RunInfoBrief {
    fn from(info: &RunInfo) -> Self {
        Self {
            id: info.id.clone(),
            accelerator: info.accelerator.name.clone(),
            reason: info.accelerator.reason.clone(),
            virtme_ng: info.versions.virtme_ng.clone(),
            qemu: info.versions.qemu.clone(),
            mutant: info.mutant.clone(),
        }
    }
}

#[derive(Serialize)]
struct Row<'a> {
    id: &'a str,
    area: &'a str,
    title: &'a str,
    #[serde(skip)]
    attach: Option<AttachRequest>,
}

#[derive(Serialize)]
struct Kernel<'a> {
    id: &'a str,
    class: &'a str,
    release: Option<&'a str>,
    boot_ms: Option<u64>,
    wall_ms: Option<u64>,
    capabilities: &'a [CapabilityReport],
    notes: Vec<&'a str>,
    /// By the order of the page's rows; `None` where the plan has no such cell for this kernel.
    results: Vec<Option<Field>>,
}

#[derive(Serialize)]
struct Field {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    required: Option<AttachType>,
    used: Vec<AttachType>,
    ms: u64,
    checks: usize,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    evidence: String,
    repro: String,
}

/// The page, a function of the record alone.
fn render(record: &RunRecord) -> serde_json::Result<String> {
    let run = record.info.as_ref().map(RunInfoBrief::from);
    let cells: Vec<Row<'_>> = record
        .info
        .iter()
        .flat_map(|info| &info.plan.cells)
        .map(|cell| Row { id: cell.id.as_str(), area: &cell.area, title: &cell.title, attach: cell.attach })
        .collect();
    let kernels = record
        .planned()
        .map(|(kernel, happened)| {
            let by_id: HashMap<&str, &PlannedCell> = kernel.cells.iter().map(|cell| (cell.id.as_str(), cell)).collect();
            let result = |row: &Row<'_>| {
                let cell = by_id.get(row.id)?;
                let requested = row.attach;
                Some(Field::new(
                    record.repro(&kernel.facts.id, &cell.id),
                    requested,
                    cell,
                    &record.verdict(happened, cell),
                ))
            };
            Kernel {
                id: &kernel.facts.id,
                class: &kernel.facts.class,
                release: happened.and_then(|it| it.boot.as_ref()).map(|boot| &*boot.release),
                boot_ms: happened.and_then(|it| it.boot.as_ref()).map(|boot| boot.boot_ms),
                wall_ms: happened.and_then(|it| it.finished).map(|(wall_ms, _)| wall_ms),
                capabilities: happened.map_or(&[], |it| &it.capabilities),
                notes: happened.map_or_else(Vec::new, |it| it.losses.iter().chain(&it.notes).map(|it| &**it).collect()),
                results: cells.iter().map(result).collect(),
            }
        })
        .collect();
    let page = Page {
        run: run.as_ref(),
        started_ms: record.started_ms,
        wall_ms: record.finished.map(|(_, wall_ms)| wall_ms),
        exit: record.finished.map_or_else(|| record.exit(), |(exit, _)| exit).code(),
        counts: record.counts(),
        dead_cases: record.dead_cases(),
        kernels,
        cells,
    };
    Ok(PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("/*DATA*/", &embedded(&page)?))
}

/// JSON that no HTML parser can mistake for the end of its element, or for a comment.
fn embedded(page: &Page<'_>) -> serde_json::Result<String> {
    Ok(serde_json::to_string(page)?.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"))
}

impl Field {
    fn new(repro: String, requested: Option<AttachRequest>, cell: &PlannedCell, verdict: &Verdict) -> Self {
        let bad = !matches!(verdict.outcome, Outcome::Passed | Outcome::Skipped { .. });
        Self {
            outcome: verdict.outcome.word(),
            requested: requested.map(AttachRequest::name),
            required: cell.required,
            used: used(verdict),
            ms: verdict.report.duration_us / 1000,
            checks: verdict.report.checks.len(),
            message: text::line(&verdict.outcome.message(), MAX_MESSAGE),
            evidence: if bad { evidence(verdict) } else { String::new() },
            repro,
        }
    }
}

/// What a failed cell shows: its checks, its log, and the console around a death.
fn evidence(verdict: &Verdict) -> String {
    let checks = verdict
        .report
        .checks
        .iter()
        .map(|check| format!("{} {}: {}", if check.ok { "ok  " } else { "FAIL" }, check.name, check.seen));
    let log = verdict.report.log.iter().map(|line| format!("log  {line}"));
    let console = verdict.evidence.iter().map(|text| format!("console:\n{text}"));
    let warnings = verdict.warnings.iter().map(|line| format!("note {line}"));
    let lines: Vec<String> = checks.chain(log).chain(warnings).chain(console).collect();
    text::block(&lines.join("\n"), MAX_EVIDENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::record as sample_record;

    #[test]
    fn names_and_logs_cannot_leave_the_data() {
        let mut record = sample_record();
        if let Some(info) = &mut record.info {
            info.plan.cells[0].title = "</script><img src=x onerror=alert(1)> & <!--".into();
        }
        let page = render(&record).unwrap();
        let data = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap().1;
        let data = data.split_once("</script>").unwrap().0;
        assert!(!data.contains(['<', '>', '&']), "{data}");
        let parsed: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(parsed["cells"][0]["title"], "</script><img src=x onerror=alert(1)> & <!--");
    }

    #[test]
    fn every_planned_cell_of_every_kernel_has_a_field() {
        let record = sample_record();
        let page = render(&record).unwrap();
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        let parsed: serde_json::Value = serde_json::from_str(data).unwrap();
        for (kernel, planned) in parsed["kernels"].as_array().unwrap().iter().zip(record.planned()) {
            let filled = kernel["results"].as_array().unwrap().iter().filter(|it| !it.is_null()).count();
            assert_eq!(filled, planned.0.cells.len(), "{}", kernel["id"]);
        }
        assert!(!page.contains("http:") && !page.contains("https:"), "the page asks nothing of the network");
    }
}
