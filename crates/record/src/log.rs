//! `events.jsonl`: one event per line, on disk before the next one happens, so that a killed runner loses nothing.

use crate::{
    event::{Event, FORMAT, RunInfo, Stamped},
    reporter::Reporter,
    run::RunRecord,
};
use lab_base::file::FileError;
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The file's name in a run's directory.
pub const FILE: &str = "events.jsonl";
/// Bytes in which the last event of a run has room.
const LAST_SIZE: u64 = 4 << 10;
/// Bytes that are read at a time: lines of a whole plan are megabytes long.
const READ_SIZE: usize = 256 << 10;
/// Bytes of lines that are handed over together: they stay in a processor's cache, and below what makes the allocator
/// tidy up when they are freed (64 KiB with glibc).
const LINES_SIZE: usize = 32 << 10;

/// A run's events that can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system refuses.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory is no run.
    #[error("{} is not a run: it holds no events.jsonl", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
    },
    /// A line of events.jsonl is not an event.
    #[error("{}:{line}: not an event of this version of lab: {problem}", path.display())]
    Events {
        /// The file.
        path: PathBuf,
        /// 1-based line.
        line: usize,
        /// What the parser said.
        problem: String,
    },
    /// Another version of the lab wrote the run.
    #[error(
        "{} has format {found}, and this lab reads only {}: run the cells again, or use the lab that wrote it",
        path.display(),
        FORMAT
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format; 0 for runs from before formats had numbers.
        found: u32,
    },
}

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
    pub fn create(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(FILE);
        let file = File::create(&path).map_err(FileError::of("create", &path))?;
        // Held until the run ends, so that nobody removes it as an old one; a file system without locks is no reason not to
        // run.
        let _ = file.try_lock();
        Ok(Self { file, path })
    }
}

impl EventLog {
    /// Writes whole lines of another run as they are.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn copy(&mut self, lines: &[u8]) -> Result<(), FileError> {
        self.file.write_all(lines).map_err(FileError::of("write", &self.path))
    }
}

impl Reporter for EventLog {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        let mut write = || -> std::io::Result<()> {
            let mut line = serde_json::to_vec(stamped)?;
            line.push(b'\n');
            // One write per line: a reader, or a crash, sees whole lines. The page cache outlives the process.
            self.file.write_all(&line)
        };
        write().map_err(FileError::of("write", &self.path))
    }
}

/// Reads a run back. A last line that was cut short by a crash is dropped.
///
/// # Errors
/// As for [`EventReader`].
pub fn read(directory: &Path) -> Result<RunRecord, LogError> {
    let mut record = RunRecord::default();
    for stamped in EventReader::open(directory)? {
        record.take(stamped?);
    }
    Ok(record)
}

/// What a run is, by its first event.
///
/// # Errors
/// Those of [`EventReader`].
pub fn head(directory: &Path) -> Result<RunInfo, LogError> {
    let none = || LogError::NotARun { path: directory.to_owned() };
    match EventReader::open(directory)?.next().ok_or_else(none)??.event {
        Event::RunStarted { run } => Ok(*run),
        _ => Err(none()),
    }
}

/// Reads a run's events one by one, the first of which says what run it is. A last line that was cut short ends them.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    lines: BufReader<File>,
    number: usize,
    first: Option<Stamped>,
    failed: bool,
}

/// Whole lines of a run's events.
#[derive(Debug)]
pub struct Lines {
    /// As they stand in the file.
    pub text: Vec<u8>,
    /// What they say, each with the end of its line in the text.
    pub events: Vec<(Stamped, usize)>,
    /// None where more lines follow; else the end of the events, or what is wrong with the line after these.
    pub end: Option<Result<(), LogError>>,
}

/// As much of a first line as every version has: enough to tell another version from nonsense.
#[derive(Deserialize)]
struct Head {
    event: String,
    run: Option<HeadRun>,
}

#[derive(Deserialize)]
struct HeadRun {
    #[serde(default)]
    format: u32,
}

