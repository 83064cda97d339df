//! Errors of splitting a plan and merging results.

use lab_record::shard::{Part, PartError};
use std::path::PathBuf;

/// Each error is one line that names the file or variable.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Invalid shard number.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A variable that names the shard is invalid.
    #[error("{variable}={value} is not a shard; use --partition m/n")]
    BadVariable { variable: &'static str, value: String },
    /// No variable names the shard.
    #[error("no variable of a CI system names the shard; use --partition m/n")]
    NoIndex,
    /// No variable names the number of shards.
    #[error("{variable} names the shard, but no variable names the number of shards; use --partition auto/N")]
    NoCount {
        /// The variable with the index.
        variable: &'static str,
    },
    /// A shard would be empty.
    #[error("{count} shards for {cells} cells: some would have nothing to run; use at most {cells}")]
    TooMany {
        /// Requested number of shards.
        count: u32,
        cells: usize,
    },
    /// The run is a whole run.
    #[error("{} is a whole run, not a shard", path.display())]
    NotAShard {
        /// Its events file.
        path: PathBuf,
    },
    /// The shards belong to different plans.
    #[error("{} and {} are shards of different plans: {what} differ", path.display(), other.display())]
    OtherPlan {
        /// Events of the later one.
        path: PathBuf,
        /// Events of the earlier one.
        other: PathBuf,
        what: String,
    },
    /// The same shard was given twice.
    #[error("{} and {} are both shard {part}: remove one", path.display(), other.display())]
    Duplicate {
        /// Events of the later one.
        path: PathBuf,
        /// Events of the earlier one.
        other: PathBuf,
        part: Part,
    },
    /// The events contain a cell that is not in the shard's plan.
    #[error("{} contains {cell} on kernel {kernel}, which is not in its plan", path.display())]
    ForeignCell {
        /// The events.
        path: PathBuf,
        /// The kernel.
        kernel: String,
        /// The cell.
        cell: String,
    },
    /// The guests' numbers are too large.
    #[error("{} has guest numbers of kernel {kernel} that are too large to be renumbered", path.display())]
    TooManyGuests {
        /// The events.
        path: PathBuf,
        /// The kernel.
        kernel: String,
    },
    /// Two shards have the same cell in their plans, or a shard has one that it should not have.
    #[error("{} has {cell} on kernel {kernel} in its plan, but this cell belongs to another shard or to none", path.display())]
    Overlap {
        /// Events of the later one.
        path: PathBuf,
        kernel: String,
        cell: String,
    },
}
