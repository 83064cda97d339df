//! Attaching and detaching through every API, and what the kernel refuses.

use crate::{
    bench::{Bench, How, P0, Spot},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_bpf::{Config, LoadOptions, Mprog, Program, ProgramKind, raw};
use lab_protocol::{AttachType, Capability, Hook, LinkKind};
use nix::errno::Errno;
use std::sync::Arc;

/// The workload's own end of its link.
const ETH0: Spot = Spot { node: "pod", dev: "eth0" };
/// The hooks with a multi-program API.
const MPROG_HOOKS: [Hook; 4] = [Hook::TcxIngress, Hook::TcxEgress, Hook::NetkitPrimary, Hook::NetkitPeer];

pub const CASES: &[Case] = &[
    Case::new(
        "A01",
        "clsact-filter",
        Area::AttachApi,
        "pair",
        "A clsact filter is listed with its program, sees every packet of its direction, and none after its removal.",
        by_link,
    )
    .over(variants::tc_hooks),
    Case::new(
        "A02",
        "tcx-link",
        Area::AttachApi,
        "pair",
        "A tcx link is listed with its program, sees every packet of its direction, and none after detaching.",
        by_link,
    )
    .over(variants::tcx_hooks),
    Case::new(
        "A03",
        "tcx-prog",
        Area::AttachApi,
        "pair",
        "A program attached to tcx without a link is listed without one, and behaves like a link's.",
        by_prog,
    )
    .over(variants::tcx_hooks),
    Case::new(
        "A04",
        "netkit-link",
        Area::AttachApi,
        "pair",
        "A netkit link is listed on the primary, sees every packet of its direction, and none after detaching.",
        by_link,
    )
    .over(variants::netkit_hooks),
    Case::new(
        "A05",
        "netkit-prog",
        Area::AttachApi,
        "pair",
        "A program attached to netkit without a link is listed without one, and behaves like a link's.",
        by_prog,
    )
    .over(variants::netkit_hooks),
    Case::new(
        "A06",
        "any-expected-attach-type",
        Area::AttachApi,
        "pair",
        "No hook compares a program's expected_attach_type: all combinations attach (bpf_prog_attach_check_attach_type).",
        any_expected_attach_type,
    )
    .over(variants::netkit_devices)
    .needs(&[Capability::Tcx]),
    Case::new(
        "A07",
        "other-program-type",
        Area::AttachApi,
        "pair",
        "tcx and netkit refuse a program of another type than BPF_PROG_TYPE_SCHED_CLS with EINVAL.",
        other_program_type,
    )
    .over(variants::devices),
    Case::new(
        "A08",
        "tcx-inside-the-pod",
        Area::AttachApi,
        "pair",
        "The pod may put tcx on its own end of a netkit pair, and native programs on neither end.",
        tcx_inside_the_pod,
    )
    .over(variants::netkit_devices)
    .needs(&[Capability::Tcx]),
    Case::new(
        "A09",
        "no-qdisc-on-netkit",
        Area::AttachApi,
        "pair",
        "Native programs need no qdisc: a netkit device stays without clsact while both hooks carry traffic.",
        no_qdisc,
    )
    .over(variants::netkit_native)
    .needs(&[Capability::Clsact]),
    Case::new(
        "A10",
        "no-such-device",
        Area::AttachApi,
        "solo",
        "An index that no device has is refused with ENODEV, or EINVAL where the kernel lacks the hook.",
        no_such_device,
    ),
    Case::new(
        "A11",
        "netkit-on-another-device",
        Area::AttachApi,
        "pair",
        "Netkit's attach types are refused with ENXIO on a device that is not netkit's.",
        netkit_on_another_device,
    )
    .over(|| vec![Variant { device: Some(LinkKind::Veth), ..Variant::default() }])
    .needs(&[Capability::Netkit]),
    Case::new(
        "A13",
        "index-of-another-namespace",
        Area::AttachApi,
        "pair",
        "The primary's index means nothing in the pod: attaching there by the same number never touches the primary.",
        index_of_another_namespace,
    )
    .over(variants::link_mechanisms),
    Case::new(
        "A15",
        "aya-never-chooses-netkit",
        Area::AttachApi,
        "pair",
        "aya's own attach takes tcx (clsact below 6.6) also on a netkit device: only a read-back shows it.",
        aya_never_chooses_netkit,
    )
    .over(variants::devices)
    .needs(&[Capability::Clsact]),
];

fn by_link(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    attach_run_detach(ctx, variant, How::Link)
}

fn by_prog(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    attach_run_detach(ctx, variant, How::Prog)
}

fn attach_run_detach(ctx: &mut Ctx, variant: &Variant, how: How) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    // Through aya's own loader one way; the other way, and all other cases, take the quicker one.
    let expected_attach_type = (variant.direction() == Direction::ToWorkload).then_some(0);
    let options = LoadOptions { expected_attach_type, ..LoadOptions::default() };
    let config = Config { host_ifindex: bench.ifindex(P0), ..Config::new(ctx.marker) };
    let program = Arc::new(ctx.programs.load(ProgramKind::Count, &config, &options)?);
    let attachment = bench.attach_as(ctx, P0, variant.attach(), variant.direction(), &program, how)?;
    let seen = bench.find(P0, &program)?;
    ctx.equal("listed on the asked hook", seen.map(|seen| seen.hook), Some(attachment.hook));
    let wants_link = how == How::Link && attachment.hook.attach_type() != AttachType::Tc;
    ctx.equal("listed with a link", seen.is_some_and(|seen| seen.link_id.is_some()), wants_link);
    if let (How::Link, Ok(link)) = (how, attachment.link()) {
        let info = link.info()?;
        ctx.equal("the link names its kind", info.kind(), Some(attachment.hook.attach_type()));
        ctx.equal("the link names its program", info.prog_id, program.id());
    }

    bench.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;

    attachment.detach()?;
    ctx.check("listed nowhere after detaching", bench.find(P0, &program)?.is_none(), "BPF_PROG_QUERY and filter dump");
    silent(ctx, &bench, &program)
}

