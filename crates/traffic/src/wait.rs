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
/// queue when the sender's call returns, or one softirq later: microseconds. A whole exchange takes 0.4 ms in an emulated
/// guest, and 3 ms on a busy host.
pub const SILENCE_WINDOW: Duration = Duration::from_millis(12);
/// See [`Patience`].
const ROUNDS: u32 = 3;

/// A time to wait for what the kernel or another thread does, in rounds.
///
/// A busy host lets the guest stand still while the clock goes on, so that the time may be over before the guest has done what is
/// waited for. A standstill uses up no more than the rest of one round: the next one begins when the guest goes on.
#[derive(Debug)]
pub struct Patience {
    round: Duration,
    ends: Instant,
    further: u32,
}

impl Patience {
    /// Begins to wait for so long.
    pub fn of(time: Duration) -> Self {
        let round = time / ROUNDS;
        Self { round, ends: Instant::now() + round, further: ROUNDS - 1 }
    }

    /// What is left of the current round; `None` after the last one.
    pub fn left(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let left = self.ends.saturating_duration_since(now);
        if !left.is_zero() {
            return Some(left);
        }
        self.further = self.further.checked_sub(1)?;
        self.ends = now + self.round;
        Some(self.round).filter(|round| !round.is_zero())
    }
}

/// A point in time after which a meter reports what it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MeterDeadline(Instant);

impl MeterDeadline {
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// Time left; `None` once it is over, since a socket timeout of zero means forever.
    pub fn left(self) -> Option<Duration> {
        self.0.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }
}

/// Waits until a socket is readable or in error, or the time is over.
pub(crate) fn readable(socket: &impl AsFd, timeout: Duration) {
    any_readable([socket as &dyn AsFd], timeout);
}

/// [`readable`] for one of several sockets.
pub(crate) fn any_readable<'a>(sockets: impl IntoIterator<Item = &'a dyn AsFd>, timeout: Duration) {
    wait_for(PollFlags::POLLIN, sockets, timeout);
}

/// Waits until a connection is there or in error, or the time is over.
pub(crate) fn writable(socket: &impl AsFd, timeout: Duration) {
    wait_for(PollFlags::POLLOUT, [socket as &dyn AsFd], timeout);
}

fn wait_for<'a>(what: PollFlags, sockets: impl IntoIterator<Item = &'a dyn AsFd>, timeout: Duration) {
    let mut fds: Vec<_> = sockets.into_iter().map(|socket| PollFd::new(socket.as_fd(), what)).collect();
    // Rounded up, so that the last fraction of a millisecond is not spent in a busy loop.
    let timeout = PollTimeout::try_from(timeout + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standstill_uses_up_one_round() {
        let mut patience = Patience::of(Duration::from_millis(30));
        std::thread::sleep(Duration::from_millis(60));
        let rounds = std::iter::from_fn(|| {
            let left = patience.left();
            std::thread::sleep(left.unwrap_or_default());
            left
        });
        assert_eq!(rounds.count(), ROUNDS as usize - 1);
        assert_eq!(Patience::of(Duration::ZERO).left(), None, "no time is not a time to wait");
    }
}
