//! The report of a run that has too many cells for one file: the page has the totals, what is wrong, and how every cell ended, a
//! letter each. Everything else about a cell is in a script in the directory beside it, which the page loads when somebody
//! opens the cell.
//!
//! The files are scripts because a page that is opened from a disk can load nothing else. A script is a call with JSON as its
//! argument, in which no text of a guest is more than a string; the page's policy allows only scripts that the page itself
//! asks for.

use super::{Embedded, Page, data};
use crate::results::directory;
use lab_base::{file::FileError, hex::hex, text};
use lab_protocol::CellId;
use lab_record::{
    guest::KernelRecord,
    plan::{PlannedCell, PlannedKernel},
    rows,
    run::RunRecord,
};
use serde::{Serialize, Serializer, ser::SerializeSeq};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Name of the directory beside the page.
pub const DIRECTORY: &str = "report-data";
/// Cells of all kernels from which on a report is written in parts. A page of 20,160 cells has 3 MB and opens in a second.
const MOST_FIELDS: usize = 50_000;
/// Cells of all kernels in a part, if there are not more kernels: about 1 MB.
const PART_FIELDS: usize = 10_000;
/// Longest list of messages on the page.
const MOST_STORIES: usize = 60;
/// Number of cells in the list of the slowest ones.
const SLOWEST: usize = 12;

/// A letter for every standing with every combination of attach types, as in the page's script; [`ABSENT`] for a cell that a
/// kernel's plan does not have.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const ABSENT: u8 = b'.';

/// Whether a run's report is written in parts. A kernel may have the name of the directory: it then stays that kernel's.
pub(super) fn is_wanted(record: &RunRecord) -> bool {
    let kernels = record.planned().count();
    is_free(record) && kernels.saturating_mul(record.listing().count()) > MOST_FIELDS
}

fn is_free(record: &RunRecord) -> bool {
    record.planned().all(|(kernel, _)| kernel.facts.id != DIRECTORY)
}

/// A report in parts.
pub(super) struct LargeReport<'a> {
    record: &'a RunRecord,
    kernels: Vec<(&'a PlannedKernel, Option<&'a KernelRecord>)>,
    /// The page's rows by their cells.
    rows: HashMap<&'a CellId, usize>,
    /// For every kernel, each row's position in [`rows::around`] and 1; 0 where the kernel does not have the cell.
    places: Vec<Vec<u32>>,
    grids: Vec<String>,
    index: LargeIndex,
}

/// What the page needs to show and find the parts.
#[derive(Serialize)]
pub(super) struct LargeIndex {
    /// Distinguishes the run's parts from those of others, and allows the page's scripts.
    token: String,
    directory: &'static str,
    letters: &'static str,
    /// Number of rows in a part.
    rows: usize,
    stories: Vec<Story>,
    /// Number of stories beyond these.
    more: usize,
    /// Milliseconds, kernel, row.
    slowest: Vec<(u64, usize, usize)>,
}

/// Cells that failed with the same message.
#[derive(Serialize)]
struct Story {
    standing: usize,
    message: String,
    count: usize,
    kernels: Vec<usize>,
    /// Kernel and row of the first one.
    first: (usize, usize),
}

/// The stories so far.
#[derive(Default)]
struct Stories {
    places: HashMap<(usize, String), usize>,
    all: Vec<Story>,
}

impl Stories {
    fn add(&mut self, standing: usize, message: String, kernel: usize, row: usize) {
        let at = *self.places.entry((standing, message.clone())).or_insert_with(|| {
            self.all.push(Story { standing, message, count: 0, kernels: Vec::new(), first: (kernel, row) });
            self.all.len() - 1
        });
        let story = &mut self.all[at];
        story.count += 1;
        if story.kernels.last() != Some(&kernel) {
            story.kernels.push(kernel);
        }
    }
}

