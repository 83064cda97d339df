//! Links and pins, and the effect of updates and deletion on them.

use lab_bpf::{BpfLink, Mprog, raw};
use lab_harness::{
    PINS,
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    fault::Fault,
    testbed::{P0, Testbed, UNTYPED},
    variants,
};
use lab_protocol::Hook;
use lab_topology::{Family, PairRequest, library, link};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[
    PIN_SURVIVES_ITS_OWNER,
    DETACH_UNDER_A_PIN,
    UPDATE,
    LINK_INFO,
    DEVICE_DELETED,
    POD_NAMESPACE_DELETED,
    STALE_PIN,
    MOVE_THE_PRIMARY,
    ONE_PROGRAM_TWO_DEVICES,
];

/// A path on the bpffs for this case only, which is removed at the end in any case.
pub fn pin_path(ctx: &mut Ctx, name: &str) -> PathBuf {
    let path = Path::new(PINS).join(format!("case-{}-{name}", ctx.marker));
    let cleanup = path.clone();
    if ctx.fault == Some(Fault::PinStays) {
        return path;
    }
    ctx.defer("remove the pin", move || match fs::remove_file(&cleanup) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    path
}

const PIN_SURVIVES_ITS_OWNER: Case = Case::new(
    "L01",
    "pin-survives-its-owner",
    "A pinned link stays attached when every descriptor is closed, and its pin opens the same link.",
    pin_survives,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn pin_survives(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let path = pin_path(ctx, "pin");
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let before = attachment.link()?.info()?;
    attachment.link()?.pin(&path)?;
    drop(attachment);
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;
    let reopened = BpfLink::open_pinned(&path)?;
    ctx.check("the pin opens the same link", reopened.info()? == before, format!("{:?}", reopened.info()?));
    Ok(())
}

const DETACH_UNDER_A_PIN: Case = Case::new(
    "L03",
    "detach-under-a-pin",
    "BPF_LINK_DETACH empties the hook at once; the pin can still be opened, but its link has no device.",
    detach_under_a_pin,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn detach_under_a_pin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let path = pin_path(ctx, "pin");
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;
    attachment.link()?.pin(&path)?;
    attachment.link()?.detach()?;
    ctx.check("the hook is empty", testbed.find(P0, &program)?.is_none(), "BPF_PROG_QUERY");
    let reopened = BpfLink::open_pinned(&path)?;
    ctx.equal("the pinned link has no device", reopened.info()?.ifindex, 0);
    let fresh = testbed.counter(ctx, P0)?;
    ctx.refused("an update is refused", reopened.update(&*fresh, None), Errno::ENOLINK);
    Ok(())
}

const UPDATE: Case = Case::new(
    "L04",
    "update",
    "BPF_LINK_UPDATE replaces the program and keeps link and slot; wrong or attached programs are refused.",
    update,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn update(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (first, second, other) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &first)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let link = attachment.link()?;
    let id = link.info()?.id;
    ctx.refused("the wrong old program", link.update(&*second, Some(other.as_fd())), Errno::EPERM);
    for (what, prog_type, old, errno) in [
        ("the wrong old one", raw::BPF_PROG_TYPE_SCHED_CLS, Some(other.as_fd()), Errno::EPERM),
        ("another type", raw::BPF_PROG_TYPE_XDP, None, Errno::EINVAL),
    ] {
        let refused = raw::minimal(prog_type, 0, 0)?;
        let refused_id = refused.id();
        ctx.refused(format!("a new program with {what}"), link.update(&refused, old), errno);
        drop(refused);
        let gone = ctx.wait_until(2_000, || Ok(!lab_bpf::prog_ids()?.contains(&refused_id)))?;
        ctx.check(format!("the program with {what} is freed with its descriptor"), gone, refused_id);
    }
    link.update(&*second, Some(first.as_fd()))?;
    ctx.equal("the same link, the new program", (link.info()?.id, link.info()?.prog_id), (id, second.id()));
    let counted = first.stats()?.packets;
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &second)?;
    ctx.equal("packets that the old program ran on afterwards", first.stats()?.packets - counted, 0);
    let (ifindex, hook) = (testbed.ifindex(P0), attachment.hook);
    let _third = testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &*other, &Mprog::default()))?;
    ctx.refused("a program that is on the hook already", link.update(&*other, None), Errno::EEXIST);
    Ok(())
}

