//! Core dumps: the kernel starts the agent for a process that dies with one (core(5), "Piping core dumps to a program"), in the
//! agent's own root, whatever root the process has. The agent hands the dump to the host.

use crate::{kmsg, world::SHARE};
use lab_protocol::world::CORES;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    process::ExitCode,
};

/// First argument of the agent as the kernel starts it.
pub const CORE: &str = "--core";
/// `kernel.core_pattern`: initial process id, signal, limit of the process, name.
pub const PATTERN: &str = "|/init --core %P %s %c %e";
/// `kernel.core_pipe_limit`: a process that dies waits for its dump to be taken, so many at a time.
pub const AT_ONCE: &str = "16";
/// Characters of a process's name in a file's.
const NAME: usize = 32;

/// Takes a dump from standard input: `--core PID SIGNAL LIMIT NAME`.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let arguments: Vec<String> = arguments.collect();
    let [pid, signal, limit, name @ ..] = &arguments[..] else { return ExitCode::from(2) };
    let (Ok(pid), Ok(signal), Ok(limit)) = (pid.parse::<u32>(), signal.parse::<u32>(), limit.parse::<u64>()) else {
        return ExitCode::from(2);
    };
    // Without a reader the kernel gives up, and the process has no core.
    if limit == 0 {
        return ExitCode::SUCCESS;
    }
    let directory = Path::new(SHARE).join(CORES);
    if !directory.is_dir() {
        return ExitCode::FAILURE;
    }
    let file = format!("core.{}.{pid}.signal-{signal}", plain(&name.join(" ")));
    match take(io::stdin().lock(), &directory.join(&file), limit) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            kmsg::note(&format!("core dump {file}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Writes at most `limit` bytes to a new file. The rest is read and dropped: the process has a core, of which this is the begin.
fn take(mut dump: impl Read, path: &Path, limit: u64) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut left = limit;
    loop {
        let mut filled = 0;
        // A pipe gives a few pages at a time, and each write is a message to the host.
        while filled < buffer.len() {
            match dump.read(&mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        let wanted = filled.min(usize::try_from(left).unwrap_or(usize::MAX));
        io::Write::write_all(&mut file, &buffer[..wanted])?;
        left -= wanted as u64;
        if filled < buffer.len() {
            return Ok(());
        }
    }
}

fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    name.chars().take(NAME).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_cut_off_at_the_limit_and_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let dump: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        for (limit, kept) in [(u64::MAX, dump.len()), (300_000, 300_000), (1, 1)] {
            let path = dir.path().join(limit.to_string());
            let mut reader = &dump[..];
            take(&mut reader, &path, limit).unwrap();
            assert!(reader.is_empty(), "who dies must not wait for ever");
            assert!(std::fs::read(&path).unwrap() == dump[..kept], "{limit}");
        }
        assert!(take(&dump[..], &dir.path().join("1"), 1).is_err(), "no file is replaced");
    }

    #[test]
    fn names_of_processes_are_plain() {
        assert_eq!(plain("a/../b c\n"), "a-..-b-c-");
    }
}
