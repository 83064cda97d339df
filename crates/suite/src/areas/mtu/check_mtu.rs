//! bpf_check_mtu, and packets larger than 64 KiB.

use super::link::checksum_errors;
use crate::topologies::{JUMBO, UNEVEN_PAIR, USUAL};
use lab_bpf::{Config, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, P1, Testbed},
    trip::HookCounters,
    variants,
};
use lab_protocol::{AttachRequest, Capability, KernelVersion, capability::Since};
use lab_topology::{Family, Template, library, link};
use lab_traffic::{Path, UdpProbe, UdpSink, tcp_exchange};
use nix::errno::Errno;
use std::net::SocketAddr;

const ETHERNET: i32 = 14;
/// `BPF_MTU_CHK_RET_*`, include/uapi/linux/bpf.h.
mod code {
    pub const SUCCESS: i32 = 0;
    pub const FRAG_NEEDED: i32 = 1;
    pub const SEGS_TOOBIG: i32 = 2;
}
/// `BPF_MTU_CHK_SEGS`, and an unassigned flag.
const SEGMENTS: u64 = 1;
const UNKNOWN: u64 = 1 << 5;

/// In the order in which they run.
pub const CASES: &[Case] = &[CHECK_MTU, BEYOND_64_KIB];

/// A call and its result: device, added bytes, flags; code, MTU.
struct Question {
    name: &'static str,
    device: u32,
    add: i32,
    flags: u64,
    answer: (i32, u32),
}

const CHECK_MTU: Case = Case::new(
    "U05",
    "check-mtu",
    "bpf_check_mtu uses the node's devices on every hook except PRIMARY, where it uses the pod's; its limits are exact.",
    check_mtu,
)
.on(UNEVEN_PAIR)
.over(variants::usual_hooks)
.needs(&[Capability::Dummy, Capability::CheckMtu]);
fn check_mtu(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const NARROW: u32 = 1_000;
    const SEGMENT: u16 = 1_200;
    const NOBODY: u32 = 9_999;
    const PAYLOAD: usize = 100;
    let testbed = ctx.testbed()?;
    // The MTUs of the two ends differ, so that the result shows which end was checked.
    let in_pod = variant.attach() == AttachRequest::Netkit && variant.direction() == Direction::ToWorkload;
    let (asks, other, mtu) = if in_pod { ("pod", "host", USUAL) } else { ("host", "pod", JUMBO) };
    link::create_dummy(testbed.net.ns(asks), "narrow")?;
    link::set_mtu(testbed.net.ns(asks), "narrow", NARROW)?;
    let narrow = link::info(testbed.net.ns(asks), "narrow")?.ifindex;
    let end = |node| testbed.net.ifindex(node, if node == "pod" { "eth0" } else { "p0" });
    let refused = |errno: Errno| (-(errno as i32), 0);
    let ask = |name, device, add, flags, answer| Question { name, device, add, flags, answer };
    for (family, headers) in [(Family::V4, 28), (Family::V6, 48)] {
        // The bytes that can be added to this packet: the device's MTU counts from the network header.
        let room = mtu.cast_signed() - headers - PAYLOAD as i32;
        for question in [
            ask("the packet's device", 0, 0, 0, (code::SUCCESS, mtu)),
            ask("the packet's device by its index", end(asks), 0, 0, (code::SUCCESS, mtu)),
            ask("the largest length that fits", 0, room, 0, (code::SUCCESS, mtu)),
            ask("a byte more", 0, room + 1, 0, (code::FRAG_NEEDED, mtu)),
            ask("less than the packet", 0, -ETHERNET, 0, (code::SUCCESS, mtu)),
            ask("another device", narrow, 0, 0, (code::SUCCESS, NARROW)),
            ask("too much for another device", narrow, NARROW.cast_signed(), 0, (code::FRAG_NEEDED, NARROW)),
            ask("the other namespace's device", end(other), 0, 0, refused(Errno::ENODEV)),
            ask("no device", NOBODY, 0, 0, refused(Errno::ENODEV)),
            ask("an unknown flag", 0, 0, UNKNOWN, refused(Errno::EINVAL)),
            ask("segments and a length", 0, 1, SEGMENTS, refused(Errno::EINVAL)),
        ] {
            answered(ctx, &testbed, variant, family, &question, |probe| probe.send(&[0x4d; PAYLOAD]))?;
        }
        for question in [
            ask("a packet of several segments", narrow, 0, 0, (code::SUCCESS, NARROW)),
            ask("each of its segments", 0, 0, SEGMENTS, (code::SUCCESS, mtu)),
            ask("each of its segments, too long for another device", narrow, 0, SEGMENTS, (code::SEGS_TOOBIG, NARROW)),
        ] {
            let train = [0x4d; SEGMENT as usize * 4];
            answered(ctx, &testbed, variant, family, &question, |probe| probe.send_segments(&train, SEGMENT))?;
        }
    }
    Ok(())
}

/// Calls the helper for one packet, and checks the result.
fn answered(
    ctx: &mut Ctx,
    testbed: &Testbed,
    variant: &Variant,
    family: Family,
    question: &Question,
    send: impl FnOnce(&UdpProbe) -> std::io::Result<()>,
) -> Result<(), Stop> {
    let config = Config {
        target_ifindex: question.device,
        mtu_len_diff: question.add,
        redirect_flags: question.flags,
        ..Config::new(ctx.marker)
    };
    let (from, to) = variant.direction().ends("pod", "host");
    let program = testbed.load(ctx, P0, ProgramKind::CheckMtu, config)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let to_addr = SocketAddr::new(testbed.net.addr(to, family), ctx.marker);
    let sink = UdpSink::bind(testbed.net.ns(to), to_addr)?;
    send(&UdpProbe::connect(testbed.net.ns(from), to_addr)?)?;
    let arrived = sink.receive(ctx.patience(2_000)).is_some();
    let stats = program.stats()?;
    attachment.detach()?;
    let name = format!("{family}: {}", question.name);
    ctx.equal(format!("{name}: arrived, packets for which the helper was called"), (arrived, stats.marked), (true, 1));
    ctx.equal(name, (stats.last.mtu_code, stats.last.mtu), question.answer);
    Ok(())
}

