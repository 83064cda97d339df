//! Return codes and netkit's default policies.

use lab_bpf::{Config, PolicyKey, ProgramKind};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{MprogCall, P0, Testbed, UNTYPED},
    variants,
};
use lab_netlink::route::link::NetkitPolicy;
use lab_protocol::{AttachType, LinkKind};
use lab_topology::{Family, NetkitOptions, Policy, Template, Topology, library, link};
use lab_traffic::{Proto, SILENCE_WINDOW, UdpProbe, UdpSink};
use nix::errno::Errno;
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

/// `TC_ACT_SHOT`, `TCX_DROP`, `NETKIT_DROP`.
const DROP: i32 = 2;

/// Verdicts to test, with their names in pkt_cls.h.
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

/// In the order in which they run.
pub const CASES: &[Case] = &[
    RETURN_CODES,
    DEFAULT_POLICY,
    PROGRAM_OVERRIDES_BLACKHOLE,
    BLACKHOLE_IS_BACK,
    CHANGE_POLICY_LIVE,
    NO_WINDOW_BEFORE_ATTACH,
    DROP_ACCOUNTING,
    DROP_IS_ENOBUFS,
    POLICY_MAP,
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

const RETURN_CODES: Case = Case::new(
    "V01",
    "return-codes",
    "Of the return codes clsact drops SHOT, STOLEN and TRAP, tcx only SHOT, and netkit all except UNSPEC and OK.",
    return_codes,
)
.on(library::PAIR)
.over(variants::hooks)
.within(30_000);
fn return_codes(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = variant.direction().ends("pod", "host");
    // Each datagram carries the number of its code, so that one window at the end serves all codes.
    let dial = SocketAddr::new(testbed.net.addr(to, Family::V4), ctx.marker);
    let receiver = testbed.net.ns(to).run(|| UdpSocket::bind(dial))?;
    let sender = testbed.net.ns(from).run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let mut wanted = [0; CODES.len()];
    let mut arrived = [0; CODES.len()];
    for (number, (code, name)) in CODES.into_iter().enumerate() {
        let config = Config { verdict: code, ..Config::new(ctx.marker) };
        let program = testbed.load(ctx, P0, ProgramKind::Count, config)?;
        let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
        for _ in 0..SENT {
            sender.send_to(&[number as u8], dial)?;
        }
        let answered = ctx.wait_until(1_000, || Ok(program.stats()?.marked >= SENT as u64))?;
        ctx.require(&format!("{name} ({code}): the program answered"), answered, program.stats()?.marked)?;
        wanted[number] = if drops(attachment.hook.attach_type(), code) { 0 } else { SENT };
        attachment.detach()?;
    }
    let mut buffer = [0; 8];
    let passing: usize = wanted.iter().sum();
    for number in 0..=SENT * CODES.len() {
        // What passes may be late; of what is dropped, nothing comes in the time of a silent flow.
        let patience = if number < passing { ctx.patience(1_000) } else { SILENCE_WINDOW };
        receiver.set_read_timeout(Some(patience))?;
        let Ok(1) = receiver.recv(&mut buffer) else { break };
        if let Some(count) = arrived.get_mut(usize::from(buffer[0])) {
            *count += 1;
        }
    }
    for (((code, name), arrived), wanted) in CODES.into_iter().zip(arrived).zip(wanted) {
        let words = if wanted == 0 { "drops" } else { "passes" };
        ctx.equal(format!("{name} ({code}) {words}"), arrived, wanted);
    }
    // The flow's server needs the port.
    drop(receiver);
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    Ok(())
}

fn pair_under(kind: LinkKind, policy: Policy, peer_policy: Policy) -> Topology {
    let mut topology = library::PAIR.of(kind);
    topology.links[0].netkit =
        NetkitOptions { policy: Some(policy), peer_policy: Some(peer_policy), ..NetkitOptions::default() };
    topology
}

/// The pair of a variant of `default_policy`, whose tag names the primary's policy and the peer's.
fn with_policies(variant: &Variant) -> Template {
    use Policy::{Blackhole, Forward};
    const BOTH_OPEN: Template =
        Template::new("pair-forward-forward", "A pair whose ends both forward without a program.", |kind| {
            pair_under(kind, Forward, Forward)
        });
    const TO_HOST: Template =
        Template::new("pair-blackhole-forward", "A pair whose primary drops without a program.", |kind| {
            pair_under(kind, Blackhole, Forward)
        });
    const TO_POD: Template =
        Template::new("pair-forward-blackhole", "A pair whose peer drops without a program.", |kind| {
            pair_under(kind, Forward, Blackhole)
        });
    const CLOSED: Template =
        Template::new("pair-blackhole-blackhole", "A pair whose ends both drop without a program.", |kind| {
            pair_under(kind, Blackhole, Blackhole)
        });
    match variant.tag {
        Some("forward-blackhole") => TO_POD,
        Some("blackhole-forward") => TO_HOST,
        Some("blackhole-blackhole") => CLOSED,
        _ => BOTH_OPEN,
    }
}

const DEFAULT_POLICY: Case = Case::new(
    "V02",
    "default-policy",
    "Without a program, the policy of each netkit end decides which packets that end transmits.",
    default_policy,
)
.on_each(with_policies)
.over(policy_pairs);
fn default_policy(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (primary, peer) = variant.tag.and_then(|tag| tag.split_once('-')).unwrap_or_default();
    let testbed = ctx.testbed()?;
    // One way only: if one end has the policy blackhole, no exchange can complete.
    for (from, to, verdict) in [("host", "pod", primary), ("pod", "host", peer)] {
        let flows = Family::ALL.map(|family| (from, to, Proto::Udp, family));
        for (family, report) in Family::available().iter().copied().zip(testbed.silences(ctx, flows)) {
            let arrives = report.delivered == report.sent && report.sent > 0;
            let lost = report.lost();
            let ok = if verdict == "forward" { arrives } else { lost };
            ctx.check(format!("{from} to {to} under {verdict} ({family})"), ok, &report);
        }
    }
    if (primary, peer) == ("forward", "forward") {
        testbed.passes(ctx, "pod", "host")?;
    }
    Ok(())
}

fn blackhole() -> NetkitOptions {
    NetkitOptions { peer_policy: Some(Policy::Blackhole), ..NetkitOptions::default() }
}

/// A pod whose packets are dropped until a program is attached.
const PAIR_CLOSED: Template = Template::new(
    "pair-closed",
    "A pair whose peer has the policy blackhole, and whose primary has the default.",
    |kind| {
        let mut topology = library::PAIR.of(kind);
        topology.links[0].netkit = blackhole();
        topology
    },
);

const PROGRAM_OVERRIDES_BLACKHOLE: Case = Case::new(
    "V03",
    "program-overrides-blackhole",
    "With any program attached, even one that returns UNSPEC, a blackhole policy does not apply.",
    program_overrides_blackhole,
)
.on(PAIR_CLOSED)
.over(variants::netkit_native);
fn program_overrides_blackhole(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    testbed.blocked(ctx, "pod", "host");
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)
}

