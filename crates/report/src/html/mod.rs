//! The HTML report: one self-contained file per run, a heat map of kernels and cells with the attach type in every
//! field. Of a run with very many cells, most of the data is in a directory beside it: see [`large`].
//!
//! The file loads nothing from the network: style, script and data are included. The data is JSON in which no character
//! can end its element, and the script only sets text, so that names and logs from a guest can't become markup.

mod data;
mod large;

use crate::results::directory;
use crate::totals::{self, Column};
use lab_base::file::FileError;
use lab_record::{
    event::{Event, Stamped},
    reporter::Reporter,
    run::RunRecord,
    shard::ShardTime,
};
use serde::Serialize;
use std::{collections::BTreeMap, io, path::PathBuf};

/// File name of the report.
pub const FILE: &str = "report.html";
pub use large::DIRECTORY;

const PAGE: &str = include_str!("page.html");
/// Style sheet, shared with other pages.
pub(crate) const STYLE: &str = include_str!("page.css");
/// Scripts of the page: `map` draws the heat map.
const fn scripts(map: &'static str) -> [&'static str; 5] {
    let [page, grid] = [include_str!("page.js"), include_str!("grid.js")];
    [page, grid, map, include_str!("detail.js"), include_str!("sections.js")]
}

/// Writes the report when the run has finished.
#[derive(Debug)]
pub struct HtmlReporter {
    /// The run's directory.
    pub directory: PathBuf,
}

impl Reporter for HtmlReporter {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError> {
        match &stamped.event {
            Event::RunFinished { .. } => self.write(record),
            _ => Ok(()),
        }
    }
}

impl HtmlReporter {
    /// Writes the report.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, record: &RunRecord) -> Result<(), FileError> {
        let path = self.directory.join(FILE);
        if large::is_wanted(record) {
            return large::write(record, &path, &self.directory);
        }
        directory::replace_with(&path, |out| render_to(record, out))?;
        large::remove(record, &self.directory)
    }
}

#[derive(Serialize)]
struct Page<'a> {
    run: Option<data::PageRun<'a>>,
    started_ms: u64,
    wall_ms: Option<u64>,
    exit: u8,
    standings: BTreeMap<&'static str, usize>,
    dead_cases: Vec<String>,
    lost_shards: Vec<String>,
    expired: Vec<String>,
    /// Kernels that took much longer than recorded.
    slow: Vec<String>,
    /// Shards that took much longer than expected.
    stragglers: Vec<String>,
    kernels: Vec<data::KernelColumn<'a>>,
    /// Titles of the table of totals, its rows, and its legend.
    totals: ([&'static str; 5], Vec<totals::Row>, &'static str),
    /// Every cell once, in the plan's order; a kernel's results have the same order.
    cells: Vec<data::CellRow<'a>>,
    splats: Vec<data::SplatLine>,
    drawings: BTreeMap<String, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    large: Option<&'a large::LargeIndex>,
    /// The texts to which indexes refer.
    strings: &'a data::PageTexts,
}

impl<'a> Page<'a> {
    /// The page with all results, or with the grids of a large one.
    fn new(record: &'a RunRecord, texts: &'a data::PageTexts, grids: Option<&'a [String]>) -> Self {
        Self {
            run: record.info.as_ref().map(Into::into),
            totals: (Column::ALL.map(Column::title), totals::table(record), totals::LEGEND),
            started_ms: record.started_ms,
            wall_ms: record.finished.map(|(_, wall_ms)| wall_ms),
            exit: record.outcome().code(),
            standings: data::standings(record),
            dead_cases: record.dead_cases(),
            lost_shards: record.lost_shards(),
            expired: data::expired(record),
            slow: record
                .slow()
                .map(|(kernel, finding)| format!("{} is slow: {}", kernel.facts.id, finding.line()))
                .collect(),
            stragglers: record.shard_times().iter().filter(|time| time.straggles()).map(ShardTime::line).collect(),
            kernels: data::kernels(record, texts, grids),
            cells: record.listing().map(Into::into).collect(),
            splats: data::splats(record),
            drawings: data::drawings(record),
            large: None,
            strings: texts,
        }
    }
}

