//! `struct ifreq` for older interfaces that have no netlink equivalent.

use nix::{errno::Errno, libc};

/// A request about the device of that name, everything else zero.
///
/// # Errors
/// `EINVAL` for a name that is too long.
pub(crate) fn named(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: integers and a union of integers and pointers, for which all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        // Signed on x86-64, unsigned on arm64.
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(request)
}
