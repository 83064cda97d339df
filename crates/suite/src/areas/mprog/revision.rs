//! Revisions, mixed chains and detaching by position (kernel/bpf/mprog.c).

use super::chain::{Chain, next};
use lab_bpf::{Anchor, Mprog};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    testbed::P0,
    variants,
};
use lab_protocol::{AttachRequest, Hook};
use lab_topology::library;
use nix::errno::Errno;
use std::os::fd::AsFd;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    ANCHOR_ELSEWHERE,
    EXPECTED_REVISION,
    EVERY_REVISION,
    LINKS_AMONG_PROGRAMS,
    REVISION_OF_AN_EMPTIED_HOOK,
    DETACH_BY_PLACE,
    NAMED_AND_PLACED,
];

const ANCHOR_ELSEWHERE: Case = Case::new(
    "M06",
    "anchor-elsewhere",
    "An anchor or a program to replace that is on another hook of the device is refused with ENOENT.",
    anchor_elsewhere,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn anchor_elsewhere(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let here = Chain::new(ctx, variant)?;
    let other = match here.hook {
        Hook::TcxIngress => Hook::TcxEgress,
        Hook::TcxEgress => Hook::TcxIngress,
        Hook::NetkitPeer => Hook::NetkitPrimary,
        _ => Hook::NetkitPeer,
    };
    let (own, away, fresh) = (next()?, next()?, next()?);
    let _own = here.link(&own, &Mprog::default())?;
    here.report(ctx, own.id())?;
    let ifindex = here.ifindex;
    let elsewhere = here.testbed.run(P0, || lab_bpf::attach_link(other, ifindex, &away, &Mprog::default()))?;
    let state = here.query()?;
    for (name, anchor) in [
        ("a program's descriptor", Anchor::ProgFd(away.as_fd())),
        ("a program's id", Anchor::ProgId(away.id())),
        ("a link's descriptor", Anchor::LinkFd(elsewhere.as_fd())),
        ("a link's id", Anchor::LinkId(elsewhere.info()?.id)),
    ] {
        ctx.refused(format!("before {name} of {other}"), here.link(&fresh, &Mprog::before(anchor)), Errno::ENOENT);
        ctx.refused(format!("after {name} of {other}"), here.attach(&fresh, &Mprog::after(anchor)), Errno::ENOENT);
    }
    ctx.refused("replacing a program of another hook", here.attach(&fresh, &Mprog::replacing(&away)), Errno::ENOENT);
    ctx.check("nothing changed", here.query()? == state, format!("{:?}", here.query()?));
    let _fresh = here.link(&fresh, &Mprog::before(Anchor::ProgId(own.id())))?;
    ctx.equal("an anchor on this hook is accepted", here.order()?, vec![fresh.id(), own.id()]);
    Ok(())
}

const EXPECTED_REVISION: Case = Case::new(
    "M07",
    "expected-revision",
    "Attach and detach accept the revision that a query reported and refuse any other with ESTALE, with and without links.",
    expected_revision,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn expected_revision(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (first, second, third) = (next()?, next()?, next()?);
    chain.attach(&first, &Mprog::default().at_revision(1))?;
    chain.report(ctx, first.id())?;
    let revision = chain.query()?.revision;
    ctx.equal("revision after one program", revision, 2);
    for (name, stale) in [("the one before", revision - 1), ("the next", revision + 1), ("the largest", u64::MAX)] {
        let options = Mprog::default().at_revision(stale);
        ctx.refused(format!("a link at {name}"), chain.link(&second, &options), Errno::ESTALE);
        ctx.refused(format!("a program at {name}"), chain.attach(&second, &options), Errno::ESTALE);
        ctx.refused(format!("detaching at {name}"), chain.detach(Some(&first), &options), Errno::ESTALE);
    }
    ctx.equal("revision after refused calls", chain.query()?.revision, revision);
    let _second = chain.link(&second, &Mprog::default().at_revision(revision))?;
    chain.attach(&third, &Mprog::default().at_revision(revision + 1))?;
    chain.detach(Some(&first), &Mprog::default().at_revision(revision + 2))?;
    ctx.equal("programs after changes with the current revision", chain.order()?, vec![second.id(), third.id()]);
    ctx.equal("revision after these changes", chain.query()?.revision, revision + 3);
    Ok(())
}

const EVERY_REVISION: Case = Case::new(
    "M15",
    "revision-after-every-operation",
    "Each change of a hook raises its revision by one; refused calls and an update to the same program leave it.",
    every_revision,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn every_revision(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let [kept, a, b, c] = [next()?, next()?, next()?, next()?];
    // The hook never becomes empty, which would start its revision again (M11).
    chain.attach(&kept, &Mprog::default())?;
    chain.report(ctx, kept.id())?;
    let mut revision = chain.query()?.revision;
    let mut after = |ctx: &mut Ctx, what: &str, by: u64| {
        revision += by;
        ctx.equal(format!("revision after {what}"), chain.query()?.revision, revision);
        Ok::<_, Stop>(())
    };
    let link = chain.link(&a, &Mprog::default())?;
    after(ctx, "a link", 1)?;
    link.update(&b, None)?;
    after(ctx, "an update of the link", 1)?;
    link.update(&b, None)?;
    after(ctx, "an update to the same program", 0)?;
    ctx.refused("an update from another program", link.update(&c, Some(a.as_fd())), Errno::EPERM);
    after(ctx, "a refused update", 0)?;
    chain.attach(&c, &Mprog::default())?;
    after(ctx, "a program", 1)?;
    ctx.refused("the same program again", chain.attach(&c, &Mprog::default()), Errno::EEXIST);
    after(ctx, "a refused program", 0)?;
    chain.attach(&a, &Mprog::replacing(&c))?;
    after(ctx, "a replacement", 1)?;
    chain.detach(Some(&a), &Mprog::default())?;
    after(ctx, "detaching a program", 1)?;
    link.detach()?;
    after(ctx, "detaching a link", 1)?;
    drop(link);
    after(ctx, "closing a detached link", 0)
}

const LINKS_AMONG_PROGRAMS: Case = Case::new(
    "M08",
    "links-among-programs",
    "In a chain of links and programs only programs without a link can be replaced or detached; others fail with EBUSY.",
    links_among_programs,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn links_among_programs(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let [a, b, c, d] = [next()?, next()?, next()?, next()?];
    let _a = chain.link(&a, &Mprog::default())?;
    chain.attach(&b, &Mprog::default())?;
    let _c = chain.link(&c, &Mprog::default())?;
    chain.attach(&d, &Mprog::default())?;
    chain.report(ctx, a.id())?;
    chain.report(ctx, b.id())?;
    let state = chain.query()?;
    let fresh = next()?;
    for (name, linked) in [("first", &a), ("third", &c)] {
        let replace = chain.attach(&fresh, &Mprog::replacing(linked));
        ctx.refused(format!("replacing the {name}, which has a link"), replace, Errno::EBUSY);
        ctx.refused(format!("detaching the {name}"), chain.detach(Some(linked), &Mprog::default()), Errno::EBUSY);
    }
    ctx.refused(
        "replacing by a program that is already attached",
        chain.attach(&d, &Mprog::replacing(&b)),
        Errno::EEXIST,
    );
    ctx.check("nothing changed", chain.query()? == state, format!("{:?}", chain.query()?));
    chain.attach(&fresh, &Mprog::replacing(&b))?;
    chain.detach(Some(&d), &Mprog::default())?;
    ctx.equal("programs replaced and detached around the links", chain.order()?, vec![a.id(), fresh.id(), c.id()]);
    let links: Vec<bool> = chain.query()?.entries.iter().map(|entry| entry.link_id.is_some()).collect();
    ctx.equal("entries that are links", links, vec![true, false, true]);
    Ok(())
}

const REVISION_OF_AN_EMPTIED_HOOK: Case = Case::new(
    "M11",
    "revision-of-an-emptied-hook",
    "After a hook became empty, its queried revision is valid for attaching on tcx but stale on netkit.",
    revision_of_an_emptied_hook,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn revision_of_an_emptied_hook(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (first, second) = (next()?, next()?);
    chain.attach(&first, &Mprog::default())?;
    chain.report(ctx, first.id())?;
    chain.detach(Some(&first), &Mprog::default())?;
    let empty = chain.query()?;
    ctx.equal("revision and count of the emptied hook", (empty.revision, empty.entries.len()), (1, 0));
    let again = chain.attach(&second, &Mprog::default().at_revision(empty.revision));
    if chain.request == AttachRequest::Netkit {
        // netkit_prog_query() reads no entry if the hook is empty, and reports 1; netkit_entry_fetch() continues with
        // the bundle's own count. tcx frees its entry and starts again.
        let fixed = again.is_ok();
        ctx.refused(
            "netkit refuses the revision that it reported (fixed upstream if this fails?)",
            again,
            Errno::ESTALE,
        );
        if !fixed {
            chain.attach(&second, &Mprog::default())?;
        }
    } else {
        ctx.check("tcx accepts the revision that it reported", again.is_ok(), format!("{again:?}"));
    }
    ctx.equal("programs attached at the end", chain.order()?, vec![second.id()]);
    Ok(())
}

/// The program that is detached from one end if no program is named.
fn detached(chain: &Chain, options: &Mprog<'_>) -> Result<Option<u32>, Stop> {
    let before = chain.order()?;
    chain.detach(NOBODY, options)?;
    let after = chain.order()?;
    Ok(before.into_iter().find(|id| !after.contains(id)))
}

/// No program, for [`Chain::detach`].
const NOBODY: Option<&lab_bpf::Program> = None;

const DETACH_BY_PLACE: Case = Case::new(
    "M13",
    "detach-by-place",
    "Without a given program, detach selects the first or the last; ENOENT if there is none, EBUSY if it has a link.",
    detach_by_place,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn detach_by_place(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (front, back) = (Mprog::before(Anchor::None), Mprog::after(Anchor::None));
    ctx.refused("detaching the first of an empty hook", chain.detach(NOBODY, &front), Errno::ENOENT);
    let [a, b, c, linked] = [next()?, next()?, next()?, next()?];
    for program in [&a, &b, &c] {
        chain.attach(program, &Mprog::default())?;
    }
    chain.report(ctx, a.id())?;
    ctx.equal("BEFORE detaches the first", detached(&chain, &front)?, Some(a.id()));
    ctx.equal("AFTER detaches the last", detached(&chain, &back)?, Some(c.id()));
    let link = chain.link(&linked, &Mprog::default())?;
    ctx.refused("detaching the last, which has a link", chain.detach(NOBODY, &back), Errno::EBUSY);
    let next_to = Mprog::before(Anchor::LinkFd(link.as_fd()));
    ctx.equal("detached before a link", detached(&chain, &next_to)?, Some(b.id()));
    ctx.equal("remaining programs", chain.order()?, vec![linked.id()]);
    Ok(())
}

const NAMED_AND_PLACED: Case = Case::new(
    "M16",
    "named-and-placed",
    "A program that is named together with a place is detached or replaced only there: ERANGE elsewhere, and nothing changes.",
    named_and_placed,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn named_and_placed(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let [a, b, c, d, e] = [next()?, next()?, next()?, next()?, next()?];
    for program in [&a, &b, &c] {
        chain.attach(program, &Mprog::default())?;
    }
    chain.report(ctx, a.id())?;
    let beside = |program| Anchor::ProgFd(AsFd::as_fd(program));
    let state = chain.query()?;
    for (what, options) in [
        ("the first, before the third", Mprog::before(beside(&c))),
        ("the first, after the second", Mprog::after(beside(&b))),
        ("the first, before itself", Mprog::before(beside(&a))),
        ("the first, at the end", Mprog::after(Anchor::None)),
    ] {
        ctx.refused(format!("detaching {what}"), chain.detach(Some(&a), &options), Errno::ERANGE);
        let replacing = Mprog { replace: Some(a.as_fd()), ..options };
        ctx.refused(format!("replacing {what}"), chain.attach(&d, &replacing), Errno::ERANGE);
    }
    ctx.check("nothing changed", chain.query()? == state, format!("{:?}", chain.query()?));
    chain.attach(&d, &Mprog { replace: Some(a.as_fd()), ..Mprog::before(beside(&b)) })?;
    ctx.equal("the first is replaced before the second", chain.order()?, vec![d.id(), b.id(), c.id()]);
    chain.attach(&e, &Mprog { replace: Some(c.as_fd()), ..Mprog::after(beside(&b)) })?;
    ctx.equal("the third is replaced after the second", chain.order()?, vec![d.id(), b.id(), e.id()]);
    ctx.equal("revision", chain.query()?.revision, state.revision + 2);
    chain.detach(Some(&d), &Mprog::before(beside(&b)))?;
    chain.detach(Some(&e), &Mprog::after(beside(&b)))?;
    ctx.equal("the first and the last are detached", chain.order()?, vec![b.id()]);
    let gone = chain.detach(Some(&b), &Mprog::before(beside(&e)));
    ctx.refused("detaching before a program that is not there", gone, Errno::ENOENT);
    Ok(())
}
