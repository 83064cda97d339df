//! What stays in the cache: a bound on its size and on the time that nobody used a part of it.

use super::{Entry, Kind, bytes};
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

/// The bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Bytes on the disk, of all that may be removed.
    pub size: u64,
    /// Days without use.
    pub days: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { size: 20 << 30, days: 30 }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = if self.days == 1 { "day" } else { "days" };
        write!(f, "at most {}, unused for at most {} {days}", bytes(self.size), self.days)
    }
}

impl Policy {
    /// Reads `[cache]` of a project's `lab.toml`; without one the defaults hold.
    ///
    /// # Errors
    /// It can't be read, or says something that is no bound.
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

/// What becomes of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The entry.
    pub entry: Entry,
    /// Why it goes; none where it stays.
    pub goes: Option<&'static str>,
}

/// Judges every entry, those used longest ago first: what is too old goes, and then what was used longest ago until the rest
/// is small enough. With a kind all of it goes and nothing else.
pub fn judge(mut entries: Vec<Entry>, policy: Policy, only: Option<Kind>, now: SystemTime) -> Vec<Verdict> {
    entries.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.name.cmp(&b.name)));
    let mut size: u64 = entries.iter().filter(|entry| entry.kind.removable()).map(|entry| entry.size).sum();
    let limit = DAY * policy.days;
    let verdict = |entry: Entry| {
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
        Verdict { entry, goes }
    };
    entries.into_iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_report::results::setting_in;

    #[test]
    fn the_oldest_go_until_the_rest_fits_and_tools_stay() {
        let now = SystemTime::UNIX_EPOCH + DAY * 1000;
        let entry = |kind: Kind, name: &str, gib: u64, days: u32| Entry {
            kind,
            name: name.to_owned(),
            path: name.into(),
            size: gib << 30,
            used: now - DAY * days,
        };
        let all = vec![
            entry(Kind::Kernels, "new", 4, 0),
            entry(Kind::Bisect, "product", 4, 3),
            entry(Kind::Tools, "vng", 90, 400),
            entry(Kind::Kernels, "path", 4, 5),
            entry(Kind::Snapshots, "ancient", 1, 31),
        ];
        let gone = |policy: Policy, only| -> Vec<(String, &str)> {
            let verdicts = judge(all.clone(), policy, only, now);
            verdicts.into_iter().filter_map(|it| Some((it.entry.name, it.goes?))).collect()
        };
        let by = |gib: u64, days| Policy { size: gib << 30, days };
        let old = ("ancient".to_owned(), "not used for long");
        assert_eq!(gone(by(20, 30), None), std::slice::from_ref(&old));
        assert_eq!(gone(by(9, 30), None), [old.clone(), ("path".to_owned(), "the cache is too large")]);
        assert_eq!(gone(by(1, 60), None).len(), 4);
        assert_eq!(gone(by(20, 30), Some(Kind::Bisect)), [("product".to_owned(), "asked for")]);
    }

    #[test]
    fn bounds_are_read_strictly() {
        let parse =
            |text: &str| setting_in(text, "lab.toml", TABLE, KEYS, Policy::read).map_err(|error| error.to_string());
        assert_eq!(parse("[results]\nkeep = 3\n"), Ok(Policy::default()));
        assert_eq!(parse("[cache]\nmax-gib = 3\ndays = 7\n"), Ok(Policy { size: 3 << 30, days: 7 }));
        assert!(parse("[cache]\nmax-gb = 3\n").unwrap_err().starts_with("lab.toml:2: "));
        assert!(parse("[cache]\nmax-gib = 0\n").unwrap_err().starts_with("lab.toml:2: "));
        assert_eq!(Policy::default().to_string(), "at most 20.0 GiB, unused for at most 30 days");
    }
}
