//! The host's side of one program in one guest.

use super::{
    keep::{KEPT, Keep},
    memory::StreamMemory,
    sink::{OutputSink, Prefix},
    source::Next,
    streams::Streams,
    suite::{Child, SuiteReading},
};
use crate::run::evidence;
use lab_base::interrupt::{Interrupt, Relay};
use lab_guard::{Id, Inside};
use lab_protocol::{
    CellInfo, CellReport, FailureKind, HostMessage, Outcome,
    shell::Stream,
    work::{OUTPUT_WINDOW, PROGRAM_INPUT_WINDOW},
};
use std::{
    fs::File,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A guest sent output that it may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutputRefusal {
    /// It ignored the window.
    #[error("the guest sent output that nobody had room for")]
    NoRoom,
    /// It named a place that is none.
    #[error("the guest's output is not where it said that it is")]
    Nowhere,
}

/// Names of the files of a program's streams.
const FILES: [&str; 2] = ["stdout.txt", "stderr.txt"];

/// One attempt at a program. Dropping it closes its input.
pub struct OpenStreams<'a> {
    streams: &'a Streams,
    lines: [Line; 2],
    /// Its directory from the run's on.
    home: String,
    /// Bytes of input that the program has not taken.
    under_way: usize,
    reads: bool,
    memory: Option<StreamMemory>,
    relay: Relay,
    signalled: bool,
    /// Reads the results of a suite.
    suite: Option<SuiteReading<'a>>,
}

/// One of its output streams.
struct Line {
    keep: Keep,
    prefix: Option<Prefix>,
    received: usize,
    taken: Arc<AtomicUsize>,
    acknowledged: usize,
    closed: bool,
}

impl Line {
    fn receive(&mut self, sink: &OutputSink, bytes: Vec<u8>) {
        self.keep.write(&bytes);
        let stands_for = bytes.len();
        self.received += stands_for;
        let bytes = match &mut self.prefix {
            Some(prefix) => prefix.lines(&bytes),
            None => bytes,
        };
        sink.write(bytes, stands_for, &self.taken);
    }

    /// Bytes that were written since the last call.
    fn news(&mut self) -> u32 {
        let taken = self.taken.load(Ordering::SeqCst);
        let news = taken - std::mem::replace(&mut self.acknowledged, taken);
        u32::try_from(news).unwrap_or(u32::MAX)
    }

    fn under_way(&self) -> usize {
        self.received - self.acknowledged
    }
}

impl<'a> OpenStreams<'a> {
    /// Opens the streams for a cell's program in a guest that is `scale` times slower than one under KVM. Its files are the owner's,
    /// in `directory`, which is the kernel's. `memory` is the machine's memory for streams.
    pub fn open(
        streams: &'a Streams,
        interrupt: &Interrupt,
        directory: &Path,
        (kernel, owner): (&Id, &str),
        info: &CellInfo,
        scale: f32,
        memory: Option<File>,
    ) -> Self {
        let home = evidence::home(owner);
        let line = |name| Line {
            keep: Keep::new(directory.join(&home).join(name), KEPT),
            prefix: streams.prefix(kernel, info),
            received: 0,
            taken: Arc::default(),
            acknowledged: 0,
            closed: false,
        };
        streams.begin_terminal();
        Self {
            streams,
            lines: FILES.map(line),
            home: format!("{kernel}/{home}"),
            under_way: 0,
            memory: memory.map(StreamMemory::new),
            reads: info.work.program().is_some_and(|program| program.input),
            relay: interrupt.relay(),
            signalled: false,
            suite: streams.suite(info).map(|cell| SuiteReading::new(cell, info, kernel.as_str(), scale)),
        }
    }

