//! What is attached to a device, by any owner.

use crate::{BpfError, filters, query};
use lab_protocol::Hook;
use nix::errno::Errno;

const MPROG_HOOKS: [Hook; 4] = [Hook::TcxIngress, Hook::TcxEgress, Hook::NetkitPrimary, Hook::NetkitPeer];

/// One program on a device, as the kernel lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Under which hook.
    pub hook: Hook,
    /// Kernel id of the program.
    pub prog_id: u32,
    /// Kernel id of the link, where it is one.
    pub link_id: Option<u32>,
}

/// Every program on the device's clsact, tcx and netkit hooks. Programs of a netkit peer are listed on the primary.
///
/// # Errors
/// Those of [`crate::filters`] and [`crate::query`], except the answers by which a kernel or a device says that it has
/// no such hook.
pub fn observe(ifindex: u32) -> Result<Vec<Observed>, BpfError> {
    let mut found: Vec<Observed> = filters(ifindex)?
        .iter()
        .map(|filter| Observed { hook: filter.direction.hook(), prog_id: filter.prog_id, link_id: None })
        .collect();
    for hook in MPROG_HOOKS {
        match query(hook, ifindex) {
            Ok(state) => found.extend(state.entries.iter().map(|entry| Observed {
                hook,
                prog_id: entry.prog_id,
                link_id: entry.link_id,
            })),
            Err(error) if error.errno().is_some_and(is_absence) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Where the program is, if it is on the device.
///
/// # Errors
/// As [`observe`].
pub fn find(ifindex: u32, prog_id: u32) -> Result<Option<Observed>, BpfError> {
    Ok(observe(ifindex)?.into_iter().find(|observed| observed.prog_id == prog_id))
}

/// `EINVAL`: the kernel has no such hook; `ENXIO`: not a netkit device; `EACCES`: netkit's peer; `EOPNOTSUPP`: a
/// netkit device without one.
const fn is_absence(errno: Errno) -> bool {
    matches!(errno, Errno::EINVAL | Errno::ENXIO | Errno::EACCES | Errno::EOPNOTSUPP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_gone_is_no_device_without_programs() {
        assert!([Errno::EINVAL, Errno::ENXIO, Errno::EACCES, Errno::EOPNOTSUPP].into_iter().all(is_absence));
        assert!(![Errno::ENODEV, Errno::EPERM, Errno::ENOSPC].into_iter().any(is_absence));
    }
}
