//! Programs of this host.

use std::path::PathBuf;

/// A program on `PATH`.
pub(super) fn in_path(name: &str) -> Option<PathBuf> {
    which::which(name).ok()
}
