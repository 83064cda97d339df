//! Where the lab's own files are: what guests run, and the files that `lab init` starts a project with.
//!
//! One rule, by where the program lies. A lab that has `../lib/netkit-lab` beside its directory is installed: it uses the
//! files there and builds nothing. Any other lab was built in a checkout and builds what is stale: in the project, if that is
//! a checkout, and else in the checkout that the program lies in.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The guests' programs of an installed lab, from the directory that the program lies in.
const LIBRARY: &str = "../lib/netkit-lab";
/// The files that a project starts with, likewise.
const SHARE: &str = "../share/netkit-lab";
/// The agent's file in [`LIBRARY`]; each eBPF object is beside it.
pub const AGENT: &str = "guest-agent";
/// What a checkout has: the agent's sources, or an agent that was built.
const CHECKOUT: [&str; 2] = [AGENT, "target/guest"];

/// The place of the lab's own files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Home {
    /// An installation.
    Installed {
        /// The agent and the eBPF objects.
        library: PathBuf,
        /// What `lab init` writes.
        share: PathBuf,
    },
    /// A checkout with the sources.
    Checkout(PathBuf),
}

impl Home {
    /// The home of this program, for a project.
    pub fn of(project: &Path) -> Self {
        // The link's target: what is beside a link in PATH belongs to another program.
        Self::choose(program().and_then(|path| path.canonicalize().ok()).as_deref(), project)
    }

    /// Whether this program is installed.
    pub fn is_installed() -> bool {
        matches!(Self::of(Path::new("")), Self::Installed { .. })
    }

    fn choose(program: Option<&Path>, project: &Path) -> Self {
        let directory = program.and_then(Path::parent);
        if let Some(library) = directory.map(|it| it.join(LIBRARY)).filter(|it| it.join(AGENT).is_file()) {
            let plain = |path: PathBuf| path.canonicalize().unwrap_or(path);
            let share = directory.map(|it| it.join(SHARE)).unwrap_or_default();
            return Self::Installed { library: plain(library), share: plain(share) };
        }
        let is_checkout = |path: &&Path| CHECKOUT.iter().any(|name| path.join(name).is_dir());
        let above = || program.into_iter().flat_map(Path::ancestors).find(is_checkout);
        Self::Checkout(Some(project).filter(is_checkout).or_else(above).unwrap_or(project).to_owned())
    }

    /// The directory of the files that `lab init` writes.
    pub fn defaults(&self) -> &Path {
        match self {
            Self::Installed { share, .. } => share,
            Self::Checkout(root) => root,
        }
    }
}

/// This program's file; as it was called, in a root without /proc.
pub fn program() -> Option<PathBuf> {
    let called = || env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    env::current_exe().ok().or_else(called)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_place_of_the_program_decides() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |path: &str| root.join(path);
        for directory in [
            "usr/bin",
            "usr/lib/netkit-lab",
            "checkout/target/release",
            "checkout/guest-agent",
            "other/guest-agent",
            "mine",
        ] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        let home = |program: &str, project: &str| Home::choose(Some(&at(program)), &at(project));
        let built = "checkout/target/release/lab";
        assert_eq!(home(built, "mine"), Home::Checkout(at("checkout")), "a lab of a checkout in another project");
        assert_eq!(home(built, "other"), Home::Checkout(at("other")), "a checkout builds its own sources");
        assert_eq!(home("usr/bin/lab", "mine"), Home::Checkout(at("mine")), "nothing is installed there yet");
        fs::write(at("usr/lib/netkit-lab/guest-agent"), "").unwrap();
        let installed = Home::Installed { library: at("usr/lib/netkit-lab"), share: at("usr/bin/../share/netkit-lab") };
        assert_eq!(home("usr/bin/lab", "mine"), installed);
        assert_eq!(home("usr/bin/lab", "other"), installed, "an installed lab builds nothing, not even in a checkout");
    }
}
