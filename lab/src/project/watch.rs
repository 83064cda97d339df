//! Sources that change while somebody works on them, and what that did to the cells.

use super::{agent_package::AgentPackage, artifacts::ArtifactError, sources};
use crate::error::Error;
use lab_base::interrupt::Interrupt;
use lab_record::run::RunRecord;
use lab_report::compare::{Kind, compare};
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

/// Ends of files that are built in.
const KINDS: [&str; 3] = ["rs", "toml", "md"];
/// Saving a file is several events, and an editor saves several files.
const QUIET: Duration = Duration::from_millis(200);
/// How often a wait looks for Ctrl-C.
const POLL: Duration = Duration::from_millis(50);
/// Names of each kind of change that are told.
const TOLD: usize = 3;

/// The watched sources of a project.
pub struct Sources {
    root: PathBuf,
    events: Receiver<notify::Result<Event>>,
    _watcher: RecommendedWatcher,
}

impl Sources {
    /// Watches from now on.
    ///
    /// # Errors
    /// The system watches no more files (`fs.inotify.max_user_watches`), or one of the directories is gone.
    pub fn watch(root: &Path) -> Result<Self, Error> {
        let (sender, events) = mpsc::channel();
        let failed = |error: notify::Error| Error::Host(format!("can't watch {}: {error}", root.display()));
        let mut watcher = notify::recommended_watcher(sender).map_err(failed)?;
        let package = AgentPackage::load(root).map_err(ArtifactError::from)?.directory;
        for directory in sources::all().map(|source| root.join(source)).chain(package) {
            // Not the whole directory: what is built lies beside.
            watcher.watch(&directory, RecursiveMode::NonRecursive).map_err(failed)?;
            watcher.watch(&directory.join("src"), RecursiveMode::Recursive).map_err(failed)?;
        }
        Ok(Self { root: root.to_owned(), events, _watcher: watcher })
    }

    /// Waits for a change and for quiet after it; gives the files, below the project. `None` on a signal.
    pub fn changed(&self, interrupt: &Interrupt) -> Option<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        while interrupt.signal().is_none() {
            match self.events.recv_timeout(if files.is_empty() { POLL } else { QUIET }) {
                Ok(Ok(event)) => files.extend(self.sources(&event)),
                // A watch that went wrong may have missed something.
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
                // A build reads everything: only the end of writing counts.
                | EventKind::Access(AccessKind::Close(AccessMode::Write))
        );
        let paths = event.paths.iter().filter(|path| written && is_source(path));
        paths.map(|path| path.strip_prefix(&self.root).unwrap_or(path).to_owned()).collect()
    }
}

/// Whether a file is built in; what editors put beside it is not.
fn is_source(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with(['.', '#']));
    !hidden && path.extension().is_some_and(|end| KINDS.iter().any(|kind| end == *kind))
}

/// What changed from one round to the next, on one line.
pub fn difference(before: &RunRecord, after: &RunRecord) -> String {
    let comparison = compare(before, after);
    let mut parts = Vec::new();
    for kind in Kind::ALL {
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
    fn only_sources_that_were_written_count_and_several_are_one_change() {
        let dir = project();
        let at = |path: &str| dir.path().join(path);
        fs::write(at("crates/bpf/src/lib.rs"), "old").unwrap();
        fs::create_dir_all(at("ebpf/target/debug")).unwrap();
        let sources = Sources::watch(dir.path()).unwrap();
        let write = || {
            // Read, beside the sources, an editor's own, and built.
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
        // A directory that came later is watched too.
        fs::write(at("crates/suite/src/areas/new.rs"), "new").unwrap();
        assert_eq!(sources.changed(&Interrupt::default()).unwrap().len(), 1);
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let dir = project();
        let sources = Sources::watch(dir.path()).unwrap();
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
        let error = Sources::watch(dir.path()).err().unwrap().to_string();
        assert!(error.starts_with("can't watch "), "{error}");
    }
}
