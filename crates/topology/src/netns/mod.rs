//! Network namespaces, and the only place where a thread enters one.
//!
//! A thread enters a namespace as its first act and stays there until it ends, so no code ever runs in a namespace by
//! accident. `/proc/sys/net` and `/proc/net` follow the thread that reads them, and so need no mount of their own.

mod space;
mod stock;
mod worker;

use crate::lock::unpoisoned;
use crate::{TopologyError, ahead};
use lab_netlink::{Netlink, NetlinkError};
use nix::sched::{CloneFlags, setns};
use space::{Problem, Space};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic,
    sync::{Arc, Mutex, MutexGuard, Weak},
    thread::{self, JoinHandle},
};

/// Names and files of all namespaces that this process created and that may still exist, oldest first.
static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());

/// A namespace's name, inode and file.
type Made = (String, u64, Weak<OwnedFd>);

/// A network namespace without a name in the file system: it lives as long as this value, the threads inside and the
/// sockets that they opened.
#[derive(Debug)]
pub struct Netns {
    name: String,
    space: Space,
}

impl Netns {
    /// A new namespace. The name is for display only.
    ///
    /// # Errors
    /// [`TopologyError::Netns`] without `CAP_SYS_ADMIN`, without `CONFIG_NET_NS` or beyond
    /// `user.max_net_namespaces`.
    pub fn new(name: &str) -> Result<Self, TopologyError> {
        let space = match stock::take() {
            Some(spare) => spare,
            None => Space::make(|_| ()).map_err(|problem: Problem| problem.of(name))?,
        };
        ahead::made(space.inode);
        let mut made = unpoisoned(MADE.lock());
        made.retain(|(_, _, fd)| fd.strong_count() > 0);
        made.push((name.to_owned(), space.inode, Arc::downgrade(&space.fd)));
        Ok(Self { name: name.to_owned(), space })
    }

    /// One that is there already. The name is for display only.
    ///
    /// # Errors
    /// [`TopologyError::Netns`] if the file is no network namespace or may not be entered.
    pub fn of(name: &str, file: OwnedFd) -> Result<Self, TopologyError> {
        let space = Space::enter(Arc::new(file)).map_err(|problem| problem.of(name))?;
        Ok(Self { name: name.to_owned(), space })
    }

    /// Every namespace that this process holds, oldest first, for display, but those that nobody uses yet. What this gives
    /// holds them too.
    ///
    /// # Errors
    /// [`TopologyError::Netns`], [`TopologyError::Netlink`] where one of them can't be entered or takes no socket.
    pub fn living() -> Result<Vec<Self>, TopologyError> {
        let made = unpoisoned(MADE.lock()).clone();
        let unused = ahead::inodes();
        let used = made.into_iter().filter(|(_, inode, _)| !unused.contains(inode));
        let living = used.filter_map(|(name, _, fd)| Some((name, fd.upgrade()?)));
        let open = |(name, fd): (String, Arc<OwnedFd>)| match Space::enter(fd) {
            Ok(space) => Ok(Self { name, space }),
            Err(problem) => Err(problem.of(&name)),
        };
        living.map(open).collect()
    }

    /// Keeps this number of new namespaces ready, created by a separate thread while other threads wait. Returns once
    /// they exist.
    pub fn keep_ready(count: usize) {
        stock::keep(count);
    }

    /// Whether namespaces that were ready and are taken are replaced, which they are at first. In a guest that has just been
    /// restored, a new one costs as much as a fifth of a cell.
    pub fn replace_taken(are_replaced: bool) {
        stock::replace(are_replaced);
    }

    /// Inodes of the namespaces that are only kept ready, also as a part of a topology.
    pub fn spare_inodes() -> Vec<u64> {
        // In the order in which a namespace goes from the one to the other.
        let mut inodes = stock::inodes();
        inodes.extend(ahead::inodes());
        inodes
    }

    /// The name that it was created with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file, for `IFLA_NET_NS_FD`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.space.fd.as_fd()
    }

    /// Inode of the namespace's file: it identifies a namespace, and leak checks count it.
    pub fn inode(&self) -> u64 {
        self.space.inode
    }

    /// The rtnetlink socket inside the namespace. Every thread may use it; it never leaves the namespace.
    pub fn netlink(&self) -> MutexGuard<'_, Netlink> {
        // A panic leaves at most answers with an old sequence number, which are skipped.
        unpoisoned(self.space.netlink.lock())
    }

    /// Runs `work` inside the namespace and waits for it: on the thread that made the namespace, or on one of its own
    /// where that one is busy.
    ///
    /// # Panics
    /// With the panic of `work`, or if the namespace can't be entered.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.space.worker.run(work).unwrap_or_else(|work| {
            let inside = || {
                enter(&self.space.fd, &self.name);
                work()
            };
            // Scoped, so that the work may borrow; its panic becomes the caller's.
            thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|payload| panic::resume_unwind(payload))
        })
    }

    /// Runs `work` inside the namespace on a thread of its own.
    ///
    /// # Panics
    /// If the system has no more threads. If the namespace can't be entered, the new thread panics.
    pub fn spawn<R: Send + 'static>(&self, name: &str, work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let (fd, node) = (Arc::clone(&self.space.fd), self.name.clone());
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                enter(&fd, &node);
                work()
            })
            .expect("the system can start a thread")
    }

    /// Converts a netlink error in this namespace.
    pub(crate) fn error(&self, error: NetlinkError) -> TopologyError {
        TopologyError::Netlink { node: self.name.clone(), error }
    }
}

fn enter(fd: &OwnedFd, name: &str) {
    setns(fd, CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|errno| panic!("setns into the network namespace `{name}`: {errno}"));
}