const BLACKHOLE_IS_BACK: Case = Case::new(
    "V04",
    "blackhole-is-back",
    "Under a blackhole policy traffic passes while any program is attached, and stops when the last one is detached.",
    blackhole_is_back,
)
.on(PAIR_CLOSED)
.over(variants::netkit_native);
fn blackhole_is_back(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (linked, plain) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let link = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &linked)?;
    let prog = testbed.attach_as(ctx, P0, variant.attach(), Direction::FromWorkload, &plain, MprogCall::Prog)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    link.detach()?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V6);
    prog.detach()?;
    testbed.blocked(ctx, "pod", "host");
    Ok(())
}

const CHANGE_POLICY_LIVE: Case = Case::new(
    "V05",
    "change-policy-live",
    "The policies of a live pair change through the primary with immediate effect, each alone, not through the peer.",
    change_policy_live,
)
.on(library::PAIR)
.over(variants::netkit_devices);
fn change_policy_live(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    use NetkitPolicy::{Drop, Pass};
    let testbed = ctx.testbed()?;
    testbed.passes(ctx, "pod", "host")?;
    policies_told(ctx, &testbed, "at first", Pass, Pass)?;
    link::change(testbed.net.ns("host"), "p0", &blackhole())?;
    policies_told(ctx, &testbed, "after the peer's was changed", Pass, Drop)?;
    testbed.blocked(ctx, "pod", "host");
    let forward = NetkitOptions { peer_policy: Some(Policy::Forward), ..NetkitOptions::default() };
    link::change(testbed.net.ns("host"), "p0", &forward)?;
    testbed.passes(ctx, "pod", "host")?;
    // The primary's policy is for what the node sends.
    let primary = |policy| NetkitOptions { policy: Some(policy), ..NetkitOptions::default() };
    link::change(testbed.net.ns("host"), "p0", &primary(Policy::Blackhole))?;
    policies_told(ctx, &testbed, "after the primary's was changed", Drop, Pass)?;
    let sent = testbed.silence(ctx, "host", "pod", Proto::Udp, Family::V4);
    ctx.check("the node's packets are dropped", sent.lost(), &sent);
    link::change(testbed.net.ns("host"), "p0", &primary(Policy::Forward))?;
    let both = |policy| NetkitOptions { policy: Some(policy), peer_policy: Some(policy), ..NetkitOptions::default() };
    link::change(testbed.net.ns("host"), "p0", &both(Policy::Blackhole))?;
    policies_told(ctx, &testbed, "after both were changed at once", Drop, Drop)?;
    link::change(testbed.net.ns("host"), "p0", &both(Policy::Forward))?;
    policies_told(ctx, &testbed, "at last", Pass, Pass)?;
    let through_peer = link::change(testbed.net.ns("pod"), "eth0", &blackhole());
    ctx.refused("changing the policy through the peer", through_peer, Errno::EACCES);
    testbed.passes(ctx, "pod", "host")?;
    // netkit_close() leaves the policies. It costs the routes, so that no flow follows.
    link::change(testbed.net.ns("host"), "p0", &both(Policy::Blackhole))?;
    for (node, dev) in [("host", "p0"), ("pod", "eth0")] {
        link::set_down(testbed.net.ns(node), dev)?;
        link::set_up(testbed.net.ns(node), dev)?;
    }
    policies_told(ctx, &testbed, "after both ends were down", Drop, Drop)
}

