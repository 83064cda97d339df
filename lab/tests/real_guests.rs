//! `lab` on real kernels, from the command line to the JUnit file.
//!
//! These tests boot guests. They fail if a guest does not boot; none of them is skipped.

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, MutexGuard, PoisonError},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Two matrices at the same time on a small machine would exceed the deadlines.
fn machine() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments);
    command
}

fn words(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A test case of a JUnit file.
#[derive(Debug, Default)]
struct TestCase {
    suite: String,
    name: String,
    properties: BTreeMap<String, String>,
    /// `failure`, `error` or `skipped`, with type and message.
    result: Option<(String, String, String)>,
}

/// Reads a JUnit file, and checks the schema that most tools share: properties before results before output, required
/// attributes, and correct counters.
fn junit(path: &Path) -> Vec<TestCase> {
    use quick_xml::{
        Reader,
        events::{BytesStart, Event},
    };
    let text = fs::read_to_string(path).unwrap();
    let mut reader = Reader::from_str(&text);
    reader.config_mut().expand_empty_elements = true;
    let attributes = |tag: &BytesStart<'_>| -> BTreeMap<String, String> {
        let pair = |attribute: quick_xml::events::attributes::Attribute<'_>| {
            let key = String::from_utf8(attribute.key.as_ref().to_vec()).unwrap();
            (key, attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned())
        };
        tag.attributes().map(|attribute| pair(attribute.unwrap())).collect()
    };
    let order = |tag: &str| {
        ["properties", "skipped", "error", "failure", "system-out", "system-err"].iter().position(|it| *it == tag)
    };
    let (mut cases, mut suite, mut open, mut last) =
        (Vec::<TestCase>::new(), None::<BTreeMap<String, String>>, Vec::new(), None);
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                let name = String::from_utf8(tag.name().as_ref().to_vec()).unwrap();
                let attributes = attributes(&tag);
                let parent: String = open.last().cloned().unwrap_or_default();
                match (&*parent, &*name) {
                    ("", "testsuites") | ("testsuites", "testsuite") | ("testsuite", "properties") => {}
                    ("testsuite", "testcase") => {
                        assert!(attributes.contains_key("classname") && attributes.contains_key("time"));
                        let suite = suite.as_ref().unwrap()["name"].clone();
                        cases.push(TestCase { suite, name: attributes["name"].clone(), ..TestCase::default() });
                        last = None;
                    }
                    ("testcase", child) => {
                        let place = order(child).unwrap_or_else(|| panic!("<{child}> in a testcase"));
                        assert!(last.is_none_or(|last| last <= place), "<{child}> too late in {:?}", cases.last());
                        last = Some(place);
                        if matches!(child, "skipped" | "error" | "failure") {
                            let of = |key: &str| attributes.get(key).cloned().unwrap_or_default();
                            cases.last_mut().unwrap().result = Some((child.to_owned(), of("type"), of("message")));
                        }
                    }
                    ("properties", "property") => {
                        if open.contains(&"testcase".to_owned()) {
                            let case = cases.last_mut().unwrap();
                            case.properties.insert(attributes["name"].clone(), attributes["value"].clone());
                        }
                    }
                    (parent, name) => panic!("<{name}> in <{parent}>"),
                }
                if name == "testsuite" {
                    suite = Some(attributes);
                }
                open.push(name);
            }
            Event::End(tag) => {
                if tag.name().as_ref() == b"testsuite" {
                    let suite = suite.take().unwrap();
                    let count = |kind: Option<&str>| {
                        let of = |case: &&TestCase| kind.is_none() || case.result.as_ref().map(|it| &*it.0) == kind;
                        cases.iter().filter(|case| case.suite == suite["name"]).filter(of).count().to_string()
                    };
                    for (key, kind) in [
                        ("tests", None),
                        ("skipped", Some("skipped")),
                        ("errors", Some("error")),
                        ("failures", Some("failure")),
                    ] {
                        assert_eq!(suite[key], count(kind), "{key} of suite {}", suite["name"]);
                    }
                }
                open.pop();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    cases
}

fn latest(results: &Path) -> PathBuf {
    fs::canonicalize(results.join("latest")).unwrap()
}

