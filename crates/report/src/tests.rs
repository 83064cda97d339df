//! Tests of all reports.

use super::{
    html,
    junit::{self, Dialect},
    run_json, summary, terminal,
};
use crate::results::directory;
use lab_protocol::{
    AttachRecord, AttachRequest, AttachType, Capability, CapabilityReport, CapabilityState, CellId, Check, DeviceKind,
    ErrorKind, FailureKind, Hook, Outcome, Raw, SkipReason,
};
use lab_record::{
    event::{Accelerator, Event, ImageInfo, Moment, RunInfo, Stamped, Start, Versions},
    excuse::{Excuse, Expired},
    exit::Exit,
    guest::{GuestEnd, GuestRecord},
    log,
    plan::Plan,
    reporter::Reporter,
    run::RunRecord,
    splat::Splat,
    testing::{attached, cell, facts, id, passed, splat},
    verdict::{Attempt, Verdict},
};
use std::{collections::BTreeMap, fs, path::Path};

const AUTO: &str = "A04-auto[auto,nk-l3]";
const TCX: &str = "A02-tcx-link[tcx,veth,ingress]";
const TC: &str = "A01-clsact[tc,veth]";
const BOTH: &str = "M03-migrate[netkit,nk-l2]";
const DEAD: &str = "N17-single[netkit,nk-l3]";
/// Text that hostile guests may print.
const HOSTILE: &str = "\x1b[31mred\x1b[0m \0 ]]> <a & \"b\"> \u{FFFE}\u{FFFF}\u{202E}ähm\r";

fn skip(capability: Capability) -> Outcome {
    let since = capability.since().mainline;
    Outcome::Skipped {
        reason: SkipReason { capability, detail: "RTM_NEWLINK: EOPNOTSUPP".to_owned(), lifted_by: since },
    }
}

fn with(id: &str, outcome: Outcome, attach: Vec<AttachRecord>) -> Verdict {
    let mut report = passed(id, attach);
    report.outcome = outcome.clone();
    Verdict::on(report, outcome)
}

fn hostile() -> Verdict {
    let mut verdict = with(
        TCX,
        Outcome::Failed { kind: FailureKind::Check, message: format!("udp arrives: {HOSTILE}") },
        vec![attached(AttachRequest::Tcx, DeviceKind::Veth, AttachType::Tcx)],
    );
    verdict.report.checks = vec![
        Check { name: "link is listed".to_owned(), ok: true, seen: "link 3".to_owned() },
        Check { name: "udp arrives".to_owned(), ok: false, seen: HOSTILE.to_owned() },
    ];
    verdict.report.log = vec![HOSTILE.to_owned()];
    verdict.report.metrics = BTreeMap::from([("udp.lost".to_owned(), 5.0)]);
    verdict.warnings = vec!["eth0 (veth): the plan requires tcx".to_owned()];
    verdict
}

