//! Why a world can't be made.

use lab_share::TreeError;
use std::{
    io,
    path::{Path, PathBuf},
};

/// Why a world can't be made: one line, with the fix if there is one.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A file or directory can't be used.
    #[error("{}: {error}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// It is something else.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// The path.
        path: PathBuf,
    },
    /// A directory that can't be shared for writing.
    #[error("{} can't be shared for writing: name a directory below it", path.display())]
    NotShared {
        /// The directory.
        path: PathBuf,
    },
    /// A path that every guest has of its own.
    #[error("{} does not exist in a guest, which has its own /dev, /proc and /sys: use another directory", path.display())]
    GuestsOwn {
        /// The path.
        path: PathBuf,
    },
    /// A file that is not a kernel module.
    #[error("{} is not a kernel module (an ELF file NAME.ko)", path.display())]
    NotAModule {
        /// The file.
        path: PathBuf,
    },
    /// A root without what makes it one.
    #[error("{} is no root: it has neither bin, usr/bin, sbin, usr/sbin nor nix/store", path.display())]
    NotARoot {
        /// The directory or archive.
        path: PathBuf,
    },
    /// An archive or an image can't be used.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An image of a container can't be used.
    #[error(transparent)]
    Image(lab_kernel_store::KernelsError),
    /// What a program is linked against is incomplete.
    #[error("{} can't be taken along: {problem}", program.display())]
    Closure {
        /// The program.
        program: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Single files for a root that has them all.
    #[error("--file adds files to --root none; the host's root has them all")]
    FilesOfTheHost,
    /// A guest's network can't be connected.
    #[error("{} can't connect the guest: {problem}", passt.display())]
    Passt {
        /// The program.
        passt: PathBuf,
        /// What it says.
        problem: String,
    },
    /// Other users could change files that the lab trusts.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),
    /// A tree can't be put together.
    #[error(transparent)]
    Tree(TreeError),
}

impl WorldError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { path, error }
    }
}
