//! An unnamed namespace with its thread and socket.

use super::worker::Worker;
use crate::TopologyError;
use lab_netlink::{Netlink, NetlinkError};
use nix::{
    errno::Errno,
    sched::{CloneFlags, setns, unshare},
    sys::stat::fstat,
    unistd::{Pid, gettid},
};
use std::{
    fs::File,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
};

/// A namespace with its thread and its socket. It is deleted once these and all other sockets and threads in it are
/// closed.
#[derive(Debug)]
pub(super) struct Space {
    pub fd: Arc<OwnedFd>,
    pub inode: u64,
    pub netlink: Mutex<Netlink>,
    pub worker: Worker,
}

/// Why a namespace could not be created.
#[derive(Debug)]
pub(super) enum Problem {
    Call(&'static str, Errno),
    Netlink(NetlinkError),
}

impl Problem {
    /// Converts it to an error that names the node.
    pub fn of(self, node: &str) -> TopologyError {
        let node = node.to_owned();
        match self {
            Self::Call(doing, errno) => TopologyError::Netns { node, doing, errno },
            Self::Netlink(error) => TopologyError::Netlink { node, error },
        }
    }
}

impl Space {
    /// Creates a namespace. Its thread stays in it until its end, and is announced before it enters.
    pub fn make(announce: impl FnOnce(Pid) + Send) -> Result<Self, Problem> {
        let worker = Worker::start().map_err(|error| Problem::Call("starting its thread", errno_of(&error)))?;
        let first_job = || {
            announce(gettid());
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Problem::Call("unshare(CLONE_NEWNET)", errno))?;
            let file = File::open("/proc/thread-self/ns/net")
                .map_err(|error| Problem::Call("open /proc/thread-self/ns/net", errno_of(&error)))?;
            Ok((OwnedFd::from(file), Netlink::open().map_err(Problem::Netlink)?))
        };
        let (fd, netlink) = worker.run(first_job).unwrap_or_else(|_| unreachable!("no other code uses this thread"))?;
        Self::of(worker, Arc::new(fd), netlink)
    }

    /// Opens an existing namespace with a new thread and socket.
    pub fn enter(fd: Arc<OwnedFd>) -> Result<Self, Problem> {
        let worker = Worker::start().map_err(|error| Problem::Call("starting its thread", errno_of(&error)))?;
        let first_job = || {
            setns(&fd, CloneFlags::CLONE_NEWNET).map_err(|errno| Problem::Call("setns", errno))?;
            Netlink::open().map_err(Problem::Netlink)
        };
        let netlink = worker.run(first_job).unwrap_or_else(|_| unreachable!("no other code uses this thread"))?;
        Self::of(worker, fd, netlink)
    }

    fn of(worker: Worker, fd: Arc<OwnedFd>, netlink: Netlink) -> Result<Self, Problem> {
        let inode = fstat(&fd).map_err(|errno| Problem::Call("fstat", errno))?.st_ino;
        Ok(Self { fd, inode, netlink: Mutex::new(netlink), worker })
    }
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32))
}
