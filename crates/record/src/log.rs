//! `events.jsonl`: one event per line. Each line is written before the next event happens, so that a killed runner
//! loses no event.

use crate::{
    event::{Event, FORMAT, RunInfo, Stamped},
    reporter::Reporter,
    run::RunRecord,
};
use lab_base::file::FileError;
use lab_guard::foreign;
use serde::Deserialize;
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

mod lines;
pub mod part;

pub use lines::{BatchChecks, EventLines, LineChecks, LineEvent};

/// The file's name in a run's directory.
pub const FILE: &str = "events.jsonl";
/// Size of the end of the file that contains the last event, bytes.
const LAST_SIZE: u64 = 4 << 10;
/// Buffer of the line with the plan, bytes: those of all but the largest runs fit into it.
const PLAN_SIZE: usize = 4 << 20;
/// Read buffer, bytes: the line with a plan can be several megabytes long.
const READ_SIZE: usize = 256 << 10;
/// Maximum bytes of a line: a plan of 2.5 million cells on 250 kernels has 230 MiB.
const LINE_LIMIT: u64 = 512 << 20;
/// The year 2200, milliseconds since the epoch.
const LATEST_MS: u64 = 7_258_118_400_000;
/// Maximum number of guests of a kernel.
const MOST_GUESTS: u32 = 1_000_000;

/// A run's events can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory does not contain a run.
    #[error("{} is not a run: it has no events.jsonl", path.display())]
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
        /// Error of the parser.
        problem: String,
    },
    /// Another version of `lab` wrote the run.
    #[error(
        "{} has format {found}, but this lab only reads {}: run the cells again, or use the version of lab that wrote it",
        path.display(),
        FORMAT
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// Format of the file; 0 for runs from before formats had numbers.
        found: u32,
    },
}

/// Writes `events.jsonl`.
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
        // Held until the run ends, so that retention does not remove the run. File systems without locks are accepted.
        let _ = file.try_lock();
        Ok(Self { file, path })
    }
}

impl EventLog {
    /// Appends whole lines of another run unchanged.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn copy(&mut self, lines: &[u8]) -> Result<(), FileError> {
        self.file.write_all(lines).map_err(FileError::of("write", &self.path))
    }
}

impl Reporter for EventLog {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        let write = || -> std::io::Result<()> {
            // One write per line: a reader, or a crash, never sees a partial line. The page cache survives the process.
            if !matches!(stamped.event, Event::RunStarted { .. }) {
                let mut line = serde_json::to_vec(stamped)?;
                line.push(b'\n');
                return (&self.file).write_all(&line);
            }
            // A plan may have hundreds of megabytes, which are not put together in memory.
            let mut line = BufWriter::with_capacity(PLAN_SIZE, &self.file);
            serde_json::to_writer(&mut line, stamped)?;
            line.write_all(b"\n")?;
            line.flush()
        };
        write().map_err(FileError::of("write", &self.path))
    }
}

/// Reads a whole run. A last line that was cut off by a crash is dropped.
///
/// # Errors
/// As for [`EventReader::open`].
pub fn read(directory: &Path) -> Result<RunRecord, LogError> {
    let mut record = RunRecord::default();
    for stamped in EventReader::open(directory)? {
        record.take(stamped?);
    }
    Ok(record)
}

/// Reads a run's information from its first event.
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

