//! A Slurm cluster on this machine: munged, slurmctld, and a slurmd for each node, from Debian's packages in the cache. All
//! of them listen on the loopback interface alone, and belong to the user who runs the test.

use lab::setup::{Tools, UnpackedSet};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, User, getuid},
};
use procfs::process::{Process, all_processes};
use std::{
    collections::BTreeSet,
    fmt::Write,
    fs,
    io::Read,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The programs, by the names that Debian's alternatives give them.
const PROGRAMS: [(&str, &str); 8] = [
    ("munged", "usr/sbin/munged"),
    ("slurmctld", "usr/sbin/slurmctld-wlm"),
    ("slurmd", "usr/sbin/slurmd-wlm"),
    ("slurmstepd", "usr/sbin/slurmstepd-wlm"),
    ("sbatch", "usr/bin/sbatch"),
    ("scancel", "usr/bin/scancel"),
    ("scontrol", "usr/bin/scontrol"),
    ("squeue", "usr/bin/squeue"),
];
/// Plugins, and the library that all programs need.
const PLUGINS: &str = "usr/lib/x86_64-linux-gnu/slurm-wlm";
/// Until the daemons answer, on a busy machine.
const START: Duration = Duration::from_secs(120);
/// A node that does not answer for so long is down, seconds. Nodes of a busy machine may be declared down, too: their jobs
/// then run again, and nothing that the tests check changes.
const NODE_TIMEOUT_S: u32 = 10;
/// How long a task that lost its node waits before it starts again, seconds (`cred_expire`; 120 by default).
const REQUEUE_S: u32 = 5;
const POLL: Duration = Duration::from_millis(200);

/// Waits until something is there.
#[track_caller]
pub fn wait_for<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} after {} s", patience.as_secs());
        thread::sleep(POLL);
    }
}

/// A running cluster; its daemons and everything that they started end with it.
pub struct Cluster {
    dir: tempfile::TempDir,
    daemons: Vec<Child>,
    nodes: Vec<(String, Child)>,
}

impl Cluster {
    /// Starts a cluster. Each node runs one task at once, and gives its jobs a cache: the path with its name.
    pub fn start(nodes: &[(&str, PathBuf)]) -> Self {
        let cache = lab_base::paths::cache_dir().unwrap();
        let set = Tools::in_cache(&cache).slurm().expect("Slurm is not in the cache: run `make setup-tests`");
        let dir = tempfile::Builder::new().prefix("lab-slurm-").tempdir().unwrap();
        let mut cluster = Self { dir, daemons: Vec::new(), nodes: Vec::new() };
        cluster.prepare(&set, nodes);
        let (socket, key) = (cluster.path("munge.socket"), cluster.path("munge.key"));
        let munged = ["--foreground", "--force", "--num-threads=2"].map(str::to_owned).into_iter().chain([
            format!("--socket={}", socket.display()),
            format!("--key-file={}", key.display()),
            format!("--pid-file={}", cluster.path("munged.pid").display()),
            format!("--log-file={}", cluster.path("munged.log").display()),
            format!("--seed-file={}", cluster.path("munged.seed").display()),
        ]);
        let munged = cluster.daemon("munged", "", &munged.collect::<Vec<_>>());
        cluster.daemons.push(munged);
        wait_for("socket of munged", START, || socket.exists().then_some(()));
        let slurmctld = cluster.daemon("slurmctld", "", &["-D".to_owned(), "-i".to_owned()]);
        cluster.daemons.push(slurmctld);
        for (name, _) in nodes {
            let slurmd = cluster.slurmd(name);
            cluster.nodes.push(((*name).to_owned(), slurmd));
        }
        let idle = || cluster.tried("scontrol", &["--oneliner", "show", "nodes"]).matches("State=IDLE ").count();
        wait_for("idle nodes", START, || (idle() == nodes.len()).then_some(()));
        cluster
    }

