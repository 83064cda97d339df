//! An agent with a suite of one case on every kind of link.

use lab_harness::{Cases, case::*, ctx::Ctx, library, variants};

const POD_REACHES_HOST: Case = Case::new("Y01", "pod-reaches-host", "A pod reaches its host.", pod_reaches_host)
    .on(library::PAIR)
    .over(variants::devices);
fn pod_reaches_host(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    testbed.passes(ctx, "pod", "host")
}

static AREA: Area = Area::new("own", &[&[POD_REACHES_HOST]]);
static SUITE: Cases = Cases::new(&[&AREA]);

fn main() -> std::process::ExitCode {
    guest_agent::main(&[&SUITE])
}
