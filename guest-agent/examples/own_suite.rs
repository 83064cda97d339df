//! An agent with a suite of one's own, which is the case of the README. `[agent] package` in `lab.toml` names the package of
//! such a program; `lab/tests/own-suite/` is one.

use lab_harness::{Cases, case::*, ctx::Ctx, library, testbed::P0, variants};

const COUNTS: Case = Case::new("A99", "counts", "An attached program sees the packets that its pod sends.", counts)
    .on(library::PODS) // two pods on a node that routes between them
    .over(variants::mechanisms); // every attach type on every kind of device that takes it

fn counts(ctx: &mut Ctx, variant: &Variant) -> CaseResult {
    let testbed = ctx.testbed()?;
    let program = testbed.counter(ctx, P0)?;
    let _link = testbed.attach(ctx, P0, variant.attach(), Direction::FromWorkload, &program)?;
    testbed.passes(ctx, "w0", "w1")?; // ICMP, UDP and TCP over IPv4 and IPv6
    let seen = program.stats()?.marked;
    ctx.check("the program sees the packets", seen > 0, seen);
    Ok(())
}

static AREA: Area = Area::new("own", &[&[COUNTS]]);
static SUITE: Cases = Cases::new(&[&AREA]);

fn main() -> std::process::ExitCode {
    guest_agent::main(&[&SUITE])
}
