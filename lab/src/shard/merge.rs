//! Merges the results of shards into one run: their events are replayed to the reporters that every run has.
//!
//! Missing results are not dropped: cells of a shard that is missing or ended early get a verdict that says so, and the
//! merged run fails.

use super::{
    ShardError,
    identity::difference,
    replay::{self, Brought, Replay},
};
use crate::error::Error;
use lab_guard::{Id, foreign};
use lab_protocol::CellId;
use lab_record::{
    event::{Accelerator, Event, RunInfo},
    log::{
        EventLog, FILE, LogError, head,
        part::{self, PartInfo, Paused},
    },
    plan::Plan,
    provenance::{Call, Provenance},
    run::RunRecord,
    shard::{MergedShard, Part, Shard, ShardState},
};
use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    thread,
};

/// The shards of one plan, in order, without duplicates.
#[derive(Debug)]
pub struct Shards {
    found: Vec<Found>,
    /// The whole plan's information, from the first shard.
    whole: Shard,
    /// The first shard's run information, with the whole plan.
    info: RunInfo,
}

/// A shard whose first event has been read.
#[derive(Debug)]
struct Found {
    events: Paused,
    run: Id,
    accelerator: Accelerator,
    estimate_ms: Option<u64>,
    brought: Brought,
}

impl Found {
    const fn part(&self) -> Part {
        self.brought.part
    }
}

/// The runs in a directory: itself, or its subdirectories.
fn runs(directory: &PathBuf) -> Result<Vec<PathBuf>, Error> {
    // Shards come from other machines: a link in them could point to files of this machine.
    foreign::is_directory(directory).map_err(Error::file("read", directory))?;
    if directory.join(FILE).exists() {
        return Ok(vec![directory.clone()]);
    }
    let mut below = Vec::new();
    if !directory.is_dir() {
        return Err(Error::Log(LogError::NotARun { path: directory.clone() }));
    }
    for entry in fs::read_dir(directory).map_err(Error::file("read", directory))? {
        let entry = entry.map_err(Error::file("read", directory))?;
        // `latest` is a link to one of the runs.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.path().join(FILE).exists() {
            below.push(entry.path());
        }
    }
    below.sort();
    if below.is_empty() { Err(Error::Log(LogError::NotARun { path: directory.clone() })) } else { Ok(below) }
}

impl Shards {
    /// Reads the first event of every shard in or directly below the directories, and checks that the shards belong
    /// together.
    ///
    /// # Errors
    /// A directory contains no run; an events file is invalid or of another version; a run is not a shard; shards
    /// belong to different plans; a shard occurs twice.
    pub fn open(directories: &[PathBuf]) -> Result<Self, Error> {
        let mut found: Vec<Found> = Vec::new();
        let mut first: Option<(Shard, RunInfo)> = None;
        let mut places: HashMap<CellId, u32> = HashMap::new();
        let mut parts: HashMap<u32, PathBuf> = HashMap::new();
        let mut expired = Vec::new();
        for directory in directories.iter().map(runs).collect::<Result<Vec<_>, _>>()?.concat() {
            let (started_ms, mut run, events) = part::begin(&directory)?;
            let path = events.path().to_owned();
            let shard = run.shard.take().ok_or_else(|| ShardError::NotAShard { path: path.clone() })?;
            if let (Some((whole, info)), Some(other)) = (&first, found.first()) {
                check(whole, info, &shard, &run, (&path, other.events.path()))?;
            }
            if let Some(other) = parts.insert(shard.part.number, path.clone()) {
                return Err(ShardError::Duplicate { path, other, part: shard.part }.into());
            }
            // Each shard lists only the expired entries for its own cells.
            let new: Vec<_> = run.expired.drain(..).filter(|entry| !expired.contains(entry)).collect();
            expired.extend(new);
            let (part, estimate_ms) = (shard.part, shard.estimate_ms);
            if first.is_none() {
                // All shards have the same list of the plan's cells: their hashes were compared.
                let mut info = head(&directory)?;
                info.plan.kernels = Vec::new();
                places = info.plan.cells.iter().map(|cell| cell.id.clone()).zip(0..).collect();
                first = Some((shard, info));
            }
            let mut stranger = None;
            let kernel = |kernel: &part::PartKernel| {
                let place = |cell: &CellId| {
                    let place = places.get(cell).copied();
                    if place.is_none() {
                        stranger.get_or_insert_with(|| (kernel.id().clone(), cell.clone()));
                    }
                    place
                };
                (kernel.id().clone(), kernel.cells().filter_map(place).collect())
            };
            let kernels = run.plan.kernels.iter().map(kernel).collect();
            let brought = Brought { directory, path, started_ms, part, kernels, stranger };
            found.push(Found { events, run: run.id, accelerator: run.accelerator, estimate_ms, brought });
        }
        found.sort_by_key(|it| it.part().number);
        let (whole, mut info) = first.ok_or(Error::NothingSelected)?;
        let facts = whole.kernels.iter().map(|share| share.facts.clone()).collect();
        let Plan { cells, others, every_cell, .. } = info.plan;
        info.plan = Plan { others, every_cell, ..Plan::new(facts, cells, whole.full_matrix) };
        info.expired = expired;
        info.accelerator = accelerators(&found, info.accelerator);
        Ok(Self { found, whole, info })
    }

