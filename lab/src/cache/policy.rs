//! The policy of the cache: limits for its size and for the time without use of an entry.

use super::{CacheEntry, CacheKind, bytes};
use crate::error::Error;
use lab_base::strict_toml::{ConfigError, Section};
use lab_report::{ReportError, results::setting};
use std::{
    fmt,
    path::Path,
    time::{Duration, SystemTime},
};

/// The table of `lab.toml`, and its keys.
const TABLE: &str = "cache";
const KEYS: &[&str] = &["max-gib", "days"];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePolicy {
    /// Maximum size of all removable entries on the disk, bytes.
    pub size: u64,
    /// Maximum time without use, days.
    pub days: u32,
}

impl Default for CachePolicy {
    fn default() -> Self {
        Self { size: 20 << 30, days: 30 }
    }
}

impl fmt::Display for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = if self.days == 1 { "day" } else { "days" };
        write!(f, "at most {}, unused for at most {} {days}", bytes(self.size), self.days)
    }
}

impl CachePolicy {
    /// Reads `[cache]` of a project's `lab.toml`; without it the defaults apply.
    ///
    /// # Errors
    /// The file can't be read, or a value is invalid.
    pub fn load(project: &Path) -> Result<Self, Error> {
        Ok(setting(project, TABLE, KEYS, Self::read).map_err(ReportError::from)?)
    }

    fn read(cache: Option<&Section<'_>>) -> Result<Self, ConfigError> {
        let Self { size, days } = Self::default();
        let Some(cache) = cache else { return Ok(Self { size, days }) };
        let size = cache.number("max-gib", 1..100_001)?.map_or(size, |gib| u64::from(gib) << 30);
        Ok(Self { size, days: cache.number("days", 1..36_501)?.unwrap_or(days) })
    }
}

/// The decision on an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneDecision {
    /// The entry.
    pub entry: CacheEntry,
    /// Why it is removed; `None` if it is kept.
    pub goes: Option<&'static str>,
}

/// Decides on every entry, least recently used first: entries without use for too long are removed, then the least
/// recently used ones until the rest is small enough. If a kind is given, all its entries are removed and no others.
pub fn judge(
    mut entries: Vec<CacheEntry>,
    policy: CachePolicy,
    only: Option<CacheKind>,
    now: SystemTime,
) -> Vec<PruneDecision> {
    entries.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.name.cmp(&b.name)));
    let mut size: u64 = entries.iter().filter(|entry| entry.kind.removable()).map(|entry| entry.size).sum();
    let limit = DAY * policy.days;
    let verdict = |entry: CacheEntry| {
        let age = now.duration_since(entry.used).unwrap_or_default();
        let goes = match only {
            Some(kind) => (entry.kind == kind).then_some("asked for"),
            None if !entry.kind.removable() => None,
            None if age > limit => Some("not used for long"),
            None if size > policy.size => Some("the cache is too large"),
            None => None,
        };
        if goes.is_some() {
            size -= entry.size.min(size);
        }
        PruneDecision { entry, goes }
    };
    entries.into_iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_report::results::setting_in;

    #[test]
    fn the_least_recently_used_are_removed_until_the_rest_fits_and_tools_stay() {
        let now = SystemTime::UNIX_EPOCH + DAY * 1000;
        let entry = |kind: CacheKind, name: &str, gib: u64, days: u32| CacheEntry {
            kind,
            name: name.to_owned(),
            path: name.into(),
            size: gib << 30,
            used: now - DAY * days,
        };
        let all = vec![
            entry(CacheKind::Kernels, "new", 4, 0),
            entry(CacheKind::Bisect, "product", 4, 3),
            entry(CacheKind::Tools, "vng", 90, 400),
            entry(CacheKind::Kernels, "path", 4, 5),
            entry(CacheKind::Snapshots, "ancient", 1, 31),
        ];
        let gone = |policy: CachePolicy, only| -> Vec<(String, &str)> {
            let verdicts = judge(all.clone(), policy, only, now);
            verdicts.into_iter().filter_map(|it| Some((it.entry.name, it.goes?))).collect()
        };
        let by = |gib: u64, days| CachePolicy { size: gib << 30, days };
        let old = ("ancient".to_owned(), "not used for long");
        assert_eq!(gone(by(20, 30), None), std::slice::from_ref(&old));
        assert_eq!(gone(by(9, 30), None), [old.clone(), ("path".to_owned(), "the cache is too large")]);
        assert_eq!(gone(by(1, 60), None).len(), 4);
        assert_eq!(gone(by(20, 30), Some(CacheKind::Bisect)), [("product".to_owned(), "asked for")]);
    }

    #[test]
    fn invalid_limits_are_refused() {
        let parse = |text: &str| {
            setting_in(text, "lab.toml", TABLE, KEYS, CachePolicy::read).map_err(|error| error.to_string())
        };
        assert_eq!(parse("[results]\nkeep = 3\n"), Ok(CachePolicy::default()));
        assert_eq!(parse("[cache]\nmax-gib = 3\ndays = 7\n"), Ok(CachePolicy { size: 3 << 30, days: 7 }));
        assert!(parse("[cache]\nmax-gb = 3\n").unwrap_err().starts_with("lab.toml:2: "));
        assert!(parse("[cache]\nmax-gib = 0\n").unwrap_err().starts_with("lab.toml:2: "));
        assert_eq!(CachePolicy::default().to_string(), "at most 20.0 GiB, unused for at most 30 days");
    }
}
