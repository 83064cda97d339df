//! Determines which shard to run, from `--partition` or from the variables of a CI system.

use super::ShardError;
use lab_record::shard::{Part, PartError};
use std::str::FromStr;

/// Value of `--partition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// This shard.
    Part(Part),
    /// The shard in the variables, which must be set.
    Auto,
    /// The shard in the variables, with this number of shards.
    AutoOf(u32),
}

impl FromStr for Request {
    type Err = ShardError;

    fn from_str(text: &str) -> Result<Self, ShardError> {
        let bad = || ShardError::from(PartError::BadPart { text: text.to_owned() });
        match text.strip_prefix("auto") {
            Some("") => Ok(Self::Auto),
            Some(rest) => {
                let count = rest.strip_prefix('/').and_then(|count| count.parse().ok()).filter(|&count| count > 0);
                count.map(Self::AutoOf).ok_or_else(bad)
            }
            None => Ok(Self::Part(text.parse()?)),
        }
    }
}

/// Variables of a CI system: the index, the number of jobs if it sets one, and the first index.
struct System {
    index: &'static str,
    count: Option<&'static str>,
    first: u32,
}

/// According to the documentation of each system: GitLab `parallel`, Semaphore `parallelism`, Buildkite
/// `parallelism`, CircleCI `parallelism`, Azure Pipelines `strategy: parallel`, Bitbucket parallel steps, and
/// Kubernetes Indexed Jobs, which set no count.
const SYSTEMS: [System; 7] = [
    System { index: "CI_NODE_INDEX", count: Some("CI_NODE_TOTAL"), first: 1 },
    System { index: "SEMAPHORE_JOB_INDEX", count: Some("SEMAPHORE_JOB_COUNT"), first: 1 },
    System { index: "BUILDKITE_PARALLEL_JOB", count: Some("BUILDKITE_PARALLEL_JOB_COUNT"), first: 0 },
    System { index: "CIRCLE_NODE_INDEX", count: Some("CIRCLE_NODE_TOTAL"), first: 0 },
    System { index: "SYSTEM_JOBPOSITIONINPHASE", count: Some("SYSTEM_TOTALJOBSINPHASE"), first: 1 },
    System { index: "BITBUCKET_PARALLEL_STEP", count: Some("BITBUCKET_PARALLEL_STEP_COUNT"), first: 0 },
    System { index: "JOB_COMPLETION_INDEX", count: None, first: 0 },
];

