//! One guest of a kernel, from the host's side.

use crate::run::{
    autopsy::Autopsy,
    splat::{MOST_SUSPECTS, Watch, merge},
    timing::Timing,
};
use lab_protocol::CellId;
use lab_record::{splat::Splat, verdict::Verdict};
use lab_vm::GuestSpec;
use std::{
    cell::{Cell, RefCell},
    path::Path,
    time::Duration,
};

/// A guest that is about to start.
pub(in crate::run) struct Launch {
    pub number: u32,
    pub spec: GuestSpec,
    /// Deadlines for it.
    pub timing: Timing,
    /// From its launch to its agent's hello, once there was one.
    pub hello: Cell<Option<Duration>>,
    /// Cells that it took and has not brought a verdict for.
    pub taken: RefCell<Vec<CellId>>,
    pub pieces: Cell<usize>,
    pub verdicts: Cell<usize>,
    console: RefCell<Watch>,
    /// Splats that the agent read from the kernel log, since the last look.
    kernel_log: RefCell<Vec<Splat>>,
    /// Splats of a guest that died, until they are told.
    pub last_words: RefCell<Vec<Splat>>,
    /// Cells that began, latest first.
    recent: RefCell<Vec<CellId>>,
    /// The verdict on a cell that its agent gave up, until the guest was questioned.
    pub hung: RefCell<Option<Verdict>>,
    /// The cell that its agent gave up, and with it the guest.
    pub cost: RefCell<Option<CellId>>,
    /// Where it was questioned before it was killed.
    pub autopsy: RefCell<Option<Autopsy>>,
}

impl Launch {
    pub fn new(number: u32, spec: GuestSpec, timing: Timing) -> Self {
        Self {
            number,
            console: RefCell::new(Watch::new(&spec.console)),
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
            autopsy: RefCell::default(),
        }
    }

    /// The kernel's directory in the run's.
    pub fn directory(&self) -> &Path {
        self.spec.console.parent().unwrap_or(Path::new("."))
    }

    /// Whether the guest's agent said hello.
    pub fn greeted(&self) -> bool {
        self.hello.get().is_some()
    }

    /// Takes what the agent read from the kernel log.
    pub fn log(&self, splats: Vec<Splat>) {
        self.kernel_log.borrow_mut().extend(splats);
    }

    /// Splats before the console's line with `mark`, see [`Watch::look_before`], and those of the kernel log.
    pub fn splats_before(&self, mark: &str) -> Vec<Splat> {
        merge(self.console.borrow_mut().look_before(mark), self.kernel_log.take())
    }

    /// Splats up to now.
    pub fn splats(&self) -> Vec<Splat> {
        merge(self.console.borrow_mut().look(), self.kernel_log.take())
    }

    /// A cell began.
    pub fn began(&self, cell: &CellId) {
        let mut recent = self.recent.borrow_mut();
        recent.insert(0, cell.clone());
        recent.truncate(MOST_SUSPECTS);
    }

    /// Whether no cell has begun yet.
    pub fn is_fresh(&self) -> bool {
        self.recent.borrow().is_empty()
    }

    /// The last cells that began, latest first.
    pub fn suspects(&self) -> Vec<CellId> {
        self.recent.borrow().clone()
    }
}
