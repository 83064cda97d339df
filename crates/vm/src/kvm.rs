//! Checks the KVM device without a guest: whether it can be opened, and whether it can create a virtual machine.

use nix::{errno::Errno, libc::c_int};
use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
};

/// The KVM device.
const DEVICE: &str = "/dev/kvm";

nix::ioctl_write_int_bad!(
    /// `KVM_CREATE_VM` (`include/uapi/linux/kvm.h`): creates an empty machine of the given type, returned as a
    /// descriptor.
    create_machine,
    nix::request_code_none!(0xAE, 0x01)
);

/// Why KVM is unusable.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The device does not exist.
    #[error("{}: No such file or directory", .0.display())]
    Absent(PathBuf),
    /// It can't be opened, usually because the user is not in the required group.
    #[error("{}: {cause}", device.display())]
    Closed {
        /// The device.
        device: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// It can be opened but can't create a machine: another hypervisor may use the processor exclusively (`EBUSY`).
    #[error("{} opens, but can't create a virtual machine: {cause}", device.display())]
    Refusing {
        /// The device.
        device: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
}

/// Checks that the device can create a virtual machine. This takes a millisecond, but does not show that a guest runs
/// in it.
///
/// # Errors
/// [`Unusable`].
pub fn usable() -> Result<(), Unusable> {
    usable_at(Path::new(DEVICE))
}

fn usable_at(device: &Path) -> Result<(), Unusable> {
    let opened = File::options().read(true).write(true).open(device);
    let opened = opened.map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => Unusable::Absent(device.to_owned()),
        _ => Unusable::Closed { device: device.to_owned(), cause },
    })?;
    // Machine type 0 exists on every x86 host.
    const DEFAULT_TYPE: c_int = 0;
    let made = loop {
        // SAFETY: the descriptor is open, and the request takes a number, not a pointer.
        match unsafe { create_machine(opened.as_raw_fd(), DEFAULT_TYPE) } {
            Err(Errno::EINTR) => {}
            other => break other,
        }
    };
    let machine = made.map_err(|errno| Unusable::Refusing { device: device.to_owned(), cause: errno.into() })?;
    // SAFETY: the kernel has just created this descriptor, and no other code uses it.
    drop(unsafe { OwnedFd::from_raw_fd(machine) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusing_device_is_distinguished_from_a_missing_one() {
        let told = |device: &str| usable_at(Path::new(device)).unwrap_err();
        assert!(matches!(told("/nonexistent/kvm"), Unusable::Absent(_)));
        assert_eq!(told("/nonexistent/kvm").to_string(), "/nonexistent/kvm: No such file or directory");
        assert!(matches!(told("/dev/null/kvm"), Unusable::Closed { .. }));
        let refusing = told("/dev/null");
        assert!(matches!(refusing, Unusable::Refusing { .. }), "{refusing:?}");
        assert!(
            refusing.to_string().starts_with("/dev/null opens, but can't create a virtual machine: "),
            "{refusing}"
        );
    }
}
