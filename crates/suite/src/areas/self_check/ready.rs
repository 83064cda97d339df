//! Topologies that are built before a case asks for them.

use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
    testbed::Testbed,
};
use lab_protocol::LinkKind;
use lab_topology::{Family, Netns, ahead, library};

pub(super) const CASES: &[Case] = &[BUILT_AHEAD];

const BUILT_AHEAD: Case = Case::new(
    "K18",
    "built-ahead-is-new",
    "A topology that was built ahead counts as nobody's until a case takes it, works, and is taken once.",
    built_ahead,
)
.on(library::PAIR)
.over(super::on_veth);
fn built_ahead(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    // What was built before this cell began may be taken here.
    let first = ctx.testbed()?;
    ahead::build(&library::PAIR.of(LinkKind::Veth))?;
    let (ready, living) = (Netns::spare_inodes(), living()?);
    let second = ctx.testbed()?;
    let taken = inodes(&second);
    ctx.check("its namespaces were nobody's", taken.iter().all(|inode| ready.contains(inode)), format!("{taken:?}"));
    let spares = Netns::spare_inodes();
    ctx.check("they are the case's now", !taken.iter().any(|inode| spares.contains(inode)), format!("{taken:?}"));
    ctx.equal("namespaces that count", self::living()?, living + taken.len());
    let patience = ctx.patience(2_000);
    let to = second.net.addr("host", Family::V4);
    let reply = lab_traffic::ping(second.net.ns("pod"), Some(second.net.ns("host")), to, ctx.marker, 1, patience);
    ctx.equal("it carries packets", reply.received, 1);
    let third = ctx.testbed()?;
    let others = [inodes(&first), inodes(&third)].concat();
    ctx.check("no other has them", !taken.iter().any(|inode| others.contains(inode)), format!("{others:?}"));
    Ok(())
}

fn inodes(testbed: &Testbed) -> Vec<u64> {
    ["host", "pod"].map(|node| testbed.net.ns(node).inode()).to_vec()
}

fn living() -> Result<usize, Stop> {
    Ok(Netns::living()?.len())
}
