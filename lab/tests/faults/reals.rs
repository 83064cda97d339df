//! Faults of the host and of the program, on real guests.

use crate::{
    fault::{Expected, Fault, How, Seen},
    mirror,
    real::{Stage, hit, pid, wait_for},
};
use nix::sys::signal::Signal;
use std::{fs, path::PathBuf, process::Command};

/// Selects the whole suite, so that the fault can be injected while a cell runs.
const LONG: &[&str] = &[];
/// Selects a few fast cells.
const SHORT: &[&str] = &["--case", "D10*"];

fn fault(
    name: &'static str,
    injected: &'static str,
    (exit, cells, told): (i32, &'static [&'static str], &'static [&'static str]),
    act: fn(&Stage) -> Seen,
) -> Fault {
    Fault { name, injected, expected: Expected { exit, cells, told }, how: How::Real(act) }
}

/// The rows of the table.
pub fn faults() -> Vec<Fault> {
    vec![
        fault("sigint", "Ctrl-C while a cell runs", (130, &[], &["the run was interrupted"]), |stage| {
            signal(stage, Signal::SIGINT)
        }),
        fault("sigterm", "SIGTERM while a cell runs", (143, &[], &["the run was interrupted"]), |stage| {
            signal(stage, Signal::SIGTERM)
        }),
        fault(
            "sigkill",
            "SIGKILL while a cell runs; the next run starts, and the killed run is reported",
            (3, &[], &["the run ended before"]),
            sigkill,
        ),
        fault(
            "qemu-killed",
            "QEMU is killed while a cell runs",
            (3, &["Z01 passed", "Z16 errored: guest-lost: the guest ended unexpectedly (signal 9)", "Z17 passed"], &[]),
            qemu_killed,
        ),
        fault("two-at-once", "two runs of one kernel at the same time", (0, &["D10 passed"], &[]), two_at_once),
        fault(
            "clock-jumps",
            "a wall clock that jumps by a day and by years, for the lab and for QEMU",
            (0, &["D10 passed"], &[]),
            clock_jumps,
        ),
        fault(
            "virtiofsd-unused",
            "a cold boot, observed for a virtiofsd process",
            (0, &["D10 passed"], &[]),
            no_virtiofsd,
        ),
        fault("qemu-missing", "a QEMU that does not exist", (3, &[], &["error: ", "/nonexistent/qemu"]), |stage| {
            let mut command = stage.run(SHORT);
            command.env("NETKIT_LAB_QEMU", "/nonexistent/qemu");
            stage.finish(command)
        }),
        fault(
            "results-read-only",
            "results on a file system that is read-only",
            (3, &[], &["error: can't create /sys/netkit-lab-results"]),
            |stage| {
                let mut command = stage.lab(&["run", "--no-build", "--kernel", "6.12", "--case", "D10*", "--out"]);
                command.arg("/sys/netkit-lab-results");
                stage.finish(command)
            },
        ),
        fault(
            "kernel-truncated",
            "a kernel image that is cut in half",
            (2, &[], &["error: ", "vmlinuz", "bytes short"]),
            truncated,
        ),
        fault(
            "download-corrupt",
            "a mirror whose package has the right size and wrong bytes",
            (3, &[], &["error: ", "Hash Sum mismatch"]),
            mirror::corrupt,
        ),
        fault(
            "mirror-unsigned",
            "a mirror whose index Debian did not sign",
            (3, &[], &["error: ", "signature"]),
            mirror::unsigned,
        ),
    ]
}

fn signal(stage: &Stage, signal: Signal) -> Seen {
    let child = stage.until(stage.run(LONG), "cell-finished");
    hit(pid(&child), signal);
    stage.end(child)
}

fn sigkill(stage: &Stage) -> Seen {
    let child = stage.until(stage.run(LONG), "cell-finished");
    let machines = stage.machines();
    assert!(!machines.is_empty(), "there is a guest that can be orphaned");
    hit(pid(&child), Signal::SIGKILL);
    let killed = stage.end(child).runs;
    // The kernel kills them when their lab ends, and one that has much memory takes a moment to end.
    wait_for("the end of the guests of a lab that was killed", || stage.machines().is_empty());
    let next = stage.finish(stage.run(SHORT));
    assert_eq!(next.exit, Some(0), "{}", next.printed);
    let mut command = stage.lab(&["report"]);
    command.args(&killed);
    stage.finish(command)
}

fn qemu_killed(stage: &Stage) -> Seen {
    let cells = ["--canary", "--case", "Z01*", "--case", "Z16*", "--case", "Z17*"];
    let child = stage.until(stage.run(&cells), r#""cell":"Z16-must-hang"}"#);
    stage.machines().into_iter().for_each(|machine| hit(machine, Signal::SIGKILL));
    stage.end(child)
}

fn two_at_once(stage: &Stage) -> Seen {
    let other = stage.run(SHORT).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn();
    let mut other = other.expect("lab starts");
    let mut seen = stage.finish(stage.run(SHORT));
    let status = other.wait().expect("our child");
    seen.exit = seen.exit.max(status.code());
    seen.runs = stage.runs();
    assert_eq!(seen.runs.len(), 2);
    seen
}

fn clock_jumps(stage: &Stage) -> Seen {
    let shim = stage.scratch.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&shim).arg(source).status();
    assert!(built.expect("cc, which links the lab too").success());
    let mut command = stage.run(SHORT);
    command.env("LD_PRELOAD", shim);
    stage.finish(command)
}

fn no_virtiofsd(stage: &Stage) -> Seen {
    let mut cells = SHORT.to_vec();
    cells.push("--cold");
    let child = stage.until(stage.run(&cells), r#""event":"booted""#);
    let helper = crate::measure::marked(stage.mark).into_iter().map(crate::measure::command);
    let helper = helper.into_iter().find(|command| command.contains("virtiofsd"));
    assert_eq!(helper, None, "guests need no virtiofsd");
    stage.end(child)
}

/// A separate project with the agent and the eBPF objects of this one.
pub fn project(stage: &Stage, matrix: &str) -> PathBuf {
    let project = stage.scratch.join("project");
    fs::create_dir(&project).expect("a directory");
    let ours = fs::canonicalize(crate::ROOT).expect("the project");
    for built in ["target", "ebpf"] {
        std::os::unix::fs::symlink(ours.join(built), project.join(built)).expect("a link");
    }
    fs::write(project.join("kernels.toml"), matrix).expect("a file");
    project
}

fn truncated(stage: &Stage) -> Seen {
    let cache = lab_base::paths::cache_dir().expect("the cache");
    let mut images = walkdir::WalkDir::new(cache.join("kernels")).max_depth(2).into_iter().flatten();
    let image =
        images.find(|entry| entry.file_name() == "vmlinuz" && entry.path().to_string_lossy().contains("/6.12-6.12."));
    let bytes = fs::read(image.expect("6.12 is in the cache").path()).expect("an image");
    let matrix = "[kernels.cut]\nclass = \"6.7+\"\ndefault = true\nsource.path = { image = \"vmlinuz\" }\n";
    let project = project(stage, matrix);
    fs::write(project.join("vmlinuz"), &bytes[..bytes.len() / 2]).expect("half an image");
    let command = stage.lab_on(&project, &["run", "--no-build", "--case", "D10*"]);
    stage.finish(command)
}
