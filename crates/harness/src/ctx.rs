//! The state of a running case: its checks, its attachments, its clean-up.

use crate::{
    capabilities::Capabilities,
    evidence::Evidence,
    fault::{Fault, MUTANT_TIME_SCALE},
    testbed::Testbed,
};
use lab_bpf::{BpfError, Program, Programs, datapath::DatapathObject};
use lab_protocol::{AttachRecord, Capability, CellReport, Check, FailureKind, Outcome, SkipReason};
use lab_topology::{Family, Net, Topology};
use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Lines of log that one cell may keep.
const MAX_LOG: usize = 500;
/// Interval at which a condition is checked.
const POLL: Duration = Duration::from_millis(2);

/// Why a case stops before its end. Travels through `?`, so that helpers may fail and skip too.
#[derive(Debug)]
pub enum Stop {
    /// A verdict on the kernel.
    Fail(FailureKind, String),
    /// The kernel lacks something.
    Skip(SkipReason),
}

impl Stop {
    /// An assertion without which going on makes no sense.
    pub fn check(message: impl Into<String>) -> Self {
        Self::Fail(FailureKind::Check, message.into())
    }

    /// A call failed that no check expected to fail.
    pub fn unexpected(message: impl fmt::Display) -> Self {
        Self::Fail(FailureKind::Unexpected, message.to_string())
    }
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !message.contains(&inner_text) {
                message.push_str(": ");
                message.push_str(&inner_text);
            }
            source = inner.source();
        }
        Self::Fail(FailureKind::Unexpected, message)
    }
}

/// What [`Ctx::defer`] takes.
type Cleanup = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// Tells how often a program ran on the cell's own packets.
pub type RunMeter = Box<dyn Fn() -> Result<u64, BpfError> + Send>;

/// An attachment whose program is asked once more, before clean-up, how often it ran.
struct Attached {
    record: AttachRecord,
    meter: Option<RunMeter>,
}

/// The state of one running cell.
pub struct Ctx {
    /// Loads eBPF programs.
    pub programs: Arc<Programs>,
    /// The miniature datapath's programs.
    pub datapath: DatapathObject,
    /// What the probes found.
    pub capabilities: Arc<Capabilities>,
    /// UDP and TCP port, and ICMP id, of this cell's own traffic: what its programs count.
    pub marker: u16,
    /// Factor on every deadline.
    pub time_scale: f32,
    /// A deliberate fault.
    pub fault: Option<Fault>,
    checks: Vec<Check>,
    attached: Vec<Attached>,
    log: Vec<String>,
    metrics: BTreeMap<String, f64>,
    cleanups: Vec<(&'static str, Cleanup)>,
    /// Kept where the case's area is one of traffic.
    evidence: Option<Mutex<Evidence>>,
    /// Topologies that end with the case, see [`Ctx::outlive`].
    nets: Vec<Arc<Net>>,
    /// What the cell declares.
    topology: Option<Topology>,
    /// Whether the cell has built what it declares.
    built: AtomicBool,
    /// Whether the cell has sent what this machine has no protocol for.
    without_ipv6: AtomicBool,
}

impl Ctx {
    /// An empty context.
    pub fn new(
        programs: Arc<Programs>,
        datapath: DatapathObject,
        capabilities: Arc<Capabilities>,
        marker: u16,
        time_scale: f32,
        fault: Option<Fault>,
    ) -> Self {
        Self {
            programs,
            datapath,
            capabilities,
            marker,
            time_scale,
            fault,
            checks: Vec::new(),
            attached: Vec::new(),
            log: Vec::new(),
            metrics: BTreeMap::new(),
            cleanups: Vec::new(),
            evidence: None,
            nets: Vec::new(),
            topology: None,
            built: AtomicBool::new(false),
            without_ipv6: AtomicBool::new(false),
        }
    }

