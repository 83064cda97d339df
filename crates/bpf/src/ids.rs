//! The ids of all programs, maps and links in the kernel: leaks of a case are the difference of two lists.

use crate::{
    BpfError, attr,
    sys::{self, Command},
};
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// Ids of all programs in the kernel.
///
/// # Errors
/// [`BpfError::Call`]: `EPERM` without `CAP_SYS_ADMIN`.
pub fn prog_ids() -> Result<Vec<u32>, BpfError> {
    walk(Command::ProgGetNextId, "BPF_PROG_GET_NEXT_ID")
}

/// Ids of all maps in the kernel.
///
/// # Errors
/// As [`prog_ids`].
pub fn map_ids() -> Result<Vec<u32>, BpfError> {
    walk(Command::MapGetNextId, "BPF_MAP_GET_NEXT_ID")
}

/// Ids of all links in the kernel.
///
/// # Errors
/// As [`prog_ids`].
pub fn link_ids() -> Result<Vec<u32>, BpfError> {
    walk(Command::LinkGetNextId, "BPF_LINK_GET_NEXT_ID")
}

/// `BPF_PROG_GET_FD_BY_ID`.
///
/// # Errors
/// As [`prog_ids`]; `ENOENT` where there is no such program.
pub fn prog_fd(id: u32) -> Result<OwnedFd, BpfError> {
    by_id(Command::ProgGetFdById, "BPF_PROG_GET_FD_BY_ID", id)
}

/// `BPF_MAP_GET_FD_BY_ID`.
///
/// # Errors
/// As [`prog_ids`]; `ENOENT` where there is no such map.
pub fn map_fd(id: u32) -> Result<OwnedFd, BpfError> {
    by_id(Command::MapGetFdById, "BPF_MAP_GET_FD_BY_ID", id)
}

/// `BPF_LINK_GET_FD_BY_ID`.
///
/// # Errors
/// As [`prog_ids`]; `ENOENT` where there is no such link.
pub fn link_fd(id: u32) -> Result<OwnedFd, BpfError> {
    by_id(Command::LinkGetFdById, "BPF_LINK_GET_FD_BY_ID", id)
}

fn by_id(command: Command, name: &str, id: u32) -> Result<OwnedFd, BpfError> {
    let mut attr = attr::NextId { start_id: id, ..attr::NextId::default() };
    sys::bpf_fd(command, &mut attr).map_err(|errno| BpfError::call(name, errno))
}

fn walk(command: Command, name: &str) -> Result<Vec<u32>, BpfError> {
    let mut ids = Vec::new();
    let mut start_id = 0;
    loop {
        let mut attr = attr::NextId { start_id, ..attr::NextId::default() };
        match sys::bpf(command, &mut attr) {
            Ok(_) => ids.push(attr.next_id),
            Err(Errno::ENOENT) => return Ok(ids),
            Err(errno) => return Err(BpfError::call(name, errno)),
        }
        start_id = attr.next_id;
    }
}
