//! Shards in the record of a run: which part of a plan was run, and from which shards a run was merged.

use crate::plan::KernelFacts;
use lab_guard::Id;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// Invalid shard number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The text does not have the form `m/n`.
    #[error("`{text}` is not a shard (expected: 2/4, auto or auto/4)")]
    BadPart {
        /// The text.
        text: String,
    },
    /// More than [`MOST_SHARDS`].
    #[error("{count} shards are too many: at most {MOST_SHARDS}")]
    TooMany {
        /// The given number.
        count: u32,
    },
    /// The number is out of range.
    #[error("there is no shard {part}: the first is 1/{0}, the last {0}/{0}", part.count)]
    NoSuchPart {
        /// The numbers.
        part: Part,
    },
}

/// Maximum number of shards.
pub const MOST_SHARDS: u32 = 10_000;

/// Shard `number` of `count`, as `2/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Numbers")]
pub struct Part {
    /// Number of the shard, from 1 to `count`.
    pub number: u32,
    /// Number of shards.
    pub count: u32,
}

/// Fields of a [`Part`] before they are checked.
#[derive(Deserialize)]
struct Numbers {
    number: u32,
    count: u32,
}

impl TryFrom<Numbers> for Part {
    type Error = PartError;

    fn try_from(Numbers { number, count }: Numbers) -> Result<Self, PartError> {
        Self::new(number, count)
    }
}

impl Part {
    /// Creates a part.
    ///
    /// # Errors
    /// The number is not between 1 and the count, or the count is beyond [`MOST_SHARDS`].
    pub fn new(number: u32, count: u32) -> Result<Self, PartError> {
        let part = Self { number, count };
        if count > MOST_SHARDS {
            return Err(PartError::TooMany { count });
        }
        if number == 0 || number > count { Err(PartError::NoSuchPart { part }) } else { Ok(part) }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.count)
    }
}

impl FromStr for Part {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        let bad = || PartError::BadPart { text: text.to_owned() };
        let (number, count) = text.split_once('/').ok_or_else(bad)?;
        Self::new(number.parse().map_err(|_| bad())?, count.parse().map_err(|_| bad())?)
    }
}

/// Information about the whole plan in a shard's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The number of this shard.
    #[serde(flatten)]
    pub part: Part,
    /// Hashes of everything that all shards must agree on, by a readable name.
    pub identity: BTreeMap<String, String>,
    /// Every kernel of the whole plan.
    pub kernels: Vec<Share>,
    /// Whether the whole plan includes all kernels.
    pub full_matrix: bool,
}

/// The shards that run a kernel's cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The kernel.
    pub facts: KernelFacts,
    /// Numbers of the shards.
    pub shards: Vec<u32>,
}

/// A shard of a merged run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedShard {
    /// The shard.
    #[serde(flatten)]
    pub part: Part,
    /// Whether its results were complete.
    pub state: ShardState,
    /// Id of its run, if there are results.
    pub run: Option<Id>,
    /// Whether it runs only kernels whose failures do not count.
    #[serde(default)]
    pub may_fail: bool,
}

/// Completeness of a shard's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardState {
    /// The results are complete.
    Complete,
    /// The runner ended early, or the events are cut off.
    Cut,
    /// There are no results.
    Missing,
}

impl MergedShard {
    /// The problem in one line; `None` if the results are complete.
    pub fn problem(&self) -> Option<String> {
        match self.state {
            ShardState::Complete => None,
            ShardState::Cut => Some(format!("shard {} ended early: its events are incomplete", self.part)),
            ShardState::Missing => Some(format!("shard {} is missing: it has no results", self.part)),
        }
    }
}
