//! Sequence-numbered datagrams that a server sends back.

use crate::{
    content,
    flow::named,
    gate,
    path::Path,
    wait::{WaitRounds, any_readable, errno, forget_error, would_block},
    weak::{self, Weakness},
};
use nix::{
    libc, setsockopt_impl,
    sys::socket::{
        setsockopt,
        sockopt::{Ipv4RecvErr, Ipv6RecvErr, SetBool},
    },
};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

/// How datagrams are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOptions {
    /// Whether the client's socket is connected.
    pub connected: bool,
    /// Whether the client sets `IP_RECVERR`: a netkit drop is then `ENOBUFS`, otherwise success.
    pub hear_errors: bool,
    /// Payload of each datagram, bytes; at least 4.
    pub payload: usize,
    /// Whether the client's datagrams carry a checksum; IPv4 may leave it 0 (`SO_NO_CHECK`).
    pub checksum: bool,
}

impl Default for UdpOptions {
    fn default() -> Self {
        Self { connected: false, hear_errors: true, payload: 64, checksum: true }
    }
}

/// Result of some datagrams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UdpReport {
    /// Datagrams that the kernel took without an error.
    pub sent: u32,
    /// Datagrams that the server got, each once.
    pub delivered: u32,
    /// Datagrams that came back to the client from the address that it sent to, each once.
    pub echoed: u32,
    /// Source address of the first datagram that the server got.
    pub source_seen: Option<IpAddr>,
    /// Further copies, at either side.
    pub duplicates: u32,
    /// Datagrams with another length or content than was sent, at either side. They count as nothing else.
    pub damaged: u32,
    /// Echoes from an address that the client did not send to.
    pub foreign: u32,
    /// Address that the first of these came from.
    pub foreign_source: Option<SocketAddr>,
    /// Errnos that the client got; `ENOBUFS` is a drop below.
    pub send_errors: Vec<i32>,
}

impl UdpReport {
    /// Formats the answers to a client that sent to `dial`: their number, and other source addresses.
    pub fn answers(&self, dial: SocketAddr) -> String {
        let mut words = format!("{} of {} answered from {dial}, as expected", self.echoed, self.sent);
        if self.echoed < self.sent {
            words = format!("{} of {} answered from {dial}, {} delivered", self.echoed, self.sent, self.delivered);
        }
        if let Some(source) = self.foreign_source {
            words += &format!("; {} from {source} instead", self.foreign);
        }
        words + &named(&self.send_errors)
    }
}

/// `SO_NO_CHECK` (include/uapi/asm-generic/socket.h).
#[derive(Debug, Clone, Copy)]
struct NoChecksum;

setsockopt_impl!(NoChecksum, libc::SOL_SOCKET, libc::SO_NO_CHECK, bool, SetBool);

/// Sends `count` datagrams and collects their echoes until all are back or `timeout` is over.
pub fn udp_exchange(path: Path<'_>, count: u32, options: UdpOptions, timeout: Duration) -> UdpReport {
    let mut patience = WaitRounds::of(timeout);
    let mut exchange = UdpExchange::start(path, count, options);
    while !exchange.collect() {
        let Some(left) = patience.left() else { break };
        any_readable(exchange.sockets(), left);
    }
    exchange.report
}

/// Datagrams in progress.
pub(crate) struct UdpExchange {
    pump: Option<Pump>,
    count: u32,
    /// Result so far.
    pub report: UdpReport,
}

impl UdpExchange {
    /// Sends them all. The report has the errors.
    pub fn start(path: Path<'_>, count: u32, options: UdpOptions) -> Self {
        gate::flow();
        let mut report = UdpReport::default();
        let pump = match Pump::send(path, count, options, &mut report) {
            Ok(pump) => Some(pump),
            Err(error) => {
                report.send_errors.push(errno(&error));
                None
            }
        };
        Self { pump, count, report }
    }

    /// Takes what arrived since; true once there is nothing left to wait for.
    pub fn collect(&mut self) -> bool {
        let Some(pump) = &mut self.pump else { return true };
        pump.turn(&mut self.report);
        pump.returned.len() >= self.count as usize
    }

    /// What to wait for.
    pub fn sockets(&self) -> impl Iterator<Item = &dyn AsFd> {
        self.pump.iter().flat_map(|pump| [&pump.client as &dyn AsFd, &pump.server])
    }
}

pub(crate) fn hear_errors(socket: &UdpSocket, to: SocketAddr) -> io::Result<()> {
    if to.is_ipv4() {
        setsockopt(socket, Ipv4RecvErr, &true)?
    } else {
        setsockopt(socket, Ipv6RecvErr, &true)?
    }
    Ok(())
}

struct Pump {
    client: UdpSocket,
    server: UdpSocket,
    dial: SocketAddr,
    /// Bytes of each datagram.
    length: usize,
    arrived: BTreeSet<u32>,
    returned: BTreeSet<u32>,
}

