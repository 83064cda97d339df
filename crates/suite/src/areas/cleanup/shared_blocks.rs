//! clsact and tcx on one device if clsact uses shared filter blocks: adding, removing, and failures of adding.
//!
//! Both use one `tcx_entry` per device and direction, which is freed with its last user.

use lab_bpf::{Sharing, TcOptions};
use lab_harness::{
    case::{Case, CaseResult, Direction, Variant},
    ctx::{Ctx, Stop},
    flows::EXCHANGES,
    testbed::{P0, P1},
    variants,
};
use lab_protocol::{AttachRequest, Capability};
use lab_topology::{Family, library};
use lab_traffic::Proto;
use nix::errno::Errno;

/// Any number that is not 0.
const BLOCK: u32 = 10;

/// In the order in which they run.
pub const CASES: &[Case] = &[SHARED_BLOCK_UNDER_TCX, REFUSED_BLOCK_UNDER_TCX];

const SHARED_BLOCK_UNDER_TCX: Case = Case::new(
    "X07",
    "shared-block-under-tcx",
    "A filter block shared by two devices and a tcx program on one of them are added and removed independently.",
    shared_block_under_tcx,
)
.on(library::PODS)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
/// Without "bpf: Fix too early release of tcx_entry" (CVE-2024-41010, older than every kernel with tcx here) the entry
/// is freed too early, which only a memory checker detects; all kernels can show that removing one user does not affect
/// the other.
fn shared_block_under_tcx(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROUNDS: usize = 10;
    let testbed = ctx.testbed()?;
    let (own, common) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P1)?);
    let on = |at| testbed.run(at, || lab_bpf::clsact_sharing(testbed.ifindex(at), BLOCK, Sharing::Ingress));
    let off = |at| testbed.run(at, || lab_bpf::clsact_del(testbed.ifindex(at)));
    let filter = || testbed.run(P0, || lab_bpf::attach_to_block(BLOCK, &*common, TcOptions::default()));
    let sent = u64::from(EXCHANGES);
    // Packets that a flow from each pod adds to the counters of the tcx program and of the block.
    let counted = |ctx: &mut Ctx, when: &str, wanted: [(u64, u64); 2]| {
        for (pod, wanted) in ["w0", "w1"].into_iter().zip(wanted) {
            let before = (own.stats()?.marked, common.stats()?.marked);
            testbed.flow_passes(ctx, pod, "host", Proto::Udp, Family::V4);
            let seen = (own.stats()?.marked - before.0, common.stats()?.marked - before.1);
            let wanted = (wanted.0 * sent, wanted.1 * sent);
            ctx.equal(format!("{when}: packets of {pod} at the tcx program and at the block"), seen, wanted);
        }
        Ok::<_, Stop>(())
    };
    let tcx = |ctx: &mut Ctx| testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &own);

    let attached = tcx(ctx)?;
    let before = testbed.observe(P0)?;
    on(P0)?;
    on(P1)?;
    filter()?;
    counted(ctx, "both share", [(1, 1), (0, 1)])?;
    off(P0)?;
    ctx.equal("attached to the first device", testbed.observe(P0)?, before);
    counted(ctx, "second device only", [(1, 0), (0, 1)])?;
    on(P0)?;
    attached.detach()?;
    counted(ctx, "shared again, tcx detached", [(0, 1), (0, 1)])?;
    for round in 0..ROUNDS {
        // The entry's last user is tcx in one round and the block in the next.
        let attached = tcx(ctx)?;
        off(P0)?;
        if round % 2 == 0 {
            attached.detach()?;
            on(P0)?;
        } else {
            on(P0)?;
            attached.detach()?;
        }
    }
    let _attached = tcx(ctx)?;
    counted(ctx, "after the rounds", [(1, 1), (0, 1)])?;
    off(P1)?;
    off(P0)?;
    ctx.refused("a filter for a block without devices", filter().map(drop), Errno::EINVAL);
    counted(ctx, "without the block", [(1, 0), (0, 0)])
}

