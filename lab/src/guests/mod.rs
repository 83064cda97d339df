//! Runs guests, for all commands that boot guests.

mod conduct;
pub mod machine;
pub mod rounds;
mod visit;

pub use conduct::{Conducted, Order, Talk};
pub use visit::VisitLog;

use super::project::{Project, absolute};
use crate::{
    error::Error,
    guests::machine::{Machine, Shape, kernel_files},
    lists::Lists,
    pace::Pace,
    project::{
        home::{self, Home},
        select::{Selected, facts, stated},
    },
    provenance,
    run::{
        common::{GuestFiles, PrepareError, Retries},
        deadline::{Chosen, Deadline},
        dispatch::Run,
        held::GuestHolder,
        program::Streams,
        queue::Isolate,
        reuse::{EarlierRun, content_of},
        room::Room,
        timing::Timing,
    },
    serve,
    setup::{self, Tools},
    shard::durations::{self, Durations},
    world::World,
};
use lab_base::{
    arch::Architecture,
    facts::Facts,
    held::HeldFile,
    interrupt::Interrupt,
    say::{self, note, say},
};
use lab_guard::Id;
use lab_image::Sends;
use lab_kernel_store::{BootableKernel, Kernel};
use lab_protocol::{Raw, drawing::TopologyInfo};
use lab_record::{
    event::{Accelerator, RunInfo, Versions},
    guest::KernelRecord,
    plan::{Expectation, KernelFacts, Plan, PlannedKernel},
    provenance::{Call, Provenance},
    reporter::Reporter,
    run::RunRecord,
    shard::Shard,
};
use lab_report::{
    progress::{Bars, Detail, PlainLines},
    results::directory,
};
use lab_vm::{Accel, Acceleration, VngLauncher, accel, snapshot::SnapshotStore, stock::Stock};
use std::{
    collections::BTreeSet,
    num::NonZeroUsize,
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ScopedJoinHandle, available_parallelism},
};

/// Cells of a kernel up to which its guests are sent what has changed. A new image would take a boot; for more cells, each of which
/// may have a guest of its own, it is worth that.
const FEW: usize = 16;

/// How guests are run.
#[derive(Debug, Clone, Default)]
pub struct GuestOptions {
    /// Maximum number of parallel guests; by default one per processor, limited by memory.
    pub jobs: Option<NonZeroUsize>,
    /// Name of the deliberate fault.
    pub mutant: Option<String>,
    /// Boot every guest instead of restoring snapshots.
    pub cold: bool,
    /// Which cells share a guest.
    pub isolate: Isolate,
    /// Whether guests are taken from `lab serve`, where that runs, and it holds others for the next run.
    pub may_be_held: bool,
    /// Whether the cells are canaries.
    pub canary: bool,
    /// Allowed splats and known failures.
    pub lists: Lists,
    /// Lists in the place of the project's.
    pub own_lists: Option<Lists>,
    /// How cells that do not pass are repeated.
    pub retries: Retries,
    /// Whether the first failure ends the run.
    pub fail_fast: bool,
    /// The shard, if the plan is a part of a larger one.
    pub shard: Option<Shard>,
    /// Deadlines from the command line.
    pub deadlines: Vec<Deadline>,
    /// Streams of programs that are cells.
    pub streams: Option<Arc<Streams>>,
    /// The machine of each guest.
    pub shape: Shape,
    /// The words of the `lab exec` that the run is.
    pub exec: Vec<Raw>,
    /// GuestFiles of the host for programs.
    pub world: Option<Arc<World>>,
    /// Verdicts of an earlier run to take over.
    pub earlier: Option<Arc<EarlierRun>>,
    /// Whether a kernel that is much slower than recorded fails the run.
    pub slow_fails: bool,
    /// The record for that, if it is not the machine's.
    pub pace: Option<Arc<Pace>>,
    /// The arguments that select the same cells on one of the kernels, for commands that run them again.
    pub selection: Selection,
}

impl GuestOptions {
    /// What the guests of a kernel that runs this many cells are sent.
    fn sends(&self, cells: usize) -> Sends {
        // Programs use none of the objects.
        if !self.exec.is_empty() || self.cold || cells > FEW {
            return Sends::Nothing;
        }
        // Each guest takes the time of the probes to exchange its agent: not where there are many. Programs and the witness leave
        // in a guest what another agent would not know.
        let is_one =
            self.isolate == Isolate::Kernel && self.retries.count == 0 && self.mutant.is_none() && !self.canary;
        let is_plain = self.streams.is_none() && self.world.is_none() && !self.shape.is_watched();
        if is_one && is_plain { Sends::Agent } else { Sends::Objects }
    }
}

