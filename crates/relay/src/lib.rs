//! Connections of one machine to another, carried over a single byte stream: a virtio-serial port.
//!
//! A guest has no network device. What a command in it is to reach on the host are single services of the loopback device,
//! and this crate is both ends of the way: the guest accepts connections at the same ports and calls [`Mux::open`], the host
//! connects where [`Mux::follow`] hears of one. There is no address on the stream, only the number of a service in a list that
//! both sides know, so that no other service can be asked for.
//!
//! *Security*: either side may be hostile to the other. Connections are counted, and each has a window: who sends more than was
//! taken loses the connection. Threads are counted too: one that still connects outlives a connection that was reset.
//!
//! *Architecture invariant:* this crate opens no socket.

#![warn(missing_docs)]

mod frame;
#[cfg(test)]
mod fuzz;
mod line;
mod threads;

pub use frame::{LoopbackFamily, ServiceCall};
pub use line::{RelaySink, WINDOW};

use frame::{Frame, Kind};
use line::{Credit, Line, Piece, cost};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
};
use threads::Threads;

/// Bytes in one frame; a datagram must fit.
pub const PIECE: usize = 64 << 10;
/// Connections at the same time.
pub const MOST: usize = 256;

/// One end of the stream.
pub struct Mux {
    port: Mutex<Box<dyn Write + Send>>,
    lines: Mutex<Lines>,
    threads: Threads,
}

