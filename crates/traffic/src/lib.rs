//! Traffic meters that run between network namespaces: ICMP, UDP and TCP, IPv4 and IPv6 by address.
//!
//! A meter never fails: it reports what was sent, what arrived and which errors the kernel gave, and the case judges.
//! Sockets are made inside their namespace and stay in it, whichever thread uses them.
//!
//! Each exchange carries a *marker* that programs count by: the identifier of an echo request, the server's port of
//! UDP and TCP.

mod capture;
pub mod content;
mod flow;
pub mod gate;
mod header;
mod icmp;
mod icmp_error;
mod path;
mod probe;
mod stream;
mod tcp;
mod tcp_ends;
mod udp;
mod wait;

pub use capture::{Capture, Packet, Stamping, pcap};
pub use flow::{Flow, FlowReport, Proto};
pub use header::{Headers, Transport, udp_answer};
pub use icmp::{PingReport, ping};
pub use icmp_error::{IcmpError, icmp_error};
pub use path::Path;
pub use probe::{Oversized, UdpProbe, UdpSink};
pub use stream::{StreamReport, UdpStream};
pub use tcp::{TcpReport, tcp_exchange};
pub use tcp_ends::{Attempt, half_closed, many, refused, reset};
pub use udp::{UdpOptions, UdpReport, udp_exchange};
pub use wait::SILENCE_WINDOW;
