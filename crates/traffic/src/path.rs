//! The path of traffic: client, server and addresses.

use crate::late;
use lab_topology::Netns;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

/// Client, server and the addresses between them.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    /// Namespace of the client.
    pub from: &'a Netns,
    /// Namespace of the server.
    pub to: &'a Netns,
    /// What the client sends to.
    pub dial: SocketAddr,
    /// What the server binds to; differs from `dial` behind a translated address.
    pub listen: SocketAddr,
}

impl<'a> Path<'a> {
    /// A path without address translation. The port is the marker.
    pub fn direct(from: &'a Netns, to: &'a Netns, addr: IpAddr, port: u16) -> Self {
        let addr = SocketAddr::new(addr, port);
        Self { from, to, dial: addr, listen: addr }
    }

    /// The client's socket and the server's, non-blocking.
    pub(crate) fn udp(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let any: IpAddr = match self.dial {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        late::make_room(self.to.name());
        let server = self.to.run(|| UdpSocket::bind(self.listen))?;
        let client = self.from.run(|| UdpSocket::bind((any, 0)))?;
        server.set_nonblocking(true)?;
        client.set_nonblocking(true)?;
        Ok((client, server))
    }
}
