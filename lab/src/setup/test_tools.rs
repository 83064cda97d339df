//! Programs that only the project's own tests need: programs with which CI systems read the lab's reports, and
//! Node.js, which runs some of them. They are in one directory of the cache, whose name has a hash of all pinned
//! versions, so that other versions have another directory and an incomplete one is never used.

use lab_base::hex::hex;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use duct::cmd;
use sha2::{Digest, Sha256};

use super::{
    error::SetupError,
    tools::{Tools, run_logged},
};

/// Packages that pip installs.
const REQUIREMENTS: &str = include_str!("../../tests/consumers/requirements.txt");
/// Packages that npm installs.
const PACKAGE: &str = include_str!("../../tests/consumers/package.json");
/// The exact versions and checksums of the npm packages.
const PACKAGE_LOCK: &str = include_str!("../../tests/consumers/package-lock.json");
/// Start of the directory's name. Other checkouts may use other versions, so several directories may exist.
const PREFIX: &str = "consumers-";
/// Written last: a directory without it is incomplete.
const COMPLETE: &str = "complete";

/// An installed set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestTools {
    dir: PathBuf,
}

impl TestTools {
    /// The Python interpreter with the pinned packages.
    pub fn python(&self) -> PathBuf {
        self.dir.join("venv/bin/python3")
    }

    /// The pinned Node.js.
    pub fn node(&self) -> PathBuf {
        self.dir.join("venv/bin/node")
    }

    /// The directory of the pinned JavaScript packages.
    pub fn node_modules(&self) -> PathBuf {
        self.dir.join("node_modules")
    }
}

fn name() -> String {
    let mut hash = Sha256::new();
    [REQUIREMENTS, PACKAGE, PACKAGE_LOCK].iter().for_each(|text| hash.update(text));
    let digits = hex(&hash.finalize()[..6]);
    format!("{PREFIX}{digits}")
}

impl Tools {
    /// The pinned set, if complete.
    pub fn test_tools(&self) -> Option<TestTools> {
        let tools = TestTools { dir: self.dir().join(name()) };
        (tools.dir.join(COMPLETE).exists() && tools.python().exists() && tools.node().exists()).then_some(tools)
    }

    /// Installs the pinned set with the user's pip and npm configuration, and removes leftovers of interrupted setups.
    ///
    /// The scripts of a virtual environment contain its absolute path, so it is created at its final path.
    pub(super) fn install_test_tools(&self, log: &Path) -> Result<(), SetupError> {
        for entry in fs::read_dir(self.dir()).map_err(SetupError::io(self.dir()))?.flatten() {
            let name = entry.file_name();
            if name.to_string_lossy().starts_with(PREFIX) && !entry.path().join(COMPLETE).exists() {
                fs::remove_dir_all(entry.path()).map_err(SetupError::io(entry.path()))?;
            }
        }
        let tools = TestTools { dir: self.dir().join(name()) };
        fs::create_dir_all(&tools.dir).map_err(SetupError::io(&tools.dir))?;
        for (file, text) in
            [("requirements.txt", REQUIREMENTS), ("package.json", PACKAGE), ("package-lock.json", PACKAGE_LOCK)]
        {
            let path = tools.dir.join(file);
            fs::write(&path, text).map_err(SetupError::io(&path))?;
        }
        let venv = tools.dir.join("venv");
        self.make_environment(&venv, log)?;
        let options = [
            "-m",
            "pip",
            "install",
            "--no-input",
            "--disable-pip-version-check",
            "--no-deps",
            "-r",
            "requirements.txt",
        ];
        run_logged("pip install of the report readers", cmd(tools.python(), options).dir(&tools.dir), log)?;
        let mut path = OsString::from(venv.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let npm = cmd(venv.join("bin/npm"), ["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        run_logged("npm ci of the report readers", npm.dir(&tools.dir).env("PATH", path), log)?;
        let complete = tools.dir.join(COMPLETE);
        fs::write(&complete, "").map_err(SetupError::io(&complete))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_set_is_not_found() {
        let cache = tempfile::tempdir().unwrap();
        let tools = Tools::in_cache(cache.path());
        let bin = tools.dir().join(name()).join("venv/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::write(bin.join("python3"), "").unwrap();
        fs::write(bin.join("node"), "").unwrap();
        assert_eq!(tools.test_tools(), None);
        fs::write(tools.dir().join(name()).join(COMPLETE), "").unwrap();
        assert_eq!(tools.test_tools().unwrap().node(), bin.join("node"));
    }
}
