//! Restricts the privileges of a virtual machine's process, between fork and exec.
//!
//! A guest that exploits QEMU gains QEMU's privileges, so they are restricted: QEMU can open only the guest's own files
//! and those of programs and libraries (by Landlock, if the host's kernel supports it), it has no capabilities even if
//! root runs the lab, it can't fill the disk, and it ends with the lab.

use super::{CONSOLE_LIMIT, GuestSpec};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::sys::resource::{Resource, setrlimit};
use std::{
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

/// Maximum size of any file that a virtual machine writes, bytes: its console, its standard error, its devices'
/// saved state. The lab ends a guest whose console comes near this limit; the limit protects the disk if the lab itself
/// hangs.
const FILE_LIMIT: u64 = 2 * CONSOLE_LIMIT;
/// The highest possible capability; the kernel returns an error above its own.
const CAPABILITIES: i32 = 63;
/// Landlock rights of Linux 6.12; older kernels apply those that they support.
const RIGHTS: ABI = ABI::V6;
/// Programs, libraries, firmware, and files that the C library reads.
const SYSTEM: [&str; 10] = [
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/qemu",
    "/etc/gcrypt",
    "/proc",
    "/sys",
];
/// Devices of the host that QEMU needs.
const DEVICES: [&str; 6] = ["/dev/kvm", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// The files of one machine.
#[derive(Debug)]
pub struct Reach {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl Reach {
    /// The files of a guest with the directory `dir`.
    pub fn of(spec: &GuestSpec, dir: &Path, program: &Path) -> Self {
        let read = [&spec.kernel, &spec.image].into_iter().chain(&spec.direct).cloned();
        let read = read.chain(Self::of_program(program).read).collect();
        // The files of a snapshot are in one directory.
        let draft = spec.memory_file.as_deref().and_then(Path::parent).map(Path::to_owned);
        Self { read, write: std::iter::once(dir.to_owned()).chain(draft).collect() }
    }

    /// What QEMU needs to start at all.
    pub fn of_program(program: &Path) -> Self {
        let program = program.canonicalize().unwrap_or_else(|_| program.to_owned());
        // A QEMU outside of the system directories has its libraries and firmware in the same tree: <root>/bin/qemu,
        // <root>/usr/bin/qemu.
        let prefix = program.parent().filter(|parent| parent.ends_with("bin")).and_then(Path::parent);
        let root = prefix.and_then(|prefix| if prefix.ends_with("usr") { prefix.parent() } else { Some(prefix) });
        let beside = root.filter(|root| root.parent().is_some()).map(Path::to_owned);
        // A script that the user chose as QEMU may start the one that `lab setup` unpacked.
        let tools = lab_base::paths::cache_dir().ok().map(|cache| lab_base::programs::tools(&cache));
        Self { read: beside.into_iter().chain(tools).chain([program]).collect(), write: Vec::new() }
    }

    /// Adds a snapshot: its memory is mapped privately, but QEMU 7.2 opens it for writing.
    pub fn and_snapshot(mut self, memory: &Path, state: &Path) -> Self {
        self.write.push(memory.to_owned());
        self.read.push(state.to_owned());
        self
    }

    fn rules(&self) -> Result<RulesetCreated, RulesetError> {
        let read = AccessFs::from_read(RIGHTS);
        let every = AccessFs::from_all(RIGHTS);
        let rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(every)?
            .handle_access(AccessNet::from_all(RIGHTS))?
            .scope(Scope::from_all(RIGHTS))?
            .create()?;
        let rights =
            |path: &Path, rights| Some(Ok::<_, RulesetError>(PathBeneath::new(PathFd::new(path).ok()?, rights)));
        let system = SYSTEM.iter().map(Path::new).filter_map(|path| rights(path, read));
        let devices = DEVICES.iter().map(Path::new).filter_map(|path| rights(path, every));
        let own = self.read.iter().filter_map(|path| rights(path, read));
        let written = self.write.iter().filter_map(|path| rights(path, every));
        // Missing paths are skipped, because they can't be opened anyway.
        rules.add_rules(system.chain(devices).chain(own).chain(written))
    }
}

/// Restricts the process that the command will start.
///
/// # Errors
/// The kernel supports Landlock but refuses the rules.
pub fn confine(command: &mut Command, reach: &Reach) -> io::Result<()> {
    let mut rules = Some(reach.rules().map_err(io::Error::other)?);
    bound(command);
    let inside = move || {
        // SAFETY: only system calls with plain numbers, no memory but this frame's.
        unsafe {
            (0..=CAPABILITIES).for_each(|capability| {
                libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability.unsigned_abs()), 0, 0, 0);
            });
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        }
        // This also sets no_new_privs.
        rules
            .take()
            .map_or(Ok(()), |rules| rules.restrict_self().map(drop))
            .map_err(|_| io::ErrorKind::PermissionDenied.into())
    };
    // SAFETY: between fork and exec the closure makes system calls only; the rules' descriptor was made before.
    unsafe { command.pre_exec(inside) };
    Ok(())
}

/// Limits the size of files that the command's processes write, and ends them with the thread that started them, which
/// lives as long as the guest.
pub fn bound(command: &mut Command) {
    let lab = std::process::id();
    let inside = move || {
        setrlimit(Resource::RLIMIT_FSIZE, FILE_LIMIT, FILE_LIMIT)?;
        // A core dump with the guest's memory would be larger than all reports.
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        // SAFETY: system calls with plain numbers; a signal that is ignored has no handler.
        unsafe {
            // Exceeding the limit is then a write error and does not end the process.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, 0, 0, 0);
            // The parent may have ended before the signal was requested.
            if libc::getppid().unsigned_abs() != lab {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes system calls only, which are safe there.
    unsafe { command.pre_exec(inside) };
}
