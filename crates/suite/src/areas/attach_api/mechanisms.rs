//! Attaching and detaching through every API, and errors of the kernel.

use lab_bpf::{Config, LoadOptions, Mprog, Program, ProgramKind, raw};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    detect::attaches_netkit,
    testbed::{MprogCall, P0, Spot, Testbed},
    variants,
};
use lab_protocol::{AttachType, Capability, Hook, LinkKind};
use lab_topology::library;
use nix::errno::Errno;
use std::{os::fd::AsFd, sync::Arc};

/// The workload's end of its link.
const ETH0: Spot = Spot { node: "pod", dev: "eth0" };
/// The hooks with a multi-program API.
const MPROG_HOOKS: [Hook; 4] = [Hook::TcxIngress, Hook::TcxEgress, Hook::NetkitPrimary, Hook::NetkitPeer];

/// In the order in which they run.
pub const CASES: &[Case] = &[
    CLSACT_FILTER,
    TCX_LINK,
    TCX_PROG,
    NETKIT_LINK,
    NETKIT_PROG,
    ANY_EXPECTED_ATTACH_TYPE,
    OTHER_PROGRAM_TYPE,
    TCX_INSIDE_THE_POD,
    NO_QDISC_ON_NETKIT,
    NO_SUCH_DEVICE,
    NETKIT_ON_ANOTHER_DEVICE,
    INDEX_OF_ANOTHER_NAMESPACE,
    AYA_NEVER_CHOOSES_NETKIT,
];

const CLSACT_FILTER: Case = Case::new(
    "A01",
    "clsact-filter",
    "A clsact filter is listed with its program, runs on every packet of its direction, and on none after its removal.",
    by_link,
)
.on(library::PAIR)
.over(variants::tc_hooks);
const TCX_LINK: Case = Case::new(
    "A02",
    "tcx-link",
    "A tcx link is listed with its program, runs on every packet of its direction, and on none after detaching.",
    by_link,
)
.on(library::PAIR)
.over(variants::tcx_hooks);
const NETKIT_LINK: Case = Case::new(
    "A04",
    "netkit-link",
    "A netkit link is listed on the primary, runs on every packet of its direction, and on none after detaching.",
    by_link,
)
.on(library::PAIR)
.over(variants::netkit_hooks);
fn by_link(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    attach_run_detach(ctx, variant, MprogCall::Link)
}

const TCX_PROG: Case = Case::new(
    "A03",
    "tcx-prog",
    "A program attached to tcx without a link is listed without a link, and runs like one attached by a link.",
    by_prog,
)
.on(library::PAIR)
.over(variants::tcx_hooks);
const NETKIT_PROG: Case = Case::new(
    "A05",
    "netkit-prog",
    "A program attached to netkit without a link is listed without a link, and runs like one attached by a link.",
    by_prog,
)
.on(library::PAIR)
.over(variants::netkit_hooks);
fn by_prog(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    attach_run_detach(ctx, variant, MprogCall::Prog)
}

fn attach_run_detach(ctx: &mut Ctx, variant: &Variant, how: MprogCall) -> CaseResult {
    let testbed = ctx.testbed()?;
    // The first direction uses aya's own loader; the second direction, and all other cases, use the faster one.
    let expected_attach_type = (variant.direction() == Direction::ToWorkload).then_some(0);
    let options = LoadOptions { expected_attach_type, ..LoadOptions::default() };
    let config = Config { host_ifindex: testbed.ifindex(P0), ..Config::new(ctx.marker) };
    let program = Arc::new(ctx.programs.load(ProgramKind::Count, &config, &options)?);
    let attachment = testbed.attach_as(ctx, P0, variant.attach(), variant.direction(), &program, how)?;
    let seen = testbed.find(P0, &program)?;
    ctx.equal("listed on the requested hook", seen.map(|seen| seen.hook), Some(attachment.hook));
    let wants_link = how == MprogCall::Link && attachment.hook.attach_type() != AttachType::Tc;
    ctx.equal("listed with a link", seen.is_some_and(|seen| seen.link_id.is_some()), wants_link);
    if let (MprogCall::Link, Ok(link)) = (how, attachment.link()) {
        let info = link.info()?;
        ctx.equal("attach type in the link's info", info.kind(), Some(attachment.hook.attach_type()));
        ctx.equal("program id in the link's info", info.prog_id, program.id());
    }

    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;

    attachment.detach()?;
    ctx.check("not listed after detaching", testbed.find(P0, &program)?.is_none(), "BPF_PROG_QUERY and filter dump");
    silent(ctx, &testbed, &program)
}

