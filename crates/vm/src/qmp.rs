//! A client for QEMU's monitor (QMP) that supports saving, restoring and querying a guest.
//!
//! It uses eleven commands with two kinds of answer; a client generated from QEMU's schema would be a hundred times as
//! large.
//!
//! Files are passed as descriptors: QEMU then notices a full disk itself, which would be lost with a `cat` in between.

use super::VmError;
use lab_guard::private;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::statvfs::fstatvfs;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader, IoSlice, Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Maximum time for an answer. QEMU answers in its main loop, which a busy host delays.
const ANSWER: Duration = Duration::from_secs(20);
/// Maximum size of an answer, bytes: registers and traces of all processors are tens of KiB. A guest that exploits QEMU could
/// otherwise fill this process's memory.
const LINE: u64 = 4 << 20;
/// Interval at which a migration's state is checked.
const POLL: Duration = Duration::from_millis(2);

pub struct Monitor {
    reader: BufReader<UnixStream>,
    /// Maximum time for an answer, events before it included.
    patience: Duration,
    /// Whether this QEMU migrates to files by `file:`; later versions support only this scheme.
    files: bool,
}

/// The first major version of QEMU in which all releases support the migration scheme `file:` (added in 8.2). The
/// scheme `fd:` is deprecated for files since 9.1.
const FILES: u64 = 9;

impl Monitor {
    /// Connects to QEMU's socket.
    ///
    /// # Errors
    /// The socket can't be used, or the answer is not QEMU's.
    pub fn connect(socket: &Path) -> Result<Self, VmError> {
        let stream = private::connect(socket).map_err(|error| problem(&error))?;
        Self::over(stream)
    }

