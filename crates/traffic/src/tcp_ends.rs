//! Half-closed, reset, refused and very many connections.

use crate::{
    content, gate,
    path::Path,
    tcp::{listen, patience},
    wait::{MeterDeadline, writable},
};
use nix::{errno::Errno, libc};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
    time::Duration,
};

const REQUEST: &[u8] = b"until here";

/// Closes the client's half first and has the server send `bytes` bytes only then; gives how many came intact.
///
/// # Errors
/// The first of either side.
pub fn half_closed(path: Path<'_>, bytes: u64, timeout: Duration) -> io::Result<u64> {
    gate::flow();
    let deadline = MeterDeadline::after(timeout);
    let (mut client, mut server) = pair(path, deadline)?;
    client.write_all(REQUEST)?;
    client.shutdown(Shutdown::Write)?;
    let mut request = Vec::new();
    server.read_to_end(&mut request)?;
    if request != REQUEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("the server read {} bytes", request.len())));
    }
    let mut answer = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    content::fill(bytes, 0, &mut answer);
    let mut received = Vec::new();
    thread::scope(|scope| {
        let writer = scope.spawn(|| server.write_all(&answer).and_then(|()| server.shutdown(Shutdown::Write)));
        client.read_to_end(&mut received)?;
        writer.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    })?;
    Ok(if content::matches(bytes, 0, &received) { received.len() as u64 } else { 0 })
}

/// Resets an established connection from the client's side; gives the errno that the server reads.
///
/// # Errors
/// Where there is no connection to reset.
pub fn reset(path: Path<'_>, timeout: Duration) -> io::Result<Option<Errno>> {
    gate::flow();
    let deadline = MeterDeadline::after(timeout);
    let (client, mut server) = pair(path, deadline)?;
    // Closing with no time to linger sends a reset instead of a FIN.
    SockRef::from(&client).set_linger(Some(Duration::ZERO))?;
    drop(client);
    Ok(match server.read(&mut [0; 16]) {
        Ok(_) => None,
        Err(error) => error.raw_os_error().map(Errno::from_raw),
    })
}

/// A connection on its way that is to be refused.
#[derive(Debug)]
pub struct ConnectAttempt(Socket);

impl ConnectAttempt {
    /// Sends the first SYN.
    ///
    /// # Errors
    /// The kernel's, where it sends none.
    pub fn start(path: Path<'_>) -> io::Result<Self> {
        gate::flow();
        let client =
            path.from.run(|| Socket::new(Domain::for_address(path.dial), Type::STREAM, Some(Protocol::TCP)))?;
        client.set_nonblocking(true)?;
        match client.connect(&path.dial.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
            _ => Ok(Self(client)),
        }
    }

    /// The errno that it ends with, waited for; `None` where it succeeds, or does not end.
    pub fn errno(&self, timeout: Duration) -> Option<Errno> {
        writable(&self.0, timeout);
        self.0.take_error().ok().flatten().and_then(|error| error.raw_os_error()).map(Errno::from_raw)
    }
}

/// Connects to a closed port; returns the errno.
pub fn refused(path: Path<'_>, timeout: Duration) -> Option<Errno> {
    match ConnectAttempt::start(path) {
        Ok(attempt) => attempt.errno(timeout),
        Err(error) => error.raw_os_error().map(Errno::from_raw),
    }
}

/// Opens `count` connections, at most `parallel` at a time, and sends a number there and back on each.
///
/// # Errors
/// The first connection that did not go through, with its number.
pub fn many(path: Path<'_>, count: u32, parallel: u32, timeout: Duration) -> io::Result<()> {
    gate::flow();
    let deadline = MeterDeadline::after(timeout);
    let listener = path.to.run(|| listen(path.listen))?;
    listener.set_nonblocking(false)?;
    path.from.run(|| {
        let mut number = 0;
        while number < count {
            let batch = number..count.min(number + parallel);
            let told = |error: io::Error| io::Error::new(error.kind(), format!("of {batch:?}: {error}"));
            let mut open = Vec::new();
            for number in batch.clone() {
                open.push((number, connect(path, &listener, deadline).map_err(told)?));
            }
            for (number, (client, server)) in &mut open {
                let sent = number.to_be_bytes();
                let mut received = [0; 4];
                let mut exchange = || {
                    client.write_all(&sent)?;
                    server.read_exact(&mut received)?;
                    server.write_all(&received)?;
                    client.read_exact(&mut received)
                };
                exchange().map_err(told)?;
                if received != sent {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        format!("connection {number}: other bytes"),
                    ));
                }
            }
            number = batch.end;
        }
        Ok(())
    })
}

fn pair(path: Path<'_>, deadline: MeterDeadline) -> io::Result<(TcpStream, TcpStream)> {
    let listener = path.to.run(|| listen(path.listen))?;
    listener.set_nonblocking(false)?;
    path.from.run(|| connect(path, &listener, deadline))
}

/// A connection's two ends, from the namespace that the thread is in. The handshake is the kernel's alone, so one
/// thread has both.
fn connect(path: Path<'_>, listener: &TcpListener, deadline: MeterDeadline) -> io::Result<(TcpStream, TcpStream)> {
    let left = deadline.left().ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
    let client = TcpStream::connect_timeout(&path.dial, left)?;
    let (server, _) = listener.accept()?;
    patience(&client, deadline)?;
    patience(&server, deadline)?;
    Ok((client, server))
}
