//! Where input comes from: a thread that reads this process's standard input, not further ahead than programs take it.

use lab_protocol::work::STREAM_PIECE;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{ErrorKind, Read},
    os::fd::AsFd,
    sync::mpsc::{self, TryRecvError},
    thread,
};

/// Pieces that are read ahead.
const AHEAD: usize = 2;

/// What the next piece of input is.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// There is none yet.
    Nothing,
    Bytes(Vec<u8>),
    /// There will be none.
    Over,
}

/// Standard input.
pub struct InputSource(mpsc::Receiver<Vec<u8>>);

impl InputSource {
    /// Starts its thread, which ends with the input, or with the process.
    pub fn new(mut input: impl Read + AsFd + Send + 'static) -> Self {
        let (pieces, waiting) = mpsc::sync_channel(AHEAD);
        thread::spawn(move || {
            let mut buffer = vec![0; STREAM_PIECE];
            loop {
                match input.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        if pieces.send(buffer[..count].to_vec()).is_err() {
                            return;
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        let mut watched = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
                        let _ = poll(&mut watched, PollTimeout::NONE);
                    }
                    // A terminal that is gone, or a descriptor that is closed.
                    Err(_) => return,
                }
            }
        });
        Self(waiting)
    }

    /// The next piece, if there is one.
    pub fn next(&self) -> Next {
        match self.0.try_recv() {
            Ok(bytes) => Next::Bytes(bytes),
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::Over,
        }
    }
}
