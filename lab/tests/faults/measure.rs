//! Counts the processes, mounts and files that a fault left behind.

use crate::fault::{Expected, Result, Seen};
use quick_xml::{Reader, events::Event};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Environment variable that all processes of a fault inherit.
pub const MARK: &str = "NETKIT_LAB_FAULT";
/// Maximum time for a process to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// A cell of a run: kernel, then cell.
type Key = (String, String);

/// Compares the actual with the expected result.
pub fn judge(expected: &Expected, seen: &Seen) -> Result {
    let mut result = Result::default();
    if seen.exit != Some(expected.exit) {
        result.wrong.push(format!("exit {:?}, wanted {}: …{}", seen.exit, expected.exit, end_of(&seen.printed)));
    }
    let mut told = seen.printed.clone();
    let mut lines = Vec::new();
    for run in &seen.runs {
        let counted = Counted::of(run);
        result.lost += counted.lost();
        result.duplicated += counted.duplicated();
        lines.extend(counted.lines);
        told.push_str(&fs::read_to_string(run.join("run.json")).unwrap_or_default());
    }
    for cell in expected.cells {
        if !lines.iter().any(|line| line.starts_with(cell)) {
            result.wrong.push(format!("no `{cell}` in {lines:#?}"));
        }
    }
    result.wrong.extend(unescaped("what was printed", &seen.printed));
    result.wrong.extend(last_words(seen));
    for run in &seen.runs {
        for report in ["junit.xml", "report.html", "run.json"] {
            result.wrong.extend(unescaped(report, &regular(&run.join(report))));
        }
    }
    told.push_str(&lines.join("\n"));
    for words in expected.told {
        if !told.contains(words) {
            result.wrong.push(format!("no `{words}` in what was told: …{}", end_of(&seen.printed)));
        }
    }
    result
}

/// What is wrong with the last line that the program prints: the counts of a run with reports, otherwise an error.
fn last_words(seen: &Seen) -> Option<String> {
    let counts = |run: &PathBuf| {
        let summary: Value = serde_json::from_slice(&fs::read(run.join("run.json")).ok()?).ok()?;
        let count = |word: &str| summary["counts"][word].as_u64();
        let (passed, failed, skipped) = (count("passed")?, count("failed")?, count("skipped")?);
        let (errored, not_run) = (count("errored")?, count("not-run")?);
        Some(format!("{passed} passed, {failed} failed, {skipped} skipped, {errored} errored, {not_run} not run"))
    };
    let wanted: Vec<String> = seen.runs.iter().filter_map(counts).collect();
    let right = match wanted.is_empty() {
        true => seen.last.starts_with("error: "),
        false => wanted.contains(&seen.last),
    };
    (!right).then(|| {
        format!(
            "the last words are {:?}, wanted {}",
            seen.last,
            match wanted.is_empty() {
                true => "an error".to_owned(),
                false => wanted.join(" or "),
            }
        )
    })
}

/// The end of a long text.
fn end_of(text: &str) -> String {
    const MOST: usize = 1500;
    let skipped = text.chars().count().saturating_sub(MOST);
    text.chars().skip(skipped).collect()
}

/// Characters that control a terminal, or make a line look like a different one.
fn unescaped(place: &str, text: &str) -> Option<String> {
    let steers = |c: &char| (c.is_control() && !"\n\r\t".contains(*c)) || matches!(c, '\u{202a}'..='\u{202e}');
    text.chars().find(steers).map(|c| format!("{c:?} in {place}"))
}

/// Verdicts of a run in each of its reports.
struct Counted {
    planned: Vec<Key>,
    events: BTreeMap<Key, usize>,
    junit: BTreeMap<Key, usize>,
    /// `case word: message`.
    lines: Vec<String>,
}

