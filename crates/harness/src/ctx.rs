//! The state of a running case: its checks, attachments and clean-up.

pub use crate::error::AsErrno;
use crate::{
    capabilities::Capabilities,
    evidence::Evidence,
    fault::{Fault, MUTANT_TIME_SCALE, WeakCheck, weak},
    testbed::Testbed,
};
use lab_bpf::{BpfError, Program, Programs, datapath::DatapathObject};
use lab_protocol::{AttachRecord, Capability, CellReport, Check, FailureKind, Outcome, SkipReason};
use lab_topology::unpoisoned;
use lab_topology::{Family, Net, Topology};
use lab_traffic::WaitRounds;
use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Maximum log lines of one cell.
const MAX_LOG: usize = 500;
/// How long [`Ctx::becomes`] waits, milliseconds on a fast guest.
const BECOMES_MS: u64 = 2_000;
/// Interval at which a condition is checked.
const POLL: Duration = Duration::from_millis(2);

/// Why a case stops early. Returned with `?`, so that helpers can fail and skip too.
#[derive(Debug)]
pub enum Stop {
    /// A failure.
    Fail(FailureKind, String),
    /// The kernel lacks something.
    Skip(SkipReason),
}

impl Stop {
    /// A check without which the case cannot continue.
    pub fn check(message: impl Into<String>) -> Self {
        Self::Fail(FailureKind::Check, message.into())
    }

    /// A call failed unexpectedly.
    pub fn unexpected(message: impl fmt::Display) -> Self {
        Self::Fail(FailureKind::Unexpected, message.to_string())
    }
}

impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(FailureKind::Unexpected, lab_bpf::chain(&error))
    }
}

/// A clean-up action for [`Ctx::defer`].
type Cleanup = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// Returns how often a program ran on the cell's own packets.
pub type RunMeter = Box<dyn Fn() -> Result<u64, BpfError> + Send>;

/// An attachment; the run count of its program is read before clean-up.
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
    /// Probe results.
    pub capabilities: Arc<Capabilities>,
    /// Marker of this cell's own traffic, which its programs count: UDP and TCP port, and ICMP id.
    pub marker: u16,
    /// Factor on every deadline.
    pub time_scale: f32,
    /// The deliberate fault, if any.
    pub fault: Option<Fault>,
    checks: Vec<Check>,
    attached: Vec<Attached>,
    log: Vec<String>,
    metrics: BTreeMap<String, f64>,
    cleanups: Vec<(&'static str, Cleanup)>,
    /// Evidence, if the case's area is about traffic.
    evidence: Option<Mutex<Evidence>>,
    /// Topologies to delete at the end of the case, see [`Ctx::outlive`].
    nets: Vec<Arc<Net>>,
    /// The declared topology.
    topology: Option<Topology>,
    /// Whether the cell has built its declared topology.
    built: AtomicBool,
    /// Whether the cell has sent packets of a protocol that this machine lacks.
    without_ipv6: AtomicBool,
    /// What the cell declares.
    requires: Vec<Capability>,
}

