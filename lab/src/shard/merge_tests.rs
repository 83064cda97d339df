use super::*;
use crate::shard::split;
use lab_protocol::{AttachType, CellId, Outcome};
use lab_record::{
    event::{ImageInfo, Stamped, Start, Versions},
    exit::Exit,
    log::EventLog,
    plan::KernelFacts,
    reporter::Reporter,
    testing::{cell, facts, id, passed},
    verdict::Verdict,
};
use lab_report::{junit, results::directory, summary, terminal};
use std::fs;

const COUNT: u32 = 4;

fn plan() -> Plan {
    let cells = (0..6).map(|number| cell(&format!("A{number:02}-x[tc,veth]"))).collect();
    Plan::new(vec![facts("6.1", "6.1.192"), facts("6.12", "6.12.117")], cells, true)
}

/// The events of a shard in which everything passes.
fn events(part: Part, identity: &str) -> Vec<Stamped> {
    let plan = plan();
    let split = split(&plan, part.count, &|facts: &KernelFacts, _| if facts.id == "6.12" { 900 } else { 100 }).unwrap();
    let own = split.narrow(&plan, part);
    let accelerator = Accelerator { name: "tcg".into(), reason: "no KVM".into(), time_scale: 10.0 };
    let shard = Shard {
        part,
        identity: [("the cells".to_owned(), identity.to_owned())].into(),
        kernels: split.kernels(&plan),
        full_matrix: true,
        estimate_ms: Some(1000 * u64::from(part.number)),
    };
    let name = id(&format!("run-{}", part.number));
    let info = RunInfo { shard: Some(shard), ..RunInfo::new(name, Versions::default(), accelerator, own.clone()) };
    let mut all = vec![Event::RunStarted { run: Box::new(info) }];
    for kernel in &own.kernels {
        let id = || kernel.facts.id.clone();
        let image = ImageInfo { key: "k".into(), cached: true, missing: Vec::new(), content: None };
        all.push(Event::KernelStarted { kernel: id(), image });
        all.push(Event::GuestStarted { kernel: id(), guest: 1, start: Start::Boot });
        all.push(Event::Probed { kernel: id(), guest: 1, capabilities: Vec::new(), modules: Vec::new() });
        for cell in &kernel.cells {
            all.push(Event::CellStarted { kernel: id(), guest: 1, cell: cell.id.clone() });
            let tc = lab_record::testing::attached(
                lab_protocol::AttachRequest::Tc,
                lab_protocol::DeviceKind::Veth,
                AttachType::Tc,
            );
            let report = passed(cell.id.as_str(), vec![tc]);
            let verdict = Verdict { report, ..Verdict::bare(cell.id.clone(), Outcome::Passed) };
            all.push(Event::CellFinished { kernel: id(), guest: 1, verdict: Box::new(verdict) });
        }
        all.push(Event::GuestEnded { kernel: id(), guest: 1, shutdown_ms: 10, problems: Vec::new() });
        let wall_ms = 1000 * u64::from(part.number);
        all.push(Event::KernelFinished {
            kernel: id(),
            guests: 1,
            peak_memory_kib: Some(part.number.into()),
            gave_up: false,
            wall_ms,
        });
    }
    all.push(Event::RunFinished { exit: Exit::Passed, wall_ms: 1000 * u64::from(part.number) });
    (0..).zip(all).map(|(at, event)| Stamped { at_ms: 1_000_000 + at, event }).collect()
}

fn write(directory: &Path, events: &[Stamped]) {
    let mut log = EventLog::create(directory).unwrap();
    events.iter().for_each(|stamped| log.event(stamped, &RunRecord::default()).unwrap());
}

/// All shards, each in a directory of its own.
fn results() -> (tempfile::TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let each = (1..=COUNT).map(|number| {
        let directory = dir.path().join(format!("shard-{number}"));
        fs::create_dir(&directory).unwrap();
        write(&directory, &events(Part { number, count: COUNT }, "same"));
        directory
    });
    let all = each.collect();
    (dir, all)
}

