//! Guests without a virtual machine: the program `lab` starts a stand-in for QEMU, which is this test program under QEMU's
//! name, and a script in it acts as the agent. Everything else is what a user runs.

use lab::testing::agent::{A, B, C, Script};
use lab_protocol::{CellId, Listing, PROTOCOL_VERSION};
use lab_record::testing::cell;
use lab_vm::{
    accel::ACCEL_VARIABLE,
    fake::{PROGRAM, StandIn},
};
use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::OnceLock,
};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Names the scenario that the stand-in plays.
const SCENARIO: &str = "NETKIT_LAB_SCENARIO";
/// Names the version of the kernel that the guest claims to run.
const VERSION: &str = "NETKIT_LAB_SCENARIO_KERNEL";
/// The kernel that the guests claim to run: the lab unpacks it and builds its image.
pub const KERNEL: &str = "6.12";

/// A fault that can be injected.
pub struct Scenario {
    script: Box<dyn Fn(Script<'_>)>,
    listening: bool,
    freezing: bool,
    warm: bool,
    arguments: Vec<String>,
    cells: Vec<String>,
    arrange: fn(&Path),
    disk: Option<&'static str>,
}

impl Scenario {
    /// One kernel, three cells, and guests that run this script.
    pub fn of(script: impl Fn(Script<'_>) + 'static) -> Self {
        Self {
            script: Box::new(script),
            listening: true,
            freezing: true,
            warm: false,
            arguments: Vec::new(),
            cells: [A, B, C].map(str::to_owned).to_vec(),
            arrange: |_| {},
            disk: None,
        }
    }

    /// Guests that end before their agent's port exists.
    pub fn never_listening(mut self) -> Self {
        self.listening = false;
        self
    }

    /// Restores guests from a snapshot that can't be made.
    pub fn never_freezing(mut self) -> Self {
        self.freezing = false;
        self.warm()
    }

    /// Sets a deadline, as on the command line.
    pub fn choosing(mut self, deadline: &str) -> Self {
        self.arguments.extend(["--deadline".to_owned(), deadline.to_owned()]);
        self
    }

    /// Sets the number of cells.
    pub fn cells(mut self, count: usize) -> Self {
        self.cells = (0..count).map(|number| format!("T{number:02}-many[tc,veth]")).collect();
        self
    }

    /// Restores guests from a snapshot.
    pub fn warm(mut self) -> Self {
        self.warm = true;
        self
    }

    /// Changes the lab's cache before the run.
    pub fn after(mut self, arrange: fn(&Path)) -> Self {
        self.arrange = arrange;
        self
    }

    /// Puts the results on a disk of this size.
    pub fn on_disk(mut self, size: &'static str) -> Self {
        self.disk = Some(size);
        self
    }

    /// `lab run`, with a project and a cache below `scratch`, which writes its results to `out`.
    pub fn command(&self, name: &str, scratch: &Path, out: &Path) -> Command {
        let mut lab = self.lab(scratch);
        lab.args(["run", "--no-build", "--jobs", "1", "--out"]).arg(out);
        if !self.warm {
            lab.arg("--cold");
        }
        lab.args(&self.arguments);
        let mut command = self.disk.map_or_else(|| lab_alone(&lab), |size| on_disk(&lab, size, out));
        played(&mut command, name, scratch, &locked());
        command
    }

    /// The lab, with a project and a cache below `scratch`.
    pub fn lab(&self, scratch: &Path) -> Command {
        let project = self.project(scratch);
        (self.arrange)(&cache(scratch));
        let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"));
        lab.arg("--project").arg(project);
        lab
    }

    /// A project with the kernel, and an agent that lists the cells of this scenario and is never started.
    fn project(&self, scratch: &Path) -> PathBuf {
        let (project, root) = (scratch.join("project"), fs::canonicalize(ROOT).expect("the project"));
        let release = project.join("target/guest/x86_64-unknown-linux-gnu/release");
        fs::create_dir_all(&release).expect("directories");
        symlink(root.join("ebpf"), project.join("ebpf")).expect("a link");
        let matrix = fs::read_to_string(root.join("kernels.toml")).expect("kernels.toml");
        let head = format!("[kernels.\"{KERNEL}\"]");
        let own = matrix.split("\n\n").find(|part| part.contains(&head)).expect("the kernel's table");
        fs::write(project.join("kernels.toml"), own).expect("a file");
        fs::copy(root.join("kernels.lock"), project.join("kernels.lock")).expect("a file");
        let listing = Listing {
            protocol: PROTOCOL_VERSION,
            agent: "1".to_owned(),
            cells: self.cells.iter().map(|id| cell(id)).collect(),
            coverage: Vec::new(),
            mutants: Vec::new(),
            canaries: Vec::new(),
        };
        let agent = release.join("guest-agent");
        // The same bytes for every scenario: they are part of the image, which is built once.
        fs::copy(place().join("agent"), &agent).expect("a program");
        let says = |option: &str, text: &[u8]| fs::write(release.join(format!("guest-agent{option}")), text);
        says("--list", &serde_json::to_vec(&listing).expect("JSON")).expect("a file");
        says("--topologies", b"[]").expect("a file");
        project
    }
}

/// Lets guests of a command be played by the scenario with this name; they claim to run this kernel.
pub fn played(command: &mut Command, name: &str, scratch: &Path, kernel: &str) {
    command.env("NETKIT_LAB_CACHE", scratch.join("cache")).env("NETKIT_LAB_QEMU", place().join(PROGRAM));
    command.env(ACCEL_VARIABLE, "tcg").env(SCENARIO, name).env(VERSION, kernel).stdin(Stdio::null());
}

/// The kernel's locked version.
pub fn locked() -> String {
    let lock = fs::read_to_string(Path::new(ROOT).join("kernels.lock")).expect("kernels.lock");
    let (_, own) = lock.split_once(&format!("[kernels.\"{KERNEL}\"]")).expect("the kernel is locked");
    let version = own.lines().find_map(|line| line.strip_prefix("kernel = ")).expect("its version");
    version.trim_matches('"').to_owned()
}

/// A cache with everything but what belongs to a QEMU, to cells or to a search.
fn cache(scratch: &Path) -> PathBuf {
    const OWN: [&str; 6] =
        ["snapshots", "durations.json", "kernel-durations.json", "accelerator.json", "bisect", "swept"];
    let cache = scratch.join("cache");
    fs::create_dir_all(&cache).expect("a directory");
    let ours = lab_base::paths::cache_dir().expect("the cache");
    for entry in fs::read_dir(ours).expect("the cache has been filled").flatten() {
        if !OWN.iter().any(|name| entry.file_name() == *name) {
            symlink(entry.path(), cache.join(entry.file_name())).expect("a link");
        }
    }
    cache
}

fn lab_alone(lab: &Command) -> Command {
    let mut command = Command::new(lab.get_program());
    command.args(lab.get_args());
    command
}

/// The command with its results on a separately mounted file system of this size.
fn on_disk(lab: &Command, size: &str, out: &Path) -> Command {
    const MOUNT: &str = r#"mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@""#;
    fs::create_dir_all(out).expect("a directory");
    let mut command = Command::new("unshare");
    let root = nix::unistd::geteuid().is_root();
    command.args(if root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    command.args(["sh", "-c", MOUNT, "sh", size]).arg(out).arg(lab.get_program()).args(lab.get_args());
    command
}

/// A directory with this program under QEMU's name, for the lab to start, and with the agent.
fn place() -> &'static Path {
    static PLACE: OnceLock<TempDir> = OnceLock::new();
    let place = PLACE.get_or_init(|| {
        let place = tempfile::Builder::new().prefix("stand-in-").tempdir().expect("a temporary directory");
        let this = env::current_exe().expect("this program");
        // A link by which /proc shows QEMU's name; a copy where that is another file system.
        let path = place.path().join(PROGRAM);
        fs::hard_link(&this, &path).or_else(|_| fs::copy(&this, &path).map(drop)).expect("a program");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/faults/agent.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-static", "-no-pie", "-nostdlib", "-O1", "-fno-stack-protector", "-fno-builtin", "-o"]);
        let built = compiler.arg(place.path().join("agent")).arg(source).status();
        assert!(built.expect("cc, which links the lab too").success());
        place
    });
    place.path()
}

/// Removes what the scenarios shared: a static is never dropped.
pub fn clear() {
    let _ = fs::remove_dir_all(place());
}

/// Fetches the kernel and builds what a guest loads, once, before any scenario.
pub fn ready() {
    let cell = ["list", "--case", "D10*"];
    let kernel = ["kernels", "fetch", "--kernel", KERNEL];
    for arguments in [&cell[..], &kernel] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let output =
            command.args(["--project", ROOT]).args(arguments).stdin(Stdio::null()).output().expect("lab starts");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The name of the scenario, if this process was started in QEMU's place.
pub fn in_place_of_qemu() -> Option<String> {
    let program = env::args_os().next()?;
    (Path::new(&program).file_name()? == PROGRAM).then(|| env::var(SCENARIO).ok()).flatten()
}

/// Acts as QEMU.
pub fn play(scenario: &Scenario) -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let script = |agent: &mut _| (scenario.script)(Script { agent });
    let kernel = env::var(VERSION).expect("the parent sets it with the scenario");
    let machine =
        StandIn { script: &script, kernel: &kernel, listening: scenario.listening, freezing: scenario.freezing };
    machine.play(&arguments).unwrap_or_else(|error| {
        eprintln!("the stand-in for QEMU: {error}");
        ExitCode::FAILURE
    })
}

/// A script that boots and calls `act` with its cells in the first guest; later guests pass all cells.
pub fn once(act: impl Fn(&mut Script<'_>, &[CellId]) + 'static) -> Scenario {
    Scenario::of(move |mut script| {
        let cells = script.boot();
        if script.agent.boot() == 0 {
            act(&mut script, &cells);
        } else {
            behave(&mut script, &cells);
        }
    })
}

/// Passes every cell and powers off.
pub fn behave(script: &mut Script<'_>, cells: &[CellId]) {
    cells.iter().for_each(|cell| script.pass(cell));
    script.end(cells.len());
}
