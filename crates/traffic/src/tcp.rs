//! One connection whose content is sent back and checked.

use crate::{
    content, gate,
    path::Path,
    wait::{MeterDeadline, readable},
    weak::{self, Weakness},
};
use nix::{getsockopt_impl, libc, sockopt_impl, sys::socket::GetSockOpt};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fmt,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

sockopt_impl!(
    /// The first byte of `TCP_INFO`, `tcpi_state` (include/uapi/linux/tcp.h).
    State,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    u8
);

/// Result of a connection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TcpReport {
    /// Whether the handshake went through.
    pub connected: bool,
    /// Bytes that the server got.
    pub bytes_delivered: u64,
    /// Bytes that came back.
    pub bytes_echoed: u64,
    /// Whether every byte that came back was the right one, and the stream ended where it should.
    pub content_ok: bool,
    /// The client's address as the server saw it.
    pub source_seen: Option<IpAddr>,
    /// The first error as text, with the side that had it.
    pub error: Option<String>,
    /// Errno of that error, where it has one.
    pub errno: Option<i32>,
}

const CHUNK: usize = 16 * 1024;
/// What is written at once: more than the kernel puts into one packet, or packets would be as short as the pieces.
const WRITE: usize = 1 << 20;
/// Between two looks at the state of a connection, which no event tells.
const POLL: Duration = Duration::from_millis(1);
/// Connections that may wait for their accept.
const BACKLOG: i32 = 128;

/// Connects within `timeout`; then sends `bytes` bytes, closes its half, and reads the echo to its end, within another.
pub fn tcp_exchange(path: Path<'_>, bytes: u64, timeout: Duration) -> TcpReport {
    gate::flow();
    let mut report = TcpReport::default();
    let sockets = path.to.run(|| listen(path.listen)).and_then(|listener| {
        let client =
            path.from.run(|| Socket::new(Domain::for_address(path.dial), Type::STREAM, Some(Protocol::TCP)))?;
        Ok((listener, client))
    });
    let (listener, client) = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            report.fail("setup", &error);
            return report;
        }
    };
    let seed = u64::from(path.dial.port());
    let mut served = Served::default();
    thread::scope(|scope| {
        let server = scope.spawn(|| {
            let mut served = Served::default();
            let result = serve(&listener, timeout, &mut served);
            (served, result)
        });
        let result = talk(client, path.dial, seed, bytes, timeout, &mut report);
        if let Err(error) = &result {
            report.fail("client", error);
        }
        if !report.connected {
            // Wakes the server, since no client will connect.
            _ = socket2::SockRef::from(&listener).shutdown(Shutdown::Both);
        }
        let (seen, result) = server.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        served = seen;
        if let Err(error) = &result {
            report.fail("server", error);
        }
    });
    report.bytes_delivered = served.bytes;
    report.source_seen = served.source;
    report
}

impl fmt::Display for TcpReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connected, bytes_delivered, bytes_echoed, content_ok, source_seen, error, .. } = self;
        let state = if *connected { "connected" } else { "not connected" };
        let content = if *content_ok { "intact" } else { "missing or different from the sent bytes" };
        write!(f, "{state}, {bytes_delivered} bytes delivered, {bytes_echoed} bytes returned, {content}")?;
        if let Some(source) = source_seen {
            write!(f, ", seen from {source}")?;
        }
        error.as_ref().map_or(Ok(()), |error| write!(f, "; {error}"))
    }
}

impl TcpReport {
    fn fail(&mut self, side: &str, error: &io::Error) {
        if self.error.is_none() {
            let late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
            let words = if late { "no progress before the deadline".to_owned() } else { error.to_string() };
            self.error = Some(format!("{side}: {words}"));
            self.errno = error.raw_os_error();
        }
    }
}

#[derive(Default)]
struct Served {
    bytes: u64,
    source: Option<IpAddr>,
}

pub(crate) fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn serve(listener: &TcpListener, timeout: Duration, served: &mut Served) -> io::Result<()> {
    readable(listener, timeout);
    let (mut stream, source) = listener.accept()?;
    let deadline = MeterDeadline::after(timeout);
    served.source = Some(source.ip());
    let mut buffer = vec![0; CHUNK];
    loop {
        patience(&stream, deadline)?;
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            stream.shutdown(Shutdown::Write)?;
            return acknowledged(&stream, deadline);
        }
        served.bytes += length as u64;
        stream.write_all(&buffer[..length])?;
    }
}

