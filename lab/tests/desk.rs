//! Interactive use on real guests: `lab shell`, and `--watch`.

#[path = "support/seat.rs"]
mod seat;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use seat::{Ear, Seat};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Once,
    thread,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// A single kernel, since each costs a boot.
const KERNEL: &str = "6.17";

fn lab(arguments: &[&str]) -> Command {
    // The first build takes minutes on a busy machine, which is not part of the deadlines.
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let listed = bare_lab(&["build"]).output().unwrap();
        assert!(listed.status.success(), "{}", text(&listed.stderr));
    });
    bare_lab(arguments)
}

fn bare_lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--project", ROOT]).args(arguments);
    command
}

fn run(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = lab(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A program that does not read its input may have exited before all of it is written.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_command_in_a_topology_returns_its_output_errors_and_exit_code() {
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
fn a_case_is_stopped_with_its_programs_attached_and_continues_afterwards() {
    let cell = "R01-redirect-to-pod[netkit,nk-l2]";
    let output = run(&["shell", KERNEL, "--case", cell, "--", "sh", "-c", "enter host bpftool prog"], b"");
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{errors}");
    assert!(told.contains("name redirect ") && told.contains("name count "), "{told}");
    assert!(errors.contains(&format!("{cell}: passed\n")), "{errors}");
    assert!(errors.contains("ok     udp over ipv4 passes from w0 to w1"), "{errors}");
    // Where no packet is sent, it is stopped once it has attached what it attaches.
    let cell = "M05-bad-requests[tcx,veth,from-workload]";
    let output = run(&["shell", KERNEL, "--case", cell, "--", "sh", "-c", "enter host bpftool net show"], b"");
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{errors}");
    assert!(told.contains("p0(100) tcx/ingress"), "{told}");
    assert!(errors.contains(&format!("{cell}: passed\n")), "{errors}");
}

#[test]
fn a_guest_that_panics_is_lost_with_its_panic_message() {
    let output = run(&["shell", KERNEL, "--", "sh", "-c", "echo c >/proc/sysrq-trigger"], b"");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("sysrq triggered crash"), "{errors}");
}

#[test]
fn keys_are_sent_to_the_guest_and_the_terminal_is_restored() {
    let mut seat = Seat::take(&lab(&["shell", KERNEL, "--topology", "pair"]));
    for words in ["host:p0", "enter NODE", "# "] {
        seat.screen.wait_for(words);
    }
    // Ctrl-C is sent to the guest.
    seat.press(b"sh -c 'echo up $((40 + 1)); sleep 1000'\r");
    // Waits for the output, not for the echo: before the command runs, Ctrl-C would only affect the prompt.
    seat.screen.wait_for("up 41");
    seat.press(b"\x03");
    seat.screen.wait_for("# ");
    seat.press(b"enter pod\r");
    seat.screen.wait_for("[pod]");
    // Standard streams and bash's own copy of the terminal, and no descriptor of the agent.
    seat.press(b"echo $((40 + 2)) $TERM; ls /proc/$$/fd | xargs echo open; exit\r");
    seat.screen.wait_for("42 xterm\r\nopen 0 1 2 255\r\n");
    seat.screen.wait_for("# ");
    seat.press(b"exit 5\r");
    assert_eq!(seat.leave().0, Some(5));

    let mut seat = Seat::take(&lab(&["shell", KERNEL]));
    seat.screen.wait_for("# ");
    seat.press(b"\x1d");
    assert_eq!(seat.leave().0, Some(0), "Ctrl-] ends it");

    let mut seat = Seat::take(&lab(&["shell", KERNEL]));
    seat.screen.wait_for("# ");
    seat.signal(Signal::SIGTERM);
    assert_eq!(seat.leave().0, Some(128 + 15));
}

#[test]
fn the_hosts_files_are_readable_and_changes_stay_in_the_guest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap();
    fs::write(path.join("here"), "of the host\n").unwrap();
    let script = format!(
        "cd '{}'; cat here; echo changed >here; cat here; echo new >there; cat there; rm here; ls; uname -r; exit 9",
        path.display()
    );
    let output = run(&["shell", KERNEL, "--profile", "host", "--", "sh", "-c", &script], b"");
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(9), "{told}\n{errors}");
    assert!(told.starts_with("of the host\nchanged\nnew\nthere\n"), "{told}\n{errors}");
    assert!(told.ends_with("-amd64\n"), "the kernel is the guest's: {told}");
    assert_eq!(fs::read_to_string(path.join("here")).unwrap(), "of the host\n");
    assert!(!path.join("there").exists());
}

#[test]
fn a_shell_works_on_the_oldest_kernel() {
    let script = "uname -r; enter w0 ip -o link show type veth; enter w0 bpftool net";
    let output = run(&["shell", "6.1", "--topology", "gateway", "--kind", "veth", "--", "sh", "-c", script], b"");
    let (told, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{errors}");
    assert!(told.starts_with("6.1.0-") && told.contains("eth0@") && told.contains("xdp:"), "{told}\n{errors}");
}

#[test]
fn invalid_shell_arguments_are_refused_before_a_guest_boots() {
    for (arguments, code, words) in [
        (&["shell", "6.21"][..], 4, &["no kernel matches `6.21`", "nearest: 6.19.14"][..]),
        (&["shell", "6.1*"], 2, &["`6.1*` matches several kernels", "6.17"]),
        (&["shell", "6.17", "--topology", "pods2"], 4, &["no topology matches `pods2`", "pods"]),
        (&["shell", "6.17", "--topology", "pods", "--kind", "nk"], 4, &["no kind of link matches `nk`", "nk-l2"]),
        (
            &["shell", "6.1", "--topology", "pods", "--kind", "nk-l2"],
            2,
            &["6.1 does not support netkit", "needs kernel 6.7"],
        ),
        (&["shell", "6.17", "--case", "R01-redirct-to-pod"], 4, &["no case matches", "R01-redirect-to-pod"]),
        (&["shell", "6.17", "--case", "R01"], 2, &["`R01` matches ", " cells; select one: R01-redirect-to-pod["]),
        (&["shell", "6.1", "--case", "R01-redirect-to-pod[netkit,nk-l2]"], 2, &["is skipped on 6.1", "netkit"]),
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
    // No program is built from this file, so saving it starts no compiler.
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
