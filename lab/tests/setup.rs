//! Set-up on machines that are made up from programs on `PATH`: nothing of this host is changed.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

/// A Debian without a package, whose apt-get does as the script says.
fn debian(dir: &Path, apt_get: &str) {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).unwrap();
    let program = |name: &str, script: &str| {
        let path = bin.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    };
    program("dpkg-query", "exit 1");
    program("apt-cache", "shift; for name; do printf '%s:\\n  Candidate: 1\\n' \"$name\"; done");
    program("apt-get", apt_get);
    program("sudo", "[ \"$1\" = -n ] && shift; exec \"$@\"");
}

fn setup(dir: &Path, arguments: &[&str]) -> Output {
    let path = format!("{}:{}", dir.join("bin").display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("setup").args(arguments).env("PATH", path).env("NETKIT_LAB_CACHE", dir.join("cache"));
    command.output().unwrap()
}

#[test]
fn conflicting_packages_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let removes = "[ \"$2\" = update ] && exit 0\n\
                   echo 'The following packages will be REMOVED:'; echo '  rustc cargo'; echo '  llvm'\n\
                   echo 'The following NEW packages will be installed:'; echo '  rustc-web'\n\
                   echo 'E: Packages need to be removed but remove is disabled.'; exit 100";
    debian(dir.path(), removes);
    let output = setup(dir.path(), &["--system"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{error}");
    for told in ["would remove rustc, cargo, llvm from this machine", "remove rustc, cargo, llvm by hand"] {
        assert!(error.contains(told), "{error}");
    }
}

/// The doctor's fix for an absent busybox on a host with this /etc/os-release, which has dpkg and apt lying about.
fn fix_for_busybox(os_release: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    debian(dir.path(), "exit 1");
    let file = dir.path().join("os-release");
    fs::write(&file, os_release).unwrap();
    let root = nix::unistd::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.args(if root { &["--mount"][..] } else { &["--user", "--map-root-user", "--mount"] });
    let script = "mount --bind \"$1\" /etc/os-release && PATH=$2 && export PATH && shift 2 && exec \"$@\"";
    command.args(["sh", "-c", script, "sh"]).arg(&file).arg(dir.path().join("bin"));
    command.arg(env!("CARGO_BIN_EXE_lab")).args(["doctor", "--json"]).env("NETKIT_LAB_CACHE", dir.path().join("cache"));
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let busybox = findings.iter().find(|finding| finding["name"] == "busybox").unwrap();
    busybox["fix"].as_str().unwrap().to_owned()
}

#[test]
fn the_distribution_is_read_from_os_release_not_from_programs() {
    assert_eq!(fix_for_busybox("ID=debian\nVERSION_CODENAME=trixie\n"), "make setup");
    assert_eq!(fix_for_busybox("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"), "make setup");
    assert_eq!(fix_for_busybox("ID=fedora\n"), "sudo dnf install busybox");
    assert_eq!(fix_for_busybox("ID=arch\n"), "sudo pacman -S busybox");
}
