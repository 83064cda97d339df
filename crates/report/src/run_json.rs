//! `run.json`: a summary of the run in one small file, for scripts that don't read the events.

use super::splats::{SplatSummary, splats};
use crate::results::directory;
use lab_base::{arch::Architecture, file::FileError};
use lab_protocol::CellInfo;
use lab_record::{
    event::{Event, ImageInfo, RunInfo, Stamped},
    exit::Exit,
    reporter::Reporter,
    rows,
    run::{Counts, RunRecord},
    slow::Slow,
    verdict::Standing,
};
use serde::Serialize;
use std::{collections::BTreeMap, io, path::PathBuf};

/// File name.
pub const FILE: &str = "run.json";

#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    info: Option<&'a RunInfo>,
    started_ms: u64,
    wall_ms: Option<u64>,
    exit: Option<Exit>,
    exit_code: Option<u8>,
    counts: Counts,
    dead_cases: Vec<String>,
    splats: Vec<SplatSummary>,
    kernels: BTreeMap<&'a str, KernelSummary<'a>>,
}

#[derive(Serialize)]
struct KernelSummary<'a> {
    /// Absent where it is the lab's own.
    #[serde(skip_serializing_if = "Architecture::is_own")]
    arch: Architecture,
    release: Option<&'a str>,
    image: Option<&'a ImageInfo>,
    boot_ms: Option<u64>,
    guests: u32,
    wall_ms: Option<u64>,
    peak_memory_kib: Option<u64>,
    counts: Counts,
    /// `boot`, `splat` and `teardown`.
    rows: BTreeMap<&'static str, Row>,
    /// Cells that need attention although they do not fail the run.
    flaky: Vec<String>,
    known: Vec<String>,
    unexpected_passes: Vec<String>,
    losses: &'a [String],
    /// Cells that took much longer than recorded.
    #[serde(skip_serializing_if = "<[Slow]>::is_empty")]
    slow: &'a [Slow],
}

#[derive(Serialize)]
struct Row {
    outcome: &'static str,
    message: String,
    ms: u64,
}

/// Writes the file when the run has finished.
#[derive(Debug)]
pub struct RunJson {
    /// The run's directory.
    pub directory: PathBuf,
}

impl Reporter for RunJson {
    fn event(&mut self, stamped: &Stamped, record: &RunRecord) -> Result<(), FileError> {
        match &stamped.event {
            Event::RunFinished { .. } => self.write(record),
            _ => Ok(()),
        }
    }
}

impl RunJson {
    /// Writes the file.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, record: &RunRecord) -> Result<(), FileError> {
        let path = self.directory.join(FILE);
        directory::replace_with(&path, |out| render_to(record, out))
    }
}

fn render_to(record: &RunRecord, out: &mut dyn io::Write) -> io::Result<()> {
    let kernels = record.planned().filter_map(|(kernel, happened)| {
        let happened = happened?;
        let (mut flaky, mut known, mut unexpected_passes) = (Vec::new(), Vec::new(), Vec::new());
        for verdict in record.given(happened).filter(|verdict| !verdict.is_plain()) {
            let id = || verdict.report.cell.to_string();
            match verdict.standing() {
                Standing::Flaky => flaky.push(id()),
                Standing::Known => known.push(id()),
                _ if verdict.is_unexpected_pass() => unexpected_passes.push(id()),
                _ => {}
            }
        }
        [&mut flaky, &mut known, &mut unexpected_passes].into_iter().for_each(|cells| cells.sort());
        let row = |info: &'static CellInfo| {
            let verdict = rows::verdict(Some(happened), &info.id)?;
            let (outcome, message) = (verdict.standing().word(), verdict.outcome.message());
            Some((info.id.as_str(), Row { outcome, message, ms: verdict.report.duration_us / 1000 }))
        };
        let summary = KernelSummary {
            arch: kernel.facts.architecture,
            release: happened.boot.as_ref().map(|boot| &*boot.release),
            image: happened.image.as_ref(),
            boot_ms: happened.boot.as_ref().map(|boot| boot.boot_ms),
            guests: u32::try_from(happened.guests.len()).unwrap_or(u32::MAX),
            wall_ms: happened.finished.map(|(wall_ms, _)| wall_ms),
            peak_memory_kib: happened.finished.and_then(|(_, peak)| peak),
            counts: record.counts_on(kernel, Some(happened)),
            rows: rows::infos().iter().filter_map(row).collect(),
            flaky,
            known,
            unexpected_passes,
            losses: &happened.losses,
            slow: &happened.slow,
        };
        Some((&*kernel.facts.id, summary))
    });
    let summary = Summary {
        info: record.info.as_ref(),
        started_ms: record.started_ms,
        wall_ms: record.finished.map(|(_, wall_ms)| wall_ms),
        exit: record.finished.map(|(exit, _)| exit),
        exit_code: record.finished.map(|(exit, _)| exit.code()),
        counts: record.counts(),
        dead_cases: record.dead_cases(),
        splats: splats(record),
        kernels: kernels.collect(),
    };
    serde_json::to_writer_pretty(&mut *out, &summary)?;
    out.write_all(b"\n")
}
