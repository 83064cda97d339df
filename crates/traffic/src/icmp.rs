//! Echo requests over raw sockets.
//!
//! Never iputils: it sends again on `ENOBUFS`, which is what a netkit drop looks like to the sender, and reports no
//! loss while every first packet is dropped.

use crate::{
    gate, late,
    wait::{WaitRounds, any_readable, errno, forget_error, would_block},
    weak::{self, Weakness},
};
use lab_topology::Netns;
use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4RecvErr, Ipv6RecvErr},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    time::Duration,
};

/// Result of some echo requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PingReport {
    /// Requests that the kernel took without an error.
    pub sent: u32,
    /// Requests that arrived, as a raw socket at the target saw them; 0 where no target's namespace was given.
    pub delivered: u32,
    /// Replies, each request's first only.
    pub received: u32,
    /// Replies to a request that was answered already.
    pub duplicates: u32,
    /// Source of the first request that arrived.
    pub source_seen: Option<IpAddr>,
    /// Errnos that the kernel gave, from sending and from ICMP errors; `ENOBUFS` is a drop below.
    pub errors: Vec<i32>,
}

const HEADER: usize = 8;
const ECHO_REQUEST_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// Sends `count` echo requests with the identifier `id`, and collects until all are answered or `timeout` is over.
/// `at` is the namespace of the target, where deliveries are to be counted too.
pub fn ping(from: &Netns, at: Option<&Netns>, to: IpAddr, id: u16, count: u16, timeout: Duration) -> PingReport {
    let mut patience = WaitRounds::of(timeout);
    let mut exchange = PingExchange::start(from, at.unwrap_or(from), to, id, count);
    while !exchange.collect() {
        let Some(left) = patience.left() else { break };
        any_readable(exchange.sockets(), left);
    }
    let mut report = exchange.report;
    if at.is_none() {
        (report.delivered, report.source_seen) = (0, None);
    }
    report
}

/// Echo requests in progress.
pub(crate) struct PingExchange {
    ends: Option<Ends>,
    count: u16,
    /// Result so far.
    pub report: PingReport,
}

struct Ends {
    client: UdpSocket,
    target: UdpSocket,
    to: IpAddr,
    id: u16,
    arrived: BTreeSet<u16>,
    answered: BTreeSet<u16>,
}

impl PingExchange {
    /// Sends them all. The report has the errors.
    pub fn start(from: &Netns, at: &Netns, to: IpAddr, id: u16, count: u16) -> Self {
        gate::flow();
        let mut report = PingReport::default();
        let ends = match Ends::send(from, at, to, id, count, &mut report) {
            Ok(ends) => Some(ends),
            Err(error) => {
                report.errors.push(errno(&error));
                None
            }
        };
        Self { ends, count, report }
    }

    /// Takes what arrived since; true once there is nothing left to wait for.
    pub fn collect(&mut self) -> bool {
        let Some(ends) = &mut self.ends else { return true };
        ends.collect(&mut self.report);
        ends.answered.len() == usize::from(self.count)
    }

    /// The sockets to wait for.
    pub fn sockets(&self) -> impl Iterator<Item = &dyn AsFd> {
        self.ends.iter().flat_map(|ends| [&ends.client as &dyn AsFd, &ends.target])
    }
}

impl Ends {
    fn send(from: &Netns, at: &Netns, to: IpAddr, id: u16, count: u16, report: &mut PingReport) -> io::Result<Self> {
        late::make_room(at.name());
        let (client, target) = (from.run(|| raw(to))?, at.run(|| raw(to))?);
        let mut ends = Self { client, target, to, id, arrived: BTreeSet::new(), answered: BTreeSet::new() };
        for sequence in 0..count {
            match ends.client.send_to(&request(to, id, sequence), SocketAddr::new(to, 0)) {
                Ok(_) => report.sent += 1,
                Err(error) => {
                    report.errors.push(errno(&error));
                    forget_error(&ends.client);
                }
            }
            ends.collect(report);
        }
        Ok(ends)
    }

