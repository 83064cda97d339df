//! All kernels, several at a time; one thread owns the reporters.

use super::{
    kernel::{KernelRun, Prepared, millis},
    timing::Timing,
};
use crate::{
    error::{Error, Exit},
    event::{Event, RunInfo, Stamped},
    interrupt::Interrupt,
    plan::PlannedKernel,
    report::{Reporter, record::RunRecord},
    vm::Launcher,
};
use std::{
    collections::VecDeque,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Makes a kernel ready to boot: its image is built on the thread that runs it.
pub trait Prepare: Sync {
    /// # Errors
    /// One line that says why the kernel can't boot; its cells don't run then.
    fn prepare(&self, kernel: &PlannedKernel) -> Result<Prepared, String>;
}

impl<F: Fn(&PlannedKernel) -> Result<Prepared, String> + Sync> Prepare for F {
    fn prepare(&self, kernel: &PlannedKernel) -> Result<Prepared, String> {
        self(kernel)
    }
}

/// A run that is ready to go.
pub struct Run<'a> {
    /// What is known.
    pub info: RunInfo,
    /// Guests at the same time, at least 1.
    pub jobs: usize,
    /// Deadlines, scaled for the accelerator.
    pub timing: Timing,
    /// The scale that a guest's time to hello asks for; it can only stretch the deadlines.
    pub rescale: &'a (dyn Fn(Duration) -> f32 + Sync),
    /// Boots guests.
    pub launcher: &'a dyn Launcher,
    /// Makes kernels ready.
    pub prepare: &'a dyn Prepare,
    /// Ctrl-C.
    pub interrupt: Interrupt,
}

/// Signal by which a reporter that can't write ends the run.
const REPORTER_FAILED: i32 = signal_hook::consts::SIGTERM;

impl Run<'_> {
    /// Runs everything and tells the reporters; returns what happened.
    ///
    /// # Errors
    /// The first error of a reporter; the guests are stopped then.
    pub fn go(self, reporters: &mut [&mut dyn Reporter]) -> Result<RunRecord, Error> {
        let begin = Instant::now();
        let mut desk = Desk { record: RunRecord::default(), reporters, interrupt: &self.interrupt, failed: None };
        desk.take(Event::RunStarted { run: Box::new(self.info.clone()) });
        let queue: Mutex<VecDeque<&PlannedKernel>> = Mutex::new(self.info.plan.kernels.iter().collect());
        let (sender, receiver) = mpsc::channel();
        thread::scope(|scope| {
            for _ in 0..self.jobs.clamp(1, self.info.plan.kernels.len().max(1)) {
                let (sender, queue, run) = (sender.clone(), &queue, &self);
                scope.spawn(move || run.work(queue, &sender));
            }
            drop(sender);
            for event in receiver {
                desk.take(event);
            }
        });
        let interrupted = if desk.failed.is_none() { self.interrupt.signal() } else { None };
        let exit = interrupted.map_or_else(|| desk.record.exit(), Exit::Interrupted);
        desk.take(Event::RunFinished { exit, wall_ms: millis(begin) });
        match desk.failed {
            Some(error) => Err(error),
            None => Ok(desk.record),
        }
    }

    fn work(&self, queue: &Mutex<VecDeque<&PlannedKernel>>, sender: &mpsc::Sender<Event>) {
        // The receiver lives until every sender is gone, so sending can't fail.
        let emit = |event| drop(sender.send(event));
        let next = || queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
        while let Some(kernel) = next() {
            let run = KernelRun {
                plan: &self.info.plan,
                kernel,
                launcher: self.launcher,
                timing: self.timing,
                rescale: self.rescale,
                mutant: self.info.mutant.as_deref(),
                interrupt: &self.interrupt,
                emit: &emit,
            };
            let prepared = match self.interrupt.signal() {
                Some(_) => Err("the run was interrupted".to_owned()),
                None => self.prepare.prepare(kernel),
            };
            run.run(prepared);
        }
    }
}

/// Where events arrive: stamps them, keeps the record, hands them on.
struct Desk<'a, 'b> {
    record: RunRecord,
    reporters: &'a mut [&'b mut dyn Reporter],
    interrupt: &'a Interrupt,
    failed: Option<Error>,
}

impl Desk<'_, '_> {
    fn take(&mut self, event: Event) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let stamped = Stamped { at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX), event };
        self.record.apply(&stamped);
        for reporter in self.reporters.iter_mut() {
            if let Err(error) = reporter.event(&stamped, &self.record)
                && self.failed.is_none()
            {
                self.failed = Some(error);
                self.interrupt.raise(REPORTER_FAILED);
            }
        }
    }
}