    /// With the topology that the cell declares.
    #[must_use]
    pub(crate) fn with_topology(mut self, topology: Option<Topology>) -> Self {
        self.topology = topology;
        self
    }

    /// Builds the topology that the cell declares; every call builds another one. There is no other way for a case to
    /// build a topology, so that what is listed and drawn is what runs.
    ///
    /// # Errors
    /// The kernel's refusal, or a failed check where the cell declares none.
    pub fn testbed(&self) -> Result<Testbed, Stop> {
        let topology = self.topology.as_ref().ok_or_else(|| Stop::check("the case declares no topology"))?;
        self.built.store(true, Ordering::Relaxed);
        Testbed::build(topology)
    }

    /// Says that the case is about to send packets of a family. Where the machine has no IPv6, cases run in IPv4 alone; one
    /// that sends IPv6 all the same and fails is skipped for it.
    pub fn asks_for(&self, family: Family) {
        if !family.is_available() {
            self.without_ipv6.store(true, Ordering::Relaxed);
        }
    }

    /// Keeps evidence from now on, see [`Evidence`].
    #[must_use]
    pub fn with_evidence(mut self) -> Self {
        self.evidence = Some(Mutex::default());
        self
    }

    /// Captures at two nodes from now on, where this case keeps evidence.
    pub fn watch(&self, net: &Arc<Net>, nodes: [&str; 2]) {
        if let Some(evidence) = &self.evidence {
            evidence.lock().unwrap_or_else(PoisonError::into_inner).watch(net, nodes);
        }
    }

    /// Captures at both ends of a device's link from now on, where this case keeps evidence.
    pub fn watch_link(&self, net: &Arc<Net>, node: &str, dev: &str) {
        let link = net.topology().links.iter().find(|link| link.primary.node == node && link.primary.name == dev);
        if let Some(link) = link {
            self.watch(net, [&link.primary.node, &link.peer.node]);
        }
    }

    /// Drops a topology after the programs that were attached in it. The kernel frees a program after some grace periods,
    /// and a namespace by work that takes as long; this order lets both happen at the same time.
    pub fn outlive(&mut self, net: &Arc<Net>) {
        if !self.nets.iter().any(|held| Arc::ptr_eq(held, net)) {
            self.nets.push(net.clone());
        }
    }

    /// A duration on this guest: `millis` on a fast one, more under emulation. A case that has failed already
    /// gets less: where no packet passes any more, its waits would add up to its deadline, and it would count as a hang.
    pub fn patience(&self, millis: u64) -> Duration {
        let scale = self.time_scale.max(1.0);
        let failed = self.checks.iter().any(|check| !check.ok);
        Duration::from_millis(millis).mul_f32(if failed { scale.min(MUTANT_TIME_SCALE) } else { scale })
    }

    /// Notes a line.
    pub fn log(&mut self, line: impl Into<String>) {
        if self.log.len() < MAX_LOG {
            self.log.push(line.into());
        }
    }

    /// Keeps a number.
    pub fn metric(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }

    /// Records an assertion and continues; a false one fails the cell at the end. Returns the value of the assertion.
    pub fn check(&mut self, name: impl Into<String>, ok: bool, seen: impl fmt::Display) -> bool {
        self.checks.push(Check { name: name.into(), ok, seen: seen.to_string() });
        if let Some(evidence) = self.evidence.as_mut().filter(|_| !ok) {
            evidence.get_mut().unwrap_or_else(PoisonError::into_inner).dump();
        }
        ok
    }

    /// Asserts that two values are equal.
    pub fn equal<T: PartialEq + fmt::Debug>(&mut self, name: impl Into<String>, seen: T, wanted: T) -> bool {
        let ok = seen == wanted;
        let shown = if ok { format!("{seen:?}") } else { format!("{seen:?}, wanted {wanted:?}") };
        self.check(name, ok, shown)
    }

