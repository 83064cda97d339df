//! A program in QEMU's place: the lab starts it with QEMU's arguments and speaks with it over QEMU's sockets, and a closure acts
//! as the agent. The program `lab` can be tested with it as a whole: nothing of it is replaced, and no kernel is needed.

use super::{Console, FakeAgent, PLACE, REGISTERS, specification, tasks};
use crate::{Channel, GuestSpec, Recv, SocketChannel};
use lab_record::guest_exit::GuestExit;
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// File name of the program: the lab finds a guest's QEMU by it.
pub const PROGRAM: &str = "qemu-system-x86_64";

/// What is printed for `--version`.
const VERSION: &str = "QEMU emulator version 99.0.0 (stand-in)";
/// As in the version; it decides how the monitor is used.
const MAJOR: u32 = 99;

/// What happens in QEMU's place.
pub struct StandIn<'a> {
    /// Acts as the agent; the machine ends when it returns, or is killed where the lab has closed the port.
    pub script: &'a dyn Fn(&mut FakeAgent),
    /// Version of the kernel that the guest claims to run.
    pub kernel: &'a str,
    /// Whether the machine offers the agent's port; otherwise it ends before.
    pub listening: bool,
    /// Whether the machine can be saved.
    pub freezing: bool,
}

/// The parts of the command line that matter.
struct Machine {
    name: String,
    port: PathBuf,
    monitor: PathBuf,
    restored: bool,
}

impl Machine {
    /// `None` if the program is only asked for something, for example its version.
    fn of(arguments: &[String]) -> Option<Self> {
        let after = |option: &str| {
            arguments.windows(2).filter(|pair| pair[0] == option).map(|pair| &*pair[1]).collect::<Vec<_>>()
        };
        let part = |value: &str, key: &str| value.split(',').find_map(|part| part.strip_prefix(key)).map(PathBuf::from);
        let port = after("-chardev").into_iter().find(|value| value.contains("id=agent"));
        Some(Self {
            name: (*after("-name").first()?).to_owned(),
            port: part(port?, "path=")?,
            monitor: part(after("-qmp").first()?, "unix:")?,
            restored: arguments.iter().any(|word| word == "-incoming"),
        })
    }

    /// The kernel's id and the number of the guest, from 1: the lab's names are `nkl.….ID-NUMBER`.
    fn guest(&self) -> Option<(&str, u32)> {
        let (rest, number) = self.name.rsplit_once('-')?;
        // The mark before it has five words without a hyphen and a dot behind each.
        Some((rest.splitn(6, '.').last()?, number.parse().ok()?))
    }
}

impl StandIn<'_> {
    /// Acts as QEMU with these arguments, those behind the program's name.
    ///
    /// # Errors
    /// The sockets can't be made.
    pub fn play(&self, arguments: &[String]) -> io::Result<ExitCode> {
        let Some(machine) = Machine::of(arguments) else {
            println!("{VERSION}");
            return Ok(ExitCode::SUCCESS);
        };
        if !self.listening {
            return Ok(ExitCode::FAILURE);
        }
        let monitor = UnixListener::bind(&machine.monitor)?;
        let port = UnixListener::bind(&machine.port)?;
        let (resume, resumed) = mpsc::channel();
        let freezing = self.freezing;
        thread::spawn(move || {
            for stream in monitor.incoming().flatten() {
                let resume = resume.clone();
                thread::spawn(move || answer(stream, freezing, &resume));
            }
        });
        let (stream, _) = port.accept()?;
        if machine.restored && resumed.recv().is_err() {
            return Ok(ExitCode::FAILURE);
        }
        let mut agent = agent(&machine, self.kernel, stream)?;
        (self.script)(&mut agent);
        // A machine outlives its port: the lab closes it before it saves or questions the machine, and kills it afterwards.
        let mut rest = [0; 64];
        while matches!(agent.channel.recv(&mut rest, Duration::ZERO), Ok(Recv::Closed)) {
            thread::park();
        }
        let exit = agent.exit;
        eprint!("{}", exit.stderr);
        Ok(ExitCode::from(exit.code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }
}

fn agent(machine: &Machine, kernel: &str, stream: UnixStream) -> io::Result<FakeAgent> {
    let (name, number) =
        machine.guest().ok_or_else(|| io::Error::other(format!("no guest's name: {}", machine.name)))?;
    let directory = machine.port.parent().unwrap_or(Path::new("/"));
    Ok(FakeAgent {
        spec: GuestSpec { name: format!("{name}-{number}"), ..specification(directory.to_owned()) },
        boot: number.saturating_sub(1),
        restored: machine.restored,
        channel: SocketChannel::new(stream)?,
        console: Console::Output,
        kernel: Some(kernel.to_owned()),
        exit: GuestExit { code: Some(0), signal: None, stderr: String::new() },
        // The machine's times are those of the stand-in.
        waited_us: Arc::default(),
    })
}

/// Answers the commands of one connection to the monitor; errors end it.
fn answer(stream: UnixStream, freezing: bool, resume: &mpsc::Sender<()>) {
    let mut reader = BufReader::new(stream);
    let greeting = json!({ "QMP": { "version": { "qemu": { "major": MAJOR, "minor": 0, "micro": 0 } } } });
    let say = |reader: &mut BufReader<UnixStream>, value: &Value| writeln!(reader.get_mut(), "{value}");
    if say(&mut reader, &greeting).is_err() {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 0) {
        let asked: Value = serde_json::from_str(&line).unwrap_or_default();
        line.clear();
        let found = match asked["execute"].as_str().unwrap_or_default() {
            "human-monitor-command" => json!(REGISTERS),
            "send-key" => {
                let _ = Console::Output.write(&pressed(&asked["arguments"]["keys"]));
                json!({})
            }
            "query-migrate" if freezing => json!({ "status": "completed" }),
            "query-migrate" => json!({ "status": "failed", "error-desc": "Input/output error" }),
            "migrate-incoming" => {
                // Nobody waits for it twice.
                let _ = resume.send(());
                json!({})
            }
            _ => json!({}),
        };
        if say(&mut reader, &json!({ "return": found })).is_err() {
            return;
        }
    }
}

/// What the kernel writes for Alt-SysRq with a key: the places of its processors for `l`, its tasks for `t`.
fn pressed(keys: &Value) -> String {
    let last = keys.as_array().and_then(|keys| keys.last()).map(|key| &key["data"]);
    match last.and_then(Value::as_str) {
        Some("l") => format!("sysrq: Show backtrace of all active CPUs\nRIP: 0010:{PLACE}\n"),
        Some("t") => tasks(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_machine_is_known_by_its_command_line_and_a_question_by_having_none() {
        let line = "-name nkl.ab12.4026531836.77.123.6.12-no-netkit-3 -m 512M -chardev stdio,id=console \
            -chardev socket,id=agent,path=/tmp/x/port,server=on,wait=off -qmp unix:/tmp/x/qmp,server=on,wait=off";
        let machine = Machine::of(&words(line)).unwrap();
        assert_eq!(machine.guest(), Some(("6.12-no-netkit", 3)));
        assert_eq!((machine.port, machine.restored), (PathBuf::from("/tmp/x/port"), false));
        assert_eq!(machine.monitor, Path::new("/tmp/x/qmp"));
        assert!(Machine::of(&words(&format!("{line} -incoming defer"))).unwrap().restored);
        assert!(Machine::of(&words("--version")).is_none());
    }
}
