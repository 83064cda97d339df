//! `lab bench datapath`: measures the datapath, as ratios to tc programs on a veth pair. Absolute times of different
//! guests can't be compared, least of all under emulation; ratios within a round can.

use crate::{
    bench::boot::Spread,
    run::visitor::{VisitError, Visitor},
};
use lab_protocol::{
    AgentMessage, AttachType, Capability, HostMessage, LinkKind,
    measure::{DATAGRAM, MeasureRequest, Sample, Setup, Way},
};
use lab_record::plan::KernelFacts;
use serde::Serialize;
use std::{
    cell::RefCell,
    fmt::Write,
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Deadline of one sample on a fast guest, in addition to its windows.
const SAMPLE: Duration = Duration::from_secs(10);
/// Measuring windows per sample: round trip, throughput, processor time.
const WINDOWS: u32 = 3;

/// All setups that a kernel supports, in display order.
pub fn setups(kernel: &KernelFacts) -> Vec<Setup> {
    let mut setups = Vec::new();
    for way in Way::ALL {
        for device in LinkKind::ALL {
            let can = |attach: Option<AttachType>| match attach {
                None => way == Way::Routed,
                Some(AttachType::Tc) => true,
                Some(AttachType::Tcx) => kernel.must_have(Capability::Tcx),
                Some(AttachType::Netkit) => device.is_netkit() && way != Way::RedirectPeer,
            };
            if device.is_netkit() && !kernel.must_have(Capability::Netkit) {
                continue;
            }
            let attaches = [None, Some(AttachType::Tc), Some(AttachType::Tcx), Some(AttachType::Netkit)];
            setups.extend(attaches.into_iter().filter(|attach| can(*attach)).map(|attach| Setup {
                way,
                device,
                attach,
            }));
        }
    }
    setups
}

/// The setup that all ratios of a way refer to.
const fn baseline(way: Way) -> Setup {
    Setup { way, device: LinkKind::Veth, attach: Some(AttachType::Tc) }
}

/// A session in which a guest measures.
pub struct Measurement<'a> {
    request: MeasureRequest,
    say: &'a dyn Fn(&str),
    state: RefCell<State>,
}

struct State {
    samples: Vec<(u32, Setup, Sample)>,
    heard: Instant,
    limit: Duration,
    end: Option<Result<(), String>>,
}

impl<'a> Measurement<'a> {
    /// Creates a measurement. `say` receives a line per round.
    pub fn new(setups: Vec<Setup>, rounds: u32, window_ms: u32, say: &'a dyn Fn(&str)) -> Self {
        let request = MeasureRequest { setups, rounds, window_ms, time_scale: 1.0, now_unix_ns: 0 };
        let state = State { samples: Vec::new(), heard: Instant::now(), limit: SAMPLE, end: None };
        Self { request, say, state: RefCell::new(state) }
    }

    /// Returns the rows of the kernel's table.
    ///
    /// # Errors
    /// The guest refused the request, or its measurement did not finish.
    pub fn rows(self) -> Result<Vec<DatapathRow>, MeasureError> {
        let state = self.state.into_inner();
        let end = state.end.ok_or(MeasureError::Unfinished)?;
        end.map_err(MeasureError::Refused)?;
        let wanted = self.request.setups.len() * self.request.rounds as usize;
        if state.samples.len() != wanted {
            return Err(MeasureError::Samples { brought: state.samples.len(), wanted });
        }
        Ok(self.request.setups.iter().filter_map(|setup| DatapathRow::of(*setup, &state.samples)).collect())
    }
}

/// A measurement without rows.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The guest did not report the end of its measurement.
    #[error("the guest did not finish its measurement")]
    Unfinished,
    /// The guest's message.
    #[error("{0}")]
    Refused(String),
    /// Samples are missing.
    #[error("the guest sent {brought} of {wanted} samples")]
    Samples {
        /// Number of received samples.
        brought: usize,
        /// Number of requested samples.
        wanted: usize,
    },
}

