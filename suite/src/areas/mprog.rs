//! Order, anchors and revisions of multi-program hooks (kernel/bpf/mprog.c), equal for tcx and netkit unless said.

use crate::{
    bench::{Bench, P0, hook},
    case::{Area, Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    variants,
};
use lab_bpf::{Anchor, BpfError, Link, Mprog, Place, Query, raw, raw::RawProgram};
use lab_protocol::{AttachRequest, AttachType, Hook};
use lab_topology::Family;
use lab_traffic::Proto;
use nix::errno::Errno;
use std::os::fd::AsFd;

/// `bpf_mprog_max()`: one less than `BPF_MPROG_MAX`, since the last item of the array ends it.
const MOST: usize = 63;

pub const CASES: &[Case] = &[
    Case::new(
        "M01",
        "append-and-prepend",
        Area::Mprog,
        "pair",
        "Programs append by default, go first with BEFORE and last with AFTER, and run in the order of the query.",
        append_and_prepend,
    )
    .over(variants::link_hooks),
    Case::new(
        "M02",
        "anchors",
        Area::Mprog,
        "pair",
        "BEFORE and AFTER work relative to a program or link, by descriptor and by id.",
        anchors,
    )
    .over(variants::link_hooks),
    Case::new(
        "M05",
        "bad-requests",
        Area::Mprog,
        "pair",
        "Contradictory flags, foreign anchors, duplicates and stale revisions are refused, and nothing changes.",
        bad_requests,
    )
    .over(variants::link_hooks),
    Case::new(
        "M09",
        "replace",
        Area::Mprog,
        "pair",
        "BPF_F_REPLACE swaps a program in its slot and raises the revision by one; a link's program is refused.",
        replace,
    )
    .over(variants::link_hooks),
    Case::new(
        "M10",
        "sixty-three",
        Area::Mprog,
        "pair",
        "A hook takes 63 programs and no more (bpf_mprog_max), and so many without an opinion still let traffic pass.",
        sixty_three,
    )
    .over(variants::link_hooks)
    .within(30_000),
    Case::new(
        "M12",
        "query",
        Area::Mprog,
        "pair",
        "A query counts an empty hook, counts without room, and refuses too small a buffer with the true count.",
        query,
    )
    .over(variants::link_hooks),
    Case::new(
        "M14",
        "pass-ends-the-chain",
        Area::Mprog,
        "pair",
        "NEXT hands the packet to the next program of the hook; PASS ends the chain.",
        pass_ends_the_chain,
    )
    .over(variants::link_hooks),
];

/// A multi-program hook on the workload's link.
struct Chain {
    bench: Bench,
    request: AttachRequest,
    hook: Hook,
    ifindex: u32,
}

impl Chain {
    fn new(variant: &Variant) -> Result<Self, Stop> {
        let bench = Bench::pair(variant.device())?;
        let attach_type = match variant.attach() {
            AttachRequest::Netkit => AttachType::Netkit,
            _ => AttachType::Tcx,
        };
        let ifindex = bench.ifindex(P0);
        let request = variant.attach();
        Ok(Self { bench, request, hook: hook(attach_type, variant.direction()), ifindex })
    }

    fn link(&self, program: &(impl AsFd + Sync), options: &Mprog<'_>) -> Result<Link, BpfError> {
        self.bench.run(P0, || lab_bpf::attach_link(self.hook, self.ifindex, program, options))
    }

    fn attach(&self, program: &(impl AsFd + Sync), options: &Mprog<'_>) -> Result<(), BpfError> {
        self.bench.run(P0, || lab_bpf::attach_prog(self.hook, self.ifindex, program, options))
    }

    /// Reports a program without counters as the kernel lists it.
    fn report(&self, ctx: &mut Ctx, prog_id: u32) -> Result<(), Stop> {
        self.bench.report(ctx, P0, self.request, prog_id, None)
    }

    fn query(&self) -> Result<Query, BpfError> {
        self.bench.run(P0, || lab_bpf::query(self.hook, self.ifindex))
    }

    fn order(&self) -> Result<Vec<u32>, BpfError> {
        Ok(self.query()?.prog_ids())
    }
}

fn next() -> Result<RawProgram, BpfError> {
    raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, -1)
}

fn append_and_prepend(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let [a, b, c, d] = [(); 4].map(|()| chain.bench.counter(ctx, P0));
    let (a, b, c, d) = (a?, b?, c?, d?);
    let _links = [
        chain.link(&*b, &Mprog::default())?,
        chain.link(&*c, &Mprog::default())?,
        chain.link(&*a, &Mprog::before(Anchor::None))?,
        chain.link(&*d, &Mprog::after(Anchor::None))?,
    ];
    for program in [&a, &b, &c, &d] {
        chain.bench.report(ctx, P0, chain.request, program.id(), Some(program.clone()))?;
    }
    ctx.equal("order", chain.order()?, [&a, &b, &c, &d].map(|program| program.id()).to_vec());
    chain.bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let times: Vec<u64> = [&a, &b, &c, &d]
        .map(|program| program.stats().map(|stats| stats.last.time_ns))
        .into_iter()
        .collect::<Result<_, _>>()?;
    ctx.check("they ran in this order", times.is_sorted() && times[0] > 0, format!("{times:?}"));
    Ok(())
}

