//! Ctrl-C, or a signal for `lab` only, before a run exists: during builds, downloads, unpacking and waiting. No partial
//! file may stay in the cache, all programs must end, and the exit code must be that of the signal.

#[path = "support/seat.rs"]
mod seat;

use nix::sys::signal::Signal;
use procfs::process::all_processes;
use seat::{PATIENCE, Seat};
use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const KERNEL: &str = "6.17";
/// Runs longer than the test's patience, with a child that does the same.
const FOREVER: &str = "sleep 5000 & sleep 5000";

/// A cache, a directory for temporary files, and a directory with programs that replace the host's.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["cache", "tmp", "bin"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let path = format!("{}:{}", self.path("bin").display(), lab_base::programs::search_path().display());
        command.args(["--project", ROOT]).args(arguments).env("PATH", path);
        command.env("NETKIT_LAB_CACHE", self.path("cache")).env("TMPDIR", self.path("tmp"));
        command
    }

    /// Files and directories in the cache with temporary names.
    fn halves(&self) -> Vec<PathBuf> {
        let half = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            (name.starts_with('.') && !name.starts_with(".lock")) || name.ends_with(".deb")
        };
        let files = walkdir::WalkDir::new(self.path("cache")).into_iter().flatten().map(|entry| entry.into_path());
        let guests = fs::read_dir(self.path("tmp")).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| half(path)).chain(guests).collect()
    }

    /// Waits for the end, and checks what is left.
    #[track_caller]
    fn ended(&self, seat: Seat, signal: Signal) -> String {
        let session = seat.pid().as_raw();
        let (code, said) = seat.leave();
        assert_eq!(code, Some(128 + signal as i32), "{said}");
        assert_eq!(self.halves(), Vec::<PathBuf>::new(), "{said}");
        assert_eq!(living(session), Vec::<String>::new(), "{said}");
        said
    }
}

/// The processes of a session.
fn living(session: i32) -> Vec<String> {
    let own = all_processes()
        .unwrap()
        .flatten()
        .filter(|process| process.stat().is_ok_and(|stat| stat.session == session && !matches!(stat.state, 'Z' | 'X')));
    own.map(|process| process.cmdline().unwrap_or_default().join(" ")).collect()
}

/// By the terminal, or by a signal to the program alone, as CI systems do.
fn interrupt(seat: &mut Seat, signal: Signal) {
    match signal {
        Signal::SIGINT => seat.press(b"\x03"),
        other => seat.signal(other),
    }
}

#[test]
fn the_agents_build_ends_with_all_its_compilers() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let desk = Desk::new();
        let cargo = desk.program("cargo", FOREVER);
        let mut seat = Seat::take(desk.lab(&["build"]).env("CARGO", &cargo));
        seat.screen.wait_for("building the guest agent");
        interrupt(&mut seat, signal);
        let said = desk.ended(seat, signal);
        assert!(said.contains(&format!("interrupted by {signal}: building the guest agent was stopped\r\n")), "{said}");
        assert!(!said.contains("error"), "{said}");
    }
}

#[test]
fn a_download_leaves_nothing_in_the_cache() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let desk = Desk::new();
        let lock: toml::Table = fs::read_to_string(Path::new(ROOT).join("kernels.lock")).unwrap().parse().unwrap();
        let entry = lock["kernels"][KERNEL].as_table().unwrap();
        let text = |key: &str| entry[key].as_str().unwrap().to_owned();
        let index = desk.path("Packages");
        let package = format!(
            "Package: {}\nVersion: {}\nArchitecture: amd64\nSize: 1000000\nSHA256: {}\nFilename: x.deb\n",
            text("package"),
            text("version"),
            text("sha256")
        );
        fs::write(&index, package).unwrap();
        let half = format!("echo half >x.deb; echo half >&2; touch '{}'; {FOREVER}", desk.path("begun").display());
        let script = format!("case \"$*\" in *indextargets*) echo '{}';; *download*) {half};; esac", index.display());
        desk.program("apt-get", &script);
        let mut command = desk.lab(&["kernels", "fetch", "--kernel", KERNEL]);
        command.env("NETKIT_LAB_DEBIAN_MIRROR", "http://127.0.0.1:9/debian");
        let mut seat = Seat::take(&command);
        seat.screen.wait_for("downloading linux-image");
        let deadline = Instant::now() + PATIENCE;
        while !desk.path("begun").exists() {
            assert!(Instant::now() < deadline, "the download does not begin");
            thread::sleep(Duration::from_millis(10));
        }
        assert!(desk.halves().iter().any(|path| path.ends_with("x.deb")), "{:?}", desk.halves());
        interrupt(&mut seat, signal);
        let said = desk.ended(seat, signal);
        let line = format!("interrupted by {signal}: kernel {KERNEL}: apt-get download {}", text("package"));
        assert!(said.contains(&line) && said.ends_with(" was stopped\r\n"), "{said}");
    }
}

#[test]
fn waiting_for_another_lab_process_is_interrupted() {
    let desk = Desk::new();
    fs::create_dir(desk.path("cache/kernels")).unwrap();
    let lock = File::create(desk.path("cache/kernels/.lock")).unwrap();
    lock.lock().unwrap();
    let mut seat = Seat::take(&desk.lab(&["kernels", "fetch", "--kernel", KERNEL]));
    seat.screen.wait_for("waiting for another lab run that is fetching kernels");
    interrupt(&mut seat, Signal::SIGINT);
    desk.ended(seat, Signal::SIGINT);
}

/// Image, boot and snapshot are created within seconds after the start: each of the delays hits one of them.
#[test]
fn an_interrupt_leaves_no_partial_image_or_snapshot() {
    let cache = lab_base::paths::cache_dir().unwrap();
    let fetched = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args(["--project", ROOT, "shell", KERNEL, "--", "true"])
        .output()
        .unwrap();
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    for after in [100, 400, 1000, 2000, 4000] {
        let desk = Desk::new();
        for name in ["tools", "kernels", "accelerator.json"] {
            symlink(cache.join(name), desk.path("cache").join(name)).unwrap();
        }
        let mut seat = Seat::take(&desk.lab(&["shell", KERNEL, "--no-build", "--", "sleep", "5000"]));
        thread::sleep(Duration::from_millis(after));
        interrupt(&mut seat, Signal::SIGINT);
        let said = desk.ended(seat, Signal::SIGINT);
        assert!(!said.contains("error"), "after {after} ms: {said}");
    }
}
