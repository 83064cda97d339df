//! The host's terminal: unbuffered key input, its size, and restoring its mode.

use lab_protocol::shell::Size;
use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
    unistd::{read, write},
};
use std::{
    cell::Cell,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Size if a terminal does not report one.
const USUAL: Size = Size { rows: 24, columns: 80 };
/// Shows the cursor, ends bracketed paste and resets colours: undoes what an interrupted program may have set.
const ORDER: &[u8] = b"\x1b[?25h\x1b[?2004l\x1b[0m\r\n";
/// Leaves the alternate screen that full-screen programs use. On the normal screen it would only move the cursor.
const NORMAL_SCREEN: &[u8] = b"\x1b[?1049l";
/// Enters the alternate screen.
const OTHER_SCREEN: &[u8] = b"\x1b[?1049h";

nix::ioctl_read_bad!(
    /// `TIOCGWINSZ`: reads a terminal's size.
    get_size,
    libc::TIOCGWINSZ,
    nix::pty::Winsize
);

/// Result of reading a keyboard.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// No input yet.
    Nothing,
    Bytes(Vec<u8>),
    /// End of input.
    Over,
}

/// Standard input, read without blocking.
pub struct Keyboard<'a>(BorrowedFd<'a>);

impl<'a> Keyboard<'a> {
    pub const fn new(descriptor: BorrowedFd<'a>) -> Self {
        Self(descriptor)
    }

    /// Reads at most `most` bytes.
    pub fn read(&self, most: usize) -> Typed {
        let mut watched = [PollFd::new(self.0, PollFlags::POLLIN)];
        if !matches!(poll(&mut watched, PollTimeout::ZERO), Ok(1..)) {
            return Typed::Nothing;
        }
        let mut buffer = vec![0; most];
        match read(self.0, &mut buffer) {
            Ok(0) => Typed::Over,
            Ok(count) => {
                buffer.truncate(count);
                Typed::Bytes(buffer)
            }
            Err(nix::Error::EINTR | nix::Error::EAGAIN) => Typed::Nothing,
            Err(_) => Typed::Over,
        }
    }

    /// Switches the terminal to raw mode, in which every key is passed on, Ctrl-C too; `None` if it is not a terminal.
    pub fn raw(&self) -> Option<RawMode> {
        let terminal = self.0.try_clone_to_owned().ok()?;
        let found = tcgetattr(&terminal).ok()?;
        let mut raw = found.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).ok()?;
        Some(RawMode { terminal, found })
    }
}

/// A terminal in raw mode. Dropping it restores the previous mode, also after a panic.
pub struct RawMode {
    terminal: OwnedFd,
    found: Termios,
}

impl RawMode {
    /// Restores the terminal after a program that was interrupted; `shown` knows whether the alternate screen is active.
    pub fn end(self, shown: &Shown) {
        if shown.other_screen {
            let _ = write(&self.terminal, NORMAL_SCREEN);
        }
        let _ = write(&self.terminal, ORDER);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // TCSANOW, not TCSADRAIN: output of a stopped terminal might never drain.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.found);
    }
}

/// Terminal state that results from the output so far.
#[derive(Debug, Default)]
pub struct Shown {
    other_screen: bool,
    /// The last bytes of the output, in which an escape sequence may have begun.
    end: Vec<u8>,
}

impl Shown {
    /// Records output that is written to the terminal.
    pub fn write(&mut self, bytes: &[u8]) {
        self.end.extend_from_slice(bytes);
        let last = |wanted: &[u8]| self.end.windows(wanted.len()).rposition(|window| window == wanted);
        match (last(OTHER_SCREEN), last(NORMAL_SCREEN)) {
            (None, None) => {}
            (entered, left) => self.other_screen = entered > left,
        }
        let kept = self.end.len().saturating_sub(OTHER_SCREEN.len() - 1);
        self.end.drain(..kept);
    }
}

/// Tracks the size of standard output's terminal.
pub struct Screen {
    terminal: OwnedFd,
    resized: Arc<AtomicBool>,
    known: Cell<Size>,
}

