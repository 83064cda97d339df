//! Traffic meters that run between network namespaces: ICMP, UDP and TCP, IPv4 and IPv6 by address.
//!
//! A meter never fails: it reports what was sent, what arrived and which errors the kernel gave, and the case judges.
//! Sockets are made inside their namespace and stay in it, whichever thread uses them.
//!
//! Each exchange carries a *marker* that programs count by: the identifier of an echo request, the server's port of
//! UDP and TCP.

pub mod content;
mod flow;
mod icmp;
mod icmp_error;
mod path;
mod stream;
mod tcp;
mod udp;
mod wait;

pub use flow::{Flow, FlowReport, Proto};
pub use icmp::{PingReport, ping};
pub use icmp_error::{IcmpError, icmp_error};
pub use path::Path;
pub use stream::{StreamReport, UdpStream};
pub use tcp::{TcpReport, tcp_exchange};
pub use udp::{UdpOptions, UdpReport, udp_exchange};
pub use wait::{SILENCE_WINDOW, silence_window};
