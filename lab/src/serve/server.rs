//! The process that holds guests.

pub use super::pool::Limits;

use super::{
    keep::{self, GuestWish, HeldEnd},
    pool::Pool,
    wire::{HoldAsk, ServerPlace, TakeAnswer, receive, send},
};
use crate::error::Error;
use lab_base::{file, interrupt::Interrupt, lock::lock, text::count};
use lab_guard::private;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use std::{
    fs,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread::{self, Scope},
    time::Instant,
};
use tempfile::TempDir;

/// Interval at which guests are looked for that nobody uses, milliseconds.
const LOOK: u16 = 200;

/// Holds guests until it is interrupted.
pub struct GuestServer<'a> {
    cache: &'a Path,
    limits: Limits,
    /// The socket's, and consoles.
    dir: TempDir,
    listener: UnixListener,
    pool: Mutex<Pool>,
    /// One guest at a time is made ready: a run may have begun.
    preparing: Mutex<()>,
    /// Runs that use a guest.
    borrowers: AtomicUsize,
    interrupt: Interrupt,
    tell: &'a (dyn Fn(&str) + Sync),
}

impl<'a> GuestServer<'a> {
    /// Listens. `tell` gets a line for each thing that happens.
    ///
    /// # Errors
    /// Another one holds guests for this cache, or no socket can be made.
    pub fn new(
        cache: &'a Path,
        limits: Limits,
        interrupt: Interrupt,
        tell: &'a (dyn Fn(&str) + Sync),
    ) -> Result<Self, Error> {
        if let Some(place) = ServerPlace::read(cache).filter(|place| private::connect(&place.socket).is_ok()) {
            return Err(Error::Usage(format!(
                "`lab serve` already runs for this cache, as process {}: end it, or use it",
                place.pid
            )));
        }
        let dir = lab_vm::scratch()?;
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).map_err(Error::file("listen on", &socket))?;
        listener.set_nonblocking(true).map_err(Error::file("listen on", &socket))?;
        let place = ServerPlace { socket, pid: std::process::id(), lab: crate::VERSION.to_owned() };
        let path = ServerPlace::file(cache);
        let text = serde_json::to_vec(&place).map_err(|error| Error::Host(error.to_string()))?;
        file::replace(&path, &text).map_err(Error::file("write", &path))?;
        Ok(Self {
            cache,
            limits,
            dir,
            listener,
            pool: Mutex::default(),
            preparing: Mutex::default(),
            borrowers: AtomicUsize::new(0),
            interrupt,
            tell,
        })
    }

    /// Answers runs until it is interrupted. Guests that are lent end with their runs.
    pub fn serve(&self) {
        thread::scope(|scope| {
            while !self.interrupt.is_over() {
                let mut awaited = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut awaited, PollTimeout::from(LOOK));
                while let Ok((line, _)) = self.listener.accept() {
                    scope.spawn(move || self.answer(scope, line));
                }
                lock(&self.pool).age(self.limits);
            }
            // Another may have taken the place of this one.
            if ServerPlace::read(self.cache).is_some_and(|place| place.pid == std::process::id()) {
                let _ = fs::remove_file(ServerPlace::file(self.cache));
            }
            lock(&self.pool).clear();
            let borrowers = self.borrowers.load(Ordering::SeqCst);
            if borrowers > 0 {
                let runs = count(borrowers, "run");
                (self.tell)(&format!("waiting for {runs} with guests of this process; a second Ctrl-C ends them"));
            }
        });
    }

    fn answer<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, line: UnixStream) {
        // What is accepted from a socket that does not block blocks by itself on Linux; it is said for others to read.
        let _ = line.set_nonblocking(false);
        match receive(&line) {
            Ok(HoldAsk::Take { key, console }) => self.lend(&key, console, line),
            Ok(HoldAsk::Hold(order)) => {
                lock(&self.pool).want(*order);
                self.fill(scope);
            }
            // Another lab, or nobody of ours.
            Err(_) => {}
        }
    }

    fn lend(&self, key: &str, console: PathBuf, line: UnixStream) {
        let taken = lock(&self.pool).take(key);
        let Some((kernel, guest)) = taken else {
            let _ = send(&line, &TakeAnswer::None);
            return;
        };
        let borrower = getsockopt(&line, PeerCredentials).map_or(0, |it| it.pid());
        (self.tell)(&format!("{kernel}: a guest is lent to process {borrower}"));
        // A thread that has ended closes the connection, and the run restores a guest.
        self.borrowers.fetch_add(1, Ordering::SeqCst);
        if guest.send(GuestWish::Lend { console, line }).is_err() {
            self.borrowers.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Has guests prepared until there are as many as wanted.
    fn fill<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        while !self.interrupt.is_over() {
            let (sender, wishes) = mpsc::channel();
            let Some((number, order)) = lock(&self.pool).missing(self.limits, || sender) else { return };
            scope.spawn(move || {
                let kernel = order.spec.name.clone();
                let prepared = {
                    let _alone = lock(&self.preparing);
                    let begin = Instant::now();
                    let prepared = keep::prepare(&order, self.dir.path(), number, self.cache, &self.interrupt);
                    prepared.map(|guest| (guest, begin.elapsed()))
                };
                match prepared {
                    Ok((guest, took)) => {
                        if lock(&self.pool).ready(number) {
                            let cells = count(order.jobs.len(), "cell");
                            (self.tell)(&format!(
                                "{kernel}: a guest is ready, after {cells} in {:.1} s",
                                took.as_secs_f32()
                            ));
                        }
                        match keep::keep(guest, &wishes) {
                            HeldEnd::Lent => _ = self.borrowers.fetch_sub(1, Ordering::SeqCst),
                            HeldEnd::Unwanted => {}
                            HeldEnd::Alone => {
                                lock(&self.pool).lost(number, false);
                                (self.tell)(&format!("{kernel}: a guest that was ready has ended by itself"));
                            }
                        }
                    }
                    Err(_) if self.interrupt.is_over() => {}
                    Err(why) => {
                        lock(&self.pool).lost(number, true);
                        (self.tell)(&format!("{kernel}: no guest is held: {why}"));
                        self.fill(scope);
                    }
                }
                let _ = fs::remove_file(self.dir.path().join(format!("{number}.log")));
            });
        }
    }
}
