//! Runs a shell or another program in the guest: builds the requested topology, runs the program, deletes everything.

mod program;
mod root;

use crate::{
    error::AgentError,
    names::Names,
    program::{WitnessSeat, terminal::Pty},
    sender::Sender,
    world,
};
use lab_harness::{Runner, Staged, unpoisoned};
use lab_protocol::{
    AgentMessage,
    shell::{ShellRequest, ShellStage, Size, Stream},
};
use program::{ProgramInput, ShellProgram};
use std::{
    io::Read,
    sync::{Arc, Mutex, mpsc},
    thread,
};

/// Maximum output in one message, bytes.
const PIECE: usize = 16 << 10;

/// A program: starting, running or ended.
pub struct Shell {
    input: mpsc::Sender<Vec<u8>>,
    /// Known once the program runs in a terminal.
    terminal: Arc<Mutex<Option<Pty>>>,
}

impl Shell {
    /// Starts the program. `sender` reports to the host.
    pub fn start(runner: Arc<Runner>, request: ShellRequest, witness: Arc<WitnessSeat>, sender: Sender) -> Self {
        let (input, taken) = mpsc::channel();
        let terminal = Arc::new(Mutex::new(None));
        let seat = Arc::clone(&terminal);
        thread::spawn(move || {
            let said = match live(&runner, &request, &witness, taken, (&seat, &sender)) {
                Ok(code) => sender.send(&AgentMessage::ShellExited { code }),
                Err(error) => sender.send(&AgentMessage::Refused { message: error.to_string() }),
            };
            // Fails if the host has closed the port; then nothing can be reported.
            drop(said);
        });
        Self { input, terminal }
    }

    /// Queues input for the program; an empty slice is the end of input.
    pub fn input(&self, bytes: Vec<u8>) {
        // The program has ended and reads no more input.
        let _ = self.input.send(bytes);
    }

    /// Sets the size of the program's terminal.
    pub fn resize(&self, size: Size) {
        if let Some(terminal) = &*unpoisoned(self.terminal.lock()) {
            terminal.resize(size);
        }
    }
}

/// Runs the program to its end and returns its exit code.
fn live(
    runner: &Arc<Runner>,
    request: &ShellRequest,
    witness: &WitnessSeat,
    input: mpsc::Receiver<Vec<u8>>,
    (seat, sender): (&Mutex<Option<Pty>>, &Sender),
) -> Result<u8, AgentError> {
    world::name_guest().map_err(AgentError::file("/proc/sys/kernel/hostname"))?;
    let staged = Staged::build(runner, &request.stage, request.time_scale)?;
    let nodes = staged.namespaces()?;
    let names = Names::publish(&nodes)?;
    let root = root::prepare(request.world.as_ref())?;
    if request.world.is_some() && request.stage == ShellStage::Bare {
        world::modprobe::unload_device_makers();
    }
    let welcome = staged.describe()?;
    let witnessed = request.is_watched.then(|| witness.begin(runner, &nodes));
    let mut program = ShellProgram::start(&root, &request.command, request.terminal.as_ref())?;
    *unpoisoned(seat.lock()) = program.terminal();
    sender.send(&AgentMessage::ShellReady { welcome })?;

    let code = thread::scope(|scope| {
        for (stream, source) in program.outputs() {
            scope.spawn(move || forward(stream, source, sender));
        }
        let writer = program.input();
        // This thread ends with the host's last message, which may come after the program's end, so it is not joined.
        let sender = sender.clone();
        thread::spawn(move || feed(writer, &input, &sender));
        let code = program.wait();
        // Processes that the program left running would keep its output and the namespaces open.
        program::end_all();
        code
    })?;
    if let Some(witnessed) = witnessed {
        sender.send(&AgentMessage::ShellAccount { account: Box::new(witnessed.finish(&nodes)) })?;
    }
    drop((names, nodes));
    if let Some(report) = staged.end()? {
        sender.send(&AgentMessage::CellFinished { report: Box::new(report) })?;
    }
    Ok(code)
}

/// Forwards the program's output until the program closes it.
fn forward(stream: Stream, mut source: impl Read, sender: &Sender) {
    let mut buffer = vec![0; PIECE];
    // Reading a terminal whose last program has ended fails with EIO.
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        if sender.send(&AgentMessage::Output { stream, bytes: buffer[..count].to_vec() }).is_err() {
            return;
        }
    }
}

/// Writes input as fast as the program reads it, and acknowledges it, so that the host never sends more than fits.
fn feed(mut writer: ProgramInput, input: &mpsc::Receiver<Vec<u8>>, sender: &Sender) {
    for bytes in input {
        writer.write(&bytes);
        if sender.send(&AgentMessage::InputTaken { bytes: bytes.len() as u32 }).is_err() {
            return;
        }
    }
}