/// Before this, such an IPv6 packet has eight bytes of options, which make each of its segments too long for a router's next
/// link (`skb_gso_validate_network_len()`), so that none is forwarded unsplit.
const IPV6_ROUTED: Since = Since {
    mainline: KernelVersion::new(7, 0, 0),
    backports: &[],
    source: "net/ipv6: Drop HBH for BIG TCP on TX side",
};

/// A sender creates no packets longer than half of the receiver's maximum window.
pub const PODS_LARGE_WINDOWS: Template =
    Template::new("pods-large-windows", "Two workloads on one host that have large TCP buffers.", |kind| {
        ["w0", "w1"].into_iter().fold(library::PODS.of(kind), |topology, node| {
            let memory = "4096 4194304 8388608";
            topology.sysctl(node, "net/ipv4/tcp_rmem", memory).sysctl(node, "net/ipv4/tcp_wmem", memory)
        })
    });

/// Slow start reaches the longest packets within this number of bytes.
const BULK: u64 = 2 << 20;
/// Connections until one has packets that are long enough, at most.
const TRIES: usize = 8;

/// Sends bulk and has it returned, on connections of their own, until `is_enough` says that packets were long enough: how much a sender
/// puts into one also depends on when the acknowledgements arrive.
pub fn bulk_until(ctx: &mut Ctx, what: &str, path: Path<'_>, is_enough: impl Fn() -> Result<bool, Stop>) -> CaseResult {
    for _ in 0..TRIES {
        let bulk = tcp_exchange(path, BULK, ctx.patience(20_000));
        ctx.check(format!("{what}{BULK} bytes sent and returned"), bulk.content_ok, bulk.to_string());
        if is_enough()? {
            break;
        }
    }
    Ok(())
}

const BEYOND_64_KIB: Case = Case::new(
    "U08",
    "beyond-64-kib",
    "With gso_max_size raised on every device of the path, TCP packets beyond 64 KiB leave a pod and arrive whole.",
    beyond_64_kib,
)
.on(PODS_LARGE_WINDOWS)
.over(variants::usual_mechanisms)
.needs(&[Capability::BigTcp])
.within(30_000);
fn beyond_64_kib(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const LIMIT: u32 = 180_000;
    const LEGACY: u32 = 65_536;
    /// Headers that the limit does not count: Ethernet, IPv6, TCP with its options, and the jumbo option.
    const HEADERS: u32 = 14 + 40 + 60 + 8;
    let testbed = ctx.testbed()?;
    let way = [("w0", "eth0"), ("host", P0.dev), ("host", P1.dev), ("w1", "eth0")];
    // "net: add gso_ipv4_max_size and gro_ipv4_max_size per device" (6.3): before it IPv4 packets have at most 64 KiB, and no
    // device has the attribute.
    let [_, ipv4] = link::gso_max_sizes(testbed.net.ns("w0"), "eth0")?;
    let ipv4 = ipv4.is_some();
    let routed_whole = ctx.capabilities.has_change(&IPV6_ROUTED);
    for limit in [None, Some(LIMIT)] {
        if let Some(limit) = limit {
            for (node, dev) in way {
                link::set_gso_max_size(testbed.net.ns(node), dev, limit)?;
                let sizes = link::gso_max_sizes(testbed.net.ns(node), dev)?;
                ctx.equal(format!("{node} {dev}: limits"), sizes, [Some(limit), ipv4.then_some(limit)]);
            }
        }
        for family in Family::available().iter().copied() {
            let watches = [
                HookCounters::new(ctx, &testbed, P0, variant.attach())?,
                HookCounters::new(ctx, &testbed, P1, variant.attach())?,
            ];
            let path =
                Path::direct(testbed.net.ns("w0"), testbed.net.ns("w1"), testbed.net.addr("w1", family), ctx.marker);
            let when = limit.map_or("with the default limit".to_owned(), |limit| format!("raised to {limit}"));
            let (leaves, routed) = match family {
                Family::V4 => (ipv4, Some(ipv4)),
                Family::V6 => (true, routed_whole),
            };
            let ends = [("from w0", &watches[0].outgoing, Some(leaves)), ("to w1", &watches[1].incoming, routed)];
            bulk_until(ctx, &format!("{family}, {when}: "), path, || {
                for (_, program, large) in &ends {
                    if limit.is_some() && *large == Some(true) && program.stats()?.max_len < LEGACY + HEADERS {
                        return Ok(false);
                    }
                }
                Ok(true)
            })?;
            for (name, program, large) in ends {
                let longest = program.stats()?.max_len;
                ctx.metric(&format!("gso.max_len {name}, {family}, {when}"), f64::from(longest));
                let fits = match (limit, large) {
                    (Some(limit), Some(true)) => (LEGACY + HEADERS..=limit + HEADERS).contains(&longest),
                    // Of a kernel whose version says nothing it is not known whether a router splits them.
                    (Some(limit), None) => longest <= limit + HEADERS,
                    (None, _) | (_, Some(false)) => longest <= LEGACY + HEADERS,
                };
                ctx.check(format!("{family}, {when}: the longest packet {name}"), fits, longest);
            }
        }
    }
    for node in ["w0", "w1"] {
        ctx.equal(format!("wrong checksums at {node}"), checksum_errors(testbed.net.ns(node))?, 0);
    }
    Ok(())
}
