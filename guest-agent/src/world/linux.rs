//! What any program may expect of a Linux that has booted: set once, before the first world.

use super::{MountError, modprobe};
use crate::{kmsg, program::core};
use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::{
        resource::{RLIM_INFINITY, Resource, setrlimit},
        socket::{AddressFamily, SockFlag, SockType, socket},
    },
};
use std::{
    fs,
    os::{fd::AsRawFd, unix::fs::symlink},
    path::Path,
    sync::{Mutex, PoisonError},
};

/// Kernel file systems: source, place, type, options. What a kernel does not have is not there, as anywhere.
pub const KERNELS: [(&str, &str, &str, &str); 5] = [
    // Programs look the source up in /proc/mounts; systemd names it so.
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", ""),
    ("debugfs", "/sys/kernel/debug", "debugfs", ""),
    ("tracefs", "/sys/kernel/tracing", "tracefs", ""),
    ("securityfs", "/sys/kernel/security", "securityfs", ""),
    ("fusectl", "/sys/fs/fuse/connections", "fusectl", ""),
];
/// Parts of `/dev`: source, place, type, options.
const DEVICES: [(&str, &str, &str, &str); 3] = [
    ("devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666,gid=5"),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
    ("mqueue", "/dev/mqueue", "mqueue", ""),
];
/// Names in `/dev` that udev makes.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
    ("/proc/kcore", "/dev/core"),
];
/// Kernel parameters that a distribution sets: ping as an ordinary user (systemd's 50-default.conf), and who takes core dumps.
const PARAMETERS: [(&str, &str); 3] = [
    ("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"),
    ("/proc/sys/kernel/core_pattern", core::PATTERN),
    ("/proc/sys/kernel/core_pipe_limit", core::AT_ONCE),
];

/// Limits: open files as systemd gives them to services, and memory that maps of the BPF file system may lock (before 5.11)
/// as much as there is.
const LIMITS: [(Resource, u64, u64); 2] =
    [(Resource::RLIMIT_NOFILE, 65_536, 1 << 20), (Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)];

/// Makes the guest a normal Linux, once.
///
/// # Errors
/// `/dev/pts`, the loopback device or modprobe can't be had; everything else may be missing in a kernel, and is told in its
/// log.
pub fn settle_once() -> Result<(), MountError> {
    static SETTLED: Mutex<bool> = Mutex::new(false);
    let mut settled = SETTLED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*settled {
        settle()?;
        *settled = true;
    }
    Ok(())
}

fn settle() -> Result<(), MountError> {
    for (source, at, kind, options) in DEVICES {
        let at = Path::new(at);
        fs::create_dir_all(at).map_err(MountError::io(at))?;
        if kind == "devpts" && at.join("ptmx").exists() {
            // A shell has mounted it before: a second one would hide its terminals.
            continue;
        }
        match mount(Some(source), at, Some(kind), MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC, Some(options)) {
            Ok(()) => {}
            Err(errno) if kind == "mqueue" => kmsg::note(&format!("no {kind}: {errno}")),
            Err(errno) => return Err(MountError::mount(kind, at)(errno)),
        }
    }
    for (target, name) in LINKS {
        let _ = symlink(target, name);
    }
    for (path, value) in PARAMETERS {
        if let Err(error) = fs::write(path, value) {
            kmsg::note(&format!("{path}: {error}"));
        }
    }
    // What the agent has, its programs have.
    for (resource, soft, hard) in LIMITS {
        setrlimit(resource, soft, hard).map_err(|errno| MountError::Limit { errno })?;
    }
    name_guest().map_err(MountError::io(Path::new(HOSTNAME)))?;
    loopback_up().map_err(|errno| MountError::Loopback { errno })?;
    modprobe::install().map_err(MountError::io(Path::new("/sbin/modprobe")))
}

/// The guest's name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Sets the guest's name to that of its kernel, for prompts.
///
/// # Errors
/// The name can't be set.
pub fn name_guest() -> std::io::Result<()> {
    let about = fs::read_to_string("/etc/netkit-lab.json").unwrap_or_default();
    let about: serde_json::Value = serde_json::from_str(&about).unwrap_or_default();
    fs::write(HOSTNAME, format!("lab-{}", about["kernel"].as_str().unwrap_or("guest")))
}

/// The guest's name.
pub fn hostname() -> String {
    fs::read_to_string(HOSTNAME).unwrap_or_default().trim_end().to_owned()
}

/// Mounts the kernel's own file systems below `root`. Each `/sys` shows the network namespace in which it was mounted.
///
/// # Errors
/// There is no sysfs.
pub fn mount_kernels(root: &Path) -> Result<(), MountError> {
    let below = |at: &str| root.join(at.trim_start_matches('/'));
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    let sys = below("/sys");
    mount(Some("sysfs"), &sys, Some("sysfs"), flags, None::<&str>).map_err(MountError::mount("sysfs", &sys))?;
    for (source, at, kind, options) in KERNELS {
        // The directory is the kernel's, where it has the file system.
        if !below(at).is_dir() {
            continue;
        }
        if let Err(errno) = mount(Some(source), &below(at), Some(kind), flags, Some(options)) {
            kmsg::note(&format!("no {kind}: {errno}"));
        }
    }
    // The agent's own: pins are found there by the check for what was left.
    let pins = below(crate::boot::BPFFS);
    mount(Some(crate::boot::BPFFS), &pins, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(MountError::mount("bpffs", &pins))?;
    delegate(&below("/sys/fs/cgroup"));
    Ok(())
}

/// Lets groups below the root have controllers, as systemd does.
fn delegate(root: &Path) {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        // One that can't be delegated does not keep the others from it.
        let _ = fs::write(root.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

nix::ioctl_read_bad!(
    /// `SIOCGIFFLAGS`: the flags of a device, by its name.
    device_flags,
    libc::SIOCGIFFLAGS,
    libc::ifreq
);
nix::ioctl_write_ptr_bad!(
    /// `SIOCSIFFLAGS`: sets them.
    set_device_flags,
    libc::SIOCSIFFLAGS,
    libc::ifreq
);

/// The loopback device of the calling thread's namespace.
fn loopback_up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: a structure of numbers; all zeros are a value of each.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte as libc::c_char;
    }
    // SAFETY: the kernel reads the name and writes the flags of the structure, which lives until the call returns.
    unsafe { device_flags(socket.as_raw_fd(), &mut request) }?;
    // SAFETY: the call before wrote this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads the structure, which lives until the call returns.
    unsafe { set_device_flags(socket.as_raw_fd(), &request) }.map(drop)
}