fn anchors(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let middle = next()?;
    let middle_link = chain.link(&middle, &Mprog::default())?;
    let link_id = middle_link.info()?.id;
    let plain = next()?;
    chain.attach(&plain, &Mprog::default())?;
    chain.report(ctx, middle.id())?;
    chain.report(ctx, plain.id())?;
    for (name, before, after) in [
        (
            "program descriptor",
            Mprog::before(Anchor::ProgFd(plain.as_fd())),
            Mprog::after(Anchor::ProgFd(plain.as_fd())),
        ),
        ("program id", Mprog::before(Anchor::ProgId(plain.id())), Mprog::after(Anchor::ProgId(plain.id()))),
        (
            "link descriptor",
            Mprog::before(Anchor::LinkFd(middle_link.as_fd())),
            Mprog::after(Anchor::LinkFd(middle_link.as_fd())),
        ),
        ("link id", Mprog::before(Anchor::LinkId(link_id)), Mprog::after(Anchor::LinkId(link_id))),
    ] {
        let (front, back) = (next()?, next()?);
        let _front = chain.link(&front, &before)?;
        let _back = chain.link(&back, &after)?;
        let anchored = if name.starts_with("program") { plain.id() } else { middle.id() };
        let order = chain.order()?;
        let at = order.iter().position(|&id| id == anchored).unwrap_or_default();
        let around = (at.checked_sub(1).and_then(|at| order.get(at)).copied(), order.get(at + 1).copied());
        ctx.equal(format!("around the {name}"), around, (Some(front.id()), Some(back.id())));
    }
    Ok(())
}

fn bad_requests(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let (first, second) = (next()?, next()?);
    let _link = chain.link(&first, &Mprog::default())?;
    chain.report(ctx, first.id())?;
    let state = chain.query()?;
    let stranger = next()?;
    let both = Mprog { place: Place::Both, anchor: Anchor::ProgFd(first.as_fd()), ..Mprog::default() };
    for (name, program, options, wanted) in [
        ("BEFORE and AFTER at once", &second, both, Errno::ERANGE),
        ("an anchor that is not on the hook", &second, Mprog::before(Anchor::ProgFd(stranger.as_fd())), Errno::ENOENT),
        ("the same program twice", &first, Mprog::default(), Errno::EEXIST),
        ("a stale revision", &second, Mprog::default().at_revision(state.revision + 7), Errno::ESTALE),
        ("an unknown flag", &second, Mprog { raw_flags: 1 << 30, ..Mprog::default() }, Errno::EINVAL),
    ] {
        ctx.refused(name, chain.link(program, &options), wanted);
        ctx.check(format!("{name}: nothing changed"), chain.query()? == state, format!("{:?}", chain.query()?));
    }
    let _second = chain.link(&second, &Mprog::default().at_revision(state.revision))?;
    ctx.equal("the true revision is accepted, and rises", chain.query()?.revision, state.revision + 1);
    Ok(())
}

fn replace(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let (linked, plain, last) = (next()?, next()?, next()?);
    let _link = chain.link(&linked, &Mprog::default())?;
    chain.attach(&plain, &Mprog::default())?;
    chain.attach(&last, &Mprog::default())?;
    chain.report(ctx, linked.id())?;
    chain.report(ctx, plain.id())?;
    let before = chain.query()?;
    let fresh = next()?;
    chain.attach(&fresh, &Mprog::replacing(&plain))?;
    ctx.equal("the slot is taken over", chain.order()?, vec![linked.id(), fresh.id(), last.id()]);
    ctx.equal("the revision rises by one", chain.query()?.revision, before.revision + 1);
    let other = next()?;
    ctx.refused("a link's program is not replaced", chain.attach(&other, &Mprog::replacing(&linked)), Errno::EBUSY);
    let detach = chain
        .bench
        .run(P0, || lab_bpf::detach_prog(chain.hook, chain.ifindex, Some(linked.as_fd()), &Mprog::default()));
    ctx.refused("a link's program is not detached", detach, Errno::EBUSY);
    Ok(())
}

fn sixty_three(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let programs = (0..=MOST).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
    for program in &programs[..MOST] {
        chain.attach(program, &Mprog::default())?;
    }
    chain.report(ctx, programs[0].id())?;
    ctx.equal("programs on the hook", chain.order()?.len(), MOST);
    ctx.refused("one more", chain.attach(&programs[MOST], &Mprog::default()), Errno::ERANGE);
    chain.bench.passes(ctx, "pod", "host")
}

fn query(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let with_room = |room| chain.bench.run(P0, || lab_bpf::query_with_room(chain.hook, chain.ifindex, room));
    let empty = chain.query()?;
    ctx.equal("an empty hook", (empty.revision, empty.entries.len()), (1, 0));
    let programs = [next()?, next()?, next()?];
    for program in &programs {
        chain.attach(program, &Mprog::default())?;
    }
    chain.report(ctx, programs[0].id())?;
    ctx.equal("revision after three", chain.query()?.revision, 4);
    let (count, without_room) = with_room(0);
    ctx.equal("count without room", (count, without_room.is_ok()), (3, true));
    let (count, too_small) = with_room(2);
    ctx.refused("too small a buffer", too_small, Errno::ENOSPC);
    ctx.equal("the true count all the same", count, 3);
    ctx.equal("no links", chain.query()?.entries.iter().filter(|entry| entry.link_id.is_some()).count(), 0);
    Ok(())
}

fn pass_ends_the_chain(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(variant)?;
    let counter = chain.bench.counter(ctx, P0)?;
    let _link = chain.link(&*counter, &Mprog::default())?;
    chain.bench.report(ctx, P0, chain.request, counter.id(), Some(counter.clone()))?;
    for (name, verdict, reached) in [("NEXT", -1, true), ("PASS", 0, false)] {
        let first = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, verdict)?;
        let _first = chain.link(&first, &Mprog::before(Anchor::None))?;
        let before = counter.stats()?.marked;
        chain.bench.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        let ran = counter.stats()?.marked - before;
        ctx.check(format!("behind {name}"), (ran > 0) == reached, format!("{ran} packets reached the second program"));
    }
    Ok(())
}
