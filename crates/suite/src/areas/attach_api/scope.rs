//! The namespace in which an index is valid, and many devices at once.

use lab_bpf::{BpfError, Mprog, Observed, TcOptions, raw, raw::RawProgram};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::Ctx,
    testbed::{self, P0, Testbed, hook},
    variants,
};
use lab_protocol::{AttachRequest, AttachType, Hook, LinkKind};
use lab_topology::{Family, Netns, PairRequest, library, link};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::{
    sync::Barrier,
    time::{Duration, Instant},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[NETKIT_PEER_AS_TARGET, EQUAL_INDEXES_IN_TWO_NAMESPACES, THIRTY_TWO_PODS];

/// The attach type that a datapath takes on each generation of kernels.
fn busy_nodes() -> Vec<Variant> {
    [
        (AttachRequest::Tc, LinkKind::Veth),
        (AttachRequest::Tcx, LinkKind::Veth),
        (AttachRequest::Netkit, LinkKind::NetkitL3),
    ]
    .map(|(attach, device)| Variant { attach: Some(attach), device: Some(device), ..Variant::default() })
    .to_vec()
}

fn next() -> Result<RawProgram, BpfError> {
    raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, -1)
}

const NETKIT_PEER_AS_TARGET: Case = Case::new(
    "A12",
    "netkit-peer-as-target",
    "Attaching to the peer and querying it fail with EACCES even if the peer is in the caller's namespace.",
    peer_as_target,
)
.over(variants::netkit_devices);
fn peer_as_target(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let ns = Netns::new("host")?;
    link::create_pair(&ns, &PairRequest::new(variant.device(), "nk0", "nk1"))?;
    let (primary, peer) = (link::info(&ns, "nk0")?.ifindex, link::info(&ns, "nk1")?.ifindex);
    let program = next()?;
    for hook in [Hook::NetkitPrimary, Hook::NetkitPeer] {
        let link = ns.run(|| lab_bpf::attach_link(hook, peer, &program, &Mprog::default()));
        ctx.refused(format!("a link to {hook} by the peer's index"), link, Errno::EACCES);
        let prog = ns.run(|| lab_bpf::attach_prog(hook, peer, &program, &Mprog::default()));
        ctx.refused(format!("a program to {hook} by the peer's index"), prog, Errno::EACCES);
        ctx.refused(
            format!("a query of {hook} by the peer's index"),
            ns.run(|| lab_bpf::query(hook, peer)),
            Errno::EACCES,
        );
        let link = ns.run(|| lab_bpf::attach_link(hook, primary, &program, &Mprog::default()))?;
        let listed = ns.run(|| lab_bpf::query(hook, primary))?.prog_ids();
        ctx.equal(format!("{hook} by the primary's index"), listed, vec![program.id()]);
        drop(link);
    }
    Ok(())
}

/// Attaches, passes the kernel's list of the device's programs to `look`, and detaches.
fn attached<R>(hook: Hook, ifindex: u32, look: impl FnOnce(u32, Vec<Observed>) -> R) -> Result<R, BpfError> {
    let program = next()?;
    let direction = match hook {
        Hook::ClsactIngress => lab_bpf::TcDirection::Ingress,
        Hook::ClsactEgress => lab_bpf::TcDirection::Egress,
        _ => {
            let _link = lab_bpf::attach_link(hook, ifindex, &program, &Mprog::default())?;
            return Ok(look(program.id(), lab_bpf::observe(ifindex)?));
        }
    };
    let filter = lab_bpf::attach_tc(ifindex, direction, &program, TcOptions::default())?;
    let seen = look(program.id(), lab_bpf::observe(ifindex)?);
    filter.detach()?;
    Ok(seen)
}

/// Whether the program is the only one on its hook.
fn alone(hook: Hook, prog_id: u32, listed: &[Observed]) -> bool {
    matches!(listed, [only] if only.hook == hook && only.prog_id == prog_id)
}

