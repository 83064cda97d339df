//! Deletion: which objects are deleted together, under traffic and from several sides at once, and that nothing is
//! left.
//!
//! A splat during a cell fails it: the host reads the console.

use crate::areas::links::pins::pin_path;
use lab_bpf::{BpfLink, Config, Mprog, PolicyKey, ProgArray, ProgramKind, TcOptions, raw};
use lab_harness::leaks::Inventory;
use lab_harness::{
    PINS,
    case::{Case, CaseResult, Direction, Variant},
    ctx::{AsErrno, Ctx},
    flows,
    testbed::{self, P0, P1, Spot},
    variants,
};
use lab_protocol::{AttachRequest, Capability, Hook};
use lab_topology::{Family, Netns, PairRequest, library, link};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::{fs, path::Path, time::Duration};

/// Maximum time for the kernel to free objects, milliseconds on a fast guest.
const SETTLE_MS: u64 = 2_000;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    NOTHING_LEFT,
    POD_GONE_WITH_EVERYTHING_ATTACHED,
    AGAIN_AND_AGAIN,
    DELETED_IN_FLIGHT,
    BOTH_ENDS_AT_ONCE,
    CLSACT_UNDER_TCX,
    ALTERNATIVE_NAMES,
];

fn ends() -> Vec<Variant> {
    const ENDS: [&str; 2] = ["primary", "peer"];
    variants::link_mechanisms()
        .into_iter()
        .flat_map(|variant| ENDS.map(|end| Variant { tag: Some(end), ..variant }))
        .collect()
}

fn settled(ctx: &mut Ctx, what: &str, before: &Inventory) {
    let left = before.settled(Path::new(PINS), ctx.patience(SETTLE_MS));
    let ok = left.is_ok();
    ctx.check(what, ok, left.map_or_else(|error| error.to_string(), |_| "nothing left".to_owned()));
}

const NOTHING_LEFT: Case = Case::new(
    "X01",
    "nothing-left",
    "The programs, maps, links and pins of a node are counted while they exist, and none remains after teardown.",
    nothing_left,
)
.on(library::PODS)
.over(variants::mechanisms);
fn nothing_left(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let before = Inventory::take(Path::new(PINS))?;
    {
        let testbed = ctx.testbed()?;
        let path = pin_path(ctx, "node");
        let config = Config { host_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) };
        let mut policy = ctx.programs.load(ProgramKind::Policy, &config, &testbed::UNTYPED)?;
        policy.set_policy(PolicyKey { protocol: 17, port: ctx.marker }, 0)?;
        let policy = std::sync::Arc::new(policy);
        let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &policy)?;
        let other = testbed.counter(ctx, P1)?;
        let _other = testbed.attach(ctx, P1, variant.attach(), Direction::ToWorkload, &other)?;
        let jump = ProgArray::create(1)?;
        jump.pin(&path)?;
        testbed.flow_passes(ctx, "w0", "w1", Proto::Udp, Family::V4);
        let seen =
            before.settled(Path::new(PINS), Duration::ZERO).map_or_else(|error| error.to_string(), |_| String::new());
        let mut kinds = vec!["program", "map", "pin"];
        if attachment.link().is_ok() {
            kinds.push("link");
        }
        for kind in kinds {
            ctx.check(format!("an existing {kind} is counted"), seen.contains(kind), &seen);
        }
        fs::remove_file(&path)?;
        ctx.ask_programs();
    }
    settled(ctx, "after teardown", &before);
    Ok(())
}

