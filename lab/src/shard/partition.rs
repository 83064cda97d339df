//! Splits a plan: first by kernel, then by case according to recorded durations.
//!
//! A shard that boots one kernel fetches one kernel. Therefore kernels share a shard only if there are fewer shards than
//! kernels; otherwise each shard has one kernel, and a slow kernel has several shards.

use super::ShardError;
use lab_record::{
    plan::{KernelFacts, Plan, PlannedCell, PlannedKernel},
    shard::{Part, Share},
};
use std::cmp::Reverse;

/// Time before a kernel's first cell, milliseconds: image, boot and snapshot under emulation.
const KERNEL_MS: u64 = 15_000;

/// A plan split into shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// One load per shard, in order.
    pub loads: Vec<Load>,
}

/// The cells of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Load {
    /// Estimated time, milliseconds.
    pub estimate_ms: u64,
    /// Indexes of kernels in the plan, each with the indexes of its cells, in the plan's order.
    pub cells: Vec<(usize, Vec<usize>)>,
}

impl Load {
    /// Number of cells.
    pub fn count(&self) -> usize {
        self.cells.iter().map(|(_, cells)| cells.len()).sum()
    }
}

/// Splits a plan into `count` shards of about equal duration. `estimate` returns a cell's time in milliseconds; the same
/// plan and the same estimates give the same shards on every machine.
///
/// # Errors
/// [`ShardError::TooMany`] if a shard would be empty.
pub fn split(
    plan: &Plan,
    count: u32,
    estimate: &dyn Fn(&KernelFacts, &PlannedCell) -> u64,
) -> Result<Split, ShardError> {
    let time = |kernel: &PlannedKernel| kernel.cells.iter().map(|cell| estimate(&kernel.facts, cell)).collect();
    let times: Vec<Vec<u64>> = plan.kernels.iter().map(time).collect();
    let kernels: Vec<usize> = (0..times.len()).filter(|&kernel| !times[kernel].is_empty()).collect();
    let cells: usize = times.iter().map(Vec::len).sum();
    let shards = usize::try_from(count).unwrap_or(usize::MAX);
    if shards == 0 || shards > cells {
        return Err(ShardError::TooMany { count, cells });
    }
    let mut loads = Vec::new();
    if shards <= kernels.len() {
        let weight = |&kernel: &usize| KERNEL_MS + times[kernel].iter().sum::<u64>();
        for mut bin in longest_first(&kernels, shards, weight) {
            bin.sort_unstable();
            let estimate_ms = bin.iter().map(weight).sum();
            loads.push(Load {
                estimate_ms,
                cells: bin.into_iter().map(|it| (it, (0..times[it].len()).collect())).collect(),
            });
        }
    } else {
        for (kernel, share) in kernels.iter().copied().zip(shares(&kernels, shards, &times)) {
            let all: Vec<usize> = (0..times[kernel].len()).collect();
            for mut bin in longest_first(&all, share, |&cell| times[kernel][cell]) {
                bin.sort_unstable();
                let estimate_ms = KERNEL_MS + bin.iter().map(|&cell| times[kernel][cell]).sum::<u64>();
                loads.push(Load { estimate_ms, cells: vec![(kernel, bin)] });
            }
        }
    }
    Ok(Split { loads })
}

/// Number of shards of each kernel: each additional shard goes to the kernel with the longest shard.
fn shares(kernels: &[usize], shards: usize, times: &[Vec<u64>]) -> Vec<usize> {
    let mut shares = vec![1; kernels.len()];
    for _ in kernels.len()..shards {
        let takes = |at: usize| times[kernels[at]].iter().sum::<u64>() / shares[at] as u64;
        let open = (0..kernels.len()).filter(|&at| shares[at] < times[kernels[at]].len());
        if let Some(slowest) = open.max_by_key(|&at| (takes(at), Reverse(at))) {
            shares[slowest] += 1;
        }
    }
    shares
}

/// Distributes items over `bins`, longest first, each to the bin with the least weight. No bin stays empty if there are
/// enough items.
fn longest_first(items: &[usize], bins: usize, weight: impl Fn(&usize) -> u64) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = items.to_vec();
    order.sort_by_key(|item| Reverse(weight(item)));
    let mut filled: Vec<(u64, Vec<usize>)> = vec![(0, Vec::new()); bins];
    for item in order {
        let least = (0..bins).min_by_key(|&bin| (filled[bin].0, filled[bin].1.len(), bin)).unwrap_or_default();
        filled[least].0 += weight(&item);
        filled[least].1.push(item);
    }
    filled.into_iter().map(|(_, items)| items).collect()
}

