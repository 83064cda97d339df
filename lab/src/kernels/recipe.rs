//! How kernels are configured that the lab builds itself.

use super::{
    cache::hex,
    error::{KernelsError, Result},
};
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

/// What every build needs, under the person's own fragment.
pub(super) const BASE: &str = include_str!("base.config");

/// The text of a person's fragment; empty where there is none.
///
/// # Errors
/// It cannot be read.
pub(super) fn fragment(path: Option<&Path>) -> Result<String> {
    path.map_or(Ok(String::new()), |path| fs::read_to_string(path).map_err(KernelsError::io(path)))
}

/// What a build is known by: its sources and its configuration.
pub(super) fn identity(sources: &str, configuration: &str) -> String {
    let mut hasher = Sha256::new();
    for part in [sources, configuration] {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hex(hasher)
}
