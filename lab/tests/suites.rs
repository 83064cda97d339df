//! `lab exec --suite` on real guests: small suites that this test writes itself, with faults that must not pass.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn lab(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(["--project", ROOT]).args(arguments).current_dir(home);
    command.output().unwrap()
}

fn suite(home: &Path, kernels: &[&str], kind: &[&str], command: &[&str]) -> (Option<i32>, String, String) {
    let results = home.join("results");
    let mut words = vec!["exec", "--isolate", "suite", "--results", results.to_str().unwrap()];
    kernels.iter().for_each(|kernel| words.extend(["-k", *kernel]));
    words.extend(["--suite"]);
    words.extend(kind);
    words.push("--");
    words.extend(command);
    let output = lab(home, &words);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    let latest = results.join("latest/junit.xml");
    let junit = fs::read_to_string(latest).unwrap_or_default();
    assert!(!junit.is_empty(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), shown, junit)
}

fn script(home: &Path, name: &str, mode: u32, body: &str) {
    let path = home.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{body}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// `/tmp` is the guest's own.
fn home() -> tempfile::TempDir {
    tempfile::tempdir_in("/var/tmp").unwrap()
}

#[test]
fn selftests_are_cells_with_their_subtests_and_lies_are_told() {
    let home = home();
    script(home.path(), "net/lies.sh", 0o755, "echo 'TEST: first     [ OK ]'\necho 'TEST: second    [FAIL]'\nexit 0\n");
    script(home.path(), "net/skips.sh", 0o755, "echo 'SKIP: iproute2 too old'\nexit 4\n");
    script(home.path(), "net/cut.sh", 0o755, "echo 'TAP version 13'\necho '1..2'\necho 'ok 1 only'\n");
    script(home.path(), "net/missing.sh", 0o755, "nosuch-tool\n");
    // Not executable: its interpreter runs it, as the selftests' own runner does.
    script(
        home.path(),
        "net/differs.sh",
        0o644,
        "case $(uname -r) in 6.1.*) ok=not\\ ok;; *) ok=ok;; esac\necho 'TAP version 13'\necho '1..1'\necho \"$ok 1 by kernel\"\n[ \"$ok\" = ok ]\n",
    );
    let tests = ["lies", "skips", "cut", "missing", "differs"].map(|name| format!("net/{name}.sh"));
    let tests: Vec<&str> = tests.iter().map(|test| &**test).collect();
    let (code, shown, junit) = suite(home.path(), &["6.1", "6.12"], &["kselftest"], &tests);
    assert_eq!(code, Some(1), "{shown}");
    for line in [
        "net/lies.sh (6.1, 6.12): check: exit code 0, but 1 test failed; the first: second",
        "net/cut.sh (6.1, 6.12): check: 2 tests planned, 1 reported",
        "net/missing.sh (6.1, 6.12): not-started: exit code 127",
        "net/differs.sh::by kernel (6.1)",
        "skipped, 1 test: iproute2 too old",
    ] {
        assert!(shown.contains(line), "no {line:?} in\n{shown}");
    }
    let row = shown.lines().find(|line| line.trim_start().starts_with("net/differs.sh::by kernel")).unwrap_or_default();
    assert!(row.contains("failed") && row.contains("passed"), "{shown}");
    assert!(!shown.lines().any(|line| line.contains("lies.sh::first")), "only differences show:\n{shown}");
    assert!(
        junit.contains("name=\"net/lies.sh::first\"") && junit.contains("classname=\"6.12.kselftest.net\""),
        "{junit}"
    );
}

#[test]
fn a_file_of_test_progs_is_built_for_the_kernel_that_runs_it() {
    let home = home();
    let results = home.path().join("results");
    let words = ["kselftest", "-k", "6.12", "--results", results.to_str().unwrap(), "bpf/tc_netkit"];
    let output = lab(home.path(), &words);
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let junit = fs::read_to_string(results.join("latest/junit.xml")).unwrap();
    for name in ["tc_netkit_basic", "tc_netkit_device", "tc_netkit_multi_links", "tc_netkit_multi_opts"] {
        let cell = format!("name=\"bpf/prog_tests/tc_netkit.c::{name}\"");
        assert!(junit.contains(&cell) && !junit.contains("<skipped"), "no {cell}: {said}");
    }
    // What it attached is seen as of every command.
    assert!(junit.contains("netkit/primary") && junit.contains("netkit/peer"), "{junit}");
    let absent = lab(home.path(), &["kselftest", "-k", "6.12", "bpf/tc_netkti"]);
    let said = String::from_utf8_lossy(&absent.stderr).into_owned();
    assert_eq!(absent.status.code(), Some(2), "{said}");
    assert!(said.contains("`bpf/tc_netkti`") && said.contains("; nearest: bpf/tc_netkit"), "{said}");
}

#[test]
fn a_rust_binary_is_listed_before_a_guest_boots() {
    let home = home();
    let source = "#[test] fn passes() {}\n#[test] fn fails() { assert_eq!(1, 2) }\n#[test] fn dies() { std::process::exit(0) }\n\
                  #[test] #[ignore = \"slow\"] fn later() {}\n";
    fs::write(home.path().join("small.rs"), source).unwrap();
    let built =
        Command::new("rustc").args(["--test", "-o", "small", "small.rs"]).current_dir(home.path()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let (code, shown, junit) = suite(home.path(), &["6.12"], &["libtest"], &["./small"]);
    assert_eq!(code, Some(1), "{shown}");
    // A test that ends its process with 0 has not passed.
    assert!(shown.contains("small::dies (6.12): no-result: it began and never ended"), "{shown}");
    assert!(shown.contains("small::fails (6.12): check: ") && shown.contains("skipped, 1 test: slow"), "{shown}");
    assert!(shown.contains("6.12: 1 passed, 1 failed, 1 skipped, 1 errored"), "{shown}");
    assert!(junit.contains("name=\"small::passes\""), "{junit}");
}

#[test]
fn a_list_that_fails_is_one_line_and_boots_nothing() {
    let home = home();
    script(home.path(), "broken", 0o755, "echo 'no such flag' >&2\nexit 2\n");
    let output = lab(home.path(), &["exec", "-k", "6.12", "--suite", "go", "--", "./broken"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    let line = "cannot list the tests: ./broken -test.list . ended with exit status: 2: no such flag; where it does not run on this host, \
                give their names with --tests FILE";
    assert!(said.contains(line), "{said}");
    let output = lab(home.path(), &["exec", "-k", "6.12", "--suite", "kselftest", "--", "net/absent.sh"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("net/absent.sh is neither a test program nor a directory with kselftest-list.txt"), "{said}");
}
