//! XDP links, for the cases that ask which modes a device takes.

use crate::{
    BpfError, BpfLink, attr,
    sys::{self, Command},
};
use std::os::fd::AsFd;

/// `BPF_XDP` of `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;

/// Where the program runs; the values are `XDP_FLAGS_*` of include/uapi/linux/if_link.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum XdpMode {
    /// In the stack, on any device.
    Generic = 1 << 1,
    /// In the driver.
    Native = 1 << 2,
}

/// `BPF_LINK_CREATE` of an XDP program.
///
/// # Errors
/// [`BpfError::Call`]: `EOPNOTSUPP` where the driver has no native XDP.
pub fn attach_xdp(ifindex: u32, program: &impl AsFd, mode: XdpMode) -> Result<BpfLink, BpfError> {
    let mut attr = attr::LinkCreate {
        prog_fd: sys::number(program.as_fd()),
        target_ifindex: ifindex,
        attach_type: BPF_XDP,
        flags: mode as u32,
        ..attr::LinkCreate::default()
    };
    sys::bpf_fd(Command::LinkCreate, &mut attr)
        .map(BpfLink::from)
        .map_err(|errno| BpfError::call(format!("BPF_LINK_CREATE xdp ifindex {ifindex}"), errno))
}
