//! What ethtool asks of a device: the name of its driver, and who makes the checksums.

use crate::{ifreq, netns::Netns};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use std::{ffi::CStr, os::fd::AsRawFd};

/// `ETHTOOL_GDRVINFO` (include/uapi/linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 0x03;
/// `ETHTOOL_STXCSUM` (include/uapi/linux/ethtool.h).
const ETHTOOL_STXCSUM: u32 = 0x17;
/// `SIOCETHTOOL` (include/uapi/linux/sockios.h).
const SIOCETHTOOL: u64 = 0x8946;

/// The struct of a command of ethtool: integers alone, of which the first is the command, and as large as the kernel takes it.
///
/// # Safety
/// [`ask`] has the kernel write into it.
unsafe trait Request: Send {}

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

// SAFETY: two integers, as in include/uapi/linux/ethtool.h.
unsafe impl Request for EthtoolValue {}

/// `struct ethtool_drvinfo`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    /// Versions, places on a bus, and counts.
    others: [u8; 160],
}

// SAFETY: integers of 196 bytes together, as in include/uapi/linux/ethtool.h.
unsafe impl Request for DriverInfo {}

const _: () = assert!(size_of::<DriverInfo>() == 196);

mod call {
    nix::ioctl_readwrite_bad!(
        #[doc = "ethtool's ioctl."]
        ethtool,
        super::SIOCETHTOOL,
        nix::libc::ifreq
    );
}

fn ask(ns: &Netns, name: &str, what: &mut impl Request) -> Result<(), Errno> {
    ns.run(|| {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut request = ifreq::named(name)?;
        request.ifr_ifru.ifru_data = std::ptr::from_mut(what).cast();
        // SAFETY: the name ends with a zero byte, and the data is the struct of its command, alive across the call.
        unsafe { call::ethtool(socket.as_raw_fd(), &raw mut request) }.map(drop)
    })
}

/// Makes the stack fill in the checksums of what it sends by a device. Otherwise a packet crosses veth and netkit with
/// its checksum still to be made (`CHECKSUM_PARTIAL`), the receiver trusts it, and a wrong checksum by a rewriting
/// program is not detected.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if the device is not there, `EINVAL` for a name that is too long.
pub fn send_checksummed(ns: &Netns, name: &str) -> Result<(), Errno> {
    ask(ns, name, &mut EthtoolValue { cmd: ETHTOOL_STXCSUM, data: 0 })
}

/// The name that a device's driver gives itself (`ethtool -i`), which is one of the ways to tell veth from netkit.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if the device is not there, `EOPNOTSUPP` if its driver has no such answer, `EINVAL` for a name
/// that is too long.
pub fn driver(ns: &Netns, name: &str) -> Result<String, Errno> {
    let mut info = DriverInfo { cmd: ETHTOOL_GDRVINFO, driver: [0; 32], others: [0; 160] };
    ask(ns, name, &mut info)?;
    let named = CStr::from_bytes_until_nul(&info.driver).map_err(|_| Errno::EINVAL)?;
    Ok(named.to_string_lossy().into_owned())
}
