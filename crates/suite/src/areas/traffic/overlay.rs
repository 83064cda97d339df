//! Traffic between two nodes, plain and in tunnels.

use lab_bpf::{Config, ProgramKind, edit};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::{Spot, Testbed},
    trip::{HookCounters, Trip},
    variants,
};
use lab_protocol::AttachRequest;
use lab_topology::{Family, library, library::Overlay};
use lab_traffic::{Capture, Headers, Packet, Transport};

/// `IPPROTO_IPIP`, `IPPROTO_IPV6`.
const INNER_IP: [u8; 2] = [4, 41];
const VXLAN_PORT: u16 = 4789;
const HERE: Spot = Spot { node: "nodeA", dev: "p0" };
const THERE: Spot = Spot { node: "nodeB", dev: "p0" };

/// In the order in which they run.
pub const CASES: &[Case] = &[
    CROSS_NODE,
    VXLAN_OVER_IPV4,
    VXLAN_OVER_IPV6,
    IPIP,
    IP6TNL,
    TUNNEL_CHOSEN_BY_PROGRAM,
    REDIRECT_INTO_TUNNEL,
    HOST_TO_HOST,
];

const CROSS_NODE: Case =
    Case::new("T09", "cross-node", "Pods of two nodes reach each other by plain routes.", |ctx, variant| {
        across(ctx, variant, Overlay::None)
    })
    .on(library::TWO_NODE)
    .over(variants::one_each);
const VXLAN_OVER_IPV4: Case = Case::new(
    "T10",
    "vxlan-over-ipv4",
    "Pods of two nodes reach each other through VXLAN, and all their packets on the fabric are encapsulated.",
    |ctx, variant| across(ctx, variant, Overlay::Vxlan4),
)
.on(library::TWO_NODE_VXLAN)
.over(variants::one_each);
const VXLAN_OVER_IPV6: Case = Case::new(
    "T10",
    "vxlan-over-ipv6",
    "Pods of two nodes reach each other through VXLAN over an IPv6 fabric.",
    |ctx, variant| across(ctx, variant, Overlay::Vxlan6),
)
.on(library::TWO_NODE_VXLAN6)
.over(variants::one_each);
const IPIP: Case = Case::new(
    "T11",
    "ipip",
    "Pods of two nodes reach each other through IPv4 in IPv4; IPv6 is not tunnelled.",
    |ctx, variant| across(ctx, variant, Overlay::Ipip),
)
.on(library::TWO_NODE_IPIP)
.over(variants::one_each);
const IP6TNL: Case = Case::new(
    "T11",
    "ip6tnl",
    "Pods of two nodes reach each other in both families through an IPv6 tunnel.",
    |ctx, variant| across(ctx, variant, Overlay::Ip6Tnl),
)
.on(library::TWO_NODE_IP6TNL)
.over(variants::one_each);
fn across(ctx: &mut Ctx, variant: &Variant, overlay: Overlay) -> CaseResult {
    let testbed = ctx.testbed()?;
    let here = HookCounters::new(ctx, &testbed, HERE, variant.attach())?;
    let there = HookCounters::new(ctx, &testbed, THERE, variant.attach())?;
    let mut fabric = Capture::start(testbed.net.ns("nodeB"))?;
    let mtu = testbed.net.readback("nodeA", overlay.dev())?.mtu;
    ctx.equal("path MTU between the nodes", mtu, 1500 - overlay.overhead());
    Trip::new(ctx, "w0", "w1").passes(ctx, &testbed, &[&here, &there])?;
    Trip::control(ctx, "w1", "w0").passes(ctx, &testbed, &[&here, &there])?;
    let pods: Vec<_> = Family::ALL.iter().flat_map(|f| ["w0", "w1"].map(|pod| testbed.net.addr(pod, *f))).collect();
    let crossed = crossed(&testbed, &mut fabric)?;
    let bare: Vec<&Headers> = crossed.iter().filter(|headers| pods.contains(&headers.source)).collect();
    let wrapped = crossed.iter().filter(|headers| wraps(headers, overlay, library::VNI)).count();
    let shown = format!("{} not encapsulated, {wrapped} encapsulated", bare.len());
    let right = match overlay {
        Overlay::None => !bare.is_empty() && wrapped == 0,
        Overlay::Ipip => wrapped > 0 && !bare.is_empty() && bare.iter().all(|headers| headers.source.is_ipv6()),
        Overlay::Vxlan4 | Overlay::Vxlan6 | Overlay::Ip6Tnl | Overlay::VxlanMetadata => wrapped > 0 && bare.is_empty(),
    };
    ctx.check("packets on the fabric are encapsulated", right, shown);
    Ok(())
}

