//! The three figures of a sample. Each is the median over a window of guest time, after a few warm-up packets:
//! interruptions by a busy host affect only few of the values.
//!
//! One thread is both client and server, and the guest's only processor has nothing else to do: the time between
//! sending and receiving is processor time, softirqs included.

use crate::ctx::Stop;
use lab_protocol::measure::DATAGRAM;
use lab_topology::Netns;
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// Number of warm-up exchanges before a window.
const WARM_UP: u32 = 8;
/// Number of datagrams in flight; few enough for any buffer.
const BURST: u32 = 16;
/// Bytes in flight on a connection: they fit into the receiver's first window.
const CHUNK: usize = 32 << 10;

/// Both ends of the measured path.
pub struct Ends<'a> {
    /// Namespace of the client.
    pub from: &'a Netns,
    /// Namespace of the server.
    pub to: &'a Netns,
    /// The server's address.
    pub dial: SocketAddr,
    /// Time after which a packet counts as lost.
    pub patience: Duration,
    /// Duration of the measurement of each figure.
    pub window: Duration,
}

impl Ends<'_> {
    fn datagrams(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let server = self.to.run(|| UdpSocket::bind(self.dial))?;
        let client = self.from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        client.connect(self.dial)?;
        client.set_read_timeout(Some(self.patience))?;
        server.set_read_timeout(Some(self.patience))?;
        Ok((client, server))
    }

    fn connection(&self) -> io::Result<(TcpStream, TcpStream)> {
        let listener = self.to.run(|| TcpListener::bind(self.dial))?;
        let client = self.from.run(|| TcpStream::connect_timeout(&self.dial, self.patience))?;
        let (server, _) = listener.accept()?;
        client.set_write_timeout(Some(self.patience))?;
        server.set_read_timeout(Some(self.patience))?;
        Ok((client, server))
    }

    /// Repeats an operation until the window is over; returns the median of its duration, nanoseconds.
    fn repeat(&self, what: &str, mut work: impl FnMut() -> io::Result<()>) -> Result<f64, Stop> {
        let lost = |error: io::Error| Stop::check(format!("{what} was lost: {error}"));
        for _ in 0..WARM_UP {
            work().map_err(lost)?;
        }
        let (begin, mut took) = (Instant::now(), Vec::new());
        while begin.elapsed() < self.window || took.is_empty() {
            let start = Instant::now();
            work().map_err(lost)?;
            took.push(start.elapsed());
        }
        took.sort_unstable();
        Ok(took[took.len() / 2].as_nanos() as f64)
    }
}

/// Round-trip time of a datagram and its answer, nanoseconds.
pub fn round_trip(ends: &Ends<'_>) -> Result<f64, Stop> {
    let (client, server) = ends.datagrams()?;
    let mut buffer = [0; 64];
    ends.repeat("a datagram", || {
        client.send(&[1; 16])?;
        let (length, sender) = server.recv_from(&mut buffer)?;
        server.send_to(&buffer[..length], sender)?;
        client.recv(&mut buffer).map(drop)
    })
}

/// Processor time of a datagram from socket to socket, nanoseconds.
pub fn processor_time(ends: &Ends<'_>) -> Result<f64, Stop> {
    let (client, server) = ends.datagrams()?;
    let mut buffer = [0; DATAGRAM];
    let burst = ends.repeat("a datagram", || {
        for _ in 0..BURST {
            client.send(&[1; DATAGRAM])?;
        }
        (0..BURST).try_for_each(|_| server.recv(&mut buffer).map(drop))
    })?;
    Ok(burst / f64::from(BURST))
}

/// Throughput of one TCP connection, bytes per second.
pub fn throughput(ends: &Ends<'_>) -> Result<f64, Stop> {
    let (mut client, mut server) = ends.connection()?;
    let (chunk, mut buffer) = (vec![1; CHUNK], vec![0; CHUNK]);
    let took = ends.repeat("a segment", || {
        client.write_all(&chunk)?;
        server.read_exact(&mut buffer)
    })?;
    Ok(CHUNK as f64 * 1e9 / took)
}
