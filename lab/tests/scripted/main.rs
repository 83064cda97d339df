//! Commands as a person gives them, in guests that a stand-in for QEMU plays: what comes of a guest is known before, and the
//! program is the real one.

#[path = "../support/bzimage.rs"]
mod bzimage;
#[path = "../faults/fake.rs"]
#[allow(dead_code, reason = "what the faults need beside a script")]
mod fake;
mod programs;
mod searches;
mod suites;
mod tree;
mod verdicts;

use std::{
    env, panic,
    path::Path,
    process::{Command, ExitCode},
    thread,
};

/// A test, with its name.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(name) = fake::in_place_of_qemu() {
        return fake::play(&scenario(&name));
    }
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let all = searches::TESTS.iter().chain(&programs::TESTS).chain(&verdicts::TESTS).chain(&suites::TESTS);
    let chosen: Vec<&Test> =
        all.filter(|(name, _)| words.is_empty() || words.iter().any(|word| name.contains(&**word))).collect();
    fake::ready();
    let mut good = true;
    // Two at a time: each mostly waits for git and for guests.
    for pair in chosen.chunks(2) {
        let results = thread::scope(|scope| {
            let begin = |(_, test): &&Test| {
                let test = *test;
                scope.spawn(move || panic::catch_unwind(test).is_ok())
            };
            let running: Vec<_> = pair.iter().map(begin).collect();
            running.into_iter().map(|test| test.join().unwrap_or(false)).collect::<Vec<_>>()
        });
        for ((name, _), ok) in pair.iter().zip(results) {
            println!("{name} ... {}", if ok { "ok" } else { "FAILED" });
            good &= ok;
        }
    }
    fake::clear();
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A command of the lab whose guests the scenario with this name plays; they claim to run this kernel.
fn lab(name: &str, scratch: &Path, arguments: &[&str], kernel: &str) -> Command {
    let mut command = scenario(name).lab(scratch);
    command.args(arguments);
    fake::played(&mut command, name, scratch, kernel);
    command
}

fn scenario(name: &str) -> fake::Scenario {
    match name {
        verdicts::FAILING => verdicts::scenario(),
        programs::WITHOUT_VNG => programs::scenario(),
        name => suites::scenario(name).unwrap_or_else(|| searches::scenario(name)),
    }
}