/// Packets between the nodes, as captured at the second one.
fn crossed(testbed: &Testbed, fabric: &mut Capture) -> Result<Vec<Headers>, Stop> {
    let uplink = testbed.net.ifindex("nodeB", "u");
    let packets = fabric.packets()?.iter().filter(|packet| packet.ifindex == uplink);
    Ok(packets.filter_map(|packet: &Packet| Headers::of(&packet.data)).collect())
}

/// Whether a packet of the fabric is one of the overlay's.
fn wraps(headers: &Headers, overlay: Overlay, network: u32) -> bool {
    let outer_v6 = headers.source.is_ipv6();
    match (overlay, &headers.transport) {
        (Overlay::None | Overlay::VxlanMetadata, _) => false,
        (Overlay::Vxlan4 | Overlay::Vxlan6, Transport::Udp { ports: (_, VXLAN_PORT), payload }) => {
            // Flags and three reserved bytes, then the identifier in three bytes.
            let vni = payload.get(4..7).map(|vni| u32::from_be_bytes([0, vni[0], vni[1], vni[2]]));
            vni == Some(network) && outer_v6 == (overlay == Overlay::Vxlan6)
        }
        (Overlay::Ipip | Overlay::Ip6Tnl, _) => {
            INNER_IP.contains(&headers.protocol) && outer_v6 == (overlay == Overlay::Ip6Tnl)
        }
        _ => false,
    }
}

const TUNNEL_CHOSEN_BY_PROGRAM: Case = Case::new(
    "T12",
    "tunnel-chosen-by-program",
    "Without a route, programs at the pods select VXLAN's network and remote address per packet, over IPv4 and IPv6, and the far end reads them.",
    tunnel_chosen_by_program,
)
.on(library::TWO_NODE_METADATA)
.over(variants::one_each);
fn tunnel_chosen_by_program(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// include/uapi/linux/bpf.h.
    const BPF_F_TUNINFO_IPV6: u64 = 1;
    let tunnel = Overlay::VxlanMetadata;
    let arriving = Spot { node: THERE.node, dev: tunnel.dev() };
    let testbed = ctx.testbed()?;
    let mac = |node| {
        let info = testbed.net.readback(node, tunnel.dev())?;
        info.mac.ok_or_else(|| Stop::check(format!("{node}: {} has no address", tunnel.dev())))
    };
    // Another network each time, and different from those of the topologies.
    for (family, overlay, network) in [(Family::V4, Overlay::Vxlan4, 4_242), (Family::V6, Overlay::Vxlan6, 6_262)] {
        let mut fabric = Capture::start(testbed.net.ns("nodeB"))?;
        let mut choosing = |here: Spot, far: &'static str| {
            let config = Config {
                target_ifindex: testbed.net.ifindex(here.node, tunnel.dev()),
                eth_dst: mac(far)?,
                tunnel_id: network,
                tunnel_remote: lab_bpf::datapath::words(testbed.net.addr(far, family)),
                ..Config::new(ctx.marker)
            };
            let program = testbed.load(ctx, here, ProgramKind::Tunnel, config)?;
            let attachment = testbed.attach(ctx, here, variant.attach(), Direction::FromWorkload, &program)?;
            Ok::<_, Stop>((program, attachment))
        };
        let (here, first) = choosing(HERE, "nodeB")?;
        let (there, second) = choosing(THERE, "nodeA")?;
        let flags = if family == Family::V4 { 0 } else { BPF_F_TUNINFO_IPV6 };
        let [id, remote] = [edit::TUNNEL_ID, edit::TUNNEL_REMOTE].map(|number| {
            let config = Config { number, redirect_flags: flags, ..Config::new(ctx.marker) };
            testbed.load(ctx, arriving, ProgramKind::Edit, config)
        });
        let (id, remote) = (id?, remote?);
        let asking = testbed.attach(ctx, arriving, AttachRequest::Tc, Direction::FromWorkload, &id)?;
        let behind = testbed.attach_behind(ctx, arriving, AttachRequest::Tc, Direction::FromWorkload, &remote)?;
        Trip::new(ctx, "w0", "w1").passes(ctx, &testbed, &[])?;
        // The last segments of a connection follow its end: both counts are read until nothing is between them.
        let (mut sent, mut wrapped) = (0, 0);
        ctx.wait_until(2_000, || {
            sent = here.stats()?.marked + there.stats()?.marked;
            let crossed = crossed(&testbed, &mut fabric)?;
            wrapped = crossed.iter().filter(|headers| wraps(headers, overlay, network)).count() as u64;
            Ok(wrapped == sent)
        })?;
        ctx.equal(format!("over {family}: packets in the network that the programs chose"), wrapped, sent);
        let far = u32::from_be(lab_bpf::datapath::words(testbed.net.addr("nodeA", family))[3]);
        for (what, program, wanted) in [("the network", &id, network), ("the remote address", &remote, far)] {
            let last = program.stats()?.last;
            let read = (last.edit_code, last.edit_read);
            ctx.equal(format!("over {family}: {what} of what arrives, by bpf_skb_get_tunnel_key"), read, (0, wanted));
        }
        for attachment in [behind, asking, first, second] {
            attachment.detach()?;
        }
        let report = testbed.silence(ctx, "w0", "w1", lab_traffic::Proto::Icmp, family);
        ctx.check(format!("over {family}: without the programs nothing arrives"), report.lost(), &report);
    }
    Ok(())
}

