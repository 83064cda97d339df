//! The two ends of a pair: what each tells of the other, and packets that stay in one namespace.

use crate::topologies::SHARED_IFINDEX;
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot},
    variants,
};
use lab_protocol::{AttachRequest, LinkKind};
use lab_topology::{Netns, PairRequest, Template, Topology, library, link};
use nix::sys::socket::{setsockopt, sockopt};
use std::{
    ffi::OsString,
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[OTHER_END, ONE_NAMESPACE];

/// What `ns` must say of a device whose other end is `other` in `there`.
fn tells(ctx: &mut Ctx, when: &str, (ns, dev): (&Netns, &str), (there, other): (&Netns, &str)) -> Result<(), Stop> {
    let told = link::info(ns, dev)?;
    let wanted = link::info(there, other)?.ifindex;
    ctx.equal(format!("{when}: the index that {dev} tells of {other}"), told.peer_ifindex, Some(wanted));
    let number = if ns.inode() == there.inode() { None } else { link::netnsid(ns, there)? };
    let known = number.is_some() || ns.inode() == there.inode();
    ctx.check(format!("{when}: the namespace of {dev} has a number for that of {other}"), known, format!("{number:?}"));
    ctx.equal(format!("{when}: the namespace that {dev} tells of {other}"), told.peer_netnsid, number);
    Ok(())
}

const OTHER_END: Case = Case::new(
    "G11",
    "other-end",
    "Each end tells index and namespace of the other (IFLA_LINK, IFLA_LINK_NETNSID), also after a rename, moves and a return, and \
     where both have one index.",
    other_end,
)
.on(library::PAIR)
.over(variants::devices);
fn other_end(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    if variant.device().is_netkit() {
        let mut told = Vec::new();
        for (node, dev) in [("host", "p0"), ("pod", "eth0")] {
            told.push(testbed.net.readback(node, dev)?.netkit.and_then(|netkit| netkit.primary));
        }
        ctx.equal("whether p0 and eth0 are the primary (IFLA_NETKIT_PRIMARY)", told, vec![Some(true), Some(false)]);
    }
    let (host, pod, elsewhere) = (testbed.net.ns("host"), testbed.net.ns("pod"), Netns::new("elsewhere")?);
    let mut both = |when: &str, at: &Netns, name: &str| {
        tells(ctx, when, (host, "p0"), (at, name))?;
        tells(ctx, when, (at, name), (host, "p0"))
    };
    both("at first", pod, "eth0")?;
    // A device that is up takes another name only since "net/core: Allow live renaming when an interface is up" (6.2).
    link::set_down(pod, "eth0")?;
    link::rename(pod, "eth0", "uplink0")?;
    both("renamed", pod, "uplink0")?;
    link::move_to(pod, "uplink0", &elsewhere)?;
    both("moved", &elsewhere, "uplink0")?;
    // The kernel gives a moved device another index if its own is taken there.
    link::create_dummy(host, "filler")?;
    link::move_to(&elsewhere, "uplink0", host)?;
    both("in one namespace", host, "uplink0")?;
    link::move_to(host, "uplink0", pod)?;
    both("moved back", pod, "uplink0")?;
    // The index is told even where it equals the device's own, which within one namespace would mean that there is no other end
    // (rtnl_fill_link_netnsid()).
    let index = Some(SHARED_IFINDEX);
    let request = PairRequest::new(variant.device(), "same0", "same1");
    let twins = PairRequest { ifindex: index, peer_ifindex: index, peer_netns: Some(pod.fd()), ..request };
    link::create_pair(host, &twins)?;
    tells(ctx, "with one index", (host, "same0"), (pod, "same1"))?;
    tells(ctx, "with one index", (pod, "same1"), (host, "same0"))
}

/// Both ends in one namespace.
const PAIR_AT_HOME: Template =
    Template::new("pair-at-home", "A pair with both ends in one namespace.", |kind: LinkKind| {
        Topology::new()
            .node("host")
            .link(kind, ("host", "p0"), ("host", "eth0"))
            .addr("host", "p0", &["10.1.0.1/32", "fd01::1/128"])
            .addr("host", "eth0", &["10.1.0.2/32", "fd01::2/128"])
    });

const ONE_NAMESPACE: Case = Case::new(
    "G12",
    "one-namespace",
    "Within one namespace a packet keeps its mark, and on netkit its priority, which veth clears.",
    one_namespace,
)
.on(PAIR_AT_HOME)
.over(variants::paired_mechanisms);
fn one_namespace(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const MARK: u32 = 0x2a;
    const PRIORITY: i32 = 5;
    let testbed = ctx.testbed()?;
    // netkit's program runs where the packet leaves p0, but after netkit_prep_forward(); the others where it comes out.
    let netkit = variant.attach() == AttachRequest::Netkit;
    let out: Spot = Spot { node: "host", dev: "eth0" };
    let (at, direction) = if netkit { (P0, Direction::ToWorkload) } else { (out, Direction::FromWorkload) };
    let program = testbed.counter(ctx, at)?;
    let _attachment = testbed.attach(ctx, at, variant.attach(), direction, &program)?;
    group_datagram(testbed.net.ns("host"), ctx.marker, MARK, PRIORITY)?;
    let met = ctx.wait_until(2_000, || Ok(program.stats()?.marked > 0))?;
    ctx.require("the program ran on the packet", met, program.stats()?.marked)?;
    let last = program.stats()?.last;
    // ____dev_forward_skb() clears the priority in any case; netkit_prep_forward() only between namespaces.
    let priority = if variant.device() == LinkKind::Veth { 0 } else { PRIORITY.cast_unsigned() };
    ctx.equal("mark and priority within one namespace", (last.mark, last.priority), (MARK, priority));

    Ok(())
}

/// Sends one datagram out of p0: to a group, which needs neither a neighbour nor a route.
fn group_datagram(ns: &Netns, port: u16, mark: u32, priority: i32) -> Result<(), Stop> {
    const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
    Ok(ns.run(|| {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        setsockopt(&socket, sockopt::BindToDevice, &OsString::from(P0.dev))?;
        setsockopt(&socket, sockopt::Mark, &mark)?;
        setsockopt(&socket, sockopt::Priority, &priority)?;
        socket.send_to(b"metadata", SocketAddr::from((GROUP, port))).map(drop)?;
        Ok::<_, io::Error>(())
    })?)
}