impl<'a> LargeReport<'a> {
    pub(super) fn new(record: &'a RunRecord) -> Self {
        let kernels: Vec<_> = record.planned().collect();
        let rows: HashMap<&CellId, usize> = record.listing().map(|cell| &cell.id).zip(0..).collect();
        let (mut places, mut grids) = (Vec::new(), Vec::new());
        let (mut stories, mut slowest) = (Stories::default(), Vec::<(u64, usize, usize)>::new());
        let mut hash = Sha256::new();
        hash.update(record.info.as_ref().map_or("", |info| &*info.id));
        hash.update(record.started_ms.to_le_bytes());
        for (at, (kernel, happened)) in kernels.iter().enumerate() {
            let (mut own, mut grid) = (vec![0; rows.len()], vec![ABSENT; rows.len()]);
            for ((cell, verdict), place) in record.verdicts_on(kernel, *happened).zip(1..) {
                let Some(&row) = rows.get(&cell.id) else { continue };
                let (standing, bits) = data::seen(&verdict);
                own[row] = place;
                grid[row] = LETTERS[standing + data::STANDINGS.len() * usize::from(bits)];
                if verdict.standing().is_bad() {
                    stories.add(standing, text::line(&verdict.outcome.message(), data::MAX_MESSAGE), at, row);
                }
                let ms = verdict.duration_us() / 1000;
                if ms > 0 && (slowest.len() < SLOWEST || slowest.last().is_some_and(|(least, ..)| ms > *least)) {
                    let behind = slowest.partition_point(|(other, ..)| *other >= ms);
                    slowest.insert(behind, (ms, at, row));
                    slowest.truncate(SLOWEST);
                }
            }
            hash.update(&grid);
            places.push(own);
            grids.push(String::from_utf8_lossy(&grid).into_owned());
        }
        let mut stories = stories.all;
        let more = stories.len().saturating_sub(MOST_STORIES);
        stories.truncate(MOST_STORIES);
        let index = LargeIndex {
            token: hex(&hash.finalize()[..16]),
            directory: DIRECTORY,
            letters: str::from_utf8(LETTERS).unwrap_or_default(),
            rows: (PART_FIELDS / kernels.len().max(1)).max(1),
            stories,
            more,
            slowest,
        };
        Self { record, kernels, rows, places, grids, index }
    }

    /// Number of parts.
    pub(super) fn parts(&self) -> usize {
        self.rows.len().div_ceil(self.index.rows)
    }

    /// Writes the page.
    pub(super) fn write_page(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let texts = data::PageTexts::default();
        let page = Page { large: Some(&self.index), ..Page::new(self.record, &texts, Some(&self.grids)) };
        let token = &self.index.token;
        let html = super::PAGE
            .replace("script-src 'unsafe-inline'", &format!("script-src 'nonce-{token}'"))
            .replace("<script>", &format!("<script nonce=\"{token}\">"));
        super::fill_with(&html, &[super::STYLE, STYLE], &super::scripts(SCRIPT).concat(), &page, out)
    }

    /// Writes the script with a part of the rows.
    pub(super) fn write_part(&self, number: usize, out: &mut dyn io::Write) -> io::Result<()> {
        write!(out, "netkitLabPart(\"{}\",{number},", self.index.token)?;
        let texts = data::PageTexts::default();
        let first = number * self.index.rows;
        let last = (first + self.index.rows).min(self.rows.len());
        let part = Part { results: PartResults { large: self, first, last, texts: &texts }, strings: &texts };
        // Escaped in one piece: a writer would be called for every number.
        Embedded(out).write_all(&serde_json::to_vec(&part)?)?;
        out.write_all(b");\n")
    }
}

const STYLE: &str = include_str!("large.css");
const SCRIPT: &str = include_str!("large.js");

/// A part: for every kernel the results of some rows.
#[derive(Serialize)]
struct Part<'a> {
    results: PartResults<'a>,
    /// Behind everything else, since that adds to them.
    strings: &'a data::PageTexts,
}

/// They are created while they are written.
struct PartResults<'a> {
    large: &'a LargeReport<'a>,
    first: usize,
    last: usize,
    texts: &'a data::PageTexts,
}

impl Serialize for PartResults<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { large, first, last, texts } = *self;
        let mut all = serializer.serialize_seq(Some(large.kernels.len()))?;
        for ((kernel, happened), places) in large.kernels.iter().zip(&large.places) {
            let results: Vec<Option<data::Field>> = (first..last)
                .map(|row| {
                    let cell = nth(kernel, places[row])?;
                    // The plan's cells follow the rows that every kernel has.
                    let mut near = row.saturating_sub(rows::infos().len());
                    Some(data::field(cell, &large.record.told_near(*happened, cell, &mut near), texts))
                })
                .collect();
            all.serialize_element(&results)?;
        }
        all.end()
    }
}