impl Counted {
    fn of(run: &Path) -> Self {
        let plan: Value =
            fs::read(run.join("run.json")).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut planned = Vec::new();
        for kernel in list(&plan["plan"]["kernels"]) {
            let id = text(&kernel["facts"]["id"]);
            planned.extend(list(&kernel["cells"]).iter().map(|cell| (id.clone(), text(&cell["id"]))));
        }
        let (mut events, mut lines) = (BTreeMap::new(), Vec::new());
        // If the log could not be written, only the other reports are read.
        for line in regular(&run.join("events.jsonl")).lines() {
            let event: Value = serde_json::from_str(line).unwrap_or_default();
            if event["event"] == "cell-finished" {
                let cell = text(&event["verdict"]["report"]["cell"]);
                *events.entry((text(&event["kernel"]), cell)).or_default() += 1;
            }
        }
        let mut junit = BTreeMap::new();
        for (kernel, cell, word, message) in cases(&run.join("junit.xml")) {
            let number = cell.split('-').next().unwrap_or_default().to_owned();
            let message = if message.is_empty() { String::new() } else { format!(": {message}") };
            lines.push(format!("{number} {word}{message}"));
            *junit.entry((kernel, cell)).or_default() += 1;
        }
        Self { planned, events, junit, lines }
    }

    /// Planned cells that are missing in the JUnit report. If the plan can't be read, all cells are lost.
    fn lost(&self) -> usize {
        if self.planned.is_empty() {
            return 1;
        }
        self.planned.iter().filter(|key| !self.junit.contains_key(*key)).count()
    }

    fn duplicated(&self) -> usize {
        let twice = |counts: &BTreeMap<Key, usize>| {
            self.planned.iter().filter(|key| counts.get(*key).is_some_and(|count| *count > 1)).count()
        };
        twice(&self.events) + twice(&self.junit)
    }
}

/// Content of a regular file. A device such as `/dev/full`, which simulates a full disk, has no content and no end.
fn regular(path: &Path) -> String {
    let file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    if file { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
}

/// Kernel, cell, outcome and message of every test case.
fn cases(path: &Path) -> Vec<(String, String, &'static str, String)> {
    let Ok(text) = fs::read_to_string(path) else { return Vec::new() };
    let mut reader = Reader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let (mut suite, mut cases) = (String::new(), Vec::<(String, String, &'static str, String)>::new());
    loop {
        // An invalid XML file has no cases, so that its cells count as lost.
        match reader.read_event() {
            Ok(Event::Start(tag)) => {
                let attribute = |name: &str| {
                    let found = tag.try_get_attribute(name).ok().flatten();
                    let value = found.and_then(|it| {
                        it.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok().map(|it| it.into_owned())
                    });
                    value.unwrap_or_default()
                };
                let word = match tag.name().as_ref() {
                    b"testsuite" => {
                        suite = attribute("name");
                        continue;
                    }
                    b"testcase" => {
                        cases.push((suite.clone(), attribute("name"), "passed", String::new()));
                        continue;
                    }
                    b"failure" => "failed",
                    b"error" => "errored",
                    b"skipped" => "skipped",
                    _ => continue,
                };
                if let Some(case) = cases.last_mut() {
                    let kind = attribute("type");
                    (case.2, case.3) = (if kind == "not-run" { "not-run" } else { word }, attribute("message"));
                }
            }
            Ok(Event::Eof) | Err(_) => return cases,
            Ok(_) => {}
        }
    }
}

/// Processes, mounts and temporary files of a finished fault, one line each.
pub fn left(mark: &str, scratch: &Path) -> Vec<String> {
    let mut left = processes(mark);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = scratch.to_string_lossy();
    left.extend(mounts.lines().filter(|line| line.contains(&*below)).map(|line| format!("mount {line}")));
    let temporary = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    left.extend(temporary(&scratch.join("tmp")).map(|path| format!("file {}", path.display())));
    // Temporary files in results and in the cache have names that begin with a dot.
    for entry in walkdir::WalkDir::new(scratch).min_depth(1).into_iter().flatten() {
        let name = entry.file_name().to_string_lossy();
        // The lock of a project's builds stays there.
        if name.starts_with('.') && !name.ends_with(".lock") && name != ".lab-lock" {
            left.push(format!("file {}", entry.path().display()));
        }
    }
    left
}

/// Processes with the mark, after waiting for those that are ending.
fn processes(mark: &str) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = marked(mark);
        if found.is_empty() || Instant::now() > deadline {
            return found.into_iter().map(|pid| format!("process {pid} {}", command(pid))).collect();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Pids of the processes with the mark, without zombies.
pub fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    let carries = |process: &procfs::process::Process| {
        fs::read(format!("/proc/{}/environ", process.pid))
            .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes()))
    };
    processes.filter(carries).map(|process| process.pid).collect()
}

/// A process's command line.
pub fn command(pid: i32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).replace('\0', " ")
}
