//! A stream of numbered datagrams in the background, which measures losses while attachments change.

use crate::{
    gate,
    path::Path,
    udp::{hear_errors, sequence_of, take},
    wait::{SILENCE_WINDOW, WaitRounds, any_readable, errno, forget_error},
    weak::{self, Weakness},
};
use lab_topology::unpoisoned;
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    io::{self, PipeReader, PipeWriter},
    net::{SocketAddr, UdpSocket},
    ops::{Range, RangeInclusive},
    os::fd::AsFd,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Result of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamReport {
    /// Datagrams handed to the kernel, refused ones included: a refused one is lost too.
    pub sent: u32,
    /// Datagrams that arrived, each once.
    pub received: u32,
    /// The numbers that never arrived.
    pub lost: Vec<RangeInclusive<u32>>,
    /// Datagrams that arrived after a later one.
    pub reordered: u32,
    /// Copies of what had arrived already.
    pub duplicates: u32,
    /// Errnos that sending gave.
    pub send_errors: Vec<i32>,
    /// The numbers that may have been on their way during each call of [`UdpStream::during`].
    pub changes: Vec<Range<u32>>,
}

impl StreamReport {
    /// How many of the lost ones were on their way during each change. What a change costs depends on how long it takes, and on a busy
    /// host that is several intervals.
    pub fn lost_by_change(&self) -> Vec<usize> {
        let lost = |range: &Range<u32>| self.lost_numbers().filter(|number| range.contains(number)).count();
        self.changes.iter().map(lost).collect()
    }

    /// The lost ones that were on their way during no change.
    pub fn lost_otherwise(&self) -> Vec<u32> {
        self.lost_numbers().filter(|number| !self.changes.iter().any(|range| range.contains(number))).collect()
    }

    fn lost_numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.lost.iter().cloned().flatten()
    }

    /// How many never arrived.
    pub fn lost_count(&self) -> u32 {
        self.lost.iter().map(|range| range.end() - range.start() + 1).sum()
    }
}

/// A running stream, one way. Dropping it stops it.
#[derive(Debug)]
pub struct UdpStream {
    sender: Option<JoinHandle<(u32, Vec<i32>)>>,
    receiver: Option<JoinHandle<()>>,
    /// Dropped to stop the sender.
    going: Option<Sender<()>>,
    /// Dropped to wake the receiver.
    open: Option<PipeWriter>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    more: Condvar,
    /// Datagrams that the kernel refused so far.
    refused: AtomicU32,
    /// Datagrams that were handed to the kernel so far; the last one may be on its way.
    handed: AtomicU32,
    changes: Mutex<Vec<Range<u32>>>,
}

/// What the receiver has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Copies by number.
    copies: Vec<u32>,
    received: u32,
    reordered: u32,
    duplicates: u32,
    /// One past the highest number.
    next: u32,
    /// Set when the receiver gives up.
    over: bool,
}

/// The receiver is woken by what arrives and by the end of the stream; without either it looks again after this.
const TICK: Duration = Duration::from_secs(1);

/// Bytes, as `SO_RCVBUFFORCE` takes them (socket(7)): thousands of small datagrams, where the default holds 238.
const RECEIVE_BUFFER: usize = 4 << 20;

