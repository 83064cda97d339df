//! Disables checksum offload.

use crate::{ifreq, netns::Netns};
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use std::os::fd::AsRawFd;

/// `ETHTOOL_STXCSUM` (include/uapi/linux/ethtool.h).
const ETHTOOL_STXCSUM: u32 = 0x17;
/// `SIOCETHTOOL` (include/uapi/linux/sockios.h).
const SIOCETHTOOL: u64 = 0x8946;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

mod call {
    nix::ioctl_readwrite_bad!(
        #[doc = "ethtool's ioctl."]
        ethtool,
        super::SIOCETHTOOL,
        nix::libc::ifreq
    );
}

/// Makes the stack fill in the checksums of what it sends by a device. Otherwise a packet crosses veth and netkit with
/// its checksum still to be made (`CHECKSUM_PARTIAL`), the receiver trusts it, and a wrong checksum by a rewriting
/// program is not detected.
///
/// # Errors
/// The kernel's refusal: `ENODEV` if the device is not there, `EINVAL` for a name that is too long.
pub fn send_checksummed(ns: &Netns, name: &str) -> Result<(), Errno> {
    ns.run(|| {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut value = EthtoolValue { cmd: ETHTOOL_STXCSUM, data: 0 };
        let mut request = ifreq::named(name)?;
        request.ifr_ifru.ifru_data = (&raw mut value).cast();
        // SAFETY: the name ends with a zero byte, and the data is the struct of this command, alive across the call.
        unsafe { call::ethtool(socket.as_raw_fd(), &raw mut request) }.map(drop)
    })
}
