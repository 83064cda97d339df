//! Kernels of another architecture: what is refused, and, in `make arm64`, the cases about attaching and verdicts on one.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The kernel of this checkout's matrix, and the one of the same series for x86-64.
const KERNELS: [&str; 2] = ["6.12-arm64", "6.12"];

fn lab(project: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(project).args(arguments).env("CI", "true").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A project with one kernel of a Debian package, which is in no lock.
fn project(source: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text =
        format!("[kernels.mine]\nclass = \"6.7+\"\ndefault = true\nsource.deb = {{ suite = \"trixie\", {source} }}\n");
    fs::write(dir.path().join("kernels.toml"), text).unwrap();
    dir
}

#[test]
fn programs_of_the_host_are_not_run_in_guests_of_another_architecture() {
    for (code, command) in
        [(125, &["exec", "-k", KERNELS[0], "--", "true"][..]), (2, &["shell", KERNELS[0], "--", "true"])]
    {
        let output = lab(Path::new(ROOT), command);
        let told = said(&output);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {told}");
        assert!(told.contains("6.12-arm64 is for arm64, and the programs of this host are for amd64"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let bisect = ["bisect", "--case", "A01-*", "--good", "6.1", "--bad", KERNELS[0], "--no-build"];
    let output = lab(Path::new(ROOT), &bisect);
    assert!(
        said(&output).contains("6.12-arm64 is for arm64: --good and --bad must be kernels for amd64"),
        "{output:?}"
    );
}

#[test]
fn an_unknown_architecture_is_refused_where_it_is_written() {
    let dir = project("package = \"linux-image-riscv64\", arch = \"riscv64\"");
    let output = lab(dir.path(), &["kernels", "list"]);
    let told = said(&output);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("kernels.toml:4") && told.contains("must be one of: amd64, arm64"), "{told}");
}

#[test]
fn a_lock_of_another_architecture_is_stale() {
    let dir = project("package = \"linux-image-*\", arch = \"arm64\"");
    let (sha, suite) = ("0".repeat(64), "suite = \"trixie\"\npackage = \"linux-image-6.12.1-arm64\"");
    let lock = |arch: &str| {
        let text = format!(
            "[kernels.mine]\nsource = \"deb\"\n{suite}\n{arch}version = \"6.12.1-1\"\nsha256 = \"{sha}\"\nkernel = \"6.12.1\"\n"
        );
        fs::write(dir.path().join("kernels.lock"), text).unwrap();
        String::from_utf8_lossy(&lab(dir.path(), &["kernels", "list"]).stdout).into_owned()
    };
    let own = lock("");
    assert!(own.contains("run `lab kernels update"), "{own}");
    let right = lock("arch = \"arm64\"\n");
    assert!(right.contains("6.12.1-1") && !right.contains("run `lab kernels update"), "{right}");
}

#[test]
#[ignore = "emulates a guest of arm64 for some minutes"]
fn the_cases_about_attaching_and_verdicts_pass_on_arm64_as_on_x86() {
    let results = tempfile::tempdir().unwrap();
    let out = results.path().to_str().unwrap();
    let kernels = KERNELS.join(",");
    let output = lab(Path::new(ROOT), &["run", "-k", &kernels, "A*", "V*", "--out", out]);
    println!("{}{}", String::from_utf8_lossy(&output.stdout), said(&output));
    assert!(output.status.success());
    let run = fs::read(results.path().join("latest/run.json")).unwrap();
    let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
    let of = |kernel: &str, what: &str| run["kernels"][kernel][what].clone();
    assert_eq!(of(KERNELS[0], "arch"), "arm64");
    assert!(of(KERNELS[0], "release").as_str().is_some_and(|release| release.ends_with("-cloud-arm64")));
    assert_eq!(of(KERNELS[0], "counts"), of(KERNELS[1], "counts"));
    assert!(of(KERNELS[0], "counts")["passed"].as_u64() > Some(50), "{run}");
}
