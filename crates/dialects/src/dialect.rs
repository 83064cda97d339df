//! The formats.

/// What a suite prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SuiteDialect {
    /// KTAP 1, TAP 13 and TAP 14.
    Ktap,
    /// The kernel's selftests: KTAP, or the lines of their shell scripts.
    Kselftest,
    /// `go test -v` and `go test -json`.
    Go,
    /// Rust's libtest, as text and as JSON.
    Libtest,
    /// test_progs of the kernel's BPF selftests.
    TestProgs,
    /// `pytest -v`.
    Pytest,
    /// ctest.
    Ctest,
    /// A JUnit document.
    Junit,
}

impl SuiteDialect {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Ktap, Self::Kselftest, Self::Go, Self::Libtest, Self::TestProgs, Self::Pytest, Self::Ctest, Self::Junit];

    /// Whether a program that ends with 0 and reports no test has passed: the kernel's scripts may print a sentence, or nothing.
    pub const fn may_be_silent(self) -> bool {
        matches!(self, Self::Kselftest)
    }

    /// The exit code of a program that did not run its tests, if the dialect has one (`KSFT_SKIP`).
    pub const fn skip_code(self) -> Option<u8> {
        match self {
            Self::Kselftest => Some(4),
            _ => None,
        }
    }

    /// What stands between the levels of a name.
    pub const fn separator(self) -> &'static str {
        match self {
            Self::Go | Self::TestProgs => "/",
            _ => "::",
        }
    }
}
