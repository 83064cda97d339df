//! Why an image could not be built.

use crate::deps::DepError;
use std::{io, path::PathBuf};

/// One line each, with the mend where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or directory could not be read or written.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What it is.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The guest has no dynamic loader, and no kernel says more than "error -2" about it.
    #[error("agent {}: {problem}; build it with `-C target-feature=+crt-static`", path.display())]
    Agent {
        /// The file.
        path: PathBuf,
        /// What it is instead of a static program.
        problem: String,
    },
    /// A guest without programs can't attach any.
    #[error("no eBPF object was built; build them first")]
    NoObjects,
    /// `modules.dep` or `modules.builtin` is broken.
    #[error("{}: {problem}; run `depmod` again or fetch the kernel anew", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: DepError,
    },
    /// A module that `modules.dep` lists can't be unpacked.
    #[error("module {}: {problem}; fetch the kernel anew", path.display())]
    Module {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An image that a person enters needs a shell.
    #[error("no static busybox: {problem}; `lab setup` installs busybox-static")]
    NoShell {
        /// What there is instead.
        problem: String,
    },
    /// A tool's libraries can't be told.
    #[error("tool {}: {problem}; reinstall it", path.display())]
    Tool {
        /// The program.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// `modules.toml` is broken.
    #[error("modules.toml: {0}")]
    Wanted(String),
}

impl ImageError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
