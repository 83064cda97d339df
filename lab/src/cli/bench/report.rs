//! `lab bench report`: measures merging many shards and writing their reports, by running the command itself.

use crate::{error::Error, project, shard::split};
use clap::Args;
use lab_base::say::{say, show};
use lab_guard::Id;
use lab_record::{
    event::RunInfo,
    exit::Exit,
    log::{EventLog, FILE as EVENTS},
    reporter::Reporter,
    run::RunRecord,
    shard::{Part, Shard},
    synthetic,
};
use lab_report::{html, results::directory};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct ReportBenchArgs {
    /// Number of shards to merge.
    #[arg(long, value_name = "N", default_value = "50", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    shards: std::num::NonZeroU32,
    /// Number of cells in each shard.
    #[arg(long, value_name = "N", default_value = "5000", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    cells: std::num::NonZeroU32,
    /// Number of kernels of the synthetic plan; every kernel has the same cells.
    #[arg(long, value_name = "N", default_value = "50", value_parser = crate::cli::args::count::<std::num::NonZeroU32>)]
    kernels: std::num::NonZeroU32,
}

/// File name in the project's results directory.
const FILE: &str = "bench-report.json";

/// Measured values and targets.
#[derive(Debug, Serialize)]
struct Figures {
    shards: u32,
    cells: usize,
    events_mib: f64,
    kernels: u32,
    html_mib: f64,
    /// The files beside the page.
    html_parts_mib: f64,
    seconds: f64,
    target_seconds: f64,
    /// User and system time together: independent of other load on the machine.
    processor_seconds: f64,
    peak_mib: f64,
    target_mib: f64,
}

/// Most cells, and what they may take: seconds and MiB (500 and 700 MB).
const TARGETS: [(usize, f64, f64); 2] = [(250_000, 5.0, 476.8), (usize::MAX, 40.0, 667.6)];

pub(super) fn report(named: Option<PathBuf>, args: &ReportBenchArgs) -> Result<Exit, Error> {
    let results = project::root(named)?.join("results");
    let scratch = lab_vm::scratch()?;
    let shards = args.shards.get();
    let events = write(scratch.path(), args)?;
    say(&format!("{shards} shards of {} cells: {events:.0} MiB of events", args.cells));

    let out = scratch.path().join("merged");
    let lab = env::current_exe().map_err(Error::file("find", "this program"))?;
    let begin = Instant::now();
    let status = Command::new(lab)
        .arg("merge")
        .arg(scratch.path().join("shards"))
        .arg("--out")
        .arg(&out)
        .stdout(Stdio::null())
        .status()
        .map_err(Error::file("start", "lab merge"))?;
    let seconds = begin.elapsed().as_secs_f64();
    // The synthetic runs contain failures.
    if status.code() != Some(i32::from(Exit::Failed.code())) {
        return Err(Error::Host(format!(
            "lab merge exited with {status}, not with the status of the synthetic failures"
        )));
    }
    // Covers all child processes, of which there is only this one.
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|errno| Error::Host(format!("getrusage: {errno}")))?;
    let page = out.join(directory::LATEST).join(html::FILE);
    let html = fs::metadata(&page).map_err(Error::file("read", &page))?.len();
    let parts = page.with_file_name(html::DIRECTORY);
    let parts = if parts.is_dir() { size(&parts)? } else { 0 };
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    let cells = args.cells.get() as usize * shards as usize;
    let fits = TARGETS.iter().find(|(most, ..)| cells <= *most);
    let &(_, target_seconds, target_mib) = fits.unwrap_or(&TARGETS[TARGETS.len() - 1]);
    let figures = Figures {
        shards,
        cells,
        kernels: args.kernels.get(),
        html_parts_mib: mib(parts as f64),
        events_mib: events,
        html_mib: mib(html as f64),
        seconds,
        target_seconds,
        processor_seconds: [usage.user_time(), usage.system_time()]
            .iter()
            .map(|it| it.tv_sec() as f64 + it.tv_usec() as f64 / 1e6)
            .sum(),
        peak_mib: usage.max_rss() as f64 / 1024.0,
        target_mib,
    };
    fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    let text = serde_json::to_string_pretty(&figures).map_err(|error| Error::Host(error.to_string()))?;
    directory::replace(&results.join(FILE), text.as_bytes())?;
    show(figures.table())?;
    let within = figures.seconds <= target_seconds && figures.peak_mib <= target_mib;
    Ok(if within { Exit::Passed } else { Exit::Failed })
}

/// Size of the files in a directory, bytes.
fn size(directory: &Path) -> Result<u64, Error> {
    let failed = |error| Error::file("read", directory)(error);
    let mut bytes = 0;
    for entry in fs::read_dir(directory).map_err(failed)? {
        bytes += entry.and_then(|entry| entry.metadata()).map_err(failed)?.len();
    }
    Ok(bytes)
}

/// Writes the shards of a synthetic run; returns the size of their events, MiB.
fn write(scratch: &Path, args: &ReportBenchArgs) -> Result<f64, Error> {
    let (shards, cells) = (args.shards.get(), args.cells.get());
    let kernels = args.kernels.get().min(shards.saturating_mul(cells)) as usize;
    let plan = synthetic::plan(kernels, (shards as usize * cells as usize).div_ceil(kernels));
    let parts = split(&plan, shards, &|_, _| 1)?;
    let identity = BTreeMap::from([("the plan".to_owned(), "synthetic".to_owned())]);
    let mut bytes = 0;
    for number in 1..=shards {
        let part = Part::new(number, shards)?;
        let id = format!("20260101T{:02}{:02}00Z-{number:06x}", number / 60 % 24, number % 60);
        let shard = Shard {
            part,
            identity: identity.clone(),
            kernels: parts.kernels(&plan),
            full_matrix: plan.full_matrix,
            estimate_ms: None,
        };
        let info = RunInfo { shard: Some(shard), ..synthetic::run_info(&id, parts.narrow(&plan, part)) };
        let directory = directory::create(&scratch.join("shards"), &Id::new(&id)?)?;
        let mut log = EventLog::create(&directory)?;
        for stamped in synthetic::events(info) {
            log.event(&stamped, &RunRecord::default())?;
        }
        let path = directory.join(EVENTS);
        bytes += fs::metadata(&path).map_err(Error::file("read", &path))?.len();
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}

impl Figures {
    fn table(&self) -> String {
        format!(
            "| what | figure | target |\n|---|---|---|\n\
             | {} shards, {} cells on {} kernels, {:.0} MiB of events: merge and every report | {:.2} s | {} s |\n\
             | its processor time | {:.2} s | - |\n\
             | its peak memory | {:.0} MiB | {} MiB |\n\
             | report.html, and the files that it loads on demand | {:.1} and {:.1} MiB | - |\n",
            self.shards,
            self.cells,
            self.kernels,
            self.events_mib,
            self.seconds,
            self.target_seconds,
            self.processor_seconds,
            self.peak_mib,
            self.target_mib,
            self.html_mib,
            self.html_parts_mib
        )
    }
}
