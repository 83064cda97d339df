//! Runs cells one at a time, each on its own thread, with a deadline and a leak check.

use crate::{
    capabilities::Capabilities,
    ctx::Ctx,
    error::HarnessError,
    fault::{BuiltIn, Fault, MUTANT_TIME_SCALE},
    fence,
    leaks::{Inventory, LEFT},
    probe,
    suite::{Cell, Suite, templates},
    witness::WitnessFault,
};
use lab_bpf::{Programs, datapath::DatapathObject};
use lab_protocol::{
    Capability, CapabilityReport, CellId, CellInfo, CellReport, ErrorKind, FailureKind, KernelVersion, Outcome,
    SkipReason, Stated, cell::NO_MUTANT,
};
use lab_topology::unpoisoned;
use lab_topology::{Netns, Template, Topology, ahead, quiet};
use lab_traffic::Stamping;
use std::{
    any::Any,
    cmp::Reverse,
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle, ScopedJoinHandle},
    time::{Duration, Instant},
};

/// Directory of the eBPF objects in the image.
const OBJECT: &str = "/lib/bpf/lab.o";
const DATAPATH: &str = "/lib/bpf/datapath.o";
/// Directory for pins of cases.
pub const PINS: &str = "/sys/fs/bpf";
/// First marker; every cell has the next one, so that late packets of a cell never count for another.
const FIRST_MARKER: u16 = 20_000;
/// The marker for work outside of cases.
const NO_CASE: u16 = FIRST_MARKER - 1;
/// Number of namespaces that are kept ready: the number of nodes of most topologies.
const SPARES: usize = 4;
/// Number of topologies that are built before a guest is saved.
const AHEAD: usize = 6;
/// Longest wait for what another agent left: no time scale is known yet.
const CLEAN_UP: Duration = Duration::from_secs(10);
/// Maximum duration of one pass of the kernel's clean-up, milliseconds on a fast guest.
const SETTLE_MS: u64 = 2_000;

/// Parameters of a run, set by the host.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// Factor on every deadline.
    pub time_scale: f32,
    /// A deliberate fault, by name.
    pub mutant: Option<String>,
    /// Whether the user may pause the case: it has no deadline then.
    pub held: bool,
}

/// Result of running a cell.
#[derive(Debug)]
pub struct Finished {
    /// The report to send.
    pub report: CellReport,
    /// Set if the cell's thread is still running: the guest cannot be used any more.
    pub stuck: Option<String>,
}

