//! Fault injection, with the expected result of each fault: `make faults`.
//!
//! Every fault runs in separate, marked processes with a temporary directory of its own. Afterwards the reports are
//! compared with the plan, and remaining processes, mounts and files are counted.

mod fake;
mod fakes;
mod fault;
mod measure;
mod mirror;
#[path = "../support/cache.rs"]
mod own_cache;
mod real;
mod reals;
mod snapshots;

use fault::{Fault, How, Result};
use std::{
    env, fs,
    io::Write,
    path::Path,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The page with the table.
const PAGE: &str = "docs/faults.md";
/// Maximum number of parallel scripted faults: most of them only wait.
const AT_ONCE: usize = 4;

fn main() -> ExitCode {
    if let Some(name) = fake::in_place_of_qemu() {
        let How::Fake(scenario) = find(&name).how else { panic!("{name} wants a real guest") };
        return fake::play(&scenario());
    }
    let words: Vec<String> = env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--write"] => ExitCode::from(u8::from(!current(&all(), true))),
        // Options of libtest are ignored; other arguments select faults by name.
        _ => run(&words.iter().filter(|word| !word.starts_with('-')).cloned().collect::<Vec<_>>()),
    }
}

fn all() -> Vec<Fault> {
    fakes::faults().into_iter().chain(reals::faults()).chain(snapshots::faults()).collect()
}

fn find(name: &str) -> Fault {
    all().into_iter().find(|fault| fault.name == name).expect("the parent names a fault of this table")
}

fn run(names: &[String]) -> ExitCode {
    let begin = Instant::now();
    let faults = all();
    let chosen: Vec<&Fault> =
        faults.iter().filter(|it| names.is_empty() || names.iter().any(|name| it.name.contains(&**name))).collect();
    let results: Vec<Mutex<Option<Result>>> = chosen.iter().map(|_| Mutex::new(None)).collect();
    let (fakes, reals): (Vec<usize>, Vec<usize>) =
        (0..chosen.len()).partition(|&at| matches!(chosen[at].how, How::Fake(_)));
    let one = |at: usize| {
        let result = inject(chosen[at]);
        print(chosen[at], &result);
        *results[at].lock().unwrap() = Some(result);
    };
    let next = AtomicUsize::new(0);
    if !fakes.is_empty() {
        fake::ready();
    }
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(&at) = fakes.get(next.fetch_add(1, Ordering::SeqCst)) {
                    one(at);
                }
            });
        }
    });
    if !fakes.is_empty() {
        fake::clear();
    }
    // Real guests run one at a time, because they need the whole machine.
    if !reals.is_empty() {
        real::build();
        reals.into_iter().for_each(one);
    }
    let results: Vec<Result> = results.into_iter().filter_map(|it| it.into_inner().unwrap()).collect();
    let mut good = current(&faults, false);
    let count = |of: fn(&Result) -> usize| results.iter().map(of).sum::<usize>();
    let right = results.iter().filter(|result| result.wrong.is_empty()).count();
    let (lost, duplicated, left) = (count(|it| it.lost), count(|it| it.duplicated), count(|it| it.left.len()));
    good &= right == results.len() && lost + duplicated + left == 0;
    println!("took {:.1} s", begin.elapsed().as_secs_f32());
    println!("faults: {} run, {right} as expected, {lost} lost, {duplicated} duplicated, {left} left", results.len());
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn inject(fault: &Fault) -> Result {
    let scratch = tempfile::Builder::new().prefix("fault-").tempdir().expect("a temporary directory");
    fs::create_dir(scratch.path().join("tmp")).expect("a directory in it");
    let mark = format!("{}-{}", std::process::id(), fault.name);
    let stage = real::Stage { mark: &mark, scratch: scratch.path() };
    let seen = match fault.how {
        How::Fake(scenario) => {
            let mut command = scenario().command(fault.name, scratch.path(), &stage.results());
            marked(&mut command, &mark, scratch.path());
            stage.finish(command)
        }
        // A fault that can't be injected counts as a failure, and the others still run.
        How::Real(act) => std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&stage))).unwrap_or_default(),
    };
    let mut result = measure::judge(&fault.expected, &seen);
    result.left = measure::left(&mark, scratch.path());
    result
}

/// A command whose descendants can be found by the mark, and whose temporary files are counted.
fn marked<'a>(command: &'a mut Command, mark: &str, scratch: &Path) -> &'a mut Command {
    command.env(measure::MARK, mark).env("TMPDIR", scratch.join("tmp")).env("CI", "true")
}

fn print(fault: &Fault, result: &Result) {
    let verdict = if result.wrong.is_empty() { "as expected" } else { "NOT AS EXPECTED" };
    let mut text = format!(
        "{:<28} {verdict}, {} lost, {} duplicated, {} left\n",
        fault.name,
        result.lost,
        result.duplicated,
        result.left.len()
    );
    for line in result.wrong.iter().chain(&result.left) {
        text.push_str(&format!("    {}\n", line.replace('\n', "\n    ")));
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Whether the page shows this table; with `write` the page is written first.
fn current(faults: &[Fault], write: bool) -> bool {
    let path = Path::new(ROOT).join(PAGE);
    let page = page(faults);
    if write {
        fs::write(&path, &page).expect("the page can be written");
    }
    let is = fs::read_to_string(&path).is_ok_and(|text| text == page);
    if !is {
        println!("{PAGE} is outdated: `make faults ARGS=--write` updates it");
    }
    is
}

fn page(faults: &[Fault]) -> String {
    let mut text = "# Faults on purpose\n\n\
        `make faults` breaks the lab, its guests and its host in every way below, and compares the result with the expected \
        one: the\nverdicts, the exit code and the messages. Then it counts. Every planned cell must have exactly one verdict in \
        the reports on disk,\nand no process, mount or temporary file may remain. `make test` and CI run it.\n\n\
        The column *guest* says whether a real kernel was running, or whether a scripted agent in a stand-in for QEMU answered it. In either case the program\n`lab` runs as a user runs it, and its exit code and its last line are compared too.\n\n\
        | fault | guest | what is broken | verdict | exit |\n|---|---|---|---|---|\n"
        .to_owned();
    for fault in faults {
        let guest = if matches!(fault.how, How::Fake(_)) { "scripted" } else { "real" };
        let expected = &fault.expected;
        let shown: Vec<&str> = expected.cells.iter().chain(expected.told).copied().collect();
        let verdict = shown.join("; ").replace('|', "\\|");
        text.push_str(&format!(
            "| `{}` | {guest} | {} | {verdict} | {} |\n",
            fault.name, fault.injected, expected.exit
        ));
    }
    text + "\n`virtiofsd` is not needed by guests: the lab makes virtme-ng use 9p, which QEMU serves itself, and guests mount nothing.\n"
}
