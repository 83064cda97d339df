//! Queries a hanging guest for its state.
//!
//! QEMU reports the registers in any state of the kernel. The kernel reports more, with symbols: its keyboard handler
//! answers Alt-SysRq in interrupt context, even if every task is blocked or a processor spins in the kernel. With
//! interrupts disabled, the last resort is an NMI: the guest treats it as unknown and panics (`unknown_nmi_panic`) with
//! a backtrace of the interrupted code. The `virt` board of arm64 has neither a keyboard nor NMIs: there the registers are all
//! that is told, and the place is the first processor's program counter.

use super::{VmError, process::POLL, qmp::Monitor};
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Keys for Alt-SysRq, `drivers/tty/sysrq.c`: console log level 9, backtraces of all processors, blocked tasks, all
/// tasks.
const KEYS: [&str; 4] = ["9", "l", "w", "t"];
/// A console that has not grown for this long is complete. QEMU holds a key for 100 ms.
const QUIET: Duration = Duration::from_millis(400);
/// Maximum console text that is kept, bytes: some hundred tasks with their stacks.
const MOST: u64 = 512 << 10;

/// State of a hanging guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interrogation {
    /// Texts by name: `registers` from QEMU, `tasks` from the guest's console. Guest text is unescaped.
    pub findings: Vec<(&'static str, String)>,
    /// Function of the first processor, by the kernel's symbols.
    pub place: Option<String>,
    /// Whether its kernel answered the keyboard: it runs, and takes interrupts.
    pub alive: bool,
}

/// Queries a guest through its monitor socket.
pub fn question(socket: &Path, console: &Path, patience: Duration, stop: &dyn Fn() -> bool) -> Interrogation {
    let deadline = Instant::now() + patience;
    let mut listener = Listener { console, deadline, stop, begin: length(console), alive: false };
    let mut registers = String::new();
    let asked = Monitor::connect(socket).and_then(|mut monitor| {
        monitor.answering_within(patience / 2)?;
        registers = monitor.ask("info registers -a")?;
        listener.hear_out(&mut monitor)
    });
    if let Err(error) = asked {
        registers.push_str(&format!("\n{error}\n"));
    }
    let tasks = listener.heard();
    let place = place(&tasks).or_else(|| program_counter(&registers));
    let mut findings = vec![("registers", registers)];
    if !tasks.is_empty() {
        findings.push(("tasks", tasks));
    }
    Interrogation { findings, place, alive: listener.alive }
}

struct Listener<'a> {
    console: &'a Path,
    deadline: Instant,
    stop: &'a dyn Fn() -> bool,
    /// Length of the console before the first query, bytes.
    begin: u64,
    alive: bool,
}

