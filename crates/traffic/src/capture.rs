//! Captures packets on a namespace's devices, from the network header on: used by checks in addition to the sockets,
//! and as evidence of a failed case.

use crate::Headers;
use lab_topology::Netns;
use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt,
        sockopt::{RcvBufForce, ReceiveTimestampns},
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, IoSliceMut},
    net::SocketAddr,
    os::fd::AsRawFd,
    time::Duration,
};

/// Bytes that are kept of each packet: all headers, and enough content to recognize it.
const SNAP: usize = 320;
/// What the kernel may hold for us, bytes of its own counting; further packets are not taken, so that a bulk transfer
/// costs no more.
const KERNEL_BUFFER: usize = 2 << 20;
/// Bytes of one pcap file.
const FILE: usize = 256 << 10;
/// `LINKTYPE_LINUX_SLL2` of the registry of link-layer header types: cooked, with the index of the device.
const LINKTYPE: u32 = 276;

/// One packet at one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// Since the epoch.
    pub at: Duration,
    /// Index of the device.
    pub ifindex: u32,
    /// `ARPHRD_*` of the device.
    pub hardware: u16,
    /// `PACKET_HOST`, `PACKET_OUTGOING` and so on.
    pub kind: u8,
    /// EtherType, in host byte order (`include/uapi/linux/if_ether.h`).
    pub protocol: u16,
    /// Link-layer address of the sender; zeros on devices without them.
    pub source: [u8; 6],
    /// From the network header on, cut at a few hundred bytes.
    pub data: Vec<u8>,
    /// Length before cutting, bytes.
    pub length: u32,
}

impl Packet {
    /// Whether the namespace sent it.
    pub const fn is_outgoing(&self) -> bool {
        self.kind == libc::PACKET_OUTGOING
    }

    /// Bytes from the network header on, as that header counts them (RFC 791, RFC 8200); `None` for what is no IP packet.
    /// Compared with [`Packet::length`]: on links that fill nothing up, both are the same.
    pub fn declared(&self) -> Option<u32> {
        let word = |at: usize| Some(u32::from(u16::from_be_bytes(self.data.get(at..at + 2)?.try_into().ok()?)));
        match self.data.first()? >> 4 {
            4 => word(2),
            6 => Some(word(4)? + 40),
            _ => None,
        }
    }

    /// Sends it again from `ns`, as it was captured.
    ///
    /// # Errors
    /// The kernel's; `InvalidInput` where it is no IP packet, or was cut.
    pub fn send_again(&self, ns: &Netns) -> io::Result<()> {
        let whole = (self.data.len() as u64 == u64::from(self.length)).then(|| Headers::of(&self.data)).flatten();
        let to = whole.ok_or(io::ErrorKind::InvalidInput)?.destination;
        // A socket of IPPROTO_RAW takes packets with their headers. Port 0: the field is the protocol's (raw(7),
        // ipv6(7)).
        let to = SocketAddr::new(to, 0);
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let socket = ns.run(|| Socket::new(Domain::for_address(to), Type::RAW, Some(raw)))?;
        socket.send_to(&self.data, &to.into()).map(drop)
    }
}

/// Keeps the kernel stamping packets for as long as it lives. The first socket that wants stamps has the kernel patch
/// its own code, and so does the end of the last one (`net_enable_timestamp`, net/core/dev.c): an emulator translates
/// the patched pages anew each time.
#[derive(Debug)]
pub struct Stamping(#[expect(dead_code, reason = "held for what it does to the kernel")] Socket);

impl Stamping {
    /// Opens a socket in the calling thread's namespace, which it keeps alive.
    ///
    /// # Errors
    /// The kernel's.
    pub fn keep() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
        setsockopt(&socket, ReceiveTimestampns, &true)?;
        Ok(Self(socket))
    }
}

/// A capture on every device of a namespace, from its start on. The kernel keeps the packets until they are asked for,
/// so that a capture that is not read costs no thread and no copy.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
    taken: Vec<Packet>,
}