const REFUSED_BLOCK_UNDER_TCX: Case = Case::new(
    "X08",
    "refused-block-under-tcx",
    "A clsact refused half-way leaves no objects; as a replacement it keeps the old qdisc but disables its filters.",
    refused_block_under_tcx,
)
.on(library::PAIR)
.over(variants::devices)
.needs(&[Capability::Tcx, Capability::Clsact]);
/// clsact's init can fail without memory pressure, because a block accepts a device only once ("block dev insert
/// failed"). The bug that "clsact: Fix use-after-free in init/destroy rollback asymmetry" (CVE-2026-23413) fixes on
/// this path is a wrong reference count. While tcx programs are attached, it only leaks an entry.
fn refused_block_under_tcx(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let ifindex = testbed.ifindex(P0);
    let (from, to) = (testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?);
    let _from = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::FromWorkload, &from)?;
    let _to = testbed.attach(ctx, P0, AttachRequest::Tcx, Direction::ToWorkload, &to)?;
    let attached = testbed.observe(P0)?;
    let clsact = |how| testbed.run(P0, || lab_bpf::clsact_sharing(ifindex, BLOCK, how));
    let kinds = || {
        let listed = testbed.run(P0, || lab_bpf::qdiscs(ifindex))?;
        Ok::<_, Stop>(listed.into_iter().map(|qdisc| qdisc.kind).filter(|kind| kind != "noqueue").collect::<Vec<_>>())
    };
    // The second failure must equal the first ("net/sched: sch_api: fix xa_insert() error path in
    // tcf_block_get_ext()").
    for time in ["first", "second"] {
        ctx.refused(format!("one block for both lists, the {time} time"), clsact(Sharing::Both), Errno::EBUSY);
        ctx.equal(format!("qdiscs after the {time} time"), kinds()?, vec![]);
        ctx.equal(format!("attached programs after the {time} time"), testbed.observe(P0)?, attached.clone());
    }
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &from)?;

    clsact(Sharing::Old)?;
    let filters = [testbed.counter(ctx, P0)?, testbed.counter(ctx, P0)?];
    let block = |which: usize, priority| {
        let options = TcOptions { priority, ..TcOptions::default() };
        testbed.run(P0, || lab_bpf::attach_to_block(BLOCK, &*filters[which], options)).map(drop)
    };
    let counted = |ctx: &mut Ctx, when: &str, wanted: [u64; 4]| {
        let seen = || {
            let both = [filters[0].stats()?.marked, filters[1].stats()?.marked];
            Ok::<_, Stop>([from.stats()?.marked, to.stats()?.marked, both[0], both[1]])
        };
        let before = seen()?;
        testbed.flow_passes(ctx, "pod", "host", Proto::Udp, Family::V4);
        let counted: Vec<u64> = seen()?.iter().zip(before).map(|(after, before)| after - before).collect();
        let wanted = wanted.map(|times| times * u64::from(EXCHANGES)).to_vec();
        ctx.equal(format!("{when}: packets at both tcx programs and at each filter"), counted, wanted);
        Ok::<_, Stop>(())
    };
    block(0, 2)?;
    counted(ctx, "before", [1, 1, 1, 0])?;
    ctx.refused("a replacing clsact with the same block", clsact(Sharing::Replacing), Errno::EBUSY);
    // The rollback of the refused qdisc also removes the old qdisc's filter chain from the entry: the filter is listed
    // but does not run (`tcf_chain0_head_change_cb_del()`), until another filter is added.
    counted(ctx, "refused", [1, 1, 0, 0])?;
    ctx.equal("qdiscs are unchanged", kinds()?, vec!["ingress".to_owned()]);
    block(1, 1)?;
    counted(ctx, "with another filter before it", [1, 1, 1, 1])?;
    testbed.run(P0, || lab_bpf::clsact_del(ifindex))?;
    ctx.equal("attached at the end", testbed.observe(P0)?, attached);
    testbed.passes_counted(ctx, "pod", "host", Direction::FromWorkload, &from)
}
