//! `lab exec` on real guests: streams, exit codes, signals, terminals, and the manners of a prefix.

#[path = "support/seat.rs"]
mod seat;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use seat::Seat;
use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Once,
    thread,
    time::Duration,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// A single kernel for what does not depend on the kernel.
const KERNEL: &str = "6.12";

fn exec(arguments: &[&str]) -> Command {
    // `lab exec` itself uses the agent that was built last.
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        // A run of no case builds it.
        let built = lab().args(["run", "--kernel", KERNEL, "--case", "nosuch-case"]).output().unwrap();
        assert_eq!(built.status.code(), Some(4), "{}", text(&built.stderr));
    });
    let mut command = lab();
    command.args(["exec", "--no-build"]).args(arguments);
    command
}

fn lab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--project", ROOT]);
    command
}

fn output(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // A program that does not read its input may have exited before all of it is written.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

fn on(kernel: &str, command: &[&str], input: &[u8]) -> Output {
    output(exec(&["-k", kernel, "--"]).args(command), input)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Commands as somebody types them: in the guest they must print and return what they do here.
const TYPED: [&[&str]; 50] = [
    &["true"],
    &["false"],
    &["sh", "-c", "exit 3"],
    &["sh", "-c", "exit 255"],
    &["sh", "-c", "echo out; echo err >&2"],
    &["sh", "-c", "kill -TERM $$"],
    &["sh", "-c", "kill -KILL $$"],
    &["sh", "-c", "kill -PIPE $$"],
    &["sh", "-c", "ulimit -c 0; kill -SEGV $$"],
    &["printf", "%s|", "a b", "", "*", "$HOME", "\"q\"", "'s'", "\\"],
    &["printf", "\\000\\001\\377"],
    &["echo", "-n", "no newline"],
    &["cat"],
    &["wc", "-c"],
    &["head", "-c", "5"],
    &["tr", "a-z", "A-Z"],
    &["md5sum"],
    &["sort", "-r"],
    &["sed", "-n", "2p"],
    &["pwd"],
    &["ls", "-a", "crates"],
    &["ls", "-d", "lab", "crates"],
    &["cat", "rust-toolchain.toml"],
    &["test", "-f", "Cargo.toml"],
    &["test", "-e", "nonexistent"],
    &["test", "-t", "0"],
    &["test", "-t", "1"],
    &["sh", "-c", "echo $FOREIGN; echo ${UNSET-unset}"],
    &["sh", "-c", "echo $PATH"],
    &["sh", "-c", "echo $HOME $USER $LANG"],
    &["id", "-u"],
    &["sh", "-c", "umask"],
    &["sh", "-c", "read a; read b; echo \"$b-$a\""],
    &["sh", "-c", "cat; echo end >&2; exit 9"],
    &["sh", "-c", "exec 2>&1; echo both; echo same >&2"],
    &["sh", "-c", "exec >&-; exec 2>&-; exit 4"],
    &["seq", "1", "20000"],
    &["sh", "-c", "seq 1 2000 >&2"],
    &["sh", "-c", "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); done"],
    &["env", "-i", "A=1", "sh", "-c", "echo $A"],
    &["timeout", "1", "sleep", "20"],
    &["sh", "-c", "exit 124"],
    &["sh", "-c", "(exit 6) & wait $!"],
    &["sh", "-c", "trap 'echo bye; exit 5' EXIT; false"],
    &["sh", "-c", "echo tmp > /tmp/lab-exec-test-$$ && cat /tmp/lab-exec-test-$$; rm /tmp/lab-exec-test-$$"],
    &["python3", "-c", "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.exit(2)"],
    &["python3", "-c", "raise SystemExit('message')"],
    &["python3", "-c", "import os; os.abort()"],
    &["git", "--version"],
    &["bash", "-c", "echo x > >(cat); wait"],
];

/// The device with memory for streams; its bytes go there and not through the port once there are many.
#[test]
fn many_bytes_of_all_streams_are_whole_and_go_through_the_memory_for_them() {
    // Numbers: a piece that is lost, doubled or in another place changes the bytes.
    let input: Vec<u8> = (0..3_000_017_u32).flat_map(u32::to_le_bytes).collect();
    // Emulated guests have the device: under KVM the port is as fast.
    let script = "tee /dev/stderr; ! grep -q 'QEMU TCG' /proc/cpuinfo || grep -lx 0x1110 /sys/bus/pci/devices/*/device >/tmp/found";
    let ran = on(KERNEL, &["sh", "-c", script], &input);
    let errors = &ran.stderr[ran.stderr.len().saturating_sub(input.len())..];
    assert!(ran.stdout == input, "{} of {} bytes came out", ran.stdout.len(), input.len());
    assert!(errors == input, "{} of {} bytes came out", errors.len(), input.len());
    assert!(ran.status.success(), "the guest has no memory for streams");
    // A reader who takes one page at a time, and a command that reads none of it.
    let mut slow = exec(&["-k", KERNEL, "--", "cat"]);
    let mut child = slow.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut got = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            input.chunks(60_001).for_each(|piece| stdin.write_all(piece).unwrap());
            drop(stdin);
        });
        let mut page = [0; 4096];
        while let Ok(count @ 1..) = stdout.read(&mut page) {
            got.extend_from_slice(&page[..count]);
            if got.len() % 97 == 0 {
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    assert!(child.wait().unwrap().success());
    assert!(got == input, "{} of {} bytes came out", got.len(), input.len());
    assert_eq!(on(KERNEL, &["sh", "-c", "exit 7"], &input).status.code(), Some(7));
}

#[test]
fn fifty_commands_print_and_return_the_same_with_and_without_the_prefix() {
    let input = b"one\ntwo\nthree\n";
    let usual = |command: &mut Command| {
        command.current_dir(ROOT).env("FOREIGN", "über $ \"");
        output(command, input)
    };
    // The first guest of a kernel is booted, and says so.
    on(KERNEL, &["true"], b"");
    let mut wrong = Vec::new();
    for typed in TYPED {
        let here = usual(Command::new(typed[0]).args(&typed[1..]));
        let there = usual(exec(&["-k", KERNEL, "--"]).args(typed));
        // What a shell would say of both.
        let code = |output: &Output| output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal));
        if (code(&here), &here.stdout, &here.stderr) != (code(&there), &there.stdout, &there.stderr) {
            let told = |it: &Output| format!("{:?} {:?} {:?}", code(it), text(&it.stdout), text(&it.stderr));
            wrong.push(format!("{typed:?}\n  here:  {:.300}\n  there: {:.300}", told(&here), told(&there)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), TYPED.len(), wrong.join("\n"));
}

#[test]
fn what_can_not_be_started_is_126_or_127_with_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
    arm.resize(64, 0);
    arm[18] = 183;
    for (name, content, mode) in
        [("arm", &arm[..], 0o755), ("plain", b"x", 0o644), ("script", b"#!/nonexistent/sh\n", 0o755)]
    {
        fs::write(dir.path().join(name), content).unwrap();
        fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (command, code, line) in [
        ("nosuch-command", 127, "nosuch-command: not found in the guest"),
        ("./nosuch", 127, "./nosuch: not found in the guest"),
        ("./arm", 126, "./arm is a program for aarch64; this guest is x86_64"),
        ("./plain", 126, "./plain is not executable (mode 0644)"),
        ("./script", 127, "./script is there, and the program that interprets or loads it is not: /nonexistent/sh"),
        ("/", 126, "/ is a directory"),
    ] {
        let got = output(exec(&["-k", KERNEL, "--", command]).current_dir(dir.path()), b"");
        let errors = text(&got.stderr);
        assert_eq!(got.status.code(), Some(code), "{command}: {errors}");
        assert!(errors.lines().count() == 1 && errors.contains(line) && got.stdout.is_empty(), "{command}: {errors}");
    }
    let got = output(&mut exec(&["-k", KERNEL, "--cwd", "/nonexistent/dir", "--", "true"]), b"");
    assert!(got.status.code().is_some_and(|code| code >= 125), "{got:?}");
    assert!(text(&got.stderr).contains("/nonexistent/dir"), "{got:?}");
}

#[test]
fn a_timeout_a_daemon_and_a_wrong_command_line_are_told() {
    let got = output(&mut exec(&["-k", KERNEL, "--timeout", "4", "--", "sh", "-c", "echo begun; sleep 100"]), b"");
    assert_eq!((got.status.code(), text(&got.stdout)), (Some(124), "begun\n".to_owned()));
    assert!(text(&got.stderr).contains("6.12: failed: timeout: still running after 4.0s"), "{}", text(&got.stderr));
    let got = on(KERNEL, &["sh", "-c", "sleep 1000 & echo started"], b"");
    assert_eq!((got.status.code(), text(&got.stdout)), (Some(0), "started\n".to_owned()));
    assert!(text(&got.stderr).contains("left processes running, which were killed: sleep ("), "{}", text(&got.stderr));
    for wrong in [&["--kind", "nk-l3", "--", "true"][..], &["-k", "nosuch", "--", "true"], &["-k", KERNEL]] {
        let got = output(&mut exec(wrong), b"");
        assert_eq!((got.status.code(), got.stdout.len()), (Some(125), 0), "{wrong:?}: {}", text(&got.stderr));
    }
}

#[test]
fn bytes_pass_both_ways_in_order_and_a_reader_who_leaves_ends_the_writer() {
    let bytes: Vec<u8> = (0..20_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let got = on(KERNEL, &["cat"], &bytes);
    assert_eq!(got.status.code(), Some(0), "{}", text(&got.stderr));
    assert!(got.stdout == bytes, "{} of {} bytes", got.stdout.len(), bytes.len());
    let mut argument = b"a\xff\xfe".to_vec();
    let got = output(exec(&["-k", KERNEL, "--", "printf", "%s"]).arg(OsStr::from_bytes(&argument)), b"");
    assert_eq!(got.stdout, std::mem::take(&mut argument));

    let mut child = exec(&["-k", KERNEL, "--", "yes"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut few = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut few).unwrap();
    assert_eq!((&few, child.wait().unwrap().code()), (b"y\ny\ny\n", Some(141)));
}

#[test]
fn a_signal_reaches_the_command_and_a_second_one_ends_the_lab() {
    let script = "trap 'echo got it; exit 42' TERM; echo ready; while :; do sleep 0.1; done";
    let start = |script: &str| {
        let mut command = exec(&["-k", KERNEL, "--", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let mut ready = [0; 6];
        output.read_exact(&mut ready).unwrap();
        assert_eq!(&ready, b"ready\n");
        (child, output)
    };
    let (mut child, mut rest) = start(script);
    let pid = |child: &std::process::Child| Pid::from_raw(i32::try_from(child.id()).unwrap());
    kill(pid(&child), Signal::SIGTERM).unwrap();
    let mut told = String::new();
    rest.read_to_string(&mut told).unwrap();
    assert_eq!((told.as_str(), child.wait().unwrap().code()), ("got it\n", Some(42)));

    let (mut child, _rest) = start("trap '' INT; echo ready; while :; do sleep 0.1; done");
    kill(pid(&child), Signal::SIGINT).unwrap();
    thread::sleep(Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "the first signal is the command's, which ignores it");
    kill(pid(&child), Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn several_kernels_have_prefixed_lines_whole_files_and_one_exit_code() {
    let results = tempfile::tempdir().unwrap();
    let place = results.path().to_str().unwrap();
    let script = "uname -r; case $(uname -r) in 6.1.*) exit 5;; esac";
    let options = ["-k", "6.1,6.12,6.17", "--results", place, "--name", "release", "--", "sh", "-c", script];
    let got = output(&mut exec(&options), b"");
    let told = text(&got.stdout);
    assert_eq!(got.status.code(), Some(1), "{told}\n{}", text(&got.stderr));
    for kernel in ["6.1 ", "6.12", "6.17"] {
        assert!(told.lines().any(|line| line.starts_with(&format!("{kernel} | {}.", kernel.trim()))), "{told}");
    }
    assert!(told.contains("2 passed") && told.contains("1 failed") && told.contains("exit: exit code 5"), "{told}");
    let latest = results.path().join("latest");
    for kernel in ["6.1", "6.12", "6.17"] {
        let kept = fs::read_to_string(latest.join(kernel).join("cells/release/stdout.txt")).unwrap();
        assert!(kept.starts_with(&format!("{kernel}.")), "{kept}");
    }
    let junit = fs::read_to_string(latest.join("junit.xml")).unwrap();
    assert!(junit.contains("exit code 5") && junit.contains("6.12/cells/release/stdout.txt"), "{junit}");
    let again = lab().args(["rerun", "--failed", "--no-build"]).arg(Path::new(place).join("latest")).output().unwrap();
    assert_eq!(again.status.code(), Some(5), "{}{}", text(&again.stdout), text(&again.stderr));
}

#[test]
fn a_command_in_a_node_sees_its_devices_and_parameters() {
    let options = ["-k", "6.12", "--topology", "pods", "--kind", "nk-l3", "--node", "w0", "--sysctl"];
    let script = "ip -o -4 addr show eth0; cat /proc/sys/net/ipv4/ip_forward; ls /sys/class/net";
    let got = output(exec(&options).args(["net.ipv4.ip_forward=1", "--", "sh", "-c", script]), b"");
    let told = text(&got.stdout);
    assert_eq!(got.status.code(), Some(0), "{told}\n{}", text(&got.stderr));
    assert!(told.contains("10.65.0.2/32"), "{told}");
    let listed: Vec<&str> = told.lines().skip_while(|line| *line != "1").collect();
    assert!(listed.contains(&"eth0"), "/sys is of the node's namespace: {told}");
    let got = output(
        exec(&["-k", "6.12", "--topology", "pods", "--kind", "veth", "--node", "w9", "--", "true"]).env("X", ""),
        b"",
    );
    assert_eq!(got.status.code(), Some(125), "{}", text(&got.stderr));
    assert!(text(&got.stderr).contains("the topology has no node w9; it has host, w0, w1"), "{}", text(&got.stderr));
}

#[test]
fn a_panic_is_no_exit_code_and_a_splat_is_red() {
    // What the command has printed is in the guest until it is read here: the panic waits for that.
    let panic = "echo before; read go; echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 60";
    let mut command = exec(&["-k", KERNEL, "--", "sh", "-c", panic]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut printed = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut printed).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    stdout.read_to_string(&mut printed).unwrap();
    let got = child.wait_with_output().unwrap();
    let errors = text(&got.stderr);
    assert_eq!((got.status.code(), &*printed), (Some(125), "before\n"), "{errors}");
    assert!(errors.contains("errored: panic"), "{errors}");
}

#[test]
fn commands_side_by_side_do_not_disturb_each_other() {
    let children: Vec<_> = (0..4)
        .map(|number| {
            let script = format!("sleep 0.{number}; cat; exit {number}");
            let mut command = exec(&["-k", KERNEL, "--", "sh", "-c", &script]);
            thread::spawn(move || output(&mut command, number.to_string().as_bytes()))
        })
        .collect();
    for (number, child) in children.into_iter().enumerate() {
        let got = child.join().unwrap();
        let wanted = (i32::try_from(number).ok(), number.to_string());
        assert_eq!((got.status.code(), text(&got.stdout)), wanted, "{}", text(&got.stderr));
    }
}

#[test]
fn at_a_terminal_the_command_has_one() {
    let mut seat = Seat::take(&exec(&["-k", KERNEL, "--", "sh", "-i"]));
    seat.screen.wait_for("# ");
    // Waits for the output, not for the echo: before the command runs, Ctrl-C would only affect the prompt. And the process
    // that is to end says so itself: a child of an interactive shell loses an interrupt until it has become the program.
    seat.press(b"test -t 0 && test -t 1 && test -t 2 && stty size && sh -c 'echo up $((40 + 1)); exec sleep 1000'\r");
    seat.screen.wait_for("24 80");
    seat.screen.wait_for("up 41");
    seat.press(b"\x03");
    seat.screen.wait_for("# ");
    // Job control: a session and a foreground process group of its own.
    // An interactive shell ignores SIGTERM, and so does its child until it has become the program.
    let job =
        "sleep 1000 & jobs; until grep -q sleep /proc/$!/comm; do :; done; kill %1; wait; echo done $((40 + 2))\r";
    seat.press(job.as_bytes());
    seat.screen.wait_for("done 42");
    seat.press(b"exit 5\r");
    assert_eq!(seat.leave().0, Some(5));
}

/// The events of a run below a directory of results.
fn events(results: &Path) -> Vec<serde_json::Value> {
    let log = fs::read_to_string(results.join("latest/events.jsonl")).unwrap();
    log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_command_has_every_processor_and_its_guest_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().display().to_string();
    let got = output(&mut exec(&["-k", KERNEL, "--results", &results, "--", "nproc"]), b"");
    assert_eq!(text(&got.stdout), "2\n", "{}", text(&got.stderr));
    let events = events(dir.path());
    let find = |name: &str| events.iter().find(|event| event["event"] == name).unwrap();
    let command = find("cell-finished")["verdict"]["report"]["duration_us"].as_u64().unwrap() / 1000;
    let shutdown = find("guest-ended")["shutdown_ms"].as_u64().unwrap();
    // Both take longer on a busy machine. Taking the witness off each of the kernel's functions takes three commands' time.
    assert!(shutdown < command, "the command took {command} ms, and the end of its guest {shutdown} ms");
}

/// Flags that cmpxchg16b does not change (Intel SDM, CMPXCHG8B/CMPXCHG16B: "The CF, PF, AF, SF, and OF flags are unaffected").
const UNAFFECTED: u64 = 1 << 11 | 1 << 7 | 1 << 4 | 1 << 2 | 1;
/// The flag that says whether the values were equal.
const EQUAL: u64 = 1 << 6;

/// Executes cmpxchg16b behind these flags; gives the flags behind it.
fn flags_after_cmpxchg16b(flags: u64, equal: bool) -> u64 {
    #[repr(align(16))]
    struct Cell16([u64; 2]);
    let mut cell = Cell16([7, 9]);
    let (low, high) = if equal { (7_u64, 9_u64) } else { (7, 8) };
    let after: u64;
    // SAFETY: cmpxchg16b reads and writes the 16 bytes of `cell`, which are aligned; rbx, which LLVM reserves, has its value again; the
    // flags that are set are arithmetic ones, and the stack is as it was.
    unsafe {
        std::arch::asm!(
            "xchg {new}, rbx",
            "push {flags}",
            "popfq",
            "lock cmpxchg16b xmmword ptr [{cell}]",
            "pushfq",
            "pop {flags}",
            "mov rbx, {new}",
            new = inout(reg) 5_u64 => _,
            cell = in(reg) cell.0.as_mut_ptr(),
            flags = inout(reg) flags => after,
            inout("rax") low => _,
            inout("rdx") high => _,
            in("rcx") 6_u64,
        );
    }
    assert_eq!(cell.0, if equal { [5, 6] } else { [7, 9] });
    after
}

/// What [`cmpxchg16b_leaves_the_flags_of_a_processor`] runs in a guest.
#[test]
#[ignore = "runs in a guest"]
fn flags_of_cmpxchg16b() {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap();
    assert!(cpuinfo.split_whitespace().any(|flag| flag == "cx16"), "the processor has no cmpxchg16b");
    for round in 0..20_000_u64 {
        // The reserved flag that is always set, and interrupts; then every mixture of the arithmetic flags.
        let spread = [0, 2, 4, 6, 7, 11].iter().enumerate().fold(0, |all, (bit, at)| all | (round >> bit & 1) << at);
        let (before, equal) = (0x202 | spread, round % 128 < 64);
        let after = flags_after_cmpxchg16b(before, equal);
        let wanted = before & UNAFFECTED | if equal { EQUAL } else { 0 };
        assert_eq!(after & (UNAFFECTED | EQUAL), wanted, "round {round}: {before:#x} became {after:#x}");
        assert_eq!(after & !(UNAFFECTED | EQUAL), 0x202, "round {round}: {before:#x} became {after:#x}");
    }
}

#[test]
fn cmpxchg16b_leaves_the_flags_of_a_processor() {
    let own = std::env::current_exe().unwrap().display().to_string();
    for cpus in ["1", "2"] {
        let test = ["--exact", "flags_of_cmpxchg16b", "--ignored"];
        let options = ["-k", KERNEL, "--cpus", cpus, "--", &own];
        let got = output(&mut exec(&[&options[..], &test].concat()), b"");
        let said = text(&got.stdout);
        assert!(got.status.success() && said.contains("1 passed"), "{cpus}: {said}{}", text(&got.stderr));
    }
}

/// Cores of the run that `results` has, with their first bytes.
fn cores(results: &Path) -> Vec<(String, Vec<u8>)> {
    let latest = results.join("latest").canonicalize().unwrap();
    let files = walkdir::WalkDir::new(&latest).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let named = files.filter(|entry| entry.file_name().to_string_lossy().starts_with("core."));
    named
        .map(|entry| {
            let mut begin = vec![0; 4];
            fs::File::open(entry.path()).unwrap().read_exact(&mut begin).unwrap();
            (entry.path().strip_prefix(&latest).unwrap().display().to_string(), begin)
        })
        .collect()
}

#[test]
fn a_core_dump_is_kept_with_the_results_where_the_limit_allows_it() {
    let dir = tempfile::tempdir().unwrap();
    let results = dir.path().display().to_string();
    let dies = |options: &[&str], script: &str| {
        let fixed = ["-k", KERNEL, "--results", &results];
        let got = output(&mut exec(&[&fixed[..], options, &["--", "sh", "-c", script]].concat()), b"");
        (got.status.code(), text(&got.stderr), cores(dir.path()))
    };
    let (code, said, kept) = dies(&["--core", "64M"], "kill -SEGV $$");
    assert_eq!(code, Some(139), "{said}");
    let [(path, begin)] = &kept[..] else { panic!("{kept:?} {said}") };
    assert!(path.starts_with("6.12/cells/sh-") && path.contains("/core.sh.") && path.ends_with(".signal-11"), "{path}");
    assert_eq!(begin, b"\x7fELF");
    assert!(said.contains("core dump of ") && said.contains(path.as_str()) && !said.contains("cut off"), "{said}");
    // The reports name it.
    let page = fs::read_to_string(dir.path().join("latest/report.html")).unwrap();
    assert!(page.contains(path.rsplit('/').next().unwrap()), "report.html does not name {path}");

    // A child's, with a limit of its own; and one that is cut off.
    let (code, said, kept) = dies(&["--core", "64M"], "(ulimit -c 8; sh -c 'kill -ABRT $$'); exit 5");
    assert_eq!((code, kept.len()), (Some(5), 1), "{said}");
    let size = fs::metadata(dir.path().join("latest").join(&kept[0].0)).unwrap().len();
    // dash and bash count in blocks of 512 and 1024 bytes.
    assert!([4096, 8192].contains(&size), "{size}");

    // As typed in a shell with `ulimit -c 0`, whatever the limit of this test.
    for options in [&["--core", "0"][..], &["--root", "image"]] {
        let (code, said, kept) = dies(options, "ulimit -c 0; kill -SEGV $$");
        assert_eq!((code, kept.len()), (Some(139), 0), "{said}");
        assert!(!said.contains("core dump"), "{said}");
    }
}

#[test]
fn the_bench_has_its_targets_beside_the_figures() {
    exec(&[]);
    let mut bench = lab();
    bench.args(["bench", "exec", "--kernel", KERNEL, "--repeat", "0", "--commands", "3"]);
    let got = output(&mut bench, b"");
    let (said, errors) = (text(&got.stdout), text(&got.stderr));
    assert_eq!(got.status.code(), Some(0), "{errors}");
    let target = |start: &str, end: &str| said.lines().any(|line| line.starts_with(start) && line.ends_with(end));
    assert!(target("| from the restored guest to the end of `true`, `--root host`, s | ", " | 0.5 |"), "{said}");
    assert!(target("| peak memory, `--root host` of `--root image` | ", " | 1.3 |"), "{said}");
    assert!(said.contains("3 commands on 6.12, a pristine guest each"), "{said}");
    assert!(!said.contains("on one kernel, of"), "nothing was compared with virtme-ng: {said}");
    let path = Path::new(ROOT).join("results/bench-exec.json");
    let figures: serde_json::Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert!(
        figures["host_root_s"]["median"].as_f64() > Some(0.0) && figures["one"] == serde_json::json!([]),
        "{figures}"
    );
    assert!((0.5..2.0).contains(&figures["memory_ratio"]["median"].as_f64().unwrap()), "{figures}");
    assert_eq!(figures["commands"]["count"], 3);
}
