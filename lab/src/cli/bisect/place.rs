//! The directory of a search.

use super::{
    Question,
    args::{BisectArgs, BisectFormat, BuildArgs},
    selftest::AskedSelftest,
};
use crate::{
    bisect::{
        report::{BisectReport, Name},
        state::SearchState,
    },
    error::Error,
    project::{Project, artifacts::Artifacts},
};
use lab_base::{hex::hex, say::show};
use lab_report::results::directory;
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

/// Locks a directory against other `lab` processes until the value is dropped.
pub(super) fn exclusive(directory: &Path, at_what: &str) -> Result<File, Error> {
    let path = directory.join("lock");
    let lock = File::options().create(true).append(true).open(&path).map_err(Error::file("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::Host(format!(
            "another lab process {at_what} in {}: wait until it has finished",
            directory.display()
        ))),
        Err(TryLockError::Error(error)) => Err(Error::file("lock", path)(error)),
    }
}

/// A search's directory, which is the same for the same question.
pub(super) struct SearchDirectory {
    pub directory: PathBuf,
    _lock: File,
}

impl SearchDirectory {
    /// The directory's name is a hash of the question, all points, everything that their kernels depend on
    /// (`kernels`), and the programs and lists that decide the results.
    pub fn open(
        project: &Project,
        args: &BisectArgs,
        question: &Question,
        names: &[Name],
        kernels: &str,
    ) -> Result<Self, Error> {
        let mut hasher = Sha256::new();
        hasher.update(question.predicate.to_string());
        hasher.update(kernels);
        hasher.update(question.checked.as_ref().map(|checked| checked.digest.clone()).unwrap_or_default());
        hasher.update(question.selftest.as_ref().map(AskedSelftest::words).unwrap_or_default());
        for name in names {
            hasher.update(format!("\0{}\0{}", name.exact, name.long));
        }
        let Artifacts { agent, objects } = &question.selected.artifacts;
        for built in [agent].into_iter().chain(objects.values()) {
            hasher.update(Sha256::digest(built.bytes().map_err(Error::file("read", built.path()))?));
        }
        for file in judges(project)? {
            hasher.update(fs::read(&file).map_err(Error::file("read", &file))?);
        }
        add_build(&mut hasher, &args.build)?;
        let key = hex(&hasher.finalize()[..6]);
        let results = args.out.clone().unwrap_or_else(|| project.root.join("results"));
        let directory = results.join("bisect").join(key);
        fs::create_dir_all(directory.join("runs")).map_err(Error::file("create", &directory))?;
        let lock = exclusive(&directory, "searches for the same question")?;
        if args.fresh {
            SearchState::forget(&directory)?;
        }
        Ok(Self { directory, _lock: lock })
    }

    /// Writes the report in every format, with the kernels' configuration beside it, and shows one of them.
    pub fn keep(&self, report: &BisectReport, config: Option<&Path>, format: BisectFormat) -> Result<(), Error> {
        let json = report.json().map_err(|error| Error::Host(error.to_string()))?;
        let texts = [
            (BisectFormat::Text, "report.txt", report.mail()),
            (BisectFormat::Markdown, "report.md", report.markdown()),
            (BisectFormat::Json, "report.json", json + "\n"),
        ];
        for (_, name, text) in &texts {
            directory::replace(&self.directory.join(name), text.as_bytes())?;
        }
        if let Some(config) = config {
            let bytes = fs::read(config).map_err(Error::file("read", config))?;
            directory::replace(&self.directory.join("config"), &bytes)?;
        }
        if let Some(log) = &report.log {
            directory::replace(&self.directory.join("bisect.log"), log.as_bytes())?;
        }
        for (which, _, text) in &texts {
            if *which == format {
                show(text)?;
            }
        }
        Ok(())
    }
}

/// How commits are built, with the content of the files that say it.
fn add_build(hasher: &mut Sha256, build: &BuildArgs) -> Result<(), Error> {
    hasher.update(format!("{:?}", (&build.config, &build.fragment, &build.build_command)));
    for file in build.config.iter().chain(&build.fragment) {
        hasher.update(fs::read(file).map_err(Error::file("read", file))?);
    }
    Ok(())
}

/// The files that the verdicts depend on: this program, which also makes the image, and the lists.
fn judges(project: &Project) -> Result<Vec<PathBuf>, Error> {
    let lab = std::env::current_exe().map_err(Error::file("find", "this program"))?;
    let lists = ["splats.toml", "known.toml"].map(|name| project.root.join(name)).into_iter().filter(|it| it.is_file());
    Ok([lab].into_iter().chain(lists).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_are_built_in_another_way_are_another_search() {
        let dir = tempfile::tempdir().unwrap();
        let [config, one, other] = ["config", "one", "other"].map(|name| dir.path().join(name));
        for file in [&config, &one, &other] {
            fs::write(file, "CONFIG_X=y\n").unwrap();
        }
        let of = |config: Option<&PathBuf>, fragment: &[&PathBuf], command: Option<&str>| {
            let build = BuildArgs {
                config: config.cloned(),
                fragment: fragment.iter().map(|&file| file.clone()).collect(),
                build_command: command.map(str::to_owned),
                jobs: None,
            };
            let mut hasher = Sha256::new();
            add_build(&mut hasher, &build).unwrap();
            hex(&hasher.finalize())
        };
        let all = || of(Some(&config), &[&one, &other], None);
        let mut keys = vec![of(None, &[], None), of(None, &[], Some("make")), of(None, &[&one], None), all()];
        for file in [&config, &one, &other] {
            fs::write(file, "CONFIG_X=m\n").unwrap();
            keys.push(all());
        }
        assert_eq!(all(), keys[keys.len() - 1], "the same build is the same search");
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count);
    }
}
