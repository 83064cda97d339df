//! Data for the page's script: small numbers, and indexes into one list of texts, because texts repeat over hundreds of
//! thousands of cells.

use crate::{
    attached,
    results::directory::console,
    splats::{self, SplatSummary},
};
use lab_base::text;
use lab_protocol::{AttachRequest, AttachType, CapabilityReport, CellId, CellInfo, LinkKind, Outcome};
use lab_record::{
    event::RunInfo,
    guest::KernelRecord,
    kept::{InternedText, ReportedVerdict},
    plan::{PlannedCell, PlannedKernel},
    rows,
    run::RunRecord,
    verdict::Standing,
};
use serde::{Serialize, Serializer};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

/// Maximum characters of a cell's message.
pub(super) const MAX_MESSAGE: usize = 2_000;
/// Maximum characters of a line of evidence.
const MAX_LINE: usize = 500;
/// Maximum characters of a console.
const MAX_CONSOLE: usize = 32 << 10;
/// Maximum log lines of a cell, passed or not; junit.xml has all lines.
const MAX_LOG: [usize; 2] = [20, 200];
/// Maximum number of linked consoles of a kernel: with a guest per case there are hundreds.
const MAX_CONSOLES: usize = 8;

/// Interned texts in order of their first use. Written after everything else, because writing the page adds to them.
#[derive(Default)]
pub(super) struct PageTexts(RefCell<Known>);

#[derive(Default)]
struct Known {
    indexes: HashMap<Rc<str>, u32>,
    all: Vec<Rc<str>>,
    /// The indexes of lines by their number in the record's text table.
    by_number: Vec<Option<u32>>,
}

impl PageTexts {
    fn index(&self, text: &str) -> u32 {
        let mut known = self.0.borrow_mut();
        if let Some(index) = known.indexes.get(text) {
            return *index;
        }
        let index = u32::try_from(known.all.len()).unwrap_or(u32::MAX);
        let text: Rc<str> = text.into();
        known.all.push(Rc::clone(&text));
        known.indexes.insert(text, index);
        index
    }

    fn line(&self, text: &str) -> u32 {
        self.index(&text::cut_line(text, MAX_LINE))
    }

    /// Interns a text that may have a number in the record: it is looked up once.
    fn word(&self, word: InternedText<'_>) -> u32 {
        let Some(number) = word.number.map(|number| number as usize) else { return self.line(word.text) };
        let seen = self.0.borrow().by_number.get(number).copied().flatten();
        seen.unwrap_or_else(|| {
            let index = self.line(word.text);
            let by_number = &mut self.0.borrow_mut().by_number;
            by_number.resize(by_number.len().max(number + 1), None);
            by_number[number] = Some(index);
            index
        })
    }

    fn lines<'a>(&self, lines: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
        lines.into_iter().map(|line| self.line(line)).collect()
    }
}

impl Serialize for PageTexts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.borrow().all.iter().map(|text| &**text))
    }
}

/// Data of the run.
#[derive(Serialize)]
pub(super) struct PageRun<'a> {
    id: &'a str,
    accelerator: &'a str,
    reason: &'a str,
    virtme_ng: &'a str,
    qemu: &'a str,
    lab: &'a str,
    mutant: Option<&'a str>,
    canary: bool,
    accelerated: String,
    provenance: Vec<(&'static str, String)>,
}

impl<'a> From<&'a RunInfo> for PageRun<'a> {
    fn from(info: &'a RunInfo) -> Self {
        Self {
            id: &info.id,
            accelerator: &info.accelerator.name,
            reason: &info.accelerator.reason,
            accelerated: info.accelerator.brief(),
            virtme_ng: &info.versions.virtme_ng,
            qemu: &info.versions.qemu,
            lab: &info.versions.lab,
            provenance: info.provenance.facts(),
            mutant: info.mutant.as_deref(),
            canary: info.canary,
        }
    }
}

/// A cell of the plan: a row of the map.
#[derive(Serialize)]
pub(super) struct CellRow<'a> {
    id: &'a str,
    area: &'a str,
    title: &'a str,
    topology: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attach: Option<&'static str>,
}

impl<'a> From<&'a CellInfo> for CellRow<'a> {
    fn from(cell: &'a CellInfo) -> Self {
        Self {
            id: cell.id.as_str(),
            area: &cell.area,
            title: &cell.title,
            topology: &cell.topology,
            device: cell.device.map(LinkKind::name),
            attach: cell.attach.map(AttachRequest::name),
        }
    }
}

/// A kernel: a column of the map.
#[derive(Serialize)]
pub(super) struct KernelColumn<'a> {
    id: &'a str,
    class: &'a str,
    release: Option<&'a str>,
    boot_ms: Option<u64>,
    wall_ms: Option<u64>,
    peak_kib: Option<u64>,
    guests: usize,
    capabilities: &'a [CapabilityReport],
    notes: Vec<&'a str>,
    consoles: Vec<String>,
    #[serde(flatten)]
    results: ColumnResults<'a>,
}

