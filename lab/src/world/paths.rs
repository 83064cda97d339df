//! Paths of the host that are served.

use super::WorldError;
use std::path::{Path, PathBuf};

/// A directory of the host by its real path.
///
/// # Errors
/// It does not exist, or is something else.
pub fn directory(dir: &Path) -> Result<PathBuf, WorldError> {
    let path = dir.canonicalize().map_err(WorldError::io(dir))?;
    if path.is_dir() { Ok(path) } else { Err(WorldError::NotADirectory { path }) }
}
