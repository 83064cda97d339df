//! References that keep a link attached, and the effect of moving its device.

use super::pins::pin_path;
use crate::areas::ifindex::crossing::{ETH_P_IP, datagram, ends};
use lab_bpf::{BpfLink, Config, Mprog, Program, ProgramKind, raw};
use lab_harness::{
    PINS,
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    holder::Holder,
    testbed::{P0, Testbed, UNTYPED},
    variants,
};
use lab_protocol::{AttachType, Capability, Hook};
use lab_topology::{Family, Netns, library, link};
use lab_traffic::{Proto, send_frame};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use std::{
    fs,
    io::IoSlice,
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixDatagram,
    },
    path::{Path, PathBuf},
};

/// In the order in which they run.
pub const CASES: &[Case] =
    &[LAST_PIN, DESCRIPTOR_IN_FLIGHT, OWNER_KILLED, PEER_RENAMED_AND_MOVED, DEVICE_RENAMED, PIN_NAMES];

/// Waits until the kernel no longer lists the program: the last reference is dropped by a work item.
fn goes(ctx: &mut Ctx, testbed: &Testbed, what: &str, program: &Program) -> Result<(), Stop> {
    let gone = ctx.wait_until(2_000, || Ok(testbed.find(P0, program)?.is_none()))?;
    ctx.check(what, gone, "BPF_PROG_QUERY");
    Ok(())
}

/// Checks that the kernel lists the program and that it runs on a flow.
fn runs(ctx: &mut Ctx, testbed: &Testbed, what: &str, program: &Program) -> Result<(), Stop> {
    ctx.check(format!("{what}: listed"), testbed.find(P0, program)?.is_some(), "BPF_PROG_QUERY and filter dump");
    let before = program.stats()?.marked;
    testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let ran = program.stats()?.marked - before;
    ctx.check(format!("{what}: runs"), ran > 0, ran);
    Ok(())
}

