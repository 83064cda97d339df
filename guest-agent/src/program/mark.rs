//! Marks that a program makes: `/run/lab/mark NAME` in its root asks the agent, which reads the state of the kernel and answers once
//! it has.

use super::asked::{AskedServer, LONGEST};
use lab_harness::{Netns, witness::Marker};
use lab_protocol::witness::{MARK_SOCKET, MARKER, MARKS};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

/// Time in which the agent listens to a program that has just started.
const LISTENS_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts to reach the agent.
const POLL: Duration = Duration::from_millis(10);

/// Answers the marker of a program, at the socket of its root, which is at `at` in the agent's own.
///
/// # Errors
/// The socket or a thread can't be made.
pub fn listen(at: &Path, marker: Marker) -> io::Result<AskedServer> {
    AskedServer::listen(at, move |name, _ended| match checked(name) {
        Ok(()) => match marker.mark(name, &Netns::living().unwrap_or_default()) {
            Some(changes) => format!("{changes}\n"),
            None => format!("error: there are {} marks: no more are kept\n", MARKS - 1),
        },
        Err(problem) => format!("error: {problem}\n"),
    })
}

fn checked(name: &str) -> Result<(), String> {
    match name {
        "" => Err("a mark needs a name".to_owned()),
        "end" => Err("`end` is the mark at the end of the command: choose another name".to_owned()),
        name if name.len() > LONGEST => Err(format!("the mark's name is longer than {LONGEST} bytes")),
        name if name.chars().any(char::is_control) => Err("the mark's name has control characters".to_owned()),
        _ => Ok(()),
    }
}

/// Whether the program was started under the name of the marker.
pub fn is_meant(name: &str) -> bool {
    Path::new(name).file_name() == Path::new(MARKER).file_name()
}

/// The marker itself: `mark NAME`.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let [name] = &arguments[..] else {
        eprintln!("mark: one name is wanted: {MARKER} NAME");
        return ExitCode::from(2);
    };
    let asked = checked(name).and_then(|()| ask(name));
    match asked {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("mark {name:?}: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn ask(name: &str) -> Result<(), String> {
    let begin = Instant::now();
    let mut agent = loop {
        match UnixStream::connect(MARK_SOCKET) {
            Ok(agent) => break agent,
            Err(_) if begin.elapsed() < LISTENS_WITHIN => thread::sleep(POLL),
            Err(error) => {
                return Err(format!(
                    "no witness watches this command ({MARK_SOCKET}: {error}): --witness off takes it away"
                ));
            }
        }
    };
    let failed = |error: io::Error| format!("the guest's agent: {error}");
    agent.write_all(format!("{name}\n").as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    agent.read_to_string(&mut answer).map_err(failed)?;
    match answer.trim_end().strip_prefix("error: ") {
        Some(problem) => Err(problem.to_owned()),
        None if answer.is_empty() => Err("the guest's agent did not answer".to_owned()),
        None => Ok(()),
    }
}
