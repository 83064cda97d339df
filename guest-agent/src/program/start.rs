//! Starts a program: its place, its streams, and why it could not be started.

use super::terminal::{self, Pty};
use crate::{
    processors,
    world::{MountedWorld, modprobe},
};
use lab_harness::Netns;
use lab_protocol::{
    CellProgram, Raw,
    shell::{ShellStage, Stream},
    work::{NOT_EXECUTABLE, NOT_FOUND},
};
use nix::{
    errno::Errno,
    libc,
    sched::{CloneFlags, setns, unshare},
    sys::resource::{RLIM_INFINITY, Resource, setrlimit},
    unistd::{AccessFlags, access, setsid},
};
use std::{
    env,
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::MetadataExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

/// Search path of a program without `PATH`: what `execvp` takes (confstr(3), `_CS_PATH`).
const USUAL_PATH: &[u8] = b"/bin:/usr/bin";

/// A program that runs.
pub struct StartedProgram {
    /// The process; its number is also that of its process group and session.
    pub child: Child,
    /// What it writes.
    pub outputs: Vec<(Stream, File)>,
    /// Where its input goes.
    pub input: Option<CellInput>,
    /// For resizing.
    pub terminal: Option<Pty>,
    /// What it sees as its root, until it has ended.
    pub world: Option<MountedWorld>,
}

/// Where input goes.
pub enum CellInput {
    /// The controlling end of its terminal, where a character ends the input.
    Terminal(File),
    /// A pipe, whose closing ends the input.
    Pipe(File),
}

impl CellInput {
    /// What is written to.
    pub const fn file(&mut self) -> &mut File {
        match self {
            Self::Terminal(file) | Self::Pipe(file) => file,
        }
    }
}

/// Why a program was not started.
#[derive(Debug, PartialEq, Eq)]
pub struct NotStarted {
    /// As a shell has it.
    pub code: u8,
    /// One line.
    pub message: String,
}

impl NotStarted {
    fn not_executable(message: impl fmt::Display) -> Self {
        Self { code: NOT_EXECUTABLE, message: message.to_string() }
    }

    fn not_found(message: impl fmt::Display) -> Self {
        Self { code: NOT_FOUND, message: message.to_string() }
    }
}

/// Starts the program in the namespaces and the directory that it asks for.
///
/// # Errors
/// [`NotStarted`].
pub fn start(program: &CellProgram, node: Option<&Netns>) -> Result<StartedProgram, NotStarted> {
    // Namespaces and directories belong to a thread: this one is given up afterwards, and the child has its places.
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("start".into()).spawn_scoped(scope, || start_here(program, node));
        let thread = thread.map_err(|error| NotStarted::not_executable(format!("no thread: {error}")))?;
        thread.join().unwrap_or_else(|_| Err(NotStarted::not_executable("the agent panicked while it started it")))
    })
}

fn start_here(program: &CellProgram, node: Option<&Netns>) -> Result<StartedProgram, NotStarted> {
    let failed = |what: &str, errno: Errno| NotStarted::not_executable(format!("{what}: {errno}"));
    unshare(CloneFlags::CLONE_FS).map_err(|errno| failed("unshare", errno))?;
    if let Some(node) = node {
        setns(node.fd().as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| failed(node.name(), errno))?;
    }
    for (name, value) in &program.sysctl {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(&path, value)
            .map_err(|error| NotStarted::not_executable(format!("kernel parameter {name}={value}: {error}")))?;
    }
    let cwd = match OsStr::from_bytes(program.cwd.as_bytes()) {
        empty if empty.is_empty() => OsStr::new("/"),
        cwd => cwd,
    };
    // In the namespace of the program, whose devices its /sys is to show.
    let world = program.world.as_ref().map(|spec| MountedWorld::build(spec, node.is_none()));
    let world = world.transpose().map_err(NotStarted::not_executable)?;
    if let Some(world) = &world {
        if program.stage == ShellStage::Bare {
            modprobe::unload_device_makers();
        }
        world.enter().map_err(|error| match error.kind() {
            // Only the working directory can be missing of a root that was just made.
            io::ErrorKind::NotFound => no_directory(cwd, &error),
            _ => NotStarted::not_executable(format!("the program's root: {error}")),
        })?;
    }
    // The thread's, which the child gets: a directory that is missing must not be taken for a program that is.
    env::set_current_dir(cwd).map_err(|error| no_directory(cwd, &error))?;
    let path = find(program)?;
    Ok(StartedProgram { world, ..spawn(program, &path)? })
}

fn no_directory(cwd: &OsStr, error: &io::Error) -> NotStarted {
    NotStarted::not_executable(format!("working directory {}: {error}", Path::new(cwd).display()))
}

