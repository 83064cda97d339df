//! Provenance of a run: the tested commit, the job of the CI system, the command line.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// The program's name.
const LAB: &str = "lab";

/// Provenance of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Commit of the project from which the lab and the programs in guests were built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Whether tracked files differed from that commit.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// URL of the CI job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ci_url: Option<String>,
    /// The results directory that contains the run's directory, relative to the project's root if it is inside of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results: Option<String>,
    /// How the lab was called, for commands that run a cell again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Call>,
    /// The words of the command line.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
}

/// How the lab was called, so that a command can be pasted where the run was started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The program as it was called: a name in `PATH`, or a path.
    pub program: String,
    /// The project, if the working directory does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// What names the kernel if no kernels.toml does, in place of `--kernel ID`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernel: Vec<String>,
    /// What selected the run's cells and said how guests share them: a failure of a kernel outside of cells may be caused by
    /// any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selection: Vec<String>,
}

impl Call {
    /// A program and a command. Results come from other machines too: what is not the lab, or would not be shown as it is, is
    /// not offered for pasting.
    pub fn begin(call: Option<&Self>, command: &str) -> String {
        let Some(call) = call.filter(|call| call.is_plain()) else { return format!("{LAB} {command}") };
        let project = call.project.iter().flat_map(|project| ["--project", project]);
        quoted([&*call.program].into_iter().chain(project).chain([command]))
    }

    /// Whether the words can be shown and pasted.
    pub fn is_plain(&self) -> bool {
        let words = self.kernel.iter().chain(&self.selection).chain(&self.project).chain([&self.program]);
        Path::new(&self.program).file_name().is_some_and(|name| name == LAB)
            && words.into_iter().all(|word| lab_base::text::line(word, usize::MAX) == *word)
    }
}

/// Words for a shell.
pub fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(lab_base::text::shell_quote).collect();
    words.join(" ")
}

impl Provenance {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The commit, with a note if there were uncommitted changes.
    pub fn commit_line(&self) -> Option<String> {
        let commit = self.commit.as_ref()?;
        Some(if self.changed { format!("{commit} with uncommitted changes") } else { commit.clone() })
    }

    /// The command line for a shell.
    pub fn command_line(&self) -> Option<String> {
        (!self.command.is_empty()).then(|| quoted(self.command.iter().map(|word| &**word)))
    }

    /// The known values, with names for a report.
    pub fn facts(&self) -> Vec<(&'static str, String)> {
        let all = [("commit", self.commit_line()), ("ci.url", self.ci_url.clone()), ("command", self.command_line())];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lab_itself_is_offered_for_pasting() {
        let call = |program: &str, project: Option<&str>| Call {
            program: program.to_owned(),
            project: project.map(str::to_owned),
            ..Call::default()
        };
        let begin = |call: &Call| Call::begin(Some(call), "run");
        assert_eq!(begin(&call("target/release/lab", None)), "target/release/lab run");
        assert_eq!(begin(&call("/opt/my lab/lab", Some("/a b"))), "'/opt/my lab/lab' --project '/a b' run");
        for foreign in [call("rm", None), call("", None), call("/bin/sh -c lab", None), call("lab", Some("x\ny"))] {
            assert_eq!(begin(&foreign), "lab run");
        }
        assert_eq!(Call::begin(None, "shell"), "lab shell");
    }
}
