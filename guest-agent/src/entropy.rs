//! Random numbers after a restore: all guests of one snapshot start with the same state of the kernel's generator.

use nix::errno::Errno;
use std::{fs::OpenOptions, os::fd::AsRawFd};

/// `struct rand_pool_info` of `linux/random.h` with room for the host's bytes.
#[repr(C)]
struct PoolInfo {
    /// Number of entropy bits to credit for `buf`.
    entropy_count: i32,
    /// Length of `buf`, bytes.
    buf_size: i32,
    buf: [u8; 32],
}

nix::ioctl_write_ptr!(
    /// `RNDADDENTROPY`: adds bytes and credits them.
    add_entropy,
    b'R',
    0x03,
    [i32; 2]
);
nix::ioctl_none!(
    /// `RNDRESEEDCRNG`: the generator reseeds itself from the pool at once instead of within the next minute.
    reseed_generator,
    b'R',
    0x07
);

/// Feeds the host's bytes to the kernel's generator and makes it use them at once.
///
/// # Errors
/// The ioctl's errno, for example `EPERM` if the agent is not root.
pub fn reseed(bytes: &[u8; 32]) -> Result<(), Errno> {
    let random = OpenOptions::new()
        .write(true)
        .open("/dev/urandom")
        .map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO)))?;
    let info = PoolInfo { entropy_count: 8 * 32, buf_size: 32, buf: *bytes };
    // SAFETY: the ioctl's size covers the two counters only; the kernel reads them and then `buf_size` bytes behind
    // them, which is `buf`, and keeps no pointer.
    unsafe { add_entropy(random.as_raw_fd(), std::ptr::from_ref(&info).cast()) }?;
    // SAFETY: no argument.
    unsafe { reseed_generator(random.as_raw_fd()) }?;
    Ok(())
}
