//! Files of test_progs, of the kernel's BPF selftests: each is a program that the lab builds for the kernel on which it runs.

use super::list::{ListError, Selftest, timeout};
use lab_kernel_store::{test_progs_dir, tests_of_file};
use lab_protocol::Raw;
use std::{fs, path::Path};

/// Their folder, and their collection.
const FOLDER: &str = "bpf/prog_tests/";
/// The collection to which they belong.
pub const COLLECTION: &str = "bpf";

/// The name of the program of such a test: `tc_netkit` of `bpf/prog_tests/tc_netkit.c`.
pub fn program(test: &str) -> Option<&str> {
    test.strip_prefix(FOLDER)?.strip_suffix(".c").filter(|name| !name.contains('/'))
}

/// The test that a word names without its folder: `bpf/tc_netkit`.
pub(super) fn of_word(word: &str, top: &Path) -> Option<String> {
    let name = word.strip_prefix(COLLECTION)?.strip_prefix('/')?.trim_start_matches("prog_tests/");
    let test = format!("{FOLDER}{}.c", name.trim_end_matches(".c"));
    (program(&test).is_some() && top.join(&test).is_file()).then_some(test)
}

/// What could have been meant by a word of this collection.
pub(super) fn words(word: &str, top: &Path) -> Vec<String> {
    if !word.starts_with(COLLECTION) {
        return Vec::new();
    }
    let entries = fs::read_dir(top.join(FOLDER)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(".c").map(|name| format!("{COLLECTION}/{name}"))).collect()
}

/// A test, and the tests of its file, each of which must report. It is built in `place`, `None` in a tree of a person's.
///
/// # Errors
/// The tree is a person's, or the file can't be read.
pub(super) fn of_file(
    test: &str,
    program: &str,
    top: &Path,
    place: Option<&str>,
) -> Result<(Selftest, Vec<Vec<String>>), ListError> {
    let place = place.ok_or_else(|| ListError::OwnTree(test.to_owned()))?;
    let path = top.join(test);
    let text = fs::read_to_string(&path).map_err(|error| ListError::File { path, error })?;
    let expected = tests_of_file(&text).into_iter().map(|name| vec![lab_dialects::name(&name)]).collect();
    let selftest = Selftest {
        name: test.to_owned(),
        area: format!("kselftest.{COLLECTION}"),
        directory: test_progs_dir(top, place),
        argv: vec![Raw::from(format!("./{program}").as_str())],
        timeout: timeout(&top.join(COLLECTION)),
    };
    Ok((selftest, expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_files_of_test_progs() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join(FOLDER);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("tc_netkit.c"), "void serial_test_tc_netkit_basic(void)\nvoid test_b(void)\n").unwrap();
        fs::write(top.path().join("bpf/settings"), "timeout=0\n").unwrap();
        let word = |word: &str| of_word(word, top.path());
        let name = "bpf/prog_tests/tc_netkit.c";
        for written in ["bpf/tc_netkit", "bpf/tc_netkit.c", "bpf/prog_tests/tc_netkit", name] {
            assert_eq!(word(written).as_deref(), Some(name), "{written}");
        }
        assert_eq!(words("bpf/tc_netkti", top.path()), ["bpf/tc_netkit"]);
        for written in ["bpf", "bpf/", "bpf/tc_gone", "net/tc_netkit", "bpf/prog_tests/../tc_netkit"] {
            assert_eq!(word(written), None, "{written}");
        }
        let (test, expected) = of_file(name, program(name).unwrap(), top.path(), Some("6.12-0a")).unwrap();
        assert_eq!((test.timeout, test.directory), (None, top.path().join("bpf/lab-6.12-0a")));
        assert_eq!(expected, [["b"], ["tc_netkit_basic"]]);
        let error = of_file(name, "tc_netkit", top.path(), None).unwrap_err().to_string();
        assert!(error.contains("lab exec --suite test_progs"), "{error}");
    }
}
