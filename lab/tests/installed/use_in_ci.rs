//! What other projects use in their CI, tried as their CI runs it: in an empty git repository, with the packaged lab.

use super::package::{ROOT, fine, packages, plain, words};
use lab::setup::Tools;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// `action.yml`, as far as it says what runs.
#[derive(Deserialize)]
struct Action {
    inputs: BTreeMap<String, Input>,
    runs: Runs,
}

#[derive(Deserialize)]
struct Input {
    default: String,
}

#[derive(Deserialize)]
struct Runs {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    #[serde(default)]
    env: BTreeMap<String, String>,
    run: Option<String>,
}

/// A YAML file of this project, read by the library of one of the linters.
fn yaml<T: serde::de::DeserializeOwned>(file: &str) -> T {
    let cache = lab_base::paths::cache_dir().unwrap();
    let tools = Tools::in_cache(&cache).test_tools().expect("the linters are not installed: run `make setup-tests`");
    let script = "import json, sys, yaml; json.dump(yaml.safe_load(open(sys.argv[1])), sys.stdout)";
    let output = Command::new(tools.python()).args(["-c", script]).arg(Path::new(ROOT).join(file)).output().unwrap();
    serde_json::from_str(&fine(&output)).unwrap()
}

/// A foreign repository on a runner.
struct Runner {
    repository: tempfile::TempDir,
    home: tempfile::TempDir,
}

impl Runner {
    fn new() -> Self {
        let new = Self { repository: tempfile::tempdir().unwrap(), home: tempfile::tempdir().unwrap() };
        fine(&Command::new("git").arg("-C").arg(new.at()).args(["init", "--quiet"]).output().unwrap());
        new
    }

    fn at(&self) -> &Path {
        self.repository.path()
    }

    /// A command as the runner starts it.
    fn command(&self, script: &str, environment: &[(String, String)]) -> Command {
        let mut command = Command::new("bash");
        plain(command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).current_dir(self.at()));
        let added = fs::read_to_string(self.home.path().join("path")).unwrap_or_default();
        let path = added.lines().map(|line| format!("{line}:")).collect::<String>() + "/usr/sbin:/usr/bin:/sbin:/bin";
        // The cache stays this machine's: what it holds would be restored by the workflow.
        let cache = lab_base::paths::cache_dir().unwrap();
        command.env("PATH", path).env("HOME", self.home.path()).env("NETKIT_LAB_CACHE", cache);
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the action's own steps with these inputs; the last output, and the job's summary.
    fn uses(&self, inputs: &[(&str, &str)]) -> (Output, String) {
        let action: Action = yaml("action.yml");
        for (name, _) in inputs {
            assert!(action.inputs.contains_key(*name), "{name} is no input");
        }
        let action_path = fs::canonicalize(ROOT).unwrap().display().to_string();
        let evaluated = |value: &str| {
            let mut value = value.replace("${{ github.action_path }}", &action_path);
            for (name, input) in &action.inputs {
                let given = inputs.iter().find(|(it, _)| it == name).map_or(&*input.default, |(_, value)| value);
                value = value.replace(&format!("${{{{ inputs.{name} }}}}"), given);
            }
            value
        };
        let summary = self.home.path().join("summary");
        let _ = fs::remove_file(&summary);
        let mut last = None;
        for step in &action.runs.steps {
            let Some(script) = &step.run else { continue };
            assert!(!script.contains("${{"), "{}: an input could be a command", step.name);
            let mut environment: Vec<(String, String)> =
                step.env.iter().map(|(name, value)| (name.clone(), evaluated(value))).collect();
            let file = |name: &str| self.home.path().join(name).display().to_string();
            environment.push(("GITHUB_ACTIONS".to_owned(), "true".to_owned()));
            environment.push(("GITHUB_PATH".to_owned(), file("path")));
            environment.push(("GITHUB_STEP_SUMMARY".to_owned(), file("summary")));
            let output = self.command(script, &environment).output().unwrap();
            let failed = !output.status.success();
            last = Some(output);
            if failed {
                break;
            }
        }
        (last.unwrap(), fs::read_to_string(summary).unwrap_or_default())
    }
}

