//! `lab check --against`: the same objects in an earlier run.

use super::{answers::CheckAnswer, answers::answers, inputs::CheckInput};
use crate::error::Error;
use lab_check::{CheckChange, LIBBPF, changes};
use lab_protocol::Raw;
use lab_record::{log, splat::Splat};
use lab_report::results;
use std::path::{Path, PathBuf};

/// The name of the newest check that began before today.
const YESTERDAY: &str = "yesterday";
/// Characters of a day in a run's name.
const DAY: usize = 8;

/// What changed for an object on a kernel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Changed {
    /// The object.
    pub object: String,
    /// The kernel.
    pub kernel: String,
    /// The loader.
    pub loader: String,
    /// What changed.
    pub changes: Vec<CheckChange>,
}

/// An earlier run.
#[derive(Debug)]
pub struct Earlier {
    /// Its directory.
    pub directory: PathBuf,
    answers: Vec<CheckAnswer>,
}

impl Earlier {
    /// Finds the run of that name, `yesterday` or `latest` among them, and reads what it says of these objects.
    ///
    /// # Errors
    /// There is no such run, or it is not one of `lab check` with any of these objects.
    pub fn open(results: &Path, name: &Path, word: &str, inputs: &[CheckInput]) -> Result<Self, Error> {
        let directory = if name.join(log::FILE).is_file() {
            name.to_owned()
        } else if name == Path::new(YESTERDAY) {
            yesterday(results, word)?
        } else {
            results::find(results, name)
        };
        let record = log::read(&directory)?;
        let is_check = |exec: &[Raw]| exec.first().is_some_and(|first| first.as_bytes() == word.as_bytes());
        if !record.info.as_ref().is_some_and(|info| is_check(&info.exec)) {
            return Err(Error::Usage(format!("--against {}: this is no run of `lab check`", name.display())));
        }
        let answers = answers(&record, &directory, inputs);
        if answers.is_empty() {
            let names: Vec<&str> = inputs.iter().map(|input| &*input.name).collect();
            return Err(Error::Usage(format!(
                "--against {}: that run has none of the objects {}",
                name.display(),
                names.join(", ")
            )));
        }
        Ok(Self { directory, answers })
    }

    /// What changed since, for what both have.
    pub fn changed(&self, now: &[CheckAnswer]) -> Vec<Changed> {
        let mut all = Vec::new();
        for answer in now {
            let is_same = |it: &&CheckAnswer| {
                (&it.object, &it.kernel, &it.loader) == (&answer.object, &answer.kernel, &answer.loader)
            };
            let same = self.answers.iter().find(is_same);
            let Some(before) = same else { continue };
            let mut found = changes(&before.facts, &answer.facts);
            let had = |splat: &Splat| before.splats.iter().any(|it| it.fingerprint == splat.fingerprint);
            let new = answer.splats.iter().filter(|splat| !had(splat));
            found.extend(
                new.map(|splat| CheckChange { text: format!("a new splat: {}", splat.line()), is_worse: true }),
            );
            if !found.is_empty() {
                let (object, kernel, loader) = (answer.object.clone(), answer.kernel.clone(), answer.loader.clone());
                all.push(Changed { object, kernel, loader, changes: found });
            }
        }
        all
    }
}

/// The newest check that began before today, by the names of runs.
fn yesterday(results: &Path, word: &str) -> Result<PathBuf, Error> {
    let today = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).format("%Y%m%d").to_string();
    let runs = results::newest(results, usize::MAX)?;
    let earlier = runs.into_iter().rev().filter(|run| run.id.get(..DAY).is_some_and(|day| day < today.as_str()));
    for run in earlier {
        // A run that can't be read is none that anything can be compared with.
        let info = log::read(&run.directory).ok().and_then(|record| record.info);
        if info.is_some_and(|info| info.exec.first().is_some_and(|first| first.as_bytes() == word.as_bytes())) {
            return Ok(run.directory);
        }
    }
    Err(Error::Usage(format!(
        "--against {YESTERDAY}: no run of `lab check` from before today is in {}",
        results.display()
    )))
}

/// In a report.
pub fn lines(changed: &[Changed]) -> Vec<String> {
    let line = |it: &Changed, change: &CheckChange| {
        let word = if change.is_worse { "worse" } else { "changed" };
        let with = if it.loader == LIBBPF { String::new() } else { format!(" with {}", it.loader) };
        format!("{word}: {} on {}{with}: {}", it.object, it.kernel, change.text)
    };
    changed.iter().flat_map(|it| it.changes.iter().map(move |change| line(it, change))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_check::CheckFacts;
    use lab_record::{testing::splat, verdict::Standing};

    #[test]
    fn a_splat_of_another_kind_is_worse_and_the_same_one_again_is_no_change() {
        let answer = |splats| CheckAnswer {
            object: "x".into(),
            kernel: "6.12".into(),
            loader: LIBBPF.into(),
            facts: CheckFacts::default(),
            unmet: Vec::new(),
            standing: Standing::Passed,
            ended: None,
            splats,
            attached: Vec::new(),
        };
        let before = vec![answer(vec![splat("warning-1", "WARNING: CPU: 1 PID: 9 at net/core/dev.c:1 f+0x1/0x2")])];
        let earlier = Earlier { directory: PathBuf::new(), answers: before };
        assert_eq!(
            earlier
                .changed(&[answer(vec![splat("warning-1", "WARNING: CPU: 2 PID: 9 at net/core/dev.c:1 f+0x1/0x2")])]),
            []
        );
        let both = [answer(vec![
            splat("warning-1", "WARNING: CPU: 2 PID: 9 at net/core/dev.c:1 f+0x1/0x2"),
            splat("oops-2", "Oops: general protection fault: 0000 [#1]"),
        ])];
        let changed = earlier.changed(&both);
        assert!(changed.len() == 1 && changed[0].changes.len() == 1 && changed[0].changes[0].is_worse, "{changed:?}");
        assert!(changed[0].changes[0].text.starts_with("a new splat: oops-2"), "{changed:?}");
    }
}
