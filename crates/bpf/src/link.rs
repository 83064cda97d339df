//! BPF links of tcx and netkit.

use crate::{
    BpfError, attr, hook, pin, reading,
    sys::{self, Command},
};
use lab_protocol::{AttachType, Hook};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

const BPF_F_REPLACE: u32 = 1 << 2;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_LINK_TYPE_NETKIT: u32 = 13;

/// A link's descriptor. Dropping the last one, unless pinned, detaches.
#[derive(Debug)]
pub struct BpfLink {
    fd: OwnedFd,
}

/// What the kernel reports of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkInfo {
    /// `bpf_link_info.id`.
    pub id: u32,
    /// `enum bpf_link_type`.
    pub link_type: u32,
    /// Kernel id of its program.
    pub prog_id: u32,
    /// Device, 0 once detached. A netkit PEER link reports the *peer's* index, which is valid in another namespace.
    pub ifindex: u32,
    /// `enum bpf_attach_type`.
    pub attach_type: u32,
}

impl LinkInfo {
    /// The hook by the link's own account.
    pub const fn hook(&self) -> Option<Hook> {
        hook::from_attach_type(self.attach_type)
    }

    /// The attach type by `link_type` alone, independent of [`Self::hook`].
    pub const fn kind(&self) -> Option<AttachType> {
        match self.link_type {
            BPF_LINK_TYPE_TCX => Some(AttachType::Tcx),
            BPF_LINK_TYPE_NETKIT => Some(AttachType::Netkit),
            _ => None,
        }
    }
}

impl BpfLink {
    /// `BPF_OBJ_GET_INFO_BY_FD`.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn info(&self) -> Result<LinkInfo, BpfError> {
        let asking = reading::ask();
        let info: attr::RawLinkInfo =
            sys::info(self.as_fd()).map_err(|errno| BpfError::call("BPF_OBJ_GET_INFO_BY_FD of a link", errno))?;
        let info = LinkInfo {
            id: info.id,
            link_type: info.link_type,
            prog_id: info.prog_id,
            ifindex: info.ifindex,
            attach_type: info.attach_type,
        };
        asking.told_of(&info);
        Ok(info)
    }

    /// `BPF_LINK_UPDATE`: swaps the program without a gap; with `old`, only if that one is still there.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `EPERM` for another `old`, `EEXIST` where the new one is on the hook already, `ENOLINK`
    /// where the link is detached.
    pub fn update(&self, new: &impl AsFd, old: Option<BorrowedFd<'_>>) -> Result<(), BpfError> {
        let mut attr = attr::LinkUpdate {
            link_fd: sys::number(self.as_fd()),
            new_prog_fd: sys::number(new.as_fd()),
            flags: if old.is_some() { BPF_F_REPLACE } else { 0 },
            old_prog_fd: old.map_or(0, sys::number),
        };
        sys::bpf(Command::LinkUpdate, &mut attr).map(drop).map_err(|errno| BpfError::call("BPF_LINK_UPDATE", errno))
    }

    /// `BPF_LINK_DETACH`: off the device at once; the link itself lives on with index 0.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn detach(&self) -> Result<(), BpfError> {
        let mut attr = attr::LinkDetach { link_fd: sys::number(self.as_fd()) };
        sys::bpf(Command::LinkDetach, &mut attr).map(drop).map_err(|errno| BpfError::call("BPF_LINK_DETACH", errno))
    }

    /// `BPF_OBJ_PIN`: the link outlives its descriptors until the file is unlinked. The path must be on a bpffs.
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

impl From<OwnedFd> for BpfLink {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<BpfLink> for OwnedFd {
    fn from(link: BpfLink) -> Self {
        link.fd
    }
}

impl AsFd for BpfLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
