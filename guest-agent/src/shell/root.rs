//! The root directory and the environment of the program.

use crate::error::AgentError;
use lab_protocol::shell::Root;
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Path of busybox, which provides the shell and the basic tools.
pub const TOOLS: &str = "/bin/busybox";
/// The file with the guest's host name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// Directory of the lab's scripts, visible in every root.
const OWN: &str = "/run/lab";
/// Tag of the host's root: virtme-ng's name for it (`virtme/commands/run.py`).
const TAG: &str = "/dev/root";
/// Mount point of the host's root, read-only.
const LOWER: &str = "/host/lower";
/// Directory (tmpfs) for files that the guest writes; they are lost when it ends.
const CHANGES: &str = "/host/changes";
/// Mount point of the overlay of both.
const MERGED: &str = "/host/root";

/// Script that runs a shell or a command in a node.
const ENTER: &str = "#!/bin/sh
[ -e \"/run/netns/$1\" ] || { echo \"usage: enter NODE [COMMAND]; nodes:\" $(ls /run/netns) >&2; exit 2; }
export NODE=$1
shift
[ $# -gt 0 ] || set -- $PERSONAL
exec nsenter --net=\"/run/netns/$NODE\" -- /bin/sh -c 'exec \"$@\"' sh \"$@\"
";
/// Runs a command by its name on `PATH`. busybox's shell prefers its applets, for example its `ip` and `tc`.
const BY_PATH: [&str; 4] = ["/bin/sh", "-c", "exec \"$@\"", "sh"];
/// Read by every interactive shell.
const PROMPT: &str = "[ ! -f ~/.bashrc ] || . ~/.bashrc\nPS1='$HOSTNAME${NODE:+ [$NODE]} \\w # '\n";
/// Directories in which programs look for terminfo entries.
const TERMINALS: [&str; 3] = ["etc/terminfo", "lib/terminfo", "usr/share/terminfo"];
/// A terminal type that every program supports.
const USUAL_TERMINAL: &str = "xterm";

/// The root in which a program runs.
pub struct Environment {
    root: Root,
}

/// Sets the host name to the kernel's id, for prompts.
///
/// # Errors
/// The name can't be written.
pub fn describe_guest() -> Result<(), AgentError> {
    let about = fs::read_to_string("/etc/netkit-lab.json").unwrap_or_default();
    let about: serde_json::Value = serde_json::from_str(&about).unwrap_or_default();
    let name = format!("lab-{}", about["kernel"].as_str().unwrap_or("guest"));
    fs::write(HOSTNAME, name).map_err(AgentError::file(HOSTNAME))
}

/// Mounts the file systems that the program needs.
///
/// # Errors
/// What can't be mounted or written.
pub fn prepare(root: Root) -> Result<Environment, AgentError> {
    place("devpts", "/dev/pts", "devpts", MsFlags::empty(), "mode=0620,ptmxmode=0666")?;
    fs::create_dir_all(OWN).map_err(AgentError::file(OWN))?;
    for (name, text) in [("enter", ENTER), ("prompt", PROMPT)] {
        let path = Path::new(OWN).join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .map_err(AgentError::file(&path))?;
    }
    if root == Root::Host {
        host()?;
    }
    Ok(Environment { root })
}

/// Mounts an overlay of the host's root and the guest's own files, with the guest's own `/dev`, `/proc` and `/sys`.
fn host() -> Result<(), AgentError> {
    place(TAG, LOWER, "9p", MsFlags::MS_RDONLY, "trans=virtio,version=9p2000.L,access=any,msize=262144")
        .map_err(|error| AgentError::NoHostRoot(Box::new(error)))?;
    place("changes", CHANGES, "tmpfs", MsFlags::empty(), "mode=0755")?;
    let (upper, work) = (format!("{CHANGES}/upper"), format!("{CHANGES}/work"));
    for directory in [&upper, &work] {
        fs::create_dir_all(directory).map_err(AgentError::file(directory))?;
    }
    let layers = format!("lowerdir={LOWER},upperdir={upper},workdir={work}");
    place("root", MERGED, "overlay", MsFlags::empty(), &layers)?;
    place("proc", &format!("{MERGED}/proc"), "proc", MsFlags::empty(), "")?;
    place("tmp", &format!("{MERGED}/tmp"), "tmpfs", MsFlags::empty(), "mode=1777")?;
    for own in ["/dev", "/sys", "/run"] {
        let target = format!("{MERGED}{own}");
        mount(Some(own), &*target, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
            .map_err(|errno| AgentError::Mount { kind: own.to_owned(), target: target.clone(), errno })?;
    }
    Ok(())
}

fn place(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<(), AgentError> {
    fs::create_dir_all(target).map_err(AgentError::file(target))?;
    mount(Some(source), target, Some(kind), flags, Some(options)).map_err(|errno| AgentError::Mount {
        kind: kind.to_owned(),
        target: target.to_owned(),
        errno,
    })
}

impl Environment {
    /// The command prefix that runs a program in this root.
    pub fn enter(&self) -> impl Iterator<Item = String> {
        let chroot: &[&str] = if self.root == Root::Host { &[TOOLS, "chroot", MERGED] } else { &[] };
        chroot.iter().chain(&BY_PATH).map(|word| (*word).to_owned())
    }

    fn path(&self, inside: &str) -> PathBuf {
        Path::new(if self.root == Root::Host { MERGED } else { "/" }).join(inside)
    }

    /// The interactive shell.
    pub fn shell(&self) -> Vec<String> {
        let prompt = format!("{OWN}/prompt");
        if self.path("bin/bash").exists() {
            vec!["/bin/bash".to_owned(), "--rcfile".to_owned(), prompt]
        } else {
            vec!["/bin/sh".to_owned()]
        }
    }

    /// The terminal's name if this root has its terminfo entry, otherwise `xterm`.
    pub fn terminal<'t>(&self, kind: &'t str) -> &'t str {
        let entry = |at: &str| Some(self.path(at).join(kind.get(..1)?).join(kind));
        let known = !kind.contains('/') && TERMINALS.iter().filter_map(|at| entry(at)).any(|path| path.exists());
        if known { kind } else { USUAL_TERMINAL }
    }

    /// The program's environment; it inherits nothing from the agent.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        let home = if self.root == Root::Host { "/root" } else { "/" };
        [
            ("PATH", format!("{OWN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
            ("HOME", home.to_owned()),
            ("HOSTNAME", fs::read_to_string(HOSTNAME).unwrap_or_default().trim_end().to_owned()),
            ("ENV", format!("{OWN}/prompt")),
            ("PERSONAL", self.shell().join(" ")),
        ]
    }
}
