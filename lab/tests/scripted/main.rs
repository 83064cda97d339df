//! Commands as a person gives them, in guests that a stand-in for QEMU plays: what comes of a guest is known before, and the
//! program is the real one.

#[path = "../support/bzimage.rs"]
mod bzimage;
#[path = "../faults/fake.rs"]
#[allow(dead_code, reason = "what the faults need beside a script")]
mod fake;
mod programs;
mod searches;
mod tree;

use std::{env, panic, process::ExitCode, thread};

/// A test, with its name.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    if let Some(name) = fake::in_place_of_qemu() {
        return fake::play(&searches::scenario(&name));
    }
    let words: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let all = searches::TESTS.iter().chain(&programs::TESTS);
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