/// The main test: runs the default matrix like `make lab-run`, and checks the JUnit file.
#[test]
fn the_default_matrix_uses_the_attach_types_that_the_plan_requires() {
    let _machine = machine();
    let results = tempfile::tempdir().unwrap();
    let output = lab(&["run", "--out"]).arg(results.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let run = latest(results.path());
    let cases = junit(&run.join("junit.xml"));

    for (kernel, veth, netkit) in
        [("6.1", "tc", None), ("6.12", "tcx", Some("netkit")), ("6.17", "tcx", Some("netkit"))]
    {
        let mine: Vec<&TestCase> = cases.iter().filter(|case| case.suite == kernel).collect();
        let passed: Vec<&&TestCase> = mine.iter().filter(|case| case.result.is_none()).collect();
        assert!(passed.len() >= if netkit.is_some() { 300 } else { 30 }, "{kernel}: {} passed", passed.len());
        let used = |case: &str| mine.iter().find(|it| it.name == case).unwrap_or_else(|| panic!("no {case}"));
        let auto = |device: &str| used(&format!("D10-auto[auto,{device},from-workload]"));
        assert_eq!(auto("veth").properties["attach.used"], veth, "{kernel}");
        for device in ["nk-l2", "nk-l3"] {
            assert_eq!(auto(device).properties.get("attach.used").map(String::as_str), netkit, "{kernel} {device}");
        }
        for case in &passed {
            if let Some(required) = case.properties.get("attach.required") {
                let used = case.properties.get("attach.used").map(|used| used.split('+').collect::<BTreeSet<_>>());
                assert!(used.is_some_and(|used| used.contains(&**required)), "{kernel} {case:?}");
            }
        }
        // A known failure is listed as skipped too, with the reason of known.toml.
        let known = |case: &TestCase| case.properties.contains_key("known.reason");
        for case in mine.iter().filter(|case| case.result.as_ref().is_some_and(|it| it.0 == "skipped") && !known(case))
        {
            let (_, capability, message) = case.result.as_ref().unwrap();
            assert!(!capability.is_empty() && message.contains("lifted by kernel"), "{kernel} {case:?}");
        }
        let console = fs::read_to_string(run.join(kernel).join("console.log")).unwrap();
        assert!(console.contains("Linux version 6."), "{kernel}: the console begins with the kernel's own first line");
        assert_eq!(junit(&run.join(kernel).join("junit.xml")).len(), mine.len(), "{kernel}/junit.xml");
    }

    let run_json: Value = serde_json::from_slice(&fs::read(run.join("run.json")).unwrap()).unwrap();
    assert_eq!(run_json["plan"]["kernels"].as_array().map(Vec::len), Some(3));
    let before = fs::read(run.join("junit.xml")).unwrap();
    fs::remove_file(run.join("junit.xml")).unwrap();
    let output = lab(&["report"]).arg(&run).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    assert!(fs::read(run.join("junit.xml")).unwrap() == before, "events.jsonl alone gives the same junit.xml");
}

/// Checks that a wrong attach type is detected: the auto detection has a deliberate fault, which the host must report.
#[test]
fn tcx_on_a_netkit_device_in_auto_mode_is_an_attach_mismatch() {
    let _machine = machine();
    let results = tempfile::tempdir().unwrap();
    let arguments = ["run", "--kernel", "6.17", "--case", "D10*", "--mutant", "auto-takes-tcx-on-netkit", "--out"];
    let output = lab(&arguments).arg(results.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let mut cases = junit(&latest(results.path()).join("junit.xml"));
    // Rows of the guest (boot, splat, teardown) are not cases.
    cases.retain(|case| case.name.starts_with("D10"));
    assert_eq!(cases.len(), 6);
    for case in cases {
        if case.name.contains("veth") {
            assert_eq!(case.result, None, "{}", case.name);
            continue;
        }
        let (element, kind, message) = case.result.expect("netkit devices are red");
        assert_eq!((&*element, &*kind), ("failure", "attach-mismatch"));
        assert!(message.contains("the plan requires netkit, kernel reports tcx/"), "{message}");
        assert_eq!(case.properties["attach.used"], "tcx");
        assert_eq!(case.properties["attach.required"], "netkit");
    }
}

/// `make mutants` runs them all.
#[test]
fn a_sample_of_the_mutants_is_caught() {
    let _machine = machine();
    let results = tempfile::tempdir().unwrap();
    let output = lab(&["mutants", "--sample", "6", "--out"]).arg(results.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", words(&output));
    let told = words(&output);
    assert!(told.contains("mutants: 6 made, 6 caught"), "{told}");
}

/// Nothing is fetched twice: kernels are available without any mirror.
#[test]
fn kernels_that_were_fetched_need_no_network() {
    let _machine = machine();
    for attempt in ["with a network", "without"] {
        let mut command = lab(&["kernels", "fetch"]);
        if attempt == "without" {
            for variable in ["NETKIT_LAB_DEBIAN_MIRROR", "NETKIT_LAB_DEBIAN_SECURITY_MIRROR"] {
                command.env(variable, "http://127.0.0.1:9/debian");
            }
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{attempt}: {}", words(&output));
    }
}

/// Who reads the failure knows where the answers came from without a capture, and how to go on.
#[test]
fn a_failure_names_the_actual_and_the_expected_address() {
    let _machine = machine();
    let results = tempfile::tempdir().unwrap();
    let arguments =
        ["run", "--kernel", "6.12", "--case", "T08-service[tc,veth]", "--mutant", "no-reverse-nat", "--out"];
    let output = lab(&arguments).arg(results.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let told = words(&output);
    let line = told.lines().find(|line| line.contains("answered by the service")).unwrap_or_else(|| panic!("{told}"));
    let rest = line.split_once("0 of 3 answered from ").unwrap_or_else(|| panic!("{line}")).1;
    let (wanted, others) = rest.split_once(", 3 delivered; 3 from ").unwrap_or_else(|| panic!("{line}"));
    let answered = others.split_once(" instead").unwrap_or_else(|| panic!("{line}")).0;
    let [wanted, answered] = [wanted, answered].map(|it| it.parse::<std::net::SocketAddr>().unwrap());
    assert_ne!(wanted.ip(), answered.ip(), "{line}");
}