impl GuestOptions {
    /// Whether a run with this many cells on each kernel uses guests that are held: a few cells that are asked for again and again, in
    /// guests of the usual kind.
    fn is_held(&self, cells: usize) -> bool {
        let usual =
            self.mutant.is_none() && !self.canary && !self.cold && self.shard.is_none() && self.retries.count == 0;
        let shared = if self.exec.is_empty() { self.isolate == Isolate::Kernel && cells <= FEW } else { cells == 1 };
        // What a guest runs before it is held sees this host's files: not where they were withheld from the guest.
        let is_plain = |world: &Arc<World>| world.is_hosts() && world.setup().is_none() && world.network().is_none();
        let own = self.world.as_ref().is_none_or(is_plain);
        self.may_be_held && usual && shared && own
    }
}

/// The arguments by which a run was asked for, as far as one of its kernels is concerned.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// What names the kernel, if no kernels.toml does.
    pub kernel: Vec<String>,
    /// What selects the cells, and says how guests share them.
    pub cells: Vec<String>,
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

/// The unpacked kernels, and the machine that boots them.
pub struct Guests {
    machine: Machine,
    kernels: Vec<BootableKernel>,
    launcher: VngLauncher,
    interrupt: Interrupt,
    acceleration: Acceleration,
    durations: Durations,
    topologies: Vec<TopologyInfo>,
    provenance: Provenance,
    /// The project's.
    root: PathBuf,
}

impl Guests {
    /// Fetches the kernels and chooses the accelerator.
    pub fn open(project: &Project, kernels: &[&Kernel], selected: &Selected) -> Result<Self, Error> {
        Self::of(project, fetch(project, kernels)?, selected)
    }

    /// As [`Self::open`], and says nothing of the accelerator: for a command whose own output is what is asked for.
    pub fn open_quietly(project: &Project, kernels: &[&Kernel], selected: &Selected) -> Result<Self, Error> {
        Self::of_quietly(project, fetch(project, kernels)?, selected)
    }

    /// As [`Self::of`], and says nothing of the accelerator.
    pub fn of_quietly(project: &Project, kernels: Vec<BootableKernel>, selected: &Selected) -> Result<Self, Error> {
        Self::with(project, kernels, selected, &|_| ())
    }

    /// Uses unpacked kernels and chooses the accelerator.
    pub fn of(project: &Project, kernels: Vec<BootableKernel>, selected: &Selected) -> Result<Self, Error> {
        Self::with(project, kernels, selected, &note)
    }

    fn with(
        project: &Project,
        kernels: Vec<BootableKernel>,
        selected: &Selected,
        say: &dyn Fn(&str),
    ) -> Result<Self, Error> {
        // Programs are asked at the same time: a command in a restored guest takes no longer than these answers.
        let (machine, launcher, provenance) = thread::scope(|scope| {
            let launcher = scope.spawn(|| {
                let launcher = VngLauncher::new(project.cache.root());
                SnapshotStore::below(project.cache.root()).sweep();
                launcher
            });
            let provenance = scope.spawn(|| provenance::of(&project.root));
            let agent = (selected.artifacts.clone(), selected.agent_version.clone());
            let machine = Machine::new(project.cache.root(), agent.0, agent.1);
            (machine, joined(launcher), joined(provenance))
        });
        let mut machine = machine?;
        let foreign: BTreeSet<Architecture> =
            kernels.iter().map(|kernel| kernel.architecture).filter(|it| !it.is_own()).collect();
        for architecture in foreign {
            let tools = Tools::in_cache(project.cache.root());
            setup::arm64_on_demand(&tools, &mut *say::redrawn())?;
            machine.emulate(architecture, project.builder().agent_for(architecture, selected.no_build)?)?;
        }
        let first = kernels.first().ok_or(Error::NothingSelected)?;
        let interrupt = Interrupt::install().map_err(Error::file("watch", "signals"))?;
        let acceleration = match kernels.iter().find(|kernel| kernel.architecture.is_own()) {
            Some(own) => machine.acceleration(&launcher, own, say, &|| interrupt.signal().is_some())?,
            None => Acceleration {
                accel: Accel::Tcg,
                reason: format!("guests of {} are emulated on this host", first.architecture),
            },
        };
        // Durations only affect the order of work on this machine; without them the same cells run.
        let durations = Durations::load(&own_durations(&machine)).unwrap_or_default();
        let call = Some(provenance::call(&project.root, project.named.as_deref()));
        let provenance = Provenance { call, ..provenance };
        Ok(Self {
            machine,
            kernels,
            launcher,
            interrupt,
            acceleration,
            durations,
            topologies: selected.topologies.clone(),
            provenance,
            root: project.root.clone(),
        })
    }

