//! Open files of the host. The guest's kernel does not say which files it has opened; the last ones stay open here.

use nix::errno::Errno;
use std::{collections::VecDeque, fs::File};

/// OpenFiles that stay open. A guest can't make its host use more descriptors than this.
const MOST: usize = 64;
/// OpenFiles without a name that a guest may go on using.
const MOST_KEPT: usize = 256;

/// OpenFiles that are open, by their nodes; the one that was used last comes first.
#[derive(Debug, Default)]
pub struct OpenFiles {
    recent: VecDeque<(u64, bool, File)>,
    /// OpenFiles whose names are gone, until they are forgotten.
    kept: Vec<(u64, File)>,
}

impl OpenFiles {
    /// The open file of a node; `open` opens it.
    pub fn get(
        &mut self,
        node: u64,
        writable: bool,
        open: impl FnOnce() -> Result<File, Errno>,
    ) -> Result<&File, Errno> {
        if let Some(at) = self.kept.iter().position(|(of, _)| *of == node) {
            return Ok(&self.kept[at].1);
        }
        let usable = |(of, may_write, _): &(u64, bool, File)| *of == node && (*may_write || !writable);
        match self.recent.iter().position(usable) {
            Some(at) => {
                let found = self.recent.remove(at).ok_or(Errno::EBADF)?;
                self.recent.push_front(found);
            }
            None => {
                let file = open()?;
                self.recent.truncate(MOST - 1);
                self.recent.push_front((node, writable, file));
            }
        }
        self.recent.front().map(|(_, _, file)| file).ok_or(Errno::EBADF)
    }

    /// The file of a node whose name is gone.
    pub fn kept(&self, node: u64) -> Option<&File> {
        self.kept.iter().find(|(of, _)| *of == node).map(|(_, file)| file)
    }

    /// Keeps a file whose name goes away.
    pub fn keep(&mut self, node: u64, file: File) -> Result<(), Errno> {
        if self.kept.len() >= MOST_KEPT {
            return Err(Errno::ENFILE);
        }
        self.recent.retain(|(of, _, _)| *of != node);
        self.kept.push((node, file));
        Ok(())
    }

    /// A node is gone, or another file has its name.
    pub fn close(&mut self, node: u64) {
        self.recent.retain(|(of, _, _)| *of != node);
        self.kept.retain(|(of, _)| *of != node);
    }
}
