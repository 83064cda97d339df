//! Auto mode: selects the attach type for a workload interface.
//! The selection is made per interface, from its kind in netlink and the probe results, so that a node can have veth
//! and netkit workloads. The guest selects; the host independently computes which attach type the kernel must use.

use crate::{capabilities::Capabilities, fault::Fault};
use lab_protocol::{AttachType, Capability, DeviceKind};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

/// The best attach type for a device of this kind.
pub fn choose(kind: DeviceKind, capabilities: &Capabilities, fault: Option<Fault>) -> AttachType {
    if kind.is_netkit() && capabilities.has(Capability::Netkit) && fault != Some(Fault::AutoTcx) {
        AttachType::Netkit
    } else if capabilities.has(Capability::Tcx) {
        AttachType::Tcx
    } else {
        AttachType::Tc
    }
}

/// Whether the kernel has netkit's attach types. A kernel can have them and yet no netkit device, for example because the
/// command line keeps the driver from starting (`initcall_blacklist=netkit_init`). The kernel's symbols say so
/// (`netkit_link_attach`, drivers/net/netkit.c), independently of what an attach returns.
///
/// # Errors
///
/// /proc/kallsyms cannot be read.
pub fn attaches_netkit(capabilities: &Capabilities) -> io::Result<bool> {
    if capabilities.has(Capability::Netkit) {
        return Ok(true);
    }
    let symbols = BufReader::new(File::open("/proc/kallsyms")?);
    for line in symbols.lines() {
        if line?.split_ascii_whitespace().nth(2) == Some("netkit_link_attach") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{CapabilityReport, CapabilityState};

    fn capabilities(supported: &[Capability]) -> Capabilities {
        let reports = supported
            .iter()
            .map(|&capability| CapabilityReport {
                capability,
                state: CapabilityState::Supported,
                detail: String::new(),
            })
            .collect();
        Capabilities::new("6.17".parse().unwrap(), reports)
    }

    #[test]
    fn each_interface_is_decided_by_its_own_kind() {
        let all = capabilities(&[Capability::Tcx, Capability::Netkit]);
        assert_eq!(choose(DeviceKind::Veth, &all, None), AttachType::Tcx);
        assert_eq!(choose(DeviceKind::NetkitL3, &all, None), AttachType::Netkit);
        let no_netkit = capabilities(&[Capability::Tcx]);
        assert_eq!(choose(DeviceKind::NetkitL2, &no_netkit, None), AttachType::Tcx);
        assert_eq!(choose(DeviceKind::Veth, &capabilities(&[]), None), AttachType::Tc);
    }
}
