//! Test suites that others wrote, run by `lab exec` on the default matrix: each test must have the verdict that
//! `expected.toml` gives it, with its reason. A short form is one of the usual tests; `make foreign` runs all.

mod expected;
mod runs;
mod suites;

use expected::Expected;
use lab::check::corpus;
use runs::{KERNELS, Run};
use std::{fs, path::Path};

/// One kernel for the short form.
const ONE: [&str; 1] = ["6.12"];

/// What cilium/ebpf finds out about a kernel by its own feature probes: another loader's view of the matrix.
fn features(kernels: &[&str]) -> Vec<String> {
    let program = suites::go_test("features");
    Expected::of("ebpf-features").check(&Run::new("ebpf-features").on(kernels, &[&program, "-test.v"]), runs::go)
}

fn link(kernels: &[&str], only: &[&str]) -> Vec<String> {
    let program = suites::go_test("link");
    let expected = Expected::of("ebpf-link");
    let words = [&[&*program, "-test.v"], only].concat();
    let run = Run::new("ebpf-link").within(&suites::go_package("link")).on(kernels, &words);
    expected.check(&run, runs::go)
}

/// Kernel selftests: a guest for each, as upstream's runner gives each a process.
fn selftests(kernels: &[&str], wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let expected = Expected::of("selftests-net");
    let of = |test: &String| {
        let place = suites::selftests().join("net");
        let run = Run::new("selftests-net").within(&place).with_tools().on(kernels, &["bash", test]);
        expected.check(&run, |cell| runs::exit_code(test, cell))
    };
    expected.tests.iter().filter(|test| wanted(test)).flat_map(of).collect()
}

fn python(kernels: &[&str], only: &[&str]) -> Vec<String> {
    let expected = Expected::of("psutil");
    let packages = suites::python_packages();
    let python_path = format!("PYTHONPATH={}", packages.display());
    // The tests wait three times as long where psutil's own CI builds wheels.
    let options = ["--env", &python_path, "--env", "PYTHONDONTWRITEBYTECODE=1", "--env", "CIBUILDWHEEL=1"];
    let fixed = ["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA", "--tb=line", "-k"];
    let of = |module: &String| {
        let file = packages.join("psutil/tests").join(module).display().to_string();
        let words = [&fixed[..], only, &[&file]].concat();
        expected.check(&Run::new("psutil").options(&options).on(kernels, &words), runs::pytest)
    };
    expected.tests.iter().flat_map(of).collect()
}

/// A program of ebpf-go as the loader of `lab check`: the kernel lists its programs at ingress, and packets go through them.
fn loads_an_object(kernel: &str) {
    let program = suites::go_program("object-loader");
    let scratch = tempfile::tempdir().unwrap();
    let object = scratch.path().join("longer.o");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check/corpus/longer.c");
    corpus::compile(&source, &object, &lab_base::paths::cache_dir().unwrap()).unwrap();
    let told = runs::check(kernel, &format!("cmd:{program}"), &object);
    let kernels = told["objects"][0]["kernels"].as_array().unwrap();
    let go = kernels.iter().find(|it| it["loader"] == "object-loader").unwrap();
    assert_eq!(go["standing"], "passed", "{told}");
    let hooks = go["facts"]["hooks"].as_array().unwrap();
    let places: Vec<_> =
        hooks.iter().map(|hook| (hook["hook"].as_str(), hook["packets"][0]["fate"].as_str())).collect();
    assert_eq!(places, [(Some("tcx-ingress"), Some("changed"))], "{go}");
    assert!(go["attached"].to_string().contains("tcx/ingress"), "the witness tells it too: {go}");
    assert_eq!(told["objects"][0]["findings"], serde_json::json!([]), "it does what libbpf does: {told}");
}

/// A crate's tests, with the lab as cargo's runner.
fn cargo_tests(kernel: &str, only: &[&str]) -> Option<String> {
    let crate_dir = tempfile::tempdir().unwrap();
    suites::copy_of_crate("tempfile", crate_dir.path());
    let told = runs::cargo_tests(kernel, crate_dir.path(), only);
    Expected::of("tempfile").check_one(kernel, &told)
}

/// What one of the suites found, alone.
fn query(kernels: &[&str]) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign/query.py");
    let run = Run::new("query").on(kernels, &["/usr/bin/python3", script]);
    Expected::of("query").check(&run, |cell| runs::exit_code("query.py", cell))
}

#[test]
fn the_suites_of_others_in_short() {
    let only = ["-test.run", "^(TestQueryPrograms|TestProgAttachCgroup|TestLinkXDP|TestAttachXDP|TestNetNS.*)$"];
    let wrong = [
        features(&KERNELS),
        query(&KERNELS),
        link(&ONE, &only),
        selftests(&ONE, |test| ["netns-name.sh", "vlan_hw_filter.sh"].contains(&test)),
        python(&ONE, &["TestUnconnectedSockets or TestSystemNetIfAddrs"]),
        cargo_tests(ONE[0], &["--test", "tempfile", "test_basic"]).into_iter().collect(),
    ];
    expected::assert_all_fit(wrong.concat());
}

#[test]
#[ignore = "takes 10 minutes: make foreign"]
fn cilium_ebpf_on_the_matrix() {
    let links = link(&KERNELS, &["-test.skip", "^TestQueryPrograms$"]);
    let program = suites::go_test("link");
    let query = Run::new("ebpf-query").on(&KERNELS, &[&program, "-test.v", "-test.run", "^TestQueryPrograms$"]);
    let query = Expected::of("ebpf-query").check(&query, runs::go);
    let program = suites::go_test("");
    let run = Run::new("ebpf-prog").within(&suites::go_package("")).on(&KERNELS, &[&program, "-test.v"]);
    expected::assert_all_fit([links, query, Expected::of("ebpf-prog").check(&run, runs::go)].concat());
}

#[test]
#[ignore = "takes 10 minutes: make foreign"]
fn selftests_of_the_kernel_on_the_matrix() {
    expected::assert_all_fit(selftests(&KERNELS, |_| true));
}

#[test]
#[ignore = "takes 5 minutes: make foreign"]
fn pytest_on_the_matrix() {
    expected::assert_all_fit(python(&KERNELS, &[""]));
}

#[test]
#[ignore = "takes 10 minutes: make foreign"]
fn a_crate_s_tests_on_the_matrix() {
    let only = ["--test", "env", "--test", "namedtempfile", "--test", "tempdir", "--test", "tempfile"];
    expected::assert_all_fit(KERNELS.into_iter().filter_map(|kernel| cargo_tests(kernel, &only)));
}

#[test]
fn every_expected_verdict_has_a_reason() {
    let text = fs::read_to_string(Path::new(expected::FILE)).unwrap();
    expected::check_reasons(&text);
}

#[test]
#[ignore = "part of `make foreign`"]
fn a_program_of_ebpf_go_is_a_loader_of_objects() {
    loads_an_object("6.12");
}
