//! Compares the mechanisms: the cost of a packet on each kind of link with each attach type.
//!
//! Every sample has its own topology, so that no setup affects the next one. A sample with a lost packet, or whose
//! programs did not run as expected, is an error.

mod meters;

use crate::{
    case::Direction,
    ctx::{Ctx, Stop},
    error::HarnessError,
    runner::Runner,
    testbed::{AttachedProgram, P0, P1, Spot, Testbed},
};
use lab_bpf::{Config, Program, ProgramKind};
use lab_protocol::{
    AttachType,
    measure::{MeasureRequest, Sample, Setup, Way},
};
use lab_topology::{Family, library};
use meters::Ends;
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Receives a sample: its round, its setup's index in the request, its figures.
type Tell<'a, E> = dyn FnMut(u32, u32, Sample) -> Result<(), E> + 'a;

impl Runner {
    /// Measures every setup in every round. Each round starts with the next setup, so that a temporary slowdown of
    /// the guest does not affect only one setup.
    ///
    /// # Errors
    /// The first setup that can't be measured, or the error of `tell`.
    pub fn measure<E: From<HarnessError>>(&self, request: &MeasureRequest, tell: &mut Tell<'_, E>) -> Result<(), E> {
        let window = Duration::from_millis(request.window_ms.into());
        let measure = |setup: Setup| {
            let mut ctx = self.context(request.time_scale);
            sample(&mut ctx, setup, window)
                .map_err(|stop| HarnessError::Measure { setup: setup.to_string(), reason: words(&stop) })
        };
        in_rounds(&request.setups, request.rounds, measure, tell)
    }
}

fn in_rounds<E: From<HarnessError>>(
    setups: &[Setup],
    rounds: u32,
    mut measure: impl FnMut(Setup) -> Result<Sample, HarnessError>,
    tell: &mut Tell<'_, E>,
) -> Result<(), E> {
    let count = setups.len();
    for round in 0..rounds {
        for step in 0..count {
            let at = (step + round as usize) % count;
            let sample = measure(setups[at])?;
            tell(round, at as u32, sample)?;
        }
    }
    Ok(())
}

fn words(stop: &Stop) -> String {
    match stop {
        Stop::Fail(_, message) => message.clone(),
        Stop::Skip(reason) => reason.detail.clone(),
    }
}

fn sample(ctx: &mut Ctx, setup: Setup, window: Duration) -> Result<Sample, Stop> {
    let testbed = Testbed::build(&library::PODS.of(setup.device))?;
    let programs = match setup.attach {
        Some(attach) => attach_all(ctx, &testbed, setup.way, attach)?,
        None => Vec::new(),
    };
    let (from, to) = (testbed.net.ns("w0"), testbed.net.ns("w1"));
    let dial = SocketAddr::new(testbed.net.addr("w1", Family::V4), ctx.marker);
    let ends = Ends { from, to, dial, patience: ctx.patience(2_000), window };
    let sample = Sample {
        round_trip_ns: meters::round_trip(&ends)?,
        bytes_per_second: meters::throughput(&ends)?,
        cpu_ns_per_packet: meters::processor_time(&ends)?,
    };
    for attached in &programs {
        let ran = attached.program.stats()?.marked;
        // `bpf_redirect_peer` bypasses the programs before the receiver's device.
        let passed_over = setup.way == Way::RedirectPeer && attached.receives;
        if (ran == 0) != passed_over {
            let at = attached.attachment.hook;
            return Err(Stop::check(format!("the program on {at} ran on {ran} packets")));
        }
    }
    Ok(sample)
}

struct Attached<'b> {
    program: Arc<Program>,
    attachment: AttachedProgram<'b>,
    /// Whether it is before the receiver.
    receives: bool,
}

/// A program at both hooks of both workloads, as a network plugin has them.
fn attach_all<'b>(
    ctx: &mut Ctx,
    testbed: &'b Testbed,
    way: Way,
    attach: AttachType,
) -> Result<Vec<Attached<'b>>, Stop> {
    let kind = match way {
        Way::Routed => ProgramKind::Count,
        Way::Redirect => ProgramKind::Redirect,
        Way::RedirectPeer => ProgramKind::RedirectPeer,
    };
    let mut attached = Vec::new();
    for (at, target, node) in [(P0, P1, "w1"), (P1, P0, "w0")] {
        // With `bpf_redirect` the program must write the link-layer address; an L3 netkit device has none.
        let eth_dst = testbed.net.readback(node, "eth0")?.mac.unwrap_or_default();
        let config = Config { target_ifindex: testbed.ifindex(target), eth_dst, ..Config::new(ctx.marker) };
        let steering = testbed.load(ctx, at, kind, config)?;
        let counting = testbed.counter(ctx, at)?;
        for (program, direction) in [(steering, Direction::FromWorkload), (counting, Direction::ToWorkload)] {
            let attachment = testbed.attach(ctx, at, attach.into(), direction, &program)?;
            confirm(testbed, at, attach, &program)?;
            attached.push(Attached { program, attachment, receives: direction == Direction::ToWorkload });
        }
    }
    Ok(attached)
}

/// Measures the attach types that the kernel lists, not those that were requested.
fn confirm(testbed: &Testbed, at: Spot, attach: AttachType, program: &Program) -> Result<(), Stop> {
    let used = testbed.find(at, program)?.map(|seen| seen.hook.attach_type());
    if used == Some(attach) {
        Ok(())
    } else {
        Err(Stop::check(format!("requested {attach}, but the kernel lists {used:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::LinkKind;

    #[test]
    fn each_round_begins_with_the_next_setup_and_tells_figures_of_the_setup_that_was_measured() {
        let kinds = [LinkKind::Veth, LinkKind::NetkitL2, LinkKind::NetkitL3];
        let setups = kinds.map(|device| Setup { way: Way::Routed, device, attach: None });
        let own = |setup: Setup| setups.iter().position(|it| *it == setup).unwrap() as f64;
        let measure = |setup| {
            let figure = own(setup);
            Ok(Sample { round_trip_ns: figure, bytes_per_second: figure, cpu_ns_per_packet: figure })
        };
        let mut told = Vec::new();
        let mut tell = |round, at: u32, sample: Sample| -> Result<(), HarnessError> {
            assert_eq!(sample.round_trip_ns, f64::from(at), "round {round}");
            told.push((round, at));
            Ok(())
        };
        in_rounds(&setups, 2, measure, &mut tell).unwrap();
        assert_eq!(told, [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (1, 0)]);
    }
}
