//! `lab.toml`, the lab's settings beside `kernels.toml`: each of its tables is read by whoever it is for.

use crate::error::ReportError;
use lab_base::{
    file::FileError,
    strict_toml::{ConfigError, Origin, Section},
};
use std::{fs, io::ErrorKind, path::Path};
use toml_edit::Document;

/// The file's name.
pub const LAB_TOML: &str = "lab.toml";
/// Its tables.
const TABLES: &[&str] = &["results", "agent", "cache"];

/// A setting can't be read.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// An unknown key or an invalid value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<SettingsError> for ReportError {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::Config(error) => error.into(),
            SettingsError::File(error) => error.into(),
        }
    }
}

/// Reads one table of a project's settings; `read` gets none where the file or the table is missing.
///
/// # Errors
/// The file can't be read, has an unknown table or key, or `read` refuses a value.
pub fn setting<T>(
    project: &Path,
    table: &str,
    keys: &[&str],
    read: impl FnOnce(Option<&Section<'_>>) -> Result<T, ConfigError>,
) -> Result<T, SettingsError> {
    let path = project.join(LAB_TOML);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(setting_in(&text, &path.display().to_string(), table, keys, read)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(read(None)?),
        Err(error) => Err(FileError::of("read", path)(error).into()),
    }
}

/// As [`setting`], from the file's text; `file` names it in errors.
///
/// # Errors
/// As there.
pub fn setting_in<T>(
    text: &str,
    file: &str,
    table: &str,
    keys: &[&str],
    read: impl FnOnce(Option<&Section<'_>>) -> Result<T, ConfigError>,
) -> Result<T, ConfigError> {
    let origin = Origin { file, text };
    let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
    let top = Section::open(origin, document.as_table(), None, "the file".into(), TABLES)?;
    read(top.section(table, format!("[{table}]"), keys)?.as_ref())
}
