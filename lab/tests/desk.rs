//! What a person at the desk does, on real guests: entering one, and running again after saving a source.

use nix::{
    pty::openpty,
    sys::{
        signal::{Signal, kill},
        termios::{SetArg, Termios, tcgetattr, tcsetattr},
    },
    unistd::Pid,
};
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// One kernel: every further one costs a boot.
const KERNEL: &str = "6.17";
/// For anything that is waited for, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(300);

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--project", ROOT]).args(arguments);
    command
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = lab(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A program that does not read its input may be gone before all of it is written.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What a program says, piece by piece as it comes.
struct Ear {
    pieces: Receiver<Vec<u8>>,
    heard: String,
}

impl Ear {
    fn on(mut source: impl Read + Send + 'static) -> Self {
        let (sender, pieces) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = source.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { pieces, heard: String::new() }
    }

    /// Waits for words; what comes after them is left for the next call.
    #[track_caller]
    fn wait_for(&mut self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.heard.find(words) {
                self.heard.drain(..at + words.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.pieces.recv_timeout(left);
            let piece = piece.unwrap_or_else(|_| panic!("no `{words}` in: {}", self.heard));
            self.heard.push_str(&text(&piece));
        }
    }
}

/// `lab` in a terminal.
struct Seat {
    child: Child,
    keyboard: File,
    screen: Ear,
    terminal: OwnedFd,
    found: Termios,
}

impl Seat {
    fn take(arguments: &[&str]) -> Self {
        let pty = openpty(None, None).unwrap();
        let seat = || Stdio::from(pty.slave.try_clone().unwrap());
        let found = tcgetattr(&pty.slave).unwrap();
        tcsetattr(&pty.slave, SetArg::TCSANOW, &found).unwrap();
        let child = lab(arguments).stdin(seat()).stdout(seat()).stderr(seat()).env("TERM", "xterm").spawn().unwrap();
        let keyboard = File::from(pty.master);
        let screen = Ear::on(keyboard.try_clone().unwrap());
        Self { child, keyboard, screen, terminal: pty.slave, found }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits for the end: the exit code. The terminal must be as it was.
    #[track_caller]
    fn leave(mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        let now = tcgetattr(&self.terminal).unwrap();
        assert!(now.local_flags == self.found.local_flags, "{:?} was {:?}", now.local_flags, self.found.local_flags);
        assert!(now.input_flags == self.found.input_flags && now.output_flags == self.found.output_flags);
        code
    }
}

#[test]
fn a_command_in_a_topology_gives_its_output_its_errors_and_its_code() {
    let script =
        "cat; ls /run/netns; enter w0 ip -o -4 addr show eth0; enter w0 ping -c 1 10.65.0.3; echo no >&2; exit 7";
    let output = run(&["shell", KERNEL, "--topology", "pods", "--kind", "nk-l3", "--", "sh", "-c", script], b"typed\n");
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(7), "{told}\n{errors}");
    assert!(told.starts_with("typed\nhost\nw0\nw1\n"), "{told}");
    assert!(told.contains("10.65.0.2/32") && told.contains("1 packets received"), "{told}");
    assert!(errors.lines().any(|line| line == "no"), "{errors}");
}

#[test]
fn a_case_stands_with_its_programs_attached_and_goes_on_afterwards() {
    let cell = "R01-redirect-to-pod[netkit,nk-l2]";
    let output = run(&["shell", KERNEL, "--case", cell, "--", "sh", "-c", "enter host bpftool prog"], b"");
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{errors}");
    assert!(told.contains("name redirect ") && told.contains("name count "), "{told}");
    assert!(errors.contains(&format!("{cell}: passed\n")), "{errors}");
    assert!(errors.contains("ok     udp over ipv4 passes from w0 to w1"), "{errors}");
}

#[test]
fn a_guest_that_panics_is_lost_with_its_last_words() {
    let output = run(&["shell", KERNEL, "--", "sh", "-c", "echo c >/proc/sysrq-trigger"], b"");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("sysrq triggered crash"), "{errors}");
}

#[test]
fn keys_reach_the_guest_and_the_terminal_is_put_back() {
    let mut seat = Seat::take(&["shell", KERNEL, "--topology", "pair"]);
    for words in ["host:p0", "enter NODE", "# "] {
        seat.screen.wait_for(words);
    }
    // Ctrl-C is the guest's.
    seat.press(b"sh -c 'echo up $((40 + 1)); sleep 1000'\r");
    // What it says, and not what was typed: before it runs, Ctrl-C would be the prompt's.
    seat.screen.wait_for("up 41");
    seat.press(b"\x03");
    seat.screen.wait_for("# ");
    seat.press(b"enter pod\r");
    seat.screen.wait_for("[pod]");
    seat.press(b"echo $((40 + 2)) $TERM; exit\r");
    seat.screen.wait_for("42 xterm");
    seat.screen.wait_for("# ");
    seat.press(b"exit 5\r");
    assert_eq!(seat.leave(), Some(5));

    let mut seat = Seat::take(&["shell", KERNEL]);
    seat.screen.wait_for("# ");
    seat.press(b"\x1d");
    assert_eq!(seat.leave(), Some(0), "Ctrl-] leaves");

    let mut seat = Seat::take(&["shell", KERNEL]);
    seat.screen.wait_for("# ");
    kill(Pid::from_raw(i32::try_from(seat.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(seat.leave(), Some(128 + 15));
}

#[test]
fn what_can_not_be_entered_is_said_before_anything_boots() {
    for (arguments, code, words) in [
        (&["shell", "6.21"][..], 4, &["no kernel matches `6.21`", "did you mean `6.1`"][..]),
        (&["shell", "6.1*"], 2, &["`6.1*` is several kernels", "6.17"]),
        (&["shell", "6.17", "--topology", "pods2"], 4, &["no topology matches `pods2`", "pods"]),
        (&["shell", "6.17", "--topology", "pods", "--kind", "nk"], 4, &["no kind of link matches `nk`", "nk-l2"]),
        (&["shell", "6.1", "--topology", "pods", "--kind", "nk-l2"], 2, &["6.1 has no netkit", "needs kernel 6.7"]),
        (&["shell", "6.17", "--case", "R01-redirct-to-pod"], 4, &["no case matches", "R01-redirect-to-pod"]),
        (&["shell", "6.17", "--case", "R01"], 2, &["`R01` is ", " cells; name one: R01-redirect-to-pod["]),
        (&["shell", "6.1", "--case", "R01-redirect-to-pod[netkit,nk-l2]"], 2, &["skips on 6.1", "netkit"]),
        (&["shell", "6.17", "--profile", "host", "--", "true"], 2, &["6.17 has no 9p", "6.17-generic"]),
    ] {
        let output = run(arguments, b"");
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        let error: Vec<&str> = errors.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(error.len(), 1, "{arguments:?}: {errors}");
        for word in words {
            assert!(error[0].contains(word), "{arguments:?}: no `{word}` in {}", error[0]);
        }
    }
}

#[test]
fn saving_a_source_runs_the_cells_again_until_ctrl_c() {
    let results = tempfile::tempdir().unwrap();
    let out = results.path().to_str().unwrap();
    let mut child = lab(&["run", "--kernel", KERNEL, "--case", "P03*", "--watch", "--out", out])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = Ear::on(child.stderr.take().unwrap());
    said.wait_for("watching the sources");
    // A source that no program is built from: saving it costs no compiler.
    let list = Path::new(ROOT).join("images/modules.toml");
    File::options().append(true).open(&list).unwrap().write_all(b"").unwrap();
    said.wait_for("round 2: images/modules.toml changed");
    said.wait_for("round 2: ");
    said.wait_for(" as before");
    said.wait_for("watching the sources");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let runs = fs::read_dir(results.path()).unwrap().flatten().filter(|it| it.file_type().unwrap().is_dir()).count();
    assert_eq!(runs, 2);
}
