use super::*;
use lab_protocol::SkipReason;
use lab_record::{
    event::{Accelerator, Event, RunInfo, Stamped, Versions},
    plan::Plan,
    splat::Splat,
    testing::{cell, facts, id, splat},
    verdict::Verdict,
};

const ID: &str = "A01-first[netkit,nk-l3]";

fn record(outcome: Option<Outcome>) -> RunRecord {
    record_of(outcome.map(|outcome| Verdict::bare(CellId(ID.into()), outcome)))
}

fn record_of(verdict: Option<Verdict>) -> RunRecord {
    let plan = Plan::new(vec![facts("k", "6.12.43")], vec![cell(ID)], false);
    let accelerator = Accelerator { name: "tcg".to_owned(), reason: String::new(), time_scale: 1.0 };
    let run = RunInfo::new(id("r"), Versions::default(), accelerator, plan);
    let mut events = vec![Event::RunStarted { run: Box::new(run) }];
    let kernel = || id("k");
    if let Some(verdict) = verdict {
        events.push(Event::Booted {
            kernel: kernel(),
            guest: 1,
            release: "6.12.43".to_owned(),
            version: String::new(),
            kernel_version: "6.12.43".parse().unwrap(),
            boot_ms: 1,
        });
        let verdict = Box::new(verdict);
        events.push(Event::CellFinished { kernel: kernel(), guest: 1, verdict });
    }
    let mut record = RunRecord::default();
    events.into_iter().for_each(|event| record.apply(&Stamped { at_ms: 0, event }));
    record
}

fn check(message: &str) -> Outcome {
    Outcome::Failed { kind: FailureKind::Check, message: message.to_owned() }
}

fn read(rule: Match, outcome: Option<Outcome>, known: &[Signature], losses: &[Loss]) -> String {
    let predicate = Predicate::Cells { cells: vec![CellId(ID.into())], rule };
    match predicate.read(&record(outcome), losses, known) {
        Ok(Reading::Answer { answer: Answer::Fails { .. }, .. }) => "fails".to_owned(),
        Ok(Reading::Answer { answer: Answer::Passes, .. }) => "passes".to_owned(),
        Ok(Reading::Answer { answer: Answer::Untestable { reason }, .. }) => reason,
        Ok(Reading::Trouble(why)) => format!("trouble: {why}"),
        Err(stop) => stop.to_string(),
    }
}

fn panic() -> Outcome {
    Outcome::Errored { kind: ErrorKind::Panic, message: "Kernel panic: at 0xffff8881".to_owned() }
}

#[test]
fn numbers_do_not_distinguish_failures() {
    let known = [Signature::new(&CellId(ID.into()), "check", "3 of 5 arrived at 10.0.0.7 (0xffff888100)")];
    assert_eq!(known[0].words, "# of # arrived at #.#.#.# (#)");
    assert_eq!(read(Match::Exact, Some(check("0 of 5 arrived at 10.0.0.9 (0xfff)")), &known, &[]), "fails");
    assert_eq!(
        read(Match::Exact, Some(check("no route")), &known, &[]),
        "another failure: A01-first[netkit,nk-l3]: check: no route"
    );
    assert_eq!(read(Match::SameCase, Some(check("no route")), &known, &[]), "fails");
    assert!(read(Match::AnyCrash, Some(check("no route")), &known, &[]).starts_with("another failure"));
    assert_eq!(read(Match::AnyCrash, Some(panic()), &[], &[]), "fails");
    assert_eq!(read(Match::SameCase, Some(panic()), &known, &[]), "fails");
    assert!(read(Match::Exact, Some(panic()), &known, &[]).starts_with("another failure"));
    assert_eq!(read(Match::Exact, Some(Outcome::Passed), &known, &[]), "passes");
}

#[test]
fn words_that_are_only_partly_numbers_stay() {
    assert_eq!(numberless("nk-l3 dead beef 7f x86_64 cafe0"), "nk-l3 dead beef # x86_64 #");
}

