//! What the host and a running program say to each other, while the session's thread goes on reading the port.

use super::terminal::Pty;
use lab_protocol::shell::{Size, Stream};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

/// Between two looks at whether the program has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A piece of a program's input.
#[derive(Debug, PartialEq, Eq)]
pub enum InputPiece {
    /// Bytes; none is the end of all input.
    Bytes(Vec<u8>),
    /// Bytes that are in the machine's memory for streams.
    Laid { at: u32, length: u32 },
}

impl InputPiece {
    /// Whether it is the end of all input.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Bytes(bytes) if bytes.is_empty())
    }

    /// Bytes.
    pub fn length(&self) -> u32 {
        match self {
            Self::Bytes(bytes) => u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            Self::Laid { length, .. } => *length,
        }
    }
}

/// The lines to one program. They exist before it starts: what comes early is kept for it.
pub struct Lines {
    input: Mutex<mpsc::Sender<InputPiece>>,
    output: Window,
    errors: Window,
    seat: Mutex<Seat>,
    /// Whether its output may be in the machine's memory for streams.
    uses_memory: AtomicBool,
}

/// The program, as far as it has started.
#[derive(Default)]
struct Seat {
    group: Option<Pid>,
    terminal: Option<Pty>,
    /// Signals that came before it.
    signals: Vec<i32>,
    size: Option<Size>,
    over: bool,
}

impl Lines {
    /// New lines, and the end at which the program's input arrives.
    pub fn new() -> (Self, mpsc::Receiver<InputPiece>) {
        let (input, taken) = mpsc::channel();
        let lines = Self {
            input: Mutex::new(input),
            output: Window::default(),
            errors: Window::default(),
            seat: Mutex::default(),
            uses_memory: AtomicBool::new(false),
        };
        (lines, taken)
    }

    /// Input for the program.
    pub fn input(&self, piece: InputPiece) {
        // A program that has ended takes no more.
        let _ = lock(&self.input).send(piece);
    }

    /// The host reads output from the machine's memory for streams from now on.
    pub fn use_memory(&self) {
        self.uses_memory.store(true, Ordering::SeqCst);
    }

    /// Whether it does.
    pub fn uses_memory(&self) -> bool {
        self.uses_memory.load(Ordering::SeqCst)
    }

    /// Which part of a stream the host has not taken yet.
    pub const fn window(&self, stream: Stream) -> &Window {
        match stream {
            Stream::Output => &self.output,
            Stream::Error => &self.errors,
        }
    }

    /// The person's terminal has another size.
    pub fn resize(&self, size: Size) {
        let mut seat = lock(&self.seat);
        match &seat.terminal {
            Some(terminal) => terminal.resize(size),
            None => seat.size = Some(size),
        }
    }

    /// Sends a signal to the program's process group, at once or when it has started.
    pub fn signal(&self, signal: i32) {
        let mut seat = lock(&self.seat);
        match seat.group {
            Some(group) if !seat.over => send(group, signal),
            Some(_) => {}
            None => seat.signals.push(signal),
        }
    }

    /// The program has started: it hears what came before.
    pub fn started(&self, group: Pid, terminal: Option<Pty>) {
        let mut seat = lock(&self.seat);
        if let (Some(terminal), Some(size)) = (&terminal, seat.size) {
            terminal.resize(size);
        }
        seat.signals.drain(..).for_each(|signal| send(group, signal));
        seat.group = Some(group);
        seat.terminal = terminal;
    }

    /// The program has ended: its number may be another process's from now on.
    pub fn over(&self) {
        let mut seat = lock(&self.seat);
        seat.over = true;
        // The controlling end: with it the terminal goes.
        seat.terminal = None;
    }
}