/// A run with every kind of event.
fn stream() -> Vec<Stamped> {
    let mut single = cell(DEAD);
    single.requires = vec![Capability::NetkitSingle];
    let kernels = vec![facts("6.1", "6.1.192"), facts("6.12", "6.12.117"), facts("6.17", "6.17.13")];
    let plan = Plan::new(kernels, vec![cell(TC), cell(TCX), cell(AUTO), cell(BOTH), single], true);
    let versions = Versions {
        lab: "0.2.0 (0123456789ab)".to_owned(),
        agent: "0.2.0 (0123456789ab)".to_owned(),
        virtme_ng: "1.42".to_owned(),
        qemu: "7.2.22".to_owned(),
    };
    let accelerator = Accelerator {
        name: "tcg".to_owned(),
        reason: "/dev/kvm opens, but QEMU ended under KVM".to_owned(),
        time_scale: 10.0,
    };
    let mut run = RunInfo::new(id("20261120T120000Z-abcdef"), versions, accelerator, plan);
    let excuse = |reason: &str| Excuse {
        reason: reason.to_owned(),
        link: Some("bugs.example/7".to_owned()),
        expires: Some("2026-12-31".to_owned()),
    };
    run.retries = 1;
    run.expired = vec![Expired {
        file: "known.toml".to_owned(),
        line: 9,
        about: "A07-*".to_owned(),
        excuse: Excuse { expires: Some("2026-11-01".to_owned()), ..excuse("forgotten") },
    }];
    let booted = |kernel: &str, version: &str| Event::Booted {
        kernel: id(kernel),
        guest: 1,
        release: format!("{version}-cloud-amd64"),
        version: "#1 SMP".to_owned(),
        kernel_version: version.parse().unwrap(),
        boot_ms: 2300,
    };
    let started = |kernel: &str| Event::KernelStarted {
        kernel: id(kernel),
        image: ImageInfo { key: "0123abcd".to_owned(), cached: true, missing: Vec::new(), content: None },
    };
    let guest = |kernel: &str| Event::GuestStarted { kernel: id(kernel), guest: 1, start: Start::Boot };
    let cell = |kernel: &str, verdict: Verdict| Event::CellFinished {
        kernel: id(kernel),
        guest: 1,
        verdict: Box::new(verdict),
    };
    let probed = |kernel: &str| {
        let (kernel, detail) = (id(kernel), String::new());
        let probe = CapabilityReport { capability: Capability::Tcx, state: CapabilityState::Supported, detail };
        Event::Probed { kernel, guest: 1, capabilities: vec![probe], modules: Vec::new() }
    };
    let ended = |kernel: &str, problems: &[&str]| Event::GuestEnded {
        kernel: id(kernel),
        guest: 1,
        shutdown_ms: 150,
        problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
    };
    let warn = || splat("warn-ce77f79386", "WARNING: CPU: 0 PID: 7 at net/core/dev.c:1 f+0x1/0x2\n g+0x1/0x2");
    let finished = |kernel: &str| Event::KernelFinished {
        kernel: id(kernel),
        guests: 1,
        peak_memory_kib: Some(260_000),
        gave_up: false,
        wall_ms: 4200,
    };
    let tc = || with(TC, Outcome::Passed, vec![attached(AttachRequest::Tc, DeviceKind::Veth, AttachType::Tc)]);
    let auto = |used| with(AUTO, Outcome::Passed, vec![attached(AttachRequest::Auto, DeviceKind::NetkitL3, used)]);
    let tcx = AttachRecord {
        hook: Some(Hook::TcxEgress),
        prog_id: 9,
        link_id: Some(4),
        ..attached(AttachRequest::Tcx, DeviceKind::NetkitL2, AttachType::Tcx)
    };
    let netkit = attached(AttachRequest::Netkit, DeviceKind::NetkitL2, AttachType::Netkit);
    let mut panicked = with(
        TCX,
        Outcome::Errored { kind: ErrorKind::Panic, message: "BUG: kernel NULL pointer dereference".to_owned() },
        Vec::new(),
    );
    panicked.splats = vec![splat("oops-231927afab", "BUG: kernel NULL pointer dereference, address: 0\n f+0x1/0x2")];
    panicked.evidence = Some(format!("BUG: kernel NULL pointer dereference\n{HOSTILE}"));
    let mut both = with(BOTH, Outcome::Passed, vec![netkit, tcx]);
    both.outcome = Outcome::Failed { kind: FailureKind::Check, message: "the order differs".to_owned() };
    let mut lost = tc();
    lost.report.checks = vec![Check { name: "udp arrives".to_owned(), ok: false, seen: HOSTILE.to_owned() }];
    lost.outcome = Outcome::Failed { kind: FailureKind::Check, message: format!("udp arrives: {HOSTILE}") };
    let all = vec![
        Event::RunStarted { run: Box::new(run) },
        started("6.1"),
        guest("6.1"),
        booted("6.1", "6.1.192"),
        probed("6.1"),
        cell("6.1", Verdict { known: Some(excuse("broken since <6.1> \x1b[2J")), ..tc() }),
        cell("6.1", with(TCX, skip(Capability::Tcx), Vec::new())),
        Event::Splat {
            kernel: id("6.1"),
            guest: 1,
            moment: Moment::Between,
            splat: Box::new(Splat { allowed: Some(excuse("harmless")), ..warn() }),
        },
        cell("6.1", auto(AttachType::Tc)),
        cell("6.1", with(BOTH, skip(Capability::Netkit), Vec::new())),
        cell("6.1", with(DEAD, skip(Capability::NetkitSingle), Vec::new())),
        ended("6.1", &[]),
        finished("6.1"),
        started("6.12"),
        guest("6.12"),
        booted("6.12", "6.12.117"),
        probed("6.12"),
        Event::CellRetried { kernel: id("6.12"), guest: 1, verdict: Box::new(lost.clone()) },
        cell("6.12", Verdict { earlier: vec![Attempt::of(1, lost)], ..tc() }),
        cell("6.12", hostile()),
        cell("6.12", auto(AttachType::Netkit)),
        cell("6.12", Verdict { known: Some(excuse("cause unknown")), ..both }),
        cell("6.12", with(DEAD, skip(Capability::NetkitSingle), Vec::new())),
        Event::Splat { kernel: id("6.12"), guest: 1, moment: Moment::Teardown, splat: Box::new(warn()) },
        ended("6.12", &["left behind: map 7"]),
        finished("6.12"),
        started("6.17"),
        guest("6.17"),
        booted("6.17", "6.17.13"),
        probed("6.17"),
        cell("6.17", tc()),
        Event::CellStarted { kernel: id("6.17"), guest: 1, cell: CellId(TCX.into()) },
        Event::GuestLost {
            kernel: id("6.17"),
            guest: 1,
            kind: ErrorKind::Panic,
            message: "BUG: kernel NULL pointer dereference".to_owned(),
            evidence: HOSTILE.to_owned(),
            exit: None,
            cell: Some(CellId(TCX.into())),
            files: vec![lab_guard::Inside::new("6.17/cells/guest-1/guest-1-tasks.txt").unwrap()],
        },
        cell("6.17", panicked),
        Event::RunFinished { exit: Exit::Failed, wall_ms: 12_345 },
    ];
    let begin = 1_795_176_000_000;
    (0..).zip(all).map(|(at, event)| Stamped { at_ms: begin + at * 10, event }).collect()
}

