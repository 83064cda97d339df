//! Who knows how a guest's process has ended: the process that started it.

use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::PathBuf,
    process::Child,
    time::Duration,
};

/// Part of the name (`-name` of QEMU) of a guest that is held: it is stopped most of the time.
pub const HELD: &str = "-held-";
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
pub enum Keeper {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

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
}
