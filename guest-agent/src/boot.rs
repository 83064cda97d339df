//! PID 1: mounts, modules, the port to the host, and power-off.

use crate::{
    error::AgentError, kmsg, modules, port, processors, program, sender, session, session::AgentStart, successor,
};
use lab_harness::{Suite, quiet};
use lab_protocol::message::PORT_NAME;
use nix::{
    mount::{MsFlags, mount},
    sys::{
        reboot::{RebootMode, reboot},
        resource::{RLIM_INFINITY, Resource, setrlimit},
    },
};
use std::{fs, path::Path};

/// Mount point of the BPF file system: where pins live.
pub const BPFFS: &str = "/sys/fs/bpf";

/// Runs the guest's whole life and powers off. Never returns.
pub fn as_init(suites: &[&'static dyn Suite]) -> ! {
    if let Err(error) = live(suites) {
        // The port itself may be missing, so that the console is the only place to report it.
        kmsg::say(&format!("fatal: {error}"));
    }
    power_off()
}

fn live(suites: &[&'static dyn Suite]) -> Result<(), AgentError> {
    let (boot_ms, nonce) = (sender::boottime_ms(), successor::nonce());
    // Before 5.11 programs and maps count as locked memory. aya raises the limit when a map is refused, but not every program is
    // loaded by aya.
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
        .unwrap_or_else(|errno| kmsg::say(&format!("RLIMIT_MEMLOCK: {errno}")));
    // An agent that takes another one's place finds the machine as that one has set it up.
    let modules = if nonce.is_some() { modules::loaded() } else { set_up()? };
    let port = port::open(PORT_NAME).map_err(AgentError::Port)?;
    session::run(suites, port, AgentStart { boot_ms, nonce, modules })
}

/// Makes a booted machine the lab's own, and says which modules it has. What changes here has no effect on guests that are restored with
/// an older agent and sent a newer one; `lab run --cold` shows it.
fn set_up() -> Result<Vec<String>, AgentError> {
    mount_all()?;
    if program::are_expected() {
        processors::keep_to_first();
    }
    quiet_console();
    expedite_grace_periods();
    quiet::before_modules();
    let loaded = modules::load_all();
    for complaint in &loaded.complaints {
        kmsg::say(complaint);
    }
    Ok(loaded.modules)
}

/// `/dev` first: without it the port has no node. bpffs last: it sits on sysfs.
fn mount_all() -> Result<(), AgentError> {
    let plan: [(&str, &str, &str, &str); 6] = [
        ("dev", "/dev", "devtmpfs", "mode=0755"),
        ("proc", "/proc", "proc", ""),
        ("sys", "/sys", "sysfs", ""),
        ("run", "/run", "tmpfs", "mode=0755"),
        ("tmp", "/tmp", "tmpfs", "mode=1777"),
        ("bpf", BPFFS, "bpf", "mode=0700"),
    ];
    for (source, target, kind, options) in plan {
        if !Path::new(target).is_dir() {
            fs::create_dir_all(target).map_err(AgentError::file(target))?;
        }
        match mount(Some(source), target, Some(kind), MsFlags::empty(), Some(options)) {
            // The kernel mounts devtmpfs itself under CONFIG_DEVTMPFS_MOUNT.
            Ok(()) | Err(nix::Error::EBUSY) => {}
            Err(errno) => {
                return Err(AgentError::Mount { kind: kind.to_owned(), target: target.to_owned(), errno });
            }
        }
    }
    Ok(())
}

/// Where the kernel's debugging files are, for the agent itself.
pub fn mount_debugfs() -> Result<(), nix::Error> {
    match mount(Some("debugfs"), "/sys/kernel/debug", Some("debugfs"), MsFlags::empty(), None::<&str>) {
        // A program's world may have it there already.
        Ok(()) | Err(nix::Error::EBUSY) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The console shows the whole boot log; from here on only warnings and worse.
fn quiet_console() {
    let _ = fs::write("/proc/sys/kernel/printk", "5 4 1 7");
}

/// Deleting devices, namespaces and programs waits for grace periods, several in a row, and each takes a few ticks of
/// an otherwise idle guest. Expedited grace periods avoid this wait and change nothing else. A kernel without the
/// switch is slower.
fn expedite_grace_periods() {
    let _ = fs::write("/sys/kernel/rcu_expedited", "1");
}

/// Ends the machine.
pub fn power_off() -> ! {
    // `-no-reboot` turns a restart into QEMU's exit, which is quicker than ACPI's power off.
    let _ = reboot(RebootMode::RB_AUTOBOOT);
    loop {
        std::thread::park();
    }
}
