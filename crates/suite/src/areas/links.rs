//! Links and pins, and what updates and deletions do to them.

use crate::{
    bench::{Bench, P0, UNTYPED},
    case::{Area, Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    mutants::Fault,
    runner::PINS,
    variants,
};
use lab_bpf::{Link, Mprog};
use lab_protocol::Hook;
use lab_topology::{Family, PairRequest, link};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

pub const CASES: &[Case] = &[
    Case::new(
        "L01",
        "pin-survives-its-owner",
        Area::Links,
        "pair",
        "A pinned link stays attached when every descriptor is closed, and opens again as the same link.",
        pin_survives,
    )
    .over(variants::link_hooks),
    Case::new(
        "L03",
        "detach-under-a-pin",
        Area::Links,
        "pair",
        "BPF_LINK_DETACH empties the hook at once; the pin still opens, on a link without a device.",
        detach_under_a_pin,
    )
    .over(variants::link_hooks),
    Case::new(
        "L04",
        "update",
        Area::Links,
        "pair",
        "BPF_LINK_UPDATE swaps the program and keeps link and slot; wrong or attached programs are refused.",
        update,
    )
    .over(variants::link_hooks),
    Case::new(
        "L05",
        "link-info",
        Area::Links,
        "pair",
        "A link tells its program, kind and device; a PEER link tells the peer's index, which counts in the pod.",
        link_info,
    )
    .over(variants::link_hooks),
    Case::new(
        "L08",
        "device-deleted",
        Area::Links,
        "pair",
        "Deleting the device detaches its links: they stay open with index 0 and refuse updates with ENOLINK.",
        device_deleted,
    )
    .over(variants::link_hooks),
    Case::new(
        "L09",
        "pod-namespace-deleted",
        Area::Links,
        "pair",
        "Deleting the peer in the pod deletes the primary on the node too, and detaches what hung on it.",
        pod_deleted,
    )
    .over(variants::link_mechanisms),
    Case::new(
        "L10",
        "stale-pin",
        Area::Links,
        "pair",
        "A device made again under the same name does not inherit the old pin; cleaning it and attaching anew works.",
        stale_pin,
    )
    .over(variants::link_mechanisms),
    Case::new(
        "L11",
        "move-the-primary",
        Area::Links,
        "pair",
        "A primary that moves to another namespace keeps its programs; the old namespace no longer knows its index.",
        move_the_primary,
    )
    .over(variants::netkit_native),
    Case::new(
        "L13",
        "one-program-two-devices",
        Area::Links,
        "pods",
        "One program on two devices runs on both; detaching one leaves the other.",
        one_program_two_devices,
    )
    .over(variants::mechanisms),
];

/// A path of this case's own on the bpffs, removed at the end whatever happens.
pub(super) fn pin_path(ctx: &mut Ctx, name: &str) -> PathBuf {
    let path = Path::new(PINS).join(format!("case-{}-{name}", ctx.marker));
    let cleanup = path.clone();
    if ctx.fault == Some(Fault::PinStays) {
        return path;
    }
    ctx.defer("remove the pin", move || match fs::remove_file(&cleanup) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    });
    path
}

fn pin_survives(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let path = pin_path(ctx, "pin");
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let before = attachment.link()?.info()?;
    attachment.link()?.pin(&path)?;
    drop(attachment);
    bench.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;
    let reopened = Link::open_pinned(&path)?;
    ctx.check("the pin opens the same link", reopened.info()? == before, format!("{:?}", reopened.info()?));
    Ok(())
}

fn detach_under_a_pin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let path = pin_path(ctx, "pin");
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    bench.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;
    attachment.link()?.pin(&path)?;
    attachment.link()?.detach()?;
    ctx.check("the hook is empty at once", bench.find(P0, &program)?.is_none(), "BPF_PROG_QUERY");
    let reopened = Link::open_pinned(&path)?;
    ctx.equal("the pinned link has no device", reopened.info()?.ifindex, 0);
    let fresh = bench.counter(ctx, P0)?;
    ctx.refused("it takes no update", reopened.update(&*fresh, None), Errno::ENOLINK);
    Ok(())
}

fn update(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (first, second, other) = (bench.counter(ctx, P0)?, bench.counter(ctx, P0)?, bench.counter(ctx, P0)?);
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &first)?;
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let link = attachment.link()?;
    let id = link.info()?.id;
    ctx.refused("the wrong old program", link.update(&*second, Some(other.as_fd())), Errno::EPERM);
    link.update(&*second, Some(first.as_fd()))?;
    ctx.equal("the same link, the new program", (link.info()?.id, link.info()?.prog_id), (id, second.id()));
    let counted = first.stats()?.packets;
    bench.passes_counted(ctx, "pod", "host", variant.direction(), &second)?;
    ctx.equal("packets that the old program still saw", first.stats()?.packets - counted, 0);
    let (ifindex, hook) = (bench.ifindex(P0), attachment.hook);
    let _third = bench.run(P0, || lab_bpf::attach_link(hook, ifindex, &*other, &Mprog::default()))?;
    ctx.refused("a program that is on the hook already", link.update(&*other, None), Errno::EEXIST);
    Ok(())
}