/// netkit_fill_info(): each end tells its own policy and that of the other end.
fn policies_told(
    ctx: &mut Ctx,
    testbed: &Testbed,
    when: &str,
    primary: NetkitPolicy,
    peer: NetkitPolicy,
) -> Result<(), Stop> {
    for (node, dev, wanted) in [("host", "p0", [primary, peer]), ("pod", "eth0", [peer, primary])] {
        let told = testbed.net.readback(node, dev)?.netkit.unwrap_or_default();
        ctx.equal(format!("policies that {dev} tells {when}"), [told.policy, told.peer_policy], wanted.map(Some));
    }
    Ok(())
}

const NO_WINDOW_BEFORE_ATTACH: Case = Case::new(
    "V06",
    "no-window-before-attach",
    "A pod that starts under a blackhole policy sends nothing before the program is attached, and everything after.",
    no_window,
)
.on(PAIR_CLOSED)
.over(variants::netkit_native);
fn no_window(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let received = || lab_topology::link::stats(testbed.net.ns("host"), "p0").map(|stats| stats.rx_packets);
    let witness = received()?;
    testbed.blocked(ctx, "pod", "host");
    let open = received()?;
    ctx.equal("packets that the node's end received before attach", open - witness, 0);
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)?;
    // The same counter moves once packets arrive: it would have shown one that arrived before.
    let ran = program.stats()?.marked;
    let arrived = received()? - open;
    ctx.check("packets that the node's end received after attach", arrived >= ran, arrived);
    Ok(())
}