fn spawn(program: &CellProgram, path: &Path) -> Result<StartedProgram, NotStarted> {
    let failed = |what: &str, error: &dyn fmt::Display| NotStarted::not_executable(format!("{what}: {error}"));
    let terminal = program.terminal.as_ref().map(|wanted| terminal::open(wanted.size)).transpose();
    let terminal = terminal.map_err(|errno| failed("no terminal in the guest", &errno))?;
    let words: Vec<&OsStr> = program.argv.iter().map(|word| OsStr::from_bytes(word.as_bytes())).collect();
    let mut command = Command::new(path);
    command.arg0(words[0]).args(&words[1..]).env_clear();
    command.envs(program.env.iter().map(|(name, value)| (os(name), os(value))));
    if let Some((user, group)) = program.user {
        command.uid(user).gid(group);
    }
    match &terminal {
        Some(pty) => {
            let seat = || pty.slave.try_clone().map(Stdio::from).map_err(|error| failed("terminal", &error));
            command.stdin(seat()?).stdout(seat()?).stderr(seat()?);
        }
        None => {
            let input = if program.input { Stdio::piped() } else { Stdio::null() };
            command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
    }
    let has_terminal = terminal.is_some();
    let all = processors::all();
    let core_limit = program.core_bytes;
    // SAFETY: between fork and exec it makes a few system calls, which are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            processors::allow(&all)?;
            setrlimit(Resource::RLIMIT_CORE, core_limit, RLIM_INFINITY)?;
            if has_terminal {
                terminal::take()?;
            }
            Ok(())
        });
    }
    let mut child = command.spawn().map_err(|error| refused(path, &error))?;
    drop(command);
    let Some(pty) = terminal else {
        let output = child.stdout.take().map(|pipe| (Stream::Output, File::from(std::os::fd::OwnedFd::from(pipe))));
        let errors = child.stderr.take().map(|pipe| (Stream::Error, File::from(std::os::fd::OwnedFd::from(pipe))));
        let input = child.stdin.take().map(|pipe| CellInput::Pipe(File::from(std::os::fd::OwnedFd::from(pipe))));
        return Ok(StartedProgram {
            child,
            outputs: output.into_iter().chain(errors).collect(),
            input,
            terminal: None,
            world: None,
        });
    };
    let master = File::from(pty.master);
    let copy = || master.try_clone().map_err(|error| failed("terminal", &error));
    let (output, input) = (copy()?, copy()?);
    Ok(StartedProgram {
        child,
        outputs: vec![(Stream::Output, output)],
        input: Some(CellInput::Terminal(input)),
        terminal: Some(Pty(master)),
        world: None,
    })
}

fn os(raw: &Raw) -> &OsStr {
    OsStr::from_bytes(raw.as_bytes())
}

/// Why the kernel refused to execute a file that is there.
fn refused(path: &Path, error: &io::Error) -> NotStarted {
    let shown = path.display();
    match error.raw_os_error() {
        Some(libc::ENOENT) => NotStarted::not_found(format!(
            "{shown} is there, and the program that interprets or loads it is not{}",
            interpreter(path).map_or_else(String::new, |name| format!(": {name}"))
        )),
        _ => NotStarted::not_executable(format!("{shown}: {error}")),
    }
}

/// The file that the name stands for, as `execvp` looks for it.
fn find(program: &CellProgram) -> Result<PathBuf, NotStarted> {
    let Some(name) = program.argv.first().map(os).filter(|name| !name.is_empty()) else {
        return Err(NotStarted::not_found("a command without a name"));
    };
    let shown = Path::new(name).display();
    if name.as_bytes().contains(&b'/') {
        return usable(Path::new(name));
    }
    let path = program.env.iter().rev().find(|(name, _)| name.as_bytes() == b"PATH");
    let path = path.map_or(USUAL_PATH, |(_, path)| path.as_bytes());
    let mut refusal = None;
    for directory in path.split(|byte| *byte == b':') {
        // An empty entry is the working directory.
        let directory = if directory.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(directory) };
        match usable(&Path::new(directory).join(name)) {
            Ok(found) => return Ok(found),
            Err(found) if found.code == NOT_EXECUTABLE => drop(refusal.get_or_insert(found)),
            Err(_) => {}
        }
    }
    Err(refusal.unwrap_or_else(|| {
        NotStarted::not_found(format!("{shown}: not found in the guest, PATH={}", String::from_utf8_lossy(path)))
    }))
}

/// Whether a file can be executed.
fn usable(path: &Path) -> Result<PathBuf, NotStarted> {
    let shown = path.display();
    let found = std::fs::metadata(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => NotStarted::not_found(format!("{shown}: not found in the guest")),
        _ => NotStarted::not_executable(format!("{shown}: {error}")),
    })?;
    if found.is_dir() {
        return Err(NotStarted::not_executable(format!("{shown} is a directory")));
    }
    if access(path, AccessFlags::X_OK).is_err() || found.mode() & 0o111 == 0 {
        return Err(NotStarted::not_executable(format!(
            "{shown} is not executable (mode {:04o})",
            found.mode() & 0o7777
        )));
    }
    if let Some(machine) = foreign(path) {
        return Err(NotStarted::not_executable(format!(
            "{shown} is a program for {machine}; this guest is {}",
            std::env::consts::ARCH
        )));
    }
    Ok(path.to_owned())
}

