//! Errors of building an image.

use crate::deps::DepError;
use std::{io, path::PathBuf};

/// Each error is one line, with the fix if there is one.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A file or directory could not be read or written.
    #[error("{what} {}: {cause}", path.display())]
    Io {
        /// Kind of the file.
        what: &'static str,
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The agent can't run in the guest. Without this check the kernel would only report "error -2".
    #[error("agent {}: {problem}; build it with `-C target-feature=+crt-static`", path.display())]
    Agent {
        path: PathBuf,
        /// The reason.
        problem: String,
    },
    /// A guest without programs can't attach any.
    #[error("no eBPF object was built; build them first")]
    NoObjects,
    /// `modules.dep` or `modules.builtin` is broken.
    #[error("{}: {problem}; run `depmod` again or fetch the kernel again", path.display())]
    Index { path: PathBuf, problem: DepError },
    /// A module that `modules.dep` lists can't be decompressed.
    #[error("module {}: {problem}; fetch the kernel again", path.display())]
    Module { path: PathBuf, problem: String },
    /// An image with a shell needs busybox.
    #[error("no static busybox: {problem}; `lab setup` installs busybox-static")]
    NoShell {
        /// The reason.
        problem: String,
    },
    /// The libraries of a tool can't be determined.
    #[error("tool {}: {problem}; reinstall it", path.display())]
    Tool { path: PathBuf, problem: String },
    /// `modules.toml` is invalid.
    #[error("modules.toml: {0}")]
    Wanted(String),
}

impl ImageError {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::Io { what, path, cause }
    }
}