const LAST_PIN: Case = Case::new(
    "L02",
    "last-pin",
    "A link with two pins and no descriptor stays attached until the second pin is unlinked.",
    last_pin,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn last_pin(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (first, second) = (pin_path(ctx, "first"), pin_path(ctx, "second"));
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    attachment.link()?.pin(&first)?;
    attachment.link()?.pin(&second)?;
    drop(attachment);
    fs::remove_file(&first)?;
    runs(ctx, &testbed, "with one pin left", &program)?;
    fs::remove_file(&second)?;
    goes(ctx, &testbed, "removing the last pin detaches the link", &program)
}

const DESCRIPTOR_IN_FLIGHT: Case = Case::new(
    "L06",
    "descriptor-in-flight",
    "A link whose only descriptor is in a socket's queue (SCM_RIGHTS) stays attached, and is detached with the socket.",
    descriptor_in_flight,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn descriptor_in_flight(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let link = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?.into_link()?;
    let (sender, receiver) = UnixDatagram::pair()?;
    let descriptors = [link.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(sender.as_raw_fd(), &[IoSlice::new(b"link")], &rights, MsgFlags::empty(), None)?;
    drop(link);
    drop(sender);
    runs(ctx, &testbed, "in flight", &program)?;
    // Another process receives the socket, and with it the link.
    let holder = Holder::of(receiver)?;
    runs(ctx, &testbed, "in flight to another process", &program)?;
    holder.kill()?;
    goes(ctx, &testbed, "closing the socket detaches the link", &program)
}

const OWNER_KILLED: Case = Case::new(
    "L07",
    "owner-killed",
    "When the owner is killed, an unpinned link is detached; a pinned link and a clsact filter stay attached and run.",
    owner_killed,
)
.on(library::PAIR)
.over(variants::usual_mechanisms);
fn owner_killed(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let kept = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &kept)?;
    let hook = attachment.hook;
    if hook.attach_type() == AttachType::Tc {
        let owner = Holder::of(kept.as_fd().try_clone_to_owned()?)?;
        owner.kill()?;
        attachment.abandon();
        return runs(ctx, &testbed, "the filter after its owner was killed", &kept);
    }
    let path = pin_path(ctx, "kept");
    let pinned = attachment.into_link()?;
    pinned.pin(&path)?;
    let (unpinned, ifindex) = (testbed.counter(ctx, P0)?, testbed.ifindex(P0));
    let link = testbed.run(P0, || lab_bpf::attach_link(hook, ifindex, &*unpinned, &Mprog::default()))?;
    let owners = [Holder::of(pinned)?, Holder::of(link)?];
    runs(ctx, &testbed, "the pinned link before its owner was killed", &kept)?;
    runs(ctx, &testbed, "the unpinned link before its owner was killed", &unpinned)?;
    for owner in owners {
        owner.kill()?;
    }
    goes(ctx, &testbed, "the unpinned link is detached when its owner is killed", &unpinned)?;
    runs(ctx, &testbed, "the pinned link after its owner was killed", &kept)?;
    let info = BpfLink::open_pinned(&path)?.info()?;
    ctx.equal("program of the pinned link", info.prog_id, kept.id());
    Ok(())
}

const PEER_RENAMED_AND_MOVED: Case = Case::new(
    "L12",
    "peer-renamed-and-moved",
    "A PEER link stays attached when the pod renames its end or moves it to another namespace.",
    peer_renamed_and_moved,
)
.on(library::PAIR)
.over(variants::netkit_native);
fn peer_renamed_and_moved(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    let before = attachment.link()?.info()?;
    link::rename(testbed.net.ns("pod"), "eth0", "uplink0")?;
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &program)?;
    ctx.check(
        "the link is the same",
        attachment.link()?.info()? == before,
        format!("{:?}", attachment.link()?.info()?),
    );

    let elsewhere = Netns::new("elsewhere")?;
    link::move_to(testbed.net.ns("pod"), "uplink0", &elsewhere)?;
    let moved = link::info(&elsewhere, "uplink0")?.ifindex;
    let after = attachment.link()?.info()?;
    ctx.equal("the link reports the peer's index in its new namespace", after.ifindex, moved);
    ctx.equal("listed on the primary", testbed.find(P0, &program)?.map(|seen| seen.hook), Some(attachment.hook));
    // The device lost its addresses. A datagram, or a neighbour solicitation for it, is enough traffic; the first ones
    // are lost while the kernel handles the carrier change.
    link::set_up(&elsewhere, "uplink0")?;
    link::add_address(&elsewhere, "uplink0", "10.9.0.1/24")?;
    let packets = program.stats()?.packets;
    let sender = elsewhere.run(|| UdpSocket::bind("10.9.0.1:0"))?;
    let met = ctx.wait_until(3_000, || {
        sender.send_to(b"moved", "10.9.0.2:9")?;
        Ok(program.stats()?.packets > packets)
    })?;
    ctx.check("the program runs on packets of the moved peer", met, program.stats()?.packets - packets);
    Ok(())
}

const DEVICE_RENAMED: Case = Case::new(
    "L17",
    "device-renamed",
    "A program stays attached while its device is down and when it gets another name, by every attach type and in both directions.",
    device_renamed,
)
.on(library::PAIR)
.over(variants::usual_hooks);
fn device_renamed(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    const OTHER: &str = "uplink0";
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let _attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let host = testbed.net.ns("host");
    let attached = testbed.find(P0, &program)?;
    ctx.check("the program is listed", attached.is_some(), format!("{attached:?}"));
    let (from, to) = ends(variant.direction());
    let mac = testbed.net.readback(to.node, to.dev)?.mac.unwrap_or_default();
    let packet = datagram(testbed.net.addr4(from.node), testbed.net.addr4(to.node), ctx.marker);
    let mut met = 0;
    // A device can be renamed while it is up only since 6.2 (dev_change_name()).
    for (what, name, new_name) in [("other", P0.dev, OTHER), ("first", OTHER, P0.dev)] {
        link::set_down(host, name)?;
        ctx.equal(
            format!("listed while the device is down, before its {what} name"),
            testbed.find(P0, &program)?,
            attached,
        );
        link::rename(host, name, new_name)?;
        ctx.equal(format!("listed with its {what} name"), testbed.find(P0, &program)?, attached);
        link::set_up(host, new_name)?;
        let carries = || Ok(link::info(host, new_name)?.carries && link::info(testbed.net.ns("pod"), "eth0")?.carries);
        ctx.becomes(format!("both ends carry with the {what} name"), true, carries)?;
        // A frame, since the routes went with the device.
        send_frame(testbed.net.ns(from.node), testbed.ifindex(from), mac, ETH_P_IP, &packet)?;
        met += 1;
        ctx.becomes(format!("packets at the program with its {what} name"), met, || Ok(program.stats()?.marked))?;
    }
    Ok(())
}

const PIN_NAMES: Case = Case::new(
    "L14",
    "pin-names",
    "bpffs refuses dots in names, and without dots the names `a.b` and `ab` collide; pins by index never collide.",
    pin_names,
)
.needs(&[Capability::Tcx, Capability::Dummy]);
fn pin_names(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    // The names of the second pair differ only in the last of the fifteen characters that a name can have.
    const NAMES: [&str; 4] = ["a.b", "ab", "workload0123456", "workload0123457"];
    let directory = Path::new(PINS).join(format!("case-{}", ctx.marker));
    fs::create_dir(&directory)?;
    let cleanup = directory.clone();
    ctx.defer("remove the pins", move || fs::remove_dir_all(&cleanup));
    let ns = Netns::new("host")?;
    let mut links = Vec::new();
    for name in NAMES {
        link::create_dummy(&ns, name)?;
        let ifindex = link::info(&ns, name)?.ifindex;
        let program = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, -1)?;
        let link = ns.run(|| lab_bpf::attach_link(Hook::TcxIngress, ifindex, &program, &Mprog::default()))?;
        links.push((name, ifindex, link));
    }
    let dotted = links[0].2.pin(&directory.join(NAMES[0]));
    ctx.refused("a dot in a pin's name", dotted, Errno::EPERM);
    let stripped = |name: &str| -> PathBuf { directory.join(name.replace('.', "")) };
    links[0].2.pin(&stripped(NAMES[0]))?;
    ctx.refused("without the dot: `ab` exists already", links[1].2.pin(&stripped(NAMES[1])), Errno::EEXIST);
    for (name, ifindex, link) in &links {
        let path = directory.join(format!("tcx_ingress_{ifindex}"));
        let pinned = link.pin(&path);
        ctx.check(format!("{name} by its index"), pinned.is_ok(), format!("{pinned:?}"));
        let same = BpfLink::open_pinned(&path)?.info()?.id == link.info()?.id;
        ctx.check(format!("{name}: its pin opens its own link"), same, path.display());
    }
    let program = ctx.programs.load(ProgramKind::Count, &Config::new(ctx.marker), &UNTYPED)?;
    links[0].2.update(&program, None)?;
    let untouched = links[1..].iter().map(|(.., link)| link.info()).collect::<Result<Vec<_>, _>>()?;
    ctx.check(
        "an update by one pin changes no other link",
        untouched.iter().all(|info| info.prog_id != program.id()),
        format!("{untouched:?}"),
    );
    Ok(())
}
