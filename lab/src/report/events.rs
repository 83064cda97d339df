//! `events.jsonl`: one event per line, on disk before the next one happens, so that a killed runner loses nothing.

use super::{Reporter, record::RunRecord};
use crate::{error::Error, event::Stamped};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// The file's name in a run's directory.
pub const FILE: &str = "events.jsonl";

/// Writes the file.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    path: PathBuf,
}

impl EventLog {
    /// Creates the file in a run's directory.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn create(directory: &Path) -> Result<Self, Error> {
        let path = directory.join(FILE);
        let file = File::create(&path).map_err(Error::file("create", &path))?;
        Ok(Self { file, path })
    }
}

impl Reporter for EventLog {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), Error> {
        let mut write = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(stamped)?;
            line.push(b'\n');
            // One write per line: a reader, or a crash, sees whole lines. The page cache outlives the process.
            self.file.write_all(&line)
        };
        write().map_err(Error::file("write", &self.path))
    }
}

/// Reads a run back. A last line that was cut short by a crash is dropped.
///
/// # Errors
/// [`Error::NotARun`] without the file, [`Error::Events`] where any other line is no event.
pub fn read(directory: &Path) -> Result<RunRecord, Error> {
    let path = directory.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotARun { path: directory.to_owned() });
        }
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let mut reader = BufReader::new(file);
    let mut record = RunRecord::default();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(Error::file("read", &path))? == 0 {
            break;
        }
        match serde_json::from_slice::<Stamped>(&bytes) {
            Ok(stamped) => record.apply(&stamped),
            Err(_) if bytes.last() != Some(&b'\n') => break,
            Err(error) => return Err(Error::Events { path, line, problem: error.to_string() }),
        }
    }
    Ok(record)
}
