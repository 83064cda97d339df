//! `lab serve` on real guests: runs take the guests that it holds, find in them what they would find in one of their own, and
//! nothing is left of them when a run, the server or both end.

#[path = "support/cache.rs"]
mod cache;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const KERNEL: &str = "6.12";
const CELL: &str = "K01-attachment-is-read-back[tc,veth,from-workload]";
/// Time for what takes a second.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cache of its own, in which nobody else holds guests.
struct Desk {
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { dir: tempfile::tempdir().unwrap() };
        cache::but(&desk.cache(), &["none"]);
        let _ = fs::remove_file(desk.cache().join("serve.json"));
        let built = desk.lab(&["build"]).output().unwrap();
        assert!(built.status.success(), "{}", text(&built.stderr));
        desk
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--project", ROOT]).args(arguments).env("NETKIT_LAB_CACHE", self.cache()).stdin(Stdio::null());
        command
    }

    /// A run of one cell, and how its guest began.
    fn run(&self) -> String {
        let out = self.dir.path().join("results");
        let place = out.to_str().unwrap();
        let ran = self.lab(&["run", "--no-build", "-k", KERNEL, "--case", CELL, "--out", place]).output().unwrap();
        assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
        start(&out)
    }

    /// A command, and how its guest began.
    fn exec(&self, script: &str) -> (Output, String) {
        let out = self.dir.path().join("commands");
        let place = out.to_str().unwrap();
        let words = ["exec", "-k", KERNEL, "--results", place, "--", "sh", "-c", script];
        let mut child = self
            .lab(&words)
            .env("GREETING", "hello")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
        (child.wait_with_output().unwrap(), start(&out))
    }

    fn serve(&self) -> Server {
        let log = self.dir.path().join(format!("serve-{}.log", fs::read_dir(self.dir.path()).unwrap().count()));
        let child = self.lab(&["serve"]).stderr(File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        let server = Server { child, log };
        server.wait_for("Ctrl-C ends it", 1);
        server
    }
}

