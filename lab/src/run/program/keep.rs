//! What a program wrote, kept whole in a file up to a bound, and its end for reports.

use crate::error::Error;
use lab_base::text;
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

/// Bytes of one stream that are kept.
pub const KEPT: u64 = 256 << 20;
/// Bytes of its end that reports show.
const TAIL: usize = 8 << 10;
/// Lines of it that reports show.
const TAIL_LINES: usize = 40;
/// Characters of such a line.
const TAIL_WIDTH: usize = 300;

/// One stream of one attempt.
pub struct Keep {
    path: PathBuf,
    file: Option<File>,
    most: u64,
    total: u64,
    tail: VecDeque<u8>,
    problem: Option<String>,
}

impl Keep {
    /// The file is created with the first byte.
    pub const fn new(path: PathBuf, most: u64) -> Self {
        Self { path, file: None, most, total: 0, tail: VecDeque::new(), problem: None }
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) {
        let room = usize::try_from(self.most.saturating_sub(self.total)).unwrap_or(usize::MAX);
        if room > 0
            && self.problem.is_none()
            && let Err(error) = self.append(&bytes[..bytes.len().min(room)])
        {
            self.problem = Some(error.to_string());
        }
        self.total += bytes.len() as u64;
        let end = &bytes[bytes.len().saturating_sub(TAIL)..];
        self.tail.extend(end);
        let beyond = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..beyond);
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.file.is_none() {
            let home = self.path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(home).map_err(Error::file("create", home))?;
            self.file = Some(File::create(&self.path).map_err(Error::file("create", &self.path))?);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(bytes).map_err(Error::file("write", &self.path))
    }

    /// The file's name, if there is one.
    pub fn name(&self) -> Option<&str> {
        self.file.as_ref().and_then(|_| self.path.file_name()?.to_str())
    }

    /// The last lines, for reports.
    pub fn tail(&self) -> Vec<String> {
        let (bytes, cut): (Vec<u8>, _) = (self.tail.iter().copied().collect(), self.total > self.tail.len() as u64);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().skip(usize::from(cut)).collect();
        let lines = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        lines.iter().map(|line| text::line(line, TAIL_WIDTH)).collect()
    }

    /// What of it is not in the file, one line.
    pub fn problem(&self, stream: &str) -> Option<String> {
        match &self.problem {
            Some(problem) => Some(format!("{stream} is incomplete: {problem}")),
            None if self.total > self.most => Some(format!(
                "{stream} has {} MiB, of which the first {} MiB are kept",
                self.total >> 20,
                self.most >> 20
            )),
            None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole_up_to_a_bound_that_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/stdout.txt");
        let mut keep = Keep::new(path.clone(), 2 << 20);
        assert_eq!((keep.name(), keep.problem("stdout")), (None, None));
        assert!(!path.exists(), "a stream without a byte has no file");
        keep.write(b"first\n");
        (0..30).for_each(|_| keep.write(&[b'x'; 100_000]));
        keep.write(b"\nlast but one\nlast\n");
        let kept = fs::read(&path).unwrap();
        assert!(kept.len() == 2 << 20 && kept.starts_with(b"first\n"));
        assert_eq!(keep.tail(), ["last but one", "last"]);
        assert_eq!(keep.problem("stdout").unwrap(), "stdout has 2 MiB, of which the first 2 MiB are kept");
        let mut lost = Keep::new("/proc/nonexistent/x".into(), 1 << 20);
        lost.write(b"x");
        assert!(lost.problem("stderr").unwrap().contains("stderr is incomplete"), "{:?}", lost.problem("stderr"));
    }
}
