//! Facts about files that take longer to find out than a guest takes to restore: the checksum of a kernel, what a program says of
//! itself. Each is kept in the cache with the metadata of all files that it depends on, and counts as long as none of them has
//! changed and the host has not been rebooted, as with the memory of a snapshot.

use crate::{file, hex::hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

/// The file in the cache.
const FILE: &str = "facts-2.json";
/// Directory in the cache for long answers, which most starts of the lab do not need.
const LONG_ONES: &str = "facts";
/// Bytes of an answer that has a file of its own.
const LONG: usize = 2048;
/// Facts that are kept; beyond it all are found out again.
const KEPT: usize = 256;
/// Files that are named one by one.
const FEW: usize = 4;
/// A file that changed this recently may change again without another time stamp.
const SETTLED: Duration = Duration::from_secs(2);

/// Metadata by which an unchanged file is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    pub length: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Time of the last change of content or metadata, since 1970.
    pub fn changed_at(&self) -> Duration {
        let (seconds, nanoseconds) = self.changed;
        Duration::new(seconds.try_into().unwrap_or_default(), nanoseconds.try_into().unwrap_or_default())
    }

    /// Reads the metadata of a file.
    pub fn of(path: &Path) -> io::Result<Self> {
        fs::metadata(path).map(|it| Self::new(&it))
    }

    /// Reads the metadata of an open file.
    pub fn of_file(file: &fs::File) -> io::Result<Self> {
        file.metadata().map(|it| Self::new(&it))
    }

    /// Whether these are of the same file and nobody wrote to it in between. A link to it may have been added: cargo does that
    /// when it finds nothing to build.
    pub fn is_same_content(&self, other: &Self) -> bool {
        (self.inode, self.length, self.modified) == (other.inode, other.length, other.modified)
    }

    fn new(it: &fs::Metadata) -> Self {
        Self {
            length: it.len(),
            inode: it.ino(),
            modified: (it.mtime(), it.mtime_nsec()),
            changed: (it.ctime(), it.ctime_nsec()),
        }
    }
}

/// Identifies a boot of the host: data that was written before a crash may be missing from the disk.
///
/// # Errors
/// `/proc` can't be read.
pub fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

/// The facts of one cache.
#[derive(Debug, Clone)]
pub struct Facts {
    path: PathBuf,
}