/// How long the run took, milliseconds, if the file ends with [`Event::RunFinished`].
///
/// # Errors
/// The file can't be read.
fn wall_ms(path: &Path) -> Result<Option<u64>, LogError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = foreign::open(path)?;
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(LAST_SIZE)))?;
        let mut bytes = Vec::new();
        file.take(LAST_SIZE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(FileError::of("read", path))?;
    let Some(lines) = bytes.strip_suffix(b"\n") else { return Ok(None) };
    let last = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let last = serde_json::from_slice::<Stamped>(last).ok();
    Ok(last.and_then(|it| if let Event::RunFinished { wall_ms, .. } = it.event { Some(wall_ms) } else { None }))
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

/// The fields that the first line has in every version: enough to distinguish another version from other data.
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
    /// Opens a run's events and reads the first event.
    ///
    /// # Errors
    /// [`LogError::NotARun`] if the file is missing, [`LogError::Events`] if its first line is not the start of a run,
    /// [`LogError::Format`] if another version of `lab` wrote it.
    pub fn open(directory: &Path) -> Result<Self, LogError> {
        let mut reader = Self::at(directory)?;
        let mut line = Vec::new();
        if !reader.line(&mut line)? {
            return Err(reader.bad("the first event is incomplete".to_owned()));
        }
        match Stamped::parse(&line) {
            Ok(first) if matches!(&first.event, Event::RunStarted { run } if run.format == FORMAT) => {
                reader.sane(&first)?;
                reader.first = Some(first);
                Ok(reader)
            }
            other => Err(reader.no_run(&line, other.err())),
        }
    }

    /// Opens a run's events.
    fn at(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join(FILE);
        let file = match foreign::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(LogError::NotARun { path: directory.to_owned() });
            }
            Err(error) => return Err(FileError::of("read", &path)(error).into()),
        };
        let lines = BufReader::with_capacity(READ_SIZE, file);
        Ok(Self { path, lines, number: 0, first: None, failed: false })
    }

    /// The error for a first line that is not the start of a run; `error` is the error of this version's parser.
    fn no_run(self, line: &[u8], error: Option<serde_json::Error>) -> LogError {
        let head: Head = match serde_json::from_slice(line) {
            Ok(head) => head,
            Err(error) => return self.bad(error.to_string()),
        };
        let format = head.run.filter(|_| head.event == "run-started").map(|run| run.format);
        match (format, error) {
            (Some(FORMAT), Some(error)) => self.bad(error.to_string()),
            (Some(found), _) => LogError::Format { path: self.path, found },
            (None, _) => self.bad("the first event must be run-started".to_owned()),
        }
    }

    fn on_time(&self, at_ms: u64) -> Result<(), LogError> {
        if at_ms > LATEST_MS {
            return Err(self.bad(format!("at_ms is {at_ms}, which is not a valid time of a run")));
        }
        Ok(())
    }

    /// Refuses values that `lab` never writes and readers can't handle: times and numbers that would overflow, and
    /// duplicates in a plan.
    fn sane(&self, stamped: &Stamped) -> Result<(), LogError> {
        self.on_time(stamped.at_ms)?;
        if stamped.event.guest().is_some_and(|guest| guest > MOST_GUESTS) {
            return Err(self.bad(format!("it has a guest number above {MOST_GUESTS}")));
        }
        if let Event::RunStarted { run } = &stamped.event
            && let Some(twice) = run.plan.repeated()
        {
            return Err(self.bad(format!("the plan contains {twice} twice")));
        }
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the next line to `text`; returns whether there was a whole line.
    fn line(&mut self, text: &mut Vec<u8>) -> Result<bool, LogError> {
        let mut lines = (&mut self.lines).take(LINE_LIMIT + 1);
        let read = lines.read_until(b'\n', text).map_err(FileError::of("read", &self.path))?;
        self.number += 1;
        if read as u64 > LINE_LIMIT {
            return Err(self.bad(format!("the line has more than {} MiB", LINE_LIMIT >> 20)));
        }
        Ok(read > 0 && text.last() == Some(&b'\n'))
    }

    fn bad(&self, problem: String) -> LogError {
        LogError::Events { path: self.path.clone(), line: self.number, problem }
    }

    /// The next event; its line is appended to `text`.
    fn event(&mut self, text: &mut Vec<u8>) -> Result<Option<Stamped>, LogError> {
        self.next_event(text, Stamped::parse, |stamped| stamped)
    }

    /// What `parse` makes of the next line, which is appended to `text`.
    fn next_event<T>(
        &mut self,
        text: &mut Vec<u8>,
        parse: impl FnOnce(&[u8]) -> serde_json::Result<T>,
        event: impl FnOnce(&T) -> &Stamped,
    ) -> Result<Option<T>, LogError> {
        let begin = text.len();
        if !self.line(text)? {
            return Ok(None);
        }
        let parsed = parse(&text[begin..]).map_err(|error| self.bad(error.to_string()))?;
        let stamped = event(&parsed);
        match stamped.event {
            Event::RunStarted { .. } => Err(self.bad("a second run starts".to_owned())),
            _ => self.sane(stamped).map(|()| Some(parsed)),
        }
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