/// A kernel's results in the page, or only how its cells ended: see [`large`](super::large).
#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ColumnResults<'a> {
    Results(Results<'a>),
    Grid(&'a str),
}

/// A kernel's results in the order of the page's rows; `None` if the kernel's plan does not have the cell. They are
/// created while they are written, because all of them together would need as much memory as the run.
pub(super) struct Results<'a> {
    record: &'a RunRecord,
    kernel: &'a PlannedKernel,
    happened: Option<&'a KernelRecord>,
    texts: &'a PageTexts,
}

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let planned = rows::around(self.kernel);
        let by_id: HashMap<&CellId, &PlannedCell> = planned.map(|cell| (&cell.id, cell)).collect();
        serializer.collect_seq(self.record.listing().map(|row| {
            let cell = by_id.get(&row.id)?;
            Some(field(cell, &self.record.told(self.happened, cell), self.texts))
        }))
    }
}

/// Standing, used attach types as bits, index of the required type from 1, milliseconds, message, evidence.
#[derive(Serialize)]
pub(super) struct Field(usize, u8, usize, u64, u32, #[serde(skip_serializing_if = "Option::is_none")] Option<Evidence>);

/// All fields are indexes of texts.
#[derive(Serialize)]
struct Evidence {
    /// Checks: passed, name, observed value.
    #[serde(rename = "c", skip_serializing_if = "Vec::is_empty")]
    checks: Vec<(u8, u32, u32)>,
    #[serde(rename = "a", skip_serializing_if = "Vec::is_empty")]
    attach: Vec<Attached>,
    #[serde(rename = "w", skip_serializing_if = "Vec::is_empty")]
    remarks: Vec<u32>,
    #[serde(rename = "l", skip_serializing_if = "Vec::is_empty")]
    log: Vec<u32>,
    #[serde(rename = "e", skip_serializing_if = "Vec::is_empty")]
    consoles: Vec<u32>,
    #[serde(rename = "f", skip_serializing_if = "Vec::is_empty")]
    files: Vec<u32>,
    #[serde(rename = "m", skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<(u32, f64)>,
}

/// Device, its kind, requested type, hook; program, link, run count.
#[derive(Serialize)]
struct Attached(u32, u32, u32, u32, u32, Option<u32>, Option<u64>);

/// Standings in the order that the script expects.
pub(super) const STANDINGS: [Standing; 7] = [
    Standing::Passed,
    Standing::Flaky,
    Standing::Known,
    Standing::Failed,
    Standing::Skipped,
    Standing::Errored,
    Standing::NotRun,
];

/// Number of cells by standing.
pub(super) fn standings(record: &RunRecord) -> BTreeMap<&'static str, usize> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (_, _, verdict) in record.verdicts() {
        *counts.entry(verdict.standing().word()).or_default() += 1;
    }
    counts
}

/// Every kernel with its results, in the order of the plan's cells: all of them, or only the given grid of each kernel.
pub(super) fn kernels<'a>(
    record: &'a RunRecord,
    texts: &'a PageTexts,
    grids: Option<&'a [String]>,
) -> Vec<KernelColumn<'a>> {
    let planned = record.planned().enumerate().map(|(at, (kernel, happened))| {
        let boot = happened.and_then(|it| it.boot.as_ref());
        KernelColumn {
            id: &kernel.facts.id,
            class: &kernel.facts.class,
            release: boot.map(|boot| &*boot.release),
            boot_ms: boot.map(|boot| boot.boot_ms),
            wall_ms: happened.and_then(|it| it.finished).map(|(wall_ms, _)| wall_ms),
            peak_kib: happened.and_then(|it| it.finished).and_then(|(_, peak)| peak),
            guests: happened.map_or(0, |it| it.guests.len()),
            capabilities: happened.map_or(&[], |it| &it.capabilities),
            notes: happened.map_or_else(Vec::new, |it| it.losses.iter().chain(&it.notes).map(|it| &**it).collect()),
            consoles: consoles(&kernel.facts.id, happened),
            results: match grids.and_then(|grids| grids.get(at)) {
                Some(grid) => ColumnResults::Grid(grid),
                None => ColumnResults::Results(Results { record, kernel, happened, texts }),
            },
        }
    });
    planned.collect()
}

fn consoles(kernel: &str, happened: Option<&KernelRecord>) -> Vec<String> {
    let guests = happened.into_iter().flat_map(|it| it.guests.keys()).take(MAX_CONSOLES);
    guests.map(|guest| format!("{kernel}/{}", console(*guest))).collect()
}

fn place(attach: AttachType) -> usize {
    AttachType::ALL.iter().position(|it| *it == attach).unwrap_or_default()
}

/// How a cell ended, and the attach types that it used as bits: the first two numbers of its field.
pub(super) fn seen(verdict: &ReportedVerdict<'_>) -> (usize, u8) {
    let standing = verdict.standing();
    (STANDINGS.iter().position(|it| *it == standing).unwrap_or_default(), verdict.used_bits())
}

pub(super) fn field(cell: &PlannedCell, verdict: &ReportedVerdict<'_>, texts: &PageTexts) -> Field {
    let (standing, bits) = seen(verdict);
    let message = match &verdict.outcome {
        Outcome::Passed => String::new(),
        other => text::line(&other.message(), MAX_MESSAGE),
    };
    Field(
        standing,
        bits,
        cell.required.map_or(0, |required| place(required) + 1),
        verdict.report.duration_us / 1000,
        texts.index(&message),
        evidence(verdict, verdict.standing(), texts),
    )
}

