//! A thread that runs one job after another for waiting callers. With a hundred jobs in a namespace, starting a thread
//! for each would take longer than the jobs.

use crate::lock::unpoisoned;
use std::{
    io, mem,
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, TryLockError, mpsc},
    thread::{self, JoinHandle},
};

type Job = Box<dyn FnOnce() + Send>;

/// The caller's end of the channel to the thread.
#[derive(Debug)]
struct Line {
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<()>,
}

/// The thread's end. Fields are dropped in this order: no job is left once the caller's `done` is closed.
struct Desk {
    jobs: mpsc::Receiver<Job>,
    done: mpsc::Sender<()>,
}

/// The thread. Dropping this value ends it, and waits until it has ended.
#[derive(Debug)]
pub(super) struct Worker {
    /// Locked while a job runs; empty once the worker is being dropped.
    line: Mutex<Option<Line>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no more threads.
    pub fn start() -> io::Result<Self> {
        let (jobs, desk_jobs) = mpsc::channel::<Job>();
        let (desk_done, done) = mpsc::channel();
        let desk = Desk { jobs: desk_jobs, done: desk_done };
        let thread = thread::Builder::new().name("namespace".to_owned()).spawn(move || {
            let desk = desk;
            for job in &desk.jobs {
                job();
                if desk.done.send(()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { line: Mutex::new(Some(Line { jobs, done })), thread: Some(thread) })
    }

    /// Runs `work` on the thread and waits for it; returns `work` if the thread is busy, for example if a job starts a
    /// second one.
    ///
    /// # Panics
    /// With the panic of `work`.
    pub fn run<R: Send, W: FnOnce() -> R + Send>(&self, work: W) -> Result<R, W> {
        let line = match self.line.try_lock() {
            Ok(line) => line,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(work),
        };
        let Some(line) = &*line else { return Err(work) };
        let mut result = None;
        let slot = &mut result;
        let job: Box<dyn FnOnce() + Send + '_> =
            Box::new(move || *slot = Some(panic::catch_unwind(AssertUnwindSafe(work))));
        // SAFETY: only the lifetime changes. The job borrows `result` and whatever `work` borrows; this call does not
        // return, nor unwind, before the job is gone: `recv` answers after the thread has run it (a job cannot unwind
        // out of the thread's loop) or after the thread has dropped all jobs, and a job that could not be sent comes
        // back and is dropped here.
        let job = unsafe { mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(job) };
        let sent = line.jobs.send(job).is_ok();
        let done = sent && line.done.recv().is_ok();
        match result {
            Some(Ok(value)) if done => Ok(value),
            Some(Err(payload)) => panic::resume_unwind(payload),
            _ => panic!("the thread of a network namespace has ended"),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without the channel the loop ends.
        unpoisoned(self.line.get_mut()).take();
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_run_on_one_thread_and_may_borrow() {
        let worker = Worker::start().unwrap();
        let mut seen = Vec::new();
        for _ in 0..3 {
            assert!(worker.run(|| seen.push(thread::current().id())).is_ok());
        }
        assert!(seen.iter().all(|id| *id == seen[0] && *id != thread::current().id()), "{seen:?}");
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_thread_continues() {
        let worker = Worker::start().unwrap();
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| worker.run(|| panic!("the job's own")).is_ok()));
        assert_eq!(panicked.unwrap_err().downcast_ref::<&str>(), Some(&"the job's own"));
        assert!(matches!(worker.run(|| 7), Ok(7)));
    }

    #[test]
    fn a_job_within_a_job_is_returned() {
        let worker = Worker::start().unwrap();
        let inner = worker.run(|| worker.run(|| 1).is_err());
        assert!(matches!(inner, Ok(true)));
    }
}
