//! Return codes and netkit's default policies.

use crate::{
    bench::{Bench, How, P0, UNTYPED},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_bpf::{Config, PolicyKey, ProgramKind};
use lab_protocol::{AttachType, LinkKind};
use lab_topology::{Family, NetkitOptions, Policy, library, link};
use lab_traffic::{Proto, SILENCE_WINDOW};
use nix::errno::Errno;
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
};

/// `TC_ACT_SHOT`, `TCX_DROP`, `NETKIT_DROP`.
const DROP: i32 = 2;

/// Verdicts worth telling apart, with their names in pkt_cls.h.
const CODES: [(i32, &str); 10] = [
    (-1, "UNSPEC"),
    (0, "OK"),
    (1, "RECLASSIFY"),
    (2, "SHOT"),
    (3, "PIPE"),
    (4, "STOLEN"),
    (5, "QUEUED"),
    (6, "REPEAT"),
    (8, "TRAP"),
    (42, "unassigned 42"),
];

/// Both policies, by name.
const POLICIES: [(Policy, &str); 2] = [(Policy::Forward, "forward"), (Policy::Blackhole, "blackhole")];

pub const CASES: &[Case] = &[
    Case::new(
        "V01",
        "return-codes",
        Area::Verdicts,
        "pair",
        "What each return code does: clsact drops SHOT, STOLEN and TRAP, tcx only SHOT, netkit all but UNSPEC and OK.",
        return_codes,
    )
    .over(variants::hooks)
    .within(30_000),
    Case::new(
        "V02",
        "default-policy",
        Area::Verdicts,
        "pair",
        "Without a program, a netkit end's policy decides what it transmits, each end for itself.",
        default_policy,
    )
    .over(policy_pairs),
    Case::new(
        "V03",
        "program-overrides-blackhole",
        Area::Verdicts,
        "pair",
        "With any program attached, even one without an opinion, a blackhole policy is out of force.",
        program_overrides_blackhole,
    )
    .over(variants::netkit_native),
    Case::new(
        "V04",
        "blackhole-is-back",
        Area::Verdicts,
        "pair",
        "Under blackhole traffic passes while any program is left, and is blocked the moment the last one goes.",
        blackhole_is_back,
    )
    .over(variants::netkit_native),
    Case::new(
        "V05",
        "change-policy-live",
        Area::Verdicts,
        "pair",
        "The policies of a live pair change through the primary with immediate effect, and not through the peer.",
        change_policy_live,
    )
    .over(variants::netkit_devices),
    Case::new(
        "V06",
        "no-window-before-attach",
        Area::Verdicts,
        "pair",
        "A pod that starts under blackhole sends nothing before the program is attached, and everything after.",
        no_window,
    )
    .over(variants::netkit_native),
    Case::new(
        "V07",
        "drop-accounting",
        Area::Verdicts,
        "pair",
        "A netkit drop counts as tx_dropped of the sending end; a clsact or tcx ingress drop does not touch the pod's.",
        drop_accounting,
    )
    .over(variants::mechanisms),
    Case::new(
        "V08",
        "drop-is-enobufs",
        Area::Verdicts,
        "pair",
        "A netkit drop is ENOBUFS for a sender that hears errors (IP_RECVERR); a clsact or tcx ingress drop is success.",
        drop_is_enobufs,
    )
    .over(variants::mechanisms),
    Case::new(
        "V11",
        "policy-map",
        Area::Verdicts,
        "pair",
        "Verdicts by policy map: a denied port is silent, every other flow passes, and lifting the denial lets it pass.",
        policy_map,
    )
    .over(variants::hooks),
];

fn policy_pairs() -> Vec<Variant> {
    const TAGS: [&str; 4] = ["forward-forward", "forward-blackhole", "blackhole-forward", "blackhole-blackhole"];
    variants::netkit_devices()
        .into_iter()
        .flat_map(|variant| TAGS.map(|tag| Variant { tag: Some(tag), ..variant }))
        .collect()
}

