//! Retention of runs: limits on their number and age, and runs that are never removed.

use super::{Stored, entries, is_id, settings::setting, stored};
use crate::{error::ReportError, results::directory::LATEST};
use chrono::{DateTime, NaiveDateTime, Utc};
use lab_base::{
    file::FileError,
    strict_toml::{ConfigError, Section},
};
use std::{
    fs::{self, File},
    path::Path,
};

/// The table of `lab.toml`, and its keys.
const TABLE: &str = "results";
const KEYS: &[&str] = &["keep", "days"];
/// What a run is renamed to before its files go, so that no half of one is ever taken for a run.
const DOOMED: &str = ".pruned-";

/// The limits: a run beyond either is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Number of runs to keep, the newest ones.
    pub keep: u32,
    /// Number of days to keep a run.
    pub days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep: 50, days: 90 }
    }
}

impl Retention {
    /// Reads `[results]` of a project's `lab.toml`; without it the defaults apply.
    ///
    /// # Errors
    /// The file can't be read, or a value is invalid.
    pub fn load(project: &Path) -> Result<Self, ReportError> {
        Ok(setting(project, TABLE, KEYS, Self::read)?)
    }

    fn read(results: Option<&Section<'_>>) -> Result<Self, ConfigError> {
        let Self { keep, days } = Self::default();
        let Some(results) = results else { return Ok(Self { keep, days }) };
        let keep = results.number("keep", 1..100_001)?.unwrap_or(keep);
        Ok(Self { keep, days: results.number("days", 1..36_501)?.unwrap_or(days) })
    }
}

/// Decision about a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The run.
    pub run: Stored,
    /// Whether it is to be removed.
    pub goes: bool,
    /// Reason, a few words.
    pub why: &'static str,
}

/// Decides on every run below a directory, oldest first. The newest run is kept, the run that `latest` points to,
/// the newest run that did not pass, and any run that is being written.
fn judge(results: &Path, retention: Retention, now: DateTime<Utc>) -> Result<Vec<Decision>, ReportError> {
    let runs = stored(results)?;
    let latest = fs::read_link(results.join(LATEST)).ok();
    let last_bad = runs.iter().rev().find(|run| !run.passed()).map(|run| run.id.clone());
    let count = runs.len();
    let verdict = |(at, run): (usize, Stored)| {
        let newer = count - at - 1;
        let days = age(&run.id, now);
        let (goes, why) = if newer == 0 {
            (false, "the newest")
        } else if latest.as_deref() == Some(Path::new(&run.id)) {
            (false, "latest points to it")
        } else if last_bad.as_ref() == Some(&run.id) {
            (false, "the newest that did not pass")
        } else if run.is_running() {
            (false, "it is running")
        } else if newer >= retention.keep as usize {
            (true, "beyond the number to keep")
        } else if days.is_none_or(|days| days >= i64::from(retention.days)) {
            (true, "beyond the age to keep")
        } else {
            (false, "within the limits")
        };
        Decision { run, goes, why }
    };
    Ok(runs.into_iter().enumerate().map(verdict).collect())
}

/// Age of a run in whole days, by its id.
fn age(id: &str, now: DateTime<Utc>) -> Option<i64> {
    let began = NaiveDateTime::parse_from_str(id.get(..16)?, "%Y%m%dT%H%M%SZ").ok()?;
    Some((now - began.and_utc()).num_days())
}

/// Decides about every run of a directory and, unless `dry` is set, removes runs beyond the limits.
///
/// # Errors
/// The directory can't be read, or a run can't be removed.
pub fn prune(results: &Path, retention: Retention, dry: bool) -> Result<Vec<Decision>, ReportError> {
    let now = DateTime::<Utc>::from(std::time::SystemTime::now());
    let verdicts = judge(results, retention, now)?;
    if !dry {
        for verdict in verdicts.iter().filter(|verdict| verdict.goes) {
            let doomed = results.join(format!("{DOOMED}{}", verdict.run.id));
            if fs::symlink_metadata(&doomed).is_ok_and(|found| !found.is_dir()) {
                // Something else of this name would stop this and every later call.
                fs::remove_file(&doomed).map_err(FileError::of("remove", &doomed))?;
            }
            fs::rename(&verdict.run.directory, &doomed).map_err(FileError::of("remove", &verdict.run.directory))?;
        }
        for (name, path) in entries(results)? {
            // Also removes runs that an interrupted earlier call left.
            if name.starts_with(DOOMED) {
                fs::remove_dir_all(&path).map_err(FileError::of("remove", &path))?;
            }
        }
    }
    Ok(verdicts)
}

/// Whether a run may be beyond the limits, by the names alone: reading each run takes longer than a short command.
fn may_go(results: &Path, retention: Retention, now: DateTime<Utc>) -> Result<bool, ReportError> {
    let names: Vec<String> = entries(results)?.into_iter().map(|(name, _)| name).collect();
    let runs: Vec<&String> = names.iter().filter(|name| is_id(name)).collect();
    let is_old = |name: &&String| age(name, now).is_none_or(|days| days >= i64::from(retention.days));
    let interrupted = names.iter().any(|name| name.starts_with(DOOMED));
    Ok(interrupted || runs.len() > retention.keep as usize || runs.iter().any(is_old))
}

