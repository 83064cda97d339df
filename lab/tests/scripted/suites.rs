//! Test suites of others in scripted guests: for each reader a stream that is cut, a result that is lost and exit codes that lie;
//! guests that a test leaves dirty; tests that pass when they are repeated.

use crate::{
    Test,
    fake::{Scenario, locked},
    lab,
};
use lab::testing::agent::Script;
use lab_protocol::{AgentMessage, CellId, CellReport, FailureKind, HowEnded, Outcome, ProgramEnd, shell::Stream};
use std::{collections::BTreeMap, fs, path::Path, process::Output};

/// The names of the scenarios.
pub const FAULTS: &str = "suite-faults";
pub const DIRTY: &str = "suite-dirty";
pub const FLAKY: &str = "suite-flaky";
pub const STEADY: &str = "suite-steady";

pub const TESTS: [Test; 4] = [
    ("a workload is a command line of lab exec, planned before a guest boots", workloads),
    ("every reader finds a cut stream, a lost result and lying exit codes", faults),
    ("a guest that a test leaves dirty is not used again", dirty),
    ("a test that passes in a fresh guest is flaky, and so is its subtest alone", flaky),
];

/// What is wrong with a test's output; the test is called so.
const FAULTY: [&str; 4] = ["cut", "lost", "lies0", "lies1"];
/// Of these nothing is wrong.
const GOOD: &str = "good";

/// What a suite of this kind prints for a test, and its exit code.
struct Printed {
    kind: &'static str,
    /// Words before the command's `--`, and the command.
    command: &'static str,
    /// Before the results, the begin of one, its end when it passes and when it fails, and what follows.
    head: &'static str,
    begin: &'static str,
    passed: &'static str,
    failed: &'static str,
    tail: &'static str,
    /// The same where nothing passed.
    bad_tail: &'static str,
}

/// `@` is the test's name.
const READERS: [Printed; 8] = [
    Printed {
        kind: "go",
        command: "./x.test",
        head: "",
        begin: "=== RUN   @\n",
        passed: "--- PASS: @ (0.00s)\n",
        failed: "--- FAIL: @ (0.00s)\n",
        tail: "PASS\n",
        bad_tail: "FAIL\n",
    },
    Printed {
        kind: "libtest",
        command: "./x",
        head: "\nrunning 1 test\n",
        begin: "test @ ... ",
        passed: "ok\n",
        failed: "FAILED\n",
        tail: "\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
        bad_tail: "\ntest result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n",
    },
    Printed {
        kind: "test_progs",
        command: "./test_progs",
        head: "",
        begin: "#1       @:",
        passed: "OK\n",
        failed: "FAIL\n",
        tail: "Summary: 1/0 PASSED, 0 SKIPPED, 0 FAILED\n",
        bad_tail: "Summary: 0/0 PASSED, 0 SKIPPED, 1 FAILED\n",
    },
    Printed {
        kind: "pytest",
        command: "pytest",
        head: "============ test session starts ============\ncollecting ... collected 1 item\n\n",
        begin: "@ ",
        passed: "PASSED                         [100%]\n",
        failed: "FAILED                         [100%]\n",
        tail: "\n==== 1 passed in 0.10s ====\n",
        bad_tail: "\n==== 1 failed in 0.10s ====\n",
    },
    Printed {
        kind: "ctest",
        command: "ctest",
        head: "Test project /b\n",
        begin: "    Start 1: @\n1/1 Test #1: @ .........",
        passed: "   Passed    0.01 sec\n",
        failed: "***Failed    0.01 sec\n",
        tail: "\n100% tests passed, 0 tests failed out of 1\n",
        bad_tail: "\n0% tests passed, 1 tests failed out of 1\n",
    },
    Printed {
        kind: "ktap",
        command: "./x",
        head: "TAP version 13\n1..1\n",
        begin: "",
        passed: "ok 1 @\n",
        failed: "not ok 1 @\n",
        tail: "",
        bad_tail: "",
    },
    Printed {
        kind: "junit",
        command: "./x",
        head: "<testsuites><testsuite name=\"s\" tests=\"1\">\n",
        begin: "<testcase name=\"@\">",
        passed: "</testcase>\n",
        failed: "<failure message=\"wanted 1\"/></testcase>\n",
        tail: "</testsuite></testsuites>\n",
        bad_tail: "</testsuite></testsuites>\n",
    },
    Printed {
        kind: "kselftest",
        command: "net/cut.sh net/lost.sh net/lies0.sh net/lies1.sh net/good.sh",
        head: "TAP version 13\n1..1\n",
        begin: "",
        passed: "ok 1 part\n",
        failed: "not ok 1 part\n",
        tail: "",
        bad_tail: "",
    },
];