pub(super) fn record() -> RunRecord {
    let mut record = RunRecord::default();
    stream().iter().for_each(|stamped| record.apply(stamped));
    record
}

#[test]
fn junit_counts_a_known_crash_as_what_its_element_is() {
    let mut record = RunRecord::default();
    for mut stamped in stream() {
        if let Event::CellFinished { verdict, .. } = &mut stamped.event
            && matches!(verdict.outcome, Outcome::Errored { .. })
        {
            verdict.known = Some(Excuse { reason: "crashes since 6.12".to_owned(), link: None, expires: None });
        }
        record.apply(&stamped);
    }
    let xml = junit::render(&record, None, Dialect::Common);
    assert!(xml.contains("known crashes since 6.12: "), "{xml}");
    let root = xml.split_once("<testsuites").unwrap().1.split_once('>').unwrap().0;
    for (attribute, element) in [("errors", "<error "), ("failures", "<failure ")] {
        let told = root.split_once(&format!("{attribute}=\"")).unwrap().1.split_once('"').unwrap().0;
        assert_eq!(told, xml.matches(element).count().to_string(), "{attribute} of {root}");
    }
}

#[test]
fn the_end_of_a_run_on_the_terminal() {
    let text = terminal::summary(&record(), Path::new("results/latest"), false);
    assert!(!text.contains('\x1b'), "colours are off");
    insta::assert_snapshot!(text);
}

#[test]
fn colours_are_used_if_asked_for() {
    let text = terminal::summary(&record(), Path::new("results/latest"), true);
    assert!(text.contains("\x1b[31m"), "{text}");
    let text = terminal::summary(&record(), Path::new("results/latest"), false);
    assert!(!text.contains('\x1b'), "{text}");
}

/// GitHub ends a property at a comma and all properties at two colons; cells have commas in their names.
#[test]
fn the_title_of_an_annotation_is_whole() {
    let told = summary::annotations(&record());
    for line in told.lines() {
        let (title, message) = line.strip_prefix("::error title=").unwrap().split_once("::").unwrap();
        assert!(!title.contains([',', ':']) && !message.is_empty(), "{line}");
    }
    let wanted = "::error title=failed 6.12 A02-tcx-link[tcx%2Cveth%2Cingress]::check: udp arrives: ";
    assert_eq!(told.lines().filter(|line| line.starts_with(wanted)).count(), 1, "{told}");
}

