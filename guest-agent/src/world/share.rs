//! The host's files: a FUSE file system whose requests travel to the host over a port, as they are.

use super::MountError;
use crate::{kmsg, port};
use lab_protocol::world::FILES_PORT;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns},
};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::fd::AsRawFd,
    path::Path,
    sync::{Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Where the host's exports are in the agent's own root.
pub const SHARE: &str = "/lab/share";
/// Longest message of either side: the data of a read or write, and headers.
const LONGEST: usize = (256 << 10) + 32768;
/// Time within which the threads that carry messages end.
const PATIENCE: Duration = Duration::from_secs(20);
/// The threads that carry messages, while the exports are mounted.
static MOUNTED: Mutex<Vec<JoinHandle<()>>> = Mutex::new(Vec::new());
/// `struct fuse_out_header`.
const HEADER: usize = 16;

/// Mounts the host's exports, once.
///
/// # Errors
/// The kernel has no FUSE, or the machine no port for files.
pub fn mount_once() -> Result<(), MountError> {
    let mut mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    if mounted.is_empty() {
        *mounted = mount_share()?;
    }
    Ok(())
}

/// Unmounts them before the machine is saved: a restored guest has another host. The host must have closed its end.
///
/// # Errors
/// They are still in use.
pub fn unmount() -> Result<(), MountError> {
    let mut mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    if mounted.is_empty() {
        return Ok(());
    }
    let at = Path::new(SHARE);
    umount2(at, MntFlags::MNT_DETACH).map_err(MountError::mount("the host's files", at))?;
    let limit = Instant::now() + PATIENCE;
    while !mounted.iter().all(JoinHandle::is_finished) {
        if Instant::now() >= limit {
            return Err(MountError::io(at)(io::ErrorKind::ResourceBusy.into()));
        }
        thread::sleep(Duration::from_millis(5));
    }
    mounted.clear();
    Ok(())
}

fn mount_share() -> Result<Vec<JoinHandle<()>>, MountError> {
    let at = Path::new(SHARE);
    fs::create_dir_all(at).map_err(MountError::io(at))?;
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse").map_err(MountError::NoFuse)?;
    let port = port::open(FILES_PORT).map_err(MountError::io(Path::new(FILES_PORT)))?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read={}",
        device.as_raw_fd(),
        256 << 10
    );
    // Devices of the host are none of the guest's.
    let flags = MsFlags::MS_NODEV | MsFlags::MS_NOATIME;
    mount(Some("lab"), at, Some("fuse"), flags, Some(&*options)).map_err(MountError::mount("the host's files", at))?;
    let clone = |file: &File| file.try_clone().map_err(MountError::io(at));
    let (requests, answers) = (clone(&device)?, device);
    let (to_host, from_host) = (clone(&port)?, port);
    // Without a host a write to the port waits for one, also in a guest that is saved meanwhile, and a read ends at once.
    let (connected, is_connected) = mpsc::channel();
    Ok(vec![
        thread::spawn(move || at_home("requests for files", || carry_requests(requests, to_host, &connected))),
        thread::spawn(move || {
            // Otherwise it was unmounted before any host was there.
            if is_connected.recv().is_ok() {
                at_home("the host's files", || carry_answers(from_host, answers));
            }
        }),
    ])
}

/// Works in the network namespace of PID 1: a thread keeps the one that it was started in.
pub fn at_home(what: &str, work: impl FnOnce() -> io::Result<()>) {
    let home = File::open("/proc/1/ns/net").and_then(|home| Ok(setns(home, CloneFlags::CLONE_NEWNET)?));
    if let Err(error) = home.and_then(|()| work()) {
        kmsg::note(&format!("{what}: {error}"));
    }
}

/// Every read of the device is one request. Says when the first has reached a host.
fn carry_requests(mut device: File, mut port: File, connected: &mpsc::Sender<()>) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST];
    loop {
        match device.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                port.write_all(&buffer[..length])?;
                let _ = connected.send(());
            }
            // ENOENT: the request was taken back before it was read.
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Every write to the device is one answer.
fn carry_answers(port: impl Read, mut device: impl Write) -> io::Result<()> {
    let mut port = BufReader::with_capacity(64 << 10, port);
    let mut buffer = vec![0; LONGEST];
    loop {
        port.read_exact(&mut buffer[..HEADER])?;
        let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
        let rest = buffer.get_mut(HEADER..length);
        port.read_exact(rest.ok_or_else(|| io::Error::other(format!("an answer of {length} bytes")))?)?;
        match device.write(&buffer[..length]) {
            Ok(_) => {}
            // Who asked has been killed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device at which nobody waits for the first answer any more.
    #[derive(Default)]
    struct Device(Vec<Vec<u8>>);

    impl Write for &mut Device {
        fn write(&mut self, answer: &[u8]) -> io::Result<usize> {
            self.0.push(answer.to_vec());
            // As fuse_dev_write() has it (fs/fuse/dev.c).
            if self.0.len() == 1 { Err(io::Error::from_raw_os_error(nix::libc::ENOENT)) } else { Ok(answer.len()) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(unique: u64, data: &[u8]) -> Vec<u8> {
        let length = (HEADER + data.len()) as u32;
        [&length.to_le_bytes()[..], &[0; 4], &unique.to_le_bytes(), data].concat()
    }

    #[test]
    fn an_answer_that_nobody_waits_for_holds_up_no_other() {
        let answers = [answer(1, b"late"), answer(2, b""), answer(3, b"content")];
        let mut device = Device::default();
        let end = carry_answers(&*answers.concat(), &mut device).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof, "the host has left");
        assert_eq!(device.0, answers);
    }

    #[test]
    fn an_answer_of_a_wrong_length_is_an_error() {
        for length in [0, HEADER as u32 - 1, LONGEST as u32 + 1] {
            let text = [&length.to_le_bytes()[..], &[0; 12]].concat();
            let mut device = Device::default();
            let end = carry_answers(&*text, &mut device).unwrap_err().to_string();
            assert_eq!((end, device.0.len()), (format!("an answer of {length} bytes"), 0));
        }
    }
}
