//! The command that repeats a failure, run in the directory of the run.

use super::package::{lab, packages, plain, project, words};
use quick_xml::{Reader, events::Event};
use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    process::{Command, Output},
};

/// A deliberate fault that a cell notices.
const FAILING: [&str; 6] = ["run", "--kernel", "6.12", "--canary", "--case", "Z02*"];

/// The `repro` properties of a run, by the name of the test case.
fn repros(results: &Path) -> Vec<(String, String)> {
    let text = fs::read_to_string(results.join("latest/junit.xml")).unwrap();
    let mut reader = Reader::from_str(&text);
    let (mut found, mut case) = (Vec::new(), String::new());
    loop {
        match reader.read_event().unwrap() {
            Event::Eof => return found,
            Event::Start(tag) | Event::Empty(tag) => {
                let value = |key: &str| {
                    let attribute = tag.try_get_attribute(key).unwrap()?;
                    Some(attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).unwrap().into_owned())
                };
                if tag.name().as_ref() == b"testcase" {
                    case = value("name").unwrap();
                } else if value("name").as_deref() == Some("repro") {
                    found.push((case.clone(), value("value").unwrap()));
                }
            }
            _ => {}
        }
    }
}

/// Pastes a line into a shell in a directory.
fn paste(directory: &Path, path: &Path, line: &str) -> Output {
    let mut command = Command::new("sh");
    plain(command.current_dir(directory).args(["-c", line]));
    command.env("PATH", format!("{}:/usr/bin:/bin", path.display())).output().unwrap()
}

#[test]
fn the_command_calls_the_lab_as_the_run_did() {
    let project = project();
    let prefix = &packages().prefix;
    let below = project.path().join("below");
    fs::create_dir(&below).unwrap();
    symlink(prefix.join("bin"), project.path().join("a b")).unwrap();
    let absolute = prefix.join("bin/lab").display().to_string();
    let root = project.path().canonicalize().unwrap().display().to_string();
    let cell = "--case A01-aya-attach";
    // How it is called, from where, and how the line begins.
    for (program, directory, begin) in [
        ("lab".to_owned(), project.path(), "lab run --kernel 6.12".to_owned()),
        (absolute.clone(), &below, format!("{absolute} run --kernel 6.12")),
        ("'a b/lab'".to_owned(), project.path(), "'a b/lab' run --kernel 6.12".to_owned()),
        ("lab --project ..".to_owned(), &below, "lab --project .. run --kernel 6.12".to_owned()),
        (format!("MAKELEVEL=1 {absolute}"), &below, format!("{absolute} --project {root} run --kernel 6.12")),
    ] {
        let output =
            paste(directory, &prefix.join("bin"), &format!("{program} run --kernel 6.12 --case 'A01-*' -a tc"));
        assert!(output.status.success(), "{program}: {}", words(&output));
        let all = repros(&project.path().join("results"));
        let (_, line) =
            all.iter().find(|(_, line)| line.contains(" --case A01") || line.contains(" --case 'A01")).expect(cell);
        assert!(line.starts_with(&begin), "{program}: {line}");
        let again = paste(if line.contains(&root) { Path::new("/") } else { directory }, &prefix.join("bin"), line);
        assert!(again.status.success(), "{line}: {}", words(&again));
        // A row of the guest is about all of the run's cells.
        let (_, row) = all.iter().find(|(name, _)| name == "boot").expect("a row");
        assert_eq!(*row, format!("{begin} --case 'A01-*' --attach tc"));
    }
}

#[test]
fn it_repeats_the_failure() {
    let project = project();
    let output = lab(project.path(), &FAILING).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", words(&output));
    let told = words(&output);
    let line = told.lines().map(str::trim).find(|line| line.contains("bin/lab run --kernel 6.12 --case "));
    let line = line.unwrap_or_else(|| panic!("no command: {told}"));
    let again = paste(project.path(), Path::new("/nonexistent"), line);
    assert_eq!(again.status.code(), Some(1), "{line}: {}", words(&again));
}

#[test]
fn the_command_repeats_a_kernel_that_is_not_in_kernels_toml() {
    let listed = project();
    let said = lab(listed.path(), &["kernels", "fetch", "--kernel", "6.12"]).output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let kernel = Path::new(said.trim_end().rsplit(" at ").next().unwrap()).parent().unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(kernel.join("vmlinuz"), dir.path().join("bzImage")).unwrap();
    let output = lab(dir.path(), &["run", "--image", "bzImage", "--case", "A01-*veth*"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "an image without its modules: {}", words(&output));
    let all = repros(&dir.path().join("results"));
    let line = all.iter().map(|(_, line)| line).find(|line| line.contains(" --case ")).expect("a failed cell");
    assert!(line.contains("/lab run --image bzImage --case "), "{line}");
    assert_eq!(paste(dir.path(), Path::new("/nonexistent"), line).status.code(), Some(1));
}
