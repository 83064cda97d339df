//! Parts that can't be run and results that can't be merged.

use lab_record::shard::{Part, PartError};
use std::path::PathBuf;

/// One clear line each, naming the file or the variable.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// Not a shard, or one that there is not.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A variable that names the shard makes no sense.
    #[error("{variable}={value} names no shard; say which one with --partition m/n")]
    BadVariable {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
    },
    /// No variable names the shard.
    #[error("no variable of a CI system says which shard this is; say it with --partition m/n")]
    NoIndex,
    /// No variable names the number of shards.
    #[error("{variable} says which shard this is, and nothing says of how many; use --partition auto/N")]
    NoCount {
        /// The variable with the index.
        variable: &'static str,
    },
    /// A shard would be empty.
    #[error("{count} shards for {cells} cells: some would have nothing to run; use at most {cells}")]
    TooMany {
        /// Shards that were asked for.
        count: u32,
        /// Cells of the plan.
        cells: usize,
    },
    /// The run is no part of anything.
    #[error("{} is a whole run, not a shard of one", path.display())]
    NotAShard {
        /// Its events.
        path: PathBuf,
    },
    /// Two shards do not belong together.
    #[error("{} and {} are shards of different plans: {what} differ", path.display(), other.display())]
    OtherPlan {
        /// The later one's events.
        path: PathBuf,
        /// The earlier one's events.
        other: PathBuf,
        /// What differs.
        what: String,
    },
    /// The same shard twice.
    #[error("{} and {} are both shard {part}: remove one", path.display(), other.display())]
    Duplicate {
        /// The later one's events.
        path: PathBuf,
        /// The earlier one's events.
        other: PathBuf,
        /// Which shard.
        part: Part,
    },
    /// Events of cells that the shard's own plan does not have.
    #[error("{} tells of {cell} on kernel {kernel}, which is not in its own plan", path.display())]
    ForeignCell {
        /// The events.
        path: PathBuf,
        /// The kernel.
        kernel: String,
        /// The cell.
        cell: String,
    },
    /// Two shards of one plan claim the same cell.
    #[error("{} plans {cell} on kernel {kernel}, as does another shard, or no shard should", path.display())]
    Overlap {
        /// The later one's events.
        path: PathBuf,
        /// The kernel.
        kernel: String,
        /// The cell.
        cell: String,
    },
}