/// Traffic passes without running the program: the flows are the positive control.
fn silent(ctx: &mut Ctx, testbed: &Testbed, program: &Arc<Program>) -> Result<(), Stop> {
    let before = program.stats()?.packets;
    testbed.passes(ctx, "pod", "host")?;
    ctx.equal("packets seen after detaching", program.stats()?.packets - before, 0);
    Ok(())
}

const ANY_EXPECTED_ATTACH_TYPE: Case = Case::new(
    "A06",
    "any-expected-attach-type",
    "No hook checks a program's expected_attach_type: all combinations attach, with and without a link.",
    any_expected_attach_type,
)
.on(library::PAIR)
.over(variants::netkit_devices)
.needs(&[Capability::Tcx]);
fn any_expected_attach_type(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    for hook in MPROG_HOOKS {
        for expected_attach_type in [0, 46, 47, 54, 55] {
            let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, expected_attach_type, 0)?;
            let listed = testbed.run(P0, || {
                let link = lab_bpf::attach_link(hook, ifindex, &program, &Mprog::default())?;
                let listed = lab_bpf::query(hook, ifindex)?.prog_ids() == [program.id()];
                drop(link);
                lab_bpf::attach_prog(hook, ifindex, &program, &Mprog::default())?;
                let also = lab_bpf::query(hook, ifindex)?.prog_ids() == [program.id()];
                lab_bpf::detach_prog(hook, ifindex, Some(program.as_fd()), &Mprog::default())?;
                Ok::<_, lab_bpf::BpfError>(listed && also)
            });
            let name = format!("{hook} accepts expected_attach_type {expected_attach_type}");
            match listed {
                Ok(listed) => ctx.check(name, listed, "listed, by a link and without one"),
                Err(error) => ctx.check(name, false, error),
            };
        }
    }
    Ok(())
}

const OTHER_PROGRAM_TYPE: Case = Case::new(
    "A07",
    "other-program-type",
    "tcx and netkit refuse a program of another type than BPF_PROG_TYPE_SCHED_CLS with EINVAL.",
    other_program_type,
)
.on(library::PAIR)
.over(variants::devices);
fn other_program_type(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    let xdp = raw::minimal(raw::BPF_PROG_TYPE_XDP, 0, 2)?;
    for hook in MPROG_HOOKS {
        let result = testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &xdp, &Mprog::default()));
        ctx.refused(format!("{hook} refuses an XDP program"), result, Errno::EINVAL);
        let result = testbed.run(P0, || lab_bpf::attach_prog(hook, ifindex, &xdp, &Mprog::default()));
        ctx.refused(format!("{hook} refuses an XDP program without a link"), result, Errno::EINVAL);
    }
    Ok(())
}

const TCX_INSIDE_THE_POD: Case = Case::new(
    "A08",
    "tcx-inside-the-pod",
    "The pod can attach tcx programs to its own end of a netkit pair, and netkit programs to neither end.",
    tcx_inside_the_pod,
)
.on(library::PAIR)
.over(variants::netkit_devices)
.needs(&[Capability::Tcx]);
fn tcx_inside_the_pod(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, ETH0)?;
    let ifindex = testbed.ifindex(ETH0);
    for hook in [Hook::NetkitPrimary, Hook::NetkitPeer] {
        let attach = testbed.run(ETH0, || lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default()));
        ctx.refused(format!("{hook} refuses the peer"), attach, Errno::EACCES);
        let query = testbed.run(ETH0, || lab_bpf::query(hook, ifindex));
        ctx.refused(format!("{hook} refuses a query by the peer"), query, Errno::EACCES);
    }
    let link = testbed.run(ETH0, || lab_bpf::attach_link(Hook::TcxEgress, ifindex, &*program, &Mprog::default()))?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)?;
    link.detach()?;
    silent(ctx, &testbed, &program)
}

const NO_QDISC_ON_NETKIT: Case = Case::new(
    "A09",
    "no-qdisc-on-netkit",
    "netkit programs need no qdisc: a netkit device has no clsact while both hooks carry traffic.",
    no_qdisc,
)
.on(library::PAIR)
.over(variants::netkit_native)
.needs(&[Capability::Clsact]);
fn no_qdisc(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let _from = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &from)?;
    let _to = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &to)?;
    testbed.passes(ctx, "pod", "host")?;
    for spot in [P0, ETH0] {
        let ifindex = testbed.ifindex(spot);
        let kinds: Vec<String> = testbed.run(spot, || lab_bpf::qdiscs(ifindex))?.into_iter().map(|q| q.kind).collect();
        ctx.check(
            format!("no clsact on {}", spot.dev),
            !kinds.iter().any(|kind| kind == "clsact"),
            format!("{kinds:?}"),
        );
    }
    let kinds: Vec<String> = {
        let ifindex = testbed.ifindex(P0);
        testbed.run(P0, || {
            lab_bpf::clsact_add(ifindex)?;
            lab_bpf::qdiscs(ifindex)
        })?
    }
    .into_iter()
    .map(|qdisc| qdisc.kind)
    .collect();
    ctx.check("a clsact is listed after it was added", kinds.iter().any(|kind| kind == "clsact"), format!("{kinds:?}"));
    Ok(())
}

