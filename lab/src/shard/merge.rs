//! Any number of shards' results become one run: their events are replayed to the reporters that every run has.
//!
//! Nothing that a shard should have brought is left out: cells of a shard that is missing or ended early get a verdict
//! that says so, and the run can't pass.

use super::{MergedShard, Part, Shard, ShardError, ShardState, files, identity::difference};
use crate::{
    error::Error,
    event::{Accelerator, Event, RunInfo, Stamped},
    judge::Verdict,
    plan::{Plan, PlannedKernel},
    report::{
        Reporter,
        events::{EventReader, FILE},
        record::RunRecord,
    },
};
use lab_protocol::{CellId, Outcome};
use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

/// Shards of one plan, in order, none of them twice.
#[derive(Debug)]
pub struct Shards {
    found: Vec<Found>,
    /// What the first of them says of the whole plan.
    whole: Shard,
    /// The first one's run, with the whole plan.
    info: RunInfo,
}

/// A shard whose first event has been read.
#[derive(Debug)]
struct Found {
    directory: PathBuf,
    events: EventReader,
    started_ms: u64,
    run: String,
    part: Part,
    accelerator: Accelerator,
    kernels: Vec<PlannedKernel>,
}

/// The runs that a directory means: itself, or those directly below it.
fn runs(directory: &PathBuf) -> Result<Vec<PathBuf>, Error> {
    if directory.join(FILE).exists() {
        return Ok(vec![directory.clone()]);
    }
    let mut below = Vec::new();
    if !directory.is_dir() {
        return Err(Error::NotARun { path: directory.clone() });
    }
    for entry in fs::read_dir(directory).map_err(Error::file("read", directory))? {
        let entry = entry.map_err(Error::file("read", directory))?;
        // `latest` is a link to a run that is there anyway.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.path().join(FILE).exists() {
            below.push(entry.path());
        }
    }
    below.sort();
    if below.is_empty() { Err(Error::NotARun { path: directory.clone() }) } else { Ok(below) }
}

impl Shards {
    /// Reads the first event of every shard in or directly below the directories, and checks that they belong together.
    ///
    /// # Errors
    /// A directory without a run, a file that is no run's or another version's, a run that is no shard, shards of
    /// different plans, a shard twice.
    pub fn open(directories: &[PathBuf]) -> Result<Self, Error> {
        let mut found: Vec<Found> = Vec::new();
        let mut first: Option<(Shard, RunInfo)> = None;
        let mut expired = Vec::new();
        for directory in directories.iter().map(runs).collect::<Result<Vec<_>, _>>()?.concat() {
            let mut events = EventReader::open(&directory)?;
            let path = events.path().to_owned();
            let alone = || ShardError::NotAShard { path: path.clone() };
            let Some(Stamped { at_ms, event: Event::RunStarted { run } }) = events.next().transpose()? else {
                return Err(alone().into());
            };
            let mut run = *run;
            let shard = run.shard.take().ok_or_else(alone)?;
            if let (Some((whole, info)), Some(other)) = (&first, found.first()) {
                check(whole, info, &shard, &run, (&path, other.events.path()))?;
            }
            if let Some(twin) = found.iter().find(|it| it.part == shard.part) {
                let other = twin.events.path().to_owned();
                return Err(ShardError::Duplicate { path, other, part: shard.part }.into());
            }
            found.push(Found {
                directory,
                events,
                started_ms: at_ms,
                run: run.id.clone(),
                part: shard.part,
                accelerator: run.accelerator.clone(),
                kernels: std::mem::take(&mut run.plan.kernels),
            });
            // Each shard names what is about its own cells.
            let new: Vec<_> = run.expired.drain(..).filter(|entry| !expired.contains(entry)).collect();
            expired.extend(new);
            first.get_or_insert((shard, run));
        }
        found.sort_by_key(|it| it.part.number);
        let (whole, mut info) = first.ok_or(Error::NothingSelected)?;
        let facts = whole.kernels.iter().map(|share| share.facts.clone()).collect();
        let Plan { cells, others, .. } = info.plan;
        info.plan = Plan { others, ..Plan::new(facts, cells, whole.full_matrix) };
        info.expired = expired;
        info.accelerator = accelerators(&found, info.accelerator);
        Ok(Self { found, whole, info })
    }

