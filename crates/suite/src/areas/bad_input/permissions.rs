//! A process without capabilities can change a hook only through descriptors that it has.

use crate::areas::mprog::chain::{Chain, next};
use lab_bpf::{Anchor, BpfError, Mprog, Position};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    stranger::{self, ContainerAttempts, Stranger},
    testbed::P0,
    variants,
};
use lab_protocol::Capability;
use lab_topology::{Netns, PairRequest, library, link};
use nix::errno::Errno;
use std::os::fd::AsFd;

/// In the order in which they run.
pub const CASES: &[Case] = &[BY_DESCRIPTOR, DETACH_BY_PLACE, BY_ID, CHANGE_FROM_CONTAINER, PAIR_FROM_CONTAINER];

/// Runs `work` without capabilities in the namespace of the hook.
fn as_nobody<R: Send>(
    chain: &Chain,
    work: impl FnOnce() -> Result<R, BpfError> + Send,
) -> Result<Result<R, BpfError>, Stop> {
    Ok(chain.testbed.run(P0, || lab_bpf::as_nobody(work))?)
}

/// A descriptor is a capability (Documentation/bpf, "links and programs are reference counted by descriptors"): any
/// process that has received one may use it. Helpers of Cilium and systemd rely on that.
const BY_DESCRIPTOR: Case = Case::new(
    "N13",
    "verbs-by-descriptor",
    "Without capabilities, attach, replace, detach, link update and link detach work with descriptors that the process has.",
    by_descriptor,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn by_descriptor(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (hook, ifindex) = (chain.hook, chain.ifindex);
    let (first, second, third) = (next()?, next()?, next()?);
    chain.attach(&first, &Mprog::default())?;
    chain.report(ctx, first.id())?;
    let attached = as_nobody(&chain, || lab_bpf::attach_prog(hook, ifindex, &second, &Mprog::default()))?;
    ctx.check("BPF_PROG_ATTACH", attached.is_ok(), format!("{attached:?}"));
    ctx.equal("programs after the attach", chain.order()?, vec![first.id(), second.id()]);
    let replaced = as_nobody(&chain, || lab_bpf::attach_prog(hook, ifindex, &third, &Mprog::replacing(&second)))?;
    ctx.check("BPF_PROG_ATTACH with BPF_F_REPLACE", replaced.is_ok(), format!("{replaced:?}"));
    ctx.equal("programs after the replacement", chain.order()?, vec![first.id(), third.id()]);
    let by_fd = || lab_bpf::detach_prog(hook, ifindex, Some(third.as_fd()), &Mprog::default());
    let detached = as_nobody(&chain, by_fd)?;
    ctx.check("BPF_PROG_DETACH with the program's descriptor", detached.is_ok(), format!("{detached:?}"));
    ctx.equal("programs after the detach", chain.order()?, vec![first.id()]);

    let link = chain.link(&second, &Mprog::default())?;
    let updated = as_nobody(&chain, || link.update(&third, None))?;
    ctx.check("BPF_LINK_UPDATE", updated.is_ok(), format!("{updated:?}"));
    ctx.equal("programs after the update", chain.order()?, vec![first.id(), third.id()]);
    let told = as_nobody(&chain, || link.info())?;
    ctx.check("BPF_OBJ_GET_INFO_BY_FD of the link", told.is_ok(), format!("{told:?}"));
    let gone = as_nobody(&chain, || link.detach())?;
    ctx.check("BPF_LINK_DETACH", gone.is_ok(), format!("{gone:?}"));
    ctx.equal("programs after the link's detach", chain.order()?, vec![first.id()]);
    Ok(())
}

/// Without a descriptor, `bpf_prog_detach()` selects a program by its place on the hook. Before "bpf: Fix tcx/netkit
/// detach permissions when prog fd isn't given" it did not require `CAP_NET_ADMIN` for that.
const DETACH_BY_PLACE: Case = Case::new(
    "N14",
    "detach-without-descriptor",
    "Without capabilities BPF_PROG_DETACH by place, by anchor or by id fails with EPERM, and every program stays.",
    detach_by_place,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn detach_by_place(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (hook, ifindex) = (chain.hook, chain.ifindex);
    let (first, second) = (next()?, next()?);
    chain.attach(&first, &Mprog::default())?;
    chain.attach(&second, &Mprog::default())?;
    chain.report(ctx, first.id())?;
    let whole = vec![first.id(), second.id()];
    let place = |place, anchor| Mprog { place, anchor, ..Mprog::default() };
    for (what, options) in [
        ("without a place", Mprog::default()),
        ("at the front", place(Position::Before, Anchor::None)),
        ("at the end", place(Position::After, Anchor::None)),
        ("after a program whose descriptor it has", Mprog::after(Anchor::ProgFd(first.as_fd()))),
        ("before a program given by its id", Mprog::before(Anchor::ProgId(second.id()))),
    ] {
        let detached = as_nobody(&chain, || lab_bpf::detach_prog(hook, ifindex, None, &options))?;
        ctx.refused(format!("BPF_PROG_DETACH {what}"), detached, Errno::EPERM);
        let left = chain.order()?;
        ctx.equal(format!("programs after BPF_PROG_DETACH {what}"), left.clone(), whole.clone());
        // Restores the programs for the next check.
        if !left.contains(&second.id()) {
            chain.attach(&second, &Mprog::default())?;
        }
        if !left.contains(&first.id()) {
            chain.attach(&first, &Mprog { place: Position::Before, ..Mprog::default() })?;
        }
    }
    // With capabilities the same call succeeds.
    let detached = chain.detach(None::<&lab_bpf::raw::RawProgram>, &place(Position::After, Anchor::None));
    ctx.check("with capabilities the last program is detached", detached.is_ok(), format!("{detached:?}"));
    ctx.equal("programs after the detach with capabilities", chain.order()?, vec![first.id()]);
    Ok(())
}

/// `bpf_prog_query()` requires `CAP_NET_ADMIN`; `bpf_prog_get_fd_by_id()` and `bpf_link_get_fd_by_id()` require
/// `CAP_SYS_ADMIN`.
const BY_ID: Case = Case::new(
    "N15",
    "descriptors-by-id",
    "Without capabilities a query fails, and so does opening a program or a link by its id.",
    by_id,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn by_id(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (hook, ifindex) = (chain.hook, chain.ifindex);
    let program = next()?;
    let link = chain.link(&program, &Mprog::default())?;
    chain.report(ctx, program.id())?;
    let link_id = link.info()?.id;
    let query = as_nobody(&chain, || lab_bpf::query(hook, ifindex))?;
    ctx.refused("BPF_PROG_QUERY", query, Errno::EPERM);
    let prog_id = program.id();
    let by_program = as_nobody(&chain, || lab_bpf::prog_fd(prog_id))?;
    ctx.refused("BPF_PROG_GET_FD_BY_ID", by_program, Errno::EPERM);
    let by_link = as_nobody(&chain, || lab_bpf::link_fd(link_id))?;
    ctx.refused("BPF_LINK_GET_FD_BY_ID", by_link, Errno::EPERM);
    let with = chain.testbed.run(P0, || (lab_bpf::prog_fd(prog_id).is_ok(), lab_bpf::link_fd(link_id).is_ok()));
    ctx.equal("with capabilities both can be opened", with, (true, true));
    Ok(())
}

/// Root of a container with a user namespace of its own tries what concerns the node's end of its pair. Gives the node's
/// namespace too, where `node0` is that end, and the container, with which that end goes.
fn from_container(ctx: &mut Ctx, variant: &Variant) -> Result<(Netns, ContainerAttempts, Stranger), Stop> {
    const NODE: &str = "node0";
    ctx.declared(Capability::UserNs)?;
    let node = Netns::new("node")?;
    let mut container = Stranger::beside(&node).map_err(|error| Stop::check(format!("a container: {error}")))?;
    // The container has the primary, through which settings can be changed.
    link::create_pair(&node, &PairRequest::new(variant.device(), stranger::GIVEN, NODE))?;
    let inside = container.netns().map_err(|error| Stop::check(format!("the container's namespace: {error}")))?;
    link::move_to(&node, stranger::GIVEN, &inside)?;
    let attempts = container.attempts().map_err(|error| Stop::check(format!("the container's attempts: {error}")))?;
    let policy = link::info(&node, NODE)?.netkit.unwrap_or_default().policy;
    ctx.log(format!("policy of the node's end: {policy:?}; {attempts:?}"));
    Ok((node, attempts, container))
}

/// What `netkit_change_link()` changes at the peer lies in the peer's namespace; rtnetlink has only asked for `CAP_NET_ADMIN` in
/// the primary's.
const CHANGE_FROM_CONTAINER: Case = Case::new(
    "N16",
    "change-from-container",
    "A container's root changes the policy of its own end of a pair and not that of the node's: EPERM, and it stays.",
    change_from_container,
)
.needs(&[Capability::UserNs])
.over(variants::netkit_devices);
fn change_from_container(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (node, attempts, _container) = from_container(ctx, variant)?;
    ctx.equal("a change of its own end", attempts.policy, None);
    ctx.equal("a change of the node's end", attempts.peer_policy, Some(Errno::EPERM));
    let policy = link::info(&node, "node0")?.netkit.unwrap_or_default().policy;
    ctx.equal("policy of the node's end", policy.map(|policy| format!("{policy:?}")), Some("Pass".to_owned()));
    Ok(())
}

/// "rtnetlink: add missing netlink_ns_capable() check for peer netns" (CVE-2026-31692). A kernel without that
/// commit does not ask for `CAP_NET_ADMIN` in the peer's namespace.
const PAIR_FROM_CONTAINER: Case = Case::new(
    "N17",
    "pair-from-container",
    "A container's root makes no pair with an end in the node's namespace: EPERM, and no device is there.",
    pair_from_container,
)
.needs(&[Capability::UserNs])
.over(variants::netkit_devices);
fn pair_from_container(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let (node, attempts, _container) = from_container(ctx, variant)?;
    ctx.equal("a pair with an end in the node's namespace", attempts.pair, Some(Errno::EPERM));
    let planted = link::list(&node)?.into_iter().any(|info| info.name == stranger::OWN.1);
    ctx.equal("its end is on the node", planted, false);
    Ok(())
}