const POD_GONE_WITH_EVERYTHING_ATTACHED: Case = Case::new(
    "X02",
    "pod-gone-with-everything-attached",
    "Deleting the pod's namespace also deletes the node's end, with filters, programs and links on both ends.",
    pod_gone,
)
.over(variants::devices)
.needs(&[Capability::Clsact]);
fn pod_gone(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let host = Netns::new("host")?;
    let pod = Netns::new("pod")?;
    let request = PairRequest { peer_netns: Some(pod.fd()), ..PairRequest::new(variant.device(), P0.dev, "eth0") };
    link::create_pair(&host, &request)?;
    let (primary, peer) = (link::info(&host, P0.dev)?.ifindex, link::info(&pod, "eth0")?.ifindex);
    let program = || raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, -1);
    for (ns, ifindex) in [(&host, primary), (&pod, peer)] {
        for direction in [lab_bpf::TcDirection::Ingress, lab_bpf::TcDirection::Egress] {
            let filter = program()?;
            ns.run(|| lab_bpf::attach_tc(ifindex, direction, &filter, TcOptions::default()))?;
        }
    }
    let mut hooks = Vec::new();
    if ctx.capabilities.has(Capability::Tcx) {
        hooks.extend([(&host, primary, Hook::TcxIngress), (&host, primary, Hook::TcxEgress)]);
        hooks.extend([(&pod, peer, Hook::TcxIngress), (&pod, peer, Hook::TcxEgress)]);
    }
    if variant.device().is_netkit() {
        hooks.extend([(&host, primary, Hook::NetkitPrimary), (&host, primary, Hook::NetkitPeer)]);
    }
    let on_host = hooks.iter().filter(|(ns, ..)| std::ptr::eq(*ns, &host)).count();
    let mut links: Vec<(Hook, BpfLink)> = Vec::new();
    for (ns, ifindex, hook) in hooks {
        let (linked, plain) = (program()?, program()?);
        links.push((hook, ns.run(|| lab_bpf::attach_link(hook, ifindex, &linked, &Mprog::default()))?));
        ns.run(|| lab_bpf::attach_prog(hook, ifindex, &plain, &Mprog::default()))?;
    }
    // Two filters, and a link and a plain program on each hook.
    let listed = host.run(|| lab_bpf::observe(primary))?.len();
    ctx.equal("programs on the node's end", listed, 2 + 2 * on_host);
    drop(pod);
    let is_gone = || link::info(&host, P0.dev).is_err_and(|error| AsErrno::errno(&error) == Some(Errno::ENODEV));
    let gone = ctx.wait_until(SETTLE_MS, || Ok(is_gone()))?;
    ctx.check("the node's end is deleted", gone, "RTM_GETLINK");
    for (hook, link) in &links {
        let orphaned = ctx.wait_until(SETTLE_MS, || Ok(link.info()?.ifindex == 0))?;
        ctx.check(format!("the link of {hook} has no device"), orphaned, format!("{:?}", link.info()?));
    }
    Ok(())
}

const AGAIN_AND_AGAIN: Case = Case::new(
    "X03",
    "again-and-again",
    "Creating, attaching, using and deleting repeatedly does not change the kernel's counts.",
    again_and_again,
)
.on(library::PAIR)
.over(variants::link_mechanisms)
.within(30_000);
fn again_and_again(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ROUNDS: usize = 6;
    // Reported once, because the following rounds are equal.
    let reported = ctx.testbed()?;
    let program = reported.counter(ctx, P0)?;
    let attachment = reported.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    reported.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let hook = attachment.hook;
    let before = Inventory::take(Path::new(PINS))?;
    for _ in 0..ROUNDS {
        let testbed = ctx.testbed()?;
        let program = testbed.counter(ctx, P0)?;
        let ifindex = testbed.ifindex(P0);
        let _link = testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default()))?;
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        let seen = program.stats()?.marked;
        ctx.check("the program ran in this round", seen > 0, seen);
    }
    settled(ctx, "after all rounds", &before);
    Ok(())
}

const DELETED_IN_FLIGHT: Case = Case::new(
    "X04",
    "deleted-in-flight",
    "Deleting either end under traffic both ways ends the traffic with errors for the senders and detaches the link.",
    deleted_in_flight,
)
.on(library::PAIR)
.over(ends);
fn deleted_in_flight(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let streams = [("pod", "host", Family::V4), ("host", "pod", Family::V6)];
    let streams = streams.map(|(from, to, family)| testbed.stream(ctx, from, to, family));
    let [out, into] = streams;
    let (out, into) = (out?, into?);
    for stream in [&out, &into] {
        let flows = stream.wait_received(3, ctx.patience(3_000));
        ctx.require("the stream is received", flows, flows)?;
    }
    match variant.tag {
        Some("peer") => link::delete(testbed.net.ns("pod"), "eth0")?,
        _ => link::delete(testbed.net.ns("host"), P0.dev)?,
    }
    for (name, stream) in [("out of the pod", out), ("into the pod", into)] {
        let silent = flows::falls_silent(&stream);
        ctx.check(format!("nothing arrives {name} after deletion"), silent, silent);
        ctx.wait_until(2_000, || Ok(stream.refused() > 0))?;
        let report = stream.stop(Duration::ZERO);
        let unreachable = report.send_errors.contains(&(Errno::ENETUNREACH as i32));
        ctx.check(format!("the sender {name} gets an error"), unreachable, format!("{:?}", report.send_errors.last()));
    }
    let orphaned = ctx.wait_until(SETTLE_MS, || Ok(attachment.link()?.info()?.ifindex == 0))?;
    ctx.check("the link has no device", orphaned, format!("{:?}", attachment.link()?.info()?));
    Ok(())
}

