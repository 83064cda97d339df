//! Takes over verdicts of an earlier run, for cells on which nothing has changed since.
//!
//! A verdict is taken over only where everything that it depends on is the same, by content: the kernel, the guest's image
//! (agent, objects, modules), QEMU and its command line, what `kernels.toml` says of the kernel, both lists, the lab itself, and
//! the cell's own entry in the plan. Only passes and skips without remarks are taken over.

use super::queue::Isolate;
use crate::{error::Error, lists::Lists};
use lab_base::hex::hex;
use lab_guard::Id;
use lab_protocol::{CellId, CellInfo};
use lab_record::{
    log,
    plan::{Expectation, Plan, PlannedCell, PlannedKernel},
    run::RunRecord,
    verdict::{Standing, Verdict},
};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

/// One in so many cells, chosen at random, runs although its verdict could be taken over: what a content key does not see
/// would show there.
const CHECKED: u64 = 50;

/// The verdicts of an earlier run that another one may take over.
#[derive(Debug)]
pub struct EarlierRun {
    run: Id,
    kernels: HashMap<Id, EarlierKernel>,
}

#[derive(Debug)]
struct EarlierKernel {
    content: String,
    cells: HashMap<CellId, EarlierCell>,
}

#[derive(Debug)]
struct EarlierCell {
    info: CellInfo,
    planned: PlannedCell,
    verdict: Verdict,
}

/// Why a run's verdicts can't be taken over.
#[derive(Debug, thiserror::Error)]
#[error("the verdicts of run {run} can't be taken over: {why}")]
pub struct NotReusable {
    run: String,
    why: &'static str,
}

