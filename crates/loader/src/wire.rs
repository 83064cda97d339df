//! Two namespaces with pairs of devices between them, packets that are sent into one end, and what comes out where.

use lab_netlink::NetlinkError;
use lab_protocol::{Hook, LinkKind};
use lab_topology::{Netns, PairRequest, TopologyError, link};
use nix::{
    errno::Errno,
    sys::socket::{LinkAddr, MsgFlags, recvmsg},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    fs,
    io::{self, IoSliceMut},
    mem,
    os::fd::AsRawFd,
    ptr,
};

/// Bytes of a packet that are read.
const SNAP: usize = 4096;
/// Ethernet types whose packets are taken behind the hooks of ingress, beside the sent packet's own.
const TYPES: [u16; 4] = [0x0800, 0x86dd, 0x0806, 0x8100];
const ETHERNET: usize = 14;

/// A pair: kind, name, index and namespace of both ends. The indexes are fixed, so that a program's configuration can name them.
struct PairPlan {
    kind: LinkKind,
    near: (&'static str, u32),
    far: (&'static str, u32),
}

const VETH: PairPlan = PairPlan { kind: LinkKind::Veth, near: ("v0", 11), far: ("v1", 21) };
const NETKIT: PairPlan = PairPlan { kind: LinkKind::NetkitL2, near: ("nk0", 12), far: ("nk1", 22) };
/// Where programs may redirect to.
const TARGET: PairPlan = PairPlan { kind: LinkKind::Veth, near: ("r0", 13), far: ("r1", 23) };

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The namespace whose devices have the hooks.
    Near,
    /// The other one.
    Far,
}

/// The namespaces and their devices.
pub struct Wire {
    near: Netns,
    far: Netns,
    /// Why there is no netkit pair.
    pub no_netkit: Option<String>,
    /// MAC addresses by index, of both sides.
    macs: Vec<(Side, u32, [u8; 6])>,
}

/// Errors of the lab's own devices and sockets, which are no verdict on the object.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error(transparent)]
    Topology(#[from] TopologyError),
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error("{what}: {error}")]
    Socket { what: &'static str, error: io::Error },
}

/// A packet that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenFrame {
    pub side: Side,
    pub ifindex: u32,
    pub is_outgoing: bool,
    pub bytes: Vec<u8>,
}

/// Where packets for a hook are sent, and where they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HookPath {
    pub from: (Side, u32),
    pub to: (Side, u32),
    /// Whether the hook is at the receiving device: what is captured there for every protocol is from before the hook.
    pub is_ingress: bool,
}

/// The device whose index is the hook's, in the near namespace.
pub const fn device(hook: Hook) -> u32 {
    match hook {
        Hook::NetkitPrimary | Hook::NetkitPeer => NETKIT.near.1,
        _ => VETH.near.1,
    }
}

/// The way of a packet through the hook.
pub const fn route(hook: Hook) -> HookPath {
    let (near, far) = match hook {
        Hook::NetkitPrimary | Hook::NetkitPeer => ((Side::Near, NETKIT.near.1), (Side::Far, NETKIT.far.1)),
        _ => ((Side::Near, VETH.near.1), (Side::Far, VETH.far.1)),
    };
    match hook {
        Hook::ClsactIngress | Hook::TcxIngress => HookPath { from: far, to: near, is_ingress: true },
        Hook::NetkitPeer => HookPath { from: far, to: near, is_ingress: false },
        _ => HookPath { from: near, to: far, is_ingress: false },
    }
}

/// Name of a device.
pub fn name(side: Side, ifindex: u32) -> String {
    let all = [VETH, NETKIT, TARGET].into_iter();
    let mut ends = all.map(|pair| if side == Side::Near { pair.near } else { pair.far });
    ends.find(|(_, index)| *index == ifindex).map_or_else(|| format!("device {ifindex}"), |(name, _)| name.to_owned())
}

