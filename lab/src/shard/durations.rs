//! Durations of cells in past runs, by kernel class and cell.
//!
//! Each machine records durations in its cache and uses them to order its work. Shards, on which several machines must
//! agree, are computed from a file that all of these machines have.

use crate::error::Error;
use lab_protocol::Outcome;
use lab_record::{
    plan::{Expectation, KernelFacts, Plan, PlannedCell},
    run::RunRecord,
};
use lab_report::results::directory;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// File name in the project's `ci/` and in the cache.
pub const FILE: &str = "durations.json";
/// Maximum size of the file, bytes: a hundred times that of ours.
const MOST: u64 = 64 << 20;
/// Version of the file format.
const FORMAT: u32 = 1;
/// Estimate for a cell without a recorded duration, milliseconds.
const UNKNOWN_MS: u64 = 200;
/// Estimate for a cell that is expected to be skipped, milliseconds.
const SKIPPED_MS: u64 = 5;
/// A new time changes the recorded one by 1/4 of the difference, so that one slow night does not change a plan much.
const WEIGHT: u64 = 4;
/// The same for a longer time, where a record is to show that cells became slower.
const LONGER_WEIGHT: u64 = 64;
/// The accelerator whose times are preferred: times under emulation are an upper bound for all machines.
const SLOWEST: &str = "tcg";
/// Factor from KVM to emulation, for cells with times under KVM only.
const EMULATION: u64 = 10;

/// Milliseconds by accelerator, kernel class and cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Durations {
    format: u32,
    cells: BTreeMap<String, BTreeMap<String, BTreeMap<String, u64>>>,
}

