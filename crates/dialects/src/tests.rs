//! What each reader makes of real output, and of output that is cut, loses a line, or lies.

use crate::{Conclusion, ProgramExit, SuiteAccount, SuiteDialect, SuiteOutput, TestMark, conclude, samples::*};
use proptest::prelude::*;

fn read(dialect: SuiteDialect, text: &str) -> SuiteAccount {
    let mut reading = SuiteOutput::new(dialect);
    // Pieces that end anywhere.
    text.as_bytes().chunks(7).for_each(|piece| reading.feed(piece));
    reading.end()
}

fn brief(account: &SuiteAccount) -> Vec<String> {
    let words = |mark| match mark {
        TestMark::Passed => "pass",
        TestMark::Failed => "fail",
        TestMark::Skipped => "skip",
        TestMark::ExpectedFailure => "xfail",
        TestMark::UnexpectedPass => "xpass",
        TestMark::Errored => "error",
    };
    let told = |result: &crate::TestResult| {
        let reason = if result.reason.is_empty() { String::new() } else { format!(" ({})", result.reason) };
        format!("{} {}{reason}", words(result.mark), result.path.join(" > "))
    };
    account.results.iter().map(told).collect()
}

#[test]
fn each_dialect_is_read() {
    let cases: [(SuiteDialect, &str, &[&str]); 12] = [
        (
            SuiteDialect::Ktap,
            KTAP,
            &[
                "pass main_test_1 > example_test_1 > test_1",
                "pass main_test_1 > example_test_1",
                "skip main_test_1 > example_test_2 (no device)",
                "pass main_test_1",
                "fail main_test_2 (test_2: FAIL)",
                "xfail main_test_3 (not yet)",
            ],
        ),
        (
            SuiteDialect::Ktap,
            TAP14,
            &[
                "pass foo.tap > 1",
                "pass foo.tap > this passed",
                "pass foo.tap (time=12ms)",
                "fail escaped \\# hash",
                "xfail later (unwritten)",
                "xpass early",
            ],
        ),
        (
            SuiteDialect::Kselftest,
            RUNNER,
            &[
                "pass selftests: net: tls > global.one",
                "fail selftests: net: tls > global.two",
                "fail selftests: net: tls (exit=1)",
                "skip selftests: net: x.sh",
            ],
        ),
        (
            SuiteDialect::Kselftest,
            SHELL,
            &[
                "pass rule4 check: oif dummy0",
                "fail rule4 dsfield udp connect (dsfield 0x05) (got 1, wanted 2)",
                "pass rule4 dsfield udp connect (dsfield 0x05)#2",
                "skip vlan over bond (ethtool is too old)",
                "xfail known one",
                "pass policy routing",
                "fail rule with pref",
                "pass ping4 with peer gro",
                "fail udp gro - all",
            ],
        ),
        (
            SuiteDialect::Go,
            GO,
            &[
                "fail TestA",
                "fail TestA > sub_one (a_test.go:10: wanted 1)",
                "pass TestA > sub_two",
                "skip TestB (b_test.go:3: no netkit)",
            ],
        ),
        (SuiteDialect::Go, GO_JSON, &["fail TestA (a_test.go:10: wanted 1)"]),
        (
            SuiteDialect::Libtest,
            LIBTEST,
            &["pass map::pins", "pass map::late", "fail tc::attach (no tcx)", "skip xdp::load (needs a device)"],
        ),
        (SuiteDialect::Libtest, LIBTEST_JSON, &["pass a", "fail b (no tcx)", "skip c (slow)"]),
        (
            SuiteDialect::TestProgs,
            TEST_PROGS,
            &[
                "pass tc_redirect > tc_redirect_peer",
                "pass tc_redirect > tc_redirect_peer#2",
                "pass tc_redirect",
                "fail cls_redirect > IPv4 TCP (flags: SYN) (run_test:FAIL:attach 1 != 2)",
                "fail cls_redirect (cls_redirect/IPv4 TCP (flags: SYN) failed)",
                "skip empty_skb",
            ],
        ),
        (
            SuiteDialect::Pytest,
            PYTEST,
            &[
                "pass tests/test_a.py > test_ok",
                "fail tests/test_a.py > test_params[a b-PASSED] (assert 1 == 2)",
                "skip tests/test_a.py > TestC > test_skip (no netkit)",
                "xfail tests/test_b.py > test_x (later)",
                "xpass tests/test_b.py > test_y",
            ],
        ),
        (SuiteDialect::Ctest, CTEST, &["pass plain", "fail two words (Failed)", "skip absent (Skipped)"]),
        (
            SuiteDialect::Junit,
            JUNIT,
            &[
                "pass tests.a > one",
                "fail tests.a > two & more (wanted 1 < 2)",
                "skip tests.a > three",
                "pass tests.a > four",
            ],
        ),
    ];
    for (dialect, text, wanted) in cases {
        let account = read(dialect, text);
        assert_eq!(brief(&account), wanted, "{dialect:?}");
        assert_eq!(account.faults, Vec::<String>::new(), "{dialect:?}");
    }
}