impl Wire {
    /// Makes namespaces and devices.
    pub fn make() -> Result<Self, WireError> {
        let (near, far) = (Netns::new("near")?, Netns::new("far")?);
        for side in [&near, &far] {
            // Without addresses and without IPv6 nothing but the check sends anything. A kernel without IPv6 has no such file.
            side.run(|| drop(fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")));
        }
        let mut wire = Self { near, far, no_netkit: None, macs: Vec::new() };
        wire.pair(&VETH)?;
        wire.pair(&TARGET)?;
        if let Err(error) = wire.pair(&NETKIT) {
            wire.no_netkit = Some(error.to_string());
        }
        Ok(wire)
    }

    fn pair(&mut self, plan: &PairPlan) -> Result<(), WireError> {
        let request = PairRequest {
            ifindex: Some(plan.near.1),
            peer_ifindex: Some(plan.far.1),
            peer_netns: Some(self.far.fd()),
            ..PairRequest::new(plan.kind, plan.near.0, plan.far.0)
        };
        link::create_pair(&self.near, &request)?;
        for (side, (name, index)) in [(Side::Near, plan.near), (Side::Far, plan.far)] {
            let ns = self.side(side);
            link::set_up(ns, name)?;
            let mac = link::info(ns, name)?.mac.unwrap_or_default();
            self.macs.push((side, index, mac));
        }
        Ok(())
    }

    /// The namespace.
    pub fn side(&self, side: Side) -> &Netns {
        if side == Side::Near { &self.near } else { &self.far }
    }

    /// The packet with the devices' addresses, where it has none of its own.
    pub fn addressed(&self, route: HookPath, frame: &[u8]) -> Vec<u8> {
        let mac = |(side, index): (Side, u32)| {
            self.macs
                .iter()
                .find(|(of, device, _)| (*of, *device) == (side, index))
                .map(|(.., mac)| *mac)
                .unwrap_or_default()
        };
        let mut frame = frame.to_vec();
        for (range, end) in [(0..6, route.to), (6..12, route.from)] {
            if let Some(place) = frame.get_mut(range).filter(|place| place.iter().all(|byte| *byte == 0)) {
                place.copy_from_slice(&mac(end));
            }
        }
        frame
    }

    /// Starts to capture.
    pub fn tap(&self, frame: &[u8]) -> Result<Taps, WireError> {
        let own = frame.get(12..ETHERNET).map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
        let mut types = TYPES.to_vec();
        if !types.contains(&own) && own >= 0x600 {
            types.push(own);
        }
        let (mut every, mut behind) = (Vec::new(), Vec::new());
        for side in [Side::Near, Side::Far] {
            let ns = self.side(side);
            let open = |kind: u16| {
                ns.run(|| packet_socket(kind)).map_err(|error| WireError::Socket { what: "a packet socket", error })
            };
            every.push((side, open(libc::ETH_P_ALL as u16)?));
            for kind in &types {
                behind.push((side, open(*kind)?));
            }
        }
        Ok(Taps { every, behind })
    }

    /// Sends a packet.
    pub fn send(&self, from: (Side, u32), frame: &[u8]) -> io::Result<()> {
        let to = address(from.1);
        let socket = self.side(from.0).run(|| Socket::new(Domain::PACKET, Type::RAW, None))?;
        socket.send_to(frame, &to).map(drop)
    }
}

/// Captures in both namespaces.
pub struct Taps {
    /// Everything, before the hooks of ingress and behind those of egress.
    every: Vec<(Side, Socket)>,
    /// Behind the hooks of ingress: sockets for one protocol are served last (`__netif_receive_skb_core`, net/core/dev.c).
    behind: Vec<(Side, Socket)>,
}

impl Taps {
    /// What was seen since the last call: of every protocol, and behind the hooks of ingress.
    pub fn seen(&self) -> (Vec<SeenFrame>, Vec<SeenFrame>) {
        let take = |sockets: &[(Side, Socket)]| {
            let all = sockets.iter().flat_map(|(side, socket)| std::iter::from_fn(|| receive(*side, socket)));
            all.collect()
        };
        (take(&self.every), take(&self.behind))
    }
}

fn packet_socket(kind: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(kind.to_be()))))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn receive(side: Side, socket: &Socket) -> Option<SeenFrame> {
    let mut buffer = [0; SNAP];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let received = loop {
        match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::MSG_DONTWAIT) {
            Ok(received) => break received,
            Err(Errno::EINTR) => {}
            Err(_) => return None,
        }
    };
    let (ifindex, kind) = received.address.map_or((0, 0), |from| (from.ifindex() as u32, from.pkttype()));
    let length = received.bytes.min(SNAP);
    Some(SeenFrame { side, ifindex, is_outgoing: kind == libc::PACKET_OUTGOING, bytes: buffer[..length].to_vec() })
}

/// The address of a device for packet sockets.
fn address(ifindex: u32) -> SockAddr {
    // SAFETY: an address of zeros is a valid one.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_halen = 6;
    // SAFETY: the storage is larger than the address, and the length is the address's own.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            ptr::write(storage.cast::<libc::sockaddr_ll>(), address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    };
    match made {
        Ok(((), address)) => address,
        Err(_) => unreachable!("the closure fails never"),
    }
}
