//! A script for Slurm that submits an array job, with a task for each shard, and a job that merges their results. The script
//! is its own job script: `sbatch` copies it, and its first argument says what it does there.

use super::Layout;
use std::cmp::Reverse;

const SCRIPT: &str = include_str!("slurm.sh");

/// Creates the script. A task has the longest timeout, since an array job has one time limit.
pub(super) fn script(layout: &Layout) -> String {
    let mut order: Vec<_> = layout.shards.iter().collect();
    order.sort_by_key(|shard| Reverse(shard.estimate_s));
    let order: Vec<String> = order.into_iter().map(|shard| shard.number.to_string()).collect();
    let minutes = layout.shards.iter().map(|shard| shard.timeout_minutes).max().unwrap_or_default();
    let selection = if layout.selection.is_empty() { String::new() } else { format!(" {}", layout.selection) };
    // The selection is last: words in it are never taken for a placeholder.
    SCRIPT
        .replace("@CELLS@", &layout.cells.to_string())
        .replace("@COUNT@", &layout.count.to_string())
        .replace("@ORDER@", &order.join(" "))
        .replace("@MINUTES@", &minutes.to_string())
        .replace("@SELECTION@", &selection)
}