    fn over(stream: UnixStream) -> Result<Self, VmError> {
        stream.set_read_timeout(Some(ANSWER)).map_err(|error| problem(&error))?;
        let mut monitor = Self { reader: BufReader::new(stream), patience: ANSWER, files: false };
        let greeting = monitor.line()?;
        monitor.files = greeting["QMP"]["version"]["qemu"]["major"].as_u64().is_some_and(|major| major >= FILES);
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Excludes the memory from the migration: it stays in its file.
    ///
    /// # Errors
    /// QEMU refuses the command.
    pub fn ignore_shared_memory(&mut self) -> Result<(), VmError> {
        let capability = json!([{ "capability": "x-ignore-shared", "state": true }]);
        self.execute("migrate-set-capabilities", json!({ "capabilities": capability })).map(drop)
    }

    /// Writes the machine's state to a file. The guest is stopped afterwards.
    ///
    /// # Errors
    /// QEMU can't save: no space, or a device does not support it.
    pub fn save(&mut self, state: &File, deadline: Instant) -> Result<(), VmError> {
        // The default limit is meant for networks.
        self.execute("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }))?;
        let uri = self.hand_over(state)?;
        self.execute("migrate", json!({ "uri": uri }))?;
        loop {
            let answer = self.execute("query-migrate", json!({}))?;
            match answer["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => {
                    let why = answer["error-desc"].as_str().unwrap_or("no reason given");
                    // QEMU 11 reports a full disk as an input/output error.
                    let full = if is_full(state) { ": No space left on device" } else { "" };
                    return Err(VmError::Snapshot(format!("QEMU could not save the guest: {why}{full}")));
                }
                _ if Instant::now() >= deadline => {
                    return Err(VmError::Snapshot("QEMU did not save the guest in time".to_owned()));
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// Loads a saved state into a machine that was started with `-incoming defer`, and resumes it.
    ///
    /// # Errors
    /// QEMU refuses the command. If QEMU refuses the state, it exits later.
    pub fn load(&mut self, state: &File) -> Result<(), VmError> {
        let uri = self.hand_over(state)?;
        self.execute("migrate-incoming", json!({ "uri": uri })).map(drop)
    }

    /// Stops the guest's processors and its clock.
    ///
    /// # Errors
    /// QEMU refuses the command, or does not answer.
    pub fn pause(&mut self) -> Result<(), VmError> {
        self.execute("stop", json!({})).map(drop)
    }

    /// Lets a guest run that was stopped.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub fn go_on(&mut self) -> Result<(), VmError> {
        self.execute("cont", json!({})).map(drop)
    }

    /// Sets the maximum time for answers; for a hanging guest [`ANSWER`] would be too long.
    ///
    /// # Errors
    /// The socket's timeout can't be set.
    pub fn answering_within(&mut self, limit: Duration) -> Result<(), VmError> {
        let limit = limit.max(Duration::from_millis(1));
        self.patience = limit;
        self.reader.get_ref().set_read_timeout(Some(limit)).map_err(|error| problem(&error))
    }

    /// Runs a command of the human monitor, for example `info registers -a`.
    ///
    /// # Errors
    /// QEMU refuses the command, or does not answer.
    pub fn ask(&mut self, line: &str) -> Result<String, VmError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Presses keys of the guest's keyboard together (names of QEMU's `QKeyCode`).
    ///
    /// # Errors
    /// QEMU refuses the command, or does not answer.
    pub fn press(&mut self, keys: &[&str]) -> Result<(), VmError> {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", json!({ "keys": keys })).map(drop)
    }

    /// Sends a non-maskable interrupt to the guest.
    ///
    /// # Errors
    /// QEMU refuses the command, or does not answer.
    pub fn inject_nmi(&mut self) -> Result<(), VmError> {
        self.execute("inject-nmi", json!({})).map(drop)
    }

    /// Passes a file descriptor to QEMU, and returns its name.
    fn hand_over(&mut self, file: &File) -> Result<&'static str, VmError> {
        let (command, arguments, uri) = if self.files {
            ("add-fd", json!({ "fdset-id": 0 }), "file:/dev/fdset/0")
        } else {
            ("getfd", json!({ "fdname": "state" }), "fd:state")
        };
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        let descriptors = [file.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&descriptors)];
        let socket = self.reader.get_ref().as_raw_fd();
        let sent = sendmsg::<()>(socket, &[IoSlice::new(line.as_bytes())], &message, MsgFlags::empty(), None);
        let sent = sent.map_err(|error| problem(&error))?;
        self.reader.get_mut().write_all(&line.as_bytes()[sent..]).map_err(|error| problem(&error))?;
        self.answer(command)?;
        Ok(uri)
    }

    fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, VmError> {
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.reader.get_mut().write_all(line.as_bytes()).map_err(|error| problem(&error))?;
        self.answer(command)
    }

    fn answer(&mut self, command: &str) -> Result<Value, VmError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(VmError::Monitor(format!("{command}: {}", error["desc"].as_str().unwrap_or("refused"))));
            }
            // Events may arrive before the answer.
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
            if Instant::now() >= deadline {
                return Err(VmError::Monitor(format!("{command}: no answer, but events without end")));
            }
        }
    }

    fn line(&mut self) -> Result<Value, VmError> {
        let mut line = Vec::new();
        match (&mut self.reader).take(LINE).read_until(b'\n', &mut line) {
            Ok(0) => Err(VmError::Monitor("QEMU closed it".to_owned())),
            Ok(_) if line.len() as u64 == LINE => {
                Err(VmError::Monitor(format!("an answer of more than {} MiB", LINE >> 20)))
            }
            Ok(_) => serde_json::from_slice(&line).map_err(|error| problem(&error)),
            Err(error) => Err(problem(&error)),
        }
    }
}

fn problem(error: &dyn std::fmt::Display) -> VmError {
    VmError::Monitor(lab_base::text::reason(error))
}

/// Whether a file's disk has less free space than the state of a guest's devices needs (half a megabyte).
fn is_full(file: &File) -> bool {
    const STATE: u64 = 1 << 20;
    fstatvfs(file).is_ok_and(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()) < STATE)
}