/// Removes old runs after a run into one of the project's directories of runs. Errors don't affect the run. Returns a line to
/// print, if any.
pub fn sweep(project: &Path, results: &Path) -> Option<String> {
    // Two processes that finish at the same time must not remove the same run.
    let lock = File::open(results).ok()?;
    lock.try_lock().ok()?;
    let now = DateTime::<Utc>::from(std::time::SystemTime::now());
    let told = Retention::load(project).and_then(|retention| {
        let verdicts = if may_go(results, retention, now)? { prune(results, retention, false)? } else { Vec::new() };
        Ok((verdicts, retention))
    });
    match told {
        Ok((verdicts, Retention { keep, days })) => {
            let gone = verdicts.iter().filter(|verdict| verdict.goes).count();
            let place = results.strip_prefix(project).unwrap_or(results).display();
            (gone > 0).then(|| format!("removed {gone} old runs from {place}/ (keep {keep}, {days} days)"))
        }
        Err(error) => Some(format!("old runs could not be removed: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::directory;
    use crate::results::settings::setting_in;
    use lab_record::log;

    fn results(runs: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (id, last) in runs {
            let run = directory::create(dir.path(), &lab_guard::Id::new(id).unwrap()).unwrap();
            fs::write(run.join(log::FILE), format!("{{\"event\":\"run-started\"}}\n{last}")).unwrap();
        }
        dir
    }

    const PASSED: &str = "{\"at_ms\":1,\"event\":\"run-finished\",\"exit\":\"passed\",\"wall_ms\":1}\n";
    const FAILED: &str = "{\"at_ms\":1,\"event\":\"run-finished\",\"exit\":\"failed\",\"wall_ms\":1}\n";

    fn told(dir: &Path, retention: Retention, now: &str) -> Vec<String> {
        let now = now.parse().unwrap();
        let verdicts = judge(dir, retention, now).unwrap();
        verdicts.iter().map(|it| format!("{} {} {}", &it.run.id[..8], it.goes, it.why)).collect()
    }

    #[test]
    fn both_limits_apply_and_important_runs_stay() {
        let dir = results(&[
            ("20261101T000000Z-aaaaaa", FAILED),
            ("20261102T000000Z-aaaaaa", PASSED),
            ("20261103T000000Z-aaaaaa", FAILED),
            ("20261104T000000Z-aaaaaa", PASSED),
            ("20261118T000000Z-aaaaaa", PASSED),
            ("20261119T000000Z-aaaaaa", PASSED),
            ("20261120T000000Z-aaaaaa", PASSED),
        ]);
        directory::point_latest(dir.path(), &lab_guard::Id::new("20261102T000000Z-aaaaaa").unwrap()).unwrap();
        let now = "2026-11-20T12:00:00Z";
        assert_eq!(
            told(dir.path(), Retention { keep: 3, days: 10 }, now),
            [
                "20261101 true beyond the number to keep",
                "20261102 false latest points to it",
                "20261103 false the newest that did not pass",
                "20261104 true beyond the number to keep",
                "20261118 false within the limits",
                "20261119 false within the limits",
                "20261120 false the newest",
            ]
        );
        let by_age = told(dir.path(), Retention { keep: 100, days: 2 }, now);
        assert_eq!(by_age[4], "20261118 true beyond the age to keep");
        assert_eq!(by_age[5], "20261119 false within the limits");
    }

    #[test]
    fn runs_are_read_only_where_one_may_go() {
        let dir = results(&[("20261101T000000Z-aaaaaa", PASSED), ("20261118T000000Z-aaaaaa", PASSED)]);
        let may =
            |keep, days| may_go(dir.path(), Retention { keep, days }, "2026-11-20T12:00:00Z".parse().unwrap()).unwrap();
        assert!(!may(2, 20), "within both limits");
        assert!(may(1, 20) && may(2, 19));
        fs::create_dir(dir.path().join(format!("{DOOMED}20261001T000000Z-aaaaaa"))).unwrap();
        assert!(may(3, 20), "left by an interrupted call");
    }

    #[test]
    fn runs_are_removed_completely_and_other_directories_stay() {
        let dir = results(&[
            ("20261101T000000Z-aaaaaa", PASSED),
            ("20261102T000000Z-aaaaaa", PASSED),
            ("20261103T000000Z-aaaaaa", PASSED),
        ]);
        fs::create_dir(dir.path().join("mine")).unwrap();
        fs::create_dir(dir.path().join(".pruned-20261001T000000Z-aaaaaa")).unwrap();
        let running = File::open(dir.path().join("20261101T000000Z-aaaaaa").join(log::FILE)).unwrap();
        running.lock().unwrap();
        let keep_one = Retention { keep: 1, days: 36_500 };
        let gone = |dry| -> Vec<String> {
            let verdicts = prune(dir.path(), keep_one, dry).unwrap();
            verdicts.into_iter().filter(|it| it.goes).map(|it| it.run.id).collect()
        };
        assert_eq!(gone(true), ["20261102T000000Z-aaaaaa"]);
        assert_eq!(gone(false), ["20261102T000000Z-aaaaaa"]);
        let names: Vec<String> = entries(dir.path()).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        assert!(names.iter().all(|name| !name.contains("20261102") && !name.contains("pruned")), "{names:?}");
        drop(running);
        assert_eq!(gone(false), ["20261101T000000Z-aaaaaa"]);
    }

    #[test]
    fn errors_about_settings_name_line_and_key() {
        let read =
            |text: &str| setting_in(text, "lab.toml", TABLE, KEYS, Retention::read).map_err(|error| error.to_string());
        assert_eq!(read("").unwrap(), Retention::default());
        assert_eq!(read("[results]\nkeep = 7\n").unwrap(), Retention { keep: 7, ..Retention::default() });
        let error = read("[results]\nkep = 7\n").unwrap_err();
        assert!(error.contains("lab.toml:2") && error.contains("did you mean `keep`"), "{error}");
        assert!(read("[results]\ndays = 0\n").unwrap_err().contains("a whole number from 1 to 36500"));
    }
}
