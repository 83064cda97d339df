//! The root directory and the environment of the program.

use crate::{error::AgentError, world::MountedWorld};
use lab_protocol::{witness::WATCHER, world::WorldSpec};
use nix::mount::{MsFlags, mount};
use std::{
    fs::{self, Permissions},
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

/// Scripts of the lab, visible below every root.
const OWN: &str = "/run/lab";
/// A shell, or a command, in a node.
const ENTER: &str = "#!/bin/sh
[ -e \"/run/netns/$1\" ] || { echo \"usage: enter NODE [COMMAND]; nodes:\" $(ls /run/netns) >&2; exit 2; }
export NODE=$1
shift
[ $# -gt 0 ] || set -- $PERSONAL
exec nsenter --net=\"/run/netns/$NODE\" -- /bin/sh -c 'exec \"$@\"' sh \"$@\"
";
/// Read by every interactive shell.
const PROMPT: &str = "[ ! -f ~/.bashrc ] || . ~/.bashrc\nPS1='$HOSTNAME${NODE:+ [$NODE]} \\w # '\n";
/// Directories in which programs look for terminfo entries.
const TERMINALS: [&str; 3] = ["etc/terminfo", "lib/terminfo", "usr/share/terminfo"];
/// A terminal type that every program supports.
const USUAL_TERMINAL: &str = "xterm";

/// The root in which a program runs.
pub struct Environment {
    world: Option<MountedWorld>,
}

/// Mounts the file systems that the program needs.
///
/// # Errors
/// What can't be mounted or written.
pub fn prepare(spec: Option<&WorldSpec>) -> Result<Environment, AgentError> {
    place("devpts", "/dev/pts", "devpts", MsFlags::empty(), "mode=0620,ptmxmode=0666")?;
    let world = spec.map(|spec| MountedWorld::build(spec, false)).transpose()?;
    let own = world.as_ref().map_or_else(|| PathBuf::from(OWN), |world| world.path(OWN));
    fs::create_dir_all(&own).map_err(AgentError::file(&own))?;
    for (name, text) in [("enter", ENTER), ("prompt", PROMPT)] {
        let path = own.join(name);
        fs::write(&path, text)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .map_err(AgentError::file(&path))?;
    }
    if world.is_none() {
        // Another root has it mounted.
        match symlink("/init", WATCHER) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(AgentError::file(WATCHER)(error)),
            _ => {}
        }
    }
    Ok(Environment { world })
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
    /// Enters the root, between fork and exec.
    ///
    /// # Errors
    /// As [`MountedWorld::enter`].
    pub fn enter(&self) -> std::io::Result<()> {
        self.world.as_ref().map_or(Ok(()), MountedWorld::enter)
    }

    /// Whether the program has another root than the image.
    pub fn is_foreign(&self) -> bool {
        self.world.is_some()
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.world.as_ref().map_or_else(|| Path::new("/").join(inside), |world| world.path(inside))
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
        if knows_terminal(&self.path(""), kind) { kind } else { USUAL_TERMINAL }
    }

    /// The program's environment; it inherits nothing from the agent.
    pub fn variables(&self) -> [(&'static str, String); 5] {
        let home = if self.is_foreign() { "/root" } else { "/" };
        [
            ("PATH", format!("{OWN}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")),
            ("HOME", home.to_owned()),
            ("HOSTNAME", crate::world::hostname()),
            ("ENV", format!("{OWN}/prompt")),
            ("PERSONAL", self.shell().join(" ")),
        ]
    }
}

/// Whether a root has a terminal's terminfo entry.
fn knows_terminal(root: &Path, kind: &str) -> bool {
    let entry = |at: &str| Some(root.join(at).join(kind.get(..1)?).join(kind));
    !kind.contains('/') && TERMINALS.iter().filter_map(|at| entry(at)).any(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_persons_terminal_is_known_wherever_a_distribution_keeps_its_entry() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        // Debian has the usual ones in /lib, the others in /usr/share, and the administrator's own in /etc.
        for (place, kind) in
            [("lib/terminfo", "linux"), ("usr/share/terminfo", "xterm-kitty"), ("etc/terminfo", "mine")]
        {
            assert!(!knows_terminal(root, kind), "{kind}");
            let letter = root.join(place).join(&kind[..1]);
            fs::create_dir_all(&letter).unwrap();
            fs::write(letter.join(kind), "").unwrap();
            assert!(knows_terminal(root, kind), "{kind}");
        }
        fs::write(root.join("outside"), "").unwrap();
        for wrong in ["", "linux2", "../../../outside", "l/linux"] {
            assert!(!knows_terminal(root, wrong), "{wrong}");
        }
    }
}
