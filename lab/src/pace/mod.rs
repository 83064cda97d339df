//! Finds cells that take several times as long as they used to: a kernel can become slow without failing a check.
//!
//! Times of one run depend on the host. So each is compared with its record as a ratio, without what the guest waited for the
//! host ([`CellReport::own_us`](lab_protocol::CellReport::own_us)), and what counts is how much larger the ratios of a kernel or
//! of a group of cells are than those of the rest of the same run. A host that is slow for everybody finds nothing.

mod groups;

use crate::{error::Error, shard::durations::Durations};
use groups::{CellGroup, FLOOR_MS, TimedCell, groups};
use lab_guard::Id;
use lab_protocol::{CellInfo, Outcome};
use lab_record::{
    plan::{KernelFacts, PlannedKernel},
    run::RunRecord,
    slow::Slow,
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// File name in the cache.
pub const FILE: &str = "kernel-durations.json";
/// How many times as long as recorded, and as the rest of the run, cells must take. Cells of one kernel differ by less from
/// night to night, also on a machine that is shared (the docs have figures).
const FACTOR: f64 = 3.0;
/// Minimum number of cells: a median of fewer says little.
const FEWEST: usize = 5;
/// Minimum of the time that they took longer, milliseconds.
const LEAST_MS: f64 = 1_000.0;
/// The share of cells that a sum leaves out, those that were delayed the most: a host that stands still delays a few cells.
const TRIMMED: f64 = 0.1;
/// Findings per kernel, those that cost the most time first.
const MOST: usize = 4;

/// Times of cells in earlier runs.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    /// By kernel.
    own: Durations,
    own_file: PathBuf,
    /// By class of kernels, for kernels that have not run yet.
    class: Durations,
    class_file: PathBuf,
}

impl Pace {
    /// The times of this machine.
    ///
    /// # Errors
    /// A file can't be read, or is of another version.
    pub fn load(cache: &Path, class_file: PathBuf, class: Durations) -> Result<Self, Error> {
        let own_file = cache.join(FILE);
        Ok(Self { own: Durations::load(&own_file)?, own_file, class, class_file })
    }

    /// The times of one run.
    pub fn of(record: &RunRecord, name: &str) -> Self {
        let mut own = Durations::default();
        own.learn(record, &|facts| facts.id.to_string());
        Self { own, own_file: name.into(), ..Self::default() }
    }

    /// Adds the times of a run, and writes the file.
    ///
    /// # Errors
    /// The file can't be read or written.
    pub fn remember(cache: &Path, record: &RunRecord) -> Result<(), Error> {
        let path = cache.join(FILE);
        let mut own = Durations::load(&path)?;
        own.learn_slowly(record, &|facts| facts.id.to_string());
        own.save(&path)
    }

    /// What a run shows of slow kernels.
    pub fn find(&self, record: &RunRecord) -> Vec<(Id, Slow)> {
        let Some(info) = &record.info else { return Vec::new() };
        let infos: BTreeMap<&str, &CellInfo> = info.plan.cells.iter().map(|info| (info.id.as_str(), info)).collect();
        let accelerator = &*info.accelerator.name;
        let mut kernels: Vec<(&PlannedKernel, Vec<TimedCell<'_>>, String)> = Vec::new();
        for (kernel, happened) in record.planned() {
            let (times, source) = self.times(accelerator, &kernel.facts);
            let passed = record.verdicts_on(kernel, happened).filter_map(|(cell, verdict)| {
                let own = verdict.reused.is_none() && matches!(verdict.outcome, Outcome::Passed);
                let took = own.then(|| verdict.report.own_us() as f64 / 1e3)?;
                let recorded = *times?.get(cell.id.as_str())? as f64;
                Some(TimedCell { info: infos.get(cell.id.as_str())?, took, recorded })
            });
            kernels.push((kernel, passed.collect(), source));
        }
        let mut found = Vec::new();
        for (at, (kernel, samples, source)) in kernels.iter().enumerate() {
            let others = kernels.iter().enumerate().filter(|(other, _)| *other != at);
            let host = median(others.flat_map(|(_, (_, samples, _))| samples)).unwrap_or(1.0).max(1.0);
            let mut slow: Vec<Slow> = Vec::new();
            for group in groups(samples) {
                slow.extend(exceeds(&group, samples, host, source));
            }
            slow.sort_by_key(|it| std::cmp::Reverse(it.took_ms.saturating_sub(it.recorded_ms)));
            slow.truncate(MOST);
            found.extend(slow.into_iter().map(|slow| (kernel.facts.id.clone(), slow)));
        }
        found
    }

    /// The recorded times of a kernel, or of its class, and what they are called.
    fn times(&self, accelerator: &str, facts: &KernelFacts) -> (Option<&BTreeMap<String, u64>>, String) {
        let name =
            |what: &str, key: &str, file: &Path| format!("{what} {key} under {accelerator} in {}", file.display());
        match self.own.times(accelerator, &facts.id) {
            Some(times) => (Some(times), name("kernel", &facts.id, &self.own_file)),
            None => {
                let class = facts.paced_as();
                let times = self.class.times(accelerator, &class);
                (times, name("kernels of class", &class, &self.class_file))
            }
        }
    }
}

/// Whether a group of a kernel's cells is slow; `host` is the ratio of the run's other kernels.
fn exceeds(group: &CellGroup<'_>, all: &[TimedCell<'_>], host: f64, source: &str) -> Option<Slow> {
    if group.members.len() < FEWEST {
        return None;
    }
    // A kernel that is slow as a whole is one finding, and a group of its cells another only if it is slower still.
    let rest = all.iter().filter(|sample| !group.members.iter().any(|member| member.info.id == sample.info.id));
    let rest: Vec<&TimedCell<'_>> = rest.collect();
    let others = match median(rest.iter().copied()) {
        Some(own) if rest.len() >= FEWEST => host.max(own),
        _ => host,
    };
    let factor = median(&group.members)?.max(trimmed(&group.members));
    let sum = |time: fn(&TimedCell<'_>) -> f64| group.members.iter().map(time).sum::<f64>();
    let (took, recorded) = (sum(|it| it.took), sum(|it| it.recorded));
    (factor >= FACTOR * others && took - recorded * others >= LEAST_MS).then(|| Slow {
        cells: group.name.clone(),
        count: group.members.len(),
        factor,
        others,
        took_ms: took as u64,
        recorded_ms: recorded as u64,
        record: source.to_owned(),
    })
}

/// The median of ratios.
fn median<'a>(samples: impl IntoIterator<Item = &'a TimedCell<'a>>) -> Option<f64> {
    let mut ratios: Vec<f64> = samples.into_iter().map(TimedCell::ratio).collect();
    ratios.sort_by(f64::total_cmp);
    ratios.get(ratios.len() / 2).copied()
}

/// The ratio of sums, without the cells that were delayed the most.
fn trimmed(samples: &[TimedCell<'_>]) -> f64 {
    let mut samples = samples.to_vec();
    samples.sort_by(|one, other| (one.took - one.recorded).total_cmp(&(other.took - other.recorded)));
    samples.truncate(samples.len() - ((samples.len() as f64 * TRIMMED) as usize).max(1));
    let sum = |time: fn(&TimedCell<'_>) -> f64| samples.iter().map(|sample| time(sample) + FLOOR_MS).sum::<f64>();
    sum(|it| it.took) / sum(|it| it.recorded).max(FLOOR_MS)
}

#[cfg(test)]
mod tests;
