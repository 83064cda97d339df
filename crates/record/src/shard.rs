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
    /// The time of this shard's cells by the durations that the plan is split by, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
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
    /// The time of its cells by the durations that the plan was split by, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate_ms: Option<u64>,
    /// How long its run took, milliseconds, if that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_ms: Option<u64>,
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

/// A shard is a straggler from this multiple of what was expected of it on: 3/2.
const STRAGGLES: (u64, u64) = (3, 2);
/// A shard that took less than this longer than expected is none: nobody waited for it. Milliseconds.
const SHORTEST_DELAY_MS: u64 = 60_000;
/// Fewer shards than this have no pace to compare with.
const FEWEST_SHARDS: usize = 3;

/// A shard beside what was expected of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardTime {
    /// The shard.
    pub part: Part,
    /// How long its run took, milliseconds.
    pub took_ms: u64,
    /// How long it should have taken, milliseconds: its estimate at the pace of the shard in the middle. Estimates are sums over
    /// cells under emulation, so that only their relation to each other says something.
    pub expected_ms: u64,
}

impl ShardTime {
    /// Whether the others had long ended.
    pub const fn straggles(&self) -> bool {
        self.took_ms >= self.expected_ms.saturating_add(SHORTEST_DELAY_MS)
            && self.took_ms / STRAGGLES.0 >= self.expected_ms / STRAGGLES.1
    }

    /// In one line.
    pub fn line(&self) -> String {
        let Self { part, took_ms, expected_ms } = self;
        format!(
            "shard {part} took {} s; {} s were expected, by recorded times at the pace of the other shards",
            took_ms.div_ceil(1000),
            expected_ms.div_ceil(1000)
        )
    }
}

/// Times of shards that ended, in order; none where too few have an estimate.
pub fn shard_times(shards: &[MergedShard]) -> Vec<ShardTime> {
    let known = |shard: &MergedShard| match (shard.took_ms, shard.estimate_ms) {
        (Some(took), Some(estimate @ 1..)) => Some((shard.part, took, estimate)),
        _ => None,
    };
    let known: Vec<(Part, u64, u64)> = shards.iter().filter_map(known).collect();
    if known.len() < FEWEST_SHARDS {
        return Vec::new();
    }
    let mut order: Vec<&(Part, u64, u64)> = known.iter().collect();
    // took / estimate, compared without a division.
    let product = |one: u64, other: u64| u128::from(one) * u128::from(other);
    order.sort_by(|one, other| product(one.1, other.2).cmp(&product(other.1, one.2)));
    let (_, took, estimate) = *order[(order.len() - 1) / 2];
    let expected = |of: u64| u64::try_from(product(of, took) / u128::from(estimate)).unwrap_or(u64::MAX);
    known.iter().map(|&(part, took_ms, of)| ShardTime { part, took_ms, expected_ms: expected(of) }).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shards(times: &[(Option<u64>, Option<u64>)]) -> Vec<MergedShard> {
        let count = u32::try_from(times.len()).unwrap();
        let shard = |(number, &(took, estimate)): (u32, &(Option<u64>, Option<u64>))| MergedShard {
            part: Part { number, count },
            state: ShardState::Complete,
            run: None,
            may_fail: false,
            estimate_ms: estimate.map(|seconds| seconds * 1000),
            took_ms: took.map(|seconds| seconds * 1000),
        };
        (1..).zip(times).map(shard).collect()
    }

    fn stragglers(times: &[(Option<u64>, Option<u64>)]) -> Vec<String> {
        let all = shard_times(&shards(times)).into_iter().filter(ShardTime::straggles);
        all.map(|time| time.line()).collect()
    }

    #[test]
    fn a_straggler_is_told_by_the_pace_of_the_others() {
        let of = |took, estimate| (Some(took), Some(estimate));
        // All of them need half of their estimate, as two guests at once do; the third one has a slow machine.
        assert_eq!(
            stragglers(&[of(300, 600), of(310, 600), of(600, 620), of(100, 200)]),
            ["shard 3/4 took 600 s; 310 s were expected, by recorded times at the pace of the other shards"]
        );
        assert_eq!(
            stragglers(&[of(300, 600), of(310, 600), of(420, 600)]),
            Vec::<String>::new(),
            "less than half more"
        );
        assert_eq!(stragglers(&[of(10, 20), of(10, 20), of(60, 20)]), Vec::<String>::new(), "nobody waited for it");
        assert_eq!(stragglers(&[of(10, 20), of(900, 20)]), Vec::<String>::new(), "two have no middle");
        assert_eq!(
            shard_times(&shards(&[of(10, 20), of(10, 20), of(10, 20), (None, Some(20)), (Some(9), None)])).len(),
            3
        );
        let largest = shard_times(&shards(&[of(u64::MAX / 1000, 1), of(1, u64::MAX / 1000), of(1, 1)]));
        assert_eq!(largest.len(), 3, "hostile numbers end nothing");
    }
}
