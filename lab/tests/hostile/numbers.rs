//! Numbers that would overflow, and plans with duplicates.

use crate::{
    attack::{Attack, By, Wanted},
    results::{run, shard, with},
    stage::{ROOT, Seen, Stage},
};
use lab_record::event::{Event, Stamped};
use std::{fs, path::Path, process::Command, time::Duration};

const PROMISE: &str = "Results that no lab writes are an error, never another verdict";

fn row(name: &'static str, what: &'static str, told: &'static [&'static str], act: fn(&Stage<'_>) -> Seen) -> Attack {
    Attack { name, by: By::Results, what, promise: PROMISE, wanted: Wanted::exit(&[2], told), act }
}

fn report(stage: &Stage<'_>, bytes: &[u8]) -> Seen {
    let run = stage.raw_results("run", bytes);
    stage.told(&["report", run.to_str().unwrap()])
}

fn merge(stage: &Stage<'_>, bytes: &[u8]) -> Seen {
    let shard = stage.raw_results("shard", bytes);
    let out = stage.run().join("merged");
    stage.told(&["merge", shard.to_str().unwrap(), "--out", out.to_str().unwrap()])
}

fn plain(events: &[Stamped]) -> Vec<u8> {
    with(events, "at_ms", "at_ms")
}

/// A project of its own, with the lock that is given.
fn locked(stage: &Stage<'_>, change: impl Fn(String) -> String) -> Seen {
    let project = stage.run().join("project");
    fs::create_dir(&project).unwrap();
    fs::copy(Path::new(ROOT).join("kernels.toml"), project.join("kernels.toml")).unwrap();
    let lock = fs::read_to_string(Path::new(ROOT).join("kernels.lock")).unwrap();
    fs::write(project.join("kernels.lock"), change(lock)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(&project).args(["kernels", "list"]);
    stage.finish(stage.dressed(command), Duration::from_secs(60))
}

/// The rows.
pub fn attacks() -> Vec<Attack> {
    vec![
        row("shards-without-number", "a shard is one of 4294967295", &["shards are too many"], |stage| {
            merge(stage, &with(&shard(), "\"number\":1,\"count\":1", "\"number\":1,\"count\":4294967295"))
        }),
        row("shard-beyond-its-count", "a shard is the seventh of one", &["there is no shard 7/1"], |stage| {
            merge(stage, &with(&shard(), "\"number\":1,\"count\":1", "\"number\":7,\"count\":1"))
        }),
        row(
            "time-beyond-time",
            "an event comes in the year 292 million",
            &["which is not a valid time of a run"],
            |stage| {
                let mut events = run("x");
                events[3].at_ms = 1 << 63;
                report(stage, &plain(&events))
            },
        ),
        row("kernel-twice", "a plan has a kernel twice", &["the plan contains kernel", "twice"], |stage| {
            let mut events = run("x");
            if let Event::RunStarted { run } = &mut events[0].event {
                let twin = run.plan.kernels[0].clone();
                run.plan.kernels.push(twin);
            }
            report(stage, &plain(&events))
        }),
        row("cell-twice", "a kernel has a cell twice", &["the plan contains", "twice"], |stage| {
            let mut events = run("x");
            if let Event::RunStarted { run } = &mut events[0].event {
                let twin = run.plan.kernels[0].cells[0].clone();
                run.plan.kernels[0].cells.push(twin);
            }
            report(stage, &plain(&events))
        }),
        row("guests-without-number", "a guest is the 4294967295th", &["it has a guest number above"], |stage| {
            let mut events = run("x");
            for stamped in &mut events {
                if let Event::GuestStarted { guest, .. } = &mut stamped.event {
                    *guest = u32::MAX;
                }
            }
            report(stage, &plain(&events))
        }),
        row("second-run-within", "a run begins in the middle of another", &["a second run starts"], |stage| {
            let events = run("x");
            let mut bytes = plain(&events);
            bytes.extend(plain(&events));
            report(stage, &bytes)
        }),
        row(
            "checksum-of-letters",
            "a checksum in kernels.lock is no hexadecimal number",
            &["is not a hexadecimal checksum"],
            |stage| {
                locked(stage, |lock| {
                    let at = lock.find("sha256 = \"").unwrap() + "sha256 = \"".len();
                    format!("{}ääääääääääääääää{}", &lock[..at + 5], &lock[at + 21..])
                })
            },
        ),
    ]
}
