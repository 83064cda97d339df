//! The virtio-serial port to the host, found by its name in sysfs, since the guest has no udev that would create a
//! link.

use lab_protocol::message::PORT_NAME;
use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    time::{Duration, Instant},
};

/// Maximum time until the port appears after its driver was loaded.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens the port for reading and writing.
///
/// # Errors
/// No port of that name appears in time, or its device node cannot be opened.
pub fn open() -> io::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(device) = find(Path::new("/sys/class/virtio-ports")) {
            return OpenOptions::new().read(true).write(true).open(Path::new("/dev").join(device));
        }
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("no virtio-serial port has the name {PORT_NAME} (is virtio_console missing?)"),
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The device name (`vport1p1`) of our port, once the kernel knows the port's name.
fn find(class: &Path) -> Option<String> {
    fs::read_dir(class).ok()?.flatten().find_map(|entry| {
        let name = fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == PORT_NAME).then(|| entry.file_name().to_string_lossy().into_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_port_by_name_not_by_number() {
        let class = tempfile::tempdir().unwrap();
        for (device, name) in [("vport0p1", "com.redhat.spice.0\n"), ("vport2p1", &format!("{PORT_NAME}\n"))] {
            fs::create_dir(class.path().join(device)).unwrap();
            fs::write(class.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find(class.path()).as_deref(), Some("vport2p1"));
        assert_eq!(find(Path::new("/nonexistent")), None);
    }
}