fn evidence(verdict: &ReportedVerdict<'_>, standing: Standing, texts: &PageTexts) -> Option<Evidence> {
    let report = &verdict.report;
    let most = MAX_LOG[usize::from(!matches!(standing, Standing::Passed | Standing::Skipped))];
    let earlier = verdict.earlier.iter().filter_map(|attempt| attempt.evidence.as_deref());
    let splats = verdict.splats.iter().map(|splat| &*splat.evidence);
    // The first splat is also the verdict's evidence.
    let own = verdict.evidence.as_deref().filter(|text| !verdict.splats.iter().any(|splat| splat.evidence == *text));
    let consoles: Vec<String> =
        own.into_iter().chain(splats).chain(earlier).map(|text| text::block(text, MAX_CONSOLE)).collect();
    let witnessed = report.witness.as_deref().map(attached::lines).unwrap_or_default();
    let found = Evidence {
        checks: verdict
            .checks()
            .map(|check| (u8::from(check.ok), texts.word(check.name), texts.word(check.seen)))
            .collect(),
        attach: report
            .attach
            .iter()
            .map(|it| {
                let hook = it.hook.map_or("", |hook| hook.name());
                let names = [&*it.interface, it.device.name(), it.requested.name(), hook].map(|name| texts.line(name));
                Attached(names[0], names[1], names[2], names[3], it.prog_id, it.link_id, it.ran)
            })
            .chain(report.witness.iter().flat_map(|account| &account.rows).map(|row| {
                let names = [&*row.place.device, &row.place.kind, row.way.word(), &row.place.hook];
                let names = names.map(|name| texts.line(name));
                let prog = row.ids.first().copied().unwrap_or_default();
                Attached(names[0], names[1], names[2], names[3], prog, None, row.runs)
            }))
            .collect(),
        remarks: verdict.remarks().iter().map(|line| texts.line(line)).collect(),
        log: texts.lines(witnessed.iter().chain(&report.log).take(most).map(|line| &**line)),
        consoles: consoles.into_iter().map(|text| texts.index(&text)).collect(),
        files: texts.lines(verdict.files.iter().map(|file| &**file)),
        metrics: report.metrics.iter().map(|(name, value)| (texts.line(name), *value)).collect(),
    };
    let nothing = found.checks.is_empty()
        && found.attach.is_empty()
        && found.remarks.is_empty()
        && found.log.is_empty()
        && found.consoles.is_empty()
        && found.files.is_empty()
        && found.metrics.is_empty();
    (!nothing).then_some(found)
}

/// A splat with all kernels and cells in which it occurred.
#[derive(Serialize)]
pub(super) struct SplatLine {
    class: &'static str,
    fingerprint: String,
    title: String,
    times: u32,
    kernels: Vec<String>,
    /// First cell on the first kernel in which it occurred.
    first: String,
    suspects: Vec<String>,
    allowed: Option<String>,
}

impl From<SplatSummary> for SplatLine {
    fn from(seen: SplatSummary) -> Self {
        Self {
            class: seen.class.name(),
            title: text::line(&seen.title, MAX_LINE),
            first: seen.cells.first().map_or_else(String::new, |(_, cell)| text::line(cell, MAX_LINE)),
            allowed: seen.allowed.as_ref().map(|it| text::line(&it.line(), MAX_LINE)),
            fingerprint: seen.fingerprint,
            times: seen.times,
            kernels: seen.kernels,
            suspects: seen.suspects,
        }
    }
}

/// The splats of a run, the most frequent first.
pub(super) fn splats(record: &RunRecord) -> Vec<SplatLine> {
    let mut all: Vec<SplatLine> = splats::splats(record).into_iter().map(SplatLine::from).collect();
    all.sort_by_key(|it| std::cmp::Reverse(it.times));
    all
}

/// Failures outside of cells: expired entries of the lists.
pub(super) fn expired(record: &RunRecord) -> Vec<String> {
    let entries = record.info.iter().flat_map(|info| &info.expired);
    entries
        .map(|entry| text::line(&format!("{}:{}: {}", entry.file, entry.line, entry.message()), MAX_MESSAGE))
        .collect()
}

/// Drawings of the topologies of the plan's cells, by name and kind.
pub(super) fn drawings(record: &RunRecord) -> BTreeMap<String, &str> {
    let used: Vec<&str> = record.info.iter().flat_map(|info| &info.plan.cells).map(|cell| &*cell.topology).collect();
    let topologies = record.topologies.iter().filter(|it| used.contains(&&*it.name));
    let each = topologies.flat_map(|topology| {
        let drawn = |drawing: &'_ lab_protocol::drawing::Drawing| {
            format!("{} {}", topology.name, drawing.kind.map_or("", LinkKind::name))
        };
        topology.drawings.iter().map(move |drawing| (drawn(drawing), &*drawing.svg))
    });
    each.collect()
}
