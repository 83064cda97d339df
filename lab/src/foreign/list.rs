//! The tests of a suite, listed on the host before a guest boots.

use super::SuiteKind;
use lab_base::text;
use lab_dialects::ListedTest;
use lab_protocol::Raw;
use std::{
    ffi::OsStr,
    fs,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Most bytes of a list.
const MAX_LIST: u64 = 16 << 20;

/// Why the tests of a suite are not known.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The command that lists them could not be started.
    #[error(
        "cannot list the tests: {command}: {error}; where it does not run on this host, give their names with --tests FILE"
    )]
    Start { command: String, error: std::io::Error },
    /// It failed.
    #[error(
        "cannot list the tests: {command} ended with {end}{said}; where it does not run on this host, give their names with --tests FILE"
    )]
    Failed { command: String, end: String, said: String },
    /// It printed no test.
    #[error("{0} lists no test")]
    Nothing(String),
    /// A file can't be read.
    #[error("cannot read {path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    /// A test of the kernel is not there.
    #[error("{0} is neither a test program nor a directory with kselftest-list.txt")]
    NoTest(String),
    /// A file of test_progs in a tree that the lab does not write to.
    #[error(
        "{0} is built in sources that the lab has unpacked: leave --tree out, or build test_progs in the tree and run it with `lab exec --suite test_progs`"
    )]
    OwnTree(String),
    /// A test or collection is in no tree.
    #[error("no selftest or collection is called `{word}`{hint}")]
    NoSelftest { word: String, hint: String },
}

/// Asks a suite for its tests.
pub(super) fn ask(kind: SuiteKind, argv: &[Raw], cwd: &Path) -> Result<Option<Vec<ListedTest>>, ListError> {
    let Some((words, listing)) = kind.listing(argv) else { return Ok(None) };
    let shown =
        text::line(&words.iter().map(|word| text::shell_quote(&word.shown())).collect::<Vec<_>>().join(" "), 300);
    let start = |error| ListError::Start { command: shown.clone(), error };
    let mut child = Command::new(OsStr::from_bytes(words[0].as_bytes()))
        .args(words[1..].iter().map(|word| OsStr::from_bytes(word.as_bytes())))
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(start)?;
    let errors = child.stderr.take();
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = errors.map(|errors| errors.take(MAX_LIST).read_to_end(&mut text));
        drop(read);
        text
    });
    let mut text = Vec::new();
    child.stdout.take().map(|out| out.take(MAX_LIST).read_to_end(&mut text)).transpose().map_err(start)?;
    let status = child.wait().map_err(start)?;
    let errors = errors.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    if !status.success() {
        let errors = String::from_utf8_lossy(&errors);
        let last = errors.lines().chain(text.lines()).rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let said = if last.is_empty() { String::new() } else { format!(": {}", text::line(last, 200)) };
        return Err(ListError::Failed { command: shown, end: status.to_string(), said });
    }
    let tests = listing.read(&text);
    if tests.is_empty() { Err(ListError::Nothing(shown)) } else { Ok(Some(tests)) }
}

/// The names in a file, one a line.
pub(super) fn named(path: &Path) -> Result<Vec<ListedTest>, ListError> {
    let text = fs::read_to_string(path).map_err(|error| ListError::File { path: path.to_owned(), error })?;
    let tests = lab_dialects::ListFormat::Plain.read(&text);
    if tests.is_empty() { Err(ListError::Nothing(path.display().to_string())) } else { Ok(tests) }
}

/// A test of the kernel.
#[derive(Debug, Clone)]
pub(super) struct Selftest {
    /// `net/forwarding/router.sh`.
    pub name: String,
    /// Its folder, by dots: `kselftest.net.forwarding`.
    pub area: String,
    pub directory: PathBuf,
    pub argv: Vec<Raw>,
    /// Seconds on a fast machine; `None` if it has no limit.
    pub timeout: Option<u64>,
}

/// Seconds that a selftest may take where its folder has no `settings` (kselftest/runner.sh: kselftest_default_timeout).
const USUAL_TIMEOUT: u64 = 45;

/// The selftests that words name: programs, or directories with `kselftest-list.txt`.
pub(super) fn selftests(words: &[Raw], cwd: &Path) -> Result<Vec<Selftest>, ListError> {
    let mut found = Vec::new();
    for word in words {
        let path = cwd.join(OsStr::from_bytes(word.as_bytes()));
        let list = path.join("kselftest-list.txt");
        if path.is_file() {
            found.push(selftest(&path)?);
        } else if list.is_file() {
            let text = fs::read_to_string(&list).map_err(|error| ListError::File { path: list.clone(), error })?;
            for test in lab_dialects::ListFormat::Kselftest.read(&text) {
                found.push(selftest(&path.join(test.name))?);
            }
        } else {
            return Err(ListError::NoTest(text::line(&word.shown(), 200)));
        }
    }
    Ok(found)
}

/// The test in a file.
pub(super) fn selftest(path: &Path) -> Result<Selftest, ListError> {
    let absent = || ListError::NoTest(path.display().to_string());
    let path = path.canonicalize().map_err(|_| absent())?;
    let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else { return Err(absent()) };
    // The folders below tools/testing/selftests, or below the directory with the list.
    let is_top = |it: &Path| it.ends_with("selftests") || it.join("kselftest-list.txt").is_file();
    let top = directory.ancestors().find(|it| is_top(it)).or_else(|| directory.parent()).unwrap_or(directory);
    let collection = directory.strip_prefix(top).unwrap_or(Path::new("")).to_string_lossy().into_owned();
    let mut head = String::new();
    let is_executable = {
        use std::os::unix::fs::PermissionsExt;
        let file = fs::File::open(&path).map_err(|error| ListError::File { path: path.clone(), error })?;
        let mode = file.metadata().map_or(0, |data| data.permissions().mode());
        // A binary has no first line that matters.
        let _ = file.take(256).read_to_string(&mut head);
        mode & 0o111 != 0
    };
    let interpreter = head.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim);
    let mut argv: Vec<Raw> = match interpreter {
        // As the selftests' own runner does it.
        Some(line) if !is_executable => line.split_whitespace().map(Raw::from).collect(),
        _ => Vec::new(),
    };
    argv.push(Raw::from(format!("./{}", file.to_string_lossy()).as_str()));
    let file = file.to_string_lossy();
    Ok(Selftest {
        name: if collection.is_empty() { file.into_owned() } else { format!("{collection}/{file}") },
        area: format!("kselftest.{}", collection.replace('/', ".")).trim_end_matches('.').to_owned(),
        directory: directory.to_owned(),
        argv,
        timeout: timeout(directory),
    })
}

/// The timeout of the tests of a folder, seconds on a fast machine.
pub(super) fn timeout(directory: &Path) -> Option<u64> {
    let settings = fs::read_to_string(directory.join("settings")).unwrap_or_default();
    let seconds = settings.lines().find_map(|line| line.trim().strip_prefix("timeout=")?.trim().parse().ok());
    Some(seconds.unwrap_or(USUAL_TIMEOUT)).filter(|seconds| *seconds > 0)
}