    /// The shards of the plan, those that are missing included; what is there counts as complete until it is read.
    fn states(&self) -> Vec<MergedShard> {
        let count = self.whole.part.count;
        let state = |number| {
            let run = self.found.iter().find(|it| it.part.number == number).map(|it| it.run.clone());
            let mut kernels = self.whole.kernels.iter().filter(|share| share.shards.contains(&number));
            MergedShard {
                part: Part { number, count },
                state: if run.is_some() { ShardState::Complete } else { ShardState::Missing },
                run,
                may_fail: kernels.all(|share| share.facts.may_fail),
            }
        };
        (1..=count).map(state).collect()
    }

    /// Replays everything as a run of the name `id`. Consoles and evidence are copied below `into`, where it is given.
    ///
    /// # Errors
    /// A file of a shard is damaged or can't be read, a shard tells of cells that are not its own, or a reporter fails.
    pub fn merge(
        self,
        id: String,
        into: Option<&Path>,
        reporters: &mut [&mut dyn Reporter],
    ) -> Result<RunRecord, Error> {
        let mut merged = self.states();
        let Self { found, whole, info } = self;
        // A run's first event says how complete its shards are, so their ends are looked at before anything is told.
        for (shard, found) in merged.iter_mut().filter(|it| it.run.is_some()).zip(&found) {
            if !found.events.is_finished()? {
                shard.state = ShardState::Cut;
            }
        }
        let started = found.iter().map(|it| it.started_ms).min().unwrap_or_default();
        let missing: Vec<u32> = merged.iter().filter(|it| it.run.is_none()).map(|it| it.part.number).collect();
        let info = RunInfo { id, shard: None, merged, ..info };
        let mut desk = Desk { record: RunRecord::default(), reporters };
        let mut left: BTreeMap<String, HashSet<CellId>> = BTreeMap::new();
        for kernel in &info.plan.kernels {
            left.insert(kernel.facts.id.clone(), kernel.cells.iter().map(|cell| cell.id.clone()).collect());
        }
        desk.take(started, Event::RunStarted { run: Box::new(info) })?;

        let mut kernels: BTreeMap<String, Through> = BTreeMap::new();
        let mut last = started;
        let mut wall = 0;
        for found in found {
            let shift: BTreeMap<String, u32> = kernels.iter().map(|(id, it)| (id.clone(), it.guests)).collect();
            if let Some(into) = into {
                files::copy(&found.directory, into, &found.part, &found.kernels, &shift)?;
            }
            let replayed = found.replay(&shift, &mut left, &mut kernels, &mut desk)?;
            last = last.max(replayed.last_ms);
            wall = wall.max(replayed.wall_ms);
        }
        for share in &whole.kernels {
            let kernel = &share.facts.id;
            let absent: Vec<u32> = share.shards.iter().copied().filter(|number| missing.contains(number)).collect();
            let message = told_missing(&absent, whole.part.count);
            if !absent.is_empty() {
                desk.take(last, Event::Note { kernel: kernel.clone(), text: message.clone() })?;
            }
            let mut cells: Vec<CellId> = left.remove(kernel).into_iter().flatten().collect();
            cells.sort();
            for cell in cells {
                desk.take(last, not_run(kernel, cell, message.clone()))?;
            }
            if let Some(Through { guests, peak_memory_kib, gave_up, wall_ms: Some(wall_ms), .. }) =
                kernels.remove(kernel)
            {
                let kernel = kernel.clone();
                desk.take(last, Event::KernelFinished { kernel, guests, peak_memory_kib, gave_up, wall_ms })?;
            }
        }
        let exit = desk.record.exit();
        desk.take(last, Event::RunFinished { exit, wall_ms: wall })?;
        Ok(desk.record)
    }
}

