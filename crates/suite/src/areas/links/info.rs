//! What a link says about itself, and programs of other types in a link.

use lab_bpf::{BpfLink, LinkInfo, raw};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    testbed::{P0, Spot},
    variants,
};
use lab_protocol::AttachType;
use lab_topology::{Netns, library, link};
use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd, AsRawFd},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[FDINFO, UPDATE_CHAIN];

/// The lines of `/proc/self/fdinfo/N` that the kernel writes for a link.
fn fdinfo(link: &BpfLink) -> Result<BTreeMap<String, String>, Stop> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_fd().as_raw_fd()))?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

/// What the descriptor must say, by what BPF_OBJ_GET_INFO_BY_FD says (`bpf_link_show_fdinfo()`, `tcx_link_fdinfo()`,
/// `netkit_link_fdinfo()`).
fn wanted(info: &LinkInfo, kind: AttachType) -> [(&'static str, String); 5] {
    let hook = info.hook().map(|hook| hook.name().rsplit('/').next().unwrap_or_default()).unwrap_or_default();
    [
        ("link_type", kind.name().to_owned()),
        ("link_id", info.id.to_string()),
        ("prog_id", info.prog_id.to_string()),
        ("ifindex", info.ifindex.to_string()),
        ("attach_type", format!("{} ({hook})", info.attach_type)),
    ]
}

fn told(ctx: &mut Ctx, when: &str, link: &BpfLink, kind: AttachType) -> Result<LinkInfo, Stop> {
    let (info, lines) = (link.info()?, fdinfo(link)?);
    for (name, wanted) in wanted(&info, kind) {
        let line = lines.get(name).cloned().unwrap_or_default();
        ctx.equal(format!("{when}: {name} in fdinfo"), line, wanted);
    }
    Ok(info)
}

const FDINFO: Case = Case::new(
    "L15",
    "fdinfo",
    "A link's fdinfo tells its program, device and hook after creation, update, move and deletion of its device.",
    fdinfo_of_a_link,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn fdinfo_of_a_link(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let (first, second) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &first)?;
    let kind = attachment.hook.attach_type();
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &first)?;
    let link = attachment.into_link()?;
    let info = told(ctx, "attached", &link, kind)?;
    // A PEER link belongs to the workload's end.
    let at_peer = kind == AttachType::Netkit && variant.direction() == Direction::FromWorkload;
    let end = if at_peer { Spot { node: "pod", dev: "eth0" } } else { P0 };
    ctx.equal("device of the new link", info.ifindex, testbed.ifindex(end));
    link.update(&*second, None)?;
    let info = told(ctx, "updated", &link, kind)?;
    ctx.equal("program after the update", info.prog_id, second.id());
    let elsewhere = Netns::new("elsewhere")?;
    link::move_to(testbed.net.ns(end.node), end.dev, &elsewhere)?;
    let moved = link::info(&elsewhere, end.dev)?.ifindex;
    let info = told(ctx, "moved", &link, kind)?;
    ctx.equal("device and program after the move", (info.ifindex, info.prog_id), (moved, second.id()));
    link::delete(&elsewhere, end.dev)?;
    let info = told(ctx, "without a device", &link, kind)?;
    ctx.equal("device after its deletion", info.ifindex, 0);
    Ok(())
}

const UPDATE_CHAIN: Case = Case::new(
    "L16",
    "update-chain",
    "A link takes programs of any expected_attach_type one after the other, and refuses a program of another type.",
    update_chain,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn update_chain(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let attachment = testbed.attach(ctx, P0, variant.attach(), variant.direction(), &program)?;
    let link = attachment.link()?;
    let mut last = program.id();
    for expected_attach_type in [0, 46, 55, 47, 54] {
        let next = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, expected_attach_type, -1)?;
        link.update(&next, None)?;
        let name = format!("program after the update to expected_attach_type {expected_attach_type}");
        ctx.equal(name, link.info()?.prog_id, next.id());
        let listed: Vec<u32> = testbed.observe(P0)?.iter().map(|seen| seen.prog_id).collect();
        ctx.equal(format!("programs listed after the update to {expected_attach_type}"), listed, vec![next.id()]);
        last = next.id();
    }
    let xdp = raw::minimal(raw::BPF_PROG_TYPE_XDP, 0, 2)?;
    ctx.refused("an update to an XDP program", link.update(&xdp, None), Errno::EINVAL);
    ctx.equal("program after the refusal", link.info()?.prog_id, last);
    link.update(&*program, None)?;
    testbed.passes_counted(ctx, "pod", "host", variant.direction(), &program)
}