/// How the guests of the latest run began.
fn start(results: &Path) -> String {
    let events = fs::read_to_string(results.join("latest/events.jsonl")).unwrap();
    let starts = events.lines().filter(|line| line.contains(r#""event":"guest-started""#));
    let kind = |line: &str| line.split(r#""start":""#).nth(1)?.split('"').next().map(str::to_owned);
    starts.filter_map(kind).collect::<Vec<_>>().join(" ")
}

struct Server {
    child: Child,
    log: PathBuf,
}

impl Server {
    fn told(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn wait_for(&self, words: &str, times: usize) {
        let count = || self.told().matches(words).count();
        until(|| count() >= times, &|| format!("{words} × {times} in {}", self.told()));
    }

    /// Waits until so many guests have become ready.
    fn ready(&self, times: usize) {
        self.wait_for("a guest is ready", times);
    }

    /// Processes of its guests.
    fn guests(&self) -> usize {
        let mark = format!(".{}.", self.child.id());
        let is_guest = |entry: fs::DirEntry| {
            let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let words = String::from_utf8_lossy(&words).into_owned();
            words.split('\0').any(|word| word.starts_with("nkl.") && word.contains(&mark))
        };
        fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(is_guest_process)
            .filter_map(|it| is_guest(it).then_some(()))
            .count()
    }

    fn hit(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> Option<i32> {
        until(|| self.child.try_wait().unwrap().is_some(), &|| "the server's end".to_owned());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_guest_process(entry: &fs::DirEntry) -> bool {
    fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.starts_with("qemu"))
}

#[track_caller]
fn until(mut is_so: impl FnMut() -> bool, what: &dyn Fn() -> String) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        thread::sleep(Duration::from_millis(20));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The same without the number of the directory that its root was made in.
fn shown(bytes: &[u8]) -> String {
    text(bytes).replace("/lab/worlds/1/", "/lab/worlds/0/")
}

/// What a command can see of its guest. Pids and times differ between any two guests.
const LOOK: &str = "cat; echo $GREETING; pwd; id; uname -r; nproc; ls / /run /dev /sys/fs/cgroup /sys/fs/bpf; sort /proc/mounts; \
                    ls -l /proc/self/ns | sed 's/.* //' | cut -d: -f1; cat /proc/net/dev | cut -d: -f1; cat /proc/modules | cut -d' ' -f1 | sort; \
                    cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/hostname; ulimit -a; umask; touch /new && ls /new; \
                    ls /work 2>/dev/null | head -1; echo problem >&2; exit 7";

#[test]
fn a_held_guest_is_like_one_that_was_just_restored() {
    let desk = Desk::new();
    // A snapshot of each kind.
    desk.run();
    desk.exec("true");
    let (own, began) = desk.exec(LOOK);
    assert_eq!((own.status.code(), began.as_str()), (Some(7), "restore"), "{}", text(&own.stderr));
    let mut server = desk.serve();
    assert_eq!(desk.run(), "restore", "nothing was asked for before");
    server.ready(2);
    assert_eq!(desk.run(), "held");
    server.ready(3);
    desk.exec("true");
    server.ready(5);
    for _ in 0..2 {
        let (held, began) = desk.exec(LOOK);
        assert_eq!(began, "held");
        assert_eq!(held.status.code(), Some(7));
        assert_eq!(shown(&held.stdout), text(&own.stdout));
        assert_eq!(text(&held.stderr), text(&own.stderr));
    }
    // Where this host's files are withheld, no guest is used that has seen any.
    let out = desk.dir.path().join("closed");
    let closed = ["exec", "-k", KERNEL, "--results", out.to_str().unwrap(), "--root", "none", "--", "true"];
    assert_eq!(desk.lab(&closed).status().unwrap().code(), Some(0));
    assert_eq!(start(&out), "restore");
    let few = desk.lab(&["serve", "--guests", "3", "--most", "2"]).output().unwrap();
    assert_eq!(few.status.code(), Some(2), "{}", text(&few.stderr));
    assert!(text(&few.stderr).contains("--most 2 is less than --guests 3"));
    // A run that wants guests of its own gets them.
    let out = desk.dir.path().join("cold");
    let isolated =
        ["run", "--no-build", "-k", KERNEL, "--case", CELL, "--isolate", "case", "--out", out.to_str().unwrap()];
    assert_eq!(desk.lab(&isolated).status().unwrap().code(), Some(0));
    assert_eq!(start(&out), "restore");
    let second = desk.lab(&["serve"]).output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let said = text(&second.stderr);
    assert!(said.contains(&format!("already runs for this cache, as process {}", server.child.id())), "{said}");
    assert!(server.guests() > 0);
    server.hit(Signal::SIGTERM);
    assert_eq!((server.end(), server.guests()), (Some(0), 0));
    assert!(!desk.cache().join("serve.json").exists());
    assert_eq!(desk.run(), "restore");
}

#[test]
fn guests_end_with_whoever_uses_or_holds_them() {
    let desk = Desk::new();
    desk.exec("true");
    let mut server = desk.serve();
    let said = desk.dir.path().join("serve.json");
    fs::copy(desk.cache().join("serve.json"), &said).unwrap();
    desk.exec("true");
    server.ready(2);
    // A run is killed.
    let out = desk.dir.path().join("commands");
    let words = ["exec", "-k", KERNEL, "--results", out.to_str().unwrap(), "--", "sh", "-c", "echo here; sleep 1000"];
    let begin = |log: &Path| {
        let child = desk.lab(&words).stdout(File::create(log).unwrap()).stderr(Stdio::null()).spawn().unwrap();
        until(|| fs::read(log).unwrap() == b"here\n", &|| format!("{log:?}"));
        child
    };
    let log = desk.dir.path().join("said");
    let mut child = begin(&log);
    server.wait_for("is lent", 1);
    child.kill().unwrap();
    child.wait().unwrap();
    until(|| server.guests() == 1, &|| format!("one guest, of {}", server.guests()));
    let (output, began) = desk.exec("echo well");
    assert_eq!((text(&output.stdout).as_str(), began.as_str()), ("well\n", "held"), "{}", text(&output.stderr));
    // The server waits for a run that uses a guest of its, and is killed meanwhile.
    server.ready(3);
    let mut child = begin(&log);
    server.hit(Signal::SIGTERM);
    server.wait_for("waiting for 1 run with guests of this process", 1);
    assert_eq!(child.try_wait().unwrap(), None);
    server.hit(Signal::SIGKILL);
    server.end();
    until(|| server.guests() == 0, &|| "the end of all guests".to_owned());
    let lost = child.wait().unwrap().code();
    assert_eq!(lost, Some(125), "a guest that is lost");
    // Nobody listens where the cache says.
    fs::copy(&said, desk.cache().join("serve.json")).unwrap();
    let (output, began) = desk.exec("echo alone");
    assert_eq!((text(&output.stdout).as_str(), began.as_str()), ("alone\n", "restore"), "{}", text(&output.stderr));
    let place: serde_json::Value = serde_json::from_slice(&fs::read(&said).unwrap()).unwrap();
    let socket = Path::new(place["socket"].as_str().unwrap());
    assert!(!socket.parent().unwrap().exists(), "a run removes what a killed server leaves");
    let mut server = desk.serve();
    server.hit(Signal::SIGINT);
    assert_eq!(server.end(), Some(0));
}
