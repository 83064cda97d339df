//! Jump maps.

use crate::{BpfError, attr, pin, sys};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;

/// A `BPF_MAP_TYPE_PROG_ARRAY`. Its first program, caller or callee, fixes what may join it.
#[derive(Debug)]
pub struct ProgArray {
    fd: OwnedFd,
}

impl ProgArray {
    /// A map of its own, for sharing by [`crate::LoadOptions::jump`].
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn create(slots: u32) -> Result<Self, BpfError> {
        let mut attr = attr::MapCreate {
            map_type: BPF_MAP_TYPE_PROG_ARRAY,
            key_size: 4,
            value_size: 4,
            max_entries: slots,
            ..attr::MapCreate::default()
        };
        sys::map_create(&mut attr).map(Self::from).map_err(|errno| BpfError::call("BPF_MAP_CREATE prog_array", errno))
    }

    /// Puts a program into a slot and replaces what was in it.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `EINVAL` where the program does not go with the map's owner, `E2BIG` past the last slot.
    pub fn insert(&self, slot: u32, program: &impl AsFd) -> Result<(), BpfError> {
        sys::map_update(self.as_fd(), slot, &program.as_fd().as_raw_fd().to_ne_bytes())
            .map_err(|errno| BpfError::call(format!("BPF_MAP_UPDATE_ELEM prog_array slot {slot}"), errno))
    }

    /// Id of the program in a slot (`prog_fd_array_sys_lookup_elem()`).
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where it is empty.
    pub fn program(&self, slot: u32) -> Result<u32, BpfError> {
        let mut id = [0; 4];
        sys::map_lookup(self.as_fd(), slot, &mut id)
            .map(|()| u32::from_ne_bytes(id))
            .map_err(|errno| BpfError::call(format!("BPF_MAP_LOOKUP_ELEM prog_array slot {slot}"), errno))
    }

    /// Empties a slot.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where it is empty.
    pub fn remove(&self, slot: u32) -> Result<(), BpfError> {
        sys::map_delete(self.as_fd(), slot)
            .map_err(|errno| BpfError::call(format!("BPF_MAP_DELETE_ELEM prog_array slot {slot}"), errno))
    }
}

impl ProgArray {
    /// `BPF_OBJ_PIN`: map and contents outlive every descriptor until the file is unlinked.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `EEXIST` where the path is taken.
    pub fn pin(&self, path: &Path) -> Result<(), BpfError> {
        pin::pin(self.as_fd(), path)
    }

    /// `BPF_OBJ_GET`.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where nothing is pinned.
    pub fn open_pinned(path: &Path) -> Result<Self, BpfError> {
        pin::open(path)
    }
}

impl From<OwnedFd> for ProgArray {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl AsFd for ProgArray {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
