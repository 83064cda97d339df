//! The memory that an emulated machine has for a program's streams: a PCI device of QEMU's (docs/specs/ivshmem-spec), whose memory the
//! host shares. A machine has it since it was restored, so that the kernel has yet to find it.

use lab_protocol::work::STREAM_MEMORY;
use nix::{
    libc::{self, c_void},
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    fs::{self, File, OpenOptions},
    io,
    num::NonZeroUsize,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    ptr::NonNull,
};

/// The PCI devices in sysfs.
const DEVICES: &str = "/sys/bus/pci/devices";
/// Makes the kernel look for new ones.
const RESCAN: &str = "/sys/bus/pci/rescan";
/// Vendor and device of ivshmem-plain.
const IDENTITY: [(&str, &str); 2] = [("vendor", "0x1af4"), ("device", "0x1110")];
/// The file of the memory: the device's third region.
const REGION: &str = "resource2";

/// The mapped memory.
#[derive(Debug)]
pub struct MappedStreams {
    start: NonNull<c_void>,
}

// SAFETY: the memory belongs to no thread, and only the kernel reads and writes it.
unsafe impl Send for MappedStreams {}
// SAFETY: as above.
unsafe impl Sync for MappedStreams {}

impl MappedStreams {
    /// Finds the device and maps its memory.
    ///
    /// # Errors
    /// The machine has no such device, or the kernel refuses the mapping: one that is locked down lets nobody map a device
    /// (`pci_mmap_resource`, drivers/pci/pci-sysfs.c).
    pub fn map() -> io::Result<Self> {
        fs::write(RESCAN, "1")?;
        let device = find(Path::new(DEVICES)).ok_or(io::ErrorKind::NotFound)?;
        // No driver has turned its memory on.
        fs::write(device.join("enable"), "1")?;
        Self::of_file(&OpenOptions::new().read(true).write(true).open(device.join(REGION))?)
    }

