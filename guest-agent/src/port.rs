//! The virtio-serial port to the host, found by its name in sysfs, since the guest has no udev that would create a
//! link.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Maximum time until the port appears after its driver was loaded.
const PATIENCE: Duration = Duration::from_secs(10);

/// The ports in sysfs.
const PORTS: &str = "/sys/class/virtio-ports";

/// Whether the machine has a port of this name: it is a guest of the lab.
pub fn is_there(name: &str) -> bool {
    find(Path::new(PORTS), name).is_some()
}

/// Opens the port of this name for reading and writing.
///
/// # Errors
/// Where no such port appears in time, or its node cannot be opened.
pub fn open(name: &str) -> io::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(device) = find(Path::new(PORTS), name) {
            return OpenOptions::new().read(true).write(true).open(Path::new("/dev").join(device));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no virtio-serial port is named {name} (virtio_console missing?)"),
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The device name (`vport1p1`) of a port, once the host's side gave it its name.
fn find(class: &Path, wanted: &str) -> Option<String> {
    fs::read_dir(class).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == wanted).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_port_by_name_not_by_number() {
        let class = tempfile::tempdir().unwrap();
        for (device, name) in [("vport0p1", "com.redhat.spice.0\n"), ("vport2p1", "org.netkit-lab.agent.0\n")] {
            fs::create_dir(class.path().join(device)).unwrap();
            fs::write(class.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find(class.path(), "org.netkit-lab.agent.0").as_deref(), Some("vport2p1"));
        assert_eq!(find(Path::new("/nonexistent"), "x"), None);
    }
}