fn merge(directories: &[PathBuf]) -> Result<RunRecord, Error> {
    Shards::open(directories)?.merge(id("merged"), None, None)
}

/// The error of a merge, without the test's directory.
fn refused(dir: &Path, directories: &[PathBuf]) -> String {
    let error = merge(directories).unwrap_err();
    assert_eq!(error.exit(), Exit::Usage, "{error}");
    error.to_string().replace(&format!("{}/", dir.display()), "")
}

#[test]
fn all_shards_merge_to_the_same_cells_as_one_run() {
    let (dir, all) = results();
    let record = merge(&all).unwrap();
    assert_eq!((record.counts().passed, record.counts().total()), (18, 18));
    assert_eq!(record.exit(), Exit::Passed);
    assert_eq!(record.info.as_ref().unwrap().plan, plan());
    assert_eq!(record.finished, Some((Exit::Passed, 4000)), "shards run in parallel");
    assert_eq!(record.kernels["6.12"].finished, Some((4000, Some(4))));
    assert_eq!(record.kernels["6.12"].guests.len(), 3, "every shard's guest has a number of its own");
    let backwards: Vec<PathBuf> = all.iter().rev().cloned().collect();
    assert_eq!(merge(&backwards).unwrap(), record);
    assert_eq!(merge(&[dir.path().to_owned()]).unwrap(), record, "a parent directory means all runs in it");
}

#[test]
fn tests_that_only_showed_up_while_a_shard_ran_are_merged() {
    let (dir, all) = results();
    let adopting = |number: u32, parent: &str, name: &str| {
        let mut told = events(Part { number, count: COUNT }, "same");
        let at = told.iter().position(|it| matches!(&it.event, Event::CellFinished { .. })).unwrap();
        let Event::CellFinished { kernel, .. } = &told[at].event else { unreachable!() };
        let (kernel, info) = (kernel.clone(), cell(name));
        let verdict = Box::new(Verdict::bare(info.id.clone(), Outcome::Passed));
        let parent = CellId(parent.into());
        let more = [
            Event::CellAdopted { kernel: kernel.clone(), parent, info: Box::new(info) },
            Event::CellFinished { kernel, guest: 1, verdict },
        ];
        let more = more.map(|event| Stamped { at_ms: told[at].at_ms, event });
        told.splice(at..at, more);
        fs::remove_file(all[number as usize - 1].join("events.jsonl")).unwrap();
        write(&all[number as usize - 1], &told);
    };
    adopting(1, "A00-x[tc,veth]", "A00-x::part");
    adopting(2, "A01-x[tc,veth]", "A01-x::part");
    let record = merge(&all).unwrap();
    assert_eq!((record.counts().passed, record.exit()), (20, Exit::Passed));
    // A planned cell is no shard's to adopt, whichever shard has it.
    adopting(2, "A01-x[tc,veth]", "A05-x[tc,veth]");
    let error = refused(dir.path(), &all);
    assert!(error.contains("shard-2/events.jsonl has A05-x[tc,veth] on kernel"), "{error}");
}