    fn collect(&mut self, report: &mut PingReport) {
        for (source, echo) in drain(&self.target, self.to, &mut report.errors) {
            if echo.request && echo.id == self.id && self.arrived.insert(echo.sequence) {
                report.delivered += 1;
                report.source_seen.get_or_insert(source);
            }
        }
        for (source, echo) in drain(&self.client, self.to, &mut report.errors) {
            let own = echo.id == self.id || weak::has(Weakness::AnyEcho);
            if !echo.request && own && source == self.to {
                if self.answered.insert(echo.sequence) { report.received += 1 } else { report.duplicates += 1 }
            }
        }
    }
}

/// A raw ICMP socket with `IP_RECVERR`.
fn raw(to: IpAddr) -> io::Result<UdpSocket> {
    let socket = if to.is_ipv4() {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        setsockopt(&socket, Ipv4RecvErr, &true)?;
        socket
    } else {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        setsockopt(&socket, Ipv6RecvErr, &true)?;
        socket
    };
    socket.set_nonblocking(true)?;
    // To the standard library a datagram socket is one that has sendto and recvfrom.
    Ok(socket.into())
}

#[derive(Debug, PartialEq, Eq)]
struct Echo {
    request: bool,
    id: u16,
    sequence: u16,
}

fn drain(socket: &UdpSocket, to: IpAddr, errors: &mut Vec<i32>) -> Vec<(IpAddr, Echo)> {
    let mut found = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, source)) => {
                found.extend(parse(to.is_ipv4(), &buffer[..length]).map(|echo| (source.ip(), echo)));
            }
            Err(error) if would_block(&error) => return found,
            Err(error) => {
                errors.push(errno(&error));
                forget_error(socket);
            }
        }
    }
}

fn request(to: IpAddr, id: u16, sequence: u16) -> Vec<u8> {
    let kind = if to.is_ipv4() { ECHO_REQUEST_V4 } else { ECHO_REQUEST_V6 };
    let mut packet = vec![kind, 0, 0, 0];
    packet.extend(id.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend([0x4e; 48]);
    // The kernel fills in the checksum of ICMPv6 only: it covers the addresses.
    if to.is_ipv4() {
        let sum = internet_checksum(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The internet checksum of RFC 1071.
#[must_use]
pub fn internet_checksum(packet: &[u8]) -> u16 {
    let words = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Raw IPv4 sockets deliver the IP header too, IPv6 ones don't.
fn parse(v4: bool, packet: &[u8]) -> Option<Echo> {
    let icmp = if v4 { packet.get(usize::from(packet.first()? & 0x0f) * 4..)? } else { packet };
    let header: &[u8; HEADER] = icmp.get(..HEADER)?.try_into().ok()?;
    let request = match (v4, header[0]) {
        (true, ECHO_REQUEST_V4) | (false, ECHO_REQUEST_V6) => true,
        (true, ECHO_REPLY_V4) | (false, ECHO_REPLY_V6) => false,
        _ => return None,
    };
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    Some(Echo { request, id: word(4), sequence: word(6) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero_and_reads_back() {
        let packet = request("10.0.0.1".parse().unwrap(), 0x1234, 7);
        assert_eq!(internet_checksum(&packet), 0);
        let mut with_ip = vec![0x45; 20];
        with_ip.extend(&packet);
        assert_eq!(parse(true, &with_ip), Some(Echo { request: true, id: 0x1234, sequence: 7 }));
    }

    #[test]
    fn other_packets_than_echoes_are_ignored() {
        assert_eq!(parse(false, &[135, 0, 0, 0, 0, 0, 0, 0]), None, "a neighbour solicitation");
        assert_eq!(parse(true, &[0x4f; 30]), None, "an IP header longer than the packet");
        assert_eq!(parse(true, &[]), None);
        assert_eq!(parse(false, &[129, 0, 0]), None, "half a header");
    }
}
