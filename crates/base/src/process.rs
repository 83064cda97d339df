//! Starts other programs from argument vectors, never from a shell string.

use crate::{
    file::{FileError, replace},
    interrupt::Interrupt,
    programs,
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use std::{
    env,
    ffi::OsStr,
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

/// Interval at which a running program is checked for its end and for an interrupt.
pub const POLL: Duration = Duration::from_millis(50);
/// Grace period between SIGTERM and SIGKILL: git and apt remove their lock files in this time.
const LEAVING: Duration = Duration::from_secs(2);

/// virtme-ng's home, below the cache.
const VNG_HOME: &str = "vng-home";
const NO_SETTINGS: &[u8] = b"{}\n";

/// Maximum length of a program's output in an error, characters.
const TAIL: usize = 400;

/// A program could not be run, or failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProcessError {
    /// A program that this step needs is not installed.
    #[error("{program} is not installed: install the package {package}")]
    Missing {
        program: String,
        /// Debian package or PyPI project that contains the program.
        package: &'static str,
    },
    #[error("{what} failed: {detail}")]
    Failed {
        /// The step, with the program's name.
        what: String,
        /// Exit status and the last lines of the program's output.
        detail: String,
    },
    /// The program was ended because this process received a signal.
    #[error("{what} was stopped")]
    Interrupted {
        /// The step.
        what: String,
    },
}

/// Environment variables with which the user, an outer make or an outer build changes the output of these programs
/// or the paths of their files. They are removed for programs whose output or files are read here.
const FOREIGN: [&str; 30] = [
    "LANGUAGE",
    "FORCE_COLOR",
    "CLICOLOR_FORCE",
    "GCC_COLORS",
    "GREP_OPTIONS",
    "TAR_OPTIONS",
    "XZ_OPT",
    "XZ_DEFAULTS",
    "ZSTD_CLEVEL",
    "GZIP",
    "BASH_ENV",
    "ENV",
    "CDPATH",
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    "MAKEFILES",
    "MAKEOVERRIDES",
    "KBUILD_OUTPUT",
    "KBUILD_EXTMOD",
    "KBUILD_EXTMOD_OUTPUT",
    "KCONFIG_CONFIG",
    "KCONFIG_OVERWRITECONFIG",
    "KCONFIG_AUTOCONFIG",
    "KCONFIG_AUTOHEADER",
    "INSTALL_PATH",
    "INSTALL_MOD_PATH",
    "INSTALL_MOD_DIR",
    "MODLIB",
    "MODPROBE_OPTIONS",
];

/// A command whose messages are in English and without colours, so that they can be parsed, and searched for if an
/// error quotes them.
///
/// A program name without a slash is looked up on [`programs::search_path`], which is also the `PATH` of the program;
/// given a `Path` of one component, duct would use a file of the working directory.
pub fn command<I>(program: impl AsRef<OsStr>, args: I) -> duct::Expression
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let args = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect::<Vec<_>>();
    let command = duct::cmd(program.as_ref().to_owned(), args).env("PATH", programs::search_path()).stdin_null();
    let command = [("LC_ALL", "C"), ("NO_COLOR", "1"), ("DPKG_COLORS", "never"), ("TERM", "dumb"), ("PAGER", "cat")]
        .into_iter()
        .fold(command, |command, (name, value)| command.env(name, value));
    FOREIGN.into_iter().fold(command, |command, name| command.env_remove(name))
}

/// A home directory for virtme-ng below the cache, with empty settings: vng would otherwise add the options of
/// `~/.config/virtme-ng/virtme-ng.conf` or `/etc/virtme-ng.conf` to its command line, and
/// `~/.config/virtme-ng/kernel.config` to every kernel's configuration.
///
/// # Errors
/// The cache can't be written.
pub fn vng_home(cache: &Path) -> Result<PathBuf, FileError> {
    let home = cache.join(VNG_HOME);
    without_settings(&home).map_err(FileError::of("write", &home))?;
    Ok(home)
}

