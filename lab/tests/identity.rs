//! Builds are identified by version and commit.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const MATRIX: &str = "[kernels.mine]\nclass = \"6.7+\"\ndefault = true\nsource.path = { image = \"vmlinuz\" }\n";

fn git(directory: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=k", "-c", "user.email=k@k.example", "-c", "commit.gpgsign=false"];
    let output = Command::new("git").arg("-C").arg(directory).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn commit(directory: &Path, file: &str) -> String {
    fs::write(directory.join(file), file).unwrap();
    git(directory, &["add", "-A"]);
    git(directory, &["commit", "--quiet", "--message", file]);
    git(directory, &["log", "-1", "--format=%h", "--abbrev=12"])
}

#[test]
fn lab_names_version_and_commit() {
    let output = Command::new(env!("CARGO_BIN_EXE_lab")).arg("--version").output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    let commit = told.trim().strip_prefix(concat!("lab ", env!("CARGO_PKG_VERSION"), " (")).expect(&told);
    let commit = commit.strip_suffix(')').expect(&told);
    assert_eq!(told.trim(), format!("lab {}", lab::VERSION));
    if std::env::var_os("NETKIT_LAB_COMMIT").is_none() && Path::new(ROOT).join(".git").exists() {
        let known = commit.strip_suffix("-dirty").unwrap_or(commit);
        assert_eq!(git(Path::new(ROOT), &["cat-file", "-t", known]), "commit", "{told}");
    }
}

/// Lets `lab` build the agent of a project with a cargo that only tells the commit that it was given.
fn given(project: &Path, variable: Option<&str>) -> (String, Output) {
    let (cargo, seen) = (project.join("cache/cargo"), project.join("cache/seen"));
    fs::create_dir_all(project.join("cache")).unwrap();
    fs::write(&cargo, format!("#!/bin/sh\nprintf %s \"$NETKIT_LAB_COMMIT\" >{}\nexit 1\n", seen.display())).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(project).args(["topology", "list"]);
    command.env("CARGO", &cargo).env("NETKIT_LAB_CACHE", project.join("cache")).env_remove("NETKIT_LAB_COMMIT");
    if let Some(variable) = variable {
        command.env("NETKIT_LAB_COMMIT", variable);
    }
    let output = command.output().unwrap();
    (fs::read_to_string(seen).unwrap_or_default(), output)
}

#[test]
fn the_agent_is_named_by_the_last_commit_of_its_own_sources() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::write(root.join("kernels.toml"), MATRIX).unwrap();
    fs::write(root.join(".gitignore"), "cache\n").unwrap();
    fs::create_dir_all(root.join("guest-agent/src")).unwrap();
    let (outside, output) = given(&root, None);
    assert_eq!(outside, "unknown", "outside of a repository: {}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));

    git(&root, &["init", "--quiet"]);
    let first = commit(&root, "guest-agent/src/main.rs");
    assert_eq!(given(&root, None).0, first);
    commit(&root, "README.md");
    assert_eq!(given(&root, None).0, first, "a commit of something else renames no agent");
    fs::write(root.join("README.md"), "changed").unwrap();
    assert_eq!(given(&root, None).0, first, "nor does a change of something else");
    fs::write(root.join("guest-agent/src/new.rs"), "").unwrap();
    assert_eq!(given(&root, None).0, format!("{first}-dirty"));
    let second = commit(&root, "guest-agent/src/new.rs");
    assert_ne!(second, first);
    assert_eq!(given(&root, None).0, second);
    assert_eq!(given(&root, Some("v1.2.3")).0, "v1.2.3", "a packaged build says what it is");

    fs::create_dir_all(root.join("mine/src")).unwrap();
    fs::write(root.join("mine/Cargo.toml"), "[package]\nname = \"mine\"\n").unwrap();
    fs::write(root.join("lab.toml"), "[agent]\npackage = \"mine\"\n").unwrap();
    let third = commit(&root, "mine/src/main.rs");
    commit(&root, "guest-agent/src/main.rs.orig");
    assert_eq!(given(&root, None).0, third, "an own package is named by its own commit");
}