#[derive(Default)]
struct Lines {
    open: HashMap<u32, Line>,
    next: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mux {
    /// The end that writes here.
    pub fn new(port: impl Write + Send + 'static) -> Arc<Self> {
        Arc::new(Self { port: Mutex::new(Box::new(port)), lines: Mutex::default(), threads: Threads::default() })
    }

    /// Opens a connection to a service of the other side. `to_here` takes what comes back.
    ///
    /// # Errors
    /// Too many are open, or the port is closed.
    pub fn open(self: &Arc<Self>, opened: ServiceCall, to_here: RelaySink) -> io::Result<u32> {
        let (channel, waiting) = {
            let mut lines = lock(&self.lines);
            if lines.open.len() >= MOST {
                return Err(io::Error::other(format!("more than {MOST} connections")));
            }
            while lines.open.contains_key(&lines.next) {
                lines.next = lines.next.wrapping_add(1);
            }
            let channel = lines.next;
            lines.next = channel.wrapping_add(1);
            let (line, waiting) = Line::new(opened.datagrams);
            lines.open.insert(channel, line);
            (channel, waiting)
        };
        self.send(channel, Kind::Open, &opened.encode())?;
        let mux = Arc::clone(self);
        if !self.threads.start(move || mux.attach(channel, to_here, &waiting)) {
            self.reset(channel);
            return Err(io::Error::other(format!("more than {} threads of connections", threads::MOST_THREADS)));
        }
        Ok(channel)
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The connection or the port is closed.
    pub fn datagram(&self, channel: u32, bytes: &[u8]) -> io::Result<()> {
        if !lock(&self.lines).open.contains_key(&channel) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        self.send(channel, Kind::Data, bytes)
    }

    /// Ends a connection at once.
    pub fn reset(&self, channel: u32) {
        let line = lock(&self.lines).open.remove(&channel);
        if let Some(line) = line {
            line.end();
            let _ = self.send(channel, Kind::Reset, &[]);
        }
    }

    /// Hears what the other side sends until the stream ends. `connect` connects to a service, with the number of the channel
    /// for datagrams that come back; it is called on a thread of its own.
    ///
    /// # Errors
    /// The stream broke, or what came is no frame.
    pub fn follow<C>(self: &Arc<Self>, mut port: impl Read, connect: C) -> io::Result<()>
    where
        C: Fn(ServiceCall, u32) -> io::Result<RelaySink> + Send + Sync + 'static,
    {
        let connect = Arc::new(connect);
        let followed = loop {
            match Frame::read(&mut port, PIECE) {
                Ok(Some(frame)) => self.hear(frame, &connect),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        let lines: Vec<Line> = lock(&self.lines).open.drain().map(|(_, line)| line).collect();
        lines.into_iter().for_each(Line::end);
        followed
    }

    /// Connections that are open.
    #[cfg(test)]
    fn count(&self) -> usize {
        lock(&self.lines).open.len()
    }

    /// Waits for the threads of all connections, which [`Mux::follow`] has ended.
    #[cfg(test)]
    fn join(&self) {
        self.threads.join();
    }

    fn hear<C>(self: &Arc<Self>, frame: Frame, connect: &Arc<C>)
    where
        C: Fn(ServiceCall, u32) -> io::Result<RelaySink> + Send + Sync + 'static,
    {
        let Frame { channel, kind, body } = frame;
        match kind {
            Kind::Open => {
                let Some(opened) = ServiceCall::decode(&body) else { return self.reset(channel) };
                let waiting = {
                    let mut lines = lock(&self.lines);
                    if lines.open.len() >= MOST || lines.open.contains_key(&channel) {
                        drop(lines);
                        let _ = self.send(channel, Kind::Reset, &[]);
                        return;
                    }
                    let (line, waiting) = Line::new(opened.datagrams);
                    lines.open.insert(channel, line);
                    waiting
                };
                let (mux, connect) = (Arc::clone(self), Arc::clone(connect));
                let started = self.threads.start(move || match connect(opened, channel) {
                    Ok(sink) => mux.attach(channel, sink, &waiting),
                    Err(_) => mux.reset(channel),
                });
                if !started {
                    self.reset(channel);
                }
            }
            Kind::Data => {
                let kept = lock(&self.lines).open.get_mut(&channel).is_none_or(|line| line.take(body, WINDOW));
                if !kept {
                    self.reset(channel);
                }
            }
            Kind::End => {
                if let Some(line) = lock(&self.lines).open.get(&channel) {
                    line.over();
                }
            }
            Kind::Taken => {
                let count = body.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize;
                if let Some(line) = lock(&self.lines).open.get(&channel) {
                    line.credit.give(count, WINDOW);
                }
            }
            Kind::Reset => {
                if let Some(line) = lock(&self.lines).open.remove(&channel) {
                    line.end();
                }
            }
        }
    }

    fn send(&self, channel: u32, kind: Kind, body: &[u8]) -> io::Result<()> {
        // One write, so that frames of two threads don't mix.
        lock(&self.port).write_all(&Frame::encode(channel, kind, body))
    }

    /// Connects a socket to its line, and writes to it until the line ends.
    fn attach(self: &Arc<Self>, channel: u32, sink: RelaySink, waiting: &mpsc::Receiver<Piece>) {
        match sink {
            RelaySink::Stream(stream) => {
                let copies = stream.try_clone().and_then(|copy| Ok((copy, stream.try_clone()?)));
                let Ok((copy, kept)) = copies else { return self.reset(channel) };
                let credit = {
                    let mut lines = lock(&self.lines);
                    // The other side has refused the connection before the line had its socket.
                    let Some(line) = lines.open.get_mut(&channel) else { return line::refuse(&kept) };
                    line.stream = Some(kept);
                    Arc::clone(&line.credit)
                };
                let mux = Arc::clone(self);
                if !self.threads.start(move || mux.read_from(channel, copy, &credit)) {
                    return self.reset(channel);
                }
                self.write_to(channel, stream, waiting);
            }
            RelaySink::Datagrams(mut deliver) => {
                for piece in waiting {
                    if let Piece::Data(bytes) = piece {
                        // A datagram that can't be delivered is lost, as in any network.
                        let _ = deliver(&bytes);
                        if let Some(line) = lock(&self.lines).open.get_mut(&channel) {
                            line.written(bytes.len());
                        }
                    }
                }
            }
        }
    }

    fn read_from(&self, channel: u32, mut stream: TcpStream, credit: &Credit) {
        let mut buffer = vec![0; PIECE];
        while let Some(room) = credit.wait(PIECE) {
            match stream.read(&mut buffer[..room]) {
                Ok(0) => {
                    // Not one that was ended here.
                    if lock(&self.lines).open.contains_key(&channel) {
                        let _ = self.send(channel, Kind::End, &[]);
                        self.half_done(channel);
                    }
                    return;
                }
                Ok(count) => {
                    credit.spend(count);
                    if self.send(channel, Kind::Data, &buffer[..count]).is_err() {
                        return self.reset(channel);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.reset(channel),
            }
        }
    }

    fn write_to(&self, channel: u32, mut stream: TcpStream, waiting: &mpsc::Receiver<Piece>) {
        for piece in waiting {
            match piece {
                Piece::Data(bytes) => {
                    if stream.write_all(&bytes).is_err() {
                        return self.reset(channel);
                    }
                    if let Some(line) = lock(&self.lines).open.get_mut(&channel) {
                        line.written(bytes.len());
                    }
                    let _ = self.send(channel, Kind::Taken, &(cost(bytes.len()) as u32).to_le_bytes());
                }
                Piece::Over => {
                    let _ = stream.shutdown(Shutdown::Write);
                    self.half_done(channel);
                    return;
                }
            }
        }
    }

    /// One direction has come to its end; with the second one the connection has.
    fn half_done(&self, channel: u32) {
        let mut lines = lock(&self.lines);
        if lines.open.get_mut(&channel).is_some_and(Line::half_done) {
            lines.open.remove(&channel);
        }
    }
}

#[cfg(test)]
mod tests;
