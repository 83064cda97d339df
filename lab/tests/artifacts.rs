//! Guests run the latest build, wherever the user's cargo builds, and an up-to-date build writes no files.

use lab_base::lock::lock;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Mutex,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PLACES: [&str; 2] = ["target/guest", "ebpf/target"];

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments);
    command
}

/// Tests run one at a time, because a build of one changes files that another one compares.
static ALONE: Mutex<()> = Mutex::new(());

#[track_caller]
fn fine(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every file in the directories in which programs for guests are built, with its metadata.
fn stamps() -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let files = PLACES.iter().flat_map(|place| walkdir::WalkDir::new(Path::new(ROOT).join(place))).flatten();
    let stamp = |meta: fs::Metadata| (meta.ino(), meta.mtime_nsec(), meta.ctime_nsec());
    files.map(|entry| (entry.path().to_owned(), stamp(entry.metadata().unwrap()))).collect()
}

#[test]
fn nothing_is_written_to_the_users_target_directory() {
    let _alone = lock(&ALONE);
    fine(&lab(&["build"]).output().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let place = elsewhere.path().join("target");
    let mut command = lab(&["build"]);
    fine(&command.env("CARGO_BUILD_TARGET_DIR", &place).env("CARGO_TARGET_DIR", &place).output().unwrap());
    assert!(!place.exists(), "something was built where it is not taken from");
}

#[test]
fn an_up_to_date_build_writes_no_files() {
    let _alone = lock(&ALONE);
    fine(&lab(&["build"]).output().unwrap());
    let before = stamps();
    fine(&lab(&["list", "--no-build", "--case", "A01*"]).output().unwrap());
    assert_eq!(stamps(), before);
}

/// Otherwise a command in front of which `lab exec` stands waits for minutes, and says so on its standard error.
#[test]
fn a_lab_does_not_wait_for_one_that_builds_what_is_there() {
    let _alone = lock(&ALONE);
    fine(&lab(&["build"]).output().unwrap());
    let builds = fs::File::open(Path::new(ROOT).join(PLACES[0]).join(".lab-lock")).unwrap();
    builds.lock().unwrap();
    let listed = lab(&["list", "--no-build", "--case", "A01*"]).output().unwrap();
    fine(&listed);
    assert_eq!(String::from_utf8_lossy(&listed.stderr).lines().find(|line| line.contains("waiting")), None);
}

/// Read-only as in a container or a package build of a distribution.
#[test]
fn a_read_only_checkout_is_enough() {
    let _alone = lock(&ALONE);
    fine(&lab(&["build"]).output().unwrap());
    let script = r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && cd "$0" && shift 0 &&
        ! touch "$0/written" 2>/dev/null && exec "$1" --project "$0" list --no-build --case 'A01*'"#;
    let root = Path::new(ROOT).canonicalize().unwrap();
    let output = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(root)
        .arg(env!("CARGO_BIN_EXE_lab"))
        .output()
        .unwrap();
    fine(&output);
}

/// The Makefile and the scripts start the lab that is below cargo's target directory, wherever a person has put that.
#[test]
fn the_scripts_ask_cargo_where_the_lab_is() {
    let _alone = lock(&ALONE);
    let place = |set: &[(&str, &Path)]| {
        let mut command = Command::new(Path::new(ROOT).join("scripts/build-lab"));
        command.arg("--path").env_remove("CARGO_TARGET_DIR").envs(set.iter().copied());
        // A program by this name says where it would have built, so that nothing has to be built for it.
        let path = format!("{}:{}", fake_cargo().display(), std::env::var("PATH").unwrap());
        let output = command.env("PATH", path).output().unwrap();
        fine(&output);
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end())
    };
    let elsewhere = tempfile::tempdir().unwrap();
    for variable in ["CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"] {
        assert_eq!(place(&[(variable, elsewhere.path())]), elsewhere.path().join("release/lab"), "{variable}");
    }
    for script in ["Makefile", "scripts/bisect-demo", "scripts/shards"] {
        let text = fs::read_to_string(Path::new(ROOT).join(script)).unwrap();
        assert!(text.contains("scripts/build-lab --path") && !text.contains("CARGO_TARGET_DIR"), "{script}");
    }
}

/// A cargo that builds nothing and answers as the real one does, by the real one's rule for its target directory.
fn fake_cargo() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-cargo");
    let program = dir.join("cargo");
    let script = r#"#!/bin/sh
target=${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}
case $1 in
    --version) echo "cargo 1.95.0 (0 2026-01-01)" ;;
    metadata) echo "{\"target_directory\":\"$target\",\"build_directory\":\"$target\"}" ;;
    build)
        while [ "$1" != --target-dir ]; do shift; done
        mkdir -p "$2/x86_64-unknown-linux-gnu/release" && cd "$2/x86_64-unknown-linux-gnu/release" && : >lab && chmod +x lab
        ;;
esac
"#;
    fs::create_dir_all(&dir).unwrap();
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    dir
}