/// A file's path, its metadata and its content.
type Parsed = (PathBuf, Stamp, Arc<KeptFacts>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct KeptFacts {
    boot_id: String,
    facts: BTreeMap<String, Fact>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fact {
    /// SHA-256 of the files' metadata, in their order: there are dozens of some.
    stamps: String,
    /// The answer, or of a long one its SHA-256.
    answer: String,
    #[serde(default)]
    is_long: bool,
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
        let key = format!("{what}: {}", named(files));
        let before = stamps();
        let boot = boot_id().unwrap_or_default();
        if let Some(before) = &before
            && let Some(fact) = self.read(&boot).facts.get(&key)
            && fact.stamps == digest(before)
            && let Some(answer) = self.answer(&key, fact)
        {
            return Ok(answer);
        }
        let answer = ask()?;
        if let Some(stamps) = stamps().filter(|after| before.as_ref() == Some(after) && are_settled(after)) {
            self.keep(boot, key, &stamps, &answer);
        }
        Ok(answer)
    }

    /// A file that can't be read, and one of another boot, hold nothing.
    fn read(&self, boot: &str) -> Arc<KeptFacts> {
        let valid = self.parsed().filter(|kept| !boot.is_empty() && kept.boot_id == boot);
        valid.unwrap_or_else(|| Arc::new(KeptFacts { boot_id: boot.to_owned(), ..KeptFacts::default() }))
    }

    /// The file's content, parsed anew where another one is there: a start of the lab asks twenty questions. The file is only ever
    /// replaced, so that another content is another inode.
    fn parsed(&self) -> Option<Arc<KeptFacts>> {
        static PARSED: Mutex<Option<Parsed>> = Mutex::new(None);
        let stamp = Stamp::of(&self.path).ok()?;
        let mut parsed = PARSED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((path, of, facts)) = &*parsed
            && *path == self.path
            && *of == stamp
        {
            return Some(Arc::clone(facts));
        }
        let facts: Arc<KeptFacts> = Arc::new(serde_json::from_slice(&fs::read(&self.path).ok()?).ok()?);
        if Stamp::of(&self.path).is_ok_and(|after| after == stamp) {
            *parsed = Some((self.path.clone(), stamp, Arc::clone(&facts)));
        }
        Some(facts)
    }

    /// The answer of a fact; `None` if its file is not what was written.
    fn answer(&self, key: &str, fact: &Fact) -> Option<String> {
        if !fact.is_long {
            return Some(fact.answer.clone());
        }
        let answer = fs::read_to_string(self.long_one(key)).ok()?;
        (hex(&Sha256::digest(&answer)) == fact.answer).then_some(answer)
    }

    fn long_one(&self, key: &str) -> PathBuf {
        self.directory().join(hex(&Sha256::digest(key)))
    }

    fn directory(&self) -> PathBuf {
        self.path.with_file_name(LONG_ONES)
    }

    /// Errors are ignored: what can't be kept is found out again. So is a fact that another lab keeps at the same moment.
    fn keep(&self, boot: String, key: String, stamps: &[Stamp], answer: &str) {
        if boot.is_empty() {
            return;
        }
        let mut kept = KeptFacts::clone(&self.read(&boot));
        if kept.facts.len() >= KEPT {
            kept.facts.clear();
            let _ = fs::remove_dir_all(self.directory());
        }
        let is_long = answer.len() > LONG;
        if is_long {
            let at = self.long_one(&key);
            let written = fs::create_dir_all(self.directory()).and_then(|()| file::replace(&at, answer.as_bytes()));
            if written.is_err() {
                return;
            }
        }
        let answer = if is_long { hex(&Sha256::digest(answer)) } else { answer.to_owned() };
        kept.facts.insert(key, Fact { stamps: digest(stamps), answer, is_long });
        if let Ok(bytes) = serde_json::to_vec(&kept) {
            let _ = file::replace(&self.path, &bytes);
        }
    }
}

/// Few files by their paths, many by a digest of them.
fn named(files: &[&Path]) -> String {
    let names: Vec<_> = files.iter().map(|path| path.to_string_lossy()).collect();
    let names = names.join(", ");
    if files.len() <= FEW { names } else { format!("{} files, {}", files.len(), hex(&Sha256::digest(names))) }
}

fn digest(stamps: &[Stamp]) -> String {
    // Numbers only: this can't fail.
    hex(&Sha256::digest(serde_json::to_vec(stamps).unwrap_or_default()))
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
    fn an_answer_about_many_files_counts_until_one_of_them_changes() {
        let dir = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = (0..40).map(|number| dir.path().join(number.to_string())).collect();
        files.iter().for_each(|path| fs::write(path, b"1").unwrap());
        std::thread::sleep(SETTLED + Duration::from_millis(50));
        let facts = Facts::below(dir.path());
        let asked = Asked { facts: &facts, times: Cell::new(0) };
        let all: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
        assert_eq!((asked.ask("x", &all), asked.ask("x", &all)), (1, 1), "kept");
        assert_eq!(asked.ask("x", &all[1..]), 2, "other files");
        let kept = fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(kept.len() < 1000, "each start of the lab reads it: {kept}");
        fs::write(&files[20], b"2").unwrap();
        assert_eq!((asked.ask("x", &all), asked.ask("x", &all)), (3, 4), "changed, and just now: not kept");
    }

    #[test]
    fn a_long_answer_counts_as_long_as_its_file_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let one = dir.path().join("one");
        settled(&one, b"1");
        let facts = Facts::below(dir.path());
        let ask = |answer: &str| facts.of_files("x", &[&one], || Ok::<_, Infallible>(answer.repeat(LONG))).unwrap();
        assert_eq!((ask("ab"), ask("cd")), ("ab".repeat(LONG), "ab".repeat(LONG)), "kept");
        assert!(fs::metadata(dir.path().join(FILE)).unwrap().len() < 1000, "each start of the lab reads it");
        let long = fs::read_dir(dir.path().join(LONG_ONES)).unwrap().next().unwrap().unwrap().path();
        fs::write(&long, "ab").unwrap();
        assert_eq!(ask("ef"), "ef".repeat(LONG), "damaged");
        fs::remove_file(&long).unwrap();
        assert_eq!(ask("gh"), "gh".repeat(LONG), "gone");
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