/// Whether a program's code drops, by attach type: `cls_bpf_exec_opcode` with `tcf_classify`, `tcx_action_code`,
/// `netkit_xmit`.
fn drops(attach: AttachType, code: i32) -> bool {
    match attach {
        AttachType::Tc => matches!(code, 2 | 4 | 8),
        AttachType::Tcx => code == 2,
        AttachType::Netkit => !matches!(code, -1 | 0),
    }
}

/// Datagrams sent under each return code.
const SENT: usize = 3;

fn return_codes(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (from, to) = variant.direction().ends("pod", "host");
    // Each datagram carries the number of its code, so that one window at the end serves all codes.
    let dial = SocketAddr::new(bench.net.addr(to, Family::V4), ctx.marker);
    let receiver = bench.net.ns(to).run(|| UdpSocket::bind(dial))?;
    let sender = bench.net.ns(from).run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    receiver.set_read_timeout(Some(SILENCE_WINDOW))?;
    let mut wanted = [0; CODES.len()];
    let mut arrived = [0; CODES.len()];
    for (number, (code, name)) in CODES.into_iter().enumerate() {
        let config = Config { verdict: code, ..Config::new(ctx.marker) };
        let program = bench.load(ctx, P0, ProgramKind::Count, config)?;
        let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
        for _ in 0..SENT {
            sender.send_to(&[number as u8], dial)?;
        }
        let answered = ctx.wait_until(1_000, || Ok(program.stats()?.marked >= SENT as u64))?;
        ctx.require(&format!("{name} ({code}): the program answered"), answered, program.stats()?.marked)?;
        wanted[number] = if drops(attachment.hook.attach_type(), code) { 0 } else { SENT };
        attachment.detach()?;
    }
    let mut buffer = [0; 8];
    while let Ok(1) = receiver.recv(&mut buffer) {
        if let Some(count) = arrived.get_mut(usize::from(buffer[0])) {
            *count += 1;
        }
    }
    for (((code, name), arrived), wanted) in CODES.into_iter().zip(arrived).zip(wanted) {
        let words = if wanted == 0 { "drops" } else { "passes" };
        ctx.equal(format!("{name} ({code}) {words}"), arrived, wanted);
    }
    // The flow's server wants the port.
    drop(receiver);
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    Ok(())
}

fn netkit_pair(device: LinkKind, netkit: NetkitOptions) -> Result<Bench, Stop> {
    let mut topology = library::pair(device).static_neighbours();
    for link in &mut topology.links {
        link.netkit = netkit.clone();
    }
    Bench::build(&topology)
}

fn default_policy(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (primary, peer) = variant.tag.and_then(|tag| tag.split_once('-')).unwrap_or_default();
    let policy = |wanted: &str| POLICIES.into_iter().find(|(_, name)| *name == wanted).map(|(policy, _)| policy);
    let options = NetkitOptions { policy: policy(primary), peer_policy: policy(peer), ..NetkitOptions::default() };
    let bench = netkit_pair(variant.device(), options)?;
    // One way only: with one end under blackhole no exchange can complete.
    for (from, to, verdict) in [("host", "pod", primary), ("pod", "host", peer)] {
        let flows = Family::ALL.map(|family| (from, to, Proto::Udp, family));
        for (family, report) in Family::ALL.into_iter().zip(bench.silences(ctx, flows)) {
            let arrives = report.delivered == report.sent && report.sent > 0;
            let lost = report.tried() && report.silent();
            let ok = if verdict == "forward" { arrives } else { lost };
            ctx.check(format!("{from} to {to} under {verdict} ({family})"), ok, &report);
        }
    }
    if (primary, peer) == ("forward", "forward") {
        bench.passes(ctx, "pod", "host")?;
    }
    Ok(())
}

fn blackhole() -> NetkitOptions {
    NetkitOptions { peer_policy: Some(Policy::Blackhole), ..NetkitOptions::default() }
}

fn program_overrides_blackhole(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = netkit_pair(variant.device(), blackhole())?;
    bench.blocked(ctx, "pod", "host");
    let program = bench.counter(ctx, P0)?;
    let _attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    bench.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)
}