#[test]
fn a_merged_run_can_be_read_from_its_events() {
    let (dir, all) = results();
    let into = dir.path().join("merged");
    fs::create_dir(&into).unwrap();
    fs::create_dir_all(all[3].join("6.12/cells/A01")).unwrap();
    for (shard, name) in [(1, "console.log"), (2, "console.log"), (3, "console.log"), (3, "cells/A01/w0.pcap")] {
        fs::create_dir_all(all[shard].join("6.12")).unwrap();
        fs::write(all[shard].join("6.12").join(name), format!("shard {}", shard + 1)).unwrap();
    }
    let link = all[3].join("6.12/cells/link");
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    let aside = tempfile::tempdir().unwrap();
    let refused = Shards::open(&all).unwrap().merge(id("m"), Some(aside.path()), None).unwrap_err().to_string();
    assert!(refused.contains("a symbolic link instead of a file"), "{refused}");
    fs::remove_file(link).unwrap();
    let mut log = EventLog::create(&into).unwrap();
    let record = Shards::open(&all[..3]).unwrap().merge(id("m"), Some(&into), Some(&mut log)).unwrap();
    assert_eq!(lab_record::log::read(&into).unwrap(), record);
    // The guests of the kernel's second shard are renumbered; other lines are copied.
    let text = fs::read_to_string(into.join(FILE)).unwrap();
    for (shard, begin, copied) in [(0, "\"guest\":1,", true), (1, "\"guest\":1,", true), (2, "\"guest\":2,", false)] {
        let own = fs::read_to_string(all[shard].join(FILE)).unwrap();
        let line = own.lines().find(|line| line.contains("cell-finished")).unwrap();
        assert_eq!(text.contains(line), copied);
        assert!(text.contains(&line.replacen("\"guest\":1,", begin, 1)), "{text}");
    }
    // The events file is locked while it is written.
    drop(log);
    fs::remove_dir_all(into.join("6.12")).unwrap();
    let mut log = EventLog::create(&into).unwrap();
    Shards::open(&all).unwrap().merge(id("m"), Some(&into), Some(&mut log)).unwrap();
    let read = |name: &str| fs::read_to_string(into.join("6.12").join(name)).unwrap();
    assert_eq!([read("console.log"), read("console-2.log"), read("console-3.log")], ["shard 2", "shard 3", "shard 4"]);
    assert_eq!(read("cells/A01/w0.pcap"), "shard 4");
    assert_eq!(directory::console(3), "console-3.log");
}

#[test]
fn a_verdict_without_a_guest_has_none_in_the_merged_run_either() {
    let (_dir, all) = results();
    let path = all[2].join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    let line = text.lines().find(|line| line.contains("cell-finished")).unwrap();
    let without = line.replacen("\"guest\":1,", "\"guest\":0,", 1);
    fs::write(&path, text.replacen(line, &without, 1)).unwrap();
    let into = tempfile::tempdir().unwrap();
    let mut log = EventLog::create(into.path()).unwrap();
    Shards::open(&all).unwrap().merge(id("m"), Some(into.path()), Some(&mut log)).unwrap();
    let merged = fs::read_to_string(into.path().join(FILE)).unwrap();
    assert_eq!(merged.matches(&without).count(), 1);
}

#[test]
fn a_missing_shard_is_an_error_in_every_report() {
    let (_dir, all) = results();
    let record = merge(&[all[0].clone(), all[1].clone(), all[3].clone()]).unwrap();
    let counts = record.counts();
    assert_eq!((counts.passed, counts.not_run, counts.total()), (16, 2, 18));
    assert_eq!(record.exit(), Exit::Infra);
    assert_eq!(record.finished.unwrap().0, Exit::Infra);
    let xml = junit::render(&record, None, junit::Dialect::Common);
    let words = "shard 3/4 is missing: it has no results";
    assert_eq!(xml.matches(&format!("<error message=\"{words}\" type=\"not-run\"")).count(), 2, "{xml}");
    assert!(xml.contains(&format!("<error message=\"{words}\" type=\"shard\"")), "{xml}");
    let told = lab_report::terminal::summary(&record, Path::new("out"), false);
    assert!(told.contains(&format!("SHARD {words}")), "{told}");
    assert_eq!(record.kernels["6.12"].notes, [words]);
}

#[test]
fn a_missing_shard_is_excused_only_where_all_its_kernels_may_fail() {
    let may_fail = |excused: &[&str]| {
        let (_dir, all) = results();
        let mut shards = Shards::open(&all[..1]).unwrap();
        for share in &mut shards.whole.kernels {
            share.facts.may_fail = excused.iter().any(|id| share.facts.id == *id);
            share.shards = (1..=COUNT).collect();
        }
        shards.states().iter().map(|state| state.may_fail).collect::<Vec<_>>()
    };
    assert_eq!(may_fail(&[]), [false; 4]);
    assert_eq!(may_fail(&["6.1"]), [false; 4], "6.12 counts");
    assert_eq!(may_fail(&["6.1", "6.12"]), [true; 4]);
}

