//! Frames of any EtherType.

use lab_topology::Netns;
use nix::{
    libc,
    sys::socket::{LinkAddr, MsgFlags, SockaddrLike, sendto},
};
use socket2::{Domain, Socket, Type};
use std::{io, os::fd::AsRawFd};

/// Sends a frame out of a device, from the device's own address. What follows the EtherType is given.
///
/// # Errors
/// The kernel's: no `CAP_NET_RAW`, no such device, or `ENOBUFS` where an egress hook drops it.
pub fn send_frame(ns: &Netns, ifindex: u32, to: [u8; 6], ethertype: u16, payload: &[u8]) -> io::Result<()> {
    let mut sll_addr = [0; 8];
    sll_addr[..to.len()].copy_from_slice(&to);
    let raw = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: ethertype.to_be(),
        sll_ifindex: ifindex.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: to.len() as u8,
        sll_addr,
    };
    // SAFETY: the address is of the family that it says, and of this size.
    let address = unsafe { LinkAddr::from_raw((&raw const raw).cast(), Some(size_of_val(&raw) as u32)) };
    let address = address.ok_or(io::ErrorKind::InvalidInput)?;
    let socket = ns.run(|| Socket::new(Domain::PACKET, Type::DGRAM, None))?;
    sendto(socket.as_raw_fd(), payload, &address, MsgFlags::empty())?;
    Ok(())
}
