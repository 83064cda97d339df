//! Terminal side of a shell in a guest.

pub mod terminal;
#[cfg(test)]
mod tests;

use crate::run::{
    cut_account,
    visitor::{VisitError, Visitor},
};
use lab_protocol::{
    AgentMessage, CellReport, HostMessage,
    shell::{INPUT_WINDOW, ShellRequest, Stream},
    witness::Account,
};
use std::{
    cell::RefCell,
    io::{self, Write},
    ops::ControlFlow,
};
use terminal::{Keyboard, RawMode, Screen, Shown, Typed};

/// Ctrl-]: ends the session at once, as in telnet and `virsh console`.
pub const LEAVE: u8 = 0x1d;
/// Maximum bytes of input in one message.
const PIECE: usize = 4096;

/// How a shell session ended, as far as the guest reported it.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Ended {
    /// The guest did not report an end: it was lost, or the session was interrupted.
    #[default]
    Unknown,
    /// The program exited with this code.
    Program(u8),
    /// The user pressed Ctrl-].
    Left,
    /// The guest refused the request; one line.
    Refused(String),
}

/// A session with a shell.
pub struct ShellSession<'a> {
    request: ShellRequest,
    /// Tracks the terminal's size; set if the program has a terminal.
    screen: Option<Screen>,
    keyboard: Option<Keyboard<'a>>,
    streams: RefCell<Streams<'a>>,
    /// Shows the topology that was built, before the program's first output.
    greet: &'a dyn Fn(&str),
    state: RefCell<State>,
}

struct Streams<'a> {
    output: &'a mut dyn Write,
    errors: &'a mut dyn Write,
}

#[derive(Default)]
struct State {
    ready: bool,
    raw: Option<RawMode>,
    shown: Shown,
    /// Input that the program has not yet read, bytes.
    under_way: usize,
    input_over: bool,
    report: Option<Box<CellReport>>,
    account: Option<Box<Account>>,
    ended: Ended,
}

/// What is known of a session at its end.
#[derive(Debug, Default)]
pub struct ShellEnd {
    /// How it ended.
    pub ended: Ended,
    /// The report of the staged case.
    pub report: Option<Box<CellReport>>,
    /// What the program attached.
    pub account: Option<Box<Account>>,
}

impl<'a> ShellSession<'a> {
    /// Creates a session. `screen` must be set exactly if the request has a terminal.
    pub fn new(
        request: ShellRequest,
        screen: Option<Screen>,
        keyboard: Option<Keyboard<'a>>,
        (output, errors): (&'a mut dyn Write, &'a mut dyn Write),
        greet: &'a dyn Fn(&str),
    ) -> Self {
        let streams = RefCell::new(Streams { output, errors });
        Self { request, screen, keyboard, streams, greet, state: RefCell::default() }
    }

    /// Returns what is known of the session. Restores the terminal.
    pub fn end(self) -> ShellEnd {
        let state = self.state.into_inner();
        match (state.raw, &state.ended) {
            // The program has restored the terminal's modes itself.
            (None, _) | (Some(_), Ended::Program(_)) => {}
            (Some(raw), _) => raw.end(&state.shown),
        }
        ShellEnd { ended: state.ended, report: state.report, account: state.account }
    }

    fn write(&self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let mut streams = self.streams.borrow_mut();
        let to = match stream {
            Stream::Output => &mut streams.output,
            Stream::Error => &mut streams.errors,
        };
        to.write_all(bytes).and_then(|()| to.flush())
    }

    fn finish(&self, ended: Ended) -> ControlFlow<()> {
        self.state.borrow_mut().ended = ended;
        ControlFlow::Break(())
    }
}

impl Visitor for ShellSession<'_> {
    fn begin(&self, time_scale: f32, now_unix_ns: u64) -> HostMessage {
        HostMessage::Shell(Box::new(ShellRequest { time_scale, now_unix_ns, ..self.request.clone() }))
    }

    fn say(&self) -> Result<ControlFlow<(), Vec<HostMessage>>, VisitError> {
        let mut state = self.state.borrow_mut();
        let mut said = Vec::new();
        if !state.ready {
            return Ok(ControlFlow::Continue(said));
        }
        said.extend(self.screen.as_ref().and_then(Screen::changed).map(HostMessage::Resize));
        let room = INPUT_WINDOW.saturating_sub(state.under_way).min(PIECE);
        match self
            .keyboard
            .as_ref()
            .filter(|_| room > 0 && !state.input_over)
            .map_or(Typed::Nothing, |it| it.read(room))
        {
            Typed::Nothing => {}
            // In raw mode, end of input means that the terminal is gone.
            Typed::Over if state.raw.is_some() => {
                state.ended = Ended::Left;
                return Ok(ControlFlow::Break(()));
            }
            Typed::Over => {
                state.input_over = true;
                said.push(HostMessage::Input { bytes: Vec::new() });
            }
            Typed::Bytes(bytes) if state.raw.is_some() && bytes.contains(&LEAVE) => {
                state.ended = Ended::Left;
                return Ok(ControlFlow::Break(()));
            }
            Typed::Bytes(bytes) => {
                state.under_way += bytes.len();
                said.push(HostMessage::Input { bytes });
            }
        }
        Ok(ControlFlow::Continue(said))
    }

    fn hear(&self, message: AgentMessage) -> ControlFlow<()> {
        match message {
            AgentMessage::ShellReady { welcome } => {
                (self.greet)(&welcome);
                let mut state = self.state.borrow_mut();
                state.ready = true;
                state.raw = self.keyboard.as_ref().filter(|_| self.screen.is_some()).and_then(Keyboard::raw);
            }
            AgentMessage::Output { stream, bytes } => {
                self.state.borrow_mut().shown.write(&bytes);
                let written = self.write(stream, &bytes);
                if written.is_err() {
                    // The reader of standard output has exited, as in `lab shell … -- dmesg | head`.
                    return self.finish(Ended::Left);
                }
            }
            AgentMessage::InputTaken { bytes } => {
                let mut state = self.state.borrow_mut();
                state.under_way = state.under_way.saturating_sub(bytes as usize);
            }
            AgentMessage::ShellAccount { mut account } => {
                cut_account(&mut account);
                self.state.borrow_mut().account = Some(account);
            }
            AgentMessage::CellFinished { report } => self.state.borrow_mut().report = Some(report),
            AgentMessage::Refused { message } => return self.finish(Ended::Refused(message)),
            AgentMessage::ShellExited { code } => return self.finish(Ended::Program(code)),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