/// Traffic passes, and the program sees none of it: the flows are the positive control.
fn silent(ctx: &mut Ctx, bench: &Bench, program: &Arc<Program>) -> Result<(), Stop> {
    let before = program.stats()?.packets;
    bench.passes(ctx, "pod", "host")?;
    ctx.equal("packets seen after detaching", program.stats()?.packets - before, 0);
    Ok(())
}

fn any_expected_attach_type(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let ifindex = bench.ifindex(P0);
    for hook in MPROG_HOOKS {
        for expected_attach_type in [0, 46, 47, 54, 55] {
            let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, expected_attach_type, 0)?;
            let listed = bench.run(P0, || {
                let link = lab_bpf::attach_link(hook, ifindex, &program, &Mprog::default())?;
                let listed = lab_bpf::query(hook, ifindex)?.prog_ids() == [program.id()];
                drop(link);
                Ok::<_, lab_bpf::BpfError>(listed)
            });
            let name = format!("{hook} takes expected_attach_type {expected_attach_type}");
            match listed {
                Ok(listed) => ctx.check(name, listed, "listed"),
                Err(error) => ctx.check(name, false, error),
            };
        }
    }
    Ok(())
}

fn other_program_type(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let ifindex = bench.ifindex(P0);
    let xdp = raw::minimal(raw::BPF_PROG_TYPE_XDP, 0, 2)?;
    for hook in MPROG_HOOKS {
        let result = bench.run(P0, || lab_bpf::attach_link(hook, ifindex, &xdp, &Mprog::default()));
        ctx.refused(format!("{hook} refuses an XDP program"), result, Errno::EINVAL);
        let result = bench.run(P0, || lab_bpf::attach_prog(hook, ifindex, &xdp, &Mprog::default()));
        ctx.refused(format!("{hook} refuses an XDP program without a link"), result, Errno::EINVAL);
    }
    Ok(())
}

fn tcx_inside_the_pod(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, ETH0)?;
    let ifindex = bench.ifindex(ETH0);
    for hook in [Hook::NetkitPrimary, Hook::NetkitPeer] {
        let attach = bench.run(ETH0, || lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default()));
        ctx.refused(format!("{hook} refuses the peer"), attach, Errno::EACCES);
        let query = bench.run(ETH0, || lab_bpf::query(hook, ifindex));
        ctx.refused(format!("{hook} does not answer the peer"), query, Errno::EACCES);
    }
    let link = bench.run(ETH0, || lab_bpf::attach_link(Hook::TcxEgress, ifindex, &*program, &Mprog::default()))?;
    bench.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)?;
    link.detach()?;
    silent(ctx, &bench, &program)
}