/// What an account says of a stream that is cut behind `until`, or lacks the lines that contain `lost`.
fn spoiled(dialect: SuiteDialect, text: &str, until: &str, lost: &str) -> [String; 2] {
    let cut = &text[..text.find(until).expect("the place is in the text") + until.len()];
    let less: String = text.split_inclusive('\n').filter(|line| !line.contains(lost)).collect();
    assert_ne!(less, text);
    [cut, &less].map(|text| {
        let account = read(dialect, text);
        let errored =
            account.results.iter().filter(|result| result.mark == TestMark::Errored).map(|it| it.reason.clone());
        account.faults.iter().cloned().chain(errored).collect::<Vec<_>>().join("; ")
    })
}

#[test]
fn a_cut_stream_and_a_lost_line_are_told() {
    for (dialect, text, until, lost, wanted) in [
        (
            SuiteDialect::Ktap,
            KTAP,
            "example_test_1\n",
            "main_test_2\n",
            [
                "the output ends between subtests and the line of their test; 3 tests planned, 0 reported",
                "3 tests planned, 2 reported",
            ],
        ),
        (
            SuiteDialect::Ktap,
            TAP14,
            "hash
",
            "ok 2 - this",
            ["the output ends without a plan", "2 tests planned in foo.tap, 1 reported"],
        ),
        (
            SuiteDialect::Kselftest,
            RUNNER,
            "global.two\n",
            "ok 1 global.one",
            ["2 tests planned, 0 reported", "2 tests planned, 1 reported"],
        ),
        (
            SuiteDialect::Go,
            GO,
            "=== RUN   TestB\n",
            "--- SKIP",
            [
                "the output ends before the suite's last line, PASS or FAIL; it began and never ended",
                "it began and never ended",
            ],
        ),
        (
            SuiteDialect::Go,
            GO_JSON,
            "wanted 1\\n\"}\n",
            r#""Action":"fail","Package":"p","Test""#,
            ["it began and never ended", "it began and never ended"],
        ),
        (
            SuiteDialect::Libtest,
            LIBTEST,
            "FAILED\n",
            "map::pins",
            [
                "4 tests planned, 3 reported; the output ends before",
                "4 tests planned, 3 reported; the suite says 2 passed",
            ],
        ),
        (
            SuiteDialect::Libtest,
            LIBTEST_JSON,
            "\"name\": \"b\" }\n",
            r#""a", "event": "ok""#,
            ["3 tests planned, 1 reported; the output ends before", "3 tests planned, 2 reported"],
        ),
        (
            SuiteDialect::TestProgs,
            TEST_PROGS,
            "empty_skb:SKIP\n",
            "#41      ",
            [
                "the output ends before the suite's last line, `Summary:`",
                "the suite says 1/2 passed, 1 failed; its lines say 0/2, 1",
            ],
        ),
        (
            SuiteDialect::Pytest,
            PYTEST,
            "[ 60%]\n",
            "test_ok PASSED",
            [
                "5 tests collected, 3 reported; the output ends before",
                "5 tests collected, 4 reported; the suite says 1 passed; its lines say 0",
            ],
        ),
        (
            SuiteDialect::Ctest,
            CTEST,
            "Start 2: two words\n",
            "Test #2",
            ["3 tests planned, 1 reported", "3 tests planned, 2 reported; the suite says 1 failed; its lines say 0"],
        ),
        (
            SuiteDialect::Junit,
            JUNIT,
            "trace",
            "three",
            [
                "the JUnit document has no end; the JUnit document says 4 tests, and has 2",
                "the JUnit document says 4 tests, and has 3",
            ],
        ),
    ] {
        let said = spoiled(dialect, text, until, lost);
        for (said, wanted) in said.iter().zip(wanted) {
            assert!(
                said.contains(wanted) && (wanted.is_empty() == said.is_empty()),
                "{dialect:?}: {said}, wanted {wanted}"
            );
        }
    }
}