const REDIRECT_INTO_TUNNEL: Case = Case::new(
    "R28",
    "redirect-into-tunnel",
    "bpf_redirect to a device without link-layer addresses takes the link-layer header off: what it gives to an IPIP tunnel arrives.",
    redirect_into_tunnel,
)
.on(library::TWO_NODE_IPIP)
.over(variants::usual_mechanisms);
fn redirect_into_tunnel(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let target_ifindex = testbed.net.ifindex(HERE.node, Overlay::Ipip.dev());
    let config = Config { target_ifindex, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, HERE, ProgramKind::Redirect, config)?;
    let _attachment = testbed.attach(ctx, HERE, variant.attach(), Direction::FromWorkload, &program)?;
    let mut fabric = Capture::start(testbed.net.ns("nodeB"))?;
    // Segments of TCP would be longer than the tunnel's MTU, which the workload does not hear of.
    for proto in [lab_traffic::Proto::Udp, lab_traffic::Proto::Icmp] {
        let before = program.stats()?.marked;
        testbed.flow_passes(ctx, "w0", "w1", proto, Family::V4);
        let redirected = program.stats()?.marked - before;
        ctx.equal(format!("{proto}: packets redirected"), redirected, EXCHANGES.into());
    }
    let wrapped = crossed(&testbed, &mut fabric)?.iter().filter(|headers| wraps(headers, Overlay::Ipip, 0)).count();
    // Both protocols, there and back.
    ctx.equal("encapsulated packets on the fabric", wrapped, 2 * 2 * usize::from(EXCHANGES));
    Ok(())
}

const HOST_TO_HOST: Case =
    Case::new("T13", "host-to-host", "Traffic between the nodes themselves runs no program of a pod.", host_to_host)
        .on(library::TWO_NODE)
        .over(variants::one_each);
fn host_to_host(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let here = HookCounters::new(ctx, &testbed, HERE, variant.attach())?;
    let there = HookCounters::new(ctx, &testbed, THERE, variant.attach())?;
    let before = (here.counted()?, there.counted()?);
    Trip::new(ctx, "nodeA", "nodeB").passes(ctx, &testbed, &[])?;
    ctx.equal("packets that ran a pod's program", (here.counted()?, there.counted()?), before);
    // The programs are attached and would have counted.
    Trip::control(ctx, "w0", "w1").passes(ctx, &testbed, &[&here, &there])
}
