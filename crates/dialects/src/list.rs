//! Lists of tests that suites print without running them.

use crate::{SuiteDialect, SuiteOutput, account::MAX_RESULTS};
use std::collections::BTreeSet;

/// A test that a suite has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedTest {
    /// Its name as the suite takes it on its command line.
    pub name: String,
    /// The class that the suite gives it, for JUnit; may be empty.
    pub class: String,
    /// Its source file, if the list says it.
    pub file: String,
}

/// The formats of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFormat {
    /// `-test.list .`: a name a line.
    Go,
    /// `--list --format terse`: `name: test`.
    Libtest,
    /// `test_progs -l`: a name a line.
    TestProgs,
    /// `pytest --collect-only -q`: `tests/test_a.py::test_x`.
    Pytest,
    /// `ctest -N`: `  Test #1: name`.
    Ctest,
    /// `kselftest-list.txt`: `net:fib_tests.sh`.
    Kselftest,
    /// The JUnit document of `--ginkgo.dry-run`.
    Junit,
    /// A name a line.
    Plain,
}

impl ListFormat {
    /// The tests of a list, in its order, each once.
    pub fn read(self, text: &str) -> Vec<ListedTest> {
        if self == Self::Junit {
            let mut reading = SuiteOutput::new(SuiteDialect::Junit);
            reading.feed(text.as_bytes());
            let results = reading.end().results.into_iter();
            let listed = results.map(|result| ListedTest {
                name: result.path.last().cloned().unwrap_or_default(),
                class: result.class,
                file: result.file,
            });
            return listed.collect();
        }
        let mut seen = BTreeSet::new();
        let found = text.lines().filter_map(|line| self.line(line));
        found.filter(|test| seen.insert(test.name.clone())).take(MAX_RESULTS).collect()
    }

    fn line(self, line: &str) -> Option<ListedTest> {
        let plain = |name: &str| {
            let name = name.trim();
            let fits = !name.is_empty() && name.len() <= 1000 && !name.chars().any(char::is_control);
            fits.then(|| ListedTest { name: name.to_owned(), class: String::new(), file: String::new() })
        };
        match self {
            Self::Go => {
                let is_test = ["Test", "Example", "Fuzz"].iter().any(|begin| line.starts_with(begin));
                plain(line).filter(|test| is_test && !test.name.contains(char::is_whitespace))
            }
            Self::Libtest => plain(line.strip_suffix(": test").or_else(|| line.strip_suffix(": bench"))?),
            Self::TestProgs => plain(line).filter(|test| !test.name.contains(char::is_whitespace)),
            Self::Pytest => {
                let (file, rest) = line.split_once("::")?;
                let is_id = !line.starts_with(char::is_whitespace) && !file.contains(char::is_whitespace);
                let class = rest.split('[').next().unwrap_or_default().rsplit_once("::").map(|(class, _)| class);
                let module = file.trim_end_matches(".py").replace('/', ".");
                let class =
                    class.map_or_else(|| module.clone(), |class| format!("{module}.{}", class.replace("::", ".")));
                plain(line).filter(|_| is_id).map(|test| ListedTest { class, file: file.to_owned(), ..test })
            }
            Self::Ctest => {
                let rest = line.trim_start().strip_prefix("Test")?.trim_start().strip_prefix('#')?;
                let (number, name) = rest.split_once(": ")?;
                number.trim().parse::<u32>().ok().and_then(|_| plain(name))
            }
            Self::Kselftest => {
                let (collection, test) = line.trim().split_once(':')?;
                plain(&format!("{collection}/{test}")).map(|test| ListedTest {
                    class: format!("kselftest.{}", collection.replace('/', ".")),
                    file: format!("tools/testing/selftests/{}", test.name),
                    ..test
                })
            }
            Self::Plain => plain(line).filter(|test| !test.name.starts_with('#')),
            Self::Junit => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(listing: ListFormat, text: &str) -> Vec<String> {
        listing.read(text).into_iter().map(|test| test.name).collect()
    }

    #[test]
    fn each_list_gives_its_names_and_nothing_else() {
        assert_eq!(
            names(ListFormat::Go, "TestA\nTestB\nBenchmarkX\nExampleY\nok  \tp\t0.1s\nTestA\n"),
            ["TestA", "TestB", "ExampleY"]
        );
        assert_eq!(
            names(ListFormat::Libtest, "tc::attach: test\nloop: bench\n\n2 tests, 1 benchmark\n"),
            ["tc::attach", "loop"]
        );
        assert_eq!(names(ListFormat::TestProgs, "tc_netkit\ntc_links\nnot a test\n"), ["tc_netkit", "tc_links"]);
        assert_eq!(
            names(ListFormat::Ctest, "Test project /b\n  Test  #1: one\n  Test #12: two words\n\nTotal Tests: 2\n"),
            ["one", "two words"]
        );
        let kselftest = ListFormat::Kselftest.read("net:fib_tests.sh\nnet/forwarding:router.sh\n");
        assert_eq!(kselftest[1].name, "net/forwarding/router.sh");
        assert_eq!(kselftest[1].class, "kselftest.net.forwarding");
        let pytest = ListFormat::Pytest
            .read("tests/a.py::test_x[a::b c]\ntests/a.py::TestC::test_y\n\n2 tests collected in 0.01s\n");
        assert_eq!(pytest.iter().map(|test| &*test.class).collect::<Vec<_>>(), ["tests.a", "tests.a.TestC"]);
        assert_eq!(pytest[0].name, "tests/a.py::test_x[a::b c]");
        let junit = ListFormat::Junit.read(
            "<testsuites><testsuite tests=\"1\"><testcase name=\"[It] x\" classname=\"S\"/></testsuite></testsuites>\n",
        );
        assert_eq!((&*junit[0].name, &*junit[0].class), ("[It] x", "S"));
        assert_eq!(names(ListFormat::Plain, "# comment\na b\n"), ["a b"]);
    }
}