#[test]
fn a_code_that_contradicts_the_tests_is_a_failure_in_both_directions() {
    let bad = [
        (SuiteDialect::Ktap, KTAP),
        (SuiteDialect::Kselftest, RUNNER),
        (SuiteDialect::Kselftest, SHELL),
        (SuiteDialect::Go, GO),
        (SuiteDialect::Go, GO_JSON),
        (SuiteDialect::Libtest, LIBTEST),
        (SuiteDialect::Libtest, LIBTEST_JSON),
        (SuiteDialect::TestProgs, TEST_PROGS),
        (SuiteDialect::Pytest, PYTEST),
        (SuiteDialect::Ctest, CTEST),
        (SuiteDialect::Junit, JUNIT),
    ];
    for (dialect, text) in bad {
        let account = read(dialect, text);
        let Conclusion::Failed(said) = conclude(dialect, &account, ProgramExit::Exited(0)) else {
            panic!("{dialect:?}")
        };
        assert!(said.starts_with("exit code 0, but ") && said.contains(" failed; the first: "), "{said}");
        assert_eq!(conclude(dialect, &account, ProgramExit::TimedOut), Conclusion::AsItEnded);
    }
    // The code of a skip is none where a test failed.
    let account = read(SuiteDialect::Kselftest, SHELL);
    let skips = conclude(SuiteDialect::Kselftest, &account, ProgramExit::Exited(4));
    assert!(matches!(skips, Conclusion::Failed(_)), "{skips:?}");
    let account = read(SuiteDialect::Kselftest, "TEST: a  [ OK ]\n");
    let skips = conclude(SuiteDialect::Kselftest, &account, ProgramExit::Exited(4));
    assert!(matches!(skips, Conclusion::Skipped(_)), "{skips:?}");
    for (dialect, text) in [
        (SuiteDialect::Ktap, "TAP version 13\n1..1\nok 1 a\n"),
        (SuiteDialect::Kselftest, "TEST: a  [ OK ]\n"),
        (SuiteDialect::Go, "=== RUN   TestA\n--- PASS: TestA (0.00s)\nPASS\n"),
        (SuiteDialect::Libtest, "running 1 test\ntest a ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n"),
        (SuiteDialect::TestProgs, "#1 a:OK\nSummary: 1/0 PASSED, 0 SKIPPED, 0 FAILED\n"),
        (SuiteDialect::Pytest, "a.py::a PASSED [100%]\n=== 1 passed in 0.1s ===\n"),
        (SuiteDialect::Ctest, "1/1 Test #1: a ...   Passed    0.01 sec\n100% tests passed, 0 tests failed out of 1\n"),
        (SuiteDialect::Junit, "<testsuite tests=\"1\"><testcase name=\"a\"/></testsuite>\n"),
    ] {
        let account = read(dialect, text);
        assert_eq!(conclude(dialect, &account, ProgramExit::Exited(0)), Conclusion::Passed, "{dialect:?} {account:?}");
        let Conclusion::Failed(said) = conclude(dialect, &account, ProgramExit::Exited(1)) else {
            panic!("{dialect:?}")
        };
        assert_eq!(said, "exit code 1, but none of 1 tests failed");
        let Conclusion::Failed(said) = conclude(dialect, &account, ProgramExit::Exited(124)) else {
            panic!("{dialect:?}")
        };
        assert!(said.starts_with("exit code 124"), "124 is the test's own: {said}");
        for code in [126, 127] {
            let told = conclude(dialect, &account, ProgramExit::Exited(code));
            assert!(matches!(told, Conclusion::Errored(_)), "{dialect:?} {told:?}");
        }
        let four = conclude(dialect, &account, ProgramExit::Exited(4));
        assert_eq!(matches!(four, Conclusion::Skipped(_)), dialect == SuiteDialect::Kselftest, "{dialect:?} {four:?}");
        let silent = conclude(dialect, &read(dialect, "hello\n"), ProgramExit::Exited(0));
        assert_eq!(silent == Conclusion::Passed, dialect == SuiteDialect::Kselftest, "{dialect:?} {silent:?}");
    }
}