const EQUAL_INDEXES_IN_TWO_NAMESPACES: Case = Case::new(
    "A14",
    "equal-indexes-in-two-namespaces",
    "Threads in two namespaces attach to equal indexes at the same time, and each finds only its own program.",
    equal_indexes,
)
.on(library::PAIR)
.over(variants::mechanisms);
fn equal_indexes(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const ROUNDS: usize = 6;
    let testbeds = [ctx.testbed()?, ctx.testbed()?];
    ctx.equal("the second device's index", testbeds[1].ifindex(P0), testbeds[0].ifindex(P0));
    let hook = hook(attach_type(variant), Direction::FromWorkload);
    let start = Barrier::new(testbeds.len());
    let rounds = |testbed: &Testbed| {
        let ifindex = testbed.ifindex(P0);
        testbed.run(P0, || {
            start.wait();
            (0..ROUNDS)
                .map(|_| attached(hook, ifindex, |id, listed| alone(hook, id, &listed)))
                .collect::<Result<Vec<bool>, _>>()
        })
    };
    let results = std::thread::scope(|scope| {
        let threads = testbeds.each_ref().map(|testbed| scope.spawn(|| rounds(testbed)));
        threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    for (result, name) in results.into_iter().zip(["first", "second"]) {
        let clean = result?.into_iter().filter(|clean| *clean).count();
        ctx.equal(format!("rounds in which the {name} namespace listed only its own program"), clean, ROUNDS);
    }
    for testbed in &testbeds {
        let program = testbed.counter(ctx, P0)?;
        let _attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    }
    Ok(())
}

fn attach_type(variant: &Variant) -> AttachType {
    match variant.attach() {
        AttachRequest::Netkit => AttachType::Netkit,
        AttachRequest::Tcx => AttachType::Tcx,
        AttachRequest::Tc | AttachRequest::Auto => AttachType::Tc,
    }
}

const THIRTY_TWO_PODS: Case = Case::new(
    "A16",
    "thirty-two-pods",
    "Four threads attach to thirty-two pairs, and each pair lists exactly its own program.",
    thirty_two_pods,
)
.over(busy_nodes)
.within(30_000);
fn thirty_two_pods(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const PODS: usize = 32;
    const THREADS: usize = 4;
    let ns = Netns::new("host")?;
    let kind = variant.device();
    let mut indexes = Vec::new();
    for number in 0..PODS {
        let name = format!("p{number}");
        link::create_pair(&ns, &PairRequest::new(kind, &name, &format!("e{number}")))?;
        indexes.push(link::info(&ns, &name)?.ifindex);
    }
    let hook = hook(attach_type(variant), Direction::FromWorkload);
    let started = Instant::now();
    let exact: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = indexes
            .chunks(PODS / THREADS)
            .map(|share| {
                let ns = &ns;
                scope.spawn(move || {
                    ns.run(|| {
                        share
                            .iter()
                            .map(|&index| attached(hook, index, |id, listed| alone(hook, id, &listed)))
                            .collect::<Result<Vec<bool>, _>>()
                    })
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .try_fold(0, |sum, share| Ok::<_, BpfError>(sum + share?.iter().filter(|exact| **exact).count()))
    })?;
    let took: Duration = started.elapsed();
    ctx.metric("attach.ms_per_pod", took.as_secs_f64() * 1e3 / PODS as f64);
    ctx.equal("devices that listed exactly their own program", exact, PODS);
    // One attachment is kept for the report; the others were detached by their threads.
    let program = next()?;
    let (first, attach) = (indexes[0], variant.attach());
    let kept = ns.run(|| match hook {
        Hook::ClsactIngress => {
            lab_bpf::attach_tc(first, lab_bpf::TcDirection::Ingress, &program, TcOptions::default()).map(|_| None)
        }
        _ => lab_bpf::attach_link(hook, first, &program, &Mprog::default()).map(Some),
    })?;
    let record = testbed::record(&ns, "p0", attach, program.id())?;
    ctx.report_attachment(record, None);
    drop(kept);
    Ok(())
}
