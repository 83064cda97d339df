//! A channel over a Unix stream socket, for QEMU's chardev and for the fake guest's socket pair.

use super::{Channel, Recv, SEND_TIMEOUT};
use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

/// [`Channel`] over a connected stream socket.
#[derive(Debug)]
pub struct SocketChannel {
    stream: UnixStream,
}

impl SocketChannel {
    /// Creates a channel from a connected socket.
    ///
    /// # Errors
    /// The socket's send timeout can't be set.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self { stream })
    }
}

impl Channel for SocketChannel {
    fn recv(&mut self, buf: &mut [u8], timeout: Duration) -> io::Result<Recv> {
        // A zero timeout means "no timeout" to the kernel, and std refuses it.
        self.stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        loop {
            return match self.stream.read(buf) {
                Ok(0) => Ok(Recv::Closed),
                Ok(count) => Ok(Recv::Bytes(count)),
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(Recv::Timeout),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Ok(Recv::Closed),
                    _ => Err(error),
                },
            };
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_bytes_timeout_and_end() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut channel = SocketChannel::new(ours).unwrap();
        let mut buf = [0; 8];
        assert_eq!(channel.recv(&mut buf, Duration::ZERO).unwrap(), Recv::Timeout);
        theirs.write_all(b"abc").unwrap();
        assert_eq!(channel.recv(&mut buf, Duration::from_secs(1)).unwrap(), Recv::Bytes(3));
        channel.send(b"unread").unwrap();
        // A peer that closes with unread bytes resets the connection: this counts as the end, not as an error.
        drop(theirs);
        assert_eq!(channel.recv(&mut buf, Duration::from_secs(1)).unwrap(), Recv::Closed);
        assert!(channel.send(b"x").is_err());
    }
}