#[test]
fn a_skip_keeps_its_reason() {
    let account = read(SuiteDialect::Kselftest, "SKIP: iproute2 too old, missing fdb flush support\n");
    let told = conclude(SuiteDialect::Kselftest, &account, ProgramExit::Exited(4));
    assert_eq!(told, Conclusion::Skipped("iproute2 too old, missing fdb flush support".to_owned()));
    let account = read(SuiteDialect::Ktap, "TAP version 13\n1..0 # SKIP no device\n");
    assert_eq!(
        conclude(SuiteDialect::Ktap, &account, ProgramExit::Exited(0)),
        Conclusion::Skipped("no device".to_owned())
    );
    let account = read(SuiteDialect::Kselftest, "\u{1b}[32mTEST: green\u{1b}[0m    [ \u{1b}[32mOK\u{1b}[0m ]\r\n");
    assert_eq!(brief(&account), ["pass green"]);
}

#[test]
fn a_failure_is_told_by_what_the_exception_or_the_panic_said() {
    let python = "TAP version 13\n1..1\n# Exception| Traceback (most recent call last):\n# Exception|     raise x\n\
                  # Exception| FileNotFoundError: [Errno 2] No such file or directory: 'udevadm'\n# Exception| \nnot ok 1 a\n";
    let account = read(SuiteDialect::Ktap, python);
    assert_eq!(brief(&account), ["fail a (FileNotFoundError: [Errno 2] No such file or directory: 'udevadm')"]);
    let rust = "\nrunning 1 test\ntest a ... FAILED\n\nfailures:\n\n---- a stdout ----\nlibbpf: off 128 -> 128\n\n\
                thread 'a' (172) panicked at tests/test.rs:1714:5:\nassertion `left == right` failed\n  left: 0\n right: 1337\n\
                stack backtrace:\n\n\nfailures:\n    a\n\n\
                test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n";
    let account = read(SuiteDialect::Libtest, rust);
    assert_eq!(brief(&account), ["fail a (assertion `left == right` failed; left: 0; right: 1337)"]);
}

#[test]
fn more_tests_than_planned_are_told() {
    let account = read(SuiteDialect::Ktap, "TAP version 13\n1..1\nok 1 a\nok 2 b\n");
    assert_eq!(account.faults, ["1 tests planned, 2 reported"]);
    let nested = "KTAP version 1\n1..1\n  # Subtest: outer\n  1..1\n  ok 1 a\n  ok 2 b\nok 1 outer\n";
    assert_eq!(read(SuiteDialect::Ktap, nested).faults, ["1 tests planned in outer, 2 reported"]);
    let account = read(SuiteDialect::Libtest, &LIBTEST.replace("running 4", "running 3"));
    assert_eq!(account.faults, ["3 tests planned, 4 reported"]);
}

