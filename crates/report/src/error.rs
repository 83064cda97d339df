//! What can go wrong with the directory of runs.

use lab_base::{file::FileError, strict_toml::ConfigError};
use lab_record::log::LogError;

/// One clear line each.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file can't be read, written or removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The events of a run.
    #[error(transparent)]
    Log(#[from] LogError),
    /// `lab.toml` does not say what it must.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