impl Pump {
    fn send(path: Path<'_>, count: u32, options: UdpOptions, report: &mut UdpReport) -> io::Result<Self> {
        let (client, server) = path.udp()?;
        if options.hear_errors {
            hear_errors(&client, path.dial)?;
        }
        if !options.checksum {
            setsockopt(&client, NoChecksum, &true)?;
        }
        if options.connected {
            client.connect(path.dial)?;
        }
        let length = options.payload.max(SEQUENCE);
        let (arrived, returned) = (BTreeSet::new(), BTreeSet::new());
        let mut pump = Self { client, server, dial: path.dial, length, arrived, returned };
        let mut payload = vec![0; length];
        for sequence in 0..count {
            payload[..SEQUENCE].copy_from_slice(&sequence.to_be_bytes());
            content::fill(sequence.into(), 0, &mut payload[SEQUENCE..]);
            let sent =
                if options.connected { pump.client.send(&payload) } else { pump.client.send_to(&payload, path.dial) };
            match sent {
                Ok(_) => report.sent += 1,
                Err(error) => {
                    heard(&mut report.send_errors, &error);
                    forget_error(&pump.client);
                }
            }
            // Emptied after each datagram, so that no count overflows a socket's buffer.
            pump.turn(report);
        }
        Ok(pump)
    }

    /// The number of a datagram that is as it was sent.
    fn intact(&self, datagram: &[u8], report: &mut UdpReport) -> Option<u32> {
        let sequence = as_sent(datagram, self.length).or_else(|| {
            // What a weakened meter takes.
            sequence_of(datagram).filter(|_| weak::has(Weakness::UdpDamageUnseen))
        });
        report.damaged += u32::from(sequence.is_none());
        sequence
    }

    /// Takes whatever lies in both sockets: the server's goes back, the client's is counted.
    fn turn(&mut self, report: &mut UdpReport) {
        let mut buffer = [0; 65536];
        while let Some((length, source)) = take(&self.server, &mut buffer, &mut report.send_errors) {
            let Some(sequence) = self.intact(&buffer[..length], report) else { continue };
            if self.arrived.insert(sequence) {
                report.delivered += 1
            } else {
                report.duplicates += 1
            }
            report.source_seen.get_or_insert(source.ip());
            if let Err(error) = self.server.send_to(&buffer[..length], source) {
                report.send_errors.push(errno(&error));
            }
        }
        while let Some((length, source)) = take(&self.client, &mut buffer, &mut report.send_errors) {
            let Some(sequence) = self.intact(&buffer[..length], report) else { continue };
            if source.ip() != self.dial.ip() && !weak::has(Weakness::AnyAnswerer) {
                report.foreign += 1;
                report.foreign_source.get_or_insert(source);
            } else if self.returned.insert(sequence) {
                report.echoed += 1;
            } else {
                report.duplicates += 1;
            }
        }
    }
}

/// Bytes of a datagram's number.
const SEQUENCE: usize = 4;

/// The next datagram; errors are kept and passed over, since each read takes one away.
pub(crate) fn take(socket: &UdpSocket, buffer: &mut [u8], errors: &mut Vec<i32>) -> Option<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Ok(found) => return Some(found),
            Err(error) if would_block(&error) => return None,
            Err(error) => {
                heard(errors, &error);
                forget_error(socket);
            }
        }
    }
}

fn heard(errors: &mut Vec<i32>, error: &io::Error) {
    if !weak::has(Weakness::ErrorsUnheard) {
        errors.push(errno(error));
    }
}

pub(crate) fn sequence_of(datagram: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(datagram.get(..SEQUENCE)?.try_into().ok()?))
}

/// The number of a datagram of this length, if it has the content that goes with that number.
fn as_sent(datagram: &[u8], length: usize) -> Option<u32> {
    sequence_of(datagram)
        .filter(|sequence| datagram.len() == length && content::matches((*sequence).into(), 0, &datagram[SEQUENCE..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_that_is_shorter_longer_or_changed_is_not_as_it_was_sent() {
        const LENGTH: usize = 64;
        let mut datagram = [0; LENGTH + 1];
        datagram[..SEQUENCE].copy_from_slice(&7u32.to_be_bytes());
        content::fill(7, 0, &mut datagram[SEQUENCE..]);
        assert_eq!(as_sent(&datagram[..LENGTH], LENGTH), Some(7));
        for cut in [0, SEQUENCE - 1, SEQUENCE, LENGTH - 1, LENGTH + 1] {
            assert_eq!(as_sent(&datagram[..cut], LENGTH), None, "{cut} bytes");
        }
        for at in [SEQUENCE - 1, SEQUENCE, LENGTH - 1] {
            let mut changed = datagram[..LENGTH].to_vec();
            changed[at] ^= 1;
            assert_eq!(as_sent(&changed, LENGTH), None, "byte {at}");
        }
    }

    #[test]
    fn answers_name_where_they_came_from_and_where_they_should() {
        let dial: SocketAddr = "10.96.0.1:80".parse().unwrap();
        let foreign_source = "10.0.0.2:81".parse().ok();
        let report = UdpReport { sent: 3, delivered: 3, foreign: 3, foreign_source, ..UdpReport::default() };
        assert_eq!(report.answers(dial), "0 of 3 answered from 10.96.0.1:80, 3 delivered; 3 from 10.0.0.2:81 instead");
        let report = UdpReport { sent: 3, delivered: 3, echoed: 3, ..UdpReport::default() };
        assert_eq!(report.answers(dial), "3 of 3 answered from 10.96.0.1:80, as expected");
    }
}
