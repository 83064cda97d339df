use super::*;
use crate::run::{judge::with_splats, splat::scan};
use lab_protocol::{ErrorKind, FailureKind, Outcome};
use lab_record::testing::{cell, facts, passed};

const WARN: &str = "WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n";

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn lists(splats: &str, known: &str) -> Lists {
    Lists::parse(splats, known, day("2026-11-20")).unwrap()
}

fn entry(key: &str, more: &str) -> String {
    format!("{key}\nreason = \"being fixed\"\nexpires = \"2026-12-31\"\n{more}\n")
}

fn failed(kind: FailureKind, message: &str) -> Verdict {
    let mut verdict = Verdict::on(passed("D10-auto[auto,nk-l3]", Vec::new()), Outcome::Passed);
    verdict.outcome = Outcome::Failed { kind, message: message.to_owned() };
    verdict
}

fn allowed(list: &str, kernel: &str) -> bool {
    let mut splat = scan(WARN).remove(0);
    lists(list, "").allow(&facts("k", kernel), &mut splat);
    splat.allowed.is_some()
}

fn known(list: &str, kernel: &str, mut verdict: Verdict) -> bool {
    lists("", list).recognise(&facts("k", kernel), &mut verdict);
    verdict.known.is_some()
}

#[test]
fn a_splat_is_allowed_by_fingerprint_or_title_on_the_kernels_named() {
    let fingerprint = scan(WARN).remove(0).fingerprint;
    assert!(allowed(&entry("[[splat]]", &format!("fingerprint = \"{fingerprint}\"")), "6.12.43"));
    assert!(!allowed(&entry("[[splat]]", "fingerprint = \"warn-0000000000\""), "6.12.43"));
    assert!(allowed(&entry("[[splat]]", "title = \"WARNING at net/core/dev.c *\""), "6.12.43"));
    let old = entry("[[splat]]", "title = \"*dev.c*\"\nkernels = \"<6.7\"");
    assert!(allowed(&old, "6.1.192") && !allowed(&old, "6.12.43"));
}

#[test]
fn a_failure_is_known_by_case_kernel_and_message() {
    let plain = entry("[[known]]", "case = \"D10-*\"");
    assert!(known(&plain, "6.12.43", failed(FailureKind::Check, "lost")));
    assert!(known(&entry("[[known]]", "case = \"D10-auto[auto,*]\""), "6.12", failed(FailureKind::Check, "lost")));
    assert!(!known(&entry("[[known]]", "case = \"D11-*\""), "6.12.43", failed(FailureKind::Check, "lost")));
    let narrow = entry("[[known]]", "case = \"D10-*\"\nmessage = \"check: lost*\"\nkernels = \"6.12\"");
    assert!(known(&narrow, "6.12.43", failed(FailureKind::Check, "lost 3 of 5")));
    assert!(!known(&narrow, "6.12.43", failed(FailureKind::Check, "too late")));
    assert!(!known(&narrow, "6.17.13", failed(FailureKind::Check, "lost 3 of 5")));
}

#[test]
fn a_crash_is_known_only_if_the_entrys_message_matches() {
    let plain = entry("[[known]]", "case = \"D10-*\"");
    let hang = |kind| {
        let mut verdict = failed(FailureKind::Check, "");
        verdict.outcome = Outcome::Errored { kind, message: "no heartbeat".to_owned() };
        verdict
    };
    assert!(!known(&plain, "6.12.43", failed(FailureKind::Splat, "WARNING: x")));
    assert!(!known(&plain, "6.12.43", hang(ErrorKind::Hang)));
    assert!(known(&entry("[[known]]", "case = \"D10-*\"\nmessage = \"hang: *\""), "6.12.43", hang(ErrorKind::Hang)));
    assert!(!known(&entry("[[known]]", "case = \"D10-*\"\nmessage = \"*\""), "6.12.43", hang(ErrorKind::Host)));
    let mut both = failed(FailureKind::Check, "lost");
    with_splats(&mut both, scan(WARN));
    assert!(!known(&plain, "6.12.43", both), "an old failure hides no new splat");
}

#[test]
fn an_entry_is_valid_through_its_last_day_and_then_fails_the_run() {
    let text = entry("[[known]]", "case = \"D10-*\"\nkernels = \"6.12\"");
    let plan = Plan::new(vec![facts("k", "6.12.43")], vec![cell("D10-auto[auto,nk-l3]")], true);
    let on = |date: &str| Lists::parse("", &text, day(date)).unwrap();
    let mut verdict = failed(FailureKind::Check, "lost");
    on("2026-12-31").recognise(&plan.kernels[0].facts, &mut verdict);
    assert!(verdict.known.is_some() && on("2026-12-31").expired(&plan).is_empty());
    on("2027-01-01").recognise(&plan.kernels[0].facts, &mut verdict);
    assert_eq!(verdict.known, None);
    let expired = on("2027-01-01").expired(&plan);
    assert_eq!((expired[0].file.as_str(), expired[0].line), ("known.toml", 1));
    assert_eq!(
        expired[0].message(),
        "the entry for `D10-*` ended on 2026-12-31 (being fixed): remove it, or check it and set a later \
         `expires`"
    );
    let elsewhere = Plan::new(vec![facts("k", "6.17.13")], vec![cell("D10-auto[auto,nk-l3]")], true);
    assert!(on("2027-01-01").expired(&elsewhere).is_empty(), "matches no kernel of the plan");
}

#[test]
fn an_unexpected_pass_is_marked() {
    let mut verdict = Verdict::on(passed("D10-auto[auto,nk-l3]", Vec::new()), Outcome::Passed);
    lists("", &entry("[[known]]", "case = \"D10-*\"")).recognise(&facts("k", "6.12.43"), &mut verdict);
    assert!(verdict.is_unexpected_pass());
    assert_eq!(
        verdict.remarks(),
        ["passes, but known.toml expects it to fail until 2026-12-31: being fixed: remove the entry"]
    );
}

#[test]
fn errors_name_file_line_key_and_fix() {
    let problem = |splats: &str, known: &str| Lists::parse(splats, known, day("2026-11-20")).unwrap_err().to_string();
    let told = [
        problem("\n[[splat]]\ntitle = \"x\"\nreason = \"y\"\n", ""),
        problem("[[splat]]\nreason = \"y\"\nexpires = 2026-12-31\n", ""),
        problem("[[splat]]\ntitle = \"x\"\nfingerprint = \"warn-1\"\nreason = \"y\"\nexpires = 2026-12-31\n", ""),
        problem("", "[[known]]\ncase = \"x\"\nreason = \"y\"\nexpires = \"soon\"\n"),
        problem("", "[[known]]\ncase = \"x\"\nexpires = \"2026-12-31\"\n"),
        problem("", "[[known]]\ncase = \"x\"\nreason = \"y\"\nexpires = \"2026-12-31\"\nkernels = \"new\"\n"),
        problem("", "[[known]]\ncases = \"x\"\nreason = \"y\"\nexpires = \"2026-12-31\"\n"),
        problem("", "[[splat]]\n"),
    ];
    insta::assert_snapshot!(told.join("\n"));
}