impl Visitor for Measurement<'_> {
    fn begin(&self, time_scale: f32, now_unix_ns: u64) -> HostMessage {
        let mut state = self.state.borrow_mut();
        state.heard = Instant::now();
        let windows = Duration::from_millis(self.request.window_ms.into()) * WINDOWS;
        state.limit = (SAMPLE + windows).mul_f32(time_scale.max(1.0));
        HostMessage::Measure(Box::new(MeasureRequest { time_scale, now_unix_ns, ..self.request.clone() }))
    }

    fn say(&self) -> Result<ControlFlow<(), Vec<HostMessage>>, VisitError> {
        let state = self.state.borrow();
        if state.heard.elapsed() > state.limit {
            return Err(VisitError::Overdue { what: "sample", limit: state.limit });
        }
        Ok(ControlFlow::Continue(Vec::new()))
    }

    fn hear(&self, message: AgentMessage) -> ControlFlow<()> {
        let mut state = self.state.borrow_mut();
        state.heard = Instant::now();
        match message {
            AgentMessage::Measured { round, setup, sample } => {
                let Some(setup) = self.request.setups.get(setup as usize) else { return ControlFlow::Continue(()) };
                state.samples.push((round, *setup, sample));
                if state.samples.len().is_multiple_of(self.request.setups.len()) {
                    let through = state.samples.len() / self.request.setups.len();
                    (self.say)(&format!("round {through} of {}", self.request.rounds));
                }
                return ControlFlow::Continue(());
            }
            AgentMessage::Done { .. } => state.end = Some(Ok(())),
            AgentMessage::Refused { message } => state.end = Some(Err(message)),
            _ => return ControlFlow::Continue(()),
        }
        ControlFlow::Break(())
    }
}

/// One setup on one kernel, over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatapathRow {
    /// The measured setup.
    #[serde(flatten)]
    pub setup: Setup,
    /// Round trip time of a datagram, divided by the baseline's of the same round; less is better.
    pub round_trip_ratio: Spread,
    /// TCP throughput, divided by the baseline's; more is better.
    pub throughput_ratio: Spread,
    /// Processor time per datagram, divided by the baseline's; less is better.
    pub cpu_ratio: Spread,
    /// Medians of the absolute values in this guest.
    pub median: Sample,
}

