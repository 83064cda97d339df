//! Watches what is attached on a machine, live: the program that `lab watch-attach` becomes, and `watch-attach` in a guest.

use crate::port;
use lab_harness::witness::{OBJECT, WatchError, Whom, Witness};
use lab_protocol::{
    message::PORT_NAME,
    witness::{LiveLine, WATCHER, WATCHER_OBJECT},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::geteuid,
};
use std::{
    fs,
    io::{self, BufWriter, Write, stdout},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Where the lock of the kernel against its own root is told.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// Longest time between two looks, milliseconds.
const LOOK: u16 = 500;
/// Exit codes, as `lab` has them.
const USAGE: u8 = 2;
const INFRA: u8 = 3;
const HELP: &str = "usage: watch-attach [--format text|json] [--runs]";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    object: PathBuf,
    is_json: bool,
    counts_runs: bool,
}

impl Wanted {
    fn of(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wanted = Self { object: PathBuf::new(), is_json: false, counts_runs: false };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match &*word {
                "--object" => wanted.object = value()?.into(),
                "--format" => match &*value()? {
                    "json" => wanted.is_json = true,
                    "text" => wanted.is_json = false,
                    other => return Err(format!("--format is text or json, not `{other}`")),
                },
                "--runs" => wanted.counts_runs = true,
                other => return Err(format!("`{other}` is not known; {HELP}")),
            }
        }
        if wanted.object.as_os_str().is_empty() {
            let own = Path::new(WATCHER_OBJECT);
            wanted.object = if own.exists() { own } else { Path::new(OBJECT) }.to_owned();
        }
        Ok(wanted)
    }
}

/// Whether the program was started under the name of the watcher.
pub fn is_meant(name: &str) -> bool {
    Path::new(name).file_name() == Path::new(WATCHER).file_name()
}

/// Watches until a signal ends it or nobody reads its output any more.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let wanted = match Wanted::of(arguments) {
        Ok(wanted) => wanted,
        Err(problem) => return failed(&problem, USAGE),
    };
    if !geteuid().is_root() {
        return failed("watching what is attached needs root", INFRA);
    }
    // From here on a signal waits until everything has been told.
    let mut ends = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| ends.add(signal));
    let signals = ends.thread_block().and_then(|()| SignalFd::with_flags(&ends, SfdFlags::SFD_CLOEXEC));
    let signals = match signals {
        Ok(signals) => signals,
        Err(errno) => return failed(&format!("signals can't be watched: {errno}"), INFRA),
    };
    let witness = match Witness::load_from(&wanted.object, Whom::Others) {
        Ok(witness) => witness,
        Err(error) => return failed(&explained(&error), INFRA),
    };
    match watch(&witness, &wanted, &signals) {
        // Nobody reads on.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failed(&format!("standard output: {error}"), INFRA),
        Ok(()) => ExitCode::SUCCESS,
    }
}

fn watch(witness: &Witness, wanted: &Wanted, signals: &SignalFd) -> io::Result<()> {
    let own = if port::is_there(PORT_NAME) { "guest" } else { "host" };
    let mut live = witness.follow(own, wanted.counts_runs);
    let bell = live.bell()?;
    let out = stdout();
    let mut out = BufWriter::new(out.lock());
    tell(&mut out, &[live.begun()], wanted.is_json)?;
    loop {
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(bell.as_fd(), PollFlags::POLLIN),
            // Readable never; an error once nobody reads it.
            PollFd::new(out.get_ref().as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, PollTimeout::from(LOOK)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let has = |at: usize, wanted: PollFlags| fds[at].revents().is_some_and(|found| found.intersects(wanted));
        if has(0, PollFlags::POLLIN) {
            break;
        }
        if has(2, PollFlags::POLLERR) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        tell(&mut out, &live.look(), wanted.is_json)?;
    }
    tell(&mut out, &live.finish(), wanted.is_json)
}

fn tell(out: &mut impl Write, lines: &[LiveLine], is_json: bool) -> io::Result<()> {
    for line in lines {
        if is_json {
            serde_json::to_writer(&mut *out, line)?;
            writeln!(out)?;
        } else {
            writeln!(out, "{line}")?;
        }
    }
    out.flush()
}

/// Why this kernel can't be watched, and what it lacks.
fn explained(error: &WatchError) -> String {
    let lockdown = fs::read_to_string(LOCKDOWN).unwrap_or_default();
    let cause = if let WatchError::Neither { functions, .. } = error { functions } else { error };
    match cause {
        WatchError::NoBtf { .. } => format!(
            "this kernel has no type information ({error}): watching needs one with CONFIG_DEBUG_INFO_BTF=y (5.8 or later), or that its system calls can be watched"
        ),
        _ if lockdown.contains("[confidentiality]") => {
            format!(
                "{error}: the kernel is locked down ({LOCKDOWN}: confidentiality), so that no program may read its memory"
            )
        }
        _ if error.to_string().contains("EPERM") => {
            format!(
                "{error}: this process may not load tracing programs: it needs CAP_BPF and CAP_PERFMON, which a container takes \
                 away, and a kernel without a policy against them (lockdown, a security module)"
            )
        }
        _ => error.to_string(),
    }
}

fn failed(problem: &str, code: u8) -> ExitCode {
    eprintln!("error: {problem}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_or_told_to_be_wrong() {
        let of = |words: &str| Wanted::of(words.split_whitespace().map(str::to_owned));
        let wanted = of("--object /x.o --format json --runs").unwrap();
        assert_eq!(wanted, Wanted { object: "/x.o".into(), is_json: true, counts_runs: true });
        assert_eq!(of("").unwrap().object, Path::new(OBJECT));
        assert_eq!(of("--format xml").unwrap_err(), "--format is text or json, not `xml`");
        assert_eq!(of("--object").unwrap_err(), "--object needs a value");
        assert!(of("-v").unwrap_err().contains(HELP));
        assert!(is_meant(WATCHER) && is_meant("watch-attach") && !is_meant("mark"));
    }
}