    /// Records how long cells took on this machine.
    pub fn remember(&self, record: &RunRecord) {
        let path = own_durations(&self.machine);
        let mut durations = Durations::load(&path).unwrap_or_default();
        durations.learn(record, &KernelFacts::paced_as);
        let saved = durations.save(&path).and_then(|()| Pace::remember(self.machine.cache(), record));
        if let Err(error) = saved {
            say(&format!("cannot write the durations of cells: {error}"));
        }
    }

    /// How long cells took on this machine.
    fn pace(&self) -> Pace {
        let classes = (own_durations(&self.machine), self.durations.clone());
        Pace::load(self.machine.cache(), classes.0, classes.1).unwrap_or_else(|error| {
            say(&format!("no kernel is compared with its earlier times: {error}"));
            Pace::default()
        })
    }

    /// Adds a kernel.
    pub fn add(&mut self, kernel: BootableKernel) {
        self.kernels.retain(|it| it.id != kernel.id);
        self.kernels.push(kernel);
    }

    /// A stock virtme-ng guest with one of the kernels.
    pub fn stock(&self, id: &str) -> Result<Stock<'_>, Error> {
        let unpacked = self.kernels.iter().find(|unpacked| unpacked.id == *id).ok_or(Error::NothingSelected)?;
        Ok(self.machine.stock(unpacked, self.acceleration.accel))
    }

    /// Name of the accelerator.
    pub fn accelerator(&self) -> String {
        self.acceleration.accel.to_string()
    }

    /// The programs that guests depend on.
    pub fn versions(&self) -> &Versions {
        &self.machine.versions
    }

    /// QEMU's version.
    pub fn qemu(&self) -> String {
        self.machine.versions.qemu.clone()
    }

    /// The kernels' data for a plan.
    pub fn facts(&self) -> Vec<KernelFacts> {
        let facts = |it: &BootableKernel| {
            let facts = facts(&it.id, it.class.name(), it.architecture, it.version, &it.unsupported, it.may_fail);
            stated(facts, &it.has, it.believe_probes.as_deref())
        };
        self.kernels.iter().map(facts).collect()
    }

    /// Runs a plan; may be called several times in parallel. Consoles are written below `directory`.
    pub fn run(
        &self,
        id: Id,
        plan: Plan,
        directory: &Path,
        how: &GuestOptions,
        reporters: &mut [&mut dyn Reporter],
    ) -> Result<RunRecord, Error> {
        // QEMU runs in another working directory.
        let directory = absolute(directory)?;
        let pace_of_guests = self.slowest(&plan);
        let accelerator =
            Accelerator { time_scale: pace_of_guests.time_scale(None), ..Accelerator::from(&self.acceleration) };
        let runs =
            |kernel: &PlannedKernel| kernel.cells.iter().filter(|cell| cell.expectation == Expectation::Run).count();
        let prepare = |kernel: &PlannedKernel| {
            let id = &kernel.facts.id;
            let unpacked = self.kernels.iter().find(|unpacked| unpacked.id == *id);
            let unpacked = unpacked.ok_or_else(|| PrepareError::NotFetched(id.to_string()))?;
            let console = directory::kernel(&directory, id)?;
            let prepare = |sends| {
                let (profile, accel) = (how.shape.profile, self.acceleration.accel);
                let prepared = self.machine.prepare(unpacked, profile, sends, accel, console.clone())?;
                Ok::<_, PrepareError>(how.shape.of(prepared))
            };
            let mut prepared = prepare(how.sends(runs(kernel)))?;
            if prepared.is_exchanged() && !self.machine.has_snapshot(&self.launcher, &prepared.spec) {
                // Its guests would boot anyway. What was never saved may be an image that can't boot.
                prepared = prepare(Sends::Nothing)?;
            }
            prepared.files = how.world.clone().map(|world| GuestFiles { world, kernel: kernel_files(unpacked) });
            Ok(prepared)
        };
        // A command's time says nothing of the next one's. Without a record nothing is found.
        let pace = how.pace.clone().or_else(|| how.exec.is_empty().then(|| Arc::new(self.pace())));
        let most = plan.kernels.iter().map(runs).max().unwrap_or_default();
        let holder = how.is_held(most).then(|| serve::Client::of(self.machine.cache())).flatten();
        let jobs = how.jobs.map_or_else(|| available_parallelism().map_or(1, usize::from), usize::from);
        let run = Run {
            info: RunInfo {
                expected_ms: self.durations.expect(&plan, jobs),
                mutant: how.mutant.clone(),
                shard: how.shard.clone(),
                canary: how.canary,
                retries: how.retries.count,
                slow_fails: how.slow_fails,
                expired: how.lists.expired(&plan),
                exec: how.exec.clone(),
                provenance: Provenance {
                    call: self.provenance.call.clone().map(|call| Call {
                        kernel: how.selection.kernel.clone(),
                        selection: how.selection.cells.clone(),
                        ..call
                    }),
                    results: directory.parent().and_then(|it| provenance::place(&self.root, it)),
                    ..self.provenance.clone()
                },
                ..RunInfo::new(id, self.machine.versions.clone(), accelerator.clone(), plan)
            },
            jobs,
            room: if how.jobs.is_some() { Room::unlimited() } else { Room::of_host() },
            timing: Timing::default().scaled(accelerator.time_scale).choosing(Chosen::of(&how.deadlines)),
            rescale: &|boot| pace_of_guests.time_scale(Some(boot)),
            snapshots: (!how.cold).then(|| SnapshotStore::below(self.machine.cache())),
            isolate: how.isolate,
            estimate: &|kernel, cell| self.durations.estimate(kernel, cell),
            slow: &|record| pace.as_ref().map(|pace| pace.find(record)).unwrap_or_default(),
            topologies: self.topologies.clone(),
            lists: how.lists.clone(),
            retries: how.retries,
            fail_fast: how.fail_fast,
            content: self.content(how),
            earlier: how.earlier.as_deref(),
            streams: how.streams.as_deref(),
            holder: holder.as_ref().map(|holder| holder as &dyn GuestHolder),
            launcher: &self.launcher,
            prepare: &prepare,
            interrupt: self.interrupt.clone(),
        };
        let record = run.go(reporters)?;
        self.distrust_kvm_unless(!record.kernels.values().any(KernelRecord::never_booted));
        Ok(record)
    }

    /// The accelerator that deadlines are scaled for: guests of another architecture are emulated, whatever the others use.
    fn slowest(&self, plan: &Plan) -> Acceleration {
        let accel = match plan.kernels.iter().all(|kernel| kernel.facts.architecture.is_own()) {
            true => self.acceleration.accel,
            false => Accel::Tcg,
        };
        Acceleration { accel, ..self.acceleration.clone() }
    }

    /// What verdicts depend on beside each kernel's own inputs; `None` where a later run must not take them over.
    fn content(&self, how: &GuestOptions) -> Option<String> {
        let ordinary = how.mutant.is_none() && !how.canary && how.exec.is_empty() && how.world.is_none();
        let program = home::program().filter(|_| ordinary)?;
        let facts = Facts::below(self.machine.cache());
        let own = HeldFile::open(program).and_then(|program| program.sha256(&facts));
        Some(content_of(&own.ok()?, &self.accelerator(), how.isolate, &how.lists))
    }

    /// If guests under KVM never booted, KVM may be the cause: the next command tries KVM again.
    fn distrust_kvm_unless(&self, booted: bool) {
        if self.acceleration.accel == Accel::Kvm && !booted {
            accel::distrust(self.machine.cache());
        }
    }
}

