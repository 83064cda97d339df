//! A shell, or any other program, in the guest: the request's stage is built, the program runs, everything is deleted.

mod program;
mod root;

use crate::{names::Names, program::terminal::Pty, sender::Sender, world};
use lab_harness::{Runner, Staged};
use lab_protocol::{
    AgentMessage,
    shell::{ShellRequest, Size, Stream},
};
use program::{Input, ShellProgram};
use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

/// Bytes of output in one message, at most.
const PIECE: usize = 16 << 10;

/// A program that runs, or will soon, or did.
pub struct Shell {
    input: mpsc::Sender<Vec<u8>>,
    /// Known once the program runs in a terminal.
    terminal: Arc<Mutex<Option<Pty>>>,
}

impl Shell {
    /// Starts it. `sender` reports to the host.
    pub fn start(runner: Arc<Runner>, request: ShellRequest, sender: Sender) -> Self {
        let (input, taken) = mpsc::channel();
        let terminal = Arc::new(Mutex::new(None));
        let seat = Arc::clone(&terminal);
        thread::spawn(move || {
            let said = match live(&runner, &request, taken, &seat, &sender) {
                Ok(code) => sender.send(&AgentMessage::ShellExited { code }),
                Err(message) => sender.send(&AgentMessage::Refused { message }),
            };
            // Fails where the host has closed the port: there is no one to report to.
            drop(said);
        });
        Self { input, terminal }
    }

    /// Input for the program; nothing is the end of all input. It waits where the program is not ready.
    pub fn input(&self, bytes: Vec<u8>) {
        // A program that has ended takes no more.
        let _ = self.input.send(bytes);
    }

    /// The person's terminal has another size.
    pub fn resize(&self, size: Size) {
        if let Some(terminal) = &*self.terminal.lock().unwrap_or_else(PoisonError::into_inner) {
            terminal.resize(size);
        }
    }
}

/// The whole life of the program; gives its exit code.
fn live(
    runner: &Arc<Runner>,
    request: &ShellRequest,
    input: mpsc::Receiver<Vec<u8>>,
    seat: &Mutex<Option<Pty>>,
    sender: &Sender,
) -> Result<u8, String> {
    world::name_guest().map_err(|error| format!("the guest's name: {error}"))?;
    let staged = Staged::build(runner, &request.stage, request.time_scale)?;
    let names = Names::publish(&staged.namespaces()?)?;
    let root = root::prepare(request.world.as_ref())?;
    let welcome = staged.describe()?;
    let mut program = ShellProgram::start(&root, &request.command, request.terminal.as_ref())?;
    *seat.lock().unwrap_or_else(PoisonError::into_inner) = program.terminal();
    sender.send(&AgentMessage::ShellReady { welcome })?;

    let code = thread::scope(|scope| {
        for (stream, source) in program.outputs() {
            scope.spawn(move || forward(stream, source, sender));
        }
        let writer = program.input();
        // Ends with the host's last message, which may come after the program's end: it is not waited for.
        let sender = sender.clone();
        thread::spawn(move || feed(writer, &input, &sender));
        let code = program.wait();
        // What the program left running would hold its output open, and the namespaces.
        program::end_all();
        code
    })?;
    drop(names);
    if let Some(report) = staged.end()? {
        sender.send(&AgentMessage::CellFinished { report: Box::new(report) })?;
    }
    Ok(code)
}

/// Forwards output until the other end is closed.
fn forward(stream: Stream, mut source: impl Read, sender: &Sender) {
    let mut buffer = vec![0; PIECE];
    // A terminal whose last program has ended reads as EIO.
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        if sender.send(&AgentMessage::Output { stream, bytes: buffer[..count].to_vec() }).is_err() {
            return;
        }
    }
}

/// Writes input as the program takes it, and reports that to the host, so that it never sends more than fits.
fn feed(mut writer: Input, input: &mpsc::Receiver<Vec<u8>>, sender: &Sender) {
    for bytes in input {
        writer.write(&bytes);
        if sender.send(&AgentMessage::InputTaken { bytes: bytes.len() as u32 }).is_err() {
            return;
        }
    }
}