/// All cells, on a probed kernel.
pub struct Runner {
    cells: HashMap<CellId, (u16, Arc<Cell>)>,
    mutants: Vec<(&'static str, Fault)>,
    templates: Vec<Template>,
    /// Objects that existed before the first cell.
    before: Mutex<Inventory>,
    capabilities: Arc<Capabilities>,
    objects: Mutex<Objects>,
    settled: Mutex<Option<Inventory>>,
    /// What the cell after this one builds.
    after: Mutex<Option<Topology>>,
    /// For the first case.
    case_thread: Mutex<Option<CaseThread>>,
    _stamping: Stamping,
}

/// The eBPF objects that cases load from.
#[derive(Clone)]
struct Objects {
    programs: Arc<Programs>,
    datapath: DatapathObject,
}

impl Objects {
    fn open() -> Result<Self, HarnessError> {
        let programs = Arc::new(Programs::open(Path::new(OBJECT))?);
        Ok(Self { programs, datapath: DatapathObject::open(Path::new(DATAPATH))? })
    }
}

impl Runner {
    /// Opens the eBPF objects, probes the kernel and prepares the machine, which must be the lab's own.
    ///
    /// # Errors
    /// The image has no object that can be read, the kernel refuses a query, or two suites contradict each other.
    pub fn probe(kernel: KernelVersion, suites: &[&'static dyn Suite]) -> Result<Self, HarnessError> {
        let objects = Objects::open()?;
        // Without /proc there are no corrections, but then nothing else works either.
        let cmdline = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        // Before the probes: some need buffers of the usual size.
        quiet::inherit();
        let capabilities = Capabilities::new(kernel, probe::all(kernel)).stated(Stated::of(&cmdline));
        let stamping = Stamping::keep().map_err(HarnessError::Stamping)?;
        Netns::keep_ready(SPARES);
        let templates = templates(suites)?;
        let cells = suites
            .iter()
            .flat_map(|suite| suite.cells())
            .chain(suites.iter().flat_map(|suite| suite.canaries()))
            .zip(FIRST_MARKER..)
            .map(|(cell, marker)| (cell.info.id.clone(), (marker, Arc::new(cell))))
            .collect();
        let before = Inventory::take(Path::new(PINS))?;
        Ok(Self {
            cells,
            mutants: suites
                .iter()
                .flat_map(|suite| suite.mutants())
                .map(|mutant| (mutant.name, mutant.fault))
                .collect(),
            templates,
            before: Mutex::new(before),
            capabilities: Arc::new(capabilities),
            objects: Mutex::new(objects),
            settled: Mutex::default(),
            after: Mutex::default(),
            case_thread: Mutex::new(CaseThread::start().ok()),
            _stamping: stamping,
        })
    }

    /// Objects that exist now but did not before the first cell, one entry each; `scale` is the host's factor for
    /// deadlines.
    pub fn left(&self, scale: f32) -> Vec<String> {
        let patience = Duration::from_millis(SETTLE_MS).mul_f32(scale.max(1.0));
        match unpoisoned(self.before.lock()).settled(Path::new(PINS), patience) {
            Ok(_) => Vec::new(),
            Err(HarnessError::Leaks { left, stalled: None }) => left,
            Err(error) => vec![error.to_string()],
        }
    }

    /// What exists now is nobody's fault from here on: somebody set it up.
    ///
    /// # Errors
    /// The kernel refuses a query.
    pub fn accept(&self) -> Result<(), HarnessError> {
        *unpoisoned(self.before.lock()) = Inventory::take(Path::new(PINS))?;
        Ok(())
    }

    /// The same, once the kernel has freed the namespaces that ended with the agent before this one, where it has devices that show
    /// that. What of it is still listed then is counted as there, and may vanish later; an id is not given twice.
    ///
    /// # Errors
    /// The kernel refuses a query.
    pub fn accept_after_another(&self) -> Result<(), HarnessError> {
        // A kernel without its modules has no pairs of devices, and on a busy host the clean-up takes its time.
        _ = fence::pass(Instant::now() + CLEAN_UP);
        self.accept()
    }

    /// Runs `work`, whose programs, maps and links are the lab's own and no leaks.
    ///
    /// # Errors
    /// The kernel refuses the query.
    pub fn except<R>(&self, work: impl FnOnce() -> R) -> Result<R, HarnessError> {
        unpoisoned(self.before.lock()).except(work)
    }

    /// Puts an object in place of the image's.
    ///
    /// # Errors
    /// It is none of those that can be exchanged, or it can't be read.
    pub fn exchange(&self, name: &str, bytes: &[u8]) -> Result<(), HarnessError> {
        let place = write_object(name, bytes)?;
        let mut objects = unpoisoned(self.objects.lock());
        if place == Path::new(OBJECT) {
            objects.programs = Arc::new(Programs::open(place)?);
        } else {
            objects.datapath = DatapathObject::open(place)?;
        }
        Ok(())
    }

    fn objects(&self) -> Objects {
        unpoisoned(self.objects.lock()).clone()
    }

    /// The probes' answers.
    pub fn capabilities(&self) -> &[CapabilityReport] {
        self.capabilities.reports()
    }

    /// Whether the kernel has this, and the skip of a cell that needs it.
    ///
    /// # Errors
    /// Why it has not.
    pub fn need(&self, capability: Capability) -> Result<(), SkipReason> {
        self.capabilities.need(capability)
    }

    /// A context for work outside of cases.
    pub(crate) fn context(&self, time_scale: f32) -> Ctx {
        let Objects { programs, datapath } = self.objects();
        Ctx::new(programs, datapath, self.capabilities.clone(), NO_CASE, time_scale, None)
    }

    /// The topology of that name.
    pub(crate) fn template(&self, name: &str) -> Option<&Template> {
        self.templates.iter().find(|template| template.name == name)
    }

    /// The fault with a name from the host.
    fn fault(&self, mutant: Option<&str>) -> Result<Option<Fault>, HarnessError> {
        match mutant {
            None | Some(NO_MUTANT) => Ok(None),
            Some(name) => match self.mutants.iter().find(|(known, _)| *known == name) {
                Some((_, fault)) => Ok(Some(*fault)),
                None => Err(HarnessError::UnknownMutant(name.to_owned())),
            },
        }
    }

    /// The fault of the witness with this name.
    pub fn witness_fault(&self, mutant: Option<&str>) -> Option<WitnessFault> {
        match self.fault(mutant) {
            Ok(Some(Fault::Witness(fault))) => Some(fault),
            _ => None,
        }
    }

    /// Whether a cell is known that runs after the next one. If not, nothing is prepared for it.
    pub fn expect_more(&self, is_known: bool) {
        Netns::replace_taken(is_known);
    }

    /// The cell of these suites that runs after the next one, if there is one: its topology is built while the clean-up of the
    /// one before is waited for.
    pub fn build_after_next(&self, after: Option<&CellId>) {
        let cell = after.and_then(|id| self.cells.get(id)).map(|(_, cell)| cell);
        *unpoisoned(self.after.lock()) = cell.filter(|cell| self.can_run(cell)).and_then(|cell| cell.topology());
    }

    /// Builds the topologies that most cells of this kernel have, one of each: the first cells of a guest that is restored
    /// begin with everything built.
    pub fn build_ahead(&self) {
        let mut used: Vec<(usize, Topology)> = Vec::new();
        let mut cells: Vec<_> = self.cells.values().filter(|(_, cell)| self.can_run(cell)).collect();
        cells.sort_by_key(|(marker, _)| *marker);
        for topology in cells.into_iter().filter_map(|(_, cell)| cell.topology()) {
            match used.iter_mut().find(|(_, known)| *known == topology) {
                Some((count, _)) => *count += 1,
                None => used.push((1, topology)),
            }
        }
        used.sort_by_key(|(count, _)| Reverse(*count));
        for (_, topology) in used.iter().take(AHEAD) {
            // A case that needs it builds it itself, and reports why that fails.
            _ = ahead::build(topology);
        }
        Netns::keep_ready(SPARES);
    }

    /// Deletes what was built ahead, for guests of other people's programs.
    pub fn forget_ahead(&self) {
        ahead::forget();
    }

    fn can_run(&self, cell: &Cell) -> bool {
        cell.info.requires.iter().all(|capability| self.capabilities.need(*capability).is_ok())
    }

    /// A cell's listing.
    pub fn info(&self, id: &CellId) -> Option<&CellInfo> {
        self.cells.get(id).map(|(_, cell)| &cell.info)
    }

    /// Runs one cell on a thread of its own, up to its deadline times `time_scale`, and counts what it leaves behind.
    pub fn run(&self, id: &CellId, options: &RunOptions) -> Finished {
        let started = Instant::now();
        let mut finished = self.run_untimed(id, options);
        finished.report.duration_us = started.elapsed().as_micros() as u64;
        finished
    }

    fn run_untimed(&self, id: &CellId, options: &RunOptions) -> Finished {
        let over = |outcome| Finished { report: CellReport::bare(id.clone(), outcome), stuck: None };
        let Some((marker, cell)) = self.cells.get(id) else {
            return over(Outcome::Errored { kind: ErrorKind::Agent, message: "the agent has no such cell".into() });
        };
        let fault = match self.fault(options.mutant.as_deref()) {
            Ok(fault) => fault,
            Err(error) => return over(Outcome::Errored { kind: ErrorKind::Agent, message: error.to_string() }),
        };
        let _built_in = BuiltIn::of(fault);
        let stretch = match options.mutant {
            Some(_) => options.time_scale.min(MUTANT_TIME_SCALE),
            None => options.time_scale,
        };
        for &capability in &cell.info.requires {
            if let Err(reason) = self.capabilities.need(capability) {
                return over(Outcome::Skipped { reason });
            }
        }
        // Reuses the count after the last cell: nothing runs between two cells.
        let known = unpoisoned(self.settled.lock()).take();
        let before = match known.map_or_else(|| Inventory::take(Path::new(PINS)), Ok) {
            Ok(before) => before,
            Err(error) => return over(Outcome::Errored { kind: ErrorKind::Agent, message: error.to_string() }),
        };
        let Objects { programs, datapath } = self.objects();
        let ctx = Ctx::new(programs, datapath, self.capabilities.clone(), *marker, stretch, fault)
            .requiring(&cell.info.requires);
        let scale = options.time_scale.max(1.0);
        let deadline = Duration::from_millis(cell.info.deadline_ms.into()).mul_f32(scale);
        let deadline = if options.held { Duration::MAX } else { deadline };
        let ready = unpoisoned(self.case_thread.lock()).take();
        let thread = ready.map_or_else(CaseThread::start, Ok);
        let started = thread.map_err(|error| Death::Panic(format!("cannot start a thread for the case: {error}")));
        let mut report = match started.and_then(|thread| thread.run(cell.clone(), ctx, deadline)) {
            Ok(report) => report,
            Err(Death::Stuck) => {
                let message = format!("still running after {:.1} s", deadline.as_secs_f32());
                let outcome = Outcome::Errored { kind: ErrorKind::Hang, message: message.clone() };
                return Finished {
                    report: CellReport::bare(id.clone(), outcome),
                    stuck: Some(format!("{id}: {message}")),
                };
            }
            Err(Death::Panic(message)) => {
                CellReport::bare(id.clone(), Outcome::Errored { kind: ErrorKind::Agent, message })
            }
        };
        // A case that panicked has not closed them.
        _ = lab_traffic::late_arrivals();
        if let Outcome::Failed { kind: FailureKind::Unexpected, message } = &report.outcome
            && let Some(reason) = self.capabilities.behind(message)
        {
            report.outcome = Outcome::Skipped { reason };
        }
        let patience = Duration::from_millis(SETTLE_MS).mul_f32(stretch.max(1.0));
        let next = unpoisoned(self.after.lock()).take().filter(|topology| !ahead::has(topology));
        let settled = thread::scope(|scope| {
            // The kernel's clean-up is mostly waiting for grace periods. A case builds what could not be built here itself.
            let building = next.as_ref().map(|topology| scope.spawn(|| _ = ahead::build(topology)));
            let settled = before.settled(Path::new(PINS), patience);
            _ = building.map(ScopedJoinHandle::join);
            settled
        });
        match settled {
            Ok(now) => *unpoisoned(self.settled.lock()) = Some(now),
            Err(error) => {
                let leaks = error.to_string();
                report.log.push(format!("{LEFT}{leaks}"));
                report.outcome = with_leaks(report.outcome, leaks);
            }
        }
        Finished { report, stuck: None }
    }
}

/// Writes an object in place of the image's, for a runner that is made later. Returns the place.
///
/// # Errors
/// It is none of those that can be exchanged, or the file can't be written.
pub fn write_object(name: &str, bytes: &[u8]) -> Result<&'static Path, HarnessError> {
    let place = [OBJECT, DATAPATH].map(Path::new).into_iter().find(|place| place.file_name() == Some(name.as_ref()));
    let place = place.ok_or_else(|| HarnessError::NotExchangeable(name.to_owned()))?;
    let written = std::fs::write(place, bytes);
    written.map_err(|error| HarnessError::Object { path: place.to_owned(), error })?;
    Ok(place)
}

/// What a cell that left objects behind ends as: whatever else it found counts more.
fn with_leaks(outcome: Outcome, leaks: String) -> Outcome {
    match outcome {
        Outcome::Passed | Outcome::Skipped { .. } => Outcome::Failed { kind: FailureKind::Leak, message: leaks },
        found => found,
    }
}

enum Death {
    Stuck,
    Panic(String),
}

/// A thread for one case. It is started before the case is known: in a guest that has just been restored, starting one takes as
/// long as a tenth of a short case.
struct CaseThread {
    case: mpsc::Sender<(Arc<Cell>, Ctx)>,
    result: mpsc::Receiver<thread::Result<CellReport>>,
    thread: JoinHandle<()>,
}

impl CaseThread {
    fn start() -> io::Result<Self> {
        let (case, cases) = mpsc::channel::<(Arc<Cell>, Ctx)>();
        let (results, result) = mpsc::channel();
        let thread = thread::Builder::new().name("case".into()).spawn(move || {
            if let Ok((cell, ctx)) = cases.recv() {
                let _ = results.send(catch_unwind(AssertUnwindSafe(|| cell.run(ctx))));
            }
        })?;
        Ok(Self { case, result, thread })
    }

