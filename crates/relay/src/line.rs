//! One connection.

use nix::{
    libc,
    sys::socket::{setsockopt, sockopt::Linger},
};
use std::{
    fmt, io,
    net::{Shutdown, TcpStream},
    sync::{Arc, Condvar, Mutex, PoisonError, mpsc},
};

/// Bytes of a connection that may be on their way in one direction.
pub const WINDOW: usize = 256 << 10;

/// Takes datagrams.
pub type Deliver = Box<dyn FnMut(&[u8]) -> io::Result<()> + Send>;

/// Where what comes from the other side goes.
pub enum RelaySink {
    /// A connection; what it sends goes to the other side.
    Stream(TcpStream),
    /// Called for every datagram. What goes to the other side is sent by [`crate::Mux::datagram`].
    Datagrams(Deliver),
}

impl fmt::Debug for RelaySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stream(_) => "Stream",
            Self::Datagrams(_) => "Datagrams",
        })
    }
}

/// What a piece costs at least, of its window: pieces of single bytes would take a multiple of their size in memory.
const LEAST: usize = 256;

/// What a piece costs of its window.
pub fn cost(bytes: usize) -> usize {
    bytes.max(LEAST)
}

pub enum Piece {
    Data(Vec<u8>),
    /// Nothing follows.
    Over,
}

/// Bytes that may be sent; `None` once the connection has ended.
pub struct Credit(Mutex<Option<usize>>, Condvar);

impl Credit {
    /// Waits for room. Returns how much there is, at most `most`; `None` if the connection has ended.
    pub fn wait(&self, most: usize) -> Option<usize> {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while *left == Some(0) {
            left = self.1.wait(left).unwrap_or_else(PoisonError::into_inner);
        }
        left.map(|left| left.min(most))
    }

    pub fn spend(&self, count: usize) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.map(|left| left.saturating_sub(cost(count)));
    }

    pub fn give(&self, count: usize, most: usize) {
        let mut left = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *left = left.map(|left| left.saturating_add(count).min(most));
        self.1.notify_all();
    }

    fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.1.notify_all();
    }
}

/// A connection that is open.
pub struct Line {
    to_socket: mpsc::Sender<Piece>,
    pub credit: Arc<Credit>,
    /// Bytes that wait for the socket.
    waiting: usize,
    datagrams: bool,
    halves: u8,
    pub stream: Option<TcpStream>,
}

impl Line {
    pub fn new(datagrams: bool) -> (Self, mpsc::Receiver<Piece>) {
        let (to_socket, waiting) = mpsc::channel();
        let credit = Arc::new(Credit(Mutex::new(Some(WINDOW)), Condvar::new()));
        (Self { to_socket, credit, waiting: 0, datagrams, halves: 0, stream: None }, waiting)
    }

    /// Takes data for the socket; false if there is more than was asked for.
    pub fn take(&mut self, bytes: Vec<u8>, window: usize) -> bool {
        let cost = cost(bytes.len());
        if self.datagrams && self.waiting + cost > window {
            // Lost, as in any network.
            return true;
        }
        self.waiting += cost;
        // What is sent last may cost more than there was credit for.
        self.waiting <= window + LEAST && self.to_socket.send(Piece::Data(bytes)).is_ok()
    }

    /// The socket has taken this many bytes.
    pub fn written(&mut self, count: usize) {
        self.waiting = self.waiting.saturating_sub(cost(count));
    }

    /// The other side sends no more.
    pub fn over(&self) {
        let _ = self.to_socket.send(Piece::Over);
    }

    pub fn half_done(&mut self) -> bool {
        self.halves += 1;
        self.halves == 2
    }

    /// Ends the connection as one that was refused or broke: who has it sees a reset.
    pub fn end(self) {
        self.credit.end();
        if let Some(stream) = self.stream {
            refuse(&stream);
        }
    }
}

/// Whoever reads from the socket wakes up, and with its last descriptor goes a reset. Shutting down the other half would send an
/// end of data, which this is not.
pub fn refuse(stream: &TcpStream) {
    let _ = setsockopt(stream, Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
    let _ = stream.shutdown(Shutdown::Read);
}
