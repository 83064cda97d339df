//! The environment of an attack: starts and measures the program, and checks the remaining files.

use crate::attack::Attack;
use lab_record::event::Stamped;
use nix::sys::signal::{Signal, kill};
use std::{
    collections::BTreeMap,
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Content of a secret file that attacks must not read.
pub const SECRET: &str = "a-secret-of-the-host-77c1";
/// Bytes of output that are kept.
const MOST_PRINTED: u64 = 16 << 20;

/// The directories of one attack.
pub struct Stage<'a> {
    /// All of them: `run` is what the attacked program may write to, `outside` what it may not.
    pub scratch: &'a Path,
}

/// Result of a command.
#[derive(Debug, Default)]
pub struct Seen {
    /// Exit code; none where it had to be killed.
    pub exit: Option<i32>,
    /// Both streams.
    pub printed: String,
    /// Peak resident memory, MiB.
    pub memory_mib: u64,
    /// From its start to its end.
    pub took: Duration,
    /// What else was wrong.
    pub wrong: Vec<String>,
}

impl Stage<'_> {
    /// What the attacked program may write to.
    pub fn run(&self) -> PathBuf {
        self.scratch.join("run")
    }

    /// What it may not touch; a secret lies in it.
    pub fn outside(&self) -> PathBuf {
        self.scratch.join("outside")
    }

    /// `lab` with a cache, results and temporary files of its own.
    pub fn lab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--project", ROOT]).args(arguments);
        self.dressed(command)
    }

    /// Any program in the attack's surroundings.
    pub fn dressed(&self, mut command: Command) -> Command {
        command.env("TMPDIR", self.scratch.join("tmp")).env("NETKIT_LAB_CACHE", self.scratch.join("cache"));
        command.env("PATH", lab_base::programs::search_path());
        command.env("SECRET_OF_THE_HOST", SECRET).env_remove("CI").stdin(Stdio::null());
        command
    }

    /// A run's directory with these events.
    pub fn results(&self, name: &str, events: &[Stamped]) -> PathBuf {
        let lines: String = events.iter().map(|stamped| serde_json::to_string(stamped).unwrap() + "\n").collect();
        self.raw_results(name, lines.as_bytes())
    }

    /// The same with any bytes.
    pub fn raw_results(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let directory = self.run().join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("events.jsonl"), bytes).unwrap();
        directory
    }

    /// Runs a command to its end, for at most this long.
    pub fn finish(&self, mut command: Command, patience: Duration) -> Seen {
        let begin = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let pid = i32::try_from(child.id()).expect("pids are below 2^22");
        let read = |stream: Option<Box<dyn Read + Send>>| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut stream = stream.expect("piped");
                let _ = (&mut stream).take(MOST_PRINTED).read_to_end(&mut bytes);
                let _ = std::io::copy(&mut stream, &mut std::io::sink());
                bytes
            })
        };
        let out = read(child.stdout.take().map(|it| Box::new(it) as Box<dyn Read + Send>));
        let err = read(child.stderr.take().map(|it| Box::new(it) as Box<dyn Read + Send>));
        let mut seen = Seen::default();
        let status = loop {
            let peak = procfs::process::Process::new(pid).and_then(|it| it.status()).ok().and_then(|it| it.vmhwm);
            seen.memory_mib = seen.memory_mib.max(peak.unwrap_or(0) >> 10);
            if let Some(status) = child.try_wait().expect("our child") {
                break Some(status);
            }
            if begin.elapsed() > patience {
                let _ = kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
                let _ = child.wait();
                break None;
            }
            thread::sleep(Duration::from_millis(5));
        };
        seen.took = begin.elapsed();
        seen.exit = status.and_then(|status| status.code());
        for stream in [out, err] {
            seen.printed.push_str(&String::from_utf8_lossy(&stream.join().expect("it only reads")));
        }
        seen
    }

    /// `lab` with these arguments, for at most a minute.
    pub fn told(&self, arguments: &[&str]) -> Seen {
        self.finish(self.lab(arguments), Duration::from_secs(60))
    }
}

