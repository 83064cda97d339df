//! bpf_redirect with BPF_F_INGRESS, bpf_redirect_peer between kinds of device, and bpf_sk_assign.

use lab_bpf::{CURRENT_NETNS, Config, NO_SOCKET, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows,
    testbed::{P0, P1, Spot},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Capability, DeviceKind, Hook, KernelVersion, Since};
use lab_topology::{Family, library, link};
use lab_traffic::{Proto, SILENCE_WINDOW, UdpProbe, UdpSink};
use nix::errno::Errno;
use std::net::{Ipv4Addr, SocketAddr};

/// `BPF_F_INGRESS`, include/uapi/linux/bpf.h.
const BPF_F_INGRESS: u64 = 1;

/// The smallest MTU with IPv6 (RFC 8200, 5), and a datagram that is longer.
const SMALL_MTU: u32 = 1280;
const BEYOND: [u8; 1400] = [7; 1400];

/// Kernels before dropped a packet beyond the target's MTU (`is_skb_forwardable()` in `____dev_forward_skb()`).
const ANY_LENGTH: Since = Since {
    mainline: KernelVersion::new(5, 12, 0),
    backports: &[],
    source: "bpf: Drop MTU check when doing TC-BPF redirect to ingress",
};

/// In the order in which they run.
pub const CASES: &[Case] = &[REDIRECT_INGRESS, PEER_INTO_L3, SK_ASSIGN];

const REDIRECT_INGRESS: Case = Case::new(
    "R19",
    "redirect-ingress",
    "bpf_redirect with BPF_F_INGRESS makes a packet one that the target received: its tc ingress runs, its netkit hooks don't; since 5.12 its MTU does not matter.",
    redirect_ingress,
)
.on(library::PODS)
.over(variants::paired_mechanisms)
.needs(&[Capability::Clsact]);
fn redirect_ingress(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    // The node's own address, for the packet to be received.
    let eth_dst = testbed.net.readback("host", P1.dev)?.mac.unwrap_or_default();
    let flags =
        Config { target_ifindex: testbed.ifindex(P1), redirect_flags: BPF_F_INGRESS, ..Config::new(ctx.marker) };
    let steering = testbed.load(ctx, P0, ProgramKind::Redirect, Config { eth_dst, ..flags })?;
    let received = testbed.counter(ctx, P1)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let filter = testbed.filter(P1, Direction::FromWorkload, &received, lab_bpf::TcOptions::default())?;
    testbed.report(ctx, P1, AttachRequest::Tc, received.id(), Some(received.clone()))?;
    let native = testbed.counter(ctx, P1)?;
    let mut links = Vec::new();
    for hook in [Hook::NetkitPeer, Hook::NetkitPrimary] {
        if variant.device().is_netkit() {
            let ifindex = testbed.ifindex(P1);
            let attach = || lab_bpf::attach_link(hook, ifindex, &*native, &lab_bpf::Mprog::default());
            // One program can't be on a hook twice, but on two hooks.
            links.push(testbed.run(P1, attach)?);
        }
    }
    let counter = || link::stats(testbed.net.ns("host"), P1.dev).map(|stats| stats.rx_packets);
    for (proto, family) in flows::all() {
        let before = (steering.stats()?.marked, received.stats()?.marked, counter()?);
        testbed.flow_passes(ctx, "w0", "host", proto, family);
        let steered = steering.stats()?.marked - before.0;
        match proto {
            Proto::Tcp => ctx.check(format!("{proto}, {family}: packets redirected"), steered >= 3, steered),
            _ => ctx.equal(format!("{proto}, {family}: packets redirected"), steered, flows::EXCHANGES.into()),
        };
        ctx.equal(
            format!("{proto}, {family}: at the target's tc ingress"),
            received.stats()?.marked - before.1,
            steered,
        );
        ctx.equal(
            format!("{proto}, {family}: device of the packet there"),
            received.stats()?.last.ifindex,
            testbed.ifindex(P1),
        );
    }
    ctx.equal("packets at the target's netkit hooks", native.stats()?.marked, 0);
    let Some(any_length) = ctx.capabilities.has_change(&ANY_LENGTH) else {
        ctx.log("not checked: whether a datagram beyond the target's MTU passes, because kernels.toml does not believe this kernel's version");
        filter.detach()?;
        return Ok(());
    };
    let host = testbed.net.ns("host");
    link::set_mtu(host, P1.dev, SMALL_MTU)?;
    for family in Family::available().iter().copied() {
        let to = SocketAddr::new(testbed.net.addr("host", family), ctx.marker);
        let sink = UdpSink::bind(host, to)?;
        let dropped = || link::stats(host, P1.dev).map(|stats| stats.rx_dropped);
        let before = dropped()?;
        UdpProbe::connect(testbed.net.ns("w0"), to)?.send(&BEYOND)?;
        let window = if any_length { ctx.patience(2_000) } else { SILENCE_WINDOW };
        let bytes = sink.receive(window).map(|(bytes, _)| bytes.len());
        let what = format!("{family}: bytes of a datagram beyond the target's MTU");
        ctx.equal(what, bytes, any_length.then_some(BEYOND.len()));
        let lost = u64::from(!any_length);
        ctx.equal(format!("{family}: packets that the target dropped"), dropped()? - before, lost);
    }
    filter.detach()?;
    Ok(())
}

