//! What a person types: positional patterns, what is left out, a plan without a run, colours, the report in a browser.

use super::support::{lab, plan, run, stderr, stdout, write};
use lab_base::programs;
use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt, process::Output};

const RUN: &str = "20261119T020000Z-aaaaaa";

/// The cells that `lab list` shows for these arguments.
fn listed(arguments: &[&str]) -> Vec<String> {
    let output = lab(&["list", "--kernel", "6.12", "--format", "json"]).args(arguments).output().unwrap();
    let told: Value = serde_json::from_str(&stdout(&output)).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    assert_eq!(told["version"], 1);
    told["cells"].as_array().unwrap().iter().map(|cell| cell["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn cases_are_selected_by_position_and_left_out_by_exclude() {
    let all = listed(&["--case", "A0*"]);
    assert_eq!(listed(&["A0*"]), all);
    assert_eq!(listed(&["A01*", "A02*"]), listed(&["-c", "A01*", "-c", "A02*"]));
    let without = listed(&["A0*", "--exclude", "A01*"]);
    assert!(without.len() < all.len() && !without.is_empty());
    assert!(without.iter().all(|id| all.contains(id) && !id.starts_with("A01")), "{without:?}");
    for command in ["list", "run", "plan"] {
        let lost = lab(&[command, "-k", "6.12", "A0*", "-x", "A01-clsact-flter"]).output().unwrap();
        let told = stderr(&lost);
        assert_eq!(lost.status.code(), Some(4), "{command}: {told}");
        assert!(told.contains("no case matches `A01-clsact-flter`; nearest: A01-clsact-filter"), "{command}: {told}");
    }
    let nothing = lab(&["list", "A01*", "--exclude", "A*"]).output().unwrap();
    assert_eq!(nothing.status.code(), Some(4), "{}", stderr(&nothing));
}

#[test]
fn a_dry_run_shows_the_plan_and_boots_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out");
    let dry = |arguments: &[&str]| {
        // With this as QEMU no guest could start.
        let mut command = lab(&["run", "--dry-run", "--out"]);
        command.arg(&out).args(arguments).env("NETKIT_LAB_QEMU", "/bin/false").output().unwrap()
    };
    let told = dry(&["-k", "6.1,6.12", "A01*", "A05*"]);
    let text = stdout(&told);
    assert!(told.status.success(), "{}", stderr(&told));
    assert!(text.contains("6.12 (6.12.") && text.contains("  run   A01-"), "{text}");
    // 6.1 has neither tcx nor netkit.
    assert!(text.contains("  skip  ") && text.contains(": netkit: needs kernel 6.7"), "{text}");
    assert!(text.contains("on 2 kernels would run; nothing was booted\n"), "{text}");
    let wrong = dry(&["-k", "6.12", "no-such-case"]);
    assert_eq!(wrong.status.code(), Some(4), "{}", stderr(&wrong));
    assert!(!out.exists(), "a plan has no results");
}

#[test]
fn colours_are_as_the_option_says_then_as_the_environment_says() {
    let dir = tempfile::tempdir().unwrap();
    let failed = write(dir.path(), "failed", &run(RUN, plan(1, 3), &[1], "lost"));
    let coloured = |options: &[&str], environment: &[(&str, &str)]| {
        let mut command = lab(options);
        command.arg("report").arg(&failed).env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").env_remove("CI");
        stdout(&command.envs(environment.iter().copied()).output().unwrap()).contains("\x1b[31m")
    };
    assert!(!coloured(&[], &[]), "this is no terminal");
    assert!(coloured(&[], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "0")]));
    assert!(!coloured(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
    assert!(coloured(&["--color", "always"], &[("NO_COLOR", "1"), ("CI", "true")]));
    assert!(!coloured(&["--color=never"], &[("CLICOLOR_FORCE", "1")]));
    let help = |colour: &str| stdout(&lab(&["run", "--help", "--color", colour]).output().unwrap()).contains("\x1b[");
    assert!(help("always") && !help("never"));
    let wrong = lab(&["list", "--color", "red"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("[possible values: auto, always, never]"), "{}", stderr(&wrong));
}

#[test]
fn a_report_is_opened_or_its_path_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let passed = write(dir.path(), "passed", &run(RUN, plan(1, 3), &[], ""));
    let page = passed.join("report.html");
    let opened = dir.path().join("opened");
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let open = |script: Option<&str>| -> Output {
        let opener = bin.join("xdg-open");
        let _ = fs::remove_file(&opener);
        if let Some(script) = script {
            fs::write(&opener, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&opener, fs::Permissions::from_mode(0o755)).unwrap();
        }
        lab(&["report", "--open"]).arg(&passed).env("PATH", &bin).output().unwrap()
    };
    let done = open(Some(&format!("echo \"$1\" > {}", opened.display())));
    assert!(done.status.success() && stderr(&done).contains("opening "), "{}", stderr(&done));
    assert_eq!(fs::read_to_string(&opened).unwrap().trim_end(), page.canonicalize().unwrap().to_str().unwrap());
    // One that runs as long as the browser is not awaited.
    let done = open(Some("exec /bin/sleep 20"));
    assert!(done.status.success() && stderr(&done).contains("opening "), "{}", stderr(&done));
    let done = open(Some("exit 3"));
    assert!(done.status.success(), "the report was written");
    assert!(stderr(&done).contains("xdg-open failed (exit status: 3): open "), "{}", stderr(&done));
    if programs::find("xdg-open").is_none() {
        let done = open(None);
        assert!(
            done.status.success() && stderr(&done).contains("xdg-open is not installed: open "),
            "{}",
            stderr(&done)
        );
        assert!(stderr(&done).contains("report.html in a browser"), "{}", stderr(&done));
    }
}

/// Everything that prints a list prints it as JSON with a version, by the same option.
#[test]
fn every_list_is_json_with_a_version() {
    let dir = tempfile::tempdir().unwrap();
    let one = write(dir.path(), RUN, &run(RUN, plan(1, 3), &[1], "lost"));
    let other = write(dir.path(), "20261120T020000Z-bbbbbb", &run("20261120T020000Z-bbbbbb", plan(1, 3), &[], ""));
    let cache = dir.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let (results, one, other) = (dir.path().to_str().unwrap(), one.to_str().unwrap(), other.to_str().unwrap());
    for arguments in [
        &["list", "-k", "6.12", "A01*"][..],
        &["list", "--coverage"],
        &["kernels", "list"],
        &["topology", "list"],
        &["cache"],
        &["cache", "prune", "--dry-run"],
        &["doctor"],
        &["results", "list"],
        &["results", "prune", "--dry-run"],
        &["history", "*", "--results", results],
        &["splats", "--results", results],
        &["compare", one, other],
        &["plan", "-k", "6.12", "A01*"],
    ] {
        let mut command = lab(arguments);
        if arguments[0] == "cache" {
            // Another lab may be using that of this machine.
            command.env("NETKIT_LAB_CACHE", &cache);
        }
        let output = command.args(["--format", "json"]).output().unwrap();
        let told: Value = serde_json::from_str(&stdout(&output))
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", stderr(&output)));
        assert!(told["version"].is_u64(), "{arguments:?} has no version");
    }
}

/// One rule for all commands: the names that begin with the word, else those that differ by a slip, else all of few.
#[test]
fn wrong_names_get_the_same_answer_everywhere() {
    let kernels = "no kernel matches `6.18`; nearest: 6.18.5, 6.18.9, 6.18.12, 6.18.15\n";
    for (arguments, wanted, code) in [
        (&["shell", "6.18", "--no-build"][..], kernels, 4),
        (&["run", "-k", "6.18", "--dry-run"], kernels, 4),
        (&["exec", "-k", "6.18", "--", "true"], kernels, 125),
        (&["capabilities", "-k", "6.18"], kernels, 4),
        (&["kernels", "fetch", "-k", "6.18"], kernels, 4),
        (&["kernels", "update", "-k", "6.18"], kernels, 4),
        (&["kernels", "source", "6.18", "/nonexistent/x"], kernels, 4),
        (&["mutants", "-k", "6.18"], kernels, 4),
        (&["topology", "show", "par"], "no topology matches `par`; did you mean `pair`?\n", 4),
        (&["shell", "6.12", "--topology", "par"], "no topology matches `par`; did you mean `pair`?\n", 4),
        (&["topology", "show", "pair", "--kind", "zz"], "no kind of link matches `zz`; known: veth, nk-l2, nk-l3\n", 4),
        (
            &["shell", "6.12", "-c", "A01-clsact-flter"],
            "no case matches `A01-clsact-flter`; nearest: A01-clsact-filter",
            4,
        ),
        (&["list", "--class", "zz"], "no class matches `zz`; known: ", 4),
    ] {
        let output = lab(arguments).output().unwrap();
        let told = stderr(&output);
        assert!(told.contains(wanted), "{arguments:?}: {told}");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    }
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), RUN, &run(RUN, plan(1, 3), &[], ""));
    let history = lab(&["history", "*", "-k", "no-such", "--results"]).arg(dir.path()).output().unwrap();
    assert_eq!(history.status.code(), Some(4), "{}{}", stdout(&history), stderr(&history));
    assert!(stderr(&history).contains("no kernel matches `no-such`"), "{}", stderr(&history));
}
