//! The machine's network device, where the host has connected one (`--net pasta`).
//!
//! Its driver is loaded for the first world that needs it, and lets go of the device with the world: nothing of it is
//! left in the guest that somebody would have to account for.

use super::{MountError, modprobe};
use lab_harness::{Netns, uplink};
use lab_protocol::world::Uplink;
use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

/// Name of the device in the namespace of the program; no topology of the lab has one of that name.
const NAME: &str = "uplink0";
/// Devices of virtio.
const DEVICES: &str = "/sys/bus/virtio/devices";
/// `VIRTIO_ID_NET` (include/uapi/linux/virtio_ids.h) as in `modalias`.
const IS_NETWORK: &str = "virtio:d00000001v";
const MODULE: &str = "virtio_net";
const DRIVER: &str = "/sys/bus/virtio/drivers/virtio_net";

/// The device while a world has it.
#[derive(Debug)]
pub struct ConnectedUplink(String);

impl ConnectedUplink {
    /// Sets it up in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`MountError`]: there is no device or no driver, or the kernel refuses a request.
    pub fn connect(wanted: &Uplink) -> Result<Self, MountError> {
        modprobe::load_named(MODULE).map_err(|error| MountError::Driver { name: MODULE, error })?;
        let device = device().ok_or(MountError::NoUplink)?;
        let id = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !device.join("driver").exists() {
            // An earlier world has let go of it.
            let bind = Path::new(DRIVER).join("bind");
            fs::write(&bind, &id).map_err(MountError::io(&bind))?;
        }
        // From here on dropping it takes the device away.
        let connected = Self(id);
        let interface = fs::read_dir(device.join("net")).ok().and_then(|mut all| all.next()?.ok());
        let interface = interface.ok_or(MountError::NoUplink)?.file_name().to_string_lossy().into_owned();
        let [home, here] = ["/proc/1/ns/net", "/proc/thread-self/ns/net"].map(namespace);
        uplink::connect((&home?, &interface), (&here?, NAME), &wanted.addresses, &wanted.gateways)
            .map_err(MountError::Uplink)?;
        Ok(connected)
    }
}

impl Drop for ConnectedUplink {
    fn drop(&mut self) {
        // The next world binds it again, and says what is wrong if it can't.
        let _ = fs::write(Path::new(DRIVER).join("unbind"), &self.0);
    }
}

fn namespace(path: &str) -> Result<Netns, MountError> {
    let file = File::open(path).map_err(MountError::io(Path::new(path)))?;
    Netns::of(path, OwnedFd::from(file)).map_err(MountError::Uplink)
}

/// The first network device of virtio.
fn device() -> Option<PathBuf> {
    let mut devices: Vec<PathBuf> = fs::read_dir(DEVICES).ok()?.flatten().map(|entry| entry.path()).collect();
    devices.sort();
    let is_network =
        |path: &PathBuf| -> io::Result<bool> { Ok(fs::read_to_string(path.join("modalias"))?.starts_with(IS_NETWORK)) };
    devices.into_iter().find(|path| is_network(path).unwrap_or(false))
}