/// What verdicts depend on beside each kernel's own inputs, as a hash; `program` is the checksum of the lab itself.
pub fn content_of(program: &str, accelerator: &str, isolate: Isolate, lists: &Lists) -> String {
    let mut hash = Sha256::new();
    for part in [program, accelerator, &format!("{isolate:?}"), &lists.entries()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex(&hash.finalize())
}

/// How the cells of a kernel are divided.
#[derive(Debug, Default)]
pub struct Divided {
    /// Verdicts that are taken over.
    pub taken: Vec<Verdict>,
    /// Verdicts of cells that run nevertheless, and are then compared.
    pub checked: BTreeMap<CellId, Verdict>,
}

impl EarlierRun {
    /// Reads a run.
    ///
    /// # Errors
    /// It can't be read, or nothing of it can be taken over.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        Self::of(&log::read(directory)?).map_err(|error| Error::Usage(error.to_string()))
    }

    /// The verdicts of a run that can be taken over.
    ///
    /// # Errors
    /// The run had a deliberate fault, was of canaries or of a command, or nothing is known of what it ran.
    pub fn of(record: &RunRecord) -> Result<Self, NotReusable> {
        let not = |run: &str, why| NotReusable { run: run.to_owned(), why };
        let info = record.info.as_ref().ok_or_else(|| not("without a name", "it never began"))?;
        let run = info.id.clone();
        let why = match info {
            _ if info.mutant.is_some() => Some("it had a deliberate fault"),
            _ if info.canary => Some("its cells are canaries"),
            _ if !info.exec.is_empty() => Some("its cells are programs, whose inputs the lab does not know"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(not(&run, why));
        }
        let mut kernels = HashMap::new();
        for (kernel, happened) in record.planned() {
            let Some(content) = happened.and_then(|it| it.image.as_ref()).and_then(|image| image.content.clone())
            else {
                continue;
            };
            let mut cells = HashMap::new();
            for (planned, verdict) in record.verdicts_on(kernel, happened) {
                let Some(info) = info.plan.info(&planned.id) else { continue };
                let verdict = verdict.whole().into_owned();
                if may_be_taken(&verdict) {
                    let reused = Some(verdict.reused.clone().unwrap_or_else(|| run.clone()));
                    let verdict = Verdict { reused, ..verdict };
                    let cell = EarlierCell { info: info.clone(), planned: planned.clone(), verdict };
                    cells.insert(planned.id.clone(), cell);
                }
            }
            kernels.insert(kernel.facts.id.clone(), EarlierKernel { content, cells });
        }
        Ok(Self { run, kernels })
    }

    /// The run.
    pub const fn run(&self) -> &Id {
        &self.run
    }

    /// Divides the cells of a kernel for a run. At least one cell of each kernel that has cells runs, so that each kernel boots.
    pub fn divide(&self, run: &Id, plan: &Plan, kernel: &PlannedKernel, content: &str) -> Divided {
        let mut divided = Divided::default();
        let Some(earlier) = self.kernels.get(&kernel.facts.id).filter(|earlier| earlier.content == content) else {
            return divided;
        };
        let guests = |planned: &&PlannedCell| !matches!(planned.expectation, Expectation::HostSkip { .. });
        let cells = || kernel.cells.iter().filter(guests);
        for planned in cells() {
            let same = |cell: &&EarlierCell| cell.planned == *planned && plan.info(&planned.id) == Some(&cell.info);
            let Some(cell) = earlier.cells.get(&planned.id).filter(same) else { continue };
            if is_checked(run, &kernel.facts.id, &planned.id) {
                divided.checked.insert(planned.id.clone(), cell.verdict.clone());
            } else {
                divided.taken.push(cell.verdict.clone());
            }
        }
        if divided.taken.len() == cells().count() && !divided.taken.is_empty() {
            // One that passed says more than one that is skipped.
            let passed = divided.taken.iter().position(|verdict| verdict.standing() == Standing::Passed);
            let verdict = divided.taken.swap_remove(passed.unwrap_or_default());
            divided.checked.insert(verdict.report.cell.clone(), verdict);
        }
        divided
    }
}

/// Whether nothing about a verdict needs another look.
fn may_be_taken(verdict: &Verdict) -> bool {
    matches!(verdict.standing(), Standing::Passed | Standing::Skipped)
        && verdict.splats.is_empty()
        && verdict.known.is_none()
        && verdict.warnings.is_empty()
        && verdict.files.is_empty()
}

/// A run's id ends in random digits, so every run chooses other cells.
fn is_checked(run: &Id, kernel: &Id, cell: &CellId) -> bool {
    let digest = Sha256::digest(format!("{run}\n{kernel}\n{cell}"));
    let number = digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    number % CHECKED == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::id;

    #[test]
    fn nothing_is_taken_over_after_the_lab_the_guests_or_a_list_changed() {
        let lists = |splat: &str, case: &str, day: &str| {
            let end = "reason = \"being fixed\"\nexpires = \"2026-12-31\"\n";
            let splats = format!("[[splat]]\ntitle = \"{splat}\"\n{end}");
            Lists::parse(&splats, &format!("[[known]]\ncase = \"{case}\"\n{end}"), day.parse().unwrap()).unwrap()
        };
        let usual = lists("WARNING at a", "B02-*", "2026-11-20");
        let key = content_of("0a", "kvm", Isolate::Kernel, &usual);
        assert_eq!(content_of("0a", "kvm", Isolate::Kernel, &lists("WARNING at a", "B02-*", "2026-11-21")), key);
        for other in [
            content_of("0b", "kvm", Isolate::Kernel, &usual),
            content_of("0a", "tcg", Isolate::Kernel, &usual),
            content_of("0a", "kvm", Isolate::Case, &usual),
            content_of("0a", "kvm", Isolate::Kernel, &lists("WARNING at b", "B02-*", "2026-11-20")),
            content_of("0a", "kvm", Isolate::Kernel, &lists("WARNING at a", "B03-*", "2026-11-20")),
            content_of("0a", "kvm", Isolate::Kernel, &Lists::default()),
        ] {
            assert_ne!(other, key);
        }
    }

    #[test]
    fn about_one_cell_in_fifty_is_checked_and_other_ones_in_each_run() {
        let of = |run: &str| -> Vec<u32> {
            let cell = |number: &u32| CellId(format!("A{number}-x[tc]").into());
            (0..10_000).filter(|number| is_checked(&id(run), &id("6.12"), &cell(number))).collect()
        };
        let (one, other) = (of("20261126T000000Z-000001"), of("20261126T000000Z-000002"));
        assert!((100..300).contains(&one.len()) && (100..300).contains(&other.len()), "{} {}", one.len(), other.len());
        assert!(one.iter().filter(|number| other.contains(number)).count() < 50);
    }
}
