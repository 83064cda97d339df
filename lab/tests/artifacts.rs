//! What guests run is what was built last, wherever a person has cargo build, and asking for it writes nothing.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PLACES: [&str; 2] = ["target/guest", "ebpf/target"];

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments);
    command
}

#[track_caller]
fn fine(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Every file below the places where guests' programs are built, with all that a write changes.
fn stamps() -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let files = PLACES.iter().flat_map(|place| walkdir::WalkDir::new(Path::new(ROOT).join(place))).flatten();
    let stamp = |meta: fs::Metadata| (meta.ino(), meta.mtime_nsec(), meta.ctime_nsec());
    files.map(|entry| (entry.path().to_owned(), stamp(entry.metadata().unwrap()))).collect()
}

#[test]
fn another_target_directory_of_the_persons_gets_nothing() {
    fine(&lab(&["list", "--case", "A01*"]).output().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let place = elsewhere.path().join("target");
    let mut command = lab(&["list", "--case", "A01*"]);
    fine(&command.env("CARGO_BUILD_TARGET_DIR", &place).env("CARGO_TARGET_DIR", &place).output().unwrap());
    assert!(!place.exists(), "something was built where it is not taken from");
}

#[test]
fn nothing_is_written_where_nothing_is_built() {
    fine(&lab(&["list", "--case", "A01*"]).output().unwrap());
    let before = stamps();
    fine(&lab(&["list", "--no-build", "--case", "A01*"]).output().unwrap());
    assert_eq!(stamps(), before);
}

/// As in a container or a build of a distribution.
#[test]
fn a_read_only_checkout_is_enough() {
    fine(&lab(&["list", "--case", "A01*"]).output().unwrap());
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