/// Gives a directory the settings of [`vng_home`].
///
/// # Errors
/// It can't be written.
pub fn without_settings(home: &Path) -> io::Result<()> {
    let path = home.join(".config/virtme-ng/virtme-ng.conf");
    if fs::read(&path).is_ok_and(|text| text == NO_SETTINGS) {
        return Ok(());
    }
    fs::create_dir_all(path.parent().unwrap_or(home))?;
    replace(&path, NO_SETTINGS)
}

/// Variables of programs that vng starts, with their default directories below the user's home; set unless they are
/// already set.
const BY_HOME: [(&str, &str); 4] = [
    ("PYTHONUSERBASE", ".local"),
    ("CARGO_HOME", ".cargo"),
    ("RUSTUP_HOME", ".rustup"),
    ("CCACHE_DIR", ".cache/ccache"),
];

/// A command of virtme-ng with a separate home directory. vng finds its helpers (`virtme-configkernel`) only on `PATH`.
pub fn vng<I>(vng: &Path, home: &Path, args: I) -> duct::Expression
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let path = programs::search_path_behind(vng.parent());
    let mut command = command(vng, args).env("PATH", path).env("HOME", home).env_remove("XDG_CONFIG_HOME");
    for (name, place) in BY_HOME {
        let place = env::home_dir().map(|persons| persons.join(place)).filter(|place| place.is_dir());
        if let Some(place) = place.filter(|_| env::var_os(name).is_none()) {
            command = command.env(name, place);
        }
    }
    command
}

/// Runs a program until it exits, or until `stop` (called with the elapsed time) returns true; returns `None` in the
/// latter case.
///
/// A program that fails returns an output too. The program runs in its own process group, and the whole group is
/// killed: otherwise a compiler could outlive its cargo and continue to write.
///
/// # Errors
/// The program can't be started or waited for.
pub fn to_end(expression: &duct::Expression, mut stop: impl FnMut(Duration) -> bool) -> io::Result<Option<Output>> {
    let begin = Instant::now();
    if stop(Duration::ZERO) {
        return Ok(None);
    }
    let own_group = |command: &mut std::process::Command| {
        command.process_group(0);
        Ok(())
    };
    let handle = expression.before_spawn(own_group).unchecked().start()?;
    let end = |signal| {
        for pid in handle.pids() {
            let _ = killpg(Pid::from_raw(pid.cast_signed()), signal);
        }
    };
    loop {
        if let Some(output) = handle.wait_timeout(POLL)? {
            return Ok(Some(output.clone()));
        }
        if stop(begin.elapsed()) {
            end(Signal::SIGTERM);
            let _ = handle.wait_timeout(LEAVING);
            // Also kills processes that the program has left in its group.
            end(Signal::SIGKILL);
            handle.wait()?;
            return Ok(None);
        }
    }
}

/// Runs a program to its end and returns its stdout; a signal to this process ends the program. `what` names the step
/// in errors, `package` the package that contains the program.
///
/// # Errors
/// The program is not installed, exits with a status other than 0, or was interrupted.
pub fn capture(what: &str, package: &'static str, expression: duct::Expression) -> Result<String, ProcessError> {
    capture_watched(what, package, expression, &mut || ())
}

/// As [`capture`], and calls `watch` several times a second while the program runs.
///
/// # Errors
/// As for [`capture`].
pub fn capture_watched(
    what: &str,
    package: &'static str,
    expression: duct::Expression,
    watch: &mut dyn FnMut(),
) -> Result<String, ProcessError> {
    let expression = expression.stdout_capture().stderr_capture();
    let output = to_end(&expression, |_| {
        watch();
        Interrupt::raised().is_some()
    });
    let output = output.map_err(|error| start_error(what, package, &error))?;
    let Some(output) = output else { return Err(ProcessError::Interrupted { what: what.to_owned() }) };
    success(what, &output)
}

