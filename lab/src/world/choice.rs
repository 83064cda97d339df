//! Which root a program gets.

use super::{WorldError, directory};
use lab_share::Tree;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    str::FromStr,
};

/// Directories of which a root has at least one: where programs are.
const PROGRAMS: [&str; 4] = ["bin", "usr/bin", "sbin", "nix/store"];

/// Which root a program gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RootChoice {
    /// The host's.
    #[default]
    Host,
    /// A directory.
    Dir(PathBuf),
}

impl FromStr for RootChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "host" => Self::Host,
            path => Self::Dir(PathBuf::from(path)),
        })
    }
}

impl RootChoice {
    /// Refuses what is no root.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        match self {
            Self::Host => Ok(()),
            Self::Dir(path) => {
                let path = directory(path)?;
                if PROGRAMS.iter().any(|dir| path.join(dir).symlink_metadata().is_ok()) {
                    return Ok(());
                }
                Err(WorldError::NotARoot { path, missing: "neither bin, usr/bin, sbin nor nix/store" })
            }
        }
    }

    /// Puts the root into a tree.
    pub(super) fn plant(&self, tree: &mut Tree, at: &Path) -> Result<(), WorldError> {
        let dir = match self {
            Self::Host => Path::new("/"),
            Self::Dir(path) => path,
        };
        tree.host(Tree::ROOT, at, dir, None)?;
        Ok(())
    }
}
