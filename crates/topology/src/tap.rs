//! A tap: a device whose other end is this process. Only this file uses `/dev/net/tun`.

use crate::{TopologyError, ifreq, netns::Netns};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::stat::Mode,
    unistd::{read, write},
};
use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

mod request {
    // `TUNSETIFF` of linux/if_tun.h says that it takes an int, and takes a struct ifreq.
    nix::ioctl_write_ptr_bad!(tunsetiff, nix::libc::TUNSETIFF, nix::libc::ifreq);
}

/// The longest frame that is read whole, bytes.
const FRAME: usize = 65_550;

/// This process's end of a tap. The device is deleted when it is dropped.
#[derive(Debug)]
pub struct Tap {
    file: OwnedFd,
}

impl Tap {
    /// MAC address of the far end, as the node's neighbour table has it.
    pub const FAR_MAC: [u8; 6] = [0x02, 0x4e, 0x4b, 0xff, 0, 2];

    /// Makes the device in `ns`.
    ///
    /// # Errors
    /// [`TopologyError::Tap`]: no `/dev/net/tun`, or nothing behind it.
    pub fn open(ns: &Netns, name: &str) -> Result<Self, TopologyError> {
        let failed =
            |doing, errno| TopologyError::Tap { node: ns.name().to_owned(), name: name.to_owned(), doing, errno };
        ns.run(|| {
            let mut request = ifreq::named(name).map_err(|errno| failed("its name", errno))?;
            request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
            let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file = open("/dev/net/tun", flags, Mode::empty()).map_err(|errno| failed("/dev/net/tun", errno))?;
            // SAFETY: the descriptor is open, and `request` lives through the call, which reads and rewrites it.
            unsafe { request::tunsetiff(file.as_raw_fd(), &raw const request) }
                .map_err(|errno| failed("TUNSETIFF", errno))?;
            Ok(Self { file })
        })
    }

    /// The next Ethernet frame that the node sent; `None` after `timeout`.
    ///
    /// # Errors
    /// The kernel's error if the device was deleted.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>, Errno> {
        let deadline = Instant::now() + timeout;
        let mut frame = vec![0; FRAME];
        loop {
            match read(&self.file, &mut frame) {
                Ok(length) => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Err(Errno::EAGAIN) => {}
                Err(errno) => return Err(errno),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)], timeout)?;
        }
    }

    /// Lets the node receive an Ethernet frame.
    ///
    /// # Errors
    /// The kernel's: `EIO` while the device is down.
    pub fn send(&self, frame: &[u8]) -> Result<(), Errno> {
        write(&self.file, frame).map(drop)
    }
}
