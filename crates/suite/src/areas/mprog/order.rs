//! Order, anchors and revisions of multi-program hooks (kernel/bpf/mprog.c), the same for tcx and netkit unless stated.

use super::chain::{Chain, next};
use lab_bpf::{Anchor, BpfLink, Mprog, Position, raw, raw::RawProgram};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::P0,
    variants,
};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use nix::errno::Errno;
use std::os::fd::AsFd;

/// `bpf_mprog_max()`: one less than `BPF_MPROG_MAX`, since the last item of the array ends it.
const MOST: usize = 63;

/// In the order in which they run.
pub const CASES: &[Case] = &[
    APPEND_AND_PREPEND,
    ANCHOR_PROG_FD,
    ANCHOR_PROG_ID,
    ANCHOR_LINK,
    BAD_REQUESTS,
    REPLACE,
    SIXTY_THREE,
    QUERY,
    PASS_ENDS_THE_CHAIN,
];

const APPEND_AND_PREPEND: Case = Case::new(
    "M01",
    "append-and-prepend",
    "Programs are appended by default, are first with BEFORE and last with AFTER, and run in the order of the query.",
    append_and_prepend,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn append_and_prepend(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let [a, b, c, d] = [(); 4].map(|()| chain.testbed.counter(ctx, P0));
    let (a, b, c, d) = (a?, b?, c?, d?);
    let _links = [
        chain.link(&*b, &Mprog::default())?,
        chain.link(&*c, &Mprog::default())?,
        chain.link(&*a, &Mprog::before(Anchor::None))?,
        chain.link(&*d, &Mprog::after(Anchor::None))?,
    ];
    for program in [&a, &b, &c, &d] {
        chain.testbed.report(ctx, P0, chain.request, program.id(), Some(program.clone()))?;
    }
    ctx.equal("order", chain.order()?, [&a, &b, &c, &d].map(|program| program.id()).to_vec());
    chain.testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
    let times: Vec<u64> = [&a, &b, &c, &d]
        .map(|program| program.stats().map(|stats| stats.last.time_ns))
        .into_iter()
        .collect::<Result<_, _>>()?;
    ctx.check("programs ran in this order", times.is_sorted() && times[0] > 0, format!("{times:?}"));
    Ok(())
}

/// A hook with a link's program, followed by one that was attached without a link.
struct Anchored {
    chain: Chain,
    linked: RawProgram,
    link: BpfLink,
    plain: RawProgram,
}

fn anchored(ctx: &mut Ctx, variant: &Variant) -> Result<Anchored, Stop> {
    let chain = Chain::new(ctx, variant)?;
    let (linked, plain) = (next()?, next()?);
    let link = chain.link(&linked, &Mprog::default())?;
    chain.attach(&plain, &Mprog::default())?;
    chain.report(ctx, linked.id())?;
    chain.report(ctx, plain.id())?;
    Ok(Anchored { chain, linked, link, plain })
}

impl Anchored {
    /// Inserts one program before and one after the anchor, and checks that they are its neighbours.
    fn around(&self, ctx: &mut Ctx, name: &str, anchor: Anchor<'_>, anchored: u32) -> Result<(), Stop> {
        let (front, back) = (next()?, next()?);
        let _front = self.chain.link(&front, &Mprog::before(anchor))?;
        let _back = self.chain.link(&back, &Mprog::after(anchor))?;
        let order = self.chain.order()?;
        let neighbours = order.windows(3).find(|window| window[1] == anchored).map(|window| (window[0], window[2]));
        ctx.equal(format!("around the {name}"), neighbours, Some((front.id(), back.id())));
        Ok(())
    }
}

const ANCHOR_PROG_FD: Case = Case::new(
    "M02",
    "anchor-prog-fd",
    "BEFORE and AFTER a program's descriptor insert next to that program, with or without a link.",
    around_prog_fd,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn around_prog_fd(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let hook = anchored(ctx, variant)?;
    hook.around(ctx, "descriptor of a program", Anchor::ProgFd(hook.plain.as_fd()), hook.plain.id())?;
    hook.around(ctx, "descriptor of a link's program", Anchor::ProgFd(hook.linked.as_fd()), hook.linked.id())
}

const ANCHOR_PROG_ID: Case = Case::new(
    "M03",
    "anchor-prog-id",
    "BEFORE and AFTER a program's id (BPF_F_ID) insert next to that program, with or without a link.",
    around_prog_id,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn around_prog_id(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let hook = anchored(ctx, variant)?;
    hook.around(ctx, "id of a program", Anchor::ProgId(hook.plain.id()), hook.plain.id())?;
    hook.around(ctx, "id of a link's program", Anchor::ProgId(hook.linked.id()), hook.linked.id())
}

const ANCHOR_LINK: Case = Case::new(
    "M04",
    "anchor-link",
    "BEFORE and AFTER a link (BPF_F_LINK), by descriptor and by id, insert next to the link's program.",
    around_link,
)
.on(library::PAIR)
.over(variants::link_mechanisms);
fn around_link(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let hook = anchored(ctx, variant)?;
    hook.around(ctx, "descriptor of a link", Anchor::LinkFd(hook.link.as_fd()), hook.linked.id())?;
    hook.around(ctx, "id of a link", Anchor::LinkId(hook.link.info()?.id), hook.linked.id())
}

const BAD_REQUESTS: Case = Case::new(
    "M05",
    "bad-requests",
    "Contradictory flags, duplicates and unknown flags are refused, and nothing changes.",
    bad_requests,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn bad_requests(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let (first, second) = (next()?, next()?);
    let _link = chain.link(&first, &Mprog::default())?;
    chain.report(ctx, first.id())?;
    let state = chain.query()?;
    let both = Mprog { place: Position::Both, anchor: Anchor::ProgFd(first.as_fd()), ..Mprog::default() };
    for (name, program, options, wanted) in [
        ("BEFORE and AFTER at once", &second, both, Errno::ERANGE),
        ("the same program twice", &first, Mprog::default(), Errno::EEXIST),
        ("an unknown flag", &second, Mprog { raw_flags: 1 << 30, ..Mprog::default() }, Errno::EINVAL),
    ] {
        ctx.refused(name, chain.link(program, &options), wanted);
        ctx.check(format!("{name}: nothing changed"), chain.query()? == state, format!("{:?}", chain.query()?));
    }
    let _second = chain.link(&second, &Mprog::default())?;
    ctx.equal("a plain request is accepted", chain.order()?, vec![first.id(), second.id()]);
    Ok(())
}

const REPLACE: Case = Case::new(
    "M09",
    "replace",
    "BPF_F_REPLACE replaces a program in its slot and increments the revision by one.",
    replace,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn replace(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let programs = [next()?, next()?, next()?];
    for program in &programs {
        chain.attach(program, &Mprog::default())?;
    }
    chain.report(ctx, programs[0].id())?;
    let before = chain.query()?;
    let fresh = next()?;
    chain.attach(&fresh, &Mprog::replacing(&programs[1]))?;
    ctx.equal(
        "the new program is in the old one's slot",
        chain.order()?,
        vec![programs[0].id(), fresh.id(), programs[2].id()],
    );
    ctx.equal("the revision is incremented", chain.query()?.revision, before.revision + 1);
    Ok(())
}

const SIXTY_THREE: Case = Case::new(
    "M10",
    "sixty-three",
    "A hook accepts at most 63 programs (bpf_mprog_max), and every packet passes all of them if they return UNSPEC.",
    sixty_three,
)
.on(library::PAIR)
.over(variants::link_hooks)
.within(30_000);
fn sixty_three(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let programs = (0..=MOST).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
    let last = chain.testbed.counter(ctx, P0)?;
    for program in &programs[..MOST - 1] {
        chain.attach(program, &Mprog::default())?;
    }
    chain.attach(&*last, &Mprog::default())?;
    chain.report(ctx, programs[0].id())?;
    ctx.equal("programs on the hook", chain.order()?.len(), MOST);
    ctx.refused("one more", chain.attach(&programs[MOST], &Mprog::default()), Errno::ERANGE);
    let direction = variant.direction.unwrap_or(Direction::FromWorkload);
    chain.testbed.passes_counted(ctx, "pod", "host", direction, &last)
}

const QUERY: Case = Case::new(
    "M12",
    "query",
    "A query reports the count of an empty hook and without a buffer, and refuses a buffer that is too small.",
    query,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn query(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let with_room = |room| chain.testbed.run(P0, || lab_bpf::query_with_room(chain.hook, chain.ifindex, room));
    let empty = chain.query()?;
    ctx.equal("an empty hook", (empty.revision, empty.entries.len()), (1, 0));
    let programs = [next()?, next()?, next()?];
    for program in &programs {
        chain.attach(program, &Mprog::default())?;
    }
    chain.report(ctx, programs[0].id())?;
    ctx.equal("revision after three", chain.query()?.revision, 4);
    let (count, without_room) = with_room(0);
    ctx.equal("count without a buffer", (count, without_room.is_ok()), (3, true));
    let (count, too_small) = with_room(2);
    ctx.refused("query with a buffer that is too small", too_small, Errno::ENOSPC);
    ctx.equal("count with a buffer that is too small", count, 3);
    ctx.equal("no links", chain.query()?.entries.iter().filter(|entry| entry.link_id.is_some()).count(), 0);
    Ok(())
}

const PASS_ENDS_THE_CHAIN: Case = Case::new(
    "M14",
    "pass-ends-the-chain",
    "NEXT continues with the next program of the hook; PASS ends the chain.",
    pass_ends_the_chain,
)
.on(library::PAIR)
.over(variants::link_hooks);
fn pass_ends_the_chain(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let chain = Chain::new(ctx, variant)?;
    let counter = chain.testbed.counter(ctx, P0)?;
    let _link = chain.link(&*counter, &Mprog::default())?;
    chain.testbed.report(ctx, P0, chain.request, counter.id(), Some(counter.clone()))?;
    for (name, verdict, reached) in [("NEXT", -1, true), ("PASS", 0, false)] {
        let first = raw::minimal(raw::BPF_PROG_TYPE_SCHED_CLS, 0, verdict)?;
        let _first = chain.link(&first, &Mprog::before(Anchor::None))?;
        let before = counter.stats()?.marked;
        chain.testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        let ran = counter.stats()?.marked - before;
        let wanted = if reached { u64::from(EXCHANGES) } else { 0 };
        ctx.equal(format!("packets that reached the second program behind {name}"), ran, wanted);
    }
    Ok(())
}