impl EventReader {
    /// Opens a run's events and reads the first one.
    ///
    /// # Errors
    /// [`LogError::NotARun`] without the file, [`LogError::Events`] where its first line is not the beginning of a run,
    /// [`LogError::Format`] where another version of the lab wrote it.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(FILE);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LogError::NotARun { path: directory.to_owned() });
            }
            Err(error) => return Err(FileError::of("read", &path)(error).into()),
        };
        let lines = BufReader::with_capacity(READ_SIZE, file);
        let mut reader = Self { path, lines, number: 0, first: None, failed: false };
        let mut line = Vec::new();
        if !reader.line(&mut line)? {
            return Err(reader.bad("it ends before the first event does".to_owned()));
        }
        match Stamped::parse(&line) {
            Ok(first) if matches!(&first.event, Event::RunStarted { run } if run.format == FORMAT) => {
                reader.first = Some(first);
                Ok(reader)
            }
            other => Err(reader.no_run(&line, other.err())),
        }
    }

    /// Why a first line is not the beginning of a run; `error` is what this version can't read of it.
    fn no_run(self, line: &[u8], error: Option<serde_json::Error>) -> LogError {
        let head: Head = match serde_json::from_slice(line) {
            Ok(head) => head,
            Err(error) => return self.bad(error.to_string()),
        };
        let format = head.run.filter(|_| head.event == "run-started").map(|run| run.format);
        match (format, error) {
            (Some(FORMAT), Some(error)) => self.bad(error.to_string()),
            (Some(found), _) => LogError::Format { path: self.path, found },
            (None, _) => self.bad("the first event of a run is run-started".to_owned()),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file ends with the end of a run. Reading goes on where it was.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn is_finished(&self) -> Result<bool, LogError> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.path)?;
            let size = file.metadata()?.len();
            file.seek(SeekFrom::Start(size.saturating_sub(LAST_SIZE)))?;
            let mut bytes = Vec::new();
            file.take(LAST_SIZE).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(FileError::of("read", &self.path))?;
        let Some(lines) = bytes.strip_suffix(b"\n") else { return Ok(false) };
        let last = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        Ok(serde_json::from_slice::<Stamped>(last).is_ok_and(|it| matches!(it.event, Event::RunFinished { .. })))
    }

    /// Adds the next line to `text`; whether there was a whole one.
    fn line(&mut self, text: &mut Vec<u8>) -> Result<bool, LogError> {
        let read = self.lines.read_until(b'\n', text).map_err(FileError::of("read", &self.path))?;
        self.number += 1;
        Ok(read > 0 && text.last() == Some(&b'\n'))
    }

    fn bad(&self, problem: String) -> LogError {
        LogError::Events { path: self.path.clone(), line: self.number, problem }
    }

    /// The next event, whose line is added to `text`.
    fn event(&mut self, text: &mut Vec<u8>) -> Result<Option<Stamped>, LogError> {
        let begin = text.len();
        if !self.line(text)? {
            return Ok(None);
        }
        let stamped = Stamped::parse(&text[begin..]).map_err(|error| self.bad(error.to_string()))?;
        match stamped.event {
            Event::RunStarted { .. } => Err(self.bad("a second run begins".to_owned())),
            _ => Ok(Some(stamped)),
        }
    }

    /// The next events after the first one, with their lines: some kilobytes.
    pub fn lines(&mut self) -> Lines {
        let mut lines = Lines { text: Vec::with_capacity(LINES_SIZE + LINES_SIZE / 2), events: Vec::new(), end: None };
        while lines.end.is_none() && lines.text.len() < LINES_SIZE {
            match self.event(&mut lines.text) {
                Ok(Some(stamped)) => lines.events.push((stamped, lines.text.len())),
                Ok(None) => lines.end = Some(Ok(())),
                Err(error) => lines.end = Some(Err(error)),
            }
        }
        lines
    }
}

impl Iterator for EventReader {
    type Item = Result<Stamped, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.first.take().map_or_else(|| self.event(&mut Vec::new()).transpose(), |first| Some(Ok(first)));
        self.failed = !matches!(next, Some(Ok(_)));
        next
    }
}