/// Refuses a shard that does not belong to the plan of the first one.
fn check(
    whole: &Shard,
    info: &RunInfo,
    shard: &Shard,
    run: &RunInfo,
    (path, other): (&Path, &Path),
) -> Result<(), ShardError> {
    let what = if shard.part.count != whole.part.count {
        Some(format!("the numbers of shards ({} and {})", shard.part.count, whole.part.count))
    } else if run.mutant != info.mutant {
        Some("the deliberate faults".to_owned())
    } else if run.canary != info.canary || run.retries != info.retries {
        Some("what is run, or how often".to_owned())
    } else if run.versions.lab != info.versions.lab || run.versions.agent != info.versions.agent {
        Some("the versions of the lab".to_owned())
    } else {
        difference(&shard.identity, &whole.identity)
    };
    let different = |what| ShardError::OtherPlan { path: path.to_owned(), other: other.to_owned(), what };
    what.map_or(Ok(()), |what| Err(different(what)))
}

/// One accelerator for all: where shards ran on unequal machines, each kind is named.
fn accelerators(found: &[Found], first: Accelerator) -> Accelerator {
    let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for it in found {
        by_name.entry(&it.accelerator.name).or_default().push(it.part.to_string());
    }
    if by_name.len() < 2 {
        return first;
    }
    let told: Vec<String> = by_name.iter().map(|(name, parts)| format!("{name} on {}", parts.join(", "))).collect();
    let names: Vec<&str> = by_name.into_keys().collect();
    Accelerator {
        name: names.join("+"),
        reason: format!("shards ran on different machines: {}", told.join("; ")),
        time_scale: found.iter().map(|it| it.accelerator.time_scale).fold(1.0, f32::max),
    }
}

fn told_missing(numbers: &[u32], count: u32) -> String {
    let parts: Vec<String> = numbers.iter().map(|number| format!("{number}/{count}")).collect();
    match &parts[..] {
        [only] => format!("shard {only} is missing: there are no results of it"),
        _ => format!("shards {} are missing: there are no results of them", parts.join(", ")),
    }
}

fn not_run(kernel: &str, cell: CellId, message: String) -> Event {
    let verdict = Verdict::bare(cell, Outcome::NotRun { message });
    Event::CellFinished { kernel: kernel.to_owned(), guest: 0, verdict: Box::new(verdict) }
}

/// What is known of a kernel after some of its shards.
#[derive(Debug, Default)]
struct Through {
    started: bool,
    guests: u32,
    peak_memory_kib: Option<u64>,
    gave_up: bool,
    /// The longest of its shards: they ran side by side.
    wall_ms: Option<u64>,
}

struct Replayed {
    last_ms: u64,
    wall_ms: u64,
}

