//! Devices of netdevsim (drivers/net/netdevsim): a driver without hardware, whose queues can be leased. Debian's kernels don't have it.

use crate::{DeviceInfo, link, netns::Netns};
use lab_netlink::NetlinkError;
use std::{collections::BTreeSet, fs, io, path::Path};

const BUS: &str = "/sys/bus/netdevsim";
/// Number of the one device that a case makes.
const NUMBER: u32 = 4242;

/// Whether the kernel has the driver.
pub fn is_there() -> bool {
    Path::new(BUS).join("new_device").exists()
}

/// A device of the driver with one port. It is deleted when it is dropped.
#[derive(Debug)]
pub struct SimulatedDevice {
    there: bool,
}

impl SimulatedDevice {
    /// Makes a device with this many queues; its port appears in the namespace.
    ///
    /// # Errors
    /// The kernel's refusal (`new_device_store()`): `ENOSPC` where the number is taken.
    pub fn new(ns: &Netns, queues: u32) -> io::Result<Self> {
        ns.run(|| fs::write(Path::new(BUS).join("new_device"), format!("{NUMBER} 1 {queues}")))?;
        Ok(Self { there: true })
    }

    /// The port: the device of the namespace that was not there before.
    ///
    /// # Errors
    /// The kernel's refusal of the list.
    pub fn port(&self, ns: &Netns, before: &BTreeSet<u32>) -> Result<Option<DeviceInfo>, NetlinkError> {
        Ok(link::list(ns)?.into_iter().find(|device| !before.contains(&device.ifindex)))
    }

    /// Deletes it.
    ///
    /// # Errors
    /// The kernel's refusal (`del_device_store()`).
    pub fn delete(mut self) -> io::Result<()> {
        self.there = false;
        fs::write(Path::new(BUS).join("del_device"), NUMBER.to_string())
    }
}

impl Drop for SimulatedDevice {
    fn drop(&mut self) {
        if self.there {
            // A device that stays is found by the check for leaks.
            let _ = fs::write(Path::new(BUS).join("del_device"), NUMBER.to_string());
        }
    }
}
