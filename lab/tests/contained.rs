//! Tests through the binary: other users of the machine cannot access files, and nothing prevents the program from
//! ending.

use lab::project::artifacts::BPF_OBJECTS;
use lab_protocol::{Listing, PROTOCOL_VERSION};
use lab_record::testing::cell;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Maximum wait for any condition on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program under a umask of 0, with a separate cache.
fn open_to_all(cache: &Path, arguments: &[&str]) -> Output {
    let script = r#"umask 0; exec "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_lab"), "--project", ROOT]).args(arguments);
    command.env("NETKIT_LAB_CACHE", cache).stdin(Stdio::null()).output().expect("sh starts")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn with_mode(path: &Path, mode: u32) {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory that other users can access, like /tmp.
fn public() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    with_mode(dir.path(), 0o755);
    dir
}

#[test]
fn a_cache_is_private_with_any_umask() {
    let dir = public();
    let cache = dir.path().join("cache");
    let listed = open_to_all(&cache, &["kernels", "list"]);
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert_eq!(mode(&cache), 0o700);
    let inside = walkdir::WalkDir::new(&cache).min_depth(1).into_iter().flatten();
    for entry in inside {
        assert_eq!(mode(entry.path()) & 0o022, 0, "{}", entry.path().display());
    }
}

#[test]
fn a_cache_that_others_can_write_to_is_refused() {
    let dir = public();
    let planted = dir.path().join("planted");
    with_mode(&planted, 0o777);
    fs::write(planted.join("accelerator.json"), "{}").unwrap();
    let replaceable = dir.path().join("open/cache");
    with_mode(&replaceable, 0o700);
    with_mode(&dir.path().join("open"), 0o777);
    for (cache, named) in [(&planted, &planted), (&replaceable, &dir.path().join("open"))] {
        let refused = open_to_all(cache, &["kernels", "list"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{said}");
        assert!(
            said.contains(&format!("error: {} can be written by other users (mode 0777)", named.display())),
            "{said}"
        );
        assert!(said.contains("chmod go-w"), "{said}");
    }
}

/// A project whose agent lists so many cells that the list fills a pipe.
fn talkative(dir: &Path) -> PathBuf {
    let project = dir.join("project");
    let agent = project.join("target/guest/x86_64-unknown-linux-gnu/release/guest-agent");
    let bpf = project.join("ebpf/target/bpfel-unknown-none/release");
    fs::create_dir_all(agent.parent().unwrap()).unwrap();
    fs::create_dir_all(&bpf).unwrap();
    for file in ["kernels.toml", "kernels.lock"] {
        fs::copy(Path::new(ROOT).join(file), project.join(file)).unwrap();
    }
    BPF_OBJECTS.iter().for_each(|(object, _)| fs::write(bpf.join(object), "").unwrap());
    let listing = Listing {
        protocol: PROTOCOL_VERSION,
        agent: "1".to_owned(),
        cells: (0..3000).map(|number| cell(&format!("T{:02}-case-{number}[tc,veth]", number % 100))).collect(),
        mutants: Vec::new(),
        canaries: Vec::new(),
        coverage: Vec::new(),
    };
    fs::write(project.join("listing.json"), serde_json::to_vec(&listing).unwrap()).unwrap();
    fs::write(&agent, format!("#!/bin/sh\nexec cat '{}'\n", project.join("listing.json").display())).unwrap();
    fs::set_permissions(&agent, Permissions::from_mode(0o755)).unwrap();
    project
}

fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        let status = child.try_wait().unwrap();
        if status.is_some() || Instant::now() > deadline {
            return status;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_second_signal_ends_a_program_that_ignores_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let project = talkative(dir.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(&project).args(["list", "--no-build"]);
    command.env("NETKIT_LAB_CACHE", dir.path().join("cache")).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut lab = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(lab.id()).unwrap());
    // The list is not read, so the program blocks in write(), which no signal ends.
    let waits = || fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|place| place.contains("pipe"));
    let deadline = Instant::now() + PATIENCE;
    while !waits() {
        assert!(Instant::now() < deadline && lab.try_wait().unwrap().is_none(), "it never stood in its write");
        thread::sleep(Duration::from_millis(10));
    }
    kill(pid, Signal::SIGINT).unwrap();
    assert_eq!(ended(&mut lab, Duration::from_millis(700)), None, "the first signal is a wish");
    kill(pid, Signal::SIGTERM).unwrap();
    let status = ended(&mut lab, PATIENCE);
    let _ = lab.kill();
    assert_eq!(status.and_then(|status| status.code()), Some(128 + Signal::SIGTERM as i32));
}

/// Guests may open no program outside of /usr, the cache and the directory of the one that was chosen.
#[test]
fn a_script_that_starts_a_qemu_outside_of_the_allowed_directories_is_refused_with_a_fix() {
    let dir = public();
    let program = |place: &str, text: &str| {
        let path = dir.path().join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    };
    let qemu = program("elsewhere/qemu-system-x86_64", "echo QEMU emulator version 11.0.0");
    let doctor = |script: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["doctor", "--json"]).env("NETKIT_LAB_QEMU", script);
        let output = command.env("NETKIT_LAB_CACHE", dir.path().join("cache")).output().unwrap();
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        findings.iter().find(|finding| finding["name"] == "QEMU").unwrap().clone()
    };
    let start = format!("exec {} \"$@\"", qemu.display());
    let refused = doctor(&program("scripts/qemu", &start));
    let words = refused.to_string();
    assert!(words.contains("starts a QEMU that guests of the lab may not open"), "{words}");
    assert!(words.contains("put the script beside its QEMU, or let NETKIT_LAB_QEMU name QEMU itself"), "{words}");
    // Both in one directory that has a usual name for programs.
    let qemu = program("mine/bin/qemu-real", "echo QEMU emulator version 11.0.0");
    let beside = doctor(&program("mine/bin/qemu", &format!("exec {} \"$@\"", qemu.display())));
    assert!(beside.to_string().contains("11.0.0"), "{beside}");
}