#[test]
fn totals_of_several_test_binaries_add_up() {
    let one = "running 2 tests\ntest a ... ok\ntest b ... ignored\ntest result: ok. 1 passed; 0 failed; 1 ignored\n";
    let two = "running 1 test\ntest c ... ok\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
    let account = read(SuiteDialect::Libtest, &format!("{one}{two}"));
    assert_eq!(conclude(SuiteDialect::Libtest, &account, ProgramExit::Exited(0)), Conclusion::Passed, "{account:?}");
    assert_eq!(brief(&account), ["pass a", "skip b (ignored)", "pass c"]);
    // A total of one that its lines contradict is a fault of all.
    let account = read(SuiteDialect::Libtest, &format!("{}{two}", one.replace("1 passed", "2 passed")));
    assert_eq!(account.faults, ["the suite says 3 passed, 0 failed, 1 ignored; its lines say 2, 0, 1"]);
}

#[test]
fn a_parent_that_hides_its_subtest_is_told() {
    let account = read(SuiteDialect::Ktap, "KTAP version 1\n1..1\n  1..1\n  not ok 1 inner\nok 1 outer\n");
    assert_eq!(account.faults, ["outer is ok, but its subtest inner is not"]);
    let account = read(SuiteDialect::Ktap, "TAP version 13\n1..2\nok 1 a\nok 1 b\n");
    assert_eq!(account.faults, ["test 1 has two results"]);
    let account = read(SuiteDialect::Go, &GO.replace("\nFAIL\n", "\nPASS\n"));
    assert_eq!(account.faults, ["the suite says PASS, but a test failed"]);
    let account = read(SuiteDialect::Go, "=== RUN   TestA\npanic: out of range\n");
    assert_eq!(brief(&account), ["error TestA (panic: out of range)"]);
}

proptest! {
    /// Results of any names and marks are read again as they were written.
    #[test]
    fn what_is_written_is_read(tests in prop::collection::vec(("[a-z][a-z_]{0,12}", 0..3_usize), 1..20)) {
        let mut ktap = format!("KTAP version 1\n1..{}\n", tests.len());
        let (mut shell, mut go, mut junit) = (String::new(), String::new(), format!("<testsuite tests=\"{}\">\n", tests.len()));
        for (number, (name, mark)) in (1..).zip(&tests) {
            let (ok, skip) = (if *mark == 1 { "not ok" } else { "ok" }, if *mark == 2 { " # SKIP" } else { "" });
            ktap += &format!("{ok} {number} {name}{skip}\n");
            shell += &format!("TEST: {name}    [{}]\n", [" OK ", "FAIL", "SKIP"][*mark]);
            go += &format!("=== RUN   {name}\n--- {}: {name} (0.00s)\n", ["PASS", "FAIL", "SKIP"][*mark]);
            let inner = ["", "<failure message=\"x\"/>", "<skipped/>"][*mark];
            junit += &format!("<testcase name=\"{name}\">{inner}</testcase>\n");
        }
        junit += "</testsuite>\n";
        let failed = tests.iter().any(|(_, mark)| *mark == 1);
        go += if failed { "FAIL\n" } else { "PASS\n" };
        let marks: Vec<TestMark> = tests.iter().map(|(_, mark)| [TestMark::Passed, TestMark::Failed, TestMark::Skipped][*mark]).collect();
        for (dialect, text) in
            [(SuiteDialect::Ktap, &ktap), (SuiteDialect::Kselftest, &shell), (SuiteDialect::Go, &go), (SuiteDialect::Junit, &junit)]
        {
            let account = read(dialect, text);
            prop_assert_eq!(account.results.iter().map(|it| it.mark).collect::<Vec<_>>(), marks.clone(), "{:?}", dialect);
            prop_assert_eq!(&account.faults, &Vec::<String>::new());
            let names: std::collections::BTreeSet<_> = account.results.iter().map(|it| it.path.clone()).collect();
            prop_assert_eq!(names.len(), tests.len(), "names are unique");
        }
    }
}
