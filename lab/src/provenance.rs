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
    let said = git(root, ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]).unwrap_or_default();
    let (own, changed) = of_status(&said);
    let commit = own.or_else(|| COMMITS.iter().find_map(|name| variable(name)));
    // A word of `lab exec` may be any bytes.
    let command = env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    Provenance { commit, changed, ci_url: page(&variable), results: None, call: None, command }
}

/// The commit that git's status names, and whether files differ from it (git-status(1), "Porcelain Format Version 2").
fn of_status(said: &str) -> (Option<String>, bool) {
    let commit = said.lines().find_map(|line| line.strip_prefix("# branch.oid ")).filter(|it| *it != "(initial)");
    let changed = commit.is_some() && said.lines().any(|line| !line.starts_with('#'));
    (commit.map(str::to_owned), changed)
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
    fn the_commit_and_its_changes_are_read_from_one_answer() {
        let head = "# branch.oid 74d4b52a\n# branch.head main\n";
        assert_eq!(of_status(head), (Some("74d4b52a".to_owned()), false));
        assert!(of_status(&format!("{head}1 .M N... 100644 100644 100644 a a lab/x\n")).1);
        assert_eq!(of_status("# branch.oid (initial)\n# branch.head main\n1 A. x\n"), (None, false));
        assert_eq!(of_status(""), (None, false));
    }

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