    /// Messages for the guest.
    pub fn say(&mut self) -> Vec<HostMessage> {
        let mut said = Vec::new();
        for (stream, line) in [Stream::Output, Stream::Error].into_iter().zip(&mut self.lines) {
            let bytes = line.news();
            if bytes > 0 {
                said.push(HostMessage::OutputTaken { stream, bytes });
            }
            // Only where the output goes straight on: the other kernels' lines have readers of their own.
            if line.prefix.is_none() && !line.closed && self.streams.sink(stream).is_closed() {
                line.closed = true;
                said.push(HostMessage::OutputClosed { stream });
            }
        }
        if !self.signalled
            && let Some(signal) = self.relay.signal()
        {
            self.signalled = true;
            said.push(HostMessage::Signal { signal });
        }
        said.extend(self.streams.resized().map(HostMessage::Resize));
        said.extend(self.memory.as_mut().and_then(StreamMemory::ask));
        while self.reads && self.under_way < PROGRAM_INPUT_WINDOW {
            match self.streams.input() {
                Next::Nothing => break,
                Next::Bytes(bytes) => {
                    self.under_way += bytes.len();
                    said.push(match &mut self.memory {
                        Some(memory) => memory.input(bytes),
                        None => HostMessage::Input { bytes },
                    });
                }
                Next::Over => {
                    self.reads = false;
                    said.push(HostMessage::Input { bytes: Vec::new() });
                }
            }
        }
        said
    }

    /// Whether something may have to be said soon.
    pub fn is_busy(&self) -> bool {
        self.reads || self.lines.iter().any(|line| line.under_way() > 0) || self.streams.has_terminal()
    }

    /// The program wrote.
    ///
    /// # Errors
    /// The guest sends more than it was allowed to.
    pub fn output(&mut self, stream: Stream, bytes: Vec<u8>) -> Result<(), OutputRefusal> {
        let line = &mut self.lines[usize::from(stream == Stream::Error)];
        if line.under_way() + bytes.len() > 2 * OUTPUT_WINDOW {
            return Err(OutputRefusal::NoRoom);
        }
        if stream == Stream::Output
            && let Some(suite) = &mut self.suite
        {
            suite.feed(&bytes);
        }
        if let Some(memory) = &mut self.memory {
            memory.passed(bytes.len());
        }
        self.streams.shown(&bytes);
        line.receive(&self.streams.sink(stream), bytes);
        Ok(())
    }

    /// The program wrote, and it is in the memory for streams.
    ///
    /// # Errors
    /// The guest sends more than it was allowed to, or it is not there.
    pub fn output_at(&mut self, stream: Stream, at: u32, length: u32) -> Result<(), OutputRefusal> {
        let bytes = self.memory.as_ref().and_then(|memory| memory.output(stream, at, length));
        self.output(stream, bytes.ok_or(OutputRefusal::Nowhere)?)
    }

    /// The guest can use the memory for streams.
    pub fn memory_is_mapped(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.mapped();
        }
    }

    /// The program took input.
    pub fn input_taken(&mut self, bytes: u32) {
        self.under_way = self.under_way.saturating_sub(bytes as usize);
    }

    /// Ends the attempt: gives its files, as paths from the run's directory on, and adds to its report what they show.
    ///
    /// Also gives the tests that a suite reported.
    pub fn close(mut self, mut report: Option<&mut CellReport>) -> (Vec<Inside>, Vec<Child>) {
        self.streams.end_terminal(report.is_some());
        for (stream, line) in [Stream::Output, Stream::Error].into_iter().zip(&mut self.lines) {
            if let Some(rest) = line.prefix.as_mut().map(Prefix::rest).filter(|rest| !rest.is_empty()) {
                self.streams.sink(stream).write(rest, 0, &line.taken);
            }
        }
        if let Some(report) = report.as_deref_mut() {
            self.tell(report);
        }
        let children = self.suite.take().map(|suite| suite.close(report)).unwrap_or_default();
        let names = self.lines.iter().filter_map(|line| line.keep.name());
        let files = names.filter_map(|name| Inside::new(&format!("{}/{name}", self.home)).ok()).collect();
        (files, children)
    }

    fn tell(&self, report: &mut CellReport) {
        if let Outcome::Failed { kind: FailureKind::Exit, message } = &mut report.outcome
            && let Some(last) = self.lines[1].keep.tail().into_iter().rfind(|line| !line.trim().is_empty())
        {
            *message = format!("{message}: {}", last.trim());
        }
        for (name, line) in ["stdout", "stderr"].into_iter().zip(&self.lines) {
            report.log.extend(line.keep.problem(name));
            report.log.extend(line.keep.tail().into_iter().map(|text| format!("{name}: {text}")));
        }
    }
}
