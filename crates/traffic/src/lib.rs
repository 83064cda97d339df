//! Traffic between network namespaces, with counts: ICMP, UDP and TCP over IPv4 and IPv6.
//!
//! Where to start: [`Flow`] is one exchange between two nodes, [`UdpStream`] a one-way stream that losses are counted by,
//! [`Capture`] the packets of a namespace. Each exchange carries a *marker* that programs count by: the identifier of an echo
//! request, the server's port of UDP and TCP.
//!
//! *Architecture invariant:* an exchange never fails. It reports what was sent, what arrived and which errors the kernel gave;
//! the case decides.
//!
//! *Architecture invariant:* a socket is created in its namespace and stays in it, whichever thread uses it.

mod capture;
pub mod content;
mod flow;
mod fragments;
mod frame;
pub mod gate;
mod header;
mod icmp;
mod icmp_error;
mod late;
mod netstat;
mod path;
mod probe;
mod stream;
mod tcp;
mod tcp_ends;
mod udp;
mod wait;
mod weak;

pub use capture::{Capture, Packet, Stamping, pcap};
pub use flow::{Flow, FlowReport, Proto};
pub use fragments::in_two_fragments;
pub use frame::send_frame;
pub use header::{Headers, Transport, udp_answer};
pub use icmp::{PingReport, internet_checksum, ping};
pub use icmp_error::{IcmpError, icmp_error};
pub use late::arrivals as late_arrivals;
pub use netstat::repeated_syns;
pub use path::Path;
pub use probe::{ExtensionHeader, Oversized, UdpProbe, UdpSink};
pub use stream::{StreamReport, UdpStream};
pub use tcp::{TcpReport, tcp_exchange};
pub use tcp_ends::{ConnectAttempt, half_closed, many, refused, reset};
pub use udp::{UdpOptions, UdpReport, udp_exchange};
pub use wait::{SILENCE_WINDOW, WaitRounds};
pub use weak::{Weakness, weaken};
