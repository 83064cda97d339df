//! Facts on standard output, each as soon as it is known.

use lab_check::{CheckFacts, CheckFault, FactLine, MAX_LINE};
use lab_protocol::work::TAKEN_SOCKET;
use std::{
    io::{self, Read, Write, stdout},
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

/// Time in which the agent listens to a program that has just started.
const LISTENS_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts to reach the agent.
const POLL: Duration = Duration::from_millis(2);

/// Writes facts, and keeps them.
pub struct Teller {
    facts: CheckFacts,
    /// Bytes on standard output.
    written: u64,
    /// Whether the agent answers.
    is_answered: bool,
    /// A fault that is made on purpose.
    fault: Option<CheckFault>,
}

impl Teller {
    pub fn new(fault: Option<CheckFault>) -> Self {
        Self { facts: CheckFacts::default(), written: 0, is_answered: true, fault }
    }

    /// Everything so far.
    pub fn facts(&self) -> &CheckFacts {
        &self.facts
    }

    /// Writes a fact. A reader that is gone takes the guest along, so errors do not matter.
    pub fn fact(&mut self, mut line: FactLine) {
        if let Some(fault) = self.fault {
            fault.spoil(&mut line);
        }
        if let Ok(text) = serde_json::to_string(&line)
            && text.len() < MAX_LINE
        {
            let mut out = stdout().lock();
            _ = writeln!(out, "{text}").and_then(|()| out.flush());
            self.written += text.len() as u64 + 1;
        }
        self.facts.add(line);
    }

    /// Says what is done next, and waits until the host has it: the step may end the guest.
    pub fn begin(&mut self, what: String) {
        self.fact(FactLine::Begin { what });
        if self.is_answered
            && let Err(error) = taken(self.written)
        {
            self.is_answered = false;
            self.note(format!("the host does not acknowledge what is done next ({TAKEN_SOCKET}: {error})"));
        }
    }

    /// A remark.
    pub fn note(&mut self, text: String) {
        self.fact(FactLine::Note { text });
    }
}

/// Waits until the host has taken so many bytes of this program's standard output.
fn taken(bytes: u64) -> io::Result<()> {
    let begin = Instant::now();
    let mut agent = loop {
        match UnixStream::connect(TAKEN_SOCKET) {
            Ok(agent) => break agent,
            Err(_) if begin.elapsed() < LISTENS_WITHIN => thread::sleep(POLL),
            Err(error) => return Err(error),
        }
    };
    agent.write_all(format!("{bytes}\n").as_bytes())?;
    let mut answer = String::new();
    agent.read_to_string(&mut answer)?;
    if answer.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