fn send(group: Pid, signal: i32) {
    if let Ok(signal) = Signal::try_from(signal) {
        // Fails where the group is gone.
        let _ = killpg(group, signal);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts the bytes of one stream that the host has not taken: beyond [`lab_protocol::work::OUTPUT_WINDOW`] nothing more is read
/// of what the program writes, and it waits as for any slow reader.
#[derive(Default)]
pub struct Window {
    state: Mutex<State>,
    taken: Condvar,
}

#[derive(Default)]
struct State {
    under_way: usize,
    /// Bytes that the host has taken since the start.
    taken: u64,
    closed: bool,
}

impl Window {
    /// Waits until the host has taken enough, and counts these bytes; false if nobody wants them.
    pub fn enter(&self, bytes: usize, most: usize) -> bool {
        let state = lock(&self.state);
        let full = |state: &mut State| !state.closed && state.under_way > 0 && state.under_way + bytes > most;
        let mut state = self.taken.wait_while(state, full).unwrap_or_else(PoisonError::into_inner);
        state.under_way += bytes;
        !state.closed
    }

    /// The host has taken these bytes.
    pub fn leave(&self, bytes: usize) {
        let mut state = lock(&self.state);
        state.under_way = state.under_way.saturating_sub(bytes);
        state.taken += bytes as u64;
        self.taken.notify_all();
    }

    /// Waits until the host has taken so many bytes since the start, nobody wants them, or `ended`.
    pub fn wait_taken(&self, bytes: u64, ended: &AtomicBool) {
        let mut state = lock(&self.state);
        while state.taken < bytes && !state.closed && !ended.load(Ordering::SeqCst) {
            state = self.taken.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nobody wants more.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.taken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::Arc,
        thread::{self, JoinHandle},
    };

    /// Somebody who has 50 bytes for a window of 100 with 60 in it, and says when they may come and whether anybody wants them.
    fn waiting_for_room(window: &Arc<Window>) -> (mpsc::Receiver<bool>, JoinHandle<()>) {
        let (said, heard) = mpsc::channel();
        let other = Arc::clone(window);
        let thread = thread::spawn(move || said.send(other.enter(50, 100)).unwrap());
        assert!(heard.recv_timeout(LOOK).is_err(), "110 bytes do not fit in 100");
        (heard, thread)
    }

    #[test]
    fn a_full_window_holds_the_stream_until_the_host_takes() {
        let window = Arc::new(Window::default());
        assert!(window.enter(60, 100));
        let (heard, thread) = waiting_for_room(&window);
        window.leave(10);
        assert!(heard.recv_timeout(Duration::from_secs(5)).unwrap());
        thread.join().unwrap();
        window.leave(100);
        assert!(window.enter(1000, 100), "one piece always fits");
        window.close();
        assert!(!window.enter(50, 100), "nobody waits for a reader who left");
    }

    #[test]
    fn who_waits_for_room_goes_on_when_the_reader_leaves() {
        let window = Arc::new(Window::default());
        assert!(window.enter(60, 100));
        let (heard, thread) = waiting_for_room(&window);
        window.close();
        assert!(!heard.recv_timeout(Duration::from_secs(5)).unwrap(), "nobody wants them");
        thread.join().unwrap();
    }

    #[test]
    fn who_waits_for_the_host_goes_on_when_it_has_taken_everything() {
        let window = Arc::new(Window::default());
        let (said, heard) = mpsc::channel();
        let other = Arc::clone(&window);
        let thread = thread::spawn(move || {
            other.wait_taken(7, &AtomicBool::new(false));
            said.send(()).unwrap();
        });
        assert!(window.enter(7, 100));
        window.leave(3);
        assert!(heard.recv_timeout(LOOK * 2).is_err(), "4 bytes are under way");
        window.leave(4);
        heard.recv_timeout(Duration::from_secs(5)).unwrap();
        thread.join().unwrap();
        window.wait_taken(1000, &AtomicBool::new(true));
        window.close();
        window.wait_taken(1000, &AtomicBool::new(false));
    }

    #[test]
    fn input_that_comes_before_the_program_waits_for_it() {
        let (lines, taken) = Lines::new();
        lines.input(InputPiece::Bytes(b"early".to_vec()));
        lines.signal(15);
        lines.resize(Size { rows: 1, columns: 2 });
        assert_eq!(taken.recv().unwrap(), InputPiece::Bytes(b"early".to_vec()));
        assert_eq!(lock(&lines.seat).signals, [15]);
        drop(taken);
        lines.input(InputPiece::Laid { at: 0, length: 4 });
    }
}
