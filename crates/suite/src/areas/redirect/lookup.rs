//! Flags of bpf_fib_lookup.

use super::fib::{SHORT, add_route, address_of, code, packet, stranger, unresolved};
use lab_bpf::{BPF_FIB_LOOKUP_TBID, Config, ProgramKind, raw};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::Ctx,
    testbed::{P0, P1},
    variants,
};
use lab_netlink::route::route::RouteType;
use lab_protocol::{KernelVersion, LinkKind, capability::Since};
use lab_topology::{Family, library};
use nix::errno::Errno;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Of include/uapi/linux/bpf.h.
const BPF_FIB_LOOKUP_DIRECT: u32 = 1;
const BPF_FIB_LOOKUP_OUTPUT: u32 = 1 << 1;
const BPF_FIB_LOOKUP_SKIP_NEIGH: u32 = 1 << 2;
const BPF_FIB_LOOKUP_SRC: u32 = 1 << 4;
/// Not assigned.
const UNKNOWN: u32 = 1 << 20;

/// The version since which a lookup need not find the neighbour.
const SKIP_NEIGH: Since = Since {
    mainline: KernelVersion::new(6, 3, 0),
    backports: &[],
    source: "bpf: Add BPF_FIB_LOOKUP_SKIP_NEIGH flag for bpf_fib_lookup",
};
/// The version since which a lookup can be in a given table.
const TABLE: Since = Since {
    mainline: KernelVersion::new(6, 5, 0),
    backports: &[],
    source: "bpf: Add table ID to bpf_fib_lookup BPF helper",
};

/// The version since which a lookup returns the source that the host would take.
const SOURCE: Since = Since {
    mainline: KernelVersion::new(6, 7, 0),
    backports: &[],
    source: "bpf: Derive source IP addr via bpf_*_fib_lookup()",
};

/// In the order in which they run.
pub const CASES: &[Case] = &[LOOKUP_FLAGS, METRIC_AND_SOURCE];

const LOOKUP_FLAGS: Case = Case::new(
    "R22",
    "lookup-flags",
    "bpf_fib_lookup skips rules (DIRECT) or neighbours (SKIP_NEIGH), looks in a table (TBID) or from a device (OUTPUT), as told.",
    lookup_flags,
)
.on(library::POLICY)
.over(|| variants::devices().into_iter().filter(|variant| variant.device() != LinkKind::NetkitL2).collect());
fn lookup_flags(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    /// Of no table: where none is given, the lookup must not take it for one, and must not leave it.
    const IGNORED: u32 = 7;
    let testbed = ctx.testbed()?;
    let ns = testbed.net.ns("host");
    let (first, second) = (testbed.ifindex(P0), testbed.ifindex(P1));
    for family in Family::available().iter().copied() {
        let (workload, plain) = (testbed.net.addr("w0", family), testbed.net.addr("w1", family));
        let nobody = stranger(family);
        let by_device: IpAddr = library::POLICY_ADDRS[family as usize][0].parse()?;
        let by_source: IpAddr = library::POLICY_ADDRS[family as usize][1].parse()?;
        let table = library::policy_table(family, 1);
        let in_table = BPF_FIB_LOOKUP_DIRECT | BPF_FIB_LOOKUP_TBID;
        let found = (unresolved(variant), second);
        let none = |from| (code::NOT_FWDED, from);
        // IPv6 prefers the device and does not insist on it (fib6_table_lookup() without RT6_LOOKUP_F_IFACE).
        let elsewhere = if family == Family::V4 { none(first) } else { found };
        let refused = |from| (-(Errno::EINVAL as i32), from);
        // What is asked: flags, table, from which device, which source and destination; code and device, and since when.
        let questions = [
            ("rules", 0, IGNORED, first, workload, by_source, found, None),
            (
                "DIRECT, an address of a rule",
                BPF_FIB_LOOKUP_DIRECT,
                IGNORED,
                first,
                workload,
                by_source,
                none(first),
                None,
            ),
            (
                "DIRECT, an address of the main table",
                BPF_FIB_LOOKUP_DIRECT,
                IGNORED,
                first,
                workload,
                plain,
                found,
                None,
            ),
            ("OUTPUT, the device of the route", BPF_FIB_LOOKUP_OUTPUT, IGNORED, second, nobody, plain, found, None),
            (
                "OUTPUT, an address of a rule for the device",
                BPF_FIB_LOOKUP_OUTPUT,
                IGNORED,
                first,
                nobody,
                by_device,
                none(first),
                None,
            ),
            ("OUTPUT, another device", BPF_FIB_LOOKUP_OUTPUT, IGNORED, first, nobody, plain, elsewhere, None),
            (
                "SKIP_NEIGH",
                BPF_FIB_LOOKUP_SKIP_NEIGH,
                IGNORED,
                first,
                workload,
                plain,
                (code::SUCCESS, second),
                Some(&SKIP_NEIGH),
            ),
            ("TBID, the rule's table", in_table, table, first, nobody, by_source, found, Some(&TABLE)),
            ("TBID, another table", in_table, table + 1, first, nobody, by_source, none(first), Some(&TABLE)),
            ("an unknown flag", UNKNOWN, IGNORED, first, workload, plain, refused(first), None),
        ];
        // What does not depend on the family is asked once.
        let once =
            ["rules", "DIRECT, an address of the main table", "OUTPUT, the device of the route", "an unknown flag"];
        for (what, flags, number, from, source, to, wanted, since) in questions {
            if family == Family::V6 && once.contains(&what) {
                continue;
            }
            let config =
                Config { target_ifindex: from, redirect_flags: flags.into(), number, ..Config::new(ctx.marker) };
            let looking = testbed.load(ctx, P0, ProgramKind::Fib, config)?;
            let packet = packet(source, to, ctx.marker, SHORT)?;
            ns.run(|| raw::test_run(&*looking, &packet))?;
            let last = looking.stats()?.last;
            let seen = (last.fib_code, last.fib_ifindex);
            if last.fib_code == code::SUCCESS {
                // bpf_fib_set_fwd_params().
                ctx.equal(format!("{family}, {what}: VLAN of the route"), last.fib_vlan, 0);
            }
            // Stable kernels have got the newer flags too (6.1.176 has both): an older kernel either refuses one or follows it.
            let newer = since.is_some_and(|since| ctx.capabilities.has_change(since) != Some(true));
            let wanted = if newer && seen == refused(from) { seen } else { wanted };
            ctx.equal(format!("{family}, {what}: code and device"), seen, wanted);
        }
    }
    Ok(())
}