/// Every file below a directory with what is in it; links are themselves.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = walkdir::WalkDir::new(directory).min_depth(1).into_iter().flatten();
    let read = |entry: walkdir::DirEntry| {
        let bytes = if entry.file_type().is_file() { fs::read(entry.path()).unwrap_or_default() } else { Vec::new() };
        (entry.into_path(), bytes)
    };
    entries.map(read).collect()
}

/// Bytes on the disk below a directory, as far as they are allocated.
fn on_disk(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let files = walkdir::WalkDir::new(directory).into_iter().flatten();
    files.filter_map(|entry| entry.path().symlink_metadata().ok()).map(|it| it.blocks() * 512).sum()
}

/// Runs an attack, and returns what was not contained.
pub fn attack(attack: &Attack) -> Vec<String> {
    let scratch = tempfile::Builder::new().prefix("hostile-").tempdir().expect("a temporary directory");
    let stage = Stage { scratch: scratch.path() };
    for name in ["run", "outside", "tmp"] {
        fs::create_dir(scratch.path().join(name)).expect("a directory");
    }
    fs::write(stage.outside().join("key"), SECRET).expect("a file");
    let before = contents(&stage.outside());
    let act = std::panic::AssertUnwindSafe(|| (attack.act)(&stage));
    let Ok(seen) = std::panic::catch_unwind(act) else { return vec!["it could not be done".to_owned()] };

    let wanted = &attack.wanted;
    let mut wrong = seen.wrong.clone();
    if !seen.exit.is_some_and(|exit| wanted.exit.contains(&exit)) {
        let end: String = seen.printed.chars().rev().take(1500).collect::<Vec<_>>().into_iter().rev().collect();
        wrong.push(format!("exit {:?}, wanted {:?}: …{end}", seen.exit, wanted.exit));
    }
    let mut told = seen.printed.clone();
    for entry in walkdir::WalkDir::new(stage.run())
        .into_iter()
        .flatten()
        .filter(|it| it.file_type().is_file() && it.file_name() == "run.json")
    {
        told.push_str(&fs::read_to_string(entry.path()).unwrap_or_default());
    }
    wrong.extend(wanted.told.iter().filter(|words| !told.contains(**words)).map(|words| {
        let end: String = told.chars().rev().take(1200).collect::<Vec<_>>().into_iter().rev().collect();
        format!("no `{words}` in what was told: …{end}")
    }));
    for words in wanted.never.iter().chain(&[SECRET]) {
        if seen.printed.contains(words) {
            wrong.push(format!("{words:?} was printed"));
        }
    }
    let steers = |c: char| {
        (c.is_control() && !"\n\r\t".contains(c)) || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
    };
    wrong.extend(seen.printed.chars().find(|c| steers(*c)).map(|c| format!("{c:?} was printed")));
    if seen.memory_mib > wanted.memory_mib {
        wrong.push(format!("{} MiB of memory, at most {}", seen.memory_mib, wanted.memory_mib));
    }
    let disk = on_disk(scratch.path()) >> 20;
    if disk > wanted.disk_mib {
        wrong.push(format!("{disk} MiB on the disk, at most {}", wanted.disk_mib));
    }
    if seen.took.as_secs() > wanted.seconds {
        wrong.push(format!("{:.0} s, at most {}", seen.took.as_secs_f32(), wanted.seconds));
    }
    let after = contents(&stage.outside());
    if before != after {
        wrong.push(format!("files outside: {:?}", after.keys().collect::<Vec<_>>()));
    }
    for (path, bytes) in contents(&stage.run()) {
        // Files of the attacker were not created by the lab.
        let copied = !path.to_string_lossy().contains("planted")
            && bytes.windows(SECRET.len()).any(|it| it == SECRET.as_bytes());
        if copied && !path.is_symlink() {
            wrong.push(format!("{} holds what lay outside", path.display()));
        }
    }
    wrong
}
