//! Pins: what every object with a descriptor does with a path on a bpffs.

use crate::{BpfError, sys};
use std::{
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

/// `BPF_OBJ_PIN`.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), BpfError> {
    sys::pin(fd, path).map_err(|errno| BpfError::call(format!("BPF_OBJ_PIN {}", path.display()), errno))
}

/// `BPF_OBJ_GET`, as whatever the caller knows to be pinned there.
pub(crate) fn open<T: From<OwnedFd>>(path: &Path) -> Result<T, BpfError> {
    open_as(path, 0).map(T::from)
}

/// As [`open`], with flags of the file.
pub(crate) fn open_as(path: &Path, file_flags: u32) -> Result<OwnedFd, BpfError> {
    sys::open_pinned(path, file_flags).map_err(|errno| BpfError::call(format!("BPF_OBJ_GET {}", path.display()), errno))
}