impl Printed {
    fn of(kind: &str) -> &'static Self {
        READERS.iter().find(|it| it.kind == kind).unwrap_or_else(|| panic!("{kind}"))
    }

    /// The test's name as the suite has it.
    fn name(&self, fault: &str) -> String {
        match self.kind {
            "pytest" => format!("tests/test_a.py::{fault}"),
            "go" => format!("Test_{fault}"),
            _ => fault.to_owned(),
        }
    }

    fn output(&self, fault: &str) -> (String, u8) {
        let Self { head, begin, passed, failed, tail, bad_tail, .. } = *self;
        let (text, code) = match fault {
            "cut" => (format!("{head}{begin}"), 0),
            "lost" => (format!("{head}{tail}"), 0),
            "lies0" => (format!("{head}{begin}{failed}{bad_tail}"), 0),
            "lies1" => (format!("{head}{begin}{passed}{tail}"), 1),
            _ => (format!("{head}{begin}{passed}{tail}"), 0),
        };
        (text.replace('@', &self.name(fault)), code)
    }
}

/// Runs each cell that comes, in one guest, by what `act` makes of it: output, exit code and lines of its log.
fn programs(act: impl Fn(&CellId, u32) -> (String, u8, Vec<String>) + 'static) -> Scenario {
    Scenario::of(move |mut script: Script<'_>| {
        let mut cells = script.boot();
        while !cells.is_empty() {
            for cell in &cells {
                let (output, code, log) = act(cell, script.agent.boot());
                script.start(cell);
                let bytes = output.into_bytes();
                let count = bytes.len() as u64;
                script.say(&AgentMessage::Output { stream: Stream::Output, bytes });
                let outcome = match code {
                    0 => Outcome::Passed,
                    code => Outcome::Failed { kind: FailureKind::Exit, message: format!("exit code {code}") },
                };
                let how = HowEnded::Exited { code };
                let program = Some(ProgramEnd { how, output: count, errors: 0, processes: Vec::new() });
                script.finish(CellReport { program, log, ..CellReport::bare(cell.clone(), outcome) });
            }
            script.done(cells.len());
            cells = script.more();
        }
    })
}

pub fn scenario(name: &str) -> Option<Scenario> {
    Some(match name {
        DIRTY => programs(|cell, _| {
            let log =
                if cell.as_str().contains("b.sh") { vec!["left behind: namespace ns0".to_owned()] } else { Vec::new() };
            ("TEST: part     [ OK ]\n".to_owned(), 0, log)
        }),
        STEADY => programs(|_, _| ("TEST: part     [ OK ]\n".to_owned(), 0, Vec::new())),
        FLAKY => programs(|cell, boot| {
            let fails = cell.as_str().contains("a.sh") && boot == 0;
            let mark = if fails { "FAIL" } else { " OK " };
            (format!("TEST: shaky     [{mark}]\nTEST: steady     [ OK ]\n"), u8::from(fails), Vec::new())
        }),
        name => {
            let reader = Printed::of(name.strip_prefix(FAULTS)?.trim_start_matches('-'));
            programs(move |cell, _| {
                let fault = FAULTY.into_iter().find(|fault| cell.as_str().contains(fault)).unwrap_or(GOOD);
                let (text, code) = reader.output(fault);
                (text, code, Vec::new())
            })
        }
    })
}

