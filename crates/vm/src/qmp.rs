//! QEMU's monitor, as much of it as saving, restoring and questioning a guest takes: a command, its answer, and nothing
//! in between.
//!
//! Nine commands with two kinds of answer; a client generated from QEMU's whole schema would be a hundred times this.
//!
//! Files go over as descriptors: QEMU meets a full disk itself, where a `cat` in between would meet it unseen.

use super::VmError;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{BufRead, BufReader, IoSlice, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long QEMU may take to answer a command. It answers from its main loop, which a busy host delays.
const ANSWER: Duration = Duration::from_secs(20);
/// How often a migration is looked at.
const POLL: Duration = Duration::from_millis(2);

/// A connected monitor.
pub struct Monitor {
    reader: BufReader<UnixStream>,
    /// Whether this QEMU saves to files by the scheme `file:`, and in later versions by no other.
    files: bool,
}

/// The first major version of QEMU all of whose releases have the scheme `file:` for migrations (it came with 8.2). The
/// scheme `fd:` is deprecated for files since 9.1.
const FILES: u64 = 9;

impl Monitor {
    /// Connects to QEMU's socket.
    ///
    /// # Errors
    /// There is none, or what answers is not QEMU.
    pub fn connect(socket: &Path) -> Result<Self, VmError> {
        let stream = UnixStream::connect(socket).map_err(|error| problem(&error))?;
        stream.set_read_timeout(Some(ANSWER)).map_err(|error| problem(&error))?;
        let mut monitor = Self { reader: BufReader::new(stream), files: false };
        let greeting = monitor.line()?;
        monitor.files = greeting["QMP"]["version"]["qemu"]["major"].as_u64().is_some_and(|major| major >= FILES);
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    /// Keeps the memory out of the migration: it stays in its file.
    ///
    /// # Errors
    /// QEMU refuses.
    pub fn ignore_shared_memory(&mut self) -> Result<(), VmError> {
        let capability = json!([{ "capability": "x-ignore-shared", "state": true }]);
        self.execute("migrate-set-capabilities", json!({ "capabilities": capability })).map(drop)
    }

    /// Writes the machine's state to a file. The guest stands still afterwards.
    ///
    /// # Errors
    /// QEMU can't: no space, or a device that can't be saved.
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
                    return Err(VmError::Snapshot(format!("QEMU could not save the guest: {why}")));
                }
                _ if Instant::now() >= deadline => {
                    return Err(VmError::Snapshot("QEMU did not save the guest in time".to_owned()));
                }
                _ => thread::sleep(POLL),
            }
        }
    }

    /// Has a machine that was started with `-incoming defer` take over a saved state and run.
    ///
    /// # Errors
    /// QEMU refuses the command. A state that it refuses ends it.
    pub fn load(&mut self, state: &File) -> Result<(), VmError> {
        let uri = self.hand_over(state)?;
        self.execute("migrate-incoming", json!({ "uri": uri })).map(drop)
    }

    /// Waits for answers no longer than this from now on; a guest that stands still is not worth [`ANSWER`].
    ///
    /// # Errors
    /// The socket does not take it.
    pub fn answering_within(&mut self, limit: Duration) -> Result<(), VmError> {
        let limit = limit.max(Duration::from_millis(1));
        self.reader.get_ref().set_read_timeout(Some(limit)).map_err(|error| problem(&error))
    }

    /// What the monitor for people answers to a line, `info registers -a` for one.
    ///
    /// # Errors
    /// QEMU refuses, or is silent.
    pub fn ask(&mut self, line: &str) -> Result<String, VmError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }

    /// Presses keys of the guest's keyboard together (names of QEMU's `QKeyCode`).
    ///
    /// # Errors
    /// QEMU refuses, or is silent.
    pub fn press(&mut self, keys: &[&str]) -> Result<(), VmError> {
        let keys: Vec<Value> = keys.iter().map(|key| json!({ "type": "qcode", "data": key })).collect();
        self.execute("send-key", json!({ "keys": keys })).map(drop)
    }

    /// Interrupts the guest where it can't look away.
    ///
    /// # Errors
    /// QEMU refuses, or is silent.
    pub fn inject_nmi(&mut self) -> Result<(), VmError> {
        self.execute("inject-nmi", json!({})).map(drop)
    }

    /// Gives QEMU a descriptor, and says what it calls it.
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
        loop {
            let mut answer = self.line()?;
            if let Some(error) = answer.get("error") {
                return Err(VmError::Monitor(format!("{command}: {}", error["desc"].as_str().unwrap_or("refused"))));
            }
            // Events come in between.
            if answer.get("return").is_some() {
                return Ok(answer["return"].take());
            }
        }
    }

    fn line(&mut self) -> Result<Value, VmError> {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Err(VmError::Monitor("QEMU closed it".to_owned())),
            Ok(_) => serde_json::from_str(&line).map_err(|error| problem(&error)),
            Err(error) => Err(problem(&error)),
        }
    }
}

fn problem(error: &dyn std::fmt::Display) -> VmError {
    VmError::Monitor(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Answers each command with the next line, events before it included.
    fn qemu(answers: &'static [&'static str]) -> (tempfile::TempDir, Result<(), VmError>) {
        let dir = tempfile::tempdir().unwrap();
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
    fn the_scheme_follows_the_version() {
        let commands = |greeting: &'static str| {
            let dir = tempfile::tempdir().unwrap();
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
    fn events_are_no_answers_and_a_full_disk_is_an_error() {
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
