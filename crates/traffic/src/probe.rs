//! A UDP socket that probes a path: with a TTL, with large datagrams, for errors.

use crate::{
    gate, late,
    wait::{WaitRounds, forget_error, readable, would_block},
};
use lab_topology::Netns;
use nix::{
    errno::Errno,
    getsockopt_impl, libc, setsockopt_impl, sockopt_impl,
    sys::socket::{
        ControlMessage, GetSockOpt, MsgFlags, SetSockOpt, SockaddrStorage, sendmsg, setsockopt,
        sockopt::{IpMtu, Ipv4RecvErr, Ipv6RecvErr, Mark},
    },
};
use socket2::SockRef;
use std::{
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

sockopt_impl!(
    /// `IP_MTU_DISCOVER`.
    Discover4,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// `IPV6_MTU_DISCOVER`.
    Discover6,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU_DISCOVER,
    libc::c_int
);
sockopt_impl!(
    /// `IPV6_MTU`: the path's, of a connected socket.
    Mtu6,
    GetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MTU,
    libc::c_int
);

sockopt_impl!(
    /// `SO_MEMINFO`: `SK_MEMINFO_VARS` numbers (include/uapi/linux/sock_diag.h).
    MemInfo,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    [u32; 9]
);

sockopt_impl!(
    /// `IPV6_HOPOPTS`, a header of the shortest length.
    HopByHop,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_HOPOPTS,
    [u8; 8]
);
sockopt_impl!(
    /// `IPV6_DSTOPTS`, likewise.
    Destination,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_DSTOPTS,
    [u8; 8]
);

/// An extension header of IPv6 with options that every receiver skips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExtensionHeader {
    /// Options for every router.
    HopByHop,
    /// Options for the destination.
    Destination,
}

impl ExtensionHeader {
    /// PadN over the whole header; the kernel writes the next header (RFC 8200, section 4.2).
    const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];

    /// Adds it to all packets of a socket.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add_to(self, socket: &UdpSocket) -> io::Result<()> {
        match self {
            Self::HopByHop => setsockopt(socket, HopByHop, &Self::PADDING)?,
            Self::Destination => setsockopt(socket, Destination, &Self::PADDING)?,
        }
        Ok(())
    }
}

/// Handling of datagrams that are larger than the path MTU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oversized {
    /// The sender fragments them by what it knows of the path, `IP_PMTUDISC_WANT`: the kernel's default.
    Fragment,
    /// The sender refuses what it knows to be too large, and routers must not fragment the rest, `IP_PMTUDISC_DO`.
    Refuse,
    /// They leave as they are, whatever is known of the path beyond the device, `IP_PMTUDISC_PROBE`.
    Send,
}

/// A connected UDP socket that receives the errors that it causes.
#[derive(Debug)]
pub struct UdpProbe {
    socket: UdpSocket,
    to: SocketAddr,
}

impl UdpProbe {
    /// Connects a socket in `from`.
    ///
    /// # Errors
    /// The kernel's: `ENETUNREACH` without a route.
    pub fn connect(from: &Netns, to: SocketAddr) -> io::Result<Self> {
        Self::connect_marked(from, to, None)
    }

    /// The same, with a mark on all packets (`SO_MARK`).
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_marked(from: &Netns, to: SocketAddr, mark: Option<u32>) -> io::Result<Self> {
        gate::flow();
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        from.run(|| {
            let socket = UdpSocket::bind((any, 0))?;
            if let Some(mark) = mark {
                setsockopt(&socket, Mark, &mark)?;
            }
            if to.is_ipv4() {
                setsockopt(&socket, Ipv4RecvErr, &true)?
            } else {
                setsockopt(&socket, Ipv6RecvErr, &true)?
            }
            socket.connect(to)?;
            socket.set_nonblocking(true)?;
            Ok(Self { socket, to })
        })
    }