#[test]
fn unrelated_results_are_skipped_and_host_failures_are_reported() {
    let reason = SkipReason {
        capability: Capability::Netkit,
        detail: "EOPNOTSUPP".to_owned(),
        lifted_by: "6.7".parse().unwrap(),
    };
    assert_eq!(
        read(Match::SameCase, Some(Outcome::Skipped { reason }), &[], &[]),
        "lacks a capability that the case needs: no netkit: EOPNOTSUPP (lifted by kernel 6.7)"
    );
    let missing = Outcome::Failed { kind: FailureKind::MissingCapability, message: "no netkit".to_owned() };
    let known = [Signature::new(&CellId(ID.into()), "check", "0 of 5")];
    assert!(read(Match::SameCase, Some(missing), &known, &[]).starts_with("another failure"));
    let boot = [(ErrorKind::Panic, "Kernel panic - not syncing: VFS".to_owned())];
    assert_eq!(read(Match::Exact, None, &[], &boot), "does not boot: Kernel panic - not syncing: VFS");
    let host = [(ErrorKind::Host, "no space".to_owned())];
    assert_eq!(read(Match::Exact, None, &[], &host), "trouble: no space");
    assert!(read(Match::Exact, None, &[], &[]).starts_with("trouble: "));
    let agent = Outcome::Errored { kind: ErrorKind::Agent, message: "gave up".to_owned() };
    assert!(read(Match::AnyCrash, Some(agent), &[], &[]).starts_with("trouble: "));
}

#[test]
fn a_subtest_that_was_not_reported_is_no_answer() {
    let subtest = Predicate::Cells { cells: vec![CellId(format!("{ID}::part").into())], rule: Match::Exact };
    let read = |outcome| match subtest.read(&record(Some(outcome)), &[], &[]) {
        Ok(Reading::Answer { answer: Answer::Untestable { reason }, .. }) => reason,
        Ok(Reading::Trouble(why)) => format!("trouble: {why}"),
        other => format!("{other:?}"),
    };
    let ended = format!("{ID} ended without reporting this subtest");
    assert_eq!(read(Outcome::Passed), ended);
    assert_eq!(read(check("exit code 1")), ended);
    let lost = Outcome::Errored { kind: ErrorKind::GuestLost, message: "the guest ended".to_owned() };
    assert_eq!(read(lost), format!("trouble: {ID}: the guest ended"));
    assert!(is_subtest(&CellId("net/a.sh::x".into()), &CellId("net/a.sh".into())));
    assert!(!is_subtest(&CellId("net/a.sh2::x".into()), &CellId("net/a.sh".into())));
}

#[test]
fn a_failed_check_is_the_same_whether_the_kernel_reports_a_splat_beside_it_or_not() {
    let stall = splat("stall-0a", "INFO: rcu_sched detected stalls on CPUs/tasks:");
    let predicate = Predicate::Cells { cells: vec![CellId(ID.into())], rule: Match::Exact };
    let of = |outcome: Outcome, splats: Vec<Splat>, known: &[Signature]| {
        let verdict = Verdict { splats, ..Verdict::bare(CellId(ID.into()), outcome) };
        match predicate.read(&record_of(Some(verdict)), &[], known).unwrap() {
            Reading::Answer { signatures, .. } => signatures,
            Reading::Trouble(why) => panic!("{why}"),
        }
    };
    let alone = of(check("0 of 5 arrived"), Vec::new(), &[]);
    assert_eq!(alone.len(), 1);
    assert_eq!(of(check("1 of 5 arrived"), vec![stall.clone()], &alone), alone);
    // A crash is its splat, whatever the message says.
    let crashed = of(panic(), vec![stall.clone()], &[]);
    assert_eq!(crashed[0].words, "stall-#");
    let worded = Outcome::Errored { kind: ErrorKind::Panic, message: "Fatal exception".to_owned() };
    assert_eq!(of(worded, vec![stall], &crashed), crashed);
}
