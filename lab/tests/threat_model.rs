//! `docs/threat-model.md` promises nothing that no test shows, and some promises are about the sources themselves.

use std::{collections::BTreeSet, fs, path::Path};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const CRATES: [&str; 4] = ["lab", "images", "guest-agent", "crates"];

fn sources() -> Vec<(String, String)> {
    let all = CRATES.iter().flat_map(|name| walkdir::WalkDir::new(Path::new(ROOT).join(name)).into_iter().flatten());
    let rust = all.filter(|entry| entry.path().extension().is_some_and(|it| it == "rs"));
    rust.map(|entry| (entry.path().display().to_string(), fs::read_to_string(entry.path()).unwrap())).collect()
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/threat-model.md")).unwrap();
    let rows: Vec<Vec<&str>> = page
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
    // Faults and canaries are tests by the names of their rows.
    let tables = fs::read_to_string(Path::new(ROOT).join("docs/faults.md")).unwrap();
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

/// The places that name a shell, and why that starts none with a text of the lab's making: the build command that a person
/// gave on the command line, as they gave it; the pod of a plan, which the lab writes and never runs; the tools of the image
/// for `lab shell`, and the package that they come from.
const NAMED: [(&str, &str); 5] = [
    ("/kernel-store/src/checkout.rs", r#"process::command("sh", ["-c", command])"#),
    ("/shard/layout/kubernetes.rs", r#""command": ["/bin/sh", "-c", script]"#),
    ("/images/src/toolbox.rs", r#"const BASH: &str = "bash";"#),
    ("/images/src/toolbox.rs", r#"(BASH, "bash")"#),
    ("/setup/private/sets.rs", r#"        "bash","#),
];

/// Programs get arguments, never a command line: no shell is started by the lab itself.
#[test]
fn no_shell_is_ever_started() {
    let mut looked = 0;
    for (path, text) in sources() {
        let tests = path.contains("/tests/") || path.contains("_tests.rs") || path.ends_with("tests.rs");
        // In a guest that a person enters a shell is what was asked for.
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
