//! Shards as a run records them: which part of a plan it ran, and what a merged run was made from.

use crate::plan::KernelFacts;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A text or a pair of numbers that is no shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Not `m/n`.
    #[error("`{text}` is no shard (wanted: 2/4, or auto, or auto/4)")]
    BadPart {
        /// As it was given.
        text: String,
    },
    /// The number is outside of its range.
    #[error("there is no shard {part}: the first is 1/{0}, the last {0}/{0}", part.count)]
    NoSuchPart {
        /// As it was given.
        part: Part,
    },
}

/// Shard `number` of `count`, as `2/4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 1 to `count`.
    pub number: u32,
    /// How many there are.
    pub count: u32,
}

impl Part {
    /// A part.
    ///
    /// # Errors
    /// The number is not between 1 and the count.
    pub fn new(number: u32, count: u32) -> Result<Self, PartError> {
        let part = Self { number, count };
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

/// What a shard's events say of the plan that it is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Which part it is.
    #[serde(flatten)]
    pub part: Part,
    /// Hashes of what all shards must agree on, by its name for people.
    pub identity: BTreeMap<String, String>,
    /// Every kernel of the whole plan.
    pub kernels: Vec<Share>,
    /// Whether no filter narrowed the whole plan's kernels.
    pub full_matrix: bool,
}

/// Which shards run a kernel's cells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The kernel.
    pub facts: KernelFacts,
    /// Numbers of the shards.
    pub shards: Vec<u32>,
}

/// A shard in the run that it was merged into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedShard {
    /// Which one.
    #[serde(flatten)]
    pub part: Part,
    /// How much of it there was.
    pub state: ShardState,
    /// Its run's id, where there is one.
    pub run: Option<String>,
    /// Whether it has only kernels whose failures do not count.
    #[serde(default)]
    pub may_fail: bool,
}

/// How much of a shard was there to merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardState {
    /// All of it.
    Complete,
    /// Its runner ended before its run did, or its events are cut short.
    Cut,
    /// Nothing.
    Missing,
}

impl MergedShard {
    /// What is wrong with it, in one line; `None` where it is complete.
    pub fn problem(&self) -> Option<String> {
        match self.state {
            ShardState::Complete => None,
            ShardState::Cut => Some(format!("shard {} ended early: its events are cut short", self.part)),
            ShardState::Missing => Some(format!("shard {} is missing: there are no results of it", self.part)),
        }
    }
}