/// Determines the shard, and the variable that named it. `--partition` takes precedence; without it, variables count if
/// they name more than one job; otherwise the whole plan runs.
///
/// # Errors
/// The option or a variable is invalid, or `auto` finds no variable.
pub fn resolve(
    flag: Option<Request>,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(Part, Option<&'static str>)>, ShardError> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let system = SYSTEMS.iter().find_map(|system| Some((system, set(system.index)?)));
    let count = |system: &System| -> Result<Option<u32>, ShardError> {
        let Some((name, value)) = system.count.and_then(|name| Some((name, set(name)?))) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| ShardError::BadVariable { variable: name, value })
    };
    let part = |system: &System, value: String, count: u32| -> Result<_, ShardError> {
        let bad = |_| ShardError::BadVariable { variable: system.index, value: value.clone() };
        let index: Option<u32> = value.parse().ok();
        let number = index.and_then(|index| index.checked_add(1)?.checked_sub(system.first)).unwrap_or(0);
        Ok(Some((Part::new(number, count).map_err(bad)?, Some(system.index))))
    };
    match (flag, system) {
        (Some(Request::Part(part)), _) => Ok(Some((part, None))),
        (Some(Request::AutoOf(count)), Some((system, value))) => part(system, value, count),
        (Some(_), None) => Err(ShardError::NoIndex),
        (Some(Request::Auto), Some((system, value))) => match count(system)? {
            Some(count) => part(system, value, count),
            None => Err(ShardError::NoCount { variable: system.index }),
        },
        (None, Some((system, value))) => match count(system)? {
            Some(count) if count > 1 => part(system, value, count),
            _ => Ok(None),
        },
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(flag: &str, variables: &[(&str, &str)]) -> String {
        let flag = match flag {
            "" => None,
            flag => match flag.parse() {
                Ok(request) => Some(request),
                Err(error) => return ShardError::to_string(&error),
            },
        };
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        match resolve(flag, &variable) {
            Ok(Some((part, Some(from)))) => format!("{part} by {from}"),
            Ok(Some((part, None))) => part.to_string(),
            Ok(None) => "everything".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_variables_of_each_system_are_understood() {
        for (index, count, first) in [
            ("CI_NODE_INDEX", "CI_NODE_TOTAL", 1),
            ("SEMAPHORE_JOB_INDEX", "SEMAPHORE_JOB_COUNT", 1),
            ("BUILDKITE_PARALLEL_JOB", "BUILDKITE_PARALLEL_JOB_COUNT", 0),
            ("CIRCLE_NODE_INDEX", "CIRCLE_NODE_TOTAL", 0),
            ("SYSTEM_JOBPOSITIONINPHASE", "SYSTEM_TOTALJOBSINPHASE", 1),
            ("BITBUCKET_PARALLEL_STEP", "BITBUCKET_PARALLEL_STEP_COUNT", 0),
        ] {
            for number in 1..=3 {
                let value = (number - 1 + first).to_string();
                assert_eq!(told("", &[(index, &value), (count, "3")]), format!("{number}/3 by {index}"));
            }
            let beyond = (3 + first).to_string();
            assert!(told("", &[(index, &beyond), (count, "3")]).contains("is not a shard"), "{index}");
        }
        assert_eq!(told("auto/8", &[("JOB_COMPLETION_INDEX", "7")]), "8/8 by JOB_COMPLETION_INDEX");
    }

    #[test]
    fn the_option_takes_precedence_and_a_single_job_runs_everything() {
        let gitlab = [("CI_NODE_INDEX", "2"), ("CI_NODE_TOTAL", "4")];
        assert_eq!(told("3/5", &gitlab), "3/5");
        assert_eq!(told("auto", &gitlab), "2/4 by CI_NODE_INDEX");
        assert_eq!(told("auto/9", &gitlab), "2/9 by CI_NODE_INDEX");
        assert_eq!(told("", &[("CI_NODE_TOTAL", "1")]), "everything", "as GitLab sets it in every job");
        assert_eq!(told("", &[("CIRCLE_NODE_INDEX", "0"), ("CIRCLE_NODE_TOTAL", "1")]), "everything");
        assert_eq!(told("", &[("JOB_COMPLETION_INDEX", "1")]), "everything", "the count is unknown");
        assert_eq!(told("", &[]), "everything");
    }

    #[test]
    fn invalid_values_are_refused_in_one_line() {
        for (flag, wanted) in [
            ("2", "`2` is not a shard (expected: 2/4, auto or auto/4)"),
            ("auto/0", "`auto/0` is not a shard (expected: 2/4, auto or auto/4)"),
            ("5/4", "there is no shard 5/4: the first is 1/4, the last 4/4"),
            ("0/4", "there is no shard 0/4: the first is 1/4, the last 4/4"),
            ("auto", "no variable of a CI system names the shard; use --partition m/n"),
        ] {
            assert_eq!(told(flag, &[]), wanted);
        }
        let zero = [("CI_NODE_INDEX", "0"), ("CI_NODE_TOTAL", "4")];
        assert_eq!(told("", &zero), "CI_NODE_INDEX=0 is not a shard; use --partition m/n");
        let kubernetes = [("JOB_COMPLETION_INDEX", "1")];
        assert!(told("auto", &kubernetes).contains("no variable names the number of shards; use --partition auto/N"));
    }
}
