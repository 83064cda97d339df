//! The terminal in front of which the person sits: keys as they are typed, its size, and the mode it was found in.

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

/// Where a terminal does not say how large it is.
const USUAL: Size = Size { rows: 24, columns: 80 };
/// Cursor visible, no bracketed paste, plain colours: what a program that is cut off leaves behind.
const ORDER: &[u8] = b"\x1b[?25h\x1b[?2004l\x1b[0m\r\n";
/// Leaves the screen that full-screen programs draw on. On any other screen it would only misplace the cursor.
const NORMAL_SCREEN: &[u8] = b"\x1b[?1049l";
/// Enters it.
const OTHER_SCREEN: &[u8] = b"\x1b[?1049h";

nix::ioctl_read_bad!(
    /// `TIOCGWINSZ`: a terminal's size.
    get_size,
    libc::TIOCGWINSZ,
    nix::pty::Winsize
);

/// What came from a keyboard.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed {
    /// Nothing yet.
    Nothing,
    /// These bytes.
    Bytes(Vec<u8>),
    /// Nothing will come any more.
    Over,
}

/// Standard input, read without waiting.
pub struct Keyboard<'a>(BorrowedFd<'a>);

impl<'a> Keyboard<'a> {
    /// Reads this descriptor.
    pub const fn new(descriptor: BorrowedFd<'a>) -> Self {
        Self(descriptor)
    }

    /// What has come, at most so many bytes.
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

    /// Makes the terminal hand over every key as it is, Ctrl-C too; none where it is no terminal.
    pub fn raw(&self) -> Option<RawMode> {
        let terminal = self.0.try_clone_to_owned().ok()?;
        let found = tcgetattr(&terminal).ok()?;
        let mut raw = found.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).ok()?;
        Some(RawMode { terminal, found })
    }
}

/// A terminal in raw mode. Dropping it puts back the mode in which it was found, in a panic too.
pub struct RawMode {
    terminal: OwnedFd,
    found: Termios,
}

impl RawMode {
    /// Puts the terminal back where a program was cut off and could not do so; its output tells on which screen it was.
    pub fn end(self, shown: &Shown) {
        if shown.other_screen {
            let _ = write(&self.terminal, NORMAL_SCREEN);
        }
        let _ = write(&self.terminal, ORDER);
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Not after output has drained: that might never be, on a terminal that was stopped.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.found);
    }
}

/// What output has done to a terminal.
#[derive(Debug, Default)]
pub struct Shown {
    other_screen: bool,
    /// The end of what was written, in which a sequence may have begun.
    end: Vec<u8>,
}

impl Shown {
    /// Output goes to the terminal.
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

/// Standard output as a screen.
pub struct Screen {
    terminal: OwnedFd,
    resized: Arc<AtomicBool>,
    known: Cell<Size>,
}

impl Screen {
    /// Watches a terminal's size from now on.
    ///
    /// # Errors
    /// The system's answer to `sigaction` or `dup`.
    pub fn watch(terminal: impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let resized = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGWINCH, Arc::clone(&resized))?;
        let known = Cell::new(size(&terminal));
        Ok(Self { terminal, resized, known })
    }

    /// Its size when it was last looked at.
    pub const fn size(&self) -> Size {
        self.known.get()
    }

    /// Its size, where that has changed.
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
    fn a_terminal_is_as_it_was_also_after_a_panic() {
        let pty = openpty(None, None).unwrap();
        let raw = Keyboard::new(pty.slave.as_fd()).raw().unwrap();
        assert!(!echoes(&pty.slave));
        let mut shown = Shown::default();
        shown.write(b"\x1b[?10");
        shown.write(b"49h an editor");
        raw.end(&shown);
        assert!(echoes(&pty.slave));
        let mut said = [0; 64];
        let count = read(&pty.master, &mut said).unwrap();
        assert_eq!(&said[..count], [NORMAL_SCREEN, ORDER].concat());
        shown.write(b"\x1b[?1049l");
        assert!(!shown.other_screen, "it has left by itself");

        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _raw = Keyboard::new(pty.slave.as_fd()).raw().unwrap();
            panic!("in the middle");
        }));
        assert!(panicked.is_err() && echoes(&pty.slave));
    }

    #[test]
    fn keys_come_as_they_are_and_never_keep_anyone_waiting() {
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
        assert!(Keyboard::new(reader.as_fd()).raw().is_none(), "a pipe has no mode");
    }

    #[test]
    fn a_size_is_told_once_when_it_changes() {
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
