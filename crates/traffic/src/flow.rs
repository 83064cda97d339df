//! One face for every protocol, so that cases can iterate.

use crate::{
    icmp::PingExchange,
    late::{self, LateFlow},
    path::Path,
    tcp::{TcpReport, tcp_exchange},
    udp::{UdpExchange, UdpOptions},
    wait::{Patience, SILENCE_WINDOW, any_readable},
    weak::{self, Weakness},
};
use lab_topology::Netns;
use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

/// A protocol that a flow can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Proto {
    /// Echo requests; the marker is their identifier.
    Icmp,
    /// Datagrams; the marker is the server's port.
    Udp,
    /// One connection; the marker is the server's port.
    Tcp,
}

impl Proto {
    /// All of them, the connectionless ones first.
    pub const ALL: [Self; 3] = [Self::Icmp, Self::Udp, Self::Tcp];

    /// The name used in cell ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Icmp => "icmp",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Some exchanges between two namespaces.
#[derive(Debug, Clone, Copy)]
pub struct Flow<'a> {
    /// Namespace of the client.
    pub from: &'a Netns,
    /// Namespace of the server.
    pub to: &'a Netns,
    /// The server's address; its family is the flow's.
    pub addr: IpAddr,
    /// The protocol.
    pub proto: Proto,
    /// What programs count by: identifier of ICMP, server's port of UDP and TCP.
    pub marker: u16,
}

/// What came of a flow. For TCP the counts are blocks of [`Flow::TCP_BLOCK`] bytes on one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowReport {
    /// What was to be exchanged.
    pub wanted: u32,
    /// What the sender's kernel took.
    pub sent: u32,
    /// What the server got.
    pub delivered: u32,
    /// What came back intact.
    pub returned: u32,
    /// Datagrams that arrived at either side with other content than was sent.
    pub damaged: u32,
    /// Packets that arrived at either side once more.
    pub copies: u32,
    /// The client's address as the server saw it.
    pub source_seen: Option<IpAddr>,
    /// Errnos that the client got.
    pub errors: Vec<i32>,
    /// One line of text.
    pub detail: String,
}

impl FlowReport {
    /// Everything came back, once.
    pub fn complete(&self) -> bool {
        if self.copies > 0 && !weak::has(Weakness::CopiesUnseen) {
            return false;
        }
        self.returned == self.wanted || self.returned > 0 && weak::has(Weakness::OneIsAll)
    }

    /// Every packet was sent: the kernel took it, or answered `ENOBUFS`, by which a socket that hears errors learns of
    /// `NET_XMIT_DROP`, the drop of a netkit device or an egress hook. Any other errno says that the packet never got as far
    /// as a program: no route, no address, no socket.
    pub fn tried(&self) -> bool {
        let dropped = self.errors.iter().filter(|errno| **errno == Errno::ENOBUFS as i32).count();
        self.sent as usize + dropped == self.wanted as usize || weak::has(Weakness::UnsentIsTried)
    }

    /// Every packet was sent, and none arrived anywhere: what a denial is proven by.
    pub fn lost(&self) -> bool {
        self.tried() && self.silent()
    }

    /// Nothing arrived anywhere.
    pub fn silent(&self) -> bool {
        let delivered = self.delivered > 0 || self.damaged > 0 || self.source_seen.is_some();
        let nothing_came = !delivered || weak::has(Weakness::DeliveredIsSilent);
        let nothing_returned = self.returned == 0 || weak::has(Weakness::ReturnedIsSilent);
        nothing_came && nothing_returned
    }
}

impl fmt::Display for FlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

/// A flow that has sent.
pub(crate) enum Started {
    Icmp(PingExchange),
    Udp(UdpExchange),
    Tcp(TcpReport),
}

impl Started {
    /// Takes what arrived since; true once there is nothing left to wait for.
    pub fn collect(&mut self) -> bool {
        match self {
            Self::Icmp(exchange) => exchange.collect(),
            Self::Udp(exchange) => exchange.collect(),
            Self::Tcp(_) => true,
        }
    }

    /// How many packets the server and the client have got, from whatever address.
    pub const fn arrived(&self) -> (u32, u32) {
        match self {
            Self::Icmp(PingExchange { report, .. }) => (report.delivered, report.received),
            Self::Udp(UdpExchange { report, .. }) => {
                (report.delivered + report.damaged, report.echoed + report.foreign)
            }
            Self::Tcp(_) => (0, 0),
        }
    }

    /// What to wait for.
    fn sockets(&self) -> Vec<&dyn AsFd> {
        match self {
            Self::Icmp(exchange) => exchange.sockets().collect(),
            Self::Udp(exchange) => exchange.sockets().collect(),
            Self::Tcp(_) => Vec::new(),
        }
    }
}

