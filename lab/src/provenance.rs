//! Determines the tested commit and the CI job of a run.

use lab_base::git::git;
use lab_record::provenance::{Call, Provenance};
use std::{env, path::Path};

/// Variables of CI systems that contain the commit.
const COMMITS: [&str; 8] = [
    "GITHUB_SHA",
    "CI_COMMIT_SHA",
    "SEMAPHORE_GIT_SHA",
    "BUILDKITE_COMMIT",
    "CIRCLE_SHA1",
    "BUILD_SOURCEVERSION",
    "BITBUCKET_COMMIT",
    "GIT_COMMIT",
];
/// Variables of CI systems that contain the URL of the job: GitLab, Buildkite, CircleCI, Jenkins.
const PAGES: [&str; 4] = ["CI_JOB_URL", "BUILDKITE_BUILD_URL", "CIRCLE_BUILD_URL", "BUILD_URL"];

/// The path of a results directory for CI systems: relative to the project, or absolute if it is elsewhere.
pub fn place(root: &Path, results: &Path) -> Option<String> {
    let absolute = std::path::absolute(results).ok()?;
    let root = std::path::absolute(root).ok()?;
    Some(absolute.strip_prefix(&root).unwrap_or(&absolute).display().to_string())
}

/// How this process was called: by make, whose working directory may be another one than the person's, or by a person.
pub fn call(root: &Path, named: Option<&Path>) -> Call {
    let program = env::args_os().next().filter(|program| !program.is_empty()).unwrap_or_else(|| "lab".into());
    let made = || env::var_os("MAKELEVEL").map(|_| root);
    Call {
        program: program.to_string_lossy().into_owned(),
        project: named.or_else(made).map(|project| project.display().to_string()),
        ..Call::default()
    }
}

/// Reads the provenance of this process, in the project's directory. Without git or a repository, the CI system's variables are used.
pub fn of(root: &Path) -> Provenance {
    let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let asked = |words: &[&str]| git(root, words).ok().map(|said| said.trim().to_owned());
    let own = asked(&["rev-parse", "--verify", "HEAD"]).filter(|commit| !commit.is_empty());
    let changed = own.is_some()
        && asked(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    let commit = own.or_else(|| COMMITS.iter().find_map(|name| variable(name)));
    // A word of `lab exec` may be any bytes.
    let command = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    Provenance { commit, changed, ci_url: page(&variable), results: None, call: None, command }
}

/// The URL of the CI job.
fn page(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let joined = |names: [&str; 3], [between, last]: [&str; 2]| {
        let [server, project, number] = names.map(variable);
        Some(format!("{}{between}{}{last}{}", server?.trim_end_matches('/'), project?, number?))
    };
    PAGES
        .iter()
        .find_map(|name| variable(name))
        .or_else(|| joined(["GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"], ["/", "/actions/runs/"]))
        .or_else(|| {
            joined(["SYSTEM_COLLECTIONURI", "SYSTEM_TEAMPROJECT", "BUILD_BUILDID"], ["/", "/_build/results?buildId="])
        })
        .or_else(|| {
            let (server, workflow) = (variable("SEMAPHORE_ORGANIZATION_URL")?, variable("SEMAPHORE_WORKFLOW_ID")?);
            Some(format!("{server}/workflows/{workflow}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ci_system_has_a_page() {
        for (variables, wanted) in [
            (&[("CI_JOB_URL", "https://gitlab.example/j/1")][..], Some("https://gitlab.example/j/1")),
            (
                &[("GITHUB_SERVER_URL", "https://github.com"), ("GITHUB_REPOSITORY", "a/b"), ("GITHUB_RUN_ID", "7")],
                Some("https://github.com/a/b/actions/runs/7"),
            ),
            (
                &[
                    ("SYSTEM_COLLECTIONURI", "https://dev.azure.com/o/"),
                    ("SYSTEM_TEAMPROJECT", "p"),
                    ("BUILD_BUILDID", "9"),
                ],
                Some("https://dev.azure.com/o/p/_build/results?buildId=9"),
            ),
            (
                &[("SEMAPHORE_ORGANIZATION_URL", "https://o.semaphoreci.com"), ("SEMAPHORE_WORKFLOW_ID", "w")],
                Some("https://o.semaphoreci.com/workflows/w"),
            ),
            (&[("GITHUB_RUN_ID", "7")], None),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(it, _)| *it == name).map(|(_, value)| (*value).to_owned());
            assert_eq!(page(&variable).as_deref(), wanted);
        }
    }
}