    fn of_file(file: &File) -> io::Result<Self> {
        let length = NonZeroUsize::new(STREAM_MEMORY).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start =
            unsafe { mmap(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(Self { start })
    }

    /// Writes what is at `at` to a file, all of it.
    ///
    /// # Errors
    /// The file's; [`io::ErrorKind::InvalidInput`] where it is not all in the memory.
    pub fn write_to(&self, file: &File, mut at: usize, mut length: usize) -> io::Result<()> {
        while length > 0 {
            let start = self.place(at, length)?;
            // SAFETY: the place is in the mapping. The kernel reads it: there is no reference to memory that the host may change.
            let written = unsafe { libc::write(file.as_raw_fd(), start, length) };
            let written = unless_interrupted(written)?;
            (at, length) = (at + written, length - written);
        }
        Ok(())
    }

    /// Reads at most `length` bytes of a file to `at`; none at its end.
    ///
    /// # Errors
    /// As [`Self::write_to`].
    pub fn read_from(&self, file: &File, at: usize, length: usize) -> io::Result<usize> {
        let start = self.place(at, length)?;
        // SAFETY: the place is in the mapping, which is writable, and the kernel writes there.
        let read = unsafe { libc::read(file.as_raw_fd(), start, length) };
        if read < 0 { Err(io::Error::last_os_error()) } else { Ok(read.unsigned_abs()) }
    }

    fn place(&self, at: usize, length: usize) -> io::Result<*mut c_void> {
        let fits = at.checked_add(length).is_some_and(|end| end <= STREAM_MEMORY);
        // SAFETY: `at` is in the mapping, or at its end.
        if fits { Ok(unsafe { self.start.as_ptr().byte_add(at) }) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }
}

/// The bytes that were written; none where a signal came first.
fn unless_interrupted(written: isize) -> io::Result<usize> {
    usize::try_from(written).or_else(|_| match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        error => Err(error),
    })
}

impl Drop for MappedStreams {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nobody refers to it any more.
        let _ = unsafe { munmap(self.start, STREAM_MEMORY) };
    }
}

/// The directory of the device.
fn find(devices: &Path) -> Option<PathBuf> {
    let is_it = |device: &PathBuf| {
        IDENTITY
            .iter()
            .all(|(name, value)| fs::read_to_string(device.join(name)).is_ok_and(|told| told.trim_end() == *value))
    };
    fs::read_dir(devices).ok()?.flatten().map(|entry| entry.path()).find(is_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, SeekFrom, Write};

    #[test]
    fn what_the_host_writes_is_written_on_from_where_it_is() {
        let mut host = tempfile::tempfile().unwrap();
        host.set_len(STREAM_MEMORY as u64).unwrap();
        let memory = MappedStreams::of_file(&host).unwrap();
        let bytes: Vec<u8> = (0..STREAM_MEMORY).map(|at| (at % 251) as u8).collect();
        host.write_all(&bytes).unwrap();
        let mut program = tempfile::tempfile().unwrap();
        memory.write_to(&program, STREAM_MEMORY - 5, 5).unwrap();
        memory.write_to(&program, 3, 70_000).unwrap();
        let mut got = Vec::new();
        program.seek(SeekFrom::Start(0)).unwrap();
        program.read_to_end(&mut got).unwrap();
        assert!(got == [&bytes[STREAM_MEMORY - 5..], &bytes[3..70_003]].concat());
    }

    #[test]
    fn what_a_program_writes_is_where_the_host_reads() {
        let mut host = tempfile::tempfile().unwrap();
        host.set_len(STREAM_MEMORY as u64).unwrap();
        let memory = MappedStreams::of_file(&host).unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let reader = File::from(std::os::fd::OwnedFd::from(reader));
        writer.write_all(b"words").unwrap();
        assert_eq!(memory.read_from(&reader, STREAM_MEMORY - 3, 3).unwrap(), 3);
        assert_eq!(memory.read_from(&reader, 9, 100).unwrap(), 2);
        drop(writer);
        assert_eq!(memory.read_from(&reader, 0, 100).unwrap(), 0, "the end");
        let mut all = Vec::new();
        host.seek(SeekFrom::Start(0)).unwrap();
        host.read_to_end(&mut all).unwrap();
        assert_eq!((&all[STREAM_MEMORY - 3..], &all[8..12]), (&b"wor"[..], &b"\0ds\0"[..]));
    }

    #[test]
    fn nothing_is_read_outside_the_memory() {
        let host = tempfile::tempfile().unwrap();
        host.set_len(STREAM_MEMORY as u64).unwrap();
        let memory = MappedStreams::of_file(&host).unwrap();
        for (at, length) in [(STREAM_MEMORY - 4, 5), (STREAM_MEMORY, 1), (usize::MAX, 2)] {
            let refused = memory.write_to(&host, at, length).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{at} {length}");
        }
        assert!(memory.read_from(&host, STREAM_MEMORY - 4, 5).is_err());
        let reader = io::pipe().unwrap().0;
        let refused = memory.write_to(&File::from(std::os::fd::OwnedFd::from(reader)), 0, 1).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EBADF), "a file's own error");
    }

    #[test]
    fn the_device_is_found_by_what_it_is() {
        let devices = tempfile::tempdir().unwrap();
        for (name, vendor, device) in [("0000:00:01.0", "0x1af4", "0x1003"), ("0000:00:05.0", "0x1af4", "0x1110")] {
            let at = devices.path().join(name);
            fs::create_dir(&at).unwrap();
            fs::write(at.join("vendor"), format!("{vendor}\n")).unwrap();
            fs::write(at.join("device"), format!("{device}\n")).unwrap();
        }
        assert_eq!(find(devices.path()), Some(devices.path().join("0000:00:05.0")));
        assert_eq!(find(Path::new("/nonexistent")), None);
    }
}