/// What `lab exec` of a scenario says of each cell, and the guests that ran them.
struct Ran {
    code: Option<i32>,
    table: String,
    verdicts: BTreeMap<String, String>,
    guests: BTreeMap<String, u64>,
    notes: Vec<String>,
}

fn exec(scenario: &str, scratch: &Path, words: &[&str]) -> Ran {
    let results = scratch.join("results");
    let fixed = ["exec", "--no-build", "--cold", "--jobs", "1", "--root", "image", "--witness", "off", "--no-input"];
    let place = ["--results", results.to_str().unwrap()];
    let words = [&fixed[..], &place, words].concat();
    let output = lab(scenario, scratch, &words, &locked()).current_dir(scratch.join("here")).output().unwrap();
    ran(&output, &results)
}

fn ran(output: &Output, results: &Path) -> Ran {
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let events =
        fs::read_to_string(results.join("latest/events.jsonl")).unwrap_or_else(|error| panic!("{error}: {errors}"));
    let mut ran = Ran {
        code: output.status.code(),
        table: format!("{table}{errors}"),
        verdicts: BTreeMap::new(),
        guests: BTreeMap::new(),
        notes: Vec::new(),
    };
    for line in events.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let verdict = &event["verdict"];
        match event["event"].as_str() {
            Some("cell-finished") => {
                let cell = verdict["report"]["cell"].as_str().unwrap().to_owned();
                let outcome = &verdict["outcome"];
                let flaky = verdict["earlier"].as_array().is_some_and(|earlier| !earlier.is_empty());
                let word = if flaky { "flaky ".to_owned() } else { String::new() };
                let told = format!(
                    "{word}{} {}",
                    outcome["outcome"].as_str().unwrap(),
                    outcome["kind"].as_str().unwrap_or_default()
                );
                ran.verdicts.insert(cell.clone(), told.trim().to_owned());
                ran.guests.insert(cell, event["guest"].as_u64().unwrap_or_default());
            }
            Some("note") => ran.notes.push(event["text"].as_str().unwrap_or_default().to_owned()),
            _ => {}
        }
    }
    ran
}

fn place() -> tempfile::TempDir {
    let scratch = tempfile::Builder::new().prefix("suites-").tempdir().unwrap();
    fs::create_dir_all(scratch.path().join("here/net")).unwrap();
    scratch
}

