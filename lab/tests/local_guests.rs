//! Kernels of this host in real guests: what they lack, by their command line or by their modules, is no failure of theirs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn lab(project: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(project).args(arguments).env("CI", "true").output().unwrap()
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A project whose one kernel is that of 6.12, with these lines in its table; guests' programs are this project's.
fn project(lines: &str, modules: bool) -> tempfile::TempDir {
    let root = Path::new(ROOT).canonicalize().unwrap();
    fine(&lab(&root, &["build"]));
    let said = fine(&lab(&root, &["kernels", "fetch", "--kernel", "6.12"]));
    let kernel = PathBuf::from(said.trim_end().rsplit(" at ").next().unwrap()).parent().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    for name in ["target", "ebpf"] {
        symlink(root.join(name), dir.path().join(name)).unwrap();
    }
    let at = |name: &str| kernel.join(name).display().to_string();
    let modules = if modules { format!(", modules = \"{}\"", at("modules")) } else { String::new() };
    let source = format!("source.path = {{ image = \"{}\", config = \"{}\"{modules} }}", at("vmlinuz"), at("config"));
    let matrix = format!("[kernels.mine]\nclass = \"6.7+\"\ndefault = true\n{source}\n{lines}\n");
    fs::write(dir.path().join("kernels.toml"), matrix).unwrap();
    dir
}

/// The counts of a run of some cases.
fn counts(project: &Path, cases: &[&str]) -> (Option<i32>, serde_json::Value) {
    // A kernel that is named: a whole matrix fails for cases that none of its kernels can run.
    let mut arguments = vec!["run", "--no-build", "--kernel", "mine"];
    cases.iter().for_each(|case| arguments.extend(["--case", case]));
    let output = lab(project, &arguments);
    let summary = fs::read(project.join("results/latest/run.json")).unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&summary).unwrap();
    (output.status.code(), summary["counts"].clone())
}

#[test]
fn without_ipv6_the_ipv4_half_runs() {
    let project = project("cmdline = [\"ipv6.disable=1\"]", true);
    let (code, counts) = counts(project.path(), &["A01*", "T01*", "T02*", "V09*", "T10-vxlan-over-ipv6*"]);
    assert_eq!(code, Some(0), "{counts}");
    assert!(counts["passed"].as_u64().unwrap() > 20 && counts["skipped"].as_u64().unwrap() > 0, "{counts}");
}

/// An image alone has no veth: by its version it must have it.
#[test]
fn probes_that_are_believed_make_a_missing_capability_a_skip() {
    let cases = ["A01-*veth*", "A02-*nk-l3*"];
    let strict = project("", false);
    let (code, by_version) = counts(strict.path(), &cases);
    assert_eq!((code, by_version["failed"].as_u64() > Some(0)), (Some(1), true), "{by_version}");
    let believing = project("believe = \"probes\"\nreason = \"an image without its modules\"", false);
    let (code, by_probes) = counts(believing.path(), &cases);
    assert_eq!((code, by_probes["failed"].as_u64()), (Some(0), Some(0)), "{by_probes}");
    assert!(by_probes["skipped"].as_u64().unwrap() > 0 && by_probes["passed"].as_u64().unwrap() > 0, "{by_probes}");
    // What is stated must be there all the same.
    let wrong = project("has = [\"netkit-single\"]\nreason = \"a backport that is not\"", true);
    let (code, stated) = counts(wrong.path(), &["D07*"]);
    assert_eq!(code, Some(1), "{stated}");
}

/// What a project turns off on purpose is no failure of its kernel; the rest of the suite goes on.
#[test]
fn what_the_command_line_turns_off_is_skipped() {
    let words = [
        "module_blacklist=veth,nf_tables,vxlan",
        "sysctl.net.core.bpf_jit_enable=0",
        "sysctl.user.max_user_namespaces=0",
        "sysctl.net.ipv4.conf.default.rp_filter=1",
        "lockdown=integrity",
    ];
    let project = project(&format!("cmdline = {words:?}"), true);
    let cases = ["A01-*", "A02-*", "T01-*", "T02-*", "T10-*", "N16-*", "H01-*"];
    let (code, counts) = counts(project.path(), &cases);
    assert_eq!((code, counts["failed"].as_u64(), counts["errored"].as_u64()), (Some(0), Some(0), Some(0)), "{counts}");
    assert!(counts["passed"].as_u64() > Some(10) && counts["skipped"].as_u64() > Some(10), "{counts}");
}

/// A variant has its kernel's files and parameters of its own, which a command in its guest sees.
#[test]
fn a_variant_boots_with_its_parameters() {
    let lines = "\n[kernels.mine.variants.hardened]\ncmdline = [\"lockdown=integrity\"]\n\
                 sysctls = [\"net.core.bpf_jit_harden=2\"]\n";
    let project = project(lines, true);
    let read = ["cat", "/proc/sys/net/core/bpf_jit_harden", "/sys/kernel/security/lockdown"];
    let seen =
        |kernel: &str| fine(&lab(project.path(), &[&["exec", "--no-build", "-k", kernel, "--"], &read[..]].concat()));
    assert_eq!(seen("mine+hardened"), "2\nnone [integrity] confidentiality\n");
    assert_eq!(seen("mine"), "0\n[none] integrity confidentiality\n");
    let listed = fine(&lab(project.path(), &["kernels", "list", "--format", "json"]));
    assert!(listed.contains("variant of mine: lockdown=integrity sysctl.net.core.bpf_jit_harden=2"), "{listed}");
}
