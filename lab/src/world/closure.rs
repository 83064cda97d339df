//! `--root none`: a program with what it is linked against, and files that were named, and nothing else of the host.

use super::WorldError;
use lab_share::{FileSource, Look, Tree};
use lddtree::DependencyAnalyzer;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::Read,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Interpreters of interpreters, at most (`BINPRM_MAX_RECURSION` of the kernel is 5).
const DEPTH: usize = 5;
/// The loader's index of libraries: without it libraries outside of its own directories are not found.
const LOADER_INDEX: &str = "/etc/ld.so.cache";
/// ClosureFiles that programs expect to exist.
const FILES: [(&str, &str); 3] = [
    ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
    ("etc/group", "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];
/// Directories that programs expect to exist.
const DIRECTORIES: [(&str, u32); 4] = [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777), ("usr/bin", 0o755)];

/// What goes in: the place in the root, and the file on the host.
pub type ClosureFiles = BTreeMap<PathBuf, PathBuf>;

/// The program as the host finds it: by its path, or on the search path.
pub fn find(program: &OsStr, cwd: &Path, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return Some(cwd.join(program)).filter(|path| path.is_file());
    }
    let directories = std::env::split_paths(path.unwrap_or(OsStr::new("/bin:/usr/bin")));
    let mut places = directories.map(|directory| cwd.join(directory).join(program));
    places.find(|path| fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0))
}

/// Adds a file and what it needs to run: libraries, its loader, a script's interpreter.
///
/// # Errors
/// A library is missing, or a file can't be read.
pub fn add(files: &mut ClosureFiles, place: &Path, path: &Path) -> Result<(), WorldError> {
    let mut waiting = vec![(place.to_owned(), path.to_owned())];
    for _ in 0..DEPTH {
        let Some((place, path)) = waiting.pop() else { return Ok(()) };
        let mut start = [0; 256];
        let read = File::open(&path).and_then(|mut file| file.read(&mut start)).map_err(WorldError::io(&path))?;
        let start = &start[..read];
        if start.starts_with(b"\x7fELF") {
            add_libraries(files, &path)?;
        } else if let Some(interpreter) = interpreter(start) {
            waiting.push((interpreter.clone(), interpreter));
        }
        files.insert(place, path);
    }
    Ok(())
}

/// The interpreter of a script, if it is one.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| byte.is_ascii_whitespace()).find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(word)))
}

fn add_libraries(files: &mut ClosureFiles, program: &Path) -> Result<(), WorldError> {
    let missing = |what: String| WorldError::Closure { program: program.to_owned(), problem: what };
    let tree =
        DependencyAnalyzer::new(PathBuf::from("/")).analyze(program).map_err(|error| missing(error.to_string()))?;
    for library in tree.libraries.into_values() {
        let real = library.realpath.ok_or_else(|| missing(format!("{} is not on this host", library.name)))?;
        files.insert(library.path, real);
    }
    if let Some(loader) = tree.interpreter {
        files.insert(PathBuf::from(&loader), PathBuf::from(loader));
    }
    Ok(())
}

/// Puts the files into a tree, with the few that every program expects, and the working directory.
///
/// # Errors
/// A file can't be read.
pub fn plant(files: &ClosureFiles, cwd: &Path, tree: &mut Tree, at: &Path) -> Result<(), WorldError> {
    let root = tree.directory(Tree::ROOT, at, Look::root(0o755))?;
    for (path, mode) in DIRECTORIES {
        tree.directory(root, Path::new(path), Look::root(mode))?;
    }
    tree.directory(root, cwd, Look::root(0o755))?;
    for (path, text) in FILES {
        tree.file(root, Path::new(path), Look::root(0o644), FileSource::Bytes(text.as_bytes().into()))?;
    }
    let index = Path::new(LOADER_INDEX);
    let own = index.is_file().then(|| (index.to_owned(), index.to_owned()));
    for (place, path) in files.iter().map(|(place, path)| (place.clone(), path.clone())).chain(own) {
        let file = File::open(&path).map_err(WorldError::io(&path))?;
        let found = file.metadata().map_err(WorldError::io(&path))?;
        let look = Look { mode: found.permissions().mode(), ..Look::root(0) };
        let source = FileSource::Piece { file: Arc::new(file), offset: 0, length: found.len() };
        tree.file(root, &place, look, source)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_comes_with_its_interpreter_and_its_libraries() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("run");
        fs::write(&script, "#! /bin/sh -e\ntrue\n").unwrap();
        let mut files = ClosureFiles::new();
        add(&mut files, &script, &script).unwrap();
        let places: Vec<_> = files.keys().map(|path| path.display().to_string()).collect();
        for wanted in ["/bin/sh", "libc.so.6", "ld-linux-x86-64.so.2", "/run"] {
            assert!(places.iter().any(|place| place.ends_with(wanted)), "{wanted}: {places:?}");
        }
        let mut tree = Tree::new();
        plant(&files, dir.path(), &mut tree, Path::new("root")).unwrap();
        assert!(tree.find(0, &Path::new("root").join(script.strip_prefix("/").unwrap())).is_some());
        assert!(
            tree.find(0, Path::new("root/etc/passwd")).is_some()
                && tree.find(0, Path::new("root/etc/shadow")).is_none()
        );
        assert!(add(&mut files, Path::new("/x"), Path::new("/nonexistent")).is_err());
    }

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let path = OsStr::new("/nonexistent:/bin");
        assert_eq!(find(OsStr::new("sh"), Path::new("/"), Some(path)), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find(OsStr::new("bin/sh"), Path::new("/"), None), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find(OsStr::new("no-such-program"), Path::new("/"), Some(path)), None);
    }
}
