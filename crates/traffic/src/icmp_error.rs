//! ICMP errors about a datagram.

use crate::{
    gate,
    udp::hear_errors,
    wait::{errno, readable, would_block},
};
use lab_topology::Netns;
use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4Ttl, Ipv6Ttl},
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

/// Result of a single datagram of a connected socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IcmpError {
    /// This errno: `ECONNREFUSED` for "port unreachable", `EHOSTUNREACH` for "time exceeded".
    Errno(i32),
    /// The other end answered: no error.
    Answer,
    /// Nothing came before the deadline.
    Silence,
}

impl fmt::Display for IcmpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(number) => write!(f, "{:?}", nix::errno::Errno::from_raw(*number)),
            Self::Answer => f.write_str("an answer"),
            Self::Silence => f.write_str("nothing"),
        }
    }
}

/// Sends one datagram from a connected socket, with that many hops to live where a number is given, and waits for what
/// comes of it. The kernel tells a connected socket of an ICMP error only if the packet that the error quotes is the
/// socket's own, addresses and ports.
///
/// # Errors
/// Where the socket can't be made or set up.
pub fn icmp_error(from: &Netns, dial: SocketAddr, hops: Option<u8>, timeout: Duration) -> io::Result<IcmpError> {
    gate::flow();
    let any: IpAddr = match dial {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = from.run(|| UdpSocket::bind((any, 0)))?;
    socket.set_nonblocking(true)?;
    hear_errors(&socket, dial)?;
    if let Some(hops) = hops {
        match dial {
            SocketAddr::V4(_) => setsockopt(&socket, Ipv4Ttl, &hops.into())?,
            SocketAddr::V6(_) => setsockopt(&socket, Ipv6Ttl, &hops.into())?,
        }
    }
    socket.connect(dial)?;
    if let Err(error) = socket.send(&[0; 8]) {
        return Ok(IcmpError::Errno(errno(&error)));
    }
    readable(&socket, timeout);
    Ok(match socket.recv(&mut [0; 64]) {
        Ok(_) => IcmpError::Answer,
        Err(error) if would_block(&error) => IcmpError::Silence,
        Err(error) => IcmpError::Errno(errno(&error)),
    })
}
