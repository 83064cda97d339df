//! Guests that one process prepares and holds, and another one uses.
//!
//! The first process restores a guest ([`HeldGuest::restore`]), has it run what makes QEMU translate the code that will be needed,
//! and stops it. A translation is lost with its QEMU: it is what an emulated guest spends most of its first second on. The second
//! process is told where the guest's sockets are ([`Loan`]), and talks to it as to one that it has restored itself
//! ([`borrow`]). The process that started QEMU stays its parent, and says when and how it has ended.

pub use super::keeper::{HELD, Loan, ProcessEnd};

use super::{
    Guest, GuestSpec, Snapshot, VmError,
    guest::{LaunchStage, MachineGuest},
    restore,
};
use lab_base::lock::lock;
use procfs::process::Process;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, Read, Seek, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
};

/// The guest of another process, which has told where it is on `line` and will tell its end there. It ends when the guest is
/// dropped, since `line` does. `None` if it is not there: the other process may be in another container, where a pid is another
/// process's.
pub fn borrow(loan: Loan, line: UnixStream, spec: &GuestSpec) -> Option<Box<dyn Guest>> {
    let words = i32::try_from(loan.leader).ok().and_then(|pid| Process::new(pid).ok()?.cmdline().ok())?;
    let dir = loan.dir.to_string_lossy();
    // The directory's name is unique, and QEMU's sockets are in it.
    let is_there = words.iter().any(|word| word.contains(&*dir));
    is_there.then(|| Box::new(MachineGuest::lent(loan, line, spec)) as Box<dyn Guest>)
}

/// A guest that this process holds for others. QEMU ends with the thread that restored it.
#[derive(Debug)]
pub struct HeldGuest {
    guest: MachineGuest,
    console: Console,
}

impl HeldGuest {
    /// Restores a guest. Its console goes to the file of the specification, until [`Self::lend`] names another.
    ///
    /// # Errors
    /// As [`super::Launcher::restore`].
    pub fn restore(spec: &GuestSpec, snapshot: &Snapshot) -> Result<Self, VmError> {
        let failed = |cause| VmError::File { what: "console", path: spec.console.clone(), cause };
        // The console of a restored guest starts with the console of the boot.
        fs::copy(snapshot.console(), &spec.console).map_err(failed)?;
        let (from_guest, to_us) = io::pipe().map_err(failed)?;
        let console = Console::follow(from_guest, &spec.console).map_err(failed)?;
        let stage = LaunchStage::with(spec, File::from(OwnedFd::from(to_us)))?;
        Ok(Self { guest: restore::finish(stage, spec, snapshot)?, console })
    }

    /// The guest, to talk to.
    pub fn guest(&mut self) -> &mut dyn Guest {
        &mut self.guest
    }

    /// Stops it. It takes no time of a processor then, and its clock stands.
    ///
    /// # Errors
    /// QEMU refuses, or does not answer.
    pub fn pause(&self) -> Result<(), VmError> {
        self.guest.monitor()?.pause()
    }

    /// Lets it run for the process at the other end of `line`, with its console in the file of that process's choice.
    ///
    /// # Errors
    /// The file can't be written, QEMU does not answer, or nobody is at the other end.
    pub fn lend(&mut self, console: &Path) -> Result<Loan, VmError> {
        let failed = |cause| VmError::File { what: "console", path: console.to_owned(), cause };
        self.console.continue_in(console).map_err(failed)?;
        self.guest.monitor()?.go_on()?;
        self.guest.loan().ok_or_else(|| VmError::Monitor("the guest is another process's".to_owned()))
    }

    /// How its process has ended, if it has. All of its console is in the file then.
    pub fn exited(&mut self) -> Option<ProcessEnd> {
        let exit = self.guest.exited()?;
        self.console.finish();
        Some(ProcessEnd { code: exit.code, signal: exit.signal })
    }
}

/// A guest's console on its way from a pipe to a file.
#[derive(Debug)]
struct Console {
    file: Arc<Mutex<File>>,
    thread: Option<JoinHandle<()>>,
}

impl Console {
    /// Appends what arrives to a file.
    fn follow(mut pipe: PipeReader, path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).open(path)?;
        let file = Arc::new(Mutex::new(file));
        let target = Arc::clone(&file);
        let carry = move || {
            let mut buffer = vec![0; 16 << 10];
            // A guest that writes without end is ended by the process that reads its console.
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                let mut file = lock(&target);
                if file.metadata().is_ok_and(|found| found.len() <= 2 * super::CONSOLE_LIMIT) {
                    let _ = file.write_all(&buffer[..count]);
                }
            }
        };
        let thread = thread::Builder::new().name("console".to_owned()).spawn(carry)?;
        Ok(Self { file, thread: Some(thread) })
    }

    /// Appends all that was there so far, and what is to come, to another file.
    fn continue_in(&self, path: &Path) -> io::Result<()> {
        let mut file = lock(&self.file);
        let mut next = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.rewind()?;
        io::copy(&mut *file, &mut next)?;
        *file = next;
        Ok(())
    }

    /// Waits for the rest. The guest must have ended.
    fn finish(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::unix::process::CommandExt,
        process::{Command, Stdio},
        time::Duration,
    };

    #[test]
    fn a_process_that_is_not_the_guest_is_not_borrowed() {
        let dir = tempfile::tempdir().unwrap();
        let borrowed = |leader: u32| {
            let (line, _) = UnixStream::pair().unwrap();
            let spec = crate::fake::specification(dir.path().to_owned());
            borrow(Loan { dir: dir.path().to_owned(), leader }, line, &spec).is_some()
        };
        assert!(!borrowed(std::process::id()) && !borrowed(u32::MAX) && !borrowed(0));
        let port = format!("path={}/port", dir.path().display());
        let mut own = Command::new("sh")
            .args(["-c", "echo; read line", &port])
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A process that has just called execve has no command line yet: the kernel wakes the parent before it writes it.
        own.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
        let found = borrowed(own.id());
        drop(own.stdin.take());
        own.wait().unwrap();
        assert!(found);
    }

    #[test]
    fn a_console_goes_on_in_the_file_of_the_borrower() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        fs::write(&first, "boot\n").unwrap();
        let (pipe, mut guest) = io::pipe().unwrap();
        let mut console = Console::follow(pipe, &first).unwrap();
        guest.write_all(b"held\n").unwrap();
        while fs::read(&first).unwrap() != b"boot\nheld\n" {
            thread::sleep(Duration::from_millis(1));
        }
        console.continue_in(&second).unwrap();
        guest.write_all(b"lent\n").unwrap();
        drop(guest);
        console.finish();
        assert_eq!(fs::read_to_string(&second).unwrap(), "boot\nheld\nlent\n");
        assert_eq!(fs::read_to_string(&first).unwrap(), "boot\nheld\n");
    }
}