const LINK_INFO: Case = Case::new(
    "L05",
    "link-info",
    "A link reports its program, kind and device; a PEER link reports the peer's index, which is valid in the pod.",
    link_info,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn link_info(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let info = attachment.link()?.info()?;
    ctx.equal("hook", info.hook(), Some(attachment.hook));
    ctx.equal("kind", info.kind(), Some(attachment.hook.attach_type()));
    ctx.equal("program", info.prog_id, program.id());
    let wanted =
        if attachment.hook == Hook::NetkitPeer { testbed.net.ifindex("pod", "eth0") } else { testbed.ifindex(P0) };
    ctx.equal("device", info.ifindex, wanted);
    ctx.equal("listed with the link's id", testbed.find(P0, &program)?.and_then(|seen| seen.link_id), Some(info.id));
    Ok(())
}

/// Checks the state of a link whose device was deleted.
fn orphaned(ctx: &mut Ctx, testbed: &Testbed, link: &BpfLink) -> Result<(), Stop> {
    let gone = ctx.wait_until(2_000, || Ok(link.info()?.ifindex == 0))?;
    ctx.check("the link has no device", gone, format!("{:?}", link.info()?));
    let fresh = ctx.programs.load(lab_bpf::ProgramKind::Count, &lab_bpf::Config::new(ctx.marker), &UNTYPED)?;
    ctx.refused("an update is refused", link.update(&fresh, None), Errno::ENOLINK);
    ctx.check("detaching it succeeds", link.detach().is_ok(), "BPF_LINK_DETACH");
    let left = link::info(testbed.net.ns("host"), "p0");
    ctx.refused("the node's device is deleted", left, Errno::ENODEV);
    Ok(())
}

const DEVICE_DELETED: Case = Case::new(
    "L08",
    "device-deleted",
    "Deleting the device detaches its links: they stay open with index 0 and refuse updates with ENOLINK.",
    device_deleted,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn device_deleted(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &program)?;
    link::delete(testbed.net.ns("host"), "p0")?;
    orphaned(ctx, &testbed, attachment.link()?)
}

const POD_NAMESPACE_DELETED: Case = Case::new(
    "L09",
    "pod-namespace-deleted",
    "Deleting the peer in the pod also deletes the primary on the node, and detaches its programs.",
    pod_deleted,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn pod_deleted(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (from, to) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let from_link = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &from)?;
    let to_link = testbed.attach(ctx, P0, variant.attach(), Direction::ToWorkload, &to)?;
    testbed.passes(ctx, "pod", "host")?;
    link::delete(testbed.net.ns("pod"), "eth0")?;
    orphaned(ctx, &testbed, from_link.link()?)?;
    orphaned(ctx, &testbed, to_link.link()?)
}

const STALE_PIN: Case = Case::new(
    "L10",
    "stale-pin",
    "A device recreated under the same name does not inherit the old pin; removing it and attaching again works.",
    stale_pin,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn stale_pin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let path = pin_path(ctx, "pin");
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.passes(ctx, "pod", "host")?;
    attachment.link()?.pin(&path)?;
    let hook = attachment.hook;
    drop(attachment);
    let ns = testbed.net.ns("host");
    link::delete(ns, "p0")?;
    let kind = variant.device();
    let request = PairRequest { peer_netns: Some(testbed.net.ns("pod").fd()), ..PairRequest::new(kind, "p0", "eth0") };
    link::create_pair(ns, &request)?;
    let ifindex = link::info(ns, "p0")?.ifindex;

    let stale = BpfLink::open_pinned(&path)?;
    let fresh = testbed.counter(ctx, P0)?;
    ctx.refused("updating by the old pin is refused", stale.update(&*fresh, None), Errno::ENOLINK);
    ctx.equal("programs on the new device", ns.run(|| lab_bpf::observe(ifindex))?.len(), 0);
    drop(stale);
    fs::remove_file(&path)?;
    let renewed = ns.run(|| lab_bpf::attach_link(hook, ifindex, &*fresh, &Mprog::default()))?;
    renewed.pin(&path)?;
    let listed = ns.run(|| lab_bpf::find(ifindex, fresh.id()))?;
    ctx.equal("attached again with the same path", listed.map(|seen| seen.hook), Some(hook));
    Ok(())
}

const MOVE_THE_PRIMARY: Case = Case::new(
    "L11",
    "move-the-primary",
    "A primary that moves to another namespace keeps its programs; its index is invalid in the old namespace.",
    move_the_primary,
)
.on(library::PAIR)
.over(variants::netkit_native);
fn move_the_primary(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.passes(ctx, "pod", "host")?;
    let (ifindex, hook) = (testbed.ifindex(P0), attachment.hook);
    let elsewhere = lab_topology::Netns::new("elsewhere")?;
    link::move_to(testbed.net.ns("host"), "p0", &elsewhere)?;
    let old = testbed.run(P0, || lab_bpf::query(hook, ifindex));
    ctx.refused("its index in the old namespace", old, Errno::ENODEV);
    let moved = link::info(&elsewhere, "p0")?.ifindex;
    let listed = elsewhere.run(|| lab_bpf::find(moved, program.id()))?;
    ctx.equal("still attached in the new one", listed.map(|seen| seen.hook), Some(hook));
    link::delete(&elsewhere, "p0")?;
    Ok(())
}

const ONE_PROGRAM_TWO_DEVICES: Case = Case::new(
    "L13",
    "one-program-two-devices",
    "One program on two devices runs on both; detaching it from one device keeps it on the other.",
    one_program_two_devices,
)
.on(library::PODS)
.over(variants::mechanisms);
fn one_program_two_devices(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let first = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let _second = testbed.attach(ctx, lab_harness::testbed::P1, variant.attach(), Direction::FromWorkload, &program)?;
    for workload in ["w0", "w1"] {
        testbed.passes_counted(ctx, workload, "host", Direction::FromWorkload, &program)?;
    }
    first.detach()?;
    testbed.passes_counted(ctx, "w1", "host", Direction::FromWorkload, &program)?;
    let before = program.stats()?.marked;
    testbed.passes(ctx, "w0", "host")?;
    ctx.equal("packets from the detached device", program.stats()?.marked - before, 0);
    Ok(())
}