fn link_info(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let info = attachment.link()?.info()?;
    ctx.equal("hook", info.hook(), Some(attachment.hook));
    ctx.equal("kind", info.kind(), Some(attachment.hook.attach_type()));
    ctx.equal("program", info.prog_id, program.id());
    let wanted = if attachment.hook == Hook::NetkitPeer { bench.net.ifindex("pod", "eth0") } else { bench.ifindex(P0) };
    ctx.equal("device", info.ifindex, wanted);
    ctx.equal("listed with the link's id", bench.find(P0, &program)?.and_then(|seen| seen.link_id), Some(info.id));
    Ok(())
}

/// Asserts what is left of a link whose device has gone.
fn orphaned(ctx: &mut Ctx, bench: &Bench, link: &Link) -> Result<(), Stop> {
    let gone = ctx.wait_until(2_000, || Ok(link.info()?.ifindex == 0))?;
    ctx.check("the link has no device", gone, format!("{:?}", link.info()?));
    let fresh = ctx.programs.load(lab_bpf::ProgramKind::Count, &lab_bpf::Config::new(ctx.marker), &UNTYPED)?;
    ctx.refused("it takes no update", link.update(&fresh, None), Errno::ENOLINK);
    ctx.check("detaching it is no error", link.detach().is_ok(), "BPF_LINK_DETACH");
    let left = link::info(bench.net.ns("host"), "p0");
    ctx.refused("the node's device is gone", left, Errno::ENODEV);
    Ok(())
}

fn device_deleted(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    bench.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;
    link::delete(bench.net.ns("host"), "p0")?;
    orphaned(ctx, &bench, attachment.link()?)
}

fn pod_deleted(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let (from, to) = (bench.counter(ctx, P0)?, bench.counter(ctx, P0)?);
    let from_link = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &from)?;
    let to_link = bench.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &to)?;
    bench.passes(ctx, "pod", "host")?;
    link::delete(bench.net.ns("pod"), "eth0")?;
    orphaned(ctx, &bench, from_link.link()?)?;
    orphaned(ctx, &bench, to_link.link()?)
}

fn stale_pin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let path = pin_path(ctx, "pin");
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    bench.passes(ctx, "pod", "host")?;
    attachment.link()?.pin(&path)?;
    let hook = attachment.hook;
    drop(attachment);
    let ns = bench.net.ns("host");
    link::delete(ns, "p0")?;
    let kind = variant.device();
    let request = PairRequest { peer_netns: Some(bench.net.ns("pod").fd()), ..PairRequest::new(kind, "p0", "eth0") };
    link::create_pair(ns, &request)?;
    let ifindex = link::info(ns, "p0")?.ifindex;

    let stale = Link::open_pinned(&path)?;
    let fresh = bench.counter(ctx, P0)?;
    ctx.refused("the old pin takes no update", stale.update(&*fresh, None), Errno::ENOLINK);
    ctx.equal("the new device starts empty", ns.run(|| lab_bpf::observe(ifindex))?.len(), 0);
    drop(stale);
    fs::remove_file(&path)?;
    let renewed = ns.run(|| lab_bpf::attach_link(hook, ifindex, &*fresh, &Mprog::default()))?;
    renewed.pin(&path)?;
    let listed = ns.run(|| lab_bpf::find(ifindex, fresh.id()))?;
    ctx.equal("attached anew under the same path", listed.map(|seen| seen.hook), Some(hook));
    Ok(())
}

fn move_the_primary(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pair(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    let attachment = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    bench.passes(ctx, "pod", "host")?;
    let (ifindex, hook) = (bench.ifindex(P0), attachment.hook);
    let elsewhere = lab_topology::Netns::new("elsewhere")?;
    link::move_to(bench.net.ns("host"), "p0", &elsewhere)?;
    let old = bench.run(P0, || lab_bpf::query(hook, ifindex));
    ctx.refused("the old namespace no longer knows it", old, Errno::ENODEV);
    let moved = link::info(&elsewhere, "p0")?.ifindex;
    let listed = elsewhere.run(|| lab_bpf::find(moved, program.id()))?;
    ctx.equal("still attached in the new one", listed.map(|seen| seen.hook), Some(hook));
    link::delete(&elsewhere, "p0")?;
    Ok(())
}

fn one_program_two_devices(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let bench = Bench::pods(variant.device())?;
    let program = bench.counter(ctx, P0)?;
    let first = bench.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let _second = bench.attach(ctx, crate::bench::P1, variant.attach(), Direction::FromWorkload, &program)?;
    for workload in ["w0", "w1"] {
        bench.passes_counted(ctx, workload, "host", Direction::FromWorkload, &program)?;
    }
    first.detach()?;
    bench.passes_counted(ctx, "w1", "host", Direction::FromWorkload, &program)?;
    let before = program.stats()?.marked;
    bench.passes(ctx, "w0", "host")?;
    ctx.equal("packets from the detached device", program.stats()?.marked - before, 0);
    Ok(())
}