const BOTH_ENDS_AT_ONCE: Case = Case::new(
    "X05",
    "both-ends-at-once",
    "Deleting both ends at the same time from their two namespaces deletes both, and neither caller hangs.",
    both_ends_at_once,
)
.on(library::PAIR)
.over(variants::devices);
fn both_ends_at_once(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let spots = [P0, Spot { node: "pod", dev: "eth0" }];
    let start = std::sync::Barrier::new(spots.len());
    let results = std::thread::scope(|scope| {
        let threads = spots.map(|spot| {
            let (testbed, start) = (&testbed, &start);
            scope.spawn(move || {
                start.wait();
                link::delete(testbed.net.ns(spot.node), spot.dev)
            })
        });
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let errnos: Vec<Option<Errno>> =
        results.iter().map(|result| result.as_ref().err().and_then(AsErrno::errno)).collect();
    ctx.check("at least one deletion succeeds", results.iter().any(Result::is_ok), format!("{errnos:?}"));
    let late = errnos.iter().flatten().all(|errno| *errno == Errno::ENODEV);
    ctx.check("the other deletion succeeds or finds no device", late, format!("{errnos:?}"));
    for spot in spots {
        ctx.refused(format!("{} is gone", spot.dev), link::info(testbed.net.ns(spot.node), spot.dev), Errno::ENODEV);
    }
    Ok(())
}

const CLSACT_UNDER_TCX: Case = Case::new(
    "X06",
    "clsact-under-tcx",
    "Adding and deleting clsact repeatedly leaves the tcx programs of the device attached and running.",
    clsact_under_tcx,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
fn clsact_under_tcx(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROUNDS: usize = 20;
    let testbed = ctx.testbed()?;
    let (from, to) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let _from = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &from)?;
    let _to = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::ToWorkload, &to)?;
    let before = testbed.observe(P0)?;
    let ifindex = testbed.ifindex(P0);
    let filter = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, -1)?;
    testbed.run(P0, || {
        for round in 0..ROUNDS {
            // In every second round with a filter, which is deleted with the qdisc.
            match round % 2 {
                0 => lab_bpf::clsact_add(ifindex).map(drop)?,
                _ => {
                    let direction = lab_bpf::TcDirection::Ingress;
                    lab_bpf::attach_tc(ifindex, direction, &filter, TcOptions::default()).map(drop)?;
                }
            }
            lab_bpf::clsact_del(ifindex)?;
        }
        Ok::<_, lab_bpf::BpfError>(())
    })?;
    ctx.equal("attached programs", testbed.observe(P0)?, before);
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &from)?;
    ctx.check("the program of the other direction ran", to.stats()?.marked > 0, to.stats()?.marked);
    Ok(())
}

const ALTERNATIVE_NAMES: Case = Case::new(
    "X11",
    "alternative-names",
    "Alternative names go with a device into another namespace, and are free again when its namespace or its other end is deleted.",
    alternative_names,
)
.over(variants::devices);
fn alternative_names(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const NAMES: [&str; 2] = ["workload-of-somebody", "another-name-of-the-same-device"];
    let (host, pod) = (Netns::new("host")?, Netns::new("pod")?);
    link::create_pair(&host, &PairRequest::new(variant.device(), P0.dev, "eth0"))?;
    for name in NAMES {
        link::add_altname(&host, "eth0", name)?;
        ctx.refused(format!("{name} for the other end"), link::add_altname(&host, P0.dev, name), Errno::EEXIST);
    }
    link::move_to(&host, "eth0", &pod)?;
    for name in NAMES {
        ctx.refused(format!("{name} where the device was"), link::info_by_altname(&host, name), Errno::ENODEV);
        let there = link::info_by_altname(&pod, name)?.name;
        ctx.equal(format!("device of {name} where it is"), &*there, "eth0");
        link::add_altname(&host, P0.dev, name)?;
    }
    drop(pod);
    let gone = |name: &str| {
        let found = link::info_by_altname(&host, name);
        found.is_err_and(|error| AsErrno::errno(&error) == Some(Errno::ENODEV))
    };
    for name in NAMES {
        ctx.becomes(format!("{name} after the pod is deleted"), true, || Ok(gone(name)))?;
    }
    link::create_pair(&host, &PairRequest::new(variant.device(), P0.dev, "eth0"))?;
    for name in NAMES {
        let again = link::add_altname(&host, P0.dev, name);
        ctx.check(format!("{name} for a new device"), again.is_ok(), format!("{again:?}"));
    }
    Ok(())
}
