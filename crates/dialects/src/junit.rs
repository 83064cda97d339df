//! JUnit's XML, as many tools write it: `testsuites`, `testsuite` (nested), `testcase`.

use crate::{
    SuiteAccount, TestMark, TestResult,
    account::{MAX_RESULTS, Printed},
    lines::ReadLines,
};
use quick_xml::{
    Reader,
    events::{BytesStart, Event},
};

/// Most bytes of a document.
pub const MAX_DOCUMENT: usize = 16 << 20;

/// Collects the first document of a stream; whatever stands before it is left out.
#[derive(Debug, Default)]
pub struct Junit {
    document: String,
    began: bool,
    cut: bool,
}

impl ReadLines for Junit {
    fn line(&mut self, line: &str, _: &mut SuiteAccount) {
        let text = line.trim_start();
        self.began |= ["<?xml", "<testsuite"].iter().any(|begin| text.starts_with(begin));
        if !self.began {
            return;
        }
        if self.document.len() + line.len() > MAX_DOCUMENT {
            self.cut = true;
            return;
        }
        self.document.push_str(line);
        self.document.push('\n');
    }

    fn end(&mut self, account: &mut SuiteAccount) {
        if self.cut {
            account.fault(format!("the JUnit document has more than {} MiB", MAX_DOCUMENT >> 20));
        }
        if self.began {
            read(&self.document, account);
        }
    }
}

/// What an open test case has so far.
struct Case {
    result: TestResult,
    printed: Printed,
}

fn read(document: &str, account: &mut SuiteAccount) {
    let mut reader = Reader::from_str(document);
    let mut case: Option<Case> = None;
    let mut depth = 0_usize;
    // `tests` of the outermost suites.
    let mut planned: Option<usize> = None;
    let mut count = 0_usize;
    let mut whole = false;
    // The element whose text is read.
    let mut inside = String::new();
    loop {
        match reader.read_event() {
            Err(error) => {
                account.fault(format!("the JUnit document is damaged: {error}"));
                break;
            }
            Ok(Event::Eof) => break,
            Ok(event @ (Event::Start(_) | Event::Empty(_))) => {
                let (element, is_empty) = match &event {
                    Event::Start(element) => (element, false),
                    Event::Empty(element) => (element, true),
                    _ => continue,
                };
                match element.local_name().as_ref() {
                    b"testsuites" => depth += usize::from(!is_empty),
                    b"testsuite" => {
                        depth += usize::from(!is_empty);
                        let tests = attribute(element, "tests").and_then(|tests| tests.parse::<usize>().ok());
                        // A suite inside of a suite is counted in the outer one.
                        if depth <= 2 {
                            planned = planned.or(Some(0)).zip(tests).map(|(sum, tests)| sum.saturating_add(tests));
                        }
                    }
                    b"testcase" => {
                        let opened = open(element);
                        count += 1;
                        if is_empty {
                            account.push(opened.result);
                        } else {
                            case = Some(opened);
                        }
                    }
                    name => {
                        if let Some(case) = &mut case {
                            mark(case, name, element);
                        }
                    }
                }
                inside = if is_empty {
                    String::new()
                } else {
                    String::from_utf8_lossy(element.local_name().as_ref()).into_owned()
                };
            }
            Ok(Event::Text(text)) => print(case.as_mut(), &inside, &text.decode().unwrap_or_default()),
            Ok(Event::CData(text)) => print(case.as_mut(), &inside, &String::from_utf8_lossy(&text)),
            Ok(Event::End(element)) => {
                inside.clear();
                match element.local_name().as_ref() {
                    b"testcase" => {
                        if let Some(Case { mut result, printed }) = case.take() {
                            if result.reason.is_empty() && result.mark.is_bad() {
                                result = result.because(printed.first());
                            }
                            account.push(result.printing(&printed));
                        }
                    }
                    b"testsuite" | b"testsuites" => {
                        depth = depth.saturating_sub(1);
                        if depth == 0 {
                            whole = true;
                            break;
                        }
                    }
                    _ => {}
                }
            }
            Ok(_) => {}
        }
    }
    if let Some(Case { result, .. }) = case {
        account.push(TestResult { mark: TestMark::Errored, ..result }.because("the document ends in this test"));
    }
    if !whole && account.faults.is_empty() {
        account.fault("the JUnit document has no end");
    }
    if let Some(planned) = planned.filter(|planned| *planned != count && count <= MAX_RESULTS) {
        account.fault(format!("the JUnit document says {planned} tests, and has {count}"));
    }
}

fn open(element: &BytesStart<'_>) -> Case {
    let said = |name| attribute(element, name).unwrap_or_default();
    let mut result = TestResult::new([&*said("name")], TestMark::Passed).taking(said("time").parse().ok());
    result.class = crate::account::name(&said("classname"));
    result.file = crate::account::name(&said("file"));
    if !result.class.is_empty() {
        result.path.insert(0, result.class.clone());
    }
    Case { result, printed: Printed::default() }
}

/// What an element inside of a test case says.
fn mark(case: &mut Case, name: &[u8], element: &BytesStart<'_>) {
    let mark = match name {
        b"failure" => TestMark::Failed,
        b"error" => TestMark::Errored,
        b"skipped" if attribute(element, "type").as_deref() == Some("pytest.xfail") => TestMark::ExpectedFailure,
        b"skipped" => TestMark::Skipped,
        _ => return,
    };
    if !case.result.mark.is_bad() {
        case.result.mark = mark;
        let reason = attribute(element, "message").unwrap_or_default();
        case.result = case.result.clone().because(&reason);
    }
}

fn print(case: Option<&mut Case>, inside: &str, text: &str) {
    if let Some(case) = case
        && matches!(inside, "failure" | "error" | "skipped" | "system-out" | "system-err")
    {
        text.lines().filter(|line| !line.trim().is_empty()).for_each(|line| case.printed.line(line));
    }
}

fn attribute(element: &BytesStart<'_>, name: &str) -> Option<String> {
    let found =
        element.attributes().flatten().find(|attribute| attribute.key.local_name().as_ref() == name.as_bytes())?;
    let text = std::str::from_utf8(&found.value).ok()?;
    quick_xml::escape::unescape(text).map(std::borrow::Cow::into_owned).ok()
}
