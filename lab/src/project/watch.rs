//! Watches sources for changes, and formats the changes between two runs.

use super::{agent_package::AgentPackage, artifacts::ArtifactError, home::Home, sources};
use crate::error::Error;
use lab_base::interrupt::Interrupt;
use lab_record::run::RunRecord;
use lab_report::compare::{ChangeKind, compare};
use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use std::{
    collections::BTreeSet,
    fmt::Write,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    time::Duration,
};

/// Suffixes of files that are part of a build.
const KINDS: [&str; 3] = ["rs", "toml", "md"];
/// Time without events that ends a change: saving a file causes several events, and an editor may save several files.
const QUIET: Duration = Duration::from_millis(200);
/// Interval at which a wait checks for Ctrl-C.
const POLL: Duration = Duration::from_millis(50);
/// Maximum number of names for each kind of change.
const TOLD: usize = 3;

/// The watched sources of a project.
pub struct Sources {
    root: PathBuf,
    events: Receiver<notify::Result<Event>>,
    _watcher: RecommendedWatcher,
}

impl Sources {
    /// Starts to watch.
    ///
    /// # Errors
    /// The system can't watch more files (`fs.inotify.max_user_watches`), a directory does not exist, or nothing is built here.
    pub fn watch(project: &Path, home: &Home) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel();
        let package = AgentPackage::load(project).map_err(ArtifactError::from)?.directory;
        let (root, own) = match (home, &package) {
            (Home::Checkout(root), _) => (&**root, sources::all().map(|source| root.join(source)).collect()),
            (Home::Installed { .. }, Some(_)) => (project, Vec::new()),
            (Home::Installed { .. }, None) => {
                let why = "this lab is installed and builds nothing, so --watch has no sources to watch: use the lab of a checkout";
                return Err(Error::Usage(why.to_owned()));
            }
        };
        let failed = |error: notify::Error| Error::Host(format!("can't watch {}: {error}", root.display()));
        let mut watcher = notify::recommended_watcher(sender).map_err(failed)?;
        for directory in own.into_iter().chain(package) {
            // Not recursively: build output is in a subdirectory.
            watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(failed)?;
            watcher.watch(&directory.join("src"), RecursiveMode::Recursive).map_err(failed)?;
        }
        Ok(Self { root: root.to_owned(), events, _watcher: watcher })
    }

    /// Waits for a change and for the end of further events; returns the files, relative to the project. `None` on a
    /// signal.
    pub fn changed(&self, interrupt: &Interrupt) -> Option<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        while interrupt.signal().is_none() {
            match self.events.recv_timeout(if files.is_empty() { POLL } else { QUIET }) {
                Ok(Ok(event)) => files.extend(self.sources(&event)),
                // Events may have been lost after an error, so it counts as a change.
                Ok(Err(error)) => drop(files.insert(PathBuf::from(error.to_string()))),
                Err(RecvTimeoutError::Timeout) if files.is_empty() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Some(files),
            }
        }
        None
    }

    fn sources(&self, event: &Event) -> Vec<PathBuf> {
        let written = matches!(
            event.kind,
            EventKind::Create(_)
                | EventKind::Remove(_)
                | EventKind::Modify(_)
                // Builds open all files: only the end of a write counts.
                | EventKind::Access(AccessKind::Close(AccessMode::Write))
        );
        let paths = event.paths.iter().filter(|path| written && is_source(path));
        paths.map(|path| path.strip_prefix(&self.root).unwrap_or(path).to_owned()).collect()
    }
}

/// Whether a file is a source; temporary files of editors are not.
fn is_source(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '#']));
    !hidden && path.extension().is_some_and(|end| KINDS.iter().any(|kind| end == *kind))
}

/// The changes between two runs in one line.
pub fn difference(before: &RunRecord, after: &RunRecord) -> String {
    let comparison = compare(before, after);
    let mut parts = Vec::new();
    for kind in ChangeKind::ALL {
        let changes: Vec<_> = comparison.changes.iter().filter(|change| change.kind == kind).collect();
        if changes.is_empty() {
            continue;
        }
        let mut part = format!("{} {}", changes.len(), kind.words());
        let names = changes.iter().take(TOLD).map(|change| format!("{} on {}", change.cell, change.kernel));
        let _ = write!(part, " ({}", names.collect::<Vec<_>>().join(", "));
        part.push_str(if changes.len() > TOLD { ", …)" } else { ")" });
        parts.push(part);
    }
    let same = format!("{} as before", comparison.unchanged);
    parts.push(same);
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, thread, time::Instant};

    fn project() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for source in sources::all() {
            fs::create_dir_all(dir.path().join(source).join("src")).unwrap();
        }
        dir
    }

    #[test]
    fn only_written_sources_count_and_several_are_one_change() {
        let dir = project();
        let at = |path: &str| dir.path().join(path);
        fs::write(at("crates/bpf/src/lib.rs"), "old").unwrap();
        fs::create_dir_all(at("ebpf/target/debug")).unwrap();
        let sources = Sources::watch(dir.path(), &Home::Checkout(dir.path().to_owned())).unwrap();
        let write = || {
            // Read access, a file beside the sources, a temporary file of an editor, and build output.
            fs::read(at("crates/bpf/src/lib.rs")).unwrap();
            for noise in [
                "crates/bpf/src/.lib.rs.swp",
                "crates/bpf/src/lib.rs~",
                "ebpf/target/debug/x.rs",
                "crates/suite/notes.txt",
            ] {
                fs::write(at(noise), "noise").unwrap();
            }
            fs::write(at("crates/bpf/src/lib.rs"), "new").unwrap();
            fs::create_dir(at("crates/suite/src/areas")).unwrap();
            fs::write(at("crates/suite/catalogue.md"), "new").unwrap();
        };
        write();
        let changed = sources.changed(&Interrupt::default()).unwrap();
        assert_eq!(
            changed.iter().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(),
            ["crates/bpf/src/lib.rs", "crates/suite/catalogue.md"]
        );
        // New directories are watched too.
        fs::write(at("crates/suite/src/areas/new.rs"), "new").unwrap();
        assert_eq!(sources.changed(&Interrupt::default()).unwrap().len(), 1);
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let dir = project();
        let sources = Sources::watch(dir.path(), &Home::Checkout(dir.path().to_owned())).unwrap();
        let interrupt = Interrupt::default();
        let begin = Instant::now();
        thread::scope(|scope| {
            scope.spawn(|| interrupt.raise(2));
            assert_eq!(sources.changed(&interrupt), None);
        });
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_project_without_its_sources_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = Sources::watch(dir.path(), &Home::Checkout(dir.path().to_owned())).err().unwrap().to_string();
        assert!(error.starts_with("can't watch "), "{error}");
    }
}
