//! Order of execution: the longest work first, so that no long cell starts when everything else is finished.

use super::queue::{Isolate, PIECE};
use lab_record::plan::{KernelFacts, Plan, PlannedCell, PlannedKernel};
use std::cmp::Reverse;

/// Estimates a cell's time on a kernel, milliseconds.
pub type Estimate<'a> = dyn Fn(&KernelFacts, &PlannedCell) -> u64 + Sync + 'a;

/// The plan's kernels, the longest first.
pub fn kernels<'a>(plan: &'a Plan, estimate: &Estimate<'_>) -> Vec<&'a PlannedKernel> {
    let mut kernels: Vec<&PlannedKernel> = plan.kernels.iter().collect();
    let takes = |kernel: &PlannedKernel| kernel.cells.iter().map(|cell| estimate(&kernel.facts, cell)).sum::<u64>();
    kernels.sort_by_cached_key(|kernel| Reverse(takes(kernel)));
    kernels
}

/// A kernel's cells in the order in which several guests take them.
///
/// With a guest per cell: the longest cell first. With a guest per area: areas stay together, the longest first. In
/// pieces: only cells that take longer than a usual piece come first. The other cells finish at about the same time in
/// any order, and adjacent cells in the plan share set-up.
pub fn cells<'a>(
    plan: &Plan,
    kernel: &'a PlannedKernel,
    isolate: Isolate,
    estimate: &Estimate<'_>,
) -> Vec<&'a PlannedCell> {
    let takes = |cell: &PlannedCell| estimate(&kernel.facts, cell);
    let mut cells: Vec<&PlannedCell> = kernel.cells.iter().collect();
    match isolate {
        Isolate::Case => cells.sort_by_cached_key(|cell| Reverse(takes(cell))),
        Isolate::Group => {
            let area = |cell: &PlannedCell| plan.info(&cell.id).map(|info| &*info.area);
            let mut areas: Vec<Vec<&PlannedCell>> =
                cells.chunk_by(|one, next| area(one) == area(next)).map(<[_]>::to_vec).collect();
            areas.sort_by_cached_key(|cells| Reverse(cells.iter().map(|cell| takes(cell)).sum::<u64>()));
            cells = areas.concat();
        }
        Isolate::Kernel | Isolate::Both => {
            let mut times: Vec<u64> = cells.iter().map(|cell| takes(cell)).collect();
            times.sort_unstable();
            let piece = times.get(times.len() / 2).copied().unwrap_or_default() * PIECE as u64;
            let long = |cell: &PlannedCell| Some(takes(cell)).filter(|&takes| takes > piece).unwrap_or_default();
            cells.sort_by_cached_key(|cell| Reverse(long(cell)));
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::{cell, facts};

    /// A cell's time is the number after its area's letter.
    fn takes(_: &KernelFacts, cell: &PlannedCell) -> u64 {
        cell.id.case().rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(1)
    }

    fn ordered(ids: &[&str], isolate: Isolate) -> Vec<String> {
        let mut infos: Vec<_> = ids.iter().map(|id| cell(&format!("{id}[tc,veth]"))).collect();
        infos.iter_mut().for_each(|info| info.area = info.id.as_str()[..1].to_owned());
        let plan = Plan::new(vec![facts("6.12", "6.12.43")], infos, false);
        cells(&plan, &plan.kernels[0], isolate, &takes).iter().map(|cell| cell.id.case().to_owned()).collect()
    }

    #[test]
    fn the_longest_cells_run_first_unless_they_share_a_guest() {
        let ids = ["A01-2", "A02-2", "B01-9", "B02-1", "C01-3", "C02-50", "C03-2"];
        assert_eq!(ordered(&ids, Isolate::Case), ["C02-50", "B01-9", "C01-3", "A01-2", "A02-2", "C03-2", "B02-1"]);
        assert_eq!(ordered(&ids, Isolate::Group), ["C01-3", "C02-50", "C03-2", "B01-9", "B02-1", "A01-2", "A02-2"]);
        assert_eq!(ordered(&ids, Isolate::Kernel), ["C02-50", "A01-2", "A02-2", "B01-9", "B02-1", "C01-3", "C03-2"]);
    }

    #[test]
    fn the_kernel_with_the_most_work_starts_first() {
        let plan = Plan::new(
            vec![facts("6.1", "6.1"), facts("6.12", "6.12"), facts("6.17", "6.17")],
            vec![cell("A01-x[tc,veth]")],
            true,
        );
        let estimate = |kernel: &KernelFacts, _: &PlannedCell| if kernel.id == "6.12" { 9 } else { 3 };
        let ids: Vec<&str> = kernels(&plan, &estimate).into_iter().map(|kernel| &*kernel.facts.id).collect();
        assert_eq!(ids, ["6.12", "6.1", "6.17"]);
    }
}