impl Flow<'_> {
    /// Bytes that count as one exchange of a TCP flow.
    pub const TCP_BLOCK: u64 = 1024;

    /// Runs `exchanges` exchanges; returns as soon as all are through, at the latest after `timeout`.
    pub fn run(&self, exchanges: u16, timeout: Duration) -> FlowReport {
        self.run_to(SocketAddr::new(self.addr, self.marker), exchanges, timeout)
    }

    /// The same for a server behind a translated address: the client sends to `dial`.
    pub fn run_to(&self, dial: SocketAddr, exchanges: u16, timeout: Duration) -> FlowReport {
        let mut patience = Patience::of(timeout);
        let mut started = self.start(dial, exchanges, timeout);
        while !started.collect() {
            let Some(left) = patience.left() else { break };
            any_readable(started.sockets(), left);
        }
        self.report(&started, exchanges)
    }

    /// Runs flows of which nothing is expected to arrive: all of them send, and one [`SILENCE_WINDOW`] serves them all.
    /// Only TCP, which waits for its handshake's answer, takes a window for itself.
    pub fn silence(flows: &[Self], exchanges: u16) -> Vec<FlowReport> {
        let dial = |flow: &Self| SocketAddr::new(flow.addr, flow.marker);
        let mut started: Vec<_> = flows.iter().map(|flow| flow.start(dial(flow), exchanges, SILENCE_WINDOW)).collect();
        let window = if weak::has(Weakness::NoWindow) { Duration::ZERO } else { SILENCE_WINDOW };
        let mut patience = Patience::of(window);
        // In one go, so that every flow's arrivals are taken each time.
        while started.iter_mut().fold(0, |open, flow| open + usize::from(!flow.collect())) > 0 {
            let Some(left) = patience.left() else { break };
            any_readable(started.iter().flat_map(Started::sockets), left);
        }
        let since = Instant::now();
        let ended = flows.iter().zip(started).map(|(flow, started)| {
            let report = flow.report(&started, exchanges);
            if report.silent() && !matches!(started, Started::Tcp(_)) {
                let to = flow.to.name().to_owned();
                let what = format!("{} from {} to {to} ({})", flow.proto, flow.from.name(), flow.addr);
                late::keep(LateFlow { to, what, since, started });
            }
            report
        });
        ended.collect()
    }

    /// Sends what can be sent without an answer; a TCP conversation is over with this.
    fn start(&self, dial: SocketAddr, exchanges: u16, patience: Duration) -> Started {
        let path = Path { dial, ..Path::direct(self.from, self.to, self.addr, self.marker) };
        match self.proto {
            Proto::Icmp => Started::Icmp(PingExchange::start(self.from, self.to, dial.ip(), self.marker, exchanges)),
            Proto::Udp => Started::Udp(UdpExchange::start(path, exchanges.into(), UdpOptions::default())),
            Proto::Tcp => Started::Tcp(tcp_exchange(path, u64::from(exchanges) * Self::TCP_BLOCK, patience)),
        }
    }

    fn report(&self, started: &Started, exchanges: u16) -> FlowReport {
        let mut report = FlowReport {
            wanted: exchanges.into(),
            sent: 0,
            delivered: 0,
            returned: 0,
            damaged: 0,
            copies: 0,
            source_seen: None,
            errors: Vec::new(),
            detail: String::new(),
        };
        let mut note = String::new();
        match started {
            Started::Icmp(PingExchange { report: ping, .. }) => {
                (report.sent, report.delivered, report.returned) = (ping.sent, ping.delivered, ping.received);
                (report.source_seen, report.errors) = (ping.source_seen, ping.errors.clone());
                report.copies = ping.duplicates;
            }
            Started::Udp(UdpExchange { report: udp, .. }) => {
                (report.sent, report.delivered, report.returned) = (udp.sent, udp.delivered, udp.echoed);
                if let Some(source) = udp.foreign_source {
                    note = format!("; {} answered from {source}", udp.foreign);
                }
                if udp.damaged > 0 {
                    note += &format!("; {} arrived damaged", udp.damaged);
                }
                (report.damaged, report.copies) = (udp.damaged, udp.duplicates);
                (report.source_seen, report.errors) = (udp.source_seen, udp.send_errors.clone());
            }
            Started::Tcp(tcp) => {
                let blocks = |bytes: u64| u32::try_from(bytes / Self::TCP_BLOCK).unwrap_or(u32::MAX);
                report.sent = if tcp.connected { exchanges.into() } else { 0 };
                report.delivered = blocks(tcp.bytes_delivered);
                report.returned = if tcp.content_ok { blocks(tcp.bytes_echoed) } else { 0 };
                report.source_seen = tcp.source_seen;
                report.errors.extend(tcp.errno);
                note = tcp.error.as_ref().map_or(String::new(), |error| format!("; {error}"));
            }
        }
        if report.copies > 0 {
            note += &format!("; {} arrived once more", report.copies);
        }
        if weak::has(Weakness::SourceUnseen) {
            report.source_seen = None;
        }
        report.detail = self.words(&report, &note);
        report
    }

    fn words(&self, report: &FlowReport, note: &str) -> String {
        let FlowReport { wanted, sent, delivered, returned, .. } = report;
        let source = report.source_seen.map_or_else(|| "no address".to_owned(), |source| source.to_string());
        format!(
            "{} {}→{} ({}): wanted {wanted}, sent {sent}, delivered {delivered}, returned {returned}, seen from {source}{}{note}",
            self.proto,
            self.from.name(),
            self.to.name(),
            self.addr,
            named(&report.errors),
        )
    }
}

/// Errnos by name, each once with its count.
pub(crate) fn named(errors: &[i32]) -> String {
    let mut counts = BTreeMap::new();
    for errno in errors {
        *counts.entry(*errno).or_insert(0u32) += 1;
    }
    counts.into_iter().map(|(errno, count)| format!(", {count}×{:?}", Errno::from_raw(errno))).collect()
}
