//! Where the suites are: Debian's packages in the cache, as `make setup-tests` unpacks them.

use lab::setup::Tools;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// Import path of cilium/ebpf.
const EBPF: &str = "github.com/cilium/ebpf";

fn tools() -> Tools {
    Tools::in_cache(&lab_base::paths::cache_dir().unwrap())
}

/// The root of the unpacked packages.
fn root() -> PathBuf {
    let set = tools().suites().expect("the suites are not in the cache: make setup-tests");
    fs::canonicalize(set.root()).unwrap()
}

/// The directory of the programs that the suites call, which are newer than the host's.
pub fn programs() -> PathBuf {
    root().join(lab_base::programs::BIN)
}

/// The directory of the kernel's selftests.
pub fn selftests() -> PathBuf {
    root().join("usr/src/linux-source-6.12/tools/testing/selftests")
}

/// The directory of Python packages.
pub fn python_packages() -> PathBuf {
    root().join("usr/lib/python3/dist-packages")
}

/// The directory of a package of cilium/ebpf, from which its tests read their data.
pub fn go_package(name: &str) -> PathBuf {
    root().join("usr/share/gocode/src").join(EBPF).join(name)
}

/// Path of a test binary of cilium/ebpf, built the first time: a static one, as the lab's users build theirs.
pub fn go_test(package: &str) -> String {
    let name = if package.is_empty() { "ebpf" } else { package };
    go_build(&format!("{name}.test"), &["test", "-c"], &Path::new(EBPF).join(package))
}

/// Path of a program of this directory that uses cilium/ebpf, built in the same way.
pub fn go_program(name: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(format!("{name}.go"));
    go_build(name, &["build"], &source)
}

fn go_build(name: &str, how: &[&str], what: &Path) -> String {
    static BUILD: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILD.lock().unwrap();
    let root = root();
    let version = root.file_name().unwrap().to_string_lossy().into_owned();
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("foreign").join(version);
    let program = place.join(name);
    if !program.exists() {
        fs::create_dir_all(&place).unwrap();
        let mut go = Command::new(root.join(lab_base::programs::BIN).join("go"));
        go.args(how).arg("-o").arg(&program).arg(what).current_dir(&place);
        go.env("GO111MODULE", "off").env("GOPATH", root.join("usr/share/gocode")).env("CGO_ENABLED", "0");
        go.env("GOCACHE", place.join("cache")).env("GOFLAGS", "").env_remove("GOROOT").env("GOTOOLCHAIN", "local");
        let built = go.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    program.display().to_string()
}

/// Copies the sources of a crate that the lab depends on, as its registry has them, without what only its documentation tests
/// need.
pub fn copy_of_crate(name: &str, place: &Path) {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let mut cargo = Command::new("cargo");
    // Crates of other platforms need not be on this machine.
    cargo.args(["metadata", "--format-version", "1", "--offline", "--filter-platform", "x86_64-unknown-linux-gnu"]);
    let told = cargo.current_dir(workspace).output().unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let manifest = packages.iter().find(|package| package["name"] == name).unwrap()["manifest_path"].as_str().unwrap();
    let from = Path::new(manifest).parent().unwrap();
    let copied = Command::new("cp").args(["-r", "--"]).arg(from.join(".")).arg(place).status().unwrap();
    assert!(copied.success());
    let manifest = place.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let (before, rest) = text.split_once("[dev-dependencies").expect("the crate has no [dev-dependencies]");
    let after = rest.split_once("\n[").map_or(String::new(), |(_, after)| format!("[{after}"));
    fs::write(&manifest, format!("{before}{after}\n[workspace]\n")).unwrap();
    // Its own lock file may name versions that were never downloaded.
    fs::copy(Path::new(workspace).join("Cargo.lock"), place.join("Cargo.lock")).unwrap();
}

/// Whether this machine's cargo has nextest, which no package of Debian's and no small build brings.
pub fn has_nextest() -> bool {
    let asked = Command::new("cargo").args(["nextest", "--version"]).output();
    asked.is_ok_and(|output| output.status.success())
}