impl Found {
    /// Tells a shard's events, with its guests numbered after those of the shards before it.
    fn replay(
        self,
        shift: &BTreeMap<String, u32>,
        left: &mut BTreeMap<String, HashSet<CellId>>,
        kernels: &mut BTreeMap<String, Through>,
        desk: &mut Desk<'_, '_>,
    ) -> Result<Replayed, Error> {
        let path = self.events.path().to_owned();
        let mut own: BTreeMap<&str, HashSet<&CellId>> = BTreeMap::new();
        for kernel in &self.kernels {
            let cells = own.entry(&kernel.facts.id).or_default();
            for cell in &kernel.cells {
                let (kernel, cell_id) = (&kernel.facts.id, &cell.id);
                if !left.get_mut(kernel).is_some_and(|left| left.remove(cell_id)) {
                    let (kernel, cell) = (kernel.clone(), cell_id.to_string());
                    return Err(ShardError::Overlap { path, kernel, cell }.into());
                }
                cells.insert(cell_id);
            }
        }
        let mut running: BTreeMap<String, CellId> = BTreeMap::new();
        let mut told = Replayed { last_ms: self.started_ms, wall_ms: 0 };
        let mut finished = false;
        for stamped in self.events {
            let Stamped { at_ms, mut event } = stamped?;
            told.last_ms = told.last_ms.max(at_ms);
            if let Some((kernel, guest)) = guest(&mut event) {
                // 0 is no guest.
                *guest += if *guest == 0 { 0 } else { shift.get(kernel).copied().unwrap_or_default() };
                let through = kernels.entry(kernel.to_owned()).or_default();
                through.guests = through.guests.max(*guest);
            }
            match &event {
                Event::RunStarted { .. } => {}
                // Every shard brings the same library.
                Event::Topologies { .. } if !desk.record.topologies.is_empty() => {}
                Event::RunFinished { wall_ms, .. } => {
                    finished = true;
                    told.wall_ms = *wall_ms;
                }
                Event::KernelStarted { kernel, .. } => {
                    if !std::mem::replace(&mut kernels.entry(kernel.clone()).or_default().started, true) {
                        desk.take(at_ms, event)?;
                    }
                }
                Event::KernelFinished { kernel, peak_memory_kib, gave_up, wall_ms, .. } => {
                    let through = kernels.entry(kernel.clone()).or_default();
                    through.peak_memory_kib = through.peak_memory_kib.max(*peak_memory_kib);
                    through.gave_up |= gave_up;
                    through.wall_ms = through.wall_ms.max(Some(*wall_ms));
                }
                Event::CellStarted { kernel, cell, .. } => {
                    running.insert(kernel.clone(), cell.clone());
                    desk.take(at_ms, event)?;
                }
                Event::CellFinished { kernel, verdict, .. } => {
                    let cell = &verdict.report.cell;
                    if !own.get_mut(&**kernel).is_some_and(|own| own.remove(cell)) {
                        let (kernel, cell) = (kernel.clone(), cell.to_string());
                        return Err(ShardError::ForeignCell { path, kernel, cell }.into());
                    }
                    desk.take(at_ms, event)?;
                }
                _ => desk.take(at_ms, event)?,
            }
        }
        for (kernel, cells) in own {
            let mut cells: Vec<&CellId> = cells.into_iter().collect();
            cells.sort();
            for cell in cells {
                let message = match (finished, running.get(kernel)) {
                    (false, Some(running)) if running == cell => {
                        format!("shard {} ended while the cell was running", self.part)
                    }
                    _ => format!("shard {} ended before the cell", self.part),
                };
                desk.take(told.last_ms, not_run(kernel, cell.clone(), message))?;
            }
        }
        Ok(told)
    }
}

/// The kernel and the number of the guest that an event is about.
fn guest(event: &mut Event) -> Option<(&str, &mut u32)> {
    match event {
        Event::GuestStarted { kernel, guest, .. }
        | Event::Booted { kernel, guest, .. }
        | Event::Probed { kernel, guest, .. }
        | Event::CellStarted { kernel, guest, .. }
        | Event::CellRetried { kernel, guest, .. }
        | Event::CellFinished { kernel, guest, .. }
        | Event::Splat { kernel, guest, .. }
        | Event::GuestEnded { kernel, guest, .. }
        | Event::GuestLost { kernel, guest, .. } => Some((kernel, guest)),
        Event::RunStarted { .. }
        | Event::Topologies { .. }
        | Event::KernelStarted { .. }
        | Event::Note { .. }
        | Event::KernelFinished { .. }
        | Event::RunFinished { .. } => None,
    }
}

/// Keeps the record and hands every event on, as the run loop does.
struct Desk<'a, 'b> {
    record: RunRecord,
    reporters: &'a mut [&'b mut dyn Reporter],
}

impl Desk<'_, '_> {
    fn take(&mut self, at_ms: u64, event: Event) -> Result<(), Error> {
        let stamped = Stamped { at_ms, event };
        self.record.apply(&stamped);
        self.reporters.iter_mut().try_for_each(|reporter| reporter.event(&stamped, &self.record))
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
