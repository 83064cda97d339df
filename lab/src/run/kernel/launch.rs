//! The host's state of one guest of a kernel.

use super::cores::{CellCores, CoreDirectory};
use crate::{
    run::{
        autopsy::Autopsy,
        common::{FilesError, GuestFiles, Prepared, SentObject},
        judge::SeenAttempt,
        splat::{ConsoleWatch, MOST_SUSPECTS, gather, merge},
        timing::Timing,
    },
    world::{GuestSetup, Pasta, Serving, WorldError},
};
use lab_base::{held::HeldFile, text};
use lab_guard::{Id, Inside};
use lab_protocol::CellId;
use lab_record::splat::Splat;
use lab_share::FileStamp;
use lab_vm::{Guest, GuestSpec};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

/// A guest that is about to start.
pub(in crate::run) struct Launch {
    pub number: u32,
    pub spec: GuestSpec,
    /// Its deadlines.
    pub timing: Timing,
    /// Time from its launch to its agent's Hello, once that was received.
    pub hello: Cell<Option<Duration>>,
    /// Cells that it took and has not reported.
    pub taken: RefCell<Vec<CellId>>,
    pub pieces: Cell<usize>,
    pub verdicts: Cell<usize>,
    console: RefCell<ConsoleWatch>,
    /// Splats that the agent read from the kernel log since they were last collected.
    kernel_log: RefCell<Vec<Splat>>,
    /// Splats of a guest that crashed, until they are reported.
    pub last_words: RefCell<Vec<Splat>>,
    /// Cells that were started, latest first.
    recent: RefCell<Vec<CellId>>,
    /// A cell that its agent gave up, until the guest was queried.
    pub hung: RefCell<Option<SeenAttempt>>,
    /// The cell that its agent gave up, which ends the guest.
    pub cost: RefCell<Option<CellId>>,
    /// GuestFiles of the program that ran last, until its cell is reported.
    pub streams: RefCell<Vec<Inside>>,
    /// Tests that the suite of the last cell reported.
    pub children: RefCell<Vec<crate::run::program::suite::Child>>,
    /// Why no other program may run in this guest: what the last one left.
    pub dirty: RefCell<Option<String>>,
    /// The state before the guest was queried and killed.
    pub autopsy: RefCell<Option<Autopsy>>,
    /// Objects that it is sent.
    pub objects: Vec<SentObject>,
    /// The agent that it is sent.
    pub agent: Option<HeldFile>,
    files: Option<GuestFiles>,
    serving: RefCell<Option<Serving>>,
    network: RefCell<Option<Pasta>>,
    /// The machine's memory for programs' streams, if it has it.
    stream_memory: RefCell<Option<File>>,
    cores: RefCell<Option<CoreDirectory>>,
    /// Files of the host that the guest has read.
    pub read: RefCell<BTreeMap<PathBuf, FileStamp>>,
}