fn blackhole_is_back(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = netkit_pair(variant.device(), blackhole())?;
    let (linked, plain) = (bench.counter(ctx, P0)?, bench.counter(ctx, P0)?);
    let link = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &linked)?;
    let prog = bench.attach_as(ctx, P0, variant.attach(), Direction::FromWorkload, &plain, How::Prog)?;
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    link.detach()?;
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V6);
    prog.detach()?;
    bench.blocked(ctx, "pod", "host");
    Ok(())
}

fn change_policy_live(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = netkit_pair(variant.device(), NetkitOptions::default())?;
    bench.passes(ctx, "pod", "host")?;
    link::change(bench.net.ns("host"), "p0", &blackhole())?;
    bench.blocked(ctx, "pod", "host");
    let forward = NetkitOptions { peer_policy: Some(Policy::Forward), ..NetkitOptions::default() };
    link::change(bench.net.ns("host"), "p0", &forward)?;
    bench.passes(ctx, "pod", "host")?;
    let through_peer = link::change(bench.net.ns("pod"), "eth0", &blackhole());
    ctx.refused("the peer may not change it", through_peer, Errno::EACCES);
    bench.passes(ctx, "pod", "host")
}

fn no_window(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = netkit_pair(variant.device(), blackhole())?;
    let witness = lab_topology::link::stats(bench.net.ns("host"), "p0")?.rx_packets;
    bench.blocked(ctx, "pod", "host");
    let leaked = lab_topology::link::stats(bench.net.ns("host"), "p0")?.rx_packets - witness;
    ctx.equal("packets that the node's end received before attach", leaked, 0);
    let program = bench.counter(ctx, P0)?;
    let _attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    bench.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)
}

fn drop_accounting(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let config = Config { verdict: DROP, ..Config::new(ctx.marker) };
    let program = bench.load(ctx, P0, ProgramKind::Count, config)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let dropped = || link::stats(bench.net.ns("pod"), "eth0").map(|stats| stats.tx_dropped);
    let before = dropped()?;
    let report = bench.silence(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.equal("delivered", report.delivered, 0);
    let counted = dropped()? - before;
    let wanted = if attachment.hook.attach_type() == AttachType::Netkit { u64::from(report.wanted) } else { 0 };
    ctx.equal("tx_dropped of the pod's end", counted, wanted);
    ctx.equal("packets that the program saw", program.stats()?.marked, u64::from(report.wanted));
    Ok(())
}

fn drop_is_enobufs(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let config = Config { verdict: DROP, ..Config::new(ctx.marker) };
    let program = bench.load(ctx, P0, ProgramKind::Count, config)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let native = attachment.hook.attach_type() == AttachType::Netkit;
    let flows = Family::ALL.map(|family| ("pod", "host", Proto::Udp, family));
    for (family, report) in Family::ALL.into_iter().zip(bench.silences(ctx, flows)) {
        ctx.check(format!("dropped ({family})"), report.silent(), &report);
        let wanted = if native { vec![Errno::ENOBUFS as i32; report.wanted as usize] } else { Vec::new() };
        ctx.equal(format!("what the sender hears ({family})"), report.errors, wanted);
    }
    Ok(())
}

fn policy_map(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const UDP: u16 = 17;
    let bench = Bench::pair(variant.device())?;
    let config = Config { host_ifindex: bench.ifindex(P0), ..Config::new(ctx.marker) };
    let mut program = ctx.programs.load(ProgramKind::Policy, &config, &UNTYPED)?;
    let denied = PolicyKey { protocol: UDP, port: ctx.marker };
    program.set_policy(denied, DROP)?;
    let program = Arc::new(program);
    let (from, to) = variant.direction().ends("pod", "host");
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let denied = Family::ALL.map(|family| (from, to, Proto::Udp, family));
    for (family, report) in Family::ALL.into_iter().zip(bench.silences(ctx, denied)) {
        ctx.equal(format!("UDP to the denied port ({family})"), report.delivered, 0);
        for proto in [Proto::Icmp, Proto::Tcp] {
            bench.flow_passes(ctx, from, to, proto, family);
        }
    }
    attachment.detach()?;
    for family in Family::ALL {
        bench.flow_passes(ctx, from, to, Proto::Udp, family);
    }
    Ok(())
}