/// Waits until the client has acknowledged the end of the stream, its last packet: nothing of the connection is on its way
/// then, which programs would count for whatever comes next.
fn acknowledged(stream: &TcpStream, deadline: MeterDeadline) -> io::Result<()> {
    /// `TCP_CLOSE`, include/net/tcp_states.h.
    const CLOSED: u8 = 7;
    while State.get(stream)? != CLOSED && deadline.left().is_some() {
        thread::sleep(POLL);
    }
    Ok(())
}

fn talk(
    client: Socket,
    dial: SocketAddr,
    seed: u64,
    bytes: u64,
    timeout: Duration,
    report: &mut TcpReport,
) -> io::Result<()> {
    // The clock starts with the SYN: a guest whose host let it stand still before has sent one all the same.
    client.connect_timeout(&dial.into(), timeout)?;
    let deadline = MeterDeadline::after(timeout);
    report.connected = true;
    let stream = TcpStream::from(client);
    if bytes <= CHUNK as u64 {
        send(&stream, seed, bytes, deadline)?;
        receive(&stream, seed, deadline, report)?;
        report.content_ok &= report.bytes_echoed == bytes;
        return Ok(());
    }
    thread::scope(|scope| {
        // What is in flight both ways may exceed all buffers.
        let writer = scope.spawn(|| send(&stream, seed, bytes, deadline));
        let read = receive(&stream, seed, deadline, report);
        if read.is_err() {
            _ = stream.shutdown(Shutdown::Both);
        }
        let written = writer.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
        report.content_ok &= report.bytes_echoed == bytes;
        read.and(written)
    })
}

fn send(mut stream: &TcpStream, seed: u64, bytes: u64, deadline: MeterDeadline) -> io::Result<()> {
    let mut buffer = vec![0; WRITE.min(usize::try_from(bytes).unwrap_or(WRITE))];
    let mut at = 0;
    while at < bytes {
        let length = WRITE.min(usize::try_from(bytes - at).unwrap_or(WRITE));
        content::fill(seed, at, &mut buffer[..length]);
        patience(stream, deadline)?;
        stream.write_all(&buffer[..length])?;
        at += length as u64;
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(mut stream: &TcpStream, seed: u64, deadline: MeterDeadline, report: &mut TcpReport) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    report.content_ok = true;
    loop {
        patience(stream, deadline)?;
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        report.content_ok &=
            content::matches(seed, report.bytes_echoed, &buffer[..length]) || weak::has(Weakness::TcpDamageUnseen);
        report.bytes_echoed += length as u64;
    }
}

/// Lets the next read or write take no longer than the deadline allows.
pub(crate) fn patience(stream: &TcpStream, deadline: MeterDeadline) -> io::Result<()> {
    let left = deadline.left().ok_or_else(|| io::Error::from(io::ErrorKind::TimedOut))?;
    stream.set_read_timeout(Some(left))?;
    stream.set_write_timeout(Some(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_sent_however_short_the_time_is() {
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let mut report = TcpReport::default();
        _ = talk(client, listener.local_addr().unwrap(), 0, 1, Duration::from_nanos(1), &mut report);
        listener.accept().expect("the handshake was made");
    }

    #[test]
    fn an_echo_that_ends_half_way_is_not_intact_however_long_the_content_is() {
        for (bytes, returned, intact) in [
            (CHUNK as u64, CHUNK as u64, true),
            (CHUNK as u64, CHUNK as u64 / 2, false),
            (3 * CHUNK as u64, 3 * CHUNK as u64, true),
            (3 * CHUNK as u64, CHUNK as u64, false),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (dial, mut report) = (listener.local_addr().unwrap(), TcpReport::default());
            thread::scope(|scope| {
                scope.spawn(|| {
                    let (mut stream, mut content) = (listener.accept().unwrap().0, Vec::new());
                    stream.read_to_end(&mut content).unwrap();
                    stream.write_all(&content[..returned as usize]).unwrap();
                });
                let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
                talk(client, dial, 7, bytes, Duration::from_secs(10), &mut report).unwrap();
            });
            assert_eq!((report.bytes_echoed, report.content_ok), (returned, intact), "{returned} of {bytes}");
        }
    }
}