const DROP_ACCOUNTING: Case = Case::new(
    "V07",
    "drop-accounting",
    "A netkit drop counts as tx_dropped of the sending end; a clsact or tcx ingress drop does not.",
    drop_accounting,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn drop_accounting(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let config = Config { verdict: DROP, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, P0, ProgramKind::Count, config)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let dropped = || link::stats(testbed.net.ns("pod"), "eth0").map(|stats| stats.tx_dropped);
    let before = dropped()?;
    let report = testbed.silence(ctx, "pod", "host", Proto::Udp, Family::V4);
    ctx.check("dropped", report.lost(), &report);
    let counted = dropped()? - before;
    let wanted = if attachment.hook.attach_type() == AttachType::Netkit { u64::from(report.wanted) } else { 0 };
    ctx.equal("tx_dropped of the pod's end", counted, wanted);
    ctx.becomes("packets that the program counted", report.wanted.into(), || Ok(program.stats()?.marked))?;
    Ok(())
}

const DROP_IS_ENOBUFS: Case = Case::new(
    "V08",
    "drop-is-enobufs",
    "A netkit or egress drop is ENOBUFS for a sender with IP_RECVERR; a clsact or tcx ingress drop is reported as success.",
    drop_is_enobufs,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn drop_is_enobufs(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let config = Config { verdict: DROP, ..Config::new(ctx.marker) };
    let program = testbed.load(ctx, P0, ProgramKind::Count, config)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let native = attachment.hook.attach_type() == AttachType::Netkit;
    let flows = Family::ALL.map(|family| ("pod", "host", Proto::Udp, family));
    for (family, report) in Family::available().iter().copied().zip(testbed.silences(ctx, flows)) {
        ctx.check(format!("dropped ({family})"), report.lost(), &report);
        let wanted = if native { vec![Errno::ENOBUFS as i32; report.wanted as usize] } else { Vec::new() };
        ctx.equal(format!("error of the sender ({family})"), report.errors, wanted);
    }
    attachment.detach()?;
    // To the workload, every hook runs in the sender's call.
    let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &program)?;
    let flows = Family::ALL.map(|family| ("host", "pod", Proto::Udp, family));
    for (family, report) in Family::available().iter().copied().zip(testbed.silences(ctx, flows)) {
        ctx.check(format!("dropped to the workload ({family})"), report.lost(), &report);
        let wanted = vec![Errno::ENOBUFS as i32; report.wanted as usize];
        ctx.equal(format!("error of the sender to the workload ({family})"), report.errors, wanted);
    }
    Ok(())
}

const POLICY_MAP: Case = Case::new(
    "V11",
    "policy-map",
    "Verdicts by policy map: a denied port gets no packets, every other flow passes, and it works again without the rule.",
    policy_map,
)
.on(library::PAIR)
.over(variants::hooks);
fn policy_map(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const UDP: u16 = 17;
    /// Datagrams without the marker: more than the kernel sends of its own meanwhile, since the program counts those too.
    const UNMARKED: u64 = 16;
    let testbed = ctx.testbed()?;
    let config = Config { host_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) };
    let mut program = ctx.programs.load(ProgramKind::Policy, &config, &UNTYPED)?;
    let denied = PolicyKey { protocol: UDP, port: ctx.marker };
    program.set_policy(denied, DROP)?;
    // The map decides for every packet whose ports can be read, marked or not.
    let unmarked = ctx.marker ^ 1;
    program.set_policy(PolicyKey { protocol: UDP, port: unmarked }, DROP)?;
    let program = Arc::new(program);
    let (from, to) = variant.direction().ends("pod", "host");
    let to_unmarked = |family: Family, patience: Duration| {
        let at = SocketAddr::new(testbed.net.addr(to, family), unmarked);
        let sink = UdpSink::bind(testbed.net.ns(to), at)?;
        let probe = UdpProbe::connect(testbed.net.ns(from), at)?;
        for _ in 0..UNMARKED {
            // netkit and egress hooks may report the drop.
            match probe.send(b"unmarked") {
                Err(error) if error.raw_os_error() != Some(Errno::ENOBUFS as i32) => return Err(error),
                _ => {}
            }
        }
        Ok(sink.receive(patience).map(|(bytes, _)| bytes.len()))
    };
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let denied = Family::ALL.map(|family| (from, to, Proto::Udp, family));
    let reports = testbed.silences(ctx, denied);
    // The second witness of the denial: the packets came as far as the program.
    let wanted = reports.iter().map(|report| u64::from(report.wanted)).sum();
    ctx.becomes("packets to the denied port that the program saw", wanted, || Ok(program.stats()?.marked))?;
    for (family, report) in Family::available().iter().copied().zip(reports) {
        ctx.check(format!("UDP to the denied port is dropped ({family})"), report.lost(), &report);
        for proto in [Proto::Icmp, Proto::Tcp] {
            testbed.flow_passes(ctx, from, to, proto, family);
        }
        let seen = program.stats()?.packets;
        let arrived = to_unmarked(family, SILENCE_WINDOW)?;
        let reached = ctx.wait_until(1_000, || Ok(program.stats()?.packets - seen >= UNMARKED))?;
        ctx.check(format!("the program saw the packets without the marker ({family})"), reached, seen);
        ctx.equal(format!("bytes to a denied port without the marker ({family})"), arrived, None);
    }
    attachment.detach()?;
    for family in Family::available().iter().copied() {
        testbed.flow_passes(ctx, from, to, Proto::Udp, family);
        let arrived = to_unmarked(family, ctx.patience(2_000))?;
        ctx.equal(format!("bytes to the same port without the program ({family})"), arrived, Some(8));
    }
    Ok(())
}
