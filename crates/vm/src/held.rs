//! Guests that one process prepares and holds, and another one uses.
//!
//! The first process restores a guest ([`HeldGuest::restore`]), has it run what makes QEMU translate the code that will be needed,
//! and stops it. A translation is lost with its QEMU: it is what an emulated guest spends most of its first second on. The second
//! process is told where the guest's sockets are ([`Loan`]), and talks to it as to one that it has restored itself
//! ([`borrow`]). The process that started QEMU stays its parent, and says when and how it has ended.

use super::{
    Guest, GuestSpec, Snapshot, VmError,
    guest::{LaunchStage, MachineGuest},
    restore,
};
use lab_base::lock::lock;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, PipeReader, Read, Seek, Write},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::Child,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

/// Maximum time from the end of a guest's processes to the word of the process that started it.
const WORD: Duration = Duration::from_secs(5);
/// Maximum bytes of that word.
const LONGEST_WORD: usize = 4096;

/// Where a guest of another process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loan {
    /// The directory of its sockets.
    pub dir: PathBuf,
    /// The leader of its process group.
    pub leader: u32,
}

/// How a guest's process ended. A guest whose end nobody has seen has neither.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    /// Its exit code.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

/// Who knows how the guest's process has ended.
#[derive(Debug)]
pub(super) enum Keeper {
    /// This process started it.
    Own(Child),
    /// Another one did, and says so on this connection.
    Lent { line: UnixStream, heard: Vec<u8> },
}

impl Keeper {
    pub fn lent(line: UnixStream) -> Self {
        Self::Lent { line, heard: Vec::new() }
    }

    /// The process, if it is a child of this one.
    pub fn leader(&self) -> Option<u32> {
        match self {
            Self::Own(child) => Some(child.id()),
            Self::Lent { .. } => None,
        }
    }

    /// How it has ended, if it has.
    pub fn try_wait(&mut self) -> Option<ProcessEnd> {
        match self {
            Self::Own(child) => child.try_wait().ok().flatten().map(end_of),
            // A timeout of zero would be none.
            Self::Lent { line, heard } => word(line, heard, Duration::from_micros(1)),
        }
    }

    /// How it ends.
    pub fn wait(&mut self) -> Option<ProcessEnd> {
        match self {
            Self::Own(child) => child.wait().ok().map(end_of),
            Self::Lent { line, heard } => Some(word(line, heard, WORD).unwrap_or_default()),
        }
    }
}

fn end_of(status: std::process::ExitStatus) -> ProcessEnd {
    ProcessEnd { code: status.code(), signal: status.signal() }
}

/// The line that tells the end. A connection that ends without one is one as well: QEMU ends with the process that started it.
fn word(line: &mut UnixStream, heard: &mut Vec<u8>, patience: Duration) -> Option<ProcessEnd> {
    line.set_read_timeout(Some(patience)).ok()?;
    let mut buffer = [0; 256];
    loop {
        match line.read(&mut buffer) {
            Ok(0) => return Some(ProcessEnd::default()),
            Ok(count) => heard.extend(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return None,
            Err(_) => return Some(ProcessEnd::default()),
        }
        if heard.ends_with(b"\n") || heard.len() > LONGEST_WORD {
            return Some(serde_json::from_slice(heard).unwrap_or_default());
        }
    }
}

/// The guest of another process, which has told where it is on `line` and will tell its end there. It ends when the guest is
/// dropped, since `line` does.
pub fn borrow(loan: Loan, line: UnixStream, spec: &GuestSpec) -> Box<dyn Guest> {
    Box::new(MachineGuest::lent(loan, line, spec))
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
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_end_of_a_lent_guest_is_what_its_parent_says() {
        let (mine, mut parent) = UnixStream::pair().unwrap();
        let mut keeper = Keeper::lent(mine);
        assert_eq!((keeper.try_wait(), keeper.leader()), (None, None));
        parent.write_all(b"{\"code\":null,").unwrap();
        assert_eq!(keeper.try_wait(), None, "half a line");
        parent.write_all(b"\"signal\":9}\n").unwrap();
        assert_eq!(keeper.try_wait(), Some(ProcessEnd { code: None, signal: Some(9) }));
        let (mine, parent) = UnixStream::pair().unwrap();
        drop(parent);
        assert_eq!(Keeper::lent(mine).wait(), Some(ProcessEnd::default()), "its parent has gone");
        let (mine, mut parent) = UnixStream::pair().unwrap();
        let (mut keeper, endless) = (Keeper::lent(mine), vec![b'x'; 2 * LONGEST_WORD]);
        parent.write_all(&endless).unwrap();
        assert_eq!(keeper.try_wait(), Some(ProcessEnd::default()), "a line without end");
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