fn package() -> String {
    packages().archive.display().to_string()
}

#[test]
fn the_action_runs_in_an_empty_repository() {
    let runner = Runner::new();
    let select = "--case 'A0*' --attach netkit";
    let (output, summary) = runner.uses(&[
        ("package", &package()),
        ("kernels", "6.12"),
        ("select", select),
        ("deadline", "run=20m cell=60s"),
    ]);
    fine(&output);
    assert!(summary.contains("| kernel | release |") && summary.contains("| 6.12 |"), "{summary}");
    assert!(runner.at().join("results/latest/junit.xml").is_file());

    // What fails is an annotation and fails the job.
    let (output, summary) =
        runner.uses(&[("package", &package()), ("kernels", "6.12"), ("select", "--canary -c 'Z02*'")]);
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    assert!(words(&output).contains("\n::error title=failed 6.12"), "{}", words(&output));
    assert!(
        summary.contains("1 failed") && summary.contains("`lab run --kernel 6.12 --case Z02-must-fail --canary`"),
        "{summary}"
    );
}

#[test]
fn jobs_share_the_cells_and_one_merges_them() {
    let runner = Runner::new();
    let select = ("select", "--case 'A01-*'");
    for shard in ["1", "2"] {
        let given = [("package", &*package()), ("kernels", "6.12"), select, ("shards", "2"), ("shard", shard)];
        let (output, _) = runner.uses(&given);
        fine(&output);
        let run = fs::canonicalize(runner.at().join("results/latest")).unwrap();
        let artifact = runner.at().join(format!("shards/netkit-lab-{shard}/results"));
        fs::create_dir_all(&artifact).unwrap();
        fine(&Command::new("cp").arg("-a").arg(&run).arg(&artifact).output().unwrap());
    }
    let merged = Runner::new();
    fine(&Command::new("cp").arg("-a").arg(runner.at().join("shards")).arg(merged.at()).output().unwrap());
    let (output, summary) = merged.uses(&[("package", &package()), ("merge", "shards")]);
    fine(&output);
    assert!(summary.contains("| 6.12 |"), "{summary}");
}

/// A YAML file that other systems' projects include: the scripts of a job, in order.
#[derive(Deserialize)]
struct CellJob {
    script: Vec<String>,
}

/// GitLab installs the package as root; here it is unpacked, and the job's own lines run with its paths.
#[test]
fn the_jobs_of_gitlab_and_semaphore_run_the_same_script() {
    let jobs: BTreeMap<String, CellJob> = yaml("ci/gitlab/use.yml");
    let script = jobs[".netkit-lab"].script.join("\n");
    let semaphore = fs::read_to_string(Path::new(ROOT).join("ci/semaphore/use.yml")).unwrap();
    assert!(semaphore.contains(&format!("- {script}\n")), "{script}");

    let runner = Runner::new();
    let prefix: PathBuf = packages().prefix.clone();
    fs::write(runner.home.path().join("path"), prefix.join("bin").display().to_string()).unwrap();
    let script = script.replace("/usr/share", &prefix.join("share").display().to_string());
    let environment = |index: &str| {
        [("LAB_KERNELS", "6.12"), ("LAB_SELECT", "-c 'A01-*'"), ("CI_NODE_INDEX", index), ("CI_NODE_TOTAL", "2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    };
    for index in ["1", "2"] {
        fine(&runner.command(&script, &environment(index)).output().unwrap());
    }
    let script = jobs[".netkit-lab-report"].script.join("\n");
    let script = script.replace("/usr/share", &prefix.join("share").display().to_string());
    fine(&runner.command(&script, &[]).output().unwrap());
    let summary = fs::read_to_string(runner.at().join("summary.md")).unwrap();
    assert!(summary.contains("| 6.12 |"), "{summary}");
}