fn script(scratch: &Path, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = scratch.join("here").join(name);
    fs::write(&path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn faults() {
    for reader in &READERS {
        let scratch = place();
        let names: Vec<String> = FAULTY.iter().chain([&GOOD]).map(|fault| reader.name(fault)).collect();
        fs::write(scratch.path().join("here/names"), names.join("\n")).unwrap();
        FAULTY.iter().chain([&GOOD]).for_each(|fault| script(scratch.path(), &format!("net/{fault}.sh")));
        let mut words = vec!["--isolate", "suite", "--suite", reader.kind];
        if reader.kind != "kselftest" {
            words.extend(["--tests", "names"]);
        }
        words.push("--");
        words.extend(reader.command.split(' '));
        let ran = exec(&format!("{FAULTS}-{}", reader.kind), scratch.path(), &words);
        assert_eq!(ran.code, Some(1), "{}: {}", reader.kind, ran.table);
        let of = |fault: &str| {
            let mut all = ran.verdicts.iter().filter(|(cell, _)| cell.contains(fault) && !cell.ends_with("::part"));
            all.next().map_or("no cell", |(_, told)| told)
        };
        let all = || format!("{}: {:?}\n{}", reader.kind, ran.verdicts, ran.table);
        assert_eq!(of(GOOD), "passed", "{}", all());
        // What never reported has no result, whatever the exit code says; where a plan counts, it is one that is not kept.
        let counted = matches!(reader.kind, "kselftest");
        let never = if counted { "failed check" } else { "errored no-result" };
        assert_eq!([of("cut"), of("lost")], [never, never], "{}", all());
        assert_eq!([of("lies0"), of("lies1")], ["failed check"; 2], "{}", all());
    }
}

fn dirty() {
    let scratch = place();
    ["a", "b", "c", "d"].iter().for_each(|name| script(scratch.path(), &format!("net/{name}.sh")));
    let words = ["--isolate", "suite", "--suite", "kselftest", "--", "net/a.sh", "net/b.sh", "net/c.sh", "net/d.sh"];
    let ran = exec(DIRTY, scratch.path(), &words);
    assert_eq!(ran.code, Some(0), "{}", ran.table);
    let guests = |name: &str| ran.guests.get(&format!("net/{name}.sh")).copied();
    assert_eq!(["a", "b", "c", "d"].map(guests), [Some(1), Some(1), Some(2), Some(2)], "{:?}", ran.guests);
    let wanted = "guest 1 is not used again: net/b.sh left behind namespace ns0";
    assert_eq!(ran.notes.iter().filter(|note| *note == wanted).count(), 1, "{:?}", ran.notes);
}

fn flaky() {
    let scratch = place();
    ["a", "b"].iter().for_each(|name| script(scratch.path(), &format!("net/{name}.sh")));
    let words = ["--isolate", "suite", "--retries", "1", "--suite", "kselftest", "--", "net/a.sh", "net/b.sh"];
    let ran = exec(FLAKY, scratch.path(), &words);
    assert_eq!(ran.code, Some(0), "{}", ran.table);
    let told = |cell: &str| ran.verdicts.get(cell).map(String::as_str);
    assert_eq!(told("net/a.sh"), Some("flaky passed"), "{}", ran.table);
    assert_eq!(told("net/a.sh::shaky"), Some("flaky passed"), "{}", ran.table);
    assert_eq!(told("net/a.sh::steady"), Some("passed"), "{}", ran.table);
    assert_eq!(told("net/b.sh"), Some("passed"), "{}", ran.table);
    // The second attempt has a guest of its own.
    assert_eq!((ran.guests["net/b.sh"], ran.guests["net/a.sh"]), (1, 2), "{:?}", ran.guests);
}

const WORKLOADS: &str = r#"
[workloads.small]
about = "two tests"
suite = "kselftest"
directory = "suite"
command = ["net/a.sh", "net/b.sh"]
requires = ["CONFIG_NETKIT=y"]
isolate = "suite"
root = "image"
witness = "off"

[workloads.lacking]
suite = "kselftest"
directory = "suite"
command = ["net/a.sh", "net/b.sh"]
requires = ["CONFIG_NO_SUCH_OPTION", "CONFIG_NETKIT"]
root = "image"
witness = "off"
"#;

/// One command of the lab, in a project of its own with these workloads.
fn workload(scratch: &Path, text: &str, words: &[&str]) -> (Output, Ran) {
    for part in ["project", "cache", "results"] {
        let _ = fs::remove_dir_all(scratch.join(part));
    }
    let results = scratch.join("results");
    let mut command = lab(STEADY, scratch, words, &locked());
    let net = scratch.join("project/suite/net");
    fs::create_dir_all(&net).unwrap();
    for name in ["a.sh", "b.sh"] {
        fs::copy(scratch.join("here/net").join(name), net.join(name)).unwrap();
    }
    fs::write(scratch.join("project/workloads.toml"), text).unwrap();
    let output = command.output().unwrap();
    let told = if results.exists() { ran(&output, &results) } else { Ran::nothing(&output) };
    (output, told)
}

impl Ran {
    fn nothing(output: &Output) -> Self {
        let [table, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Self {
            code: output.status.code(),
            table: format!("{table}{errors}"),
            verdicts: BTreeMap::new(),
            guests: BTreeMap::new(),
            notes: Vec::new(),
        }
    }
}

fn workloads() {
    let scratch = place();
    ["a", "b"].iter().for_each(|name| script(scratch.path(), &format!("net/{name}.sh")));
    let results = scratch.path().join("results");
    let run = ["--no-build", "--cold", "--jobs", "1", "--out", results.to_str().unwrap()];
    let running = |name| [&["run", "--workload", name][..], &run].concat();
    let of = |words: &[&str]| workload(scratch.path(), WORKLOADS, words).1;

    let listed = of(&["list", "--workload", "small", "--no-build"]);
    assert!(
        listed.code == Some(0) && listed.table.contains("net/a.sh") && listed.table.contains("6.12 run"),
        "{}",
        listed.table
    );
    let all = of(&["list", "--workloads"]);
    assert!(all.table.contains("small  two tests\n    lab exec '--name=small'"), "{}", all.table);
    let dry = of(&["run", "--workload", "lacking", "--dry-run", "--no-build"]);
    assert!(dry.table.contains("skip  2 cells: CONFIG_NO_SUCH_OPTION is not set"), "{}", dry.table);

    let small = of(&running("small"));
    assert_eq!(small.code, Some(0), "{}", small.table);
    let passed = |cell: &str| small.verdicts.get(cell).map(String::as_str) == Some("passed");
    assert!(["net/a.sh", "net/a.sh::part", "net/b.sh"].into_iter().all(passed), "{:?}", small.verdicts);
    assert!(small.table.contains("6.12: 4 passed"), "{}", small.table);
    // Only what is asked for.
    let one = of(&[&running("small")[..], &["net/b.sh"]].concat());
    assert!(one.verdicts.contains_key("net/b.sh") && !one.verdicts.contains_key("net/a.sh"), "{:?}", one.verdicts);

    // No guest boots for what a kernel lacks.
    let lacking = of(&running("lacking"));
    assert_eq!(lacking.code, Some(0), "{}", lacking.table);
    assert_eq!(lacking.verdicts.get("net/a.sh").map(String::as_str), Some("skipped-itself"), "{:?}", lacking.verdicts);
    assert!(lacking.guests.values().all(|guest| *guest == 0), "{:?}", lacking.guests);
    assert!(lacking.table.contains("skipped, 2 tests: CONFIG_NO_SUCH_OPTION is not set"), "{}", lacking.table);

    // Shards, merged, are the run as one machine has it.
    for (name, whole) in [("small", &small), ("lacking", &lacking)] {
        let shards = scratch.path().join("shards").join(name);
        for part in ["1/2", "2/2"] {
            let out = shards.join(&part[..1]);
            let how = ["--no-build", "--cold", "--jobs", "1", "--partition", part, "--out", out.to_str().unwrap()];
            let shard = of(&[&["run", "--workload", name][..], &how].concat());
            assert_eq!(shard.code, Some(0), "{name} {part}: {}", shard.table);
        }
        let places = ["1", "2"].map(|number| shards.join(number).to_str().unwrap().to_owned());
        let merged = of(&["merge", &places[0], &places[1], "--out", results.to_str().unwrap()]);
        assert_eq!((merged.code, &merged.verdicts), (Some(0), &whole.verdicts), "{name}: {}", merged.table);
    }

    // A wrong file is one error, and nothing runs.
    let wrong = WORKLOADS.replace("isolate = \"suite\"", "isolate = \"siute\"");
    let (_, told) = workload(scratch.path(), &wrong, &running("lacking"));
    assert_eq!(told.code, Some(2), "{}", told.table);
    let line = "workloads.toml:8: `isolate` in [workloads.small]: unknown value `siute`";
    assert!(told.table.contains(line) && told.table.contains("; known: kernel, group"), "{}", told.table);
    assert!(!results.exists(), "nothing is left");
    let absent = of(&running("smal"));
    assert!(
        absent.code == Some(4) && absent.table.contains("no workload matches `smal`; did you mean `small`?"),
        "{}",
        absent.table
    );
}