impl Launch {
    pub fn new(number: u32, spec: GuestSpec, timing: Timing, prepared: &Prepared) -> Self {
        Self {
            number,
            console: RefCell::new(ConsoleWatch::new(&spec.console)),
            spec,
            timing,
            hello: Cell::new(None),
            taken: RefCell::default(),
            pieces: Cell::new(0),
            verdicts: Cell::new(0),
            kernel_log: RefCell::default(),
            last_words: RefCell::default(),
            recent: RefCell::default(),
            hung: RefCell::default(),
            cost: RefCell::default(),
            streams: RefCell::default(),
            children: RefCell::default(),
            dirty: RefCell::default(),
            autopsy: RefCell::default(),
            objects: prepared.objects.clone(),
            agent: prepared.agent.clone(),
            files: prepared.files.clone(),
            serving: RefCell::default(),
            network: RefCell::default(),
            stream_memory: RefCell::default(),
            cores: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// Whether the guest has files of the host.
    pub fn has_files(&self) -> bool {
        self.files.is_some()
    }

    /// Serves the guest's files, connects it to services of the host, and opens its memory for streams.
    ///
    /// # Errors
    /// The guest has ended, or what was to be served has vanished.
    pub fn serve(&self, kernel: &str, guest: &mut dyn Guest) -> Result<(), FilesError> {
        self.stream_memory.replace(guest.stream_memory()?);
        let Some(GuestFiles { world, kernel: own }) = &self.files else { return Ok(()) };
        if world.core_bytes() > 0 && !self.becomes_snapshot() {
            let made = CoreDirectory::make(self.directory(), self.number);
            self.cores.replace(Some(made.map_err(WorldError::io(self.directory()))?));
        }
        let cores = self.cores.borrow();
        let cores = cores.as_ref().map(CoreDirectory::path);
        self.serving.replace(Some(world.serve(own, kernel, cores, guest.files()?)?));
        if world.has_services() {
            world.connect(guest.services()?)?;
        }
        // A set-up has no network.
        if let Some(network) = world.network().filter(|_| !self.becomes_snapshot()) {
            self.network.replace(Some(network.connect(guest.network()?)?));
        }
        Ok(())
    }

    /// The machine's memory for programs' streams, if it has it.
    pub(super) fn stream_memory(&self) -> Option<File> {
        self.stream_memory.borrow().as_ref().and_then(|file| file.try_clone().ok())
    }

    /// Whether the guest is saved behind a set-up, for others to begin there.
    fn becomes_snapshot(&self) -> bool {
        self.spec.memory_file.is_some()
    }

    /// The set-up of guests, if they have one.
    pub fn setup(&self) -> Option<&GuestSetup> {
        self.files.as_ref()?.world.setup()
    }

    /// Core dumps that were written since the last call, for a cell.
    pub(super) fn take_cores(&self, kernel: &Id, owner: &str) -> CellCores {
        let most = self.files.as_ref().map_or(0, |files| files.world.core_bytes());
        self.cores.borrow().as_ref().map(|cores| cores.take(kernel, owner, most)).unwrap_or_default()
    }

    /// Ends serving files while the machine runs on.
    pub fn hang_up(&self) {
        self.serving.borrow().iter().for_each(Serving::hang_up);
    }

    /// Lines about files that are not whole. The guest's machine must have ended, or have been hung up on.
    pub fn served(&self, lost: bool) -> Vec<String> {
        // It ends with the machine.
        self.network.take();
        let Some(served) = self.serving.take().map(Serving::finish) else { return Vec::new() };
        self.read.replace(served.read);
        let failed = served.failed.iter();
        let failed = failed.map(|it| format!("the artefact {} is not whole: {}", it.path.display(), it.reason));
        let cut = served.artifacts.filter(|dir| lost && has_files(dir));
        let cut = cut.map(|dir| {
            format!(
                "the guest was lost: what it had written is in {}, and the last of it may not be whole",
                dir.display()
            )
        });
        failed.chain(cut).chain(served.problem).map(|line| text::line(&line, 500)).collect()
    }

    /// The kernel's directory in the run's directory.
    pub fn directory(&self) -> &Path {
        self.spec.console.parent().unwrap_or(Path::new("."))
    }

    /// Whether the guest's agent has sent Hello.
    pub fn greeted(&self) -> bool {
        self.hello.get().is_some()
    }

    /// Stores splats that the agent read from the kernel log.
    pub fn log(&self, splats: Vec<Splat>) {
        let mut all = self.kernel_log.borrow_mut();
        splats.into_iter().for_each(|splat| gather(&mut all, splat));
    }

    /// Splats before the console line with `mark`, see [`ConsoleWatch::look_before`], and splats of the kernel log.
    pub fn splats_before(&self, mark: &str) -> Vec<Splat> {
        merge(self.console.borrow_mut().look_before(mark), self.kernel_log.take())
    }

    /// All splats so far.
    pub fn splats(&self) -> Vec<Splat> {
        merge(self.console.borrow_mut().look(), self.kernel_log.take())
    }

    /// Splats that occurred during a cell. The cause of a delayed one may be in an earlier cell.
    pub fn inside(&self, mut splats: Vec<Splat>) -> Vec<Splat> {
        for splat in splats.iter_mut().filter(|splat| splat.class.is_late()) {
            splat.suspects = self.suspects();
        }
        splats
    }

    /// Records the start of a cell.
    pub fn began(&self, cell: &CellId) {
        let mut recent = self.recent.borrow_mut();
        recent.insert(0, cell.clone());
        recent.truncate(MOST_SUSPECTS);
    }

    /// Whether no cell has been started yet.
    pub fn is_fresh(&self) -> bool {
        self.recent.borrow().is_empty()
    }

    /// The cell that was started last.
    pub fn last_cell(&self) -> Option<CellId> {
        self.recent.borrow().first().cloned()
    }

    /// The last cells that were started, latest first.
    pub fn suspects(&self) -> Vec<CellId> {
        self.recent.borrow().clone()
    }
}

fn has_files(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}
