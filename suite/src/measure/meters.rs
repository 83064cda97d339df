//! The three figures of a sample. Each is taken over a window of guest time, after a few packets that warm the path up.

use super::cpu;
use crate::ctx::Stop;
use lab_protocol::measure::DATAGRAM;
use lab_topology::Netns;
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// Exchanges before a window begins.
const WARM_UP: u32 = 8;
/// Datagrams that are under way at the same time: enough to amortise nothing but the wake-up, few enough for any buffer.
const BURST: u32 = 16;
/// Bytes that are handed to a connection at a time.
const CHUNK: usize = 64 << 10;

/// Both ends of what is measured.
pub struct Ends<'a> {
    /// Namespace of the client.
    pub from: &'a Netns,
    /// Namespace of the server.
    pub to: &'a Netns,
    /// The server's address.
    pub dial: SocketAddr,
    /// How long a single packet may take before it counts as lost.
    pub patience: Duration,
    /// How long each figure is measured.
    pub window: Duration,
}

/// Client and server, one thread for both: on the way between them lies nothing but the kernel.
struct Pair {
    client: UdpSocket,
    server: UdpSocket,
}

impl Pair {
    fn open(ends: &Ends<'_>) -> io::Result<Self> {
        let server = ends.to.run(|| UdpSocket::bind(ends.dial))?;
        let client = ends.from.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        client.connect(ends.dial)?;
        client.set_read_timeout(Some(ends.patience))?;
        server.set_read_timeout(Some(ends.patience))?;
        Ok(Self { client, server })
    }

    fn exchange(&self, buffer: &mut [u8]) -> io::Result<()> {
        self.client.send(&[1; 16])?;
        let (length, client) = self.server.recv_from(buffer)?;
        self.server.send_to(&buffer[..length], client)?;
        self.client.recv(buffer).map(drop)
    }

    fn burst(&self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..BURST {
            self.client.send(&[1; DATAGRAM])?;
        }
        (0..BURST).try_for_each(|_| self.server.recv(buffer).map(drop))
    }
}

/// Runs something until the window is over; gives how often, and how long that really took.
fn repeat(window: Duration, mut work: impl FnMut() -> io::Result<()>) -> io::Result<(u32, Duration)> {
    (0..WARM_UP).try_for_each(|_| work())?;
    let begin = Instant::now();
    let mut count = 0;
    while begin.elapsed() < window {
        work()?;
        count += 1;
    }
    Ok((count, begin.elapsed()))
}

/// A datagram there and its answer back, nanoseconds.
pub fn round_trip(ends: &Ends<'_>) -> Result<f64, Stop> {
    let pair = Pair::open(ends)?;
    let mut buffer = [0; 64];
    let (count, took) =
        repeat(ends.window, || pair.exchange(&mut buffer)).map_err(|error| lost("a datagram", &error))?;
    Ok(took.as_nanos() as f64 / f64::from(count))
}

/// Processor time of a datagram from socket to socket, nanoseconds.
pub fn processor_time(ends: &Ends<'_>) -> Result<f64, Stop> {
    let pair = Pair::open(ends)?;
    let mut buffer = [0; DATAGRAM];
    let begin = cpu::time()?;
    let (count, _) = repeat(ends.window, || pair.burst(&mut buffer)).map_err(|error| lost("a datagram", &error))?;
    let took = cpu::time()? - begin;
    Ok(took as f64 / f64::from((count + WARM_UP) * BURST))
}

/// What one TCP connection carries, bytes per second.
pub fn throughput(ends: &Ends<'_>) -> Result<f64, Stop> {
    let listener = ends.to.run(|| TcpListener::bind(ends.dial))?;
    let client = ends.from.run(|| TcpStream::connect_timeout(&ends.dial, ends.patience));
    let mut client = client.map_err(|error| lost("the connection", &error))?;
    let (server, _) = listener.accept()?;
    client.set_write_timeout(Some(ends.patience))?;
    server.set_read_timeout(Some(ends.patience))?;
    let received = thread::scope(|scope| {
        let receiver = scope.spawn(|| receive(server));
        let chunk = vec![1; CHUNK];
        let begin = Instant::now();
        while begin.elapsed() < ends.window {
            client.write_all(&chunk)?;
        }
        drop(client);
        let bytes = receiver.join().map_err(|_| io::Error::other("the receiver panicked"))??;
        Ok::<_, io::Error>(bytes as f64 / begin.elapsed().as_secs_f64())
    });
    received.map_err(|error| lost("the connection", &error))
}

fn receive(mut server: TcpStream) -> io::Result<u64> {
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
    loop {
        match server.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes += count as u64,
        }
    }
}

fn lost(what: &str, error: &io::Error) -> Stop {
    Stop::check(format!("{what} was lost: {error}"))
}