/// Bytes of a file in which its kind is told.
fn head(path: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path).ok()?.take(512).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The machines whose programs this guest can execute.
const NATIVE: &[u16] = if cfg!(target_arch = "x86_64") { &[3, 62] } else { &[183] };

/// The architecture of an ELF file that this guest can't execute (elf(5), `e_machine`; numbers of include/uapi/linux/elf-em.h).
fn foreign(path: &Path) -> Option<String> {
    let head = head(path)?;
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return None;
    }
    let field = [head[18], head[19]];
    let machine = if head[5] == 2 { u16::from_be_bytes(field) } else { u16::from_le_bytes(field) };
    Some(match machine {
        native if NATIVE.contains(&native) => return None,
        3 => "i386".to_owned(),
        62 => "x86_64".to_owned(),
        8 => "MIPS".to_owned(),
        20 | 21 => "PowerPC".to_owned(),
        22 => "s390".to_owned(),
        40 => "32-bit Arm".to_owned(),
        183 => "aarch64".to_owned(),
        243 => "RISC-V".to_owned(),
        247 => "BPF".to_owned(),
        258 => "LoongArch".to_owned(),
        other => format!("machine {other}"),
    })
}

/// The interpreter of a script.
fn interpreter(path: &Path) -> Option<String> {
    let head = head(path)?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::shell::ShellStage;
    use std::{fs, os::unix::fs::PermissionsExt};

    fn program(argv: &[&str], path: &Path) -> CellProgram {
        CellProgram {
            argv: argv.iter().map(Raw::from).collect(),
            env: vec![(Raw::from("PATH"), Raw::from(path.as_os_str().as_bytes()))],
            inherit: lab_protocol::work::Inherit::Named(Vec::new()),
            cwd: Raw::default(),
            world: None,
            stage: ShellStage::Bare,
            node: None,
            user: None,
            terminal: None,
            timeout_ms: None,
            core_bytes: 0,
            sysctl: Vec::new(),
            input: false,
            witness: None,
        }
    }

    fn file(directory: &Path, name: &str, content: &[u8], mode: u32) {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_can_not_be_executed_has_the_code_and_the_reason_of_a_shell() {
        let dir = tempfile::tempdir().unwrap();
        let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
        arm.resize(64, 0);
        arm[18] = 183;
        file(dir.path(), "arm", &arm, 0o755);
        file(dir.path(), "plain", b"text", 0o644);
        file(dir.path(), "script", b"#!/nonexistent/python -u\n", 0o755);
        let told = |name: &str| {
            let program = program(&[name], dir.path());
            find(&program).and_then(|path| spawn(&program, &path).map(|_| ())).unwrap_err()
        };
        for (name, code, message) in [
            ("absent", 127, "absent: not found in the guest, PATH="),
            ("./absent", 127, "./absent: not found in the guest"),
            ("", 127, "a command without a name"),
            ("plain", 126, "is not executable (mode 0644)"),
            ("arm", 126, "is a program for aarch64; this guest is x86_64"),
            ("script", 127, "interprets or loads it is not: /nonexistent/python -u"),
            ("/", 126, "/ is a directory"),
        ] {
            let NotStarted { code: seen, message: said } = told(name);
            assert!(seen == code && said.contains(message), "{name}: {seen} {said}");
        }
    }

    #[test]
    fn the_last_search_path_counts_and_its_first_directory_that_has_the_program() {
        let dirs = [(); 3].map(|()| tempfile::tempdir().unwrap());
        dirs.iter().for_each(|dir| file(dir.path(), "tool", b"#!/bin/sh\n", 0o755));
        let [inherited, first, second] = dirs.each_ref().map(|dir| dir.path());
        let mut program = program(&["tool"], inherited);
        assert_eq!(find(&program).ok(), Some(inherited.join("tool")));
        let both = format!("{}:{}", first.display(), second.display());
        program.env.push((Raw::from("PATH"), Raw::from(both.as_bytes())));
        assert_eq!(find(&program).ok(), Some(first.join("tool")));
    }

    #[test]
    fn arguments_and_streams_are_those_of_the_request() {
        let script = "printf '%s|' \"$0\" \"$@\"; printf e >&2; exit 3";
        let mut program = program(&["sh", "-c", script, "zero", "a b", ""], Path::new("/nonexistent::/bin:/usr/bin"));
        program.argv.push(Raw::from(&[0xff, b'x'][..]));
        let mut started = spawn(&program, &find(&program).unwrap()).unwrap();
        let mut said = Vec::new();
        for (_, mut source) in std::mem::take(&mut started.outputs) {
            let mut bytes = Vec::new();
            source.read_to_end(&mut bytes).unwrap();
            said.push(bytes);
        }
        assert_eq!(said, [b"zero|a b||\xffx|".to_vec(), b"e".to_vec()]);
        assert_eq!(started.child.wait().unwrap().code(), Some(3));
    }
}