impl Durations {
    /// Reads a file; a missing file has no durations.
    ///
    /// # Errors
    /// The file can't be read, or is not a durations file.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = match lab_guard::bounded::file(path, MOST) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::file("read", path)(error)),
        };
        let bad = |problem: String| Error::Usage(format!("{} is not a durations file: {problem}", path.display()));
        let read: Self = serde_json::from_slice(&text).map_err(|error| bad(lab_base::text::reason(&error)))?;
        match read.format {
            FORMAT => Ok(read),
            other => Err(bad(format!("its format is {other}, but this lab reads only {FORMAT}"))),
        }
    }

    /// Writes a file with a line per cell, so that changes can be reviewed.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let kept = Self { format: FORMAT, cells: self.cells.clone() };
        let mut text = serde_json::to_string_pretty(&kept).map_err(|error| Error::file("write", path)(error.into()))?;
        text.push('\n');
        Ok(directory::replace(path, text.as_bytes())?)
    }

    /// Adds the times of a run's cells that passed, failed or were skipped by their own verdict; `key` is what they are kept by,
    /// the kernel's class or its id.
    pub fn learn(&mut self, record: &RunRecord, key: &dyn Fn(&KernelFacts) -> String) {
        self.learn_with(record, key, WEIGHT);
    }

    /// As [`Self::learn`], and a longer time changes the record by 1/64 of the difference only: a kernel that has become six
    /// times as slow takes three times as long as its record for fifteen runs.
    pub fn learn_slowly(&mut self, record: &RunRecord, key: &dyn Fn(&KernelFacts) -> String) {
        self.learn_with(record, key, LONGER_WEIGHT);
    }

    fn learn_with(&mut self, record: &RunRecord, key: &dyn Fn(&KernelFacts) -> String, longer: u64) {
        let Some(info) = record.info.as_ref().filter(|info| info.mutant.is_none()) else { return };
        let by_class = self.cells.entry(info.accelerator.name.clone()).or_default();
        for (kernel, cell, verdict) in record.verdicts() {
            let ended = matches!(
                verdict.outcome,
                Outcome::Passed | Outcome::Skipped { .. } | Outcome::SkippedItself { .. } | Outcome::Failed { .. }
            );
            if !ended || verdict.reused.is_some() {
                continue;
            }
            let took = verdict.report.own_us().div_ceil(1000);
            let known = by_class.entry(key(&kernel.facts)).or_default();
            let kept = known.entry(cell.id.to_string()).or_insert(took);
            let weight = if took > *kept { longer } else { WEIGHT };
            *kept = (*kept * (weight - 1) + took).div_ceil(weight);
        }
    }

    /// The recorded times of cells, milliseconds, by the key that they are kept by.
    pub fn times(&self, accelerator: &str, key: &str) -> Option<&BTreeMap<String, u64>> {
        self.cells.get(accelerator)?.get(key)
    }

    /// Number of recorded durations.
    pub fn count(&self) -> usize {
        self.cells.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    /// How long a run of the plan with so many guests at once takes, milliseconds; none where less than half of its cells have
    /// a recorded duration.
    pub fn expect(&self, plan: &Plan, jobs: usize) -> Option<u64> {
        let cells = plan.kernels.iter().flat_map(|kernel| kernel.cells.iter().map(|cell| (&kernel.facts, cell)));
        let runs = cells.filter(|(_, cell)| cell.expectation == Expectation::Run);
        let (mut all, mut known, mut sum) = (0_usize, 0_usize, 0);
        for (kernel, cell) in runs {
            all += 1;
            known += usize::from(self.knows(cell));
            sum += self.estimate(kernel, cell);
        }
        (all > 0 && known * 2 >= all).then(|| sum.div_ceil(jobs.max(1) as u64))
    }

    fn knows(&self, cell: &PlannedCell) -> bool {
        self.cells.values().flat_map(BTreeMap::values).any(|known| known.contains_key(cell.id.as_str()))
    }

    /// Estimates a cell's time on a kernel, milliseconds: the time on its kernel class, else the longest time on another
    /// class, else a constant. The result does not depend on this machine's accelerator.
    pub fn estimate(&self, kernel: &KernelFacts, cell: &PlannedCell) -> u64 {
        if cell.expectation != Expectation::Run {
            return SKIPPED_MS;
        }
        let slowest = self.cells.get(SLOWEST).map(|classes| (classes, 1));
        let Some((classes, factor)) = slowest.or_else(|| self.cells.values().next().map(|it| (it, EMULATION))) else {
            return UNKNOWN_MS;
        };
        let id = cell.id.as_str();
        let own = classes.get(&kernel.paced_as()).and_then(|known| known.get(id));
        let known = own.or_else(|| classes.values().filter_map(|known| known.get(id)).max());
        known.map_or(UNKNOWN_MS, |took| took * factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::Capability;
    use lab_record::{
        event::{Accelerator, Event, RunInfo, Stamped, Versions},
        testing::{cell, facts, id, passed},
        verdict::Verdict,
    };

    const A: &str = "A01-x[tc,veth]";

    fn class(facts: &KernelFacts) -> String {
        facts.paced_as()
    }

    fn ran(accelerator: &str, mutant: Option<&str>, outcome: &Outcome, took_us: u64) -> RunRecord {
        let plan = Plan::new(vec![facts("6.12", "6.12.43")], vec![cell(A)], false);
        let accelerator = Accelerator { name: accelerator.into(), reason: String::new(), time_scale: 1.0 };
        let info = RunInfo::new(id("x"), Versions::default(), accelerator, plan);
        let info = RunInfo { mutant: mutant.map(str::to_owned), ..info };
        let mut report = passed(A, Vec::new());
        report.duration_us = took_us;
        let verdict = Verdict { report, ..Verdict::bare(lab_protocol::CellId(A.into()), outcome.clone()) };
        let mut record = RunRecord::default();
        let finished = Event::CellFinished { kernel: id("6.12"), guest: 1, verdict: Box::new(verdict) };
        for event in [Event::RunStarted { run: Box::new(info) }, finished] {
            record.apply(&Stamped { at_ms: 0, event });
        }
        record
    }

    #[test]
    fn a_run_is_expected_to_take_what_its_cells_took() {
        let plan = Plan::new(vec![facts("6.12", "6.12.43")], vec![cell(A)], false);
        assert_eq!(Durations::default().expect(&plan, 1), None);
        let mut durations = Durations::default();
        durations.learn(&ran("tcg", None, &Outcome::Passed, 3_000_000), &class);
        assert_eq!((durations.expect(&plan, 1), durations.expect(&plan, 2)), (Some(3000), Some(1500)));
    }

    fn estimate(durations: &Durations, id: &str, class: &str) -> u64 {
        let facts = KernelFacts { class: class.to_owned(), ..facts("k", "6.12.43") };
        let plan = Plan::new(vec![facts], vec![cell(id)], false);
        durations.estimate(&plan.kernels[0].facts, &plan.kernels[0].cells[0])
    }

    /// A kernel with KASAN and lockdep takes six times as long as the others of its class.
    #[test]
    fn a_variant_has_times_of_its_own() {
        let variant = KernelFacts { class: "6.7+".to_owned(), ..facts("6.12+debug", "6.12.117") };
        assert_eq!(variant.paced_as(), "6.7+, debug");
        let plain = KernelFacts { id: id("6.12"), ..variant.clone() };
        let mut durations = Durations::default();
        durations.learn(&ran("tcg", None, &Outcome::Passed, 1_000_000), &class);
        assert!(durations.times("tcg", &plain.paced_as()).is_some());
        assert!(durations.times("tcg", &variant.paced_as()).is_none());
    }

    #[test]
    fn times_change_slowly_and_are_kept_in_a_file() {
        let mut durations = Durations::default();
        assert_eq!(estimate(&durations, A, "6.7+"), UNKNOWN_MS);
        durations.learn(&ran("tcg", None, &Outcome::Passed, 1_000_000), &class);
        assert_eq!(estimate(&durations, A, "6.7+"), 1000);
        durations.learn(&ran("tcg", None, &Outcome::Passed, 2_000_000), &class);
        assert_eq!(estimate(&durations, A, "6.7+"), 1250);
        durations.learn(&ran("tcg", Some("drop"), &Outcome::Passed, 9_000_000), &class);
        durations.learn(&ran("tcg", None, &Outcome::NotRun { message: String::new() }, 9_000_000), &class);
        durations.learn(&ran("kvm", None, &Outcome::Passed, 100_000), &class);
        assert_eq!(estimate(&durations, A, "6.7+"), 1250, "mutants and cells that did not run are not recorded");
        assert_eq!(estimate(&durations, A, "below-6.7"), 1250, "another class is better than a guess");
        assert_eq!(estimate(&durations, "B01-y[tc,veth]", "6.7+"), UNKNOWN_MS);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(Durations::load(&path).unwrap(), Durations::default(), "a missing file has no durations");
        durations.save(&path).unwrap();
        let again = Durations::load(&path).unwrap();
        assert_eq!((again.count(), &again.cells), (2, &durations.cells));
        for text in ["{\"format\":9,\"cells\":{}}", "[]", "{\"format\":1"] {
            std::fs::write(&path, text).unwrap();
            let error = Durations::load(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{} is not a durations file: ", path.display())), "{error}");
        }
    }

    #[test]
    fn times_under_kvm_are_multiplied_and_skips_are_short() {
        let mut durations = Durations::default();
        durations.learn(&ran("kvm", None, &Outcome::Passed, 100_000), &class);
        assert_eq!(estimate(&durations, A, "6.7+"), 1000);
        let mut info = cell(A);
        info.requires = vec![Capability::NetkitSingle];
        let plan = Plan::new(vec![facts("k", "6.12.43")], vec![info], false);
        assert_eq!(durations.estimate(&plan.kernels[0].facts, &plan.kernels[0].cells[0]), SKIPPED_MS);
    }
}