/// Does what comes before guests, usually a build, and downloads their kernels meanwhile. An error of the former is
/// returned after the kernel that is being downloaded.
pub fn with_downloads<T>(
    project: &Project,
    kernels: &[&Kernel],
    before: impl FnOnce() -> Result<T, Error>,
) -> Result<T, Error> {
    // An installed lab builds nothing, and may have to set up what downloads need.
    if matches!(project.home, Home::Installed { .. }) {
        return before();
    }
    let is_wanted = AtomicBool::new(true);
    thread::scope(|scope| {
        let downloads = scope.spawn(|| {
            project.store().announce(kernels, &project.lock, &note)?;
            for kernel in kernels.iter().take_while(|_| is_wanted.load(Ordering::Relaxed)) {
                project.store().fetch(kernel, &project.lock, &note)?;
            }
            Ok::<(), Error>(())
        });
        let done = before();
        is_wanted.store(done.is_ok(), Ordering::Relaxed);
        let downloaded = downloads.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let done = done?;
        downloaded.map(|()| done)
    })
}

/// Fetches kernels into the cache, or builds them.
pub fn fetch(project: &Project, kernels: &[&Kernel]) -> Result<Vec<BootableKernel>, Error> {
    project.ready()?;
    project.store().announce(kernels, &project.lock, &note)?;
    let fetch = |kernel: &&Kernel| project.store().fetch(kernel, &project.lock, &note);
    Ok(kernels.iter().map(fetch).collect::<Result<_, _>>()?)
}

/// Path of the durations on this machine.
fn own_durations(machine: &Machine) -> PathBuf {
    machine.cache().join(durations::FILE)
}

/// Bars on a terminal, lines elsewhere.
pub fn progress() -> Box<dyn Reporter> {
    progress_with(Detail::Usual)
}

/// The same with more or fewer lines; failures alone need no bar.
fn progress_with(detail: Detail) -> Box<dyn Reporter> {
    if say::is_said_to_people() && !say::in_ci() && detail != Detail::Failures {
        Box::new(Bars::new(detail))
    } else {
        Box::new(PlainLines::new(say::stderr(), detail))
    }
}
