//! Network namespaces, and the only place where a thread enters one.
//!
//! A thread enters a namespace as its first act and stays there until it ends, so no code ever runs in a namespace by
//! accident. `/proc/sys/net` and `/proc/net` follow the thread that reads them, and so need no mount of their own.

use crate::TopologyError;
use lab_netlink::{Netlink, NetlinkError};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::stat::fstat,
};
use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    panic,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    thread::{self, JoinHandle},
};

/// Names and files of all namespaces that were ever made here and may still be there, oldest first.
static MADE: Mutex<Vec<(String, Weak<OwnedFd>)>> = Mutex::new(Vec::new());

/// A network namespace without a name in the file system: it lives as long as this value, the threads inside and the
/// sockets that they opened.
#[derive(Debug)]
pub struct Netns {
    name: String,
    fd: Arc<OwnedFd>,
    inode: u64,
    netlink: Mutex<Netlink>,
}

impl Netns {
    /// Makes a fresh namespace. The name is for people.
    ///
    /// # Errors
    /// [`TopologyError::Netns`] without `CAP_SYS_ADMIN`, without `CONFIG_NET_NS` or beyond
    /// `user.max_net_namespaces`.
    pub fn new(name: &str) -> Result<Self, TopologyError> {
        let failed = |doing, errno| TopologyError::Netns { node: name.to_owned(), doing, errno };
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed("unshare(CLONE_NEWNET)", errno))?;
            let file = File::open("/proc/thread-self/ns/net")
                .map_err(|error| failed("open /proc/thread-self/ns/net", errno_of(&error)))?;
            let netlink = Netlink::open().map_err(|source| TopologyError::Netlink { node: name.to_owned(), source })?;
            Ok((OwnedFd::from(file), netlink))
        };
        let (fd, netlink) = on_own_thread(make)?;
        let inode = fstat(&fd).map_err(|errno| failed("fstat", errno))?.st_ino;
        let fd = Arc::new(fd);
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|(_, fd)| fd.strong_count() > 0);
        made.push((name.to_owned(), Arc::downgrade(&fd)));
        Ok(Self { name: name.to_owned(), fd, inode, netlink: Mutex::new(netlink) })
    }

    /// Every namespace that somebody in this process holds, oldest first: for whoever shows what there is. What this
    /// gives holds them too.
    ///
    /// # Errors
    /// [`TopologyError::Netlink`] where one of them takes no socket.
    ///
    /// # Panics
    /// If one of them can't be entered.
    pub fn living() -> Result<Vec<Self>, TopologyError> {
        let made = MADE.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let living = made.into_iter().filter_map(|(name, fd)| Some((name, fd.upgrade()?)));
        let open = |(name, fd): (String, Arc<OwnedFd>)| {
            let failed = |doing, errno| TopologyError::Netns { node: name.clone(), doing, errno };
            let inode = fstat(&fd).map_err(|errno| failed("fstat", errno))?.st_ino;
            let netlink = on_own_thread(|| {
                enter(&fd, &name);
                Netlink::open().map_err(|source| TopologyError::Netlink { node: name.clone(), source })
            })?;
            Ok(Self { name, fd, inode, netlink: Mutex::new(netlink) })
        };
        living.map(open).collect()
    }

    /// The name given at birth.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace's file, for `IFLA_NET_NS_FD`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Inode of the namespace's file: what tells two namespaces apart, and what leak checks count.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The rtnetlink socket inside the namespace. Every thread may use it; it never leaves the namespace.
    pub fn netlink(&self) -> MutexGuard<'_, Netlink> {
        // A conversation that panicked leaves at most answers with an old sequence number, which are skipped.
        self.netlink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` inside the namespace and waits for it.
    ///
    /// # Panics
    /// With the panic of `work`, or if the namespace can't be entered.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        on_own_thread(|| {
            enter(&self.fd, &self.name);
            work()
        })
    }

    /// Runs `work` inside the namespace on a thread of its own.
    ///
    /// # Panics
    /// If the system has no more threads. If the namespace can't be entered, the new thread panics.
    pub fn spawn<R: Send + 'static>(&self, name: &str, work: impl FnOnce() -> R + Send + 'static) -> JoinHandle<R> {
        let (fd, node) = (Arc::clone(&self.fd), self.name.clone());
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                enter(&fd, &node);
                work()
            })
            .expect("the system has a thread to spare")
    }

    /// Words for a netlink error in this namespace.
    pub(crate) fn error(&self, source: NetlinkError) -> TopologyError {
        TopologyError::Netlink { node: self.name.clone(), source }
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}

fn enter(fd: &OwnedFd, name: &str) {
    setns(fd, CloneFlags::CLONE_NEWNET)
        .unwrap_or_else(|errno| panic!("setns into the network namespace `{name}`: {errno}"));
}

/// A scoped thread, so that the work may borrow; its panic becomes the caller's.
fn on_own_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|payload| panic::resume_unwind(payload))
}