    /// Asserts that a call failed with exactly this errno.
    pub fn refused<T, E: AsErrno + fmt::Display>(
        &mut self,
        name: impl Into<String>,
        result: Result<T, E>,
        wanted: Errno,
    ) -> bool {
        match result {
            Ok(_) => self.check(name, false, format!("succeeded, wanted {wanted:?}")),
            Err(error) => {
                let ok = error.errno() == Some(wanted);
                let shown = if ok { format!("{wanted:?}") } else { format!("{error}, wanted {wanted:?}") };
                self.check(name, ok, shown)
            }
        }
    }

    /// Stops the case unless the condition holds: for what everything after depends on.
    ///
    /// # Errors
    /// [`Stop::Fail`] where it does not.
    pub fn require(&mut self, name: &str, ok: bool, seen: impl fmt::Display) -> Result<(), Stop> {
        let seen = seen.to_string();
        if self.check(name, ok, &seen) { Ok(()) } else { Err(Stop::check(format!("{name}: {seen}"))) }
    }

    /// Stops with a skip unless the kernel has the capability.
    ///
    /// # Errors
    /// [`Stop::Skip`] with what the probe found and the version that lifts it.
    pub fn need(&self, capability: Capability) -> Result<(), Stop> {
        self.capabilities.need(capability).map_err(Stop::Skip)
    }