#[test]
fn junit_for_the_whole_run() {
    insta::assert_snapshot!(junit::render(&record(), None, Dialect::Common));
}

/// Reads the XML back: (suite, case, properties, children).
fn parse(xml: &str) -> Vec<(String, String, BTreeMap<String, String>)> {
    use quick_xml::events::Event as Xml;
    let mut reader = quick_xml::Reader::from_str(xml);
    let (mut suite, mut cases) = (String::new(), Vec::new());
    loop {
        let event = reader.read_event().expect("well-formed");
        let (Xml::Start(tag) | Xml::Empty(tag)) = &event else {
            if matches!(event, Xml::Eof) {
                return cases;
            }
            continue;
        };
        let attributes: BTreeMap<String, String> = tag
            .attributes()
            .map(|attribute| attribute.expect("well-formed"))
            .map(|attribute| {
                let name = String::from_utf8(attribute.key.0.to_vec()).unwrap();
                (
                    name,
                    attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).expect("well-formed").into_owned(),
                )
            })
            .collect();
        match tag.name().0 {
            b"testsuite" => suite.clone_from(&attributes["name"]),
            b"testcase" => cases.push((suite.clone(), attributes["name"].clone(), BTreeMap::new())),
            b"property" => {
                if let Some((_, _, properties)) = cases.last_mut() {
                    properties.insert(attributes["name"].clone(), attributes["value"].clone());
                }
            }
            _ => {}
        }
    }
}

#[test]
fn junit_is_valid_xml_for_any_guest_text_and_has_every_cell() {
    let xml = junit::render(&record(), None, Dialect::Common);
    let allowed = |c: char| matches!(c, '\t' | '\n') || (c >= ' ' && !matches!(c, '\u{FFFE}' | '\u{FFFF}' | '\x7f'));
    assert!(xml.chars().all(allowed));
    let cases = parse(&xml);
    assert_eq!(cases.len(), 3 * (5 + 3) + 2, "every cell and row of every kernel, the dead case and the expired entry");
    let find = |suite: &str, name: &str| &cases.iter().find(|case| case.0 == suite && case.1 == name).unwrap().2;
    let both = find("6.12", BOTH);
    assert_eq!(both["attach.used"], "tcx+netkit");
    assert_eq!(both["attach.hook"], "netkit/peer+tcx/egress");
    assert_eq!((&*both["attach.link_id"], &*both["attach.prog_id"]), ("3+4", "7+9"));
    assert_eq!(find("6.12", TCX)["repro"], format!("lab run --kernel 6.12 --case '{TCX}'"));
    assert_eq!(find("6.1", AUTO)["attach.required"], "tc");
}

#[test]
fn what_repeats_a_program_calls_the_command_that_ran_it() {
    let mut record = record();
    let mut repro = |words: &[&str]| {
        record.info.as_mut().unwrap().exec = words.iter().map(|word| Raw::from(*word)).collect();
        record.repro("6.12", &CellId("net/a.sh".into()))
    };
    assert_eq!(repro(&["kselftest", "--jobs", "2", "net"]), "lab kselftest --kernel 6.12 --jobs 2 net");
    assert_eq!(repro(&["check", "a b.o"]), "lab check --kernel 6.12 'a b.o'");
    assert_eq!(repro(&["--", "check", "b"]), "lab exec --kernel 6.12 -- check b");
}