    /// Sets the user and the CI job of the merge. The commit remains that of the shards.
    pub fn started_by(&mut self, merging: Provenance) {
        let Provenance { commit, changed, call, .. } = std::mem::take(&mut self.info.provenance);
        // Called as the merging lab was; the cells were selected where the shards ran.
        let (kernel, selection) = call.map(|call| (call.kernel, call.selection)).unwrap_or_default();
        let merging = Provenance { call: merging.call.map(|call| Call { kernel, selection, ..call }), ..merging };
        self.info.provenance = match commit {
            Some(commit) => Provenance { commit: Some(commit), changed, ..merging },
            None => merging,
        };
    }

    /// The state of every shard of the plan, missing ones included; shards count as complete until they are read.
    fn states(&self) -> Vec<MergedShard> {
        let count = self.whole.part.count;
        let runs: HashMap<u32, &Id> = self.found.iter().map(|it| (it.part().number, &it.run)).collect();
        let state = |number| {
            let run = runs.get(&number).map(|run| (*run).clone());
            let mut kernels = self.whole.kernels.iter().filter(|share| share.shards.contains(&number));
            MergedShard {
                part: Part { number, count },
                state: if run.is_some() { ShardState::Complete } else { ShardState::Missing },
                run,
                may_fail: kernels.all(|share| share.facts.may_fail),
                estimate_ms: None,
                took_ms: None,
            }
        };
        (1..=count).map(state).collect()
    }

    /// Replays all events as a run with the given id. Copies consoles and evidence to `into` if set, and writes the
    /// events to `log`.
    ///
    /// # Errors
    /// A file of a shard is damaged or can't be read, a shard contains cells that are not in its plan, or the log can't
    /// be written.
    pub fn merge(self, id: Id, into: Option<&Path>, log: Option<&mut EventLog>) -> Result<RunRecord, Error> {
        let mut merged = self.states();
        let Self { found, whole, info } = self;
        // The first event of the merged run says which shards are complete, so this is determined before the replay.
        for (shard, found) in merged.iter_mut().filter(|it| it.run.is_some()).zip(&found) {
            shard.took_ms = found.events.wall_ms()?;
            shard.estimate_ms = found.estimate_ms;
            if shard.took_ms.is_none() {
                shard.state = ShardState::Cut;
            }
        }
        let started = found.iter().map(|it| it.brought.started_ms).min().unwrap_or_default();
        let missing: Vec<u32> = merged.iter().filter(|it| it.run.is_none()).map(|it| it.part.number).collect();
        let info = RunInfo { id, shard: None, merged, ..info };
        let mut replay = Replay::new(&info.plan, log, started);
        replay.take(started, Event::RunStarted { run: Box::new(info) })?;
        let (events, brought): (Vec<_>, Vec<_>) = found.into_iter().map(|it| (it.events, it.brought)).unzip();
        thread::scope(|scope| {
            let readers = replay::read(scope, events);
            brought.into_iter().enumerate().try_for_each(|(at, shard)| replay.shard(shard, into, readers.of(at)))
        })?;
        for share in &whole.kernels {
            let absent: Vec<u32> = share.shards.iter().copied().filter(|number| missing.contains(number)).collect();
            let message = told_missing(&absent, whole.part.count);
            replay.end_kernel(&share.facts.id, (!absent.is_empty()).then_some(message))?;
        }
        replay.end()
    }
}

/// Refuses a shard that does not belong to the plan of the first shard.
fn check(
    whole: &Shard,
    info: &RunInfo,
    shard: &Shard,
    run: &PartInfo,
    (path, other): (&Path, &Path),
) -> Result<(), ShardError> {
    let what = if shard.part.count != whole.part.count {
        Some(format!("the numbers of shards ({} and {})", shard.part.count, whole.part.count))
    } else if run.mutant != info.mutant {
        Some("the deliberate faults".to_owned())
    } else if run.canary != info.canary || run.retries != info.retries {
        Some("the selection or the retries".to_owned())
    } else if run.versions.lab != info.versions.lab || run.versions.agent != info.versions.agent {
        Some("the versions of lab".to_owned())
    } else {
        difference(&shard.identity, &whole.identity)
    };
    let different = |what| ShardError::OtherPlan { path: path.to_owned(), other: other.to_owned(), what };
    what.map_or(Ok(()), |what| Err(different(what)))
}

/// Combines the accelerators of all shards: if they differ, each kind is named.
fn accelerators(found: &[Found], first: Accelerator) -> Accelerator {
    let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for it in found {
        by_name.entry(&it.accelerator.name).or_default().push(it.part().to_string());
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
        [only] => format!("shard {only} is missing: it has no results"),
        _ => format!("shards {} are missing: they have no results", parts.join(", ")),
    }
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