impl Ctx {
    /// Creates an empty context.
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
            time_scale: time_scale.max(1.0),
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
            requires: Vec::new(),
        }
    }

    /// Sets the topology that the cell declares.
    #[must_use]
    pub(crate) fn with_topology(mut self, topology: Option<Topology>) -> Self {
        self.topology = topology;
        self
    }

    /// Builds the topology that the cell declares; every call builds a new one. A case cannot build a topology in
    /// another way, so that the listed and drawn topology is the one that runs.
    ///
    /// # Errors
    /// The kernel's error, or a failed check if the cell declares no topology.
    pub fn testbed(&self) -> Result<Testbed, Stop> {
        let topology = self.topology.as_ref().ok_or_else(|| Stop::check("the case declares no topology"))?;
        self.built.store(true, Ordering::Relaxed);
        Testbed::build(topology)
    }

    /// Records that the case is going to send packets of a family. Without IPv6, cases run with IPv4 only; a case
    /// that sends IPv6 anyway and fails is skipped.
    pub fn asks_for(&self, family: Family) {
        if !family.is_available() {
            self.without_ipv6.store(true, Ordering::Relaxed);
        }
    }

    /// An empty context on the same machine: for cases that test the harness's own checks.
    #[must_use]
    pub fn scratch(&self) -> Self {
        let (programs, capabilities) = (self.programs.clone(), self.capabilities.clone());
        Self::new(programs, self.datapath.clone(), capabilities, self.marker, self.time_scale, None)
    }

    /// [`Self::scratch`] with the topology that the cell declares.
    #[must_use]
    pub fn scratch_declaring(&self) -> Self {
        self.scratch().with_topology(self.topology.clone())
    }

    /// What was checked, in order.
    pub fn into_checks(self) -> Vec<Check> {
        self.checks
    }

    /// Starts to collect evidence, see [`Evidence`].
    #[must_use]
    pub fn with_evidence(mut self) -> Self {
        self.evidence = Some(Mutex::default());
        self
    }

    /// Starts captures at two nodes, if this case collects evidence.
    pub fn watch(&self, net: &Arc<Net>, nodes: [&str; 2]) {
        if let Some(evidence) = &self.evidence {
            unpoisoned(evidence.lock()).watch(net, nodes);
        }
    }

    /// Starts captures at both ends of a device's link, if this case collects evidence.
    pub fn watch_link(&self, net: &Arc<Net>, node: &str, dev: &str) {
        let link = net.topology().links.iter().find(|link| link.primary.node == node && link.primary.name == dev);
        if let Some(link) = link {
            self.watch(net, [&link.primary.node, &link.peer.node]);
        }
    }

    /// Drops a topology after the programs that were attached in it. The kernel frees a program after some grace
    /// periods, and a namespace by work that takes as long; this order lets both happen at the same time.
    pub fn outlive(&mut self, net: &Arc<Net>) {
        if !self.nets.iter().any(|held| Arc::ptr_eq(held, net)) {
            self.nets.push(net.clone());
        }
    }

    /// A duration on this guest: `millis` on a fast one, more under emulation. It is shorter for a case that has
    /// already failed: without passing packets its waits would add up to its deadline, and it would count as a hang.
    pub fn patience(&self, millis: u64) -> Duration {
        let failed = self.checks.iter().any(|check| !check.ok);
        Duration::from_millis(millis).mul_f32(if failed {
            self.time_scale.min(MUTANT_TIME_SCALE)
        } else {
            self.time_scale
        })
    }

    /// Adds a line to the cell's log.
    pub fn log(&mut self, line: impl Into<String>) {
        if self.log.len() < MAX_LOG {
            self.log.push(line.into());
        }
    }

    /// Adds a metric to the report.
    pub fn metric(&mut self, name: &str, value: f64) {
        self.metrics.insert(name.to_owned(), value);
    }

    /// Records a check and continues; a false one fails the cell at the end. Returns `ok`.
    pub fn check(&mut self, name: impl Into<String>, ok: bool, seen: impl fmt::Display) -> bool {
        if ok || !weak(WeakCheck::FailureForgotten) {
            self.checks.push(Check { name: name.into(), ok, seen: seen.to_string() });
        }
        if let Some(evidence) = self.evidence.as_mut().filter(|_| !ok) {
            unpoisoned(evidence.get_mut()).dump();
        }
        ok
    }

    /// Checks that two values are equal.
    pub fn equal<T: PartialEq + fmt::Debug>(&mut self, name: impl Into<String>, seen: T, wanted: T) -> bool {
        let ok = seen == wanted || weak(WeakCheck::AllEqual);
        let shown = if ok { format!("{seen:?}") } else { format!("{seen:?}, expected {wanted:?}") };
        self.check(name, ok, shown)
    }

    /// Checks that a call failed with exactly this errno.
    pub fn refused<T, E: AsErrno + fmt::Display>(
        &mut self,
        name: impl Into<String>,
        result: Result<T, E>,
        wanted: Errno,
    ) -> bool {
        match result {
            Ok(_) => self.check(name, weak(WeakCheck::SuccessIsRefusal), format!("succeeded, expected {wanted:?}")),
            Err(error) => {
                let ok = error.errno() == Some(wanted) || weak(WeakCheck::AnyErrno);
                let shown = if ok { format!("{wanted:?}") } else { format!("{error}, expected {wanted:?}") };
                self.check(name, ok, shown)
            }
        }
    }

    /// Stops the case unless the condition is true, for conditions on which the rest of the case depends.
    ///
    /// # Errors
    /// [`Stop::Fail`] if it is false.
    pub fn require(&mut self, name: &str, ok: bool, seen: impl fmt::Display) -> Result<(), Stop> {
        let seen = seen.to_string();
        let holds = self.check(name, ok, &seen) || weak(WeakCheck::RequireGoesOn);
        if holds { Ok(()) } else { Err(Stop::check(format!("{name}: {seen}"))) }
    }

    /// With what the cell declares as required.
    pub(crate) fn requiring(mut self, requires: &[Capability]) -> Self {
        self.requires = requires.to_vec();
        self
    }

    /// For code that several cases share: stops a case that uses it and does not declare the capability, on every
    /// kernel. A cell is skipped by what it declares, before it begins.
    ///
    /// # Errors
    /// A failure that names the capability.
    pub fn declared(&self, capability: Capability) -> Result<(), Stop> {
        if self.requires.contains(&capability) {
            return Ok(());
        }
        Err(Stop::check(format!("the case uses {capability}: add it to its needs()")))
    }

    /// Waits for a condition; returns false if it does not become true in time (milliseconds on a fast guest).
    ///
    /// # Errors
    /// The error of `condition`.
    pub fn wait_until(&self, millis: u64, mut holds: impl FnMut() -> Result<bool, Stop>) -> Result<bool, Stop> {
        let mut patience = WaitRounds::of(self.patience(millis));
        loop {
            if holds()? {
                return Ok(true);
            }
            if patience.left().is_none() || weak(WeakCheck::AskedOnce) {
                return Ok(weak(WeakCheck::TimeoutIsTrue));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Checks that a value is the wanted one, and waits for it first: for what the kernel does after a call has returned, such as
    /// a count of packets that were sent and whose receipt nothing has told yet (`netif_rx()`), or the state of a carrier.
    ///
    /// # Errors
    /// The error of `value`.
    pub fn becomes<T: PartialEq + fmt::Debug>(
        &mut self,
        name: impl Into<String>,
        wanted: T,
        value: impl FnMut() -> Result<T, Stop>,
    ) -> Result<bool, Stop> {
        self.becomes_within(BECOMES_MS, name, wanted, value)
    }

    /// [`Ctx::becomes`] within another time, milliseconds on a fast guest.
    ///
    /// # Errors
    /// The error of `value`.
    pub fn becomes_within<T: PartialEq + fmt::Debug>(
        &mut self,
        millis: u64,
        name: impl Into<String>,
        wanted: T,
        mut value: impl FnMut() -> Result<T, Stop>,
    ) -> Result<bool, Stop> {
        let mut seen = value()?;
        if seen != wanted {
            self.wait_until(millis, || {
                seen = value()?;
                Ok(seen == wanted)
            })?;
        }
        Ok(self.equal(name, seen, wanted))
    }

    /// Adds a clean-up action. The actions run in reverse order, also after a failure, and their failure fails the cell.
    pub fn defer<E: fmt::Display>(
        &mut self,
        what: &'static str,
        cleanup: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) {
        self.cleanups.push((what, Box::new(|| cleanup().map_err(|error| error.to_string()))));
    }

    /// Adds an attachment to the report. The number of marked packets is read from `program` at the end; `None` for
    /// a case that sends none.
    pub fn report_attachment(&mut self, record: AttachRecord, program: Option<Arc<Program>>) {
        let meter = program.map(|program| -> RunMeter { Box::new(move || program.stats().map(|stats| stats.marked)) });
        self.report_metered(record, meter);
    }

    /// Like [`Ctx::report_attachment`], for a program whose packets are counted elsewhere.
    pub fn report_metered(&mut self, record: AttachRecord, meter: Option<RunMeter>) {
        self.attached.push(Attached { record, meter });
        lab_traffic::gate::attached();
    }

    /// Reads the run counts of all reported programs now, and drops the programs and their topology: for cases that
    /// observe their deletion.
    pub fn ask_programs(&mut self) {
        for attached in &mut self.attached {
            if let Some(meter) = attached.meter.take() {
                let id = attached.record.prog_id;
                match meter() {
                    Ok(ran) => attached.record.ran = Some(if weak(WeakCheck::RunInvented) { ran.max(1) } else { ran }),
                    Err(error) => self.log.push(format!("cannot read the counters of program {id}: {error}")),
                }
            }
        }
        self.nets.clear();
    }

    /// Ends the case: reads counters, cleans up, and determines the outcome.
    pub fn finish(mut self, cell: lab_protocol::CellId, mut result: Result<(), Stop>) -> CellReport {
        self.ask_programs();
        for late in lab_traffic::late_arrivals().into_iter().filter(|_| !weak(WeakCheck::LateIgnored)) {
            self.check("nothing arrives after the window in which nothing must arrive", false, late);
        }
        // Read before clean-up; the references to the topology are dropped with it.
        let evidence = self.evidence.take().map(|evidence| unpoisoned(evidence.into_inner()));
        let failed = matches!(result, Err(Stop::Fail(..))) || self.checks.iter().any(|check| !check.ok);
        let attachments = evidence.filter(|_| failed).map(Evidence::attachments).unwrap_or_default();
        let mut cleanup_failures = Vec::new();
        while let Some((what, cleanup)) = self.cleanups.pop() {
            if let Err(error) = cleanup()
                && !weak(WeakCheck::CleanupIgnored)
            {
                cleanup_failures.push(format!("{what}: {error}"));
            }
        }
        if self.without_ipv6.load(Ordering::Relaxed)
            && !matches!(judge(&result, &self.checks, &[]), Outcome::Passed)
            && let Err(stop) = self.capabilities.need(Capability::Ipv6).map_err(Stop::Skip)
        {
            // Failed checks are only logged, because this machine cannot run the case.
            self.checks
                .iter()
                .filter(|check| !check.ok)
                .for_each(|check| self.log.push(format!("without IPv6: {}: {}", check.name, check.seen)));
            self.checks.retain(|check| check.ok);
            result = Err(stop);
        }
        let unbuilt = self.topology.as_ref().filter(|_| !self.built.load(Ordering::Relaxed));
        let outcome = match (judge(&result, &self.checks, &cleanup_failures), unbuilt) {
            (Outcome::Passed, Some(topology)) if !weak(WeakCheck::UnbuiltPasses) => Outcome::Failed {
                kind: FailureKind::Check,
                message: format!("the case declares the topology {} but did not build it", topology.name),
            },
            (outcome, _) => outcome,
        };
        CellReport {
            cell,
            outcome,
            attach: self.attached.into_iter().map(|attached| attached.record).collect(),
            checks: self.checks,
            duration_us: 0,
            waited_us: 0,
            log: self.log,
            metrics: self.metrics,
            program: None,
            witness: None,
            attachments,
        }
    }
}

fn judge(result: &Result<(), Stop>, checks: &[Check], cleanup_failures: &[String]) -> Outcome {
    let failed: Vec<&Check> = checks.iter().filter(|check| !check.ok).collect();
    let fail = |kind, message| Outcome::Failed { kind, message };
    match result {
        Err(Stop::Fail(kind, message)) => fail(*kind, message.clone()),
        Err(Stop::Skip(reason)) if weak(WeakCheck::SkipHidesFailure) => Outcome::Skipped { reason: reason.clone() },
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
        Ok(()) if checks.is_empty() && !weak(WeakCheck::NoChecksPass) => {
            fail(FailureKind::Check, "the case made no checks".into())
        }
        Ok(()) => Outcome::Passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ok: bool) -> Check {
        Check { name: "order".into(), ok, seen: "1, 2".into() }
    }

    #[test]
    fn a_case_without_checks_does_not_pass() {
        assert_eq!(judge(&Ok(()), &[], &[]).word(), "failed");
        assert_eq!(judge(&Ok(()), &[check(true)], &[]).word(), "passed");
    }

    #[test]
    fn a_failed_check_takes_precedence_over_a_later_skip_and_clean_up_counts() {
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