impl Screen {
    /// Starts to watch a terminal's size (SIGWINCH).
    ///
    /// # Errors
    /// `sigaction` or `dup` failed.
    pub fn watch(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let resized = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGWINCH, Arc::clone(&resized))?;
        let known = Cell::new(size(&terminal));
        Ok(Self { terminal, resized, known })
    }

    /// The size when it was last read.
    pub const fn size(&self) -> Size {
        self.known.get()
    }

    /// The new size, if it has changed.
    pub fn changed(&self) -> Option<Size> {
        if !self.resized.swap(false, Ordering::SeqCst) {
            return None;
        }
        let now = size(&self.terminal);
        (self.known.replace(now) != now).then_some(now)
    }
}

fn size(terminal: &OwnedFd) -> Size {
    let mut found = nix::pty::Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one structure of this layout, into this one, and keeps no pointer.
    let asked = unsafe { get_size(terminal.as_raw_fd(), &mut found) };
    match asked {
        Ok(_) if found.ws_row > 0 && found.ws_col > 0 => Size { rows: found.ws_row, columns: found.ws_col },
        _ => USUAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::{
        pty::{Winsize, openpty},
        sys::termios::LocalFlags,
    };

    fn echoes(terminal: &OwnedFd) -> bool {
        tcgetattr(terminal).unwrap().local_flags.contains(LocalFlags::ECHO)
    }

    #[test]
    fn the_terminal_is_restored_also_after_a_panic() {
        let pty = openpty(None, None).unwrap();
        let raw = Keyboard::new(pty.slave.as_fd()).raw().unwrap();
        assert!(!echoes(&pty.slave));
        let mut shown = Shown::default();
        shown.write(b"\x1b[?10");
        shown.write(b"49h an editor");
        assert!(shown.other_screen, "the sequence came in two pieces");
        raw.end(&shown);
        assert!(echoes(&pty.slave));
        // A terminal may deliver in pieces what was written at once.
        let (mut said, mut buffer) = (Vec::new(), [0; 64]);
        while said.len() < NORMAL_SCREEN.len() + ORDER.len() {
            let count = read(&pty.master, &mut buffer).unwrap();
            said.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(said, [NORMAL_SCREEN, ORDER].concat());
        shown.write(b"\x1b[?1049l");
        assert!(!shown.other_screen, "the program left the alternate screen");

        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _raw = Keyboard::new(pty.slave.as_fd()).raw().unwrap();
            panic!("in the middle");
        }));
        assert!(panicked.is_err() && echoes(&pty.slave));
    }

    #[test]
    fn keys_are_read_unchanged_and_without_blocking() {
        let pty = openpty(None, None).unwrap();
        let keyboard = Keyboard::new(pty.slave.as_fd());
        let _raw = keyboard.raw().unwrap();
        assert_eq!(keyboard.read(16), Typed::Nothing);
        write(&pty.master, b"\x03\x1a\x1d").unwrap();
        assert_eq!(keyboard.read(2), Typed::Bytes(b"\x03\x1a".to_vec()));
        assert_eq!(keyboard.read(2), Typed::Bytes(b"\x1d".to_vec()));
        drop(pty.master);
        assert_eq!(keyboard.read(2), Typed::Over);
        let (reader, writer) = nix::unistd::pipe().unwrap();
        drop(writer);
        assert_eq!(Keyboard::new(reader.as_fd()).read(2), Typed::Over);
        assert!(Keyboard::new(reader.as_fd()).raw().is_none(), "a pipe has no terminal mode");
    }

    #[test]
    fn a_size_change_is_reported_once() {
        let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let screen = Screen::watch(&pty.slave).unwrap();
        assert_eq!(screen.size(), Size { rows: 50, columns: 132 });
        screen.resized.store(true, Ordering::SeqCst);
        assert_eq!(screen.changed(), None, "the signal came, the size did not change");
        screen.known.set(USUAL);
        screen.resized.store(true, Ordering::SeqCst);
        assert_eq!(screen.changed(), Some(Size { rows: 50, columns: 132 }));
        assert_eq!(screen.changed(), None);
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        assert_eq!(super::size(&reader), USUAL);
    }
}
