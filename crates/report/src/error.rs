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

impl From<crate::results::SettingsError> for ReportError {
    fn from(error: crate::results::SettingsError) -> Self {
        match error {
            crate::results::SettingsError::Config(error) => error.into(),
            crate::results::SettingsError::File(error) => error.into(),
        }
    }
}
