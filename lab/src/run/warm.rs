//! Finds or creates a kernel's snapshot.

use super::{
    kernel::{KernelRun, Launch},
    session::{Errand, Lost, SessionEnd},
};
use crate::{
    run::{common::Prepared, setup::SetupVisit},
    world::SetupInputs,
};
use lab_base::lock::lock;
use lab_record::event::Start;
use lab_vm::{
    GuestSpec, Snapshot,
    snapshot::{Claim, Found, SnapshotStore},
};
use std::{path::PathBuf, sync::Mutex, thread, time::Duration};

/// How often a run may create a snapshot: once, and again if the first one was useless.
const ATTEMPTS: u32 = 2;
/// Interval at which a run checks whether another run has finished the snapshot.
const POLL: Duration = Duration::from_millis(20);

/// State of a kernel's snapshot, shared by its guests.
#[derive(Default)]
pub(super) struct Warmth(Mutex<State>);

#[derive(Default)]
struct State {
    snapshot: Option<Snapshot>,
    attempts: u32,
}

fn directory(snapshot: &Snapshot) -> PathBuf {
    snapshot.memory().parent().map(PathBuf::from).unwrap_or_default()
}

impl KernelRun<'_> {
    /// The snapshot to restore the next guest from; `None` if guests must boot. Blocks while another guest creates the
    /// snapshot.
    pub(super) fn snapshot(&self, prepared: &Prepared) -> Option<Snapshot> {
        let store = self.snapshots?;
        let mut state = lock(&self.warmth.0);
        if state.snapshot.is_none() && state.attempts < ATTEMPTS {
            state.attempts += 1;
            state.snapshot = self.obtain(store, prepared);
        }
        // Updated for each guest: a run may take longer than the time after which unused snapshots are removed.
        state.snapshot.iter().for_each(|snapshot| store.touch(snapshot));
        state.snapshot.clone()
    }

    /// The snapshot that guests were restored from.
    pub(super) fn warm(&self) -> Option<Snapshot> {
        lock(&self.warmth.0).snapshot.clone()
    }

    /// Records that a restored guest has answered, if the guest was restored.
    pub(super) fn answered(&self, launch: &Launch, snapshot: Option<&Snapshot>) {
        if let (true, Some(store), Some(snapshot)) = (launch.greeted(), self.snapshots, snapshot) {
            store.trust(snapshot);
        }
    }

    /// Handles a restored guest that never answered. If its kernel was alive, the host may only be slow. Otherwise the
    /// snapshot is useless, even if its checksums are right.
    pub(super) fn unanswered(&self, launch: &Launch, lost: &Lost, snapshot: &Snapshot) {
        let why = &lost.message;
        let alive = launch.autopsy.borrow().as_ref().is_some_and(|autopsy| autopsy.alive);
        let kept = self.snapshots.is_some_and(|store| {
            if !alive {
                store.discard(snapshot);
            }
            alive && store.doubt(snapshot)
        });
        self.note(match (kept, alive) {
            (true, _) => {
                format!("the snapshot is kept: a guest restored from it did not answer, but its kernel is alive: {why}")
            }
            (false, true) => {
                format!("the snapshot was removed: guests restored from it are alive but do not answer: {why}")
            }
            (false, false) => format!("the snapshot was removed: a guest restored from it did not answer: {why}"),
        });
        lock(&self.warmth.0).snapshot = None;
    }

    /// Removes the snapshot whose agent was not replaced by the one that it was sent: either may be the cause, and a guest that boots
    /// the other one tells.
    pub(super) fn distrust(&self, prepared: &Prepared, lost: &Lost, snapshot: Option<&Snapshot>) {
        if let (Some(store), Some(snapshot), false, Some(_)) = (self.snapshots, snapshot, lost.again, &prepared.agent) {
            store.discard(snapshot);
        }
    }

    fn obtain(&self, store: &SnapshotStore, prepared: &Prepared) -> Option<Snapshot> {
        let setup = prepared.files.as_ref().and_then(|files| files.world.setup());
        let key = match self.launcher.fingerprint(&prepared.spec) {
            Ok(key) => setup.map_or_else(|| key.clone(), |setup| setup.key(&key)),
            Err(error) => return self.without(prepared, &error.to_string()),
        };
        while !self.interrupt.is_over() {
            match store.find(&key) {
                Found::Whole(snapshot) => match setup.and_then(|_| SetupInputs::changed(&directory(&snapshot))) {
                    None => return Some(snapshot),
                    Some(path) => {
                        self.note(format!("the set-up runs again: {} has changed", path.display()));
                        store.discard(&snapshot);
                    }
                },
                Found::Damaged(why) => self.note(format!("the snapshot was removed: {why}")),
                Found::Absent => {}
            }
            match store.claim(&key) {
                // The run that held the claim may have published the snapshot in between.
                Ok(Some(claim)) => match store.find(&key) {
                    Found::Whole(snapshot) => return Some(snapshot),
                    Found::Damaged(_) | Found::Absent => return self.make(claim, prepared),
                },
                Ok(None) => thread::sleep(POLL),
                Err(error) => return self.without(prepared, &error.to_string()),
            }
        }
        None
    }

    /// Boots a guest, lets it settle and saves it.
    fn make(&self, claim: Claim, prepared: &Prepared) -> Option<Snapshot> {
        let draft = match claim.begin(prepared.spec.memory_mib) {
            Ok(draft) => draft,
            Err(error) => return self.without(prepared, &error.to_string()),
        };
        let mut launch = self.next_guest(prepared, None);
        self.starts(&launch, Start::Snapshot);
        launch.spec = GuestSpec { memory_file: Some(draft.memory()), ..launch.spec };
        let mut guest = match self.launcher.launch(&launch.spec) {
            Ok(guest) => guest,
            Err(error) => return self.without(prepared, &error.to_string()),
        };
        let setup = launch.setup().map(|setup| SetupVisit::new("the set-up", vec![setup.job()], || launch.hang_up()));
        let errand = match &setup {
            Some(visitor) => Errand::Visit { visitor, restored: false, stays: true },
            None => Errand::Settle,
        };
        match self.drive(&mut *guest, &launch, errand) {
            SessionEnd::Done(_) => {
                if let Some(Err(problem)) = setup.as_ref().map(|setup| setup.result(launch.directory())) {
                    guest.kill();
                    return self.without(prepared, &problem.to_string());
                }
            }
            SessionEnd::Interrupted(_) => return None,
            SessionEnd::Lost(lost) => {
                self.bury(&launch, lost);
                return None;
            }
        }
        if setup.is_some()
            && let Err(error) = SetupInputs::new(launch.read.take()).save(draft.directory())
        {
            guest.kill();
            return self.without(prepared, &format!("{}: {error}", draft.directory().display()));
        }
        let made = guest
            .freeze(&draft.state())
            .and_then(|recipe| draft.publish(recipe, &launch.spec.console, launch.hello.get()));
        made.map_err(|error| self.without(prepared, &error.to_string())).ok()
    }

    /// Guests without a set-up boot; what was to run behind a set-up does not run.
    fn without(&self, prepared: &Prepared, problem: &str) -> Option<Snapshot> {
        if prepared.files.as_ref().is_some_and(|files| files.world.setup().is_some()) {
            self.stop(problem);
            return None;
        }
        self.note(format!("guests boot, because there is no snapshot: {problem}"));
        None
    }
}