/// Writes the page in one file, a function of the record alone.
pub(crate) fn render_to(record: &RunRecord, out: &mut dyn io::Write) -> io::Result<()> {
    let texts = data::PageTexts::default();
    fill(PAGE, &scripts(include_str!("map.js")).concat(), &Page::new(record, &texts, None), out)
}

/// Writes a page with its style, script and data.
pub(crate) fn fill(page: &str, script: &str, data: &impl Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    fill_with(page, &[STYLE], script, data, out)
}

fn fill_with(
    page: &str,
    styles: &[&str],
    script: &str,
    data: &impl Serialize,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let (head, rest) = page.split_once("/*STYLE*/").unwrap_or((page, ""));
    let (body, rest) = rest.split_once("/*DATA*/").unwrap_or((rest, ""));
    let (between, end) = rest.split_once("/*SCRIPT*/").unwrap_or((rest, ""));
    // Inserted content is not searched for placeholders: guest text may contain them.
    for text in [&[head], styles, &[body]].concat() {
        out.write_all(text.as_bytes())?;
    }
    serde_json::to_writer(Embedded(out), data)?;
    for text in [between, script, end] {
        out.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Writes JSON such that no HTML parser can see the end of the element or a comment in it.
struct Embedded<'a>(&'a mut dyn io::Write);

impl io::Write for Embedded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while let Some(at) = rest.iter().position(|byte| matches!(byte, b'<' | b'>' | b'&')) {
            self.0.write_all(&rest[..at])?;
            self.0.write_all(match rest[at] {
                b'<' => b"\\u003c",
                b'>' => b"\\u003e",
                _ => b"\\u0026",
            })?;
            rest = &rest[at + 1..];
        }
        self.0.write_all(rest)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Checks that the parts of a report are calls with JSON, for the fuzz target.
#[cfg(test)]
pub(crate) use large::tests::parts_are_json as fuzz_parts;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::record as sample_record;

    fn render(record: &RunRecord) -> String {
        let mut out = Vec::new();
        render_to(record, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn parsed(record: &RunRecord) -> serde_json::Value {
        let page = render(record);
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        assert!(!data.contains(['<', '>', '&']), "{data}");
        serde_json::from_str(data).unwrap()
    }

    #[test]
    fn names_and_logs_cannot_become_markup() {
        let mut record = sample_record();
        let title = "</script><img src=x onerror=alert(1)> & <!-- /*SCRIPT*/ /*DATA*/";
        if let Some(info) = &mut record.info {
            info.plan.cells[0].title = title.into();
        }
        assert_eq!(parsed(&record)["cells"][3]["title"], title);
    }

    #[test]
    fn every_planned_cell_of_every_kernel_has_a_field() {
        let record = sample_record();
        let parsed = parsed(&record);
        for (kernel, planned) in parsed["kernels"].as_array().unwrap().iter().zip(record.planned()) {
            let filled = kernel["results"].as_array().unwrap().iter().filter(|it| !it.is_null()).count();
            assert_eq!(filled, planned.0.cells.len() + 3, "{}", kernel["id"]);
        }
        let page = render(&record);
        let own = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!own.contains("http:") && !own.contains("https:"), "the page loads nothing from the network");
    }

    #[test]
    fn a_field_shows_the_attach_type_that_the_kernel_reports() {
        let parsed = parsed(&sample_record());
        let row = |id: &str| {
            let cells = parsed["cells"].as_array().unwrap();
            cells.iter().position(|cell| cell["id"] == id).unwrap()
        };
        // Bits: tc 1, tcx 2, netkit 4.
        let used = |kernel: usize, id: &str| parsed["kernels"][kernel]["results"][row(id)][1].as_u64().unwrap();
        assert_eq!(used(0, "A04-auto[auto,nk-l3]"), 1, "tc on 6.1");
        assert_eq!(used(1, "A04-auto[auto,nk-l3]"), 4, "netkit on 6.12");
        assert_eq!(used(1, "M03-migrate[netkit,nk-l2]"), 6, "two devices");
    }
}