/// The cell at a position of [`rows::around`], counted from 1.
fn nth(kernel: &PlannedKernel, place: u32) -> Option<&PlannedCell> {
    rows::nth(kernel, usize::try_from(place).ok()?.checked_sub(1)?)
}

/// Writes the page and its parts. Whatever was there before stays until all parts are written.
pub(super) fn write(record: &RunRecord, page: &Path, home: &Path) -> Result<(), FileError> {
    let large = LargeReport::new(record);
    let fresh = tempfile::Builder::new().prefix(".report-data-").tempdir_in(home);
    let fresh = fresh.map_err(FileError::of("create", home.join(DIRECTORY)))?;
    for number in 0..large.parts() {
        let path = fresh.path().join(format!("{number}.js"));
        directory::replace_with(&path, |out| large.write_part(number, out))?;
    }
    remove(record, home)?;
    let finished = home.join(DIRECTORY);
    let everybody = Permissions::from_mode(0o755);
    fs::set_permissions(fresh.path(), everybody).map_err(FileError::of("open", fresh.path()))?;
    fs::rename(fresh.keep(), &finished).map_err(FileError::of("create", &finished))?;
    directory::replace_with(page, |out| large.write_page(out))
}

/// Removes the parts of an earlier report, unless a kernel has the directory's name.
pub(super) fn remove(record: &RunRecord, home: &Path) -> Result<(), FileError> {
    let parts = home.join(DIRECTORY);
    if !is_free(record) {
        return Ok(());
    }
    match fs::remove_dir_all(&parts) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::of("remove", parts)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tests::record as sample_record;
    use lab_record::synthetic;
    use serde_json::Value;

    const EVIL: &str = "</script><img src=x onerror=alert(1)> & <!-- \"); alert(1); (\" \u{2028} __proto__";

    fn hostile() -> RunRecord {
        let mut record = sample_record();
        if let Some(info) = &mut record.info {
            info.plan.cells[0].title = EVIL.into();
        }
        record.kernels.values_mut().for_each(|kernel| kernel.notes.push(EVIL.into()));
        let (kernel, cell) = {
            let (kernel, cell, _) = record.verdicts().nth(1).unwrap();
            (kernel.facts.id.clone(), cell.id.clone())
        };
        let outcome = lab_protocol::Outcome::Failed { kind: lab_protocol::FailureKind::Check, message: EVIL.into() };
        let verdict = lab_record::verdict::Verdict::bare(cell, outcome);
        let event = lab_record::event::Event::CellFinished { kernel, guest: 1, verdict: Box::new(verdict) };
        record.take(lab_record::event::Stamped { at_ms: 1, event });
        record
    }

    fn text(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn data_of(page: &str) -> Value {
        let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
        serde_json::from_str(data).unwrap()
    }

    /// The JSON of a part, of which nothing else is a script.
    fn part(large: &LargeReport<'_>, number: usize) -> Value {
        let script = text(|out| large.write_part(number, out));
        let begin = format!("netkitLabPart(\"{}\",{number},", large.index.token);
        let json = script.strip_prefix(&begin).unwrap().strip_suffix(");\n").unwrap();
        assert!(!json.contains(['<', '>', '&']), "{json}");
        serde_json::from_str(json).unwrap()
    }

    /// A field with its texts instead of their indexes.
    fn told(field: &Value, strings: &Value) -> Value {
        let mut told = field.clone();
        if let Some(all) = told.as_array_mut() {
            all[4] = strings[all[4].as_u64().unwrap() as usize].clone();
            let evidence = all.get_mut(5).and_then(|evidence| evidence.get_mut("c")).and_then(Value::as_array_mut);
            for check in evidence.into_iter().flatten() {
                for at in [1, 2] {
                    check[at] = strings[check[at].as_u64().unwrap() as usize].clone();
                }
            }
            if let Some(evidence) = all.get_mut(5).and_then(Value::as_object_mut) {
                evidence.retain(|key, _| key == "c");
            }
        }
        told
    }

    pub(crate) fn parts_are_json(record: &RunRecord) {
        let large = LargeReport::new(record);
        let page = text(|out| large.write_page(out));
        assert_eq!(page.matches("</script").count(), page.matches("<script").count(), "{page}");
        (0..large.parts()).for_each(|number| drop(part(&large, number)));
    }

    #[test]
    fn page_and_parts_have_what_one_page_has() {
        for record in [hostile(), {
            let mut record = RunRecord::default();
            let run = synthetic::run_info("20260101T000000Z-abcdef", synthetic::plan(300, 90));
            synthetic::events(run).for_each(|stamped| record.apply(&stamped));
            record
        }] {
            let whole = data_of(&text(|out| super::super::render_to(&record, out)));
            let large = LargeReport::new(&record);
            let page = text(|out| large.write_page(out));
            let index = data_of(&page);
            for same in ["cells", "standings", "totals", "splats", "exit"] {
                assert_eq!(index[same], whole[same], "{same}");
            }
            let parts: Vec<Value> = (0..large.parts()).map(|number| part(&large, number)).collect();
            for (k, kernel) in whole["kernels"].as_array().unwrap().iter().enumerate() {
                let grid = index["kernels"][k]["grid"].as_str().unwrap().as_bytes();
                assert!(index["kernels"][k].get("results").is_none());
                for (row, field) in kernel["results"].as_array().unwrap().iter().enumerate() {
                    let part = &parts[row / large.index.rows];
                    let own = &part["results"][k][row % large.index.rows];
                    assert_eq!(told(own, &part["strings"]), told(field, &whole["strings"]), "{k} {row}");
                    let letter = field.as_array().map_or(ABSENT, |field| {
                        LETTERS[(field[0].as_u64().unwrap() + 7 * field[1].as_u64().unwrap()) as usize]
                    });
                    assert_eq!(grid[row], letter);
                }
            }
            let bad: u64 =
                index["large"]["stories"].as_array().unwrap().iter().map(|it| it["count"].as_u64().unwrap()).sum();
            let counts = record.counts();
            assert_eq!(bad as usize, counts.failed + counts.errored + counts.not_run);
        }
    }

    #[test]
    fn only_scripts_with_the_runs_token_are_allowed_and_no_text_is_one() {
        let record = hostile();
        let large = LargeReport::new(&record);
        let page = text(|out| large.write_page(out));
        assert!(
            !page.contains("script-src 'unsafe-inline'")
                && page.contains(&format!("script-src 'nonce-{}'", large.index.token))
        );
        assert_eq!(page.matches("<script").count(), 2, "data and script");
        assert_eq!(page.matches("</script").count(), 2);
        assert_eq!(data_of(&page)["cells"][3]["title"], EVIL);
        let told: Vec<Value> = (0..large.parts()).map(|number| part(&large, number)).collect();
        let strings = told.iter().flat_map(|part| part["strings"].as_array().unwrap());
        // Invisible characters of a message are escaped everywhere.
        let message = lab_base::text::line(EVIL, usize::MAX);
        assert!(
            strings.clone().any(|it| it.as_str() == Some(&format!("check: {message}"))),
            "{:?}",
            strings.collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_smaller_report_leaves_no_parts_and_a_kernel_keeps_its_directory() {
        let home = tempfile::tempdir().unwrap();
        let (page, parts) = (home.path().join(super::super::FILE), home.path().join(DIRECTORY));
        let record = sample_record();
        write(&record, &page, home.path()).unwrap();
        assert!(parts.join("0.js").exists() && page.exists());
        let mode = fs::metadata(&parts).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, fs::read_dir(home.path()).unwrap().count()), (0o755, 2));
        write(&record, &page, home.path()).unwrap();
        let small = super::super::HtmlReporter { directory: home.path().to_owned() };
        small.write(&record).unwrap();
        assert!(!parts.exists());

        let mut named = sample_record();
        if let Some(info) = &mut named.info {
            info.plan.kernels[0].facts.id = lab_guard::Id::new(DIRECTORY).unwrap();
        }
        fs::create_dir(&parts).unwrap();
        small.write(&named).unwrap();
        assert!(parts.exists() && !is_wanted(&named));
    }
}