impl DatapathRow {
    fn of(setup: Setup, samples: &[(u32, Setup, Sample)]) -> Option<Self> {
        let of = |wanted: Setup| samples.iter().filter(move |(_, it, _)| *it == wanted);
        let base = |round: u32| of(baseline(setup.way)).find(|(it, ..)| *it == round).map(|(.., sample)| sample);
        let pairs: Vec<_> = of(setup).filter_map(|(round, _, sample)| Some((sample, base(*round)?))).collect();
        let ratio = |value: fn(&Sample) -> f64| {
            Spread::of(pairs.iter().map(|(sample, base)| value(sample) / value(base)).collect())
        };
        let median = |value: fn(&Sample) -> f64| Spread::of(of(setup).map(|(.., it)| value(it)).collect());
        let (trip, bytes, cpu) = (
            (|it: &Sample| it.round_trip_ns) as fn(&Sample) -> f64,
            (|it: &Sample| it.bytes_per_second) as fn(&Sample) -> f64,
            (|it: &Sample| it.cpu_ns_per_packet) as fn(&Sample) -> f64,
        );
        Some(Self {
            setup,
            round_trip_ratio: ratio(trip)?,
            throughput_ratio: ratio(bytes)?,
            cpu_ratio: ratio(cpu)?,
            median: Sample {
                round_trip_ns: median(trip)?.median,
                bytes_per_second: median(bytes)?.median,
                cpu_ns_per_packet: median(cpu)?.median,
            },
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelTable {
    pub kernel: String,
    /// `uname -r`.
    pub release: String,
    /// One row per setup.
    pub rows: Vec<DatapathRow>,
}

/// Content of `results/bench-datapath.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DatapathReport {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub qemu: String,
    /// Number of rounds.
    pub rounds: u32,
    /// Measuring time of each figure of a sample, milliseconds of guest time.
    pub window_ms: u32,
    /// Payload of the datagrams for `cpu_ratio`, bytes.
    pub datagram: usize,
    pub kernels: Vec<KernelTable>,
}

impl DatapathReport {
    pub fn new(accelerator: String, qemu: String, rounds: u32, window_ms: u32, kernels: Vec<KernelTable>) -> Self {
        Self { accelerator, qemu, rounds, window_ms, datagram: DATAGRAM, kernels }
    }

    /// Formats the report as Markdown.
    pub fn table(&self) -> String {
        let mut out = format!(
            "{}, QEMU {}, one processor per guest, {} rounds: median (smallest to largest) of the ratio to tc on veth \
             in the same round.\n",
            self.accelerator, self.qemu, self.rounds
        );
        if self.accelerator == "tcg" {
            out.push_str(
                "Under TCG the figures compare the work of emulated instructions: which mechanism does less, not how much \
                 time that saves on real hardware.\n",
            );
        }
        for KernelTable { kernel, release, rows } in &self.kernels {
            let _ = writeln!(out, "\n{kernel} ({release})\n");
            out.push_str("| way | link | program | round trip | TCP throughput | CPU per packet |\n");
            out.push_str("|---|---|---|---|---|---|\n");
            for row in rows {
                let Setup { way, device, attach } = row.setup;
                let attach = attach.map_or("none", AttachType::name);
                let shown = |spread: Spread| match row.setup == baseline(way) {
                    true => "1".to_owned(),
                    false => format!("{:.2} ({:.2} to {:.2})", spread.median, spread.min, spread.max),
                };
                let [trip, bytes, cpu] = [row.round_trip_ratio, row.throughput_ratio, row.cpu_ratio].map(shown);
                let _ = writeln!(out, "| {way} | {device} | {attach} | {trip} | {bytes} | {cpu} |");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::facts;

    fn sample(trip: f64, bytes: f64, cpu: f64) -> Sample {
        Sample { round_trip_ns: trip, bytes_per_second: bytes, cpu_ns_per_packet: cpu }
    }

    #[test]
    fn only_setups_that_the_kernel_supports_are_measured() {
        let told = |version: &str| setups(&facts("k", version)).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            told("6.1.170"),
            ["routed, veth, no program", "routed, veth, tc", "redirect, veth, tc", "redirect-peer, veth, tc"]
        );
        let all = told("6.12.43");
        assert_eq!(all.len(), 11 + 8 + 6);
        assert!(all.contains(&"redirect, nk-l3, netkit".to_owned()), "{all:?}");
        assert!(!all.iter().any(|it| it.contains("veth, netkit") || it.contains("peer") && it.contains(", netkit")));
    }

    #[test]
    fn ratios_are_computed_per_round_and_the_spread_over_rounds() {
        let setups = setups(&facts("6.1", "6.1.170"));
        let said = RefCell::new(Vec::new());
        let say = |line: &str| said.borrow_mut().push(line.to_owned());
        let measurement = Measurement::new(setups.clone(), 2, 10, &say);
        for (round, base) in [(0, 10.0), (1, 20.0)] {
            // Each round begins with the next setup.
            for at in (0..4).map(|step| (step + round) % 4) {
                let own = if setups[at].attach.is_some() { base } else { base / 2.0 + f64::from(round as u32) };
                let sample = sample(own, own, own);
                let message = AgentMessage::Measured { round: round as u32, setup: at as u32, sample };
                assert_eq!(measurement.hear(message), ControlFlow::Continue(()));
            }
        }
        assert_eq!(measurement.hear(AgentMessage::Done { ran: 8 }), ControlFlow::Break(()));
        assert_eq!(*said.borrow(), ["round 1 of 2", "round 2 of 2"]);
        let rows = measurement.rows().unwrap();
        assert_eq!(rows[0].cpu_ratio, Spread { median: 0.525, min: 0.5, max: 0.55 });
        let kernels = vec![KernelTable { kernel: "6.1".into(), release: "6.1.0-x".into(), rows }];
        let report = DatapathReport::new("tcg".into(), "7.2".into(), 2, 10, kernels);
        insta::assert_snapshot!(report.table());
    }

    #[test]
    fn an_unfinished_measurement_is_an_error() {
        let measurement = Measurement::new(setups(&facts("6.1", "6.1.170")), 1, 10, &|_| {});
        let message = AgentMessage::Measured { round: 0, setup: 0, sample: sample(1.0, 1.0, 1.0) };
        assert_eq!(measurement.hear(message), ControlFlow::Continue(()));
        assert_eq!(measurement.hear(AgentMessage::Done { ran: 1 }), ControlFlow::Break(()));
        assert_eq!(measurement.rows().unwrap_err().to_string(), "the guest sent 1 of 4 samples");
        let refused = Measurement::new(setups(&facts("6.1", "6.1.170")), 1, 10, &|_| {});
        assert!(refused.hear(AgentMessage::Refused { message: "lost".into() }).is_break());
        assert_eq!(refused.rows().unwrap_err().to_string(), "lost");
    }
}