const PEER_INTO_L3: Case = Case::new(
    "R20",
    "peer-into-l3",
    "bpf_redirect_peer from a veth pod's tc ingress delivers into an L3 netkit pod, past that pod's own program.",
    peer_into_l3,
)
.on(library::MIXED)
.over(|| {
    let by = |attach| Variant { attach: Some(attach), ..Variant::default() };
    vec![by(AttachRequest::Tc), by(AttachRequest::Tcx)]
})
.needs(&[Capability::Netkit]);
fn peer_into_l3(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const L3: Spot = Spot { node: "host", dev: "p2" };
    let testbed = ctx.testbed()?;
    let kind = testbed.net.readback("w2", "eth0")?.kind;
    ctx.equal("the third workload's link", kind, DeviceKind::NetkitL3);
    let own = testbed.counter(ctx, L3)?;
    let _own = testbed.attach(ctx, L3, AttachRequest::Netkit, Direction::ToWorkload, &own)?;
    testbed.flow_passes(ctx, "w0", "w2", Proto::Udp, Family::V4);
    let config = Config { target_ifindex: testbed.ifindex(L3), ..Config::new(ctx.marker) };
    let steering = testbed.load(ctx, P0, ProgramKind::RedirectPeer, config)?;
    let _steering = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &steering)?;
    let before = own.stats()?.marked;
    for (proto, family) in flows::all() {
        let steered = steering.stats()?.marked;
        testbed.flow_passes(ctx, "w0", "w2", proto, family);
        let steered = steering.stats()?.marked - steered;
        ctx.check(format!("{proto}, {family}: packets redirected"), steered >= 3, steered);
    }
    ctx.equal("packets at the pod's own program", own.stats()?.marked - before, 0);
    Ok::<_, Stop>(())
}

const SK_ASSIGN: Case = Case::new(
    "R21",
    "sk-assign",
    "bpf_sk_assign gives a packet to another socket at tc ingress; on netkit it is EOPNOTSUPP, and the packet goes where it went; a socket of another namespace is found by its id.",
    sk_assign,
)
.on(library::PAIR)
.over(variants::paired_mechanisms);
fn sk_assign(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let host = testbed.net.addr("host", Family::V4);
    // Nobody listens where the packets go; the proxy has another port.
    let (to, proxy) = (SocketAddr::new(host, ctx.marker), SocketAddr::new(host, ctx.marker ^ 1));
    let sink = UdpSink::bind(testbed.net.ns("host"), proxy)?;
    let probe = UdpProbe::connect(testbed.net.ns("pod"), to)?;
    let config = Config { socket_port: proxy.port().into(), redirect_flags: CURRENT_NETNS, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, P0, ProgramKind::Assign, config)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    probe.send(b"for the proxy")?;
    // skb_at_tc_ingress(): netkit's programs run where the workload transmits.
    let native = attachment.hook.attach_type() == AttachType::Netkit;
    if native {
        ctx.equal("error of the sender", probe.error(ctx.patience(2_000)), Some(Errno::ECONNREFUSED));
        ctx.equal("datagram at the proxy", sink.receive(SILENCE_WINDOW), None);
    } else {
        let arrived = sink.receive(ctx.patience(2_000)).map(|(bytes, _)| bytes);
        ctx.equal("datagram at the proxy", arrived.as_deref(), Some(&b"for the proxy"[..]));
    }
    let wanted = if native { -(Errno::EOPNOTSUPP as i32) } else { 0 };
    let stats = program.stats()?;
    ctx.equal("packets at the program, and what the helper returned", (stats.marked, stats.last.fib_code), (1, wanted));
    attachment.detach()?;
    probe.send(b"for nobody")?;
    ctx.equal("error of the sender without the program", probe.error(ctx.patience(2_000)), Some(Errno::ECONNREFUSED));
    ctx.equal("datagram at the proxy without the program", sink.receive(SILENCE_WINDOW), None);
    // A socket of the workload's namespace is found there alone, and no packet can be given to it.
    drop(sink);
    let _there = UdpSink::bind(testbed.net.ns("pod"), SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), proxy.port()))?;
    let id = link::netnsid(testbed.net.ns("host"), testbed.net.ns("pod"))?
        .ok_or_else(|| Stop::check("the host's namespace has no id for the pod's"))?;
    let elsewhere = if native { wanted } else { -(Errno::ENETUNREACH as i32) };
    for (what, namespace, code) in [("its own", CURRENT_NETNS, NO_SOCKET), ("the pod's", id as u64, elsewhere)] {
        let config = Config { redirect_flags: namespace, ..config };
        let program = testbed.load(ctx, P0, ProgramKind::Assign, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
        probe.send(b"for nobody")?;
        ctx.equal(
            format!("{what} namespace: error of the sender"),
            probe.error(ctx.patience(2_000)),
            Some(Errno::ECONNREFUSED),
        );
        ctx.equal(format!("{what} namespace: what the helper returned"), program.stats()?.last.fib_code, code);
        attachment.detach()?;
    }
    Ok(())
}