const METRIC_AND_SOURCE: Case = Case::new(
    "R29",
    "metric-and-source",
    "bpf_fib_lookup returns the metric of the route, and with BPF_FIB_LOOKUP_SRC the source that the host would take.",
    metric_and_source,
)
.on(library::PODS)
.over(variants::devices);
fn metric_and_source(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const METRIC: u32 = 77;
    const FAR: [&str; 2] = ["203.0.113.77", "2001:db8:c::77"];
    let testbed = ctx.testbed()?;
    let ns = testbed.net.ns("host");
    for family in Family::available().iter().copied() {
        let to: IpAddr = FAR[family as usize].parse()?;
        add_route(ns, to, RouteType::Unicast, Some(testbed.ifindex(P1)), Some(METRIC))?;
        let workload = testbed.net.addr("w0", family);
        // What the kernel takes for a socket of the host's.
        let any: IpAddr =
            if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
        let hosts = ns.run(|| {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect((to, ctx.marker))?;
            socket.local_addr()
        })?;
        for (what, flags, source) in [("no flag", 0, workload), ("SRC", BPF_FIB_LOOKUP_SRC, hosts.ip())] {
            let config =
                Config { target_ifindex: testbed.ifindex(P0), redirect_flags: flags.into(), ..Config::new(ctx.marker) };
            let looking = testbed.load(ctx, P0, ProgramKind::Fib, config)?;
            let packet = packet(workload, to, ctx.marker, SHORT)?;
            ns.run(|| raw::test_run(&*looking, &packet))?;
            let last = looking.stats()?.last;
            if flags != 0
                && ctx.capabilities.has_change(&SOURCE) != Some(true)
                && last.fib_code == -(Errno::EINVAL as i32)
            {
                continue;
            }
            ctx.equal(
                format!("{family}, {what}: device and metric"),
                (last.fib_ifindex, last.fib_metric),
                (testbed.ifindex(P1), METRIC),
            );
            ctx.equal(format!("{family}, {what}: source"), address_of(last.fib_source, family), source);
        }
    }
    Ok(())
}
