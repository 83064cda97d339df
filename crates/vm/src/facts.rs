//! Facts about files that take longer to find out than a guest takes to restore: the checksum of a kernel, what a program says of
//! itself. Each is kept in the cache with the metadata of all files that it depends on, and counts as long as none of them has
//! changed and the host has not been rebooted, as with the memory of a snapshot.

use super::seal::{Stamp, boot_id};
use lab_base::file;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// The file in the cache.
const FILE: &str = "facts.json";
/// Facts that are kept; beyond it all are found out again.
const KEPT: usize = 256;
/// A file that changed this recently may change again without another time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// The facts of one cache.
#[derive(Debug, Clone)]
pub struct Facts {
    path: PathBuf,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptFacts {
    boot_id: String,
    facts: BTreeMap<String, Fact>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    /// Of the files, in their order.
    stamps: Vec<Stamp>,
    answer: String,
}

impl Facts {
    /// Those of the cache.
    pub fn below(cache: &Path) -> Self {
        Self { path: cache.join(FILE) }
    }

    /// The answer to the question `what`, which depends on these files alone: the one that was kept, or that of `ask`. An error is
    /// never kept.
    ///
    /// # Errors
    /// Those of `ask`.
    pub fn of_files<E>(
        &self,
        what: &str,
        files: &[&Path],
        ask: impl FnOnce() -> Result<String, E>,
    ) -> Result<String, E> {
        let stamps = || files.iter().map(|path| Stamp::of(path).ok()).collect::<Option<Vec<_>>>();
        let names: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
        let key = format!("{what}: {}", names.join(", "));
        let before = stamps();
        let boot = boot_id().unwrap_or_default();
        if let Some(before) = &before
            && let Some(fact) = self.read(&boot).facts.remove(&key)
            && fact.stamps == *before
        {
            return Ok(fact.answer);
        }
        let answer = ask()?;
        if let Some(stamps) = stamps().filter(|after| before.as_ref() == Some(after) && are_settled(after)) {
            self.keep(boot, key, Fact { stamps, answer: answer.clone() });
        }
        Ok(answer)
    }

    /// A file that can't be read, and one of another boot, hold nothing.
    fn read(&self, boot: &str) -> KeptFacts {
        let kept: Option<KeptFacts> = fs::read(&self.path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let valid = kept.filter(|kept| !boot.is_empty() && kept.boot_id == boot);
        valid.unwrap_or_else(|| KeptFacts { boot_id: boot.to_owned(), ..KeptFacts::default() })
    }

    /// Errors are ignored: what can't be kept is found out again. So is a fact that another lab keeps at the same moment.
    fn keep(&self, boot: String, key: String, fact: Fact) {
        if boot.is_empty() {
            return;
        }
        let mut kept = self.read(&boot);
        if kept.facts.len() >= KEPT {
            kept.facts.clear();
        }
        kept.facts.insert(key, fact);
        if let Ok(bytes) = serde_json::to_vec(&kept) {
            let _ = file::replace(&self.path, &bytes);
        }
    }
}

fn are_settled(stamps: &[Stamp]) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    stamps.iter().all(|stamp| stamp.changed_at() + SETTLED <= now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, convert::Infallible, fs::File};

    struct Asked<'a> {
        facts: &'a Facts,
        times: Cell<u32>,
    }

    impl Asked<'_> {
        fn ask(&self, what: &str, files: &[&Path]) -> u32 {
            let ask = || {
                self.times.set(self.times.get() + 1);
                Ok::<_, Infallible>(self.times.get().to_string())
            };
            self.facts.of_files(what, files, ask).unwrap().parse().unwrap()
        }
    }

    /// A file whose last change the kernel dates before [`SETTLED`]: only waiting makes one.
    fn settled(path: &Path, content: &[u8]) {
        fs::write(path, content).unwrap();
        std::thread::sleep(SETTLED + Duration::from_millis(50));
    }

    #[test]
    fn an_answer_counts_until_one_of_its_files_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&two, b"2").unwrap();
        settled(&one, b"1");
        let facts = Facts::below(dir.path());
        let asked = Asked { facts: &facts, times: Cell::new(0) };
        let files: [&Path; 2] = [&one, &two];
        assert_eq!((asked.ask("x", &files), asked.ask("x", &files)), (1, 1), "kept");
        assert_eq!(asked.ask("y", &files), 2, "another question");
        assert_eq!(asked.ask("x", &[&one]), 3, "other files");
        // The same length and the same time of modification.
        let modified = fs::metadata(&two).unwrap().modified().unwrap();
        fs::write(&two, b"3").unwrap();
        File::options().write(true).open(&two).unwrap().set_modified(modified).unwrap();
        assert_eq!((asked.ask("x", &files), asked.ask("x", &files)), (4, 5), "changed, and just now: not kept");
        fs::remove_file(&two).unwrap();
        assert_eq!((asked.ask("x", &files), asked.ask("x", &files)), (6, 7), "a file that is not there");
        assert_eq!(asked.ask("x", &[&one]), 3, "the others are still kept");
        let told = fs::read_to_string(dir.path().join(FILE)).unwrap();
        let other = KeptFacts { boot_id: "other".to_owned(), ..serde_json::from_str(&told).unwrap() };
        fs::write(dir.path().join(FILE), serde_json::to_vec(&other).unwrap()).unwrap();
        assert_eq!(asked.ask("x", &[&one]), 8, "the host was rebooted");
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert_eq!(asked.ask("x", &[&one]), 9, "a file that is cut off");
    }

    #[test]
    fn an_error_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("one");
        settled(&one, b"1");
        let facts = Facts::below(dir.path());
        assert_eq!(facts.of_files("x", &[&one], || Err::<String, _>("no")), Err("no"));
        assert_eq!(facts.of_files("x", &[&one], || Ok::<_, &str>("yes".to_owned())), Ok("yes".to_owned()));
    }
}