/// Returns stdout of a program that exited with 0.
///
/// # Errors
/// [`ProcessError::Failed`] if the exit status is not 0.
pub fn success(what: &str, output: &Output) -> Result<String, ProcessError> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    Err(ProcessError::Failed { what: what.to_owned(), detail: format!("{}: {}", output.status, tail(&said)) })
}

/// The error for a program that could not be started.
pub fn start_error(what: &str, package: &'static str, error: &io::Error) -> ProcessError {
    let program = what.split_whitespace().next().unwrap_or(what).to_owned();
    match error.kind() {
        io::ErrorKind::NotFound => ProcessError::Missing { program, package },
        _ => ProcessError::Failed { what: what.to_owned(), detail: error.to_string() },
    }
}

/// The last lines of a program's output, joined to one line of at most 400 characters.
///
/// Only whole lines are included; the last line is always included. Of a compilation it is the first error alone.
fn tail(text: &str) -> String {
    let lines = crate::text::told_lines(text);
    // apt prints long explanations; its `E:` lines state the error.
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.starts_with("E: ")).collect();
    // After an error of a compiler, make prints a line for each directory that it leaves; later errors follow from the first.
    let compilers = [": error: ", ": fatal error: ", ": undefined reference to "];
    let of_compiler = lines.iter().copied().find(|line| compilers.iter().any(|it| line.contains(it)));
    let lines = match of_compiler {
        Some(first) => vec![first],
        None if errors.is_empty() => lines,
        None => errors,
    };
    let mut kept = String::new();
    for line in lines.iter().rev().take(3) {
        let next = if kept.is_empty() { line.chars().take(TAIL).collect() } else { format!("{line} / {kept}") };
        if next.len() > TAIL && !kept.is_empty() {
            break;
        }
        kept = next;
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_apt_output_only_error_lines_are_quoted() {
        let said =
            "Err:1 x\nE: Failed to fetch x.deb  Hash Sum mismatch\n   Hashes of expected file:\n    - SHA256:ab\n";
        assert_eq!(tail(said), "E: Failed to fetch x.deb  Hash Sum mismatch");
    }

    #[test]
    fn of_a_compilation_the_first_error_is_quoted() {
        let said = "drivers/net/veth.c: In function 'veth_xmit':\ndrivers/net/veth.c:9:2: error: implicit declaration of function 'f'\n    \
                    9 |  f();\ndrivers/net/veth.c:10:2: error: 'g' undeclared\nmake[2]: *** [scripts/Makefile.build:229: veth.o] Error 1\n\
                    make[2]: *** Waiting for unfinished jobs....\nmake: *** [Makefile:236: __sub-make] Error 2\n";
        assert_eq!(tail(said), "drivers/net/veth.c:9:2: error: implicit declaration of function 'f'");
    }

    #[test]
    fn ending_a_program_ends_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let late = dir.path().join("late");
        // The inner shell ignores SIGTERM.
        let script = format!("(trap '' TERM; sleep 1000; touch {0}) & sleep 1000; touch {0}", late.display());
        let begin = Instant::now();
        let output = to_end(&command("sh", ["-c", &script]).stdout_capture(), |so_far| so_far > Duration::ZERO);
        assert_eq!(output.unwrap(), None);
        assert!(begin.elapsed() < LEAVING * 10 && !late.exists(), "{:?}", begin.elapsed());
        let output = to_end(&command("sh", ["-c".as_ref(), "touch $0".as_ref(), late.as_os_str()]), |_| true);
        assert!(output.unwrap().is_none() && !late.exists(), "the child was killed");
    }

    #[test]
    fn failures_are_one_line() {
        let error = capture("sh", "dash", command("sh", ["-c", "echo a >&2; echo b >&2; exit 7"]));
        assert_eq!(error.unwrap_err().to_string(), "sh failed: exit status: 7: a / b");
        let error = capture("no-such run", "nowhere", command("no-such-program", [""; 0]));
        assert_eq!(error.unwrap_err().to_string(), "no-such is not installed: install the package nowhere");
    }
}
