//! Errors of reading and writing runs.

use lab_base::{file::FileError, strict_toml::ConfigError};
use lab_record::log::LogError;

/// Each error is one line.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file can't be read, written or removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The events of a run can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// `lab.toml` is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