#[test]
fn an_interrupted_shard_fails_its_remaining_cells_and_the_run() {
    let (_dir, all) = results();
    let path = all[2].join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    // The runner was killed while its second cell ran, in the middle of a line.
    let lines: Vec<&str> = text.lines().collect();
    fs::write(&path, format!("{}\n{{\"at_ms\":1,\"ev", lines[..7].join("\n"))).unwrap();
    let record = merge(&all).unwrap();
    let counts = record.counts();
    assert_eq!((counts.passed, counts.not_run), (16, 2));
    assert_eq!(record.exit(), Exit::Infra);
    assert_eq!(record.lost_shards(), ["shard 3/4 ended early: its events are incomplete"]);
    let lost = record.verdicts().find(|(_, _, verdict)| matches!(verdict.outcome, Outcome::NotRun { .. })).unwrap().2;
    assert_eq!(lost.outcome, Outcome::NotRun { message: "shard 3/4 ended while the cell was running".to_owned() });
    // If every cell has a verdict, the end of the run is still missing.
    fs::write(&path, lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    assert_eq!(merge(&all).unwrap().exit(), Exit::Infra);
}

#[test]
fn a_shard_that_everybody_waited_for_is_in_every_report() {
    let (dir, all) = results();
    let record = merge(&all).unwrap();
    let times: Vec<_> = record.shard_times().iter().map(|time| (time.took_ms, time.expected_ms)).collect();
    assert_eq!(times, [(1000, 1000), (2000, 2000), (3000, 3000), (4000, 4000)], "all have the same pace");
    assert!(!terminal::summary(&record, dir.path(), false).contains("STRAGGLER"));

    let mut late = events(Part { number: 2, count: COUNT }, "same");
    if let Some(Event::RunFinished { wall_ms, .. }) = late.last_mut().map(|stamped| &mut stamped.event) {
        *wall_ms = 90_000;
    }
    fs::remove_file(all[1].join(FILE)).unwrap();
    write(&all[1], &late);
    let record = merge(&all).unwrap();
    assert_eq!(record.exit(), Exit::Passed, "it fails nothing");
    let line = "shard 2/4 took 90 s; 2 s were expected, by recorded times at the pace of the other shards";
    let told = terminal::summary(&record, dir.path(), false);
    assert!(told.contains(&format!("STRAGGLER {line}\n")), "{told}");
    let markdown = summary::markdown(&record);
    assert!(markdown.contains("The longest of 4 took 90 s."), "{markdown}");
    assert!(markdown.contains("| 2/4 | 90 s | 2 s | straggler |\n| 4/4 | 4 s | 4 s |  |\n"), "{markdown}");
    lab_report::write_all(dir.path(), &record).unwrap();
    assert!(fs::read_to_string(dir.path().join(lab_report::html::FILE)).unwrap().contains(line));
}

#[test]
fn shards_of_different_plans_are_refused_by_name() {
    let (dir, all) = results();
    let with = |directory: &str, events: &[Stamped]| {
        let extra = dir.path().join(directory);
        fs::create_dir_all(&extra).unwrap();
        write(&extra, events);
        [&all[..2], &[extra]].concat()
    };
    let refused = |directories: &[PathBuf]| refused(dir.path(), directories);
    assert_eq!(
        refused(&with("twin", &events(Part { number: 2, count: COUNT }, "same"))),
        "twin/events.jsonl and shard-2/events.jsonl are both shard 2/4: remove one"
    );
    assert_eq!(
        refused(&with("other", &events(Part { number: 3, count: COUNT }, "other"))),
        "other/events.jsonl and shard-1/events.jsonl are shards of different plans: the cells differ"
    );
    assert_eq!(
        refused(&with("five", &events(Part { number: 3, count: 5 }, "same"))),
        "five/events.jsonl and shard-1/events.jsonl are shards of different plans: the numbers of shards (5 and 4) differ"
    );
    let mut whole = events(Part { number: 3, count: COUNT }, "same");
    if let Event::RunStarted { run } = &mut whole[0].event {
        run.shard = None;
    }
    assert_eq!(refused(&with("whole", &whole)), "whole/events.jsonl is a whole run, not a shard");
    let mut foreign = events(Part { number: 3, count: COUNT }, "same");
    let stolen = events(Part { number: 1, count: COUNT }, "same");
    foreign.insert(1, stolen.iter().find(|it| matches!(it.event, Event::CellFinished { .. })).unwrap().clone());
    assert_eq!(
        refused(&with("foreign", &foreign)),
        "foreign/events.jsonl contains A00-x[tc,veth] on kernel 6.1, which is not in its plan"
    );
    fs::create_dir_all(dir.path().join("empty")).unwrap();
    let refused = refused(&[dir.path().join("empty")]);
    assert!(refused.contains("empty is not a run"), "{refused}");
}

#[test]
fn a_damaged_foreign_or_old_file_is_named() {
    let (dir, all) = results();
    let path = all[1].join(FILE);
    let text = fs::read_to_string(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        refused(dir.path(), &all)
    };
    let old = text.replacen(&format!("\"format\":{}", lab_record::event::FORMAT), "\"format\":1", 1);
    assert_eq!(
        refused(old.as_bytes()),
        "shard-2/events.jsonl has format 1, but this lab only reads 3: run the cells again, or use the version of lab that wrote it"
    );
    let unnumbered = text.replacen(&format!("\"format\":{},", lab_record::event::FORMAT), "", 1);
    assert!(refused(unnumbered.as_bytes()).contains("shard-2/events.jsonl has format 0"));
    for (bytes, words) in [
        (&b""[..], "shard-2/events.jsonl:1: not an event of this version of lab: the first event is incomplete"),
        (&text.as_bytes()[..40], "shard-2/events.jsonl:1: not an event of this version of lab: the first event"),
        (b"<xml/>\n", "shard-2/events.jsonl:1: not an event of this version of lab: expected value"),
        (b"{\"a\":1}\n", "shard-2/events.jsonl:1: not an event of this version of lab: missing field `event`"),
        (
            b"{\"event\":\"note\",\"at_ms\":1}\n",
            "shard-2/events.jsonl:1: not an event of this version of lab: the first event",
        ),
        (b"\xff\xfe\n", "shard-2/events.jsonl:1: not an event of this version of lab: "),
    ] {
        assert!(refused(bytes).starts_with(words), "{}", refused(bytes));
    }
    let damaged = text.replacen("\"event\":\"cell-started\"", "\"event\":\"cell-starved\"", 1);
    assert!(
        refused(damaged.as_bytes()).starts_with("shard-2/events.jsonl:5: not an event of this version of lab: unknown")
    );
    let twice = format!("{text}{text}");
    assert!(refused(twice.as_bytes()).contains("a second run starts"));
}

#[test]
fn a_kernel_that_one_shard_gave_up_on_is_given_up_on_in_the_merge() {
    let with = |events: &mut Vec<Stamped>| {
        for stamped in events {
            if let Event::KernelFinished { gave_up, .. } = &mut stamped.event {
                *gave_up = true;
            }
        }
    };
    for number in 1..=COUNT {
        let (_dir, all) = results();
        let mut told = events(Part { number, count: COUNT }, "same");
        with(&mut told);
        fs::remove_file(all[number as usize - 1].join(FILE)).unwrap();
        write(&all[number as usize - 1], &told);
        let own: Vec<&str> = told
            .iter()
            .filter_map(|it| if let Event::KernelFinished { kernel, .. } = &it.event { Some(&**kernel) } else { None })
            .collect();
        let record = merge(&all).unwrap();
        for (id, kernel) in &record.kernels {
            assert_eq!(kernel.gave_up, own.contains(&&**id), "shard {number}, kernel {id}");
        }
    }
}
