//! Pseudo-terminals.

use lab_protocol::shell::Size;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    libc,
    pty::{OpenptyResult, Winsize, openpty},
};
use std::{fs::File, os::fd::AsRawFd};

nix::ioctl_write_int_bad!(
    /// `TIOCSCTTY`: makes a terminal the controlling one of this session.
    take_terminal,
    libc::TIOCSCTTY
);

nix::ioctl_write_ptr_bad!(
    /// `TIOCSWINSZ`: tells a terminal its size, and its foreground processes with `SIGWINCH`.
    set_size,
    libc::TIOCSWINSZ,
    Winsize
);

/// Makes the terminal that is standard input the controlling one of this session; it may be called between fork and exec.
///
/// # Errors
/// The kernel's answer.
pub fn take() -> nix::Result<()> {
    // SAFETY: the kernel reads nothing but the number.
    unsafe { take_terminal(libc::STDIN_FILENO, 0) }.map(drop)
}

/// The controlling end of a terminal.
pub struct Pty(pub File);

impl Pty {
    /// Tells the programs in it its size.
    pub fn resize(&self, size: Size) {
        let size = window(size);
        // SAFETY: the kernel reads the structure, which lives until the call returns, and keeps no pointer.
        let _ = unsafe { set_size(self.0.as_raw_fd(), &size) };
    }
}

const fn window(size: Size) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// A terminal of which a program gets nothing but its standard streams.
///
/// # Errors
/// The kernel's answer.
pub fn open(size: Size) -> nix::Result<OpenptyResult> {
    let pty = openpty(Some(&window(size)), None)?;
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    Ok(pty)
}
