//! Facts on standard output, each as soon as it is known.

use lab_check::{CheckFacts, FactLine, MAX_LINE};
use std::{
    io::{Write, stdout},
    thread,
    time::Duration,
};

/// How long the guest's agent gets to pass on a line before a step that may end the guest.
const ON_ITS_WAY: Duration = Duration::from_millis(10);

/// Writes facts, and keeps them.
pub struct Teller {
    facts: CheckFacts,
}

impl Teller {
    pub fn new(facts: CheckFacts) -> Self {
        Self { facts }
    }

    /// Everything so far.
    pub fn facts(&self) -> &CheckFacts {
        &self.facts
    }

    /// Writes a fact. A reader that is gone takes the guest along, so errors do not matter.
    pub fn fact(&mut self, line: FactLine) {
        if let Ok(text) = serde_json::to_string(&line)
            && text.len() < MAX_LINE
        {
            let mut out = stdout().lock();
            _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
        self.facts.add(line);
    }

    /// Says what is done next, and waits until the line is under way.
    pub fn begin(&mut self, what: String) {
        self.fact(FactLine::Begin { what });
        thread::sleep(ON_ITS_WAY);
    }

    /// A remark.
    pub fn note(&mut self, text: String) {
        self.fact(FactLine::Note { text });
    }
}