impl UdpStream {
    /// Starts to send a datagram every `interval`.
    ///
    /// # Errors
    /// If a socket can't be made or bound.
    pub fn start(path: Path<'_>, interval: Duration) -> io::Result<Self> {
        gate::flow();
        let (client, server) = path.udp()?;
        hear_errors(&client, path.dial)?;
        // Datagrams that waited for a neighbour's address come all at once: what the kernel delivered is never to be
        // lost here.
        setsockopt(&server, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let dial = path.dial;
        let (going, stopped) = mpsc::channel();
        let (closed, open) = io::pipe()?;
        let shared = Arc::new(Shared::default());
        let (for_receiver, for_sender) = (Arc::clone(&shared), Arc::clone(&shared));
        let receiver = thread::Builder::new().name("udp-receiver".to_owned()).spawn(move || {
            for_receiver.receive(&server, &closed);
        })?;
        let sender = thread::Builder::new().name("udp-sender".to_owned()).spawn(move || {
            send(
                &client,
                dial,
                |due| {
                    let wait = due.saturating_duration_since(Instant::now());
                    matches!(stopped.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
                },
                interval,
                &for_sender,
            )
        })?;
        Ok(Self { sender: Some(sender), receiver: Some(receiver), going: Some(going), open: Some(open), shared })
    }

    /// Waits until `count` further datagrams have arrived; false if they have not after `timeout`.
    pub fn wait_received(&self, count: u32, timeout: Duration) -> bool {
        let mut seen = unpoisoned(self.shared.seen.lock());
        let wanted = seen.received.saturating_add(count);
        let mut patience = WaitRounds::of(timeout);
        while seen.received < wanted && !seen.over {
            let Some(left) = patience.left() else { break };
            let waiting = |seen: &mut Seen| seen.received < wanted && !seen.over;
            (seen, _) = unpoisoned(self.shared.more.wait_timeout_while(seen, left, waiting));
        }
        seen.received >= wanted
    }

    /// Makes a change that may cost what is on its way meanwhile.
    pub fn during<T>(&self, change: impl FnOnce() -> T) -> T {
        let handed = || self.shared.handed.load(Ordering::SeqCst);
        let first = handed().saturating_sub(1);
        let done = change();
        unpoisoned(self.shared.changes.lock()).push(first..handed());
        done
    }

    /// How many datagrams the kernel has refused to send so far.
    pub fn refused(&self) -> u32 {
        self.shared.refused.load(Ordering::Relaxed)
    }

    /// Stops sending, waits until everything arrived or nothing did for the length of `drain`, and reports.
    pub fn stop(mut self, drain: Duration) -> StreamReport {
        let (sent, send_errors) = self.halt();
        self.drained(sent, drain);
        self.report(sent, send_errors)
    }

    /// Like [`stop`](Self::stop), where datagrams are expected to be lost: what has yet to come is not told by what was
    /// sent but by `owed`, the datagrams that were seen on their way. For them it waits up to `patience`, since a
    /// starved host keeps a receiver waiting long after the kernel has delivered; for nothing else longer than
    /// `window`.
    ///
    /// # Errors
    ///
    /// Those of `owed`.
    pub fn stop_owed<E>(
        mut self,
        window: Duration,
        patience: Duration,
        mut owed: impl FnMut() -> Result<u64, E>,
    ) -> Result<StreamReport, E> {
        let (sent, send_errors) = self.halt();
        let deadline = Instant::now() + patience;
        loop {
            let received = self.drained(sent, window);
            // More is owed than there is where a datagram was seen twice on its way.
            if received >= sent || u64::from(received) >= owed()? || Instant::now() >= deadline {
                return Ok(self.report(sent, send_errors));
            }
        }
    }

    /// Like [`stop`](Self::stop), where every datagram that does not arrive is counted by whoever drops it: waits until
    /// sent less `dropped` arrived, at most for `patience`.
    ///
    /// # Errors
    ///
    /// Those of `dropped`.
    pub fn stop_less<E>(
        mut self,
        patience: Duration,
        mut dropped: impl FnMut() -> Result<u64, E>,
    ) -> Result<StreamReport, E> {
        let (sent, send_errors) = self.halt();
        let deadline = Instant::now() + patience;
        loop {
            let wanted = sent.saturating_sub(u32::try_from(dropped()?).unwrap_or(u32::MAX));
            if self.drained(wanted, SILENCE_WINDOW) >= wanted || Instant::now() >= deadline {
                return Ok(self.report(sent, send_errors));
            }
        }
    }

    /// Returns how many arrived once all have, or none has for the length of `window`.
    fn drained(&self, sent: u32, window: Duration) -> u32 {
        let mut seen = unpoisoned(self.shared.seen.lock());
        loop {
            let before = seen.received;
            let mut patience = WaitRounds::of(window);
            while seen.received == before && before < sent {
                let Some(left) = patience.left() else { break };
                let waiting = |seen: &mut Seen| seen.received == before;
                (seen, _) = unpoisoned(self.shared.more.wait_timeout_while(seen, left, waiting));
            }
            if seen.received >= sent || seen.received == before {
                return seen.received;
            }
        }
    }

    fn report(&self, sent: u32, send_errors: Vec<i32>) -> StreamReport {
        let seen = unpoisoned(self.shared.seen.lock());
        StreamReport {
            sent,
            received: seen.received,
            lost: seen.lost(sent),
            reordered: seen.reordered,
            duplicates: seen.duplicates,
            send_errors,
            changes: unpoisoned(self.shared.changes.lock()).clone(),
        }
    }

    /// Ends the sender.
    fn halt(&mut self) -> (u32, Vec<i32>) {
        self.going = None;
        self.sender.take().map_or_else(Default::default, |sender| {
            sender.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }
}

impl Drop for UdpStream {
    fn drop(&mut self) {
        self.going = None;
        unpoisoned(self.shared.seen.lock()).over = true;
        self.open = None;
        // A panic in a thread has already been printed, and a second one while unwinding would abort.
        _ = self.sender.take().map(JoinHandle::join);
        _ = self.receiver.take().map(JoinHandle::join);
    }
}

/// Sends until `go_on` says no; each datagram has its own due time, so that a late one delays no other.
fn send(
    socket: &UdpSocket,
    to: SocketAddr,
    go_on: impl Fn(Instant) -> bool,
    interval: Duration,
    shared: &Shared,
) -> (u32, Vec<i32>) {
    let mut errors = Vec::new();
    let mut sequence = 0u32;
    let mut due = Instant::now();
    while go_on(due) {
        shared.handed.store(sequence + 1, Ordering::SeqCst);
        if let Err(error) = socket.send_to(&sequence.to_be_bytes(), to) {
            errors.push(errno(&error));
            shared.refused.fetch_add(1, Ordering::Relaxed);
            forget_error(socket);
        }
        sequence += 1;
        // After a stall the stream goes on at its pace and does not catch up in a burst.
        due = (due + interval).max(Instant::now());
    }
    (sequence, errors)
}

impl Shared {
    fn receive(&self, socket: &UdpSocket, closed: &PipeReader) {
        let mut buffer = [0; 64];
        let mut errors = Vec::new();
        loop {
            any_readable([socket as &dyn AsFd, closed], TICK);
            let mut seen = unpoisoned(self.seen.lock());
            while let Some((length, _)) = take(socket, &mut buffer, &mut errors) {
                if let Some(sequence) = sequence_of(&buffer[..length]) {
                    seen.count(sequence);
                }
            }
            self.more.notify_all();
            if seen.over {
                return;
            }
        }
    }
}

impl Seen {
    fn count(&mut self, sequence: u32) {
        let at = sequence as usize;
        if self.copies.len() <= at {
            self.copies.resize(at + 1, 0);
        }
        self.copies[at] += 1;
        if self.copies[at] > 1 {
            self.duplicates += 1;
            return;
        }
        self.received += 1;
        if sequence < self.next {
            self.reordered += 1;
        } else {
            self.next = sequence + 1;
        }
    }

    fn lost(&self, sent: u32) -> Vec<RangeInclusive<u32>> {
        let mut lost: Vec<RangeInclusive<u32>> = Vec::new();
        if weak::has(Weakness::LossUnseen) {
            return lost;
        }
        for number in (0..sent).filter(|number| self.copies.get(*number as usize).is_none_or(|copies| *copies == 0)) {
            match lost.last_mut() {
                Some(range) if *range.end() + 1 == number => *range = *range.start()..=number,
                _ => lost.push(number..=number),
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose sender has ended after `sent` datagrams, which all arrived.
    fn all_arrived(sent: u32) -> UdpStream {
        let mut seen = Seen::default();
        (0..sent).for_each(|sequence| seen.count(sequence));
        let shared = Arc::new(Shared { seen: Mutex::new(seen), ..Shared::default() });
        let sender = thread::spawn(move || (sent, Vec::new()));
        UdpStream { sender: Some(sender), receiver: None, going: None, open: None, shared }
    }

    #[test]
    fn nothing_is_waited_for_once_all_that_was_sent_has_arrived() {
        // Two programs saw each.
        let owed = || Ok::<_, io::Error>(6);
        let began = Instant::now();
        let report = all_arrived(3).stop_owed(Duration::ZERO, Duration::from_secs(60), owed).unwrap();
        assert_eq!((report.sent, report.received), (3, 3));
        assert!(began.elapsed() < Duration::from_secs(30), "it waited for copies");
    }

    #[test]
    fn what_is_lost_belongs_to_a_change_or_to_none() {
        let stream = all_arrived(0);
        let handed = |count| stream.shared.handed.store(count, Ordering::SeqCst);
        stream.during(|| handed(2));
        handed(5);
        stream.during(|| ());
        handed(7);
        stream.during(|| handed(10));
        let report = StreamReport { lost: vec![1..=1, 4..=6, 8..=9], ..stream.stop(Duration::ZERO) };
        assert_eq!(report.changes, [0..2, 4..5, 6..10], "the one before may still be on its way");
        assert_eq!((report.lost_by_change(), report.lost_otherwise()), (vec![1, 1, 3], vec![5]));
    }

    #[test]
    fn loss_reordering_and_copies_are_distinguished() {
        let mut seen = Seen::default();
        for sequence in [0, 1, 5, 3, 3, 6] {
            seen.count(sequence);
        }
        assert_eq!((seen.received, seen.reordered, seen.duplicates), (5, 1, 1));
        assert_eq!(seen.lost(10), [2..=2, 4..=4, 7..=9]);
        assert_eq!(Seen::default().lost(3), [0..=2]);
        assert_eq!(Seen::default().lost(0), []);
    }
}
