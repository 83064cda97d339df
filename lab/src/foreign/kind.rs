//! The suites.

use lab_dialects::{ListFormat, ListedTest, SuiteDialect};
use lab_protocol::Raw;
use std::path::Path;

/// A kind of suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SuiteKind {
    /// A test binary of `go test -c`.
    Go,
    /// A Rust test binary.
    Libtest,
    /// Selftests of the kernel: the command's words are test programs, or a directory with kselftest-list.txt.
    Kselftest,
    /// test_progs of the kernel's BPF selftests.
    TestProgs,
    /// pytest.
    Pytest,
    /// ctest.
    Ctest,
    /// A program that prints KTAP or TAP.
    Ktap,
    /// A program that prints a JUnit document.
    Junit,
    /// A test binary with ginkgo.
    Ginkgo,
}

impl SuiteKind {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Libtest => "libtest",
            Self::Kselftest => "kselftest",
            Self::TestProgs => "test_progs",
            Self::Pytest => "pytest",
            Self::Ctest => "ctest",
            Self::Ktap => "ktap",
            Self::Junit => "junit",
            Self::Ginkgo => "ginkgo",
        }
    }

    /// What it prints.
    pub const fn dialect(self) -> SuiteDialect {
        match self {
            Self::Go => SuiteDialect::Go,
            Self::Libtest => SuiteDialect::Libtest,
            Self::Kselftest => SuiteDialect::Kselftest,
            Self::TestProgs => SuiteDialect::TestProgs,
            Self::Pytest => SuiteDialect::Pytest,
            Self::Ctest => SuiteDialect::Ctest,
            Self::Ktap => SuiteDialect::Ktap,
            Self::Junit | Self::Ginkgo => SuiteDialect::Junit,
        }
    }

    /// The command that lists its tests, and the list's format; `None` if only running tells them.
    pub fn listing(self, argv: &[Raw]) -> Option<(Vec<Raw>, ListFormat)> {
        let with = |more: &[&str]| argv.iter().cloned().chain(more.iter().map(|word| Raw::from(*word))).collect();
        Some(match self {
            Self::Go => (with(&["-test.list", "."]), ListFormat::Go),
            Self::Libtest => (with(&["--list", "--format", "terse"]), ListFormat::Libtest),
            Self::TestProgs => (with(&["-l"]), ListFormat::TestProgs),
            Self::Pytest => (with(&["--rootdir=.", "--collect-only", "-q"]), ListFormat::Pytest),
            Self::Ctest => (with(&["-N"]), ListFormat::Ctest),
            Self::Ginkgo => (with(&["--ginkgo.dry-run", "--ginkgo.junit-report=/dev/stdout"]), ListFormat::Junit),
            Self::Kselftest | Self::Ktap | Self::Junit => return None,
        })
    }

    /// The command that runs one test.
    pub fn one(self, argv: &[Raw], test: &ListedTest) -> Vec<Raw> {
        let name = &*test.name;
        let with = |more: &[&str]| argv.iter().cloned().chain(more.iter().map(|word| Raw::from(*word))).collect();
        match self {
            Self::Go => with(&["-test.v", "-test.run", &format!("^{}$", escaped(name))]),
            Self::Libtest => with(&["--exact", name, "--test-threads=1"]),
            Self::TestProgs => with(&["-a", name]),
            Self::Ctest => with(&["-R", &format!("^{}$", escaped(name)), "--output-on-failure"]),
            Self::Ginkgo => {
                let text = name.trim_start_matches("[It] ");
                with(&["--ginkgo.focus", &format!("{}$", escaped(text)), "--ginkgo.junit-report=/dev/stdout"])
            }
            Self::Pytest => {
                // The ids of tests stand in the place of the files that hold them.
                let is_file = |word: &Raw| {
                    let shown = word.shown();
                    let path = shown.split("::").next().unwrap_or_default();
                    !shown.starts_with('-') && Path::new(path).exists()
                };
                let at = program_words(argv);
                let (program, rest) = argv.split_at(at);
                let kept = rest.iter().filter(|word| !is_file(word)).cloned();
                let more = ["--rootdir=.", "-v", name].map(Raw::from);
                program.iter().cloned().chain(kept).chain(more).collect()
            }
            Self::Kselftest | Self::Ktap | Self::Junit => argv.to_vec(),
        }
    }

    /// The command that runs all tests in one process.
    pub fn all(self, argv: &[Raw]) -> Vec<Raw> {
        let more: &[&str] = match self {
            Self::Go => &["-test.v"],
            Self::Pytest => &["--rootdir=.", "-v"],
            Self::Ctest => &["--output-on-failure"],
            Self::Ginkgo => &["--ginkgo.junit-report=/dev/stdout"],
            Self::Libtest | Self::TestProgs | Self::Kselftest | Self::Ktap | Self::Junit => &[],
        };
        argv.iter().cloned().chain(more.iter().map(|word| Raw::from(*word))).collect()
    }

    /// A test's name as the reader of its output has it.
    pub fn path(self, test: &ListedTest) -> Vec<String> {
        match self {
            Self::Pytest => test.name.split("::").map(lab_dialects::name).collect(),
            Self::Ginkgo if !test.class.is_empty() => vec![test.class.clone(), lab_dialects::name(&test.name)],
            _ => vec![lab_dialects::name(&test.name)],
        }
    }
}

/// How many words name the program: `pytest`, or `python3 -m pytest`.
fn program_words(argv: &[Raw]) -> usize {
    let module = argv.windows(2).position(|pair| pair[0].as_bytes() == b"-m" && pair[1].as_bytes() == b"pytest");
    module.map_or(1, |at| at + 2).min(argv.len())
}

/// A regular expression that matches this text only, for Go and CMake alike.
fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let special = r"\.+*?()|[]{}^$".contains(c).then_some('\\');
            special.into_iter().chain([c])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_test_is_run_by_its_exact_name() {
        let test = |name: &str| ListedTest { name: name.to_owned(), class: String::new(), file: String::new() };
        let words = |kind: SuiteKind, argv: &[&str], name: &str| {
            let argv: Vec<Raw> = argv.iter().map(|word| Raw::from(*word)).collect();
            kind.one(&argv, &test(name)).iter().map(Raw::shown).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words(SuiteKind::Go, &["./a.test"], "TestA"), "./a.test -test.v -test.run ^TestA$");
        assert_eq!(words(SuiteKind::Ctest, &["ctest"], "a+b"), r"ctest -R ^a\+b$ --output-on-failure");
        let exact = "./tests-0a1b --exact a::parse --test-threads=1";
        assert_eq!(words(SuiteKind::Libtest, &["./tests-0a1b"], "a::parse"), exact);
        // The directory is replaced by the test, the options stay.
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().to_str().unwrap();
        let line = words(SuiteKind::Pytest, &["python3", "-m", "pytest", "-x", place], "a.py::test_x");
        assert_eq!(line, "python3 -m pytest -x --rootdir=. -v a.py::test_x");
    }
}