    /// Sets the TTL.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_hops(&self, hops: u8) -> io::Result<()> {
        if self.to.is_ipv4() {
            self.socket.set_ttl(hops.into())
        } else {
            SockRef::from(&self.socket).set_unicast_hops_v6(hops.into())
        }
    }

    /// Sets the type of service or the traffic class: DSCP, and the two bits of ECN (RFC 3168, 5).
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_tos(&self, tos: u8) -> io::Result<()> {
        let socket = SockRef::from(&self.socket);
        if self.to.is_ipv4() { socket.set_tos_v4(tos.into()) } else { socket.set_tclass_v6(tos.into()) }
    }

    /// Sets the handling of large datagrams.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set_oversized(&self, oversized: Oversized) -> io::Result<()> {
        // IPV6_PMTUDISC_* have the same values.
        let value = match oversized {
            Oversized::Fragment => libc::IP_PMTUDISC_WANT,
            Oversized::Refuse => libc::IP_PMTUDISC_DO,
            Oversized::Send => libc::IP_PMTUDISC_PROBE,
        };
        if self.to.is_ipv4() {
            Discover4.set(&self.socket, &value)?
        } else {
            Discover6.set(&self.socket, &value)?
        }
        Ok(())
    }

    /// The kernel's path MTU, bytes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn path_mtu(&self) -> io::Result<u32> {
        let mtu = if self.to.is_ipv4() { IpMtu.get(&self.socket)? } else { Mtu6.get(&self.socket)? };
        Ok(mtu.cast_unsigned())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// The kernel's, also one that an earlier datagram caused.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        let sent = self.socket.send(payload).map(drop);
        if sent.is_err() {
            forget_error(&self.socket);
        }
        sent
    }

    /// Memory of packets on their way that the kernel charges to the socket, bytes (`SK_MEMINFO_WMEM_ALLOC`).
    ///
    /// # Errors
    /// The kernel's.
    pub fn charged(&self) -> io::Result<u32> {
        const WMEM_ALLOC: usize = 2;
        Ok(MemInfo.get(&self.socket)?[WMEM_ALLOC])
    }

    /// Sends one buffer as datagrams of `segment` bytes that are cut as late as possible (`UDP_SEGMENT`).
    ///
    /// # Errors
    /// The kernel's: `EINVAL` for a segment that does not fit into the MTU.
    pub fn send_segments(&self, payload: &[u8], segment: u16) -> io::Result<()> {
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        sendmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(payload)],
            &control,
            MsgFlags::empty(),
            None,
        )?;
        Ok(())
    }

    /// The next datagram that comes back; `None` after `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<Vec<u8>> {
        let mut patience = WaitRounds::of(timeout);
        let mut buffer = vec![0; 65_536];
        loop {
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(error) if would_block(&error) => {}
                Err(_) => forget_error(&self.socket),
            }
            readable(&self.socket, patience.left()?);
        }
    }

    /// Waits for the error that a packet caused.
    pub fn error(&self, timeout: Duration) -> Option<Errno> {
        let mut patience = WaitRounds::of(timeout);
        loop {
            match self.socket.recv(&mut [0; 64]) {
                Err(error) if would_block(&error) => {}
                Err(error) => {
                    forget_error(&self.socket);
                    return error.raw_os_error().map(Errno::from_raw);
                }
                Ok(_) => continue,
            }
            readable(&self.socket, patience.left()?);
        }
    }
}

/// A UDP socket that receives datagrams.
#[derive(Debug)]
pub struct UdpSink {
    socket: UdpSocket,
}

impl UdpSink {
    /// Binds in a namespace.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind(at: &Netns, to: SocketAddr) -> io::Result<Self> {
        late::make_room(at.name());
        let socket = at.run(|| UdpSocket::bind(to))?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// The next datagram and its sender; `None` after `timeout`.
    pub fn receive(&self, timeout: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        let mut patience = WaitRounds::of(timeout);
        let mut buffer = vec![0; 65_536];
        loop {
            if let Ok((length, source)) = self.socket.recv_from(&mut buffer) {
                buffer.truncate(length);
                return Some((buffer, source));
            }
            readable(&self.socket, patience.left()?);
        }
    }
}
