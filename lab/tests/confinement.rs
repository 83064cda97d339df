//! Checks, on both sides of a running guest, that it can't reach the host.

use std::{
    env, fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SECRET: &str = "a-secret-of-the-host-5f1c";

/// QEMU's command line and its `/proc/<pid>/status`, once the marked process executes QEMU.
fn machine(mark: &str) -> Option<(Vec<String>, String)> {
    let words = |path: String| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    procfs::process::all_processes().ok()?.flatten().find_map(|process| {
        let command = words(format!("/proc/{}/cmdline", process.pid));
        let ours = command.first().is_some_and(|program| program.contains("qemu-system"))
            // Earlier QEMU processes only print the version and the list of machines.
            && command.contains(&"-append".to_owned())
            && words(format!("/proc/{}/environ", process.pid)).contains(&format!("LAB_CONFINED={mark}"));
        // Between fork and exec it was the lab.
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
        ours.then_some((command, status))
    })
}

#[test]
fn a_guest_can_access_no_secret_and_no_network_of_its_host() {
    let results = tempfile::tempdir().unwrap();
    // The build takes long and is not observed.
    let built = Command::new(env!("CARGO_BIN_EXE_lab")).args(["--project", ROOT, "build"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mark = std::process::id().to_string();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args([
            "--project",
            ROOT,
            "run",
            "--cold",
            "--canary",
            "--case",
            "Z25*",
            "--kernel",
            "6.17",
            "--no-build",
            "--out",
        ])
        .arg(results.path())
        .env("LAB_CONFINED", &mark)
        .env("SECRET_OF_THE_HOST", SECRET)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(300);
    let mut told = None;
    let status = loop {
        // The latest look: QEMU closes its sandbox behind itself while it starts.
        told = machine(&mark).or(told);
        if let Some(status) = lab.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < limit, "the run takes too long");
        thread::sleep(Duration::from_millis(5));
    };
    // In the guest: file systems, network devices, disks, the export.
    let junit = fs::read_to_string(results.path().join("latest/junit.xml")).unwrap_or_default();
    assert_eq!(status.code(), Some(0), "{junit}");

    // On the host: QEMU's command line.
    let (words, status) = told.expect("a guest ran");
    assert!(!words.iter().any(|word| word.contains(SECRET)), "{words:?}");
    let follows = |option: &str| {
        let places = words.iter().enumerate().filter(|(_, word)| *word == option);
        places.filter_map(|(at, _)| words.get(at + 1).cloned()).collect::<Vec<_>>()
    };
    let networks: Vec<String> = ["-netdev", "-net", "-nic"].iter().flat_map(|option| follows(option)).collect();
    assert!(networks.iter().all(|network| network == "none"), "{networks:?}");
    assert!(!networks.is_empty() || words.contains(&"-nodefaults".to_owned()), "QEMU adds a network card by itself");
    for gone in ["-fsdev", "-virtfs", "virtio-9p", "vhost-user-fs", "i6300esb", "virtconsole", "/proc/self/fd"] {
        assert!(!words.iter().any(|word| word.contains(gone)), "{gone}: {words:?}");
    }

    // The privileges of QEMU's process: a guest that exploits QEMU gains no more than these.
    let said = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            set == "CapBnd" && !nix::unistd::geteuid().is_root() || said(set).chars().all(|digit| digit == '0'),
            "{status}"
        );
    }
    assert_eq!(said("NoNewPrivs"), "1", "{status}");
    // Debian's QEMU has its sandbox.
    assert_eq!(follows("-sandbox").len(), 1, "{words:?}");
    assert!(follows("-sandbox")[0].contains("spawn=deny"), "{words:?}");
    assert_eq!(said("Seccomp"), "2", "{status}");
}
