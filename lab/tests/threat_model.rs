//! Checks that tests exist for all promises of `docs/threat-model.md`; some promises about the sources are tested here.

use std::{collections::BTreeSet, fs, path::Path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CRATES: [&str; 4] = ["lab", "images", "guest-agent", "crates"];

fn sources() -> Vec<(String, String)> {
    let all = CRATES.iter().flat_map(|name| walkdir::WalkDir::new(Path::new(ROOT).join(name)).into_iter().flatten());
    let rust = all.filter(|entry| entry.path().extension().is_some_and(|it| it == "rs"));
    rust.map(|entry| (entry.path().display().to_string(), fs::read_to_string(entry.path()).unwrap())).collect()
}

#[test]
fn every_test_in_the_threat_model_exists() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/threat-model.md")).unwrap();
    let (promises, attacks) = page.split_once("\n## Attacks\n").expect("the attacks come after the promises");
    let rows: Vec<Vec<&str>> = promises
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| promise"))
        .map(|line| line.trim_matches('|').split(" | ").collect())
        .collect();
    assert!(rows.len() >= 10, "{rows:?}");
    let sources = sources();
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (_, text) in &sources {
        let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
        known.extend(lines.filter_map(|line| line.split(['(', '<']).next()).map(str::to_owned));
    }
    // Faults, attacks and canaries are tests by the names of their rows.
    let tables = fs::read_to_string(Path::new(ROOT).join("docs/faults.md")).unwrap() + attacks;
    known.extend(tables.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned));
    let canaries = sources.iter().filter(|(path, _)| path.contains("crates/suite/src/canary"));
    known.extend(
        canaries.flat_map(|(_, text)| text.split('"').filter(|word| word.starts_with("must-")).map(str::to_owned)),
    );
    for row in &rows {
        let [promise, how, tests] = row[..] else { panic!("a row has a promise, how it is kept, and tests: {row:?}") };
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty() && !how.trim().is_empty(), "{promise}");
        for test in named {
            let name = test.rsplit("::").next().unwrap();
            assert!(known.contains(name), "{promise}: there is no test `{test}`");
        }
    }
}

/// The allowed places that name a shell. None of them runs text that the lab composed: the build command from the command
/// line, which is passed unchanged; the command of `lab bisect --exec`, which a guest runs; the pod of a plan, which the lab
/// writes but never runs; the tools of the image for `lab shell`, and their package.
const NAMED: [(&str, &str); 6] = [
    ("/cli/exec/mod.rs", r#"[b"sh", b"-c", command]"#),
    ("/kernel-store/src/checkout.rs", r#"process::command("sh", ["-c", command])"#),
    ("/shard/layout/kubernetes.rs", r#""command": ["/bin/sh", "-c", script]"#),
    ("/images/src/toolbox.rs", r#"const BASH: &str = "bash";"#),
    ("/images/src/toolbox.rs", r#"(BASH, "bash")"#),
    ("/setup/private/sets.rs", r#"        "bash","#),
];

/// The places that name a stream of the program, and why that is no way around the one writer: the writer itself; a
/// program's own bytes in `lab shell` and `lab exec`, which a person started to see them; bars, whose words are escaped where they are put
/// in; clap's answer to a wrong command line, which has the person's own words; an example in the documentation.
const STREAMS: [&str; 8] = [
    "/base/src/say.rs",
    "/cli/exec/go.rs",
    "/run/program/streams.rs",
    "/cli/shell.rs",
    "/shell/terminal.rs",
    "/report/src/progress.rs",
    "/lab/src/main.rs",
    "/lab/src/lib.rs",
];

/// Whatever is printed passes the writer that makes visible what steers a terminal or commands a CI system.
#[test]
fn everything_is_printed_by_the_one_writer() {
    let ways = [
        " print!(",
        "println!(",
        "eprint!(",
        "eprintln!(",
        "io::stdout",
        "io::stderr",
        "stdout()",
        "stderr()",
        "dbg!(",
    ];
    let host = [
        "/lab/src/",
        "/images/src/",
        "/base/src/",
        "/guard/src/",
        "/record/src/",
        "/report/src/",
        "/vm/src/",
        "/kernel-store/src/",
        "/relay/src/",
        "/share/src/",
    ];
    let mut looked = 0;
    for (path, text) in sources() {
        let tests = path.contains("/tests/") || path.contains("_tests.rs") || path.ends_with("tests.rs");
        if tests
            || !host.iter().any(|part| path.contains(part))
            // The stand-in for QEMU, which tests start: it answers as QEMU does.
            || path.ends_with("/vm/src/fake.rs")
            || path.ends_with("/fake/stand_in.rs")
            || STREAMS.iter().any(|allowed| path.ends_with(allowed))
        {
            continue;
        }
        looked += 1;
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.replace("say::stderr()", "").replace("stderr_to_stdout()", "");
        for way in ways {
            assert!(!code.contains(way), "{path} has {way}: lab_base::say has `say` and `show`");
        }
    }
    assert!(looked > 100, "{looked} files only");
}

/// Directories for a while are made where others can't enter them, and sockets are connected to where they are one's
/// own.
#[test]
fn directories_and_sockets_are_only_used_through_the_guard() {
    let mut looked = 0;
    for (path, text) in sources() {
        let tests = path.contains("/tests/")
            || path.contains("_tests.rs")
            || path.ends_with("tests.rs")
            || path.ends_with("fuzz.rs");
        let host = [
            "/lab/src/",
            "/images/src/",
            "/vm/src/",
            "/kernel-store/src/",
            "/report/src/",
            "/record/src/",
            "/base/src/",
        ];
        if tests || !host.iter().any(|part| path.contains(part)) {
            continue;
        }
        looked += 1;
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for way in ["tempfile::tempdir()", "TempDir::new", "UnixStream::connect("] {
            assert!(!code.contains(way), "{path} has {way}: lab_guard::private has a way of its own");
        }
    }
    assert!(looked > 100, "{looked} files only");
}

/// Programs are started with an argument vector; the lab starts no shell.
#[test]
fn no_shell_is_ever_started() {
    let mut looked = 0;
    for (path, text) in sources() {
        let tests = path.contains("/tests/") || path.contains("_tests.rs") || path.ends_with("tests.rs");
        // `lab shell` starts a shell in a guest on request.
        let entered = path.contains("/guest-agent/src/shell/");
        if tests || entered || path.contains("/build.rs") {
            continue;
        }
        looked += 1;
        let mut code = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
        for (_, place) in NAMED.iter().filter(|(file, _)| path.ends_with(file)) {
            assert_eq!(code.matches(place).count(), 1, "{path}: {place}");
            code = code.replacen(place, "", 1);
        }
        for shell in ["\"sh\"", "\"bash\"", "\"/bin/sh\"", "\"/bin/bash\"", "duct_sh", "libc::system("] {
            assert!(!code.contains(shell), "{path} has {shell}");
        }
    }
    assert!(looked > 100, "{looked} files only");
}
