//! The lab's own suite under the witness: two readings of the same kernel, which must agree; and that they would not, if the witness
//! were wrong.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LAB: &str = env!("CARGO_BIN_EXE_lab");
/// Every mechanism; detaching by position; devices that move; shared blocks.
const CASES: [&str; 8] = ["A01*", "A02*", "A04*", "M09*", "M13*", "L04*", "L11*", "X07*"];

fn lab(arguments: &[&str]) -> Output {
    Command::new(LAB).args(["--project", ROOT]).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs cells under the witness, and adds up what their accounts compared: readings, and lost events.
fn compared(test: &str, selection: &[&str]) -> (u64, u64) {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    let _ = std::fs::remove_dir_all(&out);
    let out_text = out.display().to_string();
    let ran = lab(&[&["run", "--witness", "--out", &out_text], selection].concat());
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
    let events = std::fs::read_to_string(out.join("latest/events.jsonl")).unwrap();
    let (mut readings, mut lost) = (0, 0);
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        // The exit code does not count what fails on the newest kernel.
        let why = event["verdict"]["outcome"]["message"].as_str().unwrap_or_default();
        assert!(!why.contains("the suite and the witness differ"), "{}: {why}", event["kernel"]);
        let account = &event["verdict"]["report"]["witness"];
        readings += account["readings"]["compared"].as_u64().unwrap_or_default();
        lost += account["lost"].as_u64().unwrap_or_default();
    }
    (readings, lost)
}

#[test]
fn the_suites_readings_and_the_witnesss_account_agree() {
    let cases: Vec<&str> = CASES.iter().flat_map(|case| ["--case", case]).collect();
    let (readings, _lost) = compared("witness-suite", &[&["-k", "6.1", "-k", "6.17"], &cases[..]].concat());
    assert!(readings > 500, "{readings} readings were compared");
    // They agree because both are right: a witness that is wrong is found.
    let ran = lab(&[
        "mutants",
        "--witness",
        "--no-build",
        "--mutant",
        "witness-wrong-hook",
        "--mutant",
        "witness-filter-missed",
    ]);
    let told = text(&ran.stdout);
    assert_eq!(ran.status.code(), Some(0), "{told}{}", text(&ran.stderr));
    assert!(told.contains("mutants: 2 made, 2 caught"), "{told}");
    assert!(told.contains("the suite and the witness differ"), "{told}");
}

/// `make witness`: twenty minutes in emulated guests.
#[test]
#[ignore = "the whole suite on four kernels"]
fn the_whole_suite_agrees_on_every_kernel_and_every_fault_of_the_witness_is_found() {
    for kernel in ["6.1", "6.12", "6.17", "newest"] {
        let selection = if kernel == "newest" { vec!["--newest"] } else { vec!["-k", kernel] };
        let (readings, lost) = compared("witness-whole", &selection);
        assert!(readings > if kernel == "6.1" { 300 } else { 5000 }, "{kernel}: {readings} readings were compared");
        // A function that is preempted while it is watched hides the next call of itself.
        assert!(lost < 50, "{kernel}: {lost} events were lost");
    }
    let ran = lab(&["mutants", "--witness", "--no-build"]);
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
}
