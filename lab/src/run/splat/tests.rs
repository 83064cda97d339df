//! Console texts of every class, from the kernels of the ladder.

use super::*;
use lab_protocol::complaint::SplatClass;
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// Every file of `fixtures/`: its name without `.log`, and its text.
fn fixtures() -> BTreeMap<String, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/run/splat/fixtures");
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn only(name: &str) -> Splat {
    let mut found = scan(&fixtures()[name]);
    assert_eq!(found.len(), 1, "{name}: {found:#?}");
    found.remove(0)
}

#[test]
fn every_class_is_recognised_and_has_a_fixture() {
    let mut told = String::new();
    let mut classes: Vec<SplatClass> = Vec::new();
    for (name, text) in fixtures() {
        for splat in scan(&text) {
            classes.push(splat.class);
            let lines = splat.evidence.lines().count();
            let _ = writeln!(
                told,
                "{name}: {} x{}, {lines} lines\n  {}\n  {}\n  {}",
                splat.fingerprint,
                splat.times,
                splat.title,
                splat.subject,
                splat.frames.join(" < ")
            );
        }
    }
    for class in SplatClass::ALL {
        assert!(classes.contains(&class), "no console text of class {class}");
    }
    insta::assert_snapshot!(told);
}

#[test]
fn different_wordings_of_kernels_give_the_same_fingerprint() {
    for same in [
        &["warn-6.1", "warn-6.12", "warn-7.2"][..],
        &["refcount-6.12", "refcount-7.1"],
        &["oops-null-6.1", "oops-null-6.17"],
        &["oops-gpf-6.1", "oops-gpf-7.0"],
        &["kasan-6.1", "kasan-7.1"],
        &["hung-task-6.12", "hung-task-7.1"],
    ] {
        let prints: Vec<String> = same.iter().map(|name| only(name).fingerprint).collect();
        assert!(prints.iter().all(|print| *print == prints[0]), "{same:?}: {prints:?}");
    }
    assert_eq!(scan(&fixtures()["netns-leak-7.2"])[0].fingerprint, only("netns-leak-6.1").fingerprint);
}

/// Since 6.7 the entry of a kernel thread has a second function, in assembly.
#[test]
fn a_short_backtrace_of_a_kernel_thread_has_the_same_fingerprint_whatever_its_entry() {
    let print = |entry: &str| {
        let text = format!(
            "[    3.1] WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n\
             [    3.1] Call Trace:\n\
             [    3.1]  <TASK>\n\
             [    3.1]  flush_backlog+0x1/0x2\n\
             [    3.1]  worker_thread+0x1/0x2\n\
             [    3.1]  kthread+0x1/0x2\n\
             [    3.1]  ret_from_fork+0x1/0x2\n{entry}\
             [    3.1]  </TASK>\n\
             [    3.1] ---[ end trace 0000000000000000 ]---\n"
        );
        let found = scan(&text);
        assert_eq!(found.len(), 1, "{found:#?}");
        (found[0].fingerprint.clone(), found[0].frames.clone())
    };
    let old = print("");
    assert_eq!(old.1, ["flush_backlog"]);
    assert_eq!(print("[    3.1]  ret_from_fork_asm+0x1/0x2\n"), old);
}

#[test]
fn different_splats_have_different_fingerprints() {
    let prints: BTreeMap<String, Vec<String>> = fixtures().iter().fold(BTreeMap::new(), |mut prints, (name, text)| {
        let kind = name.rsplit_once('-').map_or(&**name, |(kind, _)| kind).to_owned();
        for splat in scan(text) {
            let kinds: &mut Vec<String> = prints.entry(splat.fingerprint).or_default();
            if !kinds.contains(&kind) {
                kinds.push(kind.clone());
            }
        }
        prints
    });
    assert!(prints.values().all(|kinds| kinds.len() == 1), "{prints:?}");
}

#[test]
fn a_repeated_splat_increases_the_counter() {
    let found = scan(&fixtures()["netns-leak-7.2"]);
    assert_eq!((found.len(), found[0].times), (1, 2));
    assert!(found[0].evidence.contains("ref_tracker: netdev@"));
}

#[test]
fn the_kernel_log_has_frames_that_the_console_suppresses() {
    let whole = fixtures()["hung-task-6.12"].clone();
    // The call trace of a hung task has log level 6.
    let console: String = whole.lines().take(3).map(|line| format!("{line}\n")).collect();
    assert_ne!(scan(&console)[0].fingerprint, scan(&whole)[0].fingerprint);
    let merged = merge(scan(&console), scan_kernel_log(&whole));
    assert_eq!((merged.len(), merged[0].seen), (1, SplatPlace::Both));
    assert_eq!(merged[0].fingerprint, scan(&whole)[0].fingerprint);
    let both = merge(scan(&fixtures()["warn-6.1"]), scan_kernel_log(&whole));
    assert_eq!(both.iter().map(|splat| splat.seen).collect::<Vec<_>>(), [SplatPlace::KernelLog, SplatPlace::Console]);
}

#[test]
fn log_lines_of_a_case_are_not_splats() {
    assert!(scan("[1.0] foo: this is not a WARNING: CPU: at all\n[1.1] netkit-lab: begin WARNING\n").is_empty());
}
