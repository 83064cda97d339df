//! Selects the cargo package from which the agent is built: this project's `guest-agent`, or the package named in
//! `lab.toml`.

use lab_base::{
    strict_toml::{ConfigError, Origin},
    text,
};
use lab_report::results::{SettingsError, setting};
use std::{
    io,
    path::{Path, PathBuf},
};
use toml_edit::Document;

/// The default package.
const DEFAULT: &str = "guest-agent";

/// A cargo package with a binary of the same name, whose `main` calls `guest_agent::main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentPackage {
    pub name: String,
    /// Its directory, if it is not a member of the project's workspace.
    pub directory: Option<PathBuf>,
}

/// The agent's package in `lab.toml` is invalid.
#[derive(Debug, thiserror::Error)]
pub enum AgentPackageError {
    /// `lab.toml` has an unknown key or an invalid value.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The manifest is no TOML.
    #[error(transparent)]
    Manifest(#[from] ConfigError),
    /// The manifest can't be read.
    #[error("can't read {}: {cause}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        cause: io::Error,
    },
    /// The manifest has no `package.name`.
    #[error(
        "{} has no `package.name`: `agent.package` in lab.toml must be the directory of a package",
        shown(manifest)
    )]
    NoPackage { manifest: PathBuf },
}

impl AgentPackage {
    /// Reads `[agent]` of a project's `lab.toml`.
    ///
    /// # Errors
    /// The file or the package's manifest can't be read, or has an unknown key or an invalid value.
    pub fn load(project: &Path) -> Result<Self, AgentPackageError> {
        let named = setting(project, "agent", &["package"], |agent| {
            agent.map(|agent| agent.required("package").map(|package| project.join(package))).transpose()
        })?;
        match named {
            None => Ok(Self { name: DEFAULT.to_owned(), directory: None }),
            Some(directory) => {
                Ok(Self { name: package_name(&directory.join("Cargo.toml"))?, directory: Some(directory) })
            }
        }
    }
}

/// A path of which a part comes from `lab.toml`, as it can be printed.
fn shown(path: &Path) -> String {
    text::line(&path.display().to_string(), 4096)
}

fn package_name(manifest: &Path) -> Result<String, AgentPackageError> {
    let text = lab_guard::bounded::text(manifest)
        .map_err(|cause| AgentPackageError::Read { path: manifest.to_owned(), cause })?;
    let file = shown(manifest);
    let origin = Origin { file: &file, text: &text };
    let document = Document::parse(&*text).map_err(|error| origin.syntax(&error))?;
    let name = document.get("package").and_then(|package| package.get("name")).and_then(|name| name.as_str());
    name.map(str::to_owned).ok_or_else(|| AgentPackageError::NoPackage { manifest: manifest.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_report::results::LAB_TOML;
    use std::fs;

    fn load(settings: &str) -> Result<AgentPackage, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LAB_TOML), settings).unwrap();
        fs::create_dir(dir.path().join("mine")).unwrap();
        fs::write(dir.path().join("mine/Cargo.toml"), "[package]\nname = \"my-agent\"\n").unwrap();
        fs::create_dir(dir.path().join("virtual")).unwrap();
        fs::write(dir.path().join("virtual/Cargo.toml"), "[workspace]\n").unwrap();
        AgentPackage::load(dir.path()).map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn a_project_uses_its_own_agent_or_the_named_package() {
        let own = load("[results]\nkeep = 3\n").unwrap();
        assert_eq!((&*own.name, own.directory), ("guest-agent", None));
        let mine = load("[agent]\npackage = \"mine\"\n").unwrap();
        assert_eq!(mine.name, "my-agent");
        assert!(mine.directory.unwrap().ends_with("mine"));
        assert_eq!(AgentPackage::load(Path::new("/nonexistent")).unwrap().name, "guest-agent");
    }

    #[test]
    fn an_error_about_a_setting_names_file_line_and_key() {
        for (settings, wanted) in [
            ("[agent]\npackge = \"mine\"\n", "/lab.toml:2: unknown key `packge` in [agent]; did you mean `package`?"),
            ("[agent]\npackage = 3\n", "/lab.toml:2: `package` in [agent] must be a text that is not empty"),
            ("[agent]\n", "/lab.toml:1: [agent] has no `package`"),
            ("[agent]\npackage = \"none\"\n", "can't read /none/Cargo.toml: No such file or directory (os error 2)"),
            ("[agent]\npackage = \"a\\tb\"\n", "can't read /a\\tb/Cargo.toml: No such file or directory (os error 2)"),
            (
                "[agent]\npackage = \"virtual\"\n",
                "/virtual/Cargo.toml has no `package.name`: `agent.package` in lab.toml must be the directory of a package",
            ),
        ] {
            assert_eq!(load(settings).unwrap_err(), wanted);
        }
    }
}