const NO_SUCH_DEVICE: Case = Case::new(
    "A10",
    "no-such-device",
    "An index without a device is refused with ENODEV, or with EINVAL if the kernel lacks the hook.",
    no_such_device,
)
.on(library::SOLO);
fn no_such_device(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const NOWHERE: u32 = 4_000;
    let testbed = ctx.testbed()?;
    let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, 0)?;
    let spot = Spot { node: "host", dev: "dummy0" };
    for hook in MPROG_HOOKS {
        let known = match hook.attach_type() {
            AttachType::Netkit => attaches_netkit(&ctx.capabilities)?,
            _ => ctx.capabilities.has(Capability::Tcx),
        };
        let wanted = if known { Errno::ENODEV } else { Errno::EINVAL };
        let result = testbed.run(spot, || lab_bpf::attach_link(hook, NOWHERE, &program, &Mprog::default()));
        ctx.refused(format!("{hook} on index {NOWHERE}"), result, wanted);
    }
    if ctx.capabilities.has(Capability::Tcx) {
        // The dump of filters is empty then.
        let listed = testbed.run(spot, || lab_bpf::observe(NOWHERE));
        ctx.refused(format!("what is attached to index {NOWHERE}"), listed, Errno::ENODEV);
    }
    Ok(())
}

const NETKIT_ON_ANOTHER_DEVICE: Case = Case::new(
    "A11",
    "netkit-on-another-device",
    "netkit's attach types are refused with ENXIO on devices other than netkit.",
    netkit_on_another_device,
)
.on(library::PAIR)
.over(|| vec![Variant { device: Some(LinkKind::Veth), ..Variant::default() }])
.needs(&[Capability::Netkit]);
fn netkit_on_another_device(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    for (device, ifindex) in [("veth", testbed.ifindex(P0)), ("lo", 1)] {
        for hook in [Hook::NetkitPrimary, Hook::NetkitPeer] {
            let result = testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default()));
            ctx.refused(format!("{hook} refuses {device}"), result, Errno::ENXIO);
        }
    }
    Ok(())
}

const INDEX_OF_ANOTHER_NAMESPACE: Case = Case::new(
    "A13",
    "index-of-another-namespace",
    "The primary's index is not valid in the pod: attaching there by the same number never affects the primary.",
    index_of_another_namespace,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn index_of_another_namespace(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.passes(ctx, "pod", "host")?;
    let (ifindex, hook) = (testbed.ifindex(P0), attachment.hook);
    let stranger = testbed.counter(ctx, P0)?;
    // In the pod the index is unused or belongs to the pod's own device, never to the node's.
    let result = testbed.run(ETH0, || lab_bpf::attach_link(hook, ifindex, &*stranger, &Mprog::default()));
    let on_primary = testbed.run(P0, || lab_bpf::query(hook, ifindex))?.prog_ids();
    ctx.equal("programs on the primary", on_primary, vec![program.id()]);
    if testbed.ifindex(ETH0) != ifindex {
        ctx.refused("the pod has no such index", result, Errno::ENODEV);
    }
    Ok(())
}

const AYA_NEVER_CHOOSES_NETKIT: Case = Case::new(
    "A15",
    "aya-never-chooses-netkit",
    "aya's attach uses tcx (clsact below 6.6) also on a netkit device; only reading back shows the attach type used.",
    aya_never_chooses_netkit,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Clsact]);
fn aya_never_chooses_netkit(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (ifindex, programs) = (testbed.ifindex(P0), ctx.programs.clone());
    let config = Config::new(ctx.marker);
    let hook = testbed.run(P0, || {
        // Below 6.6 aya expects to find the qdisc.
        lab_bpf::clsact_add(ifindex)?;
        let direction = lab_bpf::TcDirection::Ingress;
        let attachment = lab_bpf::attach_by_aya(&programs, ProgramKind::Count, &config, P0.dev, direction)?;
        Ok::<_, lab_bpf::BpfError>(lab_bpf::find(ifindex, attachment.prog_id())?.map(|seen| seen.hook))
    })?;
    let tcx = ctx.capabilities.has(Capability::Tcx) && lab_bpf::aya_reads_version();
    let wanted = if tcx { Hook::TcxIngress } else { Hook::ClsactIngress };
    ctx.equal("hook in the kernel's list", hook, Some(wanted));
    Ok(())
}