    fn run(self, cell: Arc<Cell>, ctx: Ctx, deadline: Duration) -> Result<CellReport, Death> {
        let result = match self.case.send((cell, ctx)).map(|()| self.result.recv_timeout(deadline)) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => return Err(Death::Stuck),
        };
        // Joined, so that the thread's reference to its namespace is released before leaks are counted.
        let _ = self.thread.join();
        result.map_err(|panic| Death::Panic(format!("the case panicked: {}", words(&*panic))))
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{Capability, KernelVersion, SkipReason};

    #[test]
    fn a_cell_that_leaves_objects_behind_fails_unless_it_found_more() {
        let leak = Outcome::Failed { kind: FailureKind::Leak, message: "program 7".to_owned() };
        let (capability, detail) = (Capability::Netkit, "unknown device kind".to_owned());
        let reason = SkipReason { capability, detail, lifted_by: KernelVersion::new(6, 7, 0) };
        for clean in [Outcome::Passed, Outcome::Skipped { reason }] {
            assert_eq!(with_leaks(clean, "program 7".to_owned()), leak);
        }
        let failed = Outcome::Failed { kind: FailureKind::Check, message: "1, expected 2".to_owned() };
        let errored = Outcome::Errored { kind: ErrorKind::Agent, message: "the case panicked".to_owned() };
        for found in [failed, errored] {
            assert_eq!(with_leaks(found.clone(), "program 7".to_owned()), found);
        }
    }
}