impl Capture {
    /// Starts to capture.
    ///
    /// # Errors
    /// The kernel's: no `CAP_NET_RAW`, no `af_packet`.
    pub fn start(ns: &Netns) -> io::Result<Self> {
        let everything = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
        ns.run(|| {
            let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(everything))?;
            socket.set_nonblocking(true)?;
            setsockopt(&socket, RcvBufForce, &KERNEL_BUFFER)?;
            setsockopt(&socket, ReceiveTimestampns, &true)?;
            Ok(Self { socket, taken: Vec::new() })
        })
    }

    /// Everything that was captured so far.
    ///
    /// # Errors
    /// The kernel's.
    pub fn packets(&mut self) -> io::Result<&[Packet]> {
        while let Some(packet) = self.next()? {
            self.taken.push(packet);
        }
        Ok(&self.taken)
    }

    fn next(&mut self) -> io::Result<Option<Packet>> {
        let mut buffer = [0; SNAP];
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        // With MSG_TRUNC the kernel returns the packet's full length.
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC;
        let received = match recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let at = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
            _ => None,
        });
        let length = received.bytes;
        let Some(address) = received.address else { return Err(io::ErrorKind::InvalidData.into()) };
        Ok(Some(Packet {
            at: at.unwrap_or_default(),
            ifindex: address.ifindex() as u32,
            hardware: address.hatype(),
            kind: address.pkttype(),
            protocol: u16::from_be(address.protocol()),
            source: address.addr().unwrap_or_default(),
            data: buffer[..length.min(SNAP)].to_vec(),
            length: u32::try_from(length).unwrap_or(u32::MAX),
        }))
    }
}

/// The packets as a pcap file with nanoseconds, as tcpdump and Wireshark read it; what does not fit is left out.
pub fn pcap(packets: &[Packet]) -> Vec<u8> {
    const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
    const COOKED: usize = 20;
    let mut file = Vec::new();
    for field in [MAGIC_NANOSECONDS, 2 | 4 << 16, 0, 0, SNAP as u32, LINKTYPE] {
        file.extend(field.to_le_bytes());
    }
    for packet in packets {
        if file.len() + 16 + COOKED + packet.data.len() > FILE {
            break;
        }
        let cooked = COOKED as u32;
        let lengths = [packet.data.len() as u32 + cooked, packet.length.saturating_add(cooked)];
        for field in [packet.at.as_secs() as u32, packet.at.subsec_nanos(), lengths[0], lengths[1]] {
            file.extend(field.to_le_bytes());
        }
        file.extend(packet.protocol.to_be_bytes());
        file.extend([0; 2]);
        file.extend(packet.ifindex.to_be_bytes());
        file.extend(packet.hardware.to_be_bytes());
        let octets = if packet.source == [0; 6] { 0 } else { packet.source.len() as u8 };
        file.extend([packet.kind, octets]);
        file.extend(packet.source);
        file.extend([0; 2]);
        file.extend(&packet.data);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_headers_and_a_limited_size() {
        let packet = Packet {
            at: Duration::new(3, 7),
            ifindex: 5,
            hardware: 1,
            kind: libc::PACKET_OUTGOING,
            protocol: 0x0800,
            source: [2, 0, 0, 0, 0, 9],
            data: vec![0x45; 100],
            length: 3000,
        };
        let file = pcap(&vec![packet; 10_000]);
        assert!(file.len() <= FILE && file.len() > FILE - 200);
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(20), word(24), word(28)), (0xa1b2_3c4d, 276, 3, 7));
        assert_eq!((word(32), word(36)), (120, 3020), "captured and real length");
        assert_eq!(file[40..60], [0x08, 0x00, 0, 0, 0, 0, 0, 5, 0, 1, 4, 6, 2, 0, 0, 0, 0, 9, 0, 0]);
        assert_eq!((file.len() - 24) % 136, 0, "whole records only");
    }

    #[test]
    fn lengths_are_those_of_the_header() {
        let of = |data: &[u8]| {
            let (at, kind, source) = (Duration::ZERO, libc::PACKET_HOST, [0; 6]);
            let data = data.to_vec();
            Packet { at, ifindex: 5, hardware: 1, kind, protocol: 0x0800, source, data, length: 100 }.declared()
        };
        assert_eq!(of(&[0x45, 0, 1, 2, 0, 0]), Some(258));
        assert_eq!(of(&[0x60, 0, 0, 0, 0, 8]), Some(48));
        assert_eq!(of(&[0x60, 0, 0, 0, 0]), None);
        assert_eq!(of(&[0, 1, 8, 0, 6, 4]), None);
    }
}
