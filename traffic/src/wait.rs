//! Waiting for sockets, always with a deadline.

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv},
};
use std::{
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

/// How long nothing must arrive before "nothing arrives" holds. In one kernel a packet that passes is in the receiver's
/// queue when the sender's call returns, or one softirq later: microseconds, and a few milliseconds under emulation.
pub const SILENCE_WINDOW: Duration = Duration::from_millis(60);
/// An emulated guest is slower, but its packets still take no turn through anything that waits.
const MOST_STRETCH: f32 = 2.0;

/// [`SILENCE_WINDOW`] stretched for an emulated guest.
pub fn silence_window(time_scale: f32) -> Duration {
    SILENCE_WINDOW.mul_f32(time_scale.clamp(1.0, MOST_STRETCH))
}

/// A point in time after which a meter reports what it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// Time left; `None` once it is over, since a socket timeout of zero means forever.
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// Waits until a socket is readable or in error; tells which. All false means that the time is over.
pub(crate) fn readable<const N: usize>(sockets: [&dyn AsFd; N], timeout: Duration) -> [bool; N] {
    let mut fds = sockets.map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
    // Rounded up, so that the last fraction of a millisecond is not spent in a busy loop.
    let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) => fds.map(|fd| fd.any().unwrap_or(false)),
        Err(Errno::EINTR) => [false; N],
        Err(errno) => unreachable!("poll on open sockets: {errno}"),
    }
}

/// The errno of an I/O error.
pub(crate) fn errno(error: &std::io::Error) -> i32 {
    error.raw_os_error().unwrap_or(Errno::EIO as i32)
}

/// True for the error of a non-blocking socket that has nothing.
pub(crate) fn would_block(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::WouldBlock
}

/// Takes the error that a socket just returned off its error queue (`IP_RECVERR`): poll reports the socket as ready
/// for as long as the queue holds one.
pub(crate) fn forget_error(socket: &std::net::UdpSocket) {
    // An empty queue is fine: a drop below the socket is returned without being queued.
    _ = recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT);
}