impl Listener<'_> {
    fn hear_out(&mut self, monitor: &mut Monitor) -> Result<(), VmError> {
        for key in KEYS {
            monitor.press(&["alt", "sysrq", key])?;
            self.wait_for_silence();
        }
        self.alive = length(self.console) != self.begin;
        if !self.alive {
            monitor.inject_nmi()?;
            self.wait_for_silence();
        }
        Ok(())
    }

    /// Waits until the console stops growing.
    fn wait_for_silence(&self) {
        let (mut seen, mut since) = (length(self.console), Instant::now());
        while since.elapsed() < QUIET && Instant::now() < self.deadline && !(self.stop)() {
            thread::sleep(POLL);
            let now = length(self.console);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    fn heard(&self) -> String {
        // A console that can't be read counts as empty.
        let bytes = lab_guard::bounded::from(self.console, self.begin, MOST).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn length(console: &Path) -> u64 {
    fs::metadata(console).map_or(0, |metadata| metadata.len())
}

/// The first `RIP: 0010:symbol+offset/size` of a kernel backtrace (`show_ip`, `arch/x86/kernel/dumpstack.c`). User
/// space has another segment selector.
fn place(tasks: &str) -> Option<String> {
    let (_, rest) = tasks.split_once("RIP: 0010:")?;
    let line = rest.lines().next()?.trim();
    (!line.is_empty()).then(|| line.chars().take(200).collect())
}

/// The first program counter of QEMU's registers of an arm64 processor (`aarch64_cpu_dump_state`, target/arm/cpu.c).
fn program_counter(registers: &str) -> Option<String> {
    let mut words = registers.split_whitespace();
    let address = words.find_map(|word| word.strip_prefix("PC="))?;
    let is_address = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_address.then(|| format!("0x{address}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::File,
        io::{BufRead, BufReader, Write},
        os::unix::net::UnixListener,
        path::PathBuf,
    };

    /// A QEMU whose guest answers these commands on its console; returns the commands it received.
    fn guest(
        dir: &Path,
        answers: &'static [(&'static str, &'static str)],
    ) -> (PathBuf, thread::JoinHandle<Vec<String>>) {
        let (socket, console) = (dir.join("qmp"), dir.join("console.log"));
        fs::write(&console, "[ 1.0] booted\n").unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let peer = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            writeln!(reader.get_mut(), r#"{{"QMP":{{}}}}"#).unwrap();
            let (mut heard, mut line) = (Vec::new(), String::new());
            while reader.read_line(&mut line).unwrap() > 0 {
                for (command, answer) in answers {
                    if line.contains(command) {
                        File::options().append(true).open(&console).unwrap().write_all(answer.as_bytes()).unwrap();
                    }
                }
                let answer = if line.contains("info registers") { "\"RIP=1\"" } else { "{}" };
                heard.push(std::mem::take(&mut line));
                writeln!(reader.get_mut(), r#"{{"return":{answer}}}"#).unwrap();
            }
            heard
        });
        (socket, peer)
    }

    fn asked(answers: &'static [(&'static str, &'static str)]) -> (Interrogation, Vec<String>) {
        let dir = crate::scratch().unwrap();
        let (socket, peer) = guest(dir.path(), answers);
        let found = question(&socket, &dir.path().join("console.log"), Duration::from_secs(20), &|| false);
        (found, peer.join().unwrap())
    }

    #[test]
    fn a_kernel_that_answers_gets_no_nmi_and_reports_its_place() {
        let trace = "CPU: 0 PID: 1\n RIP: 0033:0x55\n RIP: 0010:spin+0x1/0x2 [x]\n";
        assert!(trace.contains("0033"), "user space comes first in the trace");
        let (found, commands) =
            asked(&[(r#""data":"l""#, "CPU: 0 PID: 1\n RIP: 0033:0x55\n RIP: 0010:spin+0x1/0x2 [x]\n")]);
        assert_eq!(found.place.as_deref(), Some("spin+0x1/0x2 [x]"));
        assert_eq!(found.findings, [("registers", "RIP=1".to_owned()), ("tasks", trace.to_owned())]);
        assert!(!commands.iter().any(|command| command.contains("nmi")), "{commands:?}");
    }

    #[test]
    fn an_arm64_guest_is_where_its_program_counter_is() {
        let registers = "CPU#0\n PC=ffff80008001c3b8 X00=0000000000000000 X01=ffff0000031f0000\n";
        assert_eq!(program_counter(registers).as_deref(), Some("0xffff80008001c3b8"));
        assert_eq!(program_counter("RAX=0 RIP=ffffffff81000000"), None);
        assert_eq!(program_counter("PC=zz"), None);
    }

    #[test]
    fn a_kernel_that_does_not_answer_gets_an_nmi() {
        let (found, commands) = asked(&[("inject-nmi", "RIP: 0010:deaf+0x2/0x4\n")]);
        assert_eq!(found.place.as_deref(), Some("deaf+0x2/0x4"));
        assert!(commands.last().unwrap().contains("inject-nmi"));
    }

    #[test]
    fn a_missing_monitor_is_reported_and_the_time_limit_is_kept() {
        let dir = crate::scratch().unwrap();
        let found = question(&dir.path().join("none"), &dir.path().join("none"), Duration::from_secs(60), &|| false);
        assert_eq!(found.findings.len(), 1);
        assert!(found.findings[0].1.contains("No such file"), "{found:?}");
        let (socket, peer) = guest(dir.path(), &[]);
        let begin = Instant::now();
        question(&socket, &dir.path().join("console.log"), Duration::from_millis(200), &|| false);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
        drop(peer);
    }
}