    fn prepare(&self, set: &UnpackedSet, nodes: &[(&str, PathBuf)]) {
        for name in ["bin", "state"] {
            fs::create_dir(self.path(name)).unwrap();
        }
        let plugins = set.root().join(PLUGINS);
        for (name, program) in PROGRAMS {
            let script = self.path("bin").join(name);
            set.script_for(&script, &set.root().join(program), std::slice::from_ref(&plugins)).unwrap();
        }
        let mut key = [0; 128];
        fs::File::open("/dev/urandom").unwrap().read_exact(&mut key).unwrap();
        fs::write(self.path("munge.key"), key).unwrap();
        fs::set_permissions(self.path("munge.key"), fs::Permissions::from_mode(0o400)).unwrap();
        let mut prolog = "#!/bin/sh\ncase $SLURMD_NODENAME in\n".to_owned();
        for (name, cache) in nodes {
            let _ = writeln!(prolog, "{name}) echo 'export NETKIT_LAB_CACHE={}' ;;", cache.display());
        }
        fs::write(self.path("prolog"), prolog + "esac\n").unwrap();
        fs::set_permissions(self.path("prolog"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(self.path("slurm.conf"), self.settings(&plugins, nodes)).unwrap();
    }

    fn settings(&self, plugins: &Path, nodes: &[(&str, PathBuf)]) -> String {
        let user = User::from_uid(getuid()).unwrap().expect("this user has a name").name;
        let at = |name: &str| self.path(name).display().to_string();
        let mut ports = ports(nodes.len() + 1).into_iter();
        let lines = [
            "ClusterName=lab".to_owned(),
            "SlurmctldHost=localhost(127.0.0.1)".to_owned(),
            format!("SlurmctldPort={}", ports.next().unwrap()),
            "CommunicationParameters=NoInAddrAny,NoCtldInAddrAny".to_owned(),
            format!("SlurmUser={user}\nSlurmdUser={user}"),
            format!(
                "AuthType=auth/munge\nCredType=cred/munge\nAuthInfo=socket={},cred_expire={REQUEUE_S}",
                at("munge.socket")
            ),
            format!("PluginDir={}", plugins.display()),
            format!("StateSaveLocation={}\nSlurmdSpoolDir={}", at("state"), at("spool-%n")),
            format!("SlurmctldPidFile={}\nSlurmdPidFile={}", at("slurmctld.pid"), at("slurmd-%n.pid")),
            format!("SlurmctldLogFile={}\nSlurmdLogFile={}", at("slurmctld.log"), at("slurmd-%n.log")),
            format!("TaskProlog={}", at("prolog")),
            // Without control groups and accounting, which need more of the machine than a test may have.
            "ProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nJobAcctGatherType=jobacct_gather/none".to_owned(),
            "AccountingStorageType=accounting_storage/none\nSwitchType=switch/none\nMpiDefault=none".to_owned(),
            "SelectType=select/cons_tres\nSelectTypeParameters=CR_CPU".to_owned(),
            "SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2".to_owned(),
            format!("SlurmdTimeout={NODE_TIMEOUT_S}\nSlurmdParameters=config_overrides\nReturnToService=2"),
            "MailProg=/bin/true\nKillWait=30".to_owned(),
        ];
        let mut text = lines.join("\n") + "\n";
        for ((name, _), port) in nodes.iter().zip(ports) {
            let _ = writeln!(
                text,
                "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=6144"
            );
        }
        text + "PartitionName=night Nodes=ALL Default=YES State=UP MaxTime=INFINITE\n"
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The environment of the cluster's programs, for a command that calls them.
    pub fn environment(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places = [self.path("bin")].into_iter().chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(places).unwrap()).env("SLURM_CONF", self.path("slurm.conf"));
    }

    fn daemon(&self, name: &str, node: &str, arguments: &[String]) -> Child {
        let mut command = Command::new(self.path("bin").join(name));
        self.environment(&mut command);
        let log = fs::File::create(self.path(&format!("{name}-{node}.out"))).unwrap();
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        command.spawn().unwrap()
    }

    fn slurmd(&self, node: &str) -> Child {
        let stepd = self.path("bin").join("slurmstepd").display().to_string();
        self.daemon("slurmd", node, &["-D", "-N", node, "-d", &stepd].map(str::to_owned))
    }

    /// What a program of the cluster prints, whether it succeeds or not.
    pub fn tried(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(self.path("bin").join(program));
        self.environment(&mut command);
        let output = command.args(arguments).output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }

    /// A field of a job, for example `JobState`.
    pub fn job(&self, job: &str, field: &str) -> Option<String> {
        let shown = self.tried("scontrol", &["--oneliner", "show", "job", job]);
        let prefix = format!("{field}=");
        shown.split_whitespace().find_map(|word| Some(word.strip_prefix(&prefix)?.to_owned()))
    }

    /// Everything that the cluster started, and what that started.
    fn processes(&self, wanted: impl Fn(&Process) -> bool) -> BTreeSet<i32> {
        let all: Vec<(i32, i32, bool)> = all_processes()
            .unwrap()
            .flatten()
            .filter_map(|process| Some((process.pid, process.stat().ok()?.ppid, wanted(&process))))
            .collect();
        let mut found: BTreeSet<i32> = all.iter().filter(|it| it.2).map(|it| it.0).collect();
        loop {
            let more: Vec<i32> =
                all.iter().filter(|it| found.contains(&it.1) && !found.contains(&it.0)).map(|it| it.0).collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    /// Whether a process belongs to this cluster, and to a node of it.
    fn belongs(&self, process: &Process, node: Option<&str>) -> bool {
        let Ok(environment) = process.environ() else { return false };
        let has = |name: &str, value: &std::ffi::OsStr| {
            environment.get(std::ffi::OsStr::new(name)).is_some_and(|it| it == value)
        };
        let ours = has("SLURM_CONF", self.path("slurm.conf").as_os_str());
        ours && node.is_none_or(|node| has("SLURMD_NODENAME", node.as_ref()))
    }

    /// Kills a node's daemon. Its job goes on, as where only the network is lost.
    pub fn disconnect(&mut self, node: &str) {
        let (_, slurmd) = self.nodes.iter_mut().find(|(name, _)| name == node).expect("a node");
        slurmd.kill().unwrap();
        slurmd.wait().unwrap();
    }

    /// Kills a node's daemon and everything that runs there, as where the machine loses its power.
    pub fn cut_power(&mut self, node: &str) -> usize {
        let jobs = self.processes(|process| self.belongs(process, Some(node)));
        // The parents, which would tell the controller that their job was killed, go first.
        let parent = |pid: &i32| Some(Process::new(*pid).ok()?.stat().ok()?.ppid);
        let is_step = |pid: &i32| {
            let words = Process::new(*pid).and_then(|process| process.cmdline()).unwrap_or_default();
            words.iter().any(|word| word.contains("slurmstepd"))
        };
        let steps: BTreeSet<i32> = jobs.iter().filter_map(parent).filter(is_step).collect();
        self.disconnect(node);
        for pid in steps.iter().chain(&jobs) {
            // It may have ended in the meantime.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        jobs.len()
    }

    /// The last lines of the daemons' logs.
    pub fn logs(&self) -> String {
        let mut told = String::new();
        for entry in fs::read_dir(self.dir.path()).unwrap().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|it| it == "log" || it == "out") {
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text).into_owned();
                let lines: Vec<&str> = text.lines().rev().take(30).collect();
                let _ = writeln!(told, "== {}", path.display());
                lines.iter().rev().for_each(|line| _ = writeln!(told, "{line}"));
            }
        }
        told
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // Daemons first, so that nothing is started again.
        for daemon in self.nodes.iter_mut().map(|(_, slurmd)| slurmd).chain(&mut self.daemons) {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for pid in self.processes(|process| self.belongs(process, None)) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Ports of the loopback interface that are free now.
fn ports(count: usize) -> Vec<u16> {
    let held: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