#[test]
fn reports_are_rebuilt_from_the_events_with_the_same_bytes() {
    let results = tempfile::tempdir().unwrap();
    let directory = directory::create(results.path(), &id("run")).unwrap();
    let mut log = log::EventLog::create(&directory).unwrap();
    let mut junit = junit::JunitReporter { directory: directory.clone() };
    let mut json = run_json::RunJson { directory: directory.clone() };
    let mut html = html::HtmlReporter { directory: directory.clone() };
    let mut record = RunRecord::default();
    for stamped in stream() {
        record.apply(&stamped);
        for reporter in [&mut log as &mut dyn Reporter, &mut junit, &mut json, &mut html] {
            reporter.event(&stamped, &record).unwrap();
        }
    }
    let files = ["junit.xml", "6.1/junit.xml", "6.12/junit.xml", "6.17/junit.xml", "run.json", html::FILE];
    let read = || files.map(|file| fs::read_to_string(directory.join(file)).unwrap());
    let first = read();
    files.iter().for_each(|file| fs::remove_file(directory.join(file)).unwrap());
    let again = log::read(&directory).unwrap();
    assert_eq!(again, record);
    junit.write(&again).unwrap();
    json.write(&again).unwrap();
    html.write(&again).unwrap();
    assert!(read() == first);
    assert_eq!(parse(&first[3]).len(), 5 + 3, "a kernel's own file has its own cells and rows");
}

#[test]
fn a_killed_runner_leaves_events_from_which_reports_can_be_written() {
    let directory = tempfile::tempdir().unwrap();
    assert!(log::read(directory.path()).unwrap_err().to_string().contains("it has no events.jsonl"));
    let mut log = log::EventLog::create(directory.path()).unwrap();
    let mut record = RunRecord::default();
    let running = |stamped: &Stamped| matches!(stamped.event, Event::CellStarted { .. });
    let until = stream().iter().position(running).unwrap() + 1;
    for stamped in stream().iter().take(until) {
        record.apply(stamped);
        log.event(stamped, &record).unwrap();
    }
    let path = directory.path().join(log::FILE);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [&*whole, b"{\"at_ms\":1,\"event\":\"cell-fin"].concat()).unwrap();
    let told = log::read(directory.path()).unwrap();
    assert_eq!(told, record);
    let tcx = told.verdicts().filter(|(_, _, verdict)| verdict.report.cell.as_str() == TCX).last().unwrap().2;
    assert_eq!(tcx.outcome, Outcome::NotRun { message: "the run ended while the cell was running".to_owned() });
    fs::write(&path, [b"nonsense\n", &*whole].concat()).unwrap();
    assert!(log::read(directory.path()).unwrap_err().to_string().contains("events.jsonl:1: not an event"));
}

#[test]
fn the_exit_code_is_the_most_severe() {
    let exit = |outcomes: &[Outcome]| {
        let cells = (0..outcomes.len()).map(|at| cell(&format!("A0{at}-x[tc,veth]"))).collect();
        let plan = Plan::new(vec![facts("6.12", "6.12.43")], cells, true);
        let mut info = record().info.unwrap();
        let ids: Vec<CellId> = plan.cells.iter().map(|cell| cell.id.clone()).collect();
        info.plan = plan;
        info.expired.clear();
        let mut record = RunRecord::default();
        record.info = Some(info);
        let happened = record.kernels.entry(id("6.12")).or_default();
        let end = GuestEnd::Off { shutdown_ms: 1, problems: Vec::new() };
        happened.guests.insert(1, GuestRecord { start: Start::Boot, came_up: true, end: Some(end) });
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            happened.verdicts.insert(&id, Verdict::bare(id.clone(), outcome.clone()).into());
        }
        record.exit().code()
    };
    let errored = |kind| Outcome::Errored { kind, message: String::new() };
    let failed = Outcome::Failed { kind: FailureKind::Leak, message: String::new() };
    assert_eq!(exit(&[Outcome::Passed, skip(Capability::NetkitSingle)]), 0);
    assert_eq!(exit(&[errored(ErrorKind::GuestLost), failed]), 1, "a verdict takes precedence over a missing one");
    assert_eq!(exit(&[errored(ErrorKind::Panic)]), 1, "a kernel that panics in a cell has failed");
    assert_eq!(exit(&[Outcome::Passed, Outcome::NotRun { message: String::new() }]), 3);
    assert_eq!(record().exit().code(), 1, "a dead case alone fails the full matrix");
    let mut expired = record();
    expired.kernels.clear();
    if let Some(info) = &mut expired.info {
        info.plan = Plan::new(Vec::new(), Vec::new(), false);
    }
    assert_eq!(expired.exit().code(), 1, "an expired entry alone fails the run");
}