/// The answer to a command of a QEMU that says only these bytes.
#[cfg(test)]
pub(crate) fn asked(bytes: &[u8]) -> Result<String, VmError> {
    let (ours, mut qemu) = UnixStream::pair().map_err(|error| problem(&error))?;
    thread::scope(|scope| {
        // Ends when the monitor closes its end.
        scope.spawn(move || qemu.write_all(bytes).and_then(|()| qemu.shutdown(std::net::Shutdown::Write)));
        Monitor::over(ours).and_then(|mut monitor| monitor.ask("info status"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_line_and_events_without_end_are_errors() {
        let line = asked(&vec![b'x'; 64 << 20]).unwrap_err().to_string();
        assert_eq!(line, "QEMU's monitor: an answer of more than 4 MiB");
        let (ours, mut qemu) = UnixStream::pair().unwrap();
        let events = thread::spawn(move || {
            qemu.write_all(b"{\"QMP\":{}}\n{\"return\":{}}\n").unwrap();
            while qemu.write_all(b"{\"event\":\"STOP\"}\n").is_ok() {}
        });
        let mut monitor = Monitor::over(ours).unwrap();
        monitor.answering_within(Duration::from_millis(100)).unwrap();
        let error = monitor.ask("info status").unwrap_err().to_string();
        assert_eq!(error, "QEMU's monitor: human-monitor-command: no answer, but events without end");
        drop(monitor);
        events.join().unwrap();
    }

    /// Answers each command with the next line, which may contain events before the answer.
    fn qemu(answers: &'static [&'static str]) -> (tempfile::TempDir, Result<(), VmError>) {
        let dir = crate::scratch().unwrap();
        let socket = dir.path().join("qmp");
        let listener = UnixListener::bind(&socket).unwrap();
        let peer = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            writeln!(reader.get_mut(), r#"{{"QMP":{{}}}}"#).unwrap();
            for answer in answers {
                let mut command = String::new();
                if reader.read_line(&mut command).unwrap() == 0 {
                    return;
                }
                writeln!(reader.get_mut(), "{answer}").unwrap();
            }
        });
        let saved = Monitor::connect(&socket).and_then(|mut monitor| {
            monitor.save(&tempfile::tempfile().unwrap(), Instant::now() + Duration::from_secs(5))
        });
        peer.join().unwrap();
        (dir, saved)
    }

    #[test]
    fn the_migration_scheme_depends_on_the_version() {
        let commands = |greeting: &'static str| {
            let dir = crate::scratch().unwrap();
            let socket = dir.path().join("qmp");
            let listener = UnixListener::bind(&socket).unwrap();
            let peer = thread::spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                writeln!(reader.get_mut(), "{greeting}").unwrap();
                let mut commands = String::new();
                while reader.read_line(&mut commands).unwrap() > 0 {
                    writeln!(reader.get_mut(), r#"{{"return":{{}}}}"#).unwrap();
                }
                commands
            });
            Monitor::connect(&socket).unwrap().load(&tempfile::tempfile().unwrap()).unwrap();
            peer.join().unwrap()
        };
        let old = commands(r#"{"QMP":{"version":{"qemu":{"micro":22,"minor":2,"major":7}}}}"#);
        assert!(old.contains(r#""getfd""#) && old.contains(r#""fd:state""#), "{old}");
        let new = commands(r#"{"QMP":{"version":{"qemu":{"micro":3,"minor":1,"major":11}}}}"#);
        assert!(new.contains(r#""add-fd""#) && new.contains(r#""file:/dev/fdset/0""#), "{new}");
    }

    #[test]
    fn events_are_skipped_and_a_full_disk_is_an_error() {
        let done = qemu(&[
            r#"{"return":{}}"#,
            "{\"event\":\"STOP\"}\n{\"return\":{}}",
            r#"{"return":{}}"#,
            r#"{"return":{}}"#,
            r#"{"return":{"status":"active"}}"#,
            r#"{"return":{"status":"completed"}}"#,
        ]);
        assert!(done.1.is_ok(), "{:?}", done.1);
        let full = qemu(&[
            r#"{"return":{}}"#,
            r#"{"return":{}}"#,
            r#"{"return":{}}"#,
            r#"{"return":{}}"#,
            r#"{"return":{"status":"failed","error-desc":"No space left on device"}}"#,
        ]);
        assert_eq!(full.1.unwrap_err().to_string(), "snapshot: QEMU could not save the guest: No space left on device");
        let gone = qemu(&[r#"{"return":{}}"#, r#"{"error":{"desc":"no such command"}}"#]);
        assert_eq!(gone.1.unwrap_err().to_string(), "QEMU's monitor: migrate-set-parameters: no such command");
    }
}
