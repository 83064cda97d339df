//! Where output goes: one thread per stream of this process, so that a reader who is slow blocks no guest's conversation.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{ErrorKind, Write},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

/// What a sink writes to.
pub trait SinkTarget: Write + AsFd + Send {}

impl<T: Write + AsFd + Send> SinkTarget for T {}

/// Bytes for the target. All that is under way is bounded by the windows of the programs that write to it.
struct Piece {
    bytes: Vec<u8>,
    /// Of how many bytes of the program this is what is left to write.
    stands_for: usize,
    taken: Arc<AtomicUsize>,
}

/// A stream of this process.
pub struct OutputSink {
    pieces: Option<mpsc::Sender<Piece>>,
    thread: Option<JoinHandle<()>>,
    /// Whether nobody reads any more.
    closed: Arc<AtomicBool>,
}

impl OutputSink {
    /// Starts its thread.
    pub fn new(mut target: impl SinkTarget + 'static) -> Self {
        let (pieces, waiting) = mpsc::channel::<Piece>();
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = Arc::clone(&closed);
        let thread = thread::spawn(move || {
            for Piece { bytes, stands_for, taken } in waiting {
                if !is_closed.load(Ordering::SeqCst) && !write(&mut target, &bytes) {
                    is_closed.store(true, Ordering::SeqCst);
                }
                taken.fetch_add(stands_for, Ordering::SeqCst);
            }
        });
        Self { pieces: Some(pieces), thread: Some(thread), closed }
    }

    /// Has bytes written; `taken` grows by `stands_for` once they are.
    pub fn write(&self, bytes: Vec<u8>, stands_for: usize, taken: &Arc<AtomicUsize>) {
        if let Some(pieces) = &self.pieces {
            // Its thread lives as long as this does.
            let _ = pieces.send(Piece { bytes, stands_for, taken: Arc::clone(taken) });
        }
    }

    /// Whether its reader is gone, or it can't be written to.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Waits until everything is written.
    pub fn finish(&mut self) {
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Writes all bytes, also to a target that another process has made non-blocking; false if it takes no more.
fn write(target: &mut impl SinkTarget, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match target.write(bytes) {
            Ok(0) => return false,
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut watched = [PollFd::new(target.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut watched, PollTimeout::NONE);
            }
            Err(_) => return false,
        }
    }
    true
}

/// Cuts a stream into lines and puts the kernel's name before each.
pub struct Prefix {
    name: String,
    /// A line that has not ended.
    begun: Vec<u8>,
}

/// Longest line that is kept together, bytes.
const LONGEST: usize = 64 << 10;

impl Prefix {
    /// Lines of this kernel.
    pub const fn new(name: String) -> Self {
        Self { name, begun: Vec::new() }
    }

    /// The lines that have ended with these bytes.
    pub fn lines(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.name.len());
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if part.ends_with(b"\n") || self.begun.len() >= LONGEST {
                out.append(&mut self.rest());
            }
        }
        out
    }

    /// The line that has not ended.
    pub fn rest(&mut self) -> Vec<u8> {
        if self.begun.is_empty() {
            return Vec::new();
        }
        let mut line = format!("{} | ", self.name).into_bytes();
        line.append(&mut self.begun);
        if !line.ends_with(b"\n") {
            line.push(b'\n');
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Read, os::unix::net::UnixStream, time::Duration};

    #[test]
    fn lines_have_the_kernels_name_and_an_unfinished_one_gets_its_end() {
        let mut prefix = Prefix::new("6.12".to_owned());
        assert_eq!(prefix.lines(b"a\nb"), b"6.12 | a\n");
        assert_eq!(prefix.lines(b"c\n\n\xff"), b"6.12 | bc\n6.12 | \n");
        assert_eq!(prefix.rest(), b"6.12 | \xff\n");
        assert!(prefix.rest().is_empty());
        let long = prefix.lines(&vec![b'x'; 3 * LONGEST]);
        assert!(long.len() > LONGEST, "a line without an end does not grow in memory");
    }

    #[test]
    fn a_slow_reader_gets_everything_in_order_and_one_who_left_closes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut sink = OutputSink::new(ours);
        let taken = Arc::new(AtomicUsize::new(0));
        let bytes: Vec<u8> = (0..4_000_000_u32).map(|number| (number % 251) as u8).collect();
        bytes.chunks(50_000).for_each(|piece| sink.write(piece.to_vec(), piece.len(), &taken));
        thread::sleep(Duration::from_millis(50));
        assert!(taken.load(Ordering::SeqCst) < bytes.len(), "nobody has read yet");
        let mut read = vec![0; bytes.len()];
        theirs.read_exact(&mut read).unwrap();
        assert!(read == bytes);
        sink.finish();
        assert_eq!(taken.load(Ordering::SeqCst), bytes.len());

        let mut full = OutputSink::new(File::options().write(true).open("/dev/full").unwrap());
        full.write(b"x".to_vec(), 1, &taken);
        full.finish();
        assert!(full.is_closed());
    }
}