    /// Waits for a condition; false where it does not come true in time (milliseconds on a fast guest).
    ///
    /// # Errors
    /// Those of the question.
    pub fn wait_until(&self, millis: u64, mut holds: impl FnMut() -> Result<bool, Stop>) -> Result<bool, Stop> {
        let deadline = Instant::now() + self.patience(millis);
        loop {
            if holds()? {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(POLL);
        }
    }

    /// Puts clean-up on the stack: it runs last in, first out, also after a failure, and its own failure fails the cell.
    pub fn defer(&mut self, what: &'static str, cleanup: impl FnOnce() -> Result<(), String> + Send + 'static) {
        self.cleanups.push((what, Box::new(cleanup)));
    }

    /// Adds an attachment to the report. `program` is asked at the end how many marked packets it saw; a case that
    /// sends none gives `None`.
    pub fn report_attachment(&mut self, record: AttachRecord, program: Option<Arc<Program>>) {
        let meter = program.map(|program| -> RunMeter { Box::new(move || program.stats().map(|stats| stats.marked)) });
        self.report_metered(record, meter);
    }

    /// Like [`Ctx::report_attachment`], for a program whose packets are counted elsewhere.
    pub fn report_metered(&mut self, record: AttachRecord, meter: Option<RunMeter>) {
        self.attached.push(Attached { record, meter });
        lab_traffic::gate::attached();
    }

    /// Reads the run counts of all reported programs now, and drops the programs and their topology: for cases that observe
    /// their deletion.
    pub fn ask_programs(&mut self) {
        for attached in &mut self.attached {
            if let Some(meter) = attached.meter.take() {
                let id = attached.record.prog_id;
                match meter() {
                    Ok(ran) => attached.record.ran = Some(ran),
                    Err(error) => self.log.push(format!("cannot read the counters of program {id}: {error}")),
                }
            }
        }
        self.nets.clear();
    }

    /// Ends the case: counts, cleans up, judges.
    pub fn finish(mut self, cell: lab_protocol::CellId, mut result: Result<(), Stop>) -> CellReport {
        self.ask_programs();
        // Read before clean-up; what it holds of the topology goes with it.
        let evidence =
            self.evidence.take().map(|evidence| evidence.into_inner().unwrap_or_else(PoisonError::into_inner));
        let failed = matches!(result, Err(Stop::Fail(..))) || self.checks.iter().any(|check| !check.ok);
        let attachments = evidence.filter(|_| failed).map(Evidence::attachments).unwrap_or_default();
        let mut cleanup_failures = Vec::new();
        while let Some((what, cleanup)) = self.cleanups.pop() {
            if let Err(error) = cleanup() {
                cleanup_failures.push(format!("{what}: {error}"));
            }
        }
        if self.without_ipv6.load(Ordering::Relaxed)
            && !matches!(judge(&result, &self.checks, &[]), Outcome::Passed)
            && let Err(stop) = self.need(Capability::Ipv6)
        {
            // What failed before belongs to the question that can't be asked here.
            self.checks
                .iter()
                .filter(|check| !check.ok)
                .for_each(|check| self.log.push(format!("without IPv6: {}: {}", check.name, check.seen)));
            self.checks.retain(|check| check.ok);
            result = Err(stop);
        }
        let unbuilt = self.topology.as_ref().filter(|_| !self.built.load(Ordering::Relaxed));
        let outcome = match (judge(&result, &self.checks, &cleanup_failures), unbuilt) {
            (Outcome::Passed, Some(topology)) => Outcome::Failed {
                kind: FailureKind::Check,
                message: format!("the case declares the topology {} and did not build it", topology.name),
            },
            (outcome, _) => outcome,
        };
        CellReport {
            cell,
            outcome,
            attach: self.attached.into_iter().map(|attached| attached.record).collect(),
            checks: self.checks,
            duration_us: 0,
            log: self.log,
            metrics: self.metrics,
            program: None,
            attachments,
        }
    }
}

fn judge(result: &Result<(), Stop>, checks: &[Check], cleanup_failures: &[String]) -> Outcome {
    let failed: Vec<&Check> = checks.iter().filter(|check| !check.ok).collect();
    let fail = |kind, message| Outcome::Failed { kind, message };
    match result {
        Err(Stop::Fail(kind, message)) => fail(*kind, message.clone()),
        _ if !failed.is_empty() => {
            let first = failed[0];
            let more = match failed.len() {
                1 => String::new(),
                count => format!(" (and {} more)", count - 1),
            };
            fail(FailureKind::Check, format!("{}: {}{more}", first.name, first.seen))
        }
        Err(Stop::Skip(reason)) => Outcome::Skipped { reason: reason.clone() },
        Ok(()) if !cleanup_failures.is_empty() => fail(FailureKind::Cleanup, cleanup_failures.join("; ")),
        Ok(()) if checks.is_empty() => fail(FailureKind::Check, "the case asserted nothing".into()),
        Ok(()) => Outcome::Passed,
    }
}

/// Errors that carry the kernel's errno.
pub trait AsErrno {
    /// The errno, where the kernel gave one.
    fn errno(&self) -> Option<Errno>;
}

impl AsErrno for Errno {
    fn errno(&self) -> Option<Errno> {
        Some(*self)
    }
}

impl AsErrno for std::io::Error {
    fn errno(&self) -> Option<Errno> {
        self.raw_os_error().map(Errno::from_raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ok: bool) -> Check {
        Check { name: "order".into(), ok, seen: "1, 2".into() }
    }

    #[test]
    fn a_case_that_asserts_nothing_does_not_pass() {
        assert_eq!(judge(&Ok(()), &[], &[]).word(), "failed");
        assert_eq!(judge(&Ok(()), &[check(true)], &[]).word(), "passed");
    }

    #[test]
    fn a_false_check_outweighs_a_later_skip_and_clean_up_counts() {
        let skip = SkipReason {
            capability: Capability::Netkit,
            detail: "RTM_NEWLINK: EOPNOTSUPP".into(),
            lifted_by: "6.7".parse().unwrap(),
        };
        assert_eq!(judge(&Err(Stop::Skip(skip.clone())), &[check(false)], &[]).word(), "failed");
        assert_eq!(judge(&Err(Stop::Skip(skip)), &[], &[]).word(), "skipped");
        assert_eq!(
            judge(&Ok(()), &[check(true)], &["pin: EBUSY".into()]),
            Outcome::Failed { kind: FailureKind::Cleanup, message: "pin: EBUSY".into() }
        );
    }
}