impl Split {
    /// The plan of a shard. It is never marked as the full matrix: whether every case runs somewhere is checked on the
    /// whole plan.
    pub fn narrow(&self, plan: &Plan, part: Part) -> Plan {
        let Some(load) = self.loads.get(part.number as usize - 1) else { return plan.clone() };
        let kernels = load.cells.iter().map(|(kernel, cells)| {
            let mut kernel = plan.kernels[*kernel].clone();
            kernel.cells = cells.iter().map(|&cell| kernel.cells[cell].clone()).collect();
            kernel
        });
        let (cells, others) = (plan.cells.clone(), plan.others.clone());
        Plan { cells, kernels: kernels.collect(), full_matrix: false, others, every_cell: plan.every_cell }
    }

    /// The shards that run each kernel of the plan.
    pub fn kernels(&self, plan: &Plan) -> Vec<Share> {
        let shards = |kernel: usize| {
            let runs = |load: &Load| load.cells.iter().any(|(it, _)| *it == kernel);
            (1..).zip(&self.loads).filter(|(_, load)| runs(load)).map(|(number, _)| number).collect()
        };
        (0..).zip(&plan.kernels).map(|(at, kernel)| Share { facts: kernel.facts.clone(), shards: shards(at) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::{cell, facts};
    use proptest::prelude::*;

    fn plan(kernels: usize, cells: usize) -> Plan {
        let ids: Vec<String> = (0..kernels).map(|number| format!("6.{number}")).collect();
        let cells = (0..cells).map(|number| cell(&format!("A{:02}-{number}[tc,veth]", number % 100))).collect();
        Plan::new(ids.iter().map(|id| facts(id, id)).collect(), cells, true)
    }

    /// A fixed time that differs between kernels and cells.
    fn time(facts: &KernelFacts, cell: &PlannedCell) -> u64 {
        let words = facts.id.bytes().chain(cell.id.as_str().bytes());
        words.fold(7, |hash: u64, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 900
    }

    fn kernels_of(plan: &Plan, count: u32) -> Vec<Vec<String>> {
        let split = split(plan, count, &time).unwrap();
        let ids =
            |load: &Load| load.cells.iter().map(|(kernel, _)| plan.kernels[*kernel].facts.id.to_string()).collect();
        split.loads.iter().map(ids).collect()
    }

    #[test]
    fn kernels_are_not_split_unless_there_are_more_shards_than_kernels() {
        let plan = plan(3, 40);
        assert_eq!(kernels_of(&plan, 1), [["6.0", "6.1", "6.2"]]);
        assert_eq!(kernels_of(&plan, 3).iter().flatten().count(), 3, "one each");
        let four = kernels_of(&plan, 4);
        assert!(four.iter().all(|kernels| kernels.len() == 1), "a shard fetches one kernel: {four:?}");
    }

    #[test]
    fn a_slow_kernel_gets_the_additional_shards() {
        let plan = plan(3, 100);
        let slow = |facts: &KernelFacts, _: &PlannedCell| if facts.id == "6.1" { 1000 } else { 10 };
        let split = split(&plan, 6, &slow).unwrap();
        let shares: Vec<usize> = split.kernels(&plan).iter().map(|share| share.shards.len()).collect();
        assert_eq!(shares, [1, 4, 1]);
        assert!(split.loads[1..5].iter().all(|load| load.estimate_ms == KERNEL_MS + 25_000), "evenly");
    }

    #[test]
    fn a_shard_without_a_cell_is_refused() {
        let error = split(&plan(1, 3), 4, &time).unwrap_err();
        assert_eq!(error.to_string(), "4 shards for 3 cells: some would have nothing to run; use at most 3");
    }

    proptest! {
        #[test]
        fn every_cell_is_in_exactly_one_shard_and_no_shard_is_empty(kernels in 1..5usize, cells in 1..60usize, count in 1..20u32) {
            let plan = plan(kernels, cells);
            let Ok(split) = split(&plan, count, &time) else {
                prop_assert!(count as usize > kernels * cells);
                return Ok(());
            };
            prop_assert_eq!(&split, &super::split(&plan, count, &time).unwrap());
            prop_assert_eq!(split.loads.len(), count as usize);
            let mut seen = std::collections::BTreeSet::new();
            for number in 1..=count {
                let narrowed = split.narrow(&plan, Part { number, count });
                prop_assert!(narrowed.kernels.iter().all(|kernel| !kernel.cells.is_empty()) && !narrowed.kernels.is_empty());
                for kernel in &narrowed.kernels {
                    for cell in &kernel.cells {
                        prop_assert!(seen.insert((kernel.facts.id.clone(), cell.id.clone())));
                    }
                }
            }
            prop_assert_eq!(seen.len(), kernels * cells);
        }
    }
}