fn no_qdisc(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (from, to) = (bench.counter(ctx, P0)?, bench.counter(ctx, P0)?);
    let _from = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &from)?;
    let _to = bench.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &to)?;
    bench.passes(ctx, "pod", "host")?;
    for spot in [P0, ETH0] {
        let ifindex = bench.ifindex(spot);
        let kinds: Vec<String> = bench.run(spot, || lab_bpf::qdiscs(ifindex))?.into_iter().map(|q| q.kind).collect();
        ctx.check(
            format!("no clsact on {}", spot.dev),
            !kinds.iter().any(|kind| kind == "clsact"),
            format!("{kinds:?}"),
        );
    }
    let kinds: Vec<String> = {
        let ifindex = bench.ifindex(P0);
        bench.run(P0, || {
            lab_bpf::clsact_add(ifindex)?;
            lab_bpf::qdiscs(ifindex)
        })?
    }
    .into_iter()
    .map(|qdisc| qdisc.kind)
    .collect();
    ctx.check("a clsact would show", kinds.iter().any(|kind| kind == "clsact"), format!("{kinds:?}"));
    Ok(())
}

fn no_such_device(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const NOWHERE: u32 = 4_000;
    let bench = Bench::build(&lab_topology::library::solo())?;
    let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, 0)?;
    let spot = Spot { node: "host", dev: "dummy0" };
    for hook in MPROG_HOOKS {
        let known = match hook.attach_type() {
            AttachType::Netkit => ctx.capabilities.has(Capability::Netkit),
            _ => ctx.capabilities.has(Capability::Tcx),
        };
        let wanted = if known { Errno::ENODEV } else { Errno::EINVAL };
        let result = bench.run(spot, || lab_bpf::attach_link(hook, NOWHERE, &program, &Mprog::default()));
        ctx.refused(format!("{hook} on index {NOWHERE}"), result, wanted);
    }
    Ok(())
}

fn netkit_on_another_device(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    for (device, ifindex) in [("veth", bench.ifindex(P0)), ("lo", 1)] {
        for hook in [Hook::NetkitPrimary, Hook::NetkitPeer] {
            let result = bench.run(P0, || lab_bpf::attach_link(hook, ifindex, &*program, &Mprog::default()));
            ctx.refused(format!("{hook} refuses {device}"), result, Errno::ENXIO);
        }
    }
    Ok(())
}

fn index_of_another_namespace(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    bench.passes(ctx, "pod", "host")?;
    let (ifindex, hook) = (bench.ifindex(P0), attachment.hook);
    let stranger = bench.counter(ctx, P0)?;
    // In the pod the number is free, or it is the pod's own device; never the node's.
    let result = bench.run(ETH0, || lab_bpf::attach_link(hook, ifindex, &*stranger, &Mprog::default()));
    let on_primary = bench.run(P0, || lab_bpf::query(hook, ifindex))?.prog_ids();
    ctx.equal("programs on the primary", on_primary, vec![program.id()]);
    if bench.ifindex(ETH0) != ifindex {
        ctx.refused("the pod has no such index", result, Errno::ENODEV);
    }
    Ok(())
}

fn aya_never_chooses_netkit(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (ifindex, programs) = (bench.ifindex(P0), ctx.programs.clone());
    let config = Config::new(ctx.marker);
    let hook = bench.run(P0, || {
        // Below 6.6 aya expects to find the qdisc.
        lab_bpf::clsact_add(ifindex)?;
        let direction = lab_bpf::Direction::Ingress;
        let attachment = lab_bpf::attach_by_aya(&programs, ProgramKind::Count, &config, P0.dev, direction)?;
        Ok::<_, lab_bpf::BpfError>(lab_bpf::find(ifindex, attachment.prog_id())?.map(|seen| seen.hook))
    })?;
    let tcx = ctx.capabilities.has(Capability::Tcx) && lab_bpf::aya_reads_version();
    let wanted = if tcx { Hook::TcxIngress } else { Hook::ClsactIngress };
    ctx.equal("where the kernel lists it", hook, Some(wanted));
    Ok(())
}
