//! The witness on real guests: its account of a loader that knows nothing of it, and the demands on that account.
//!
//! The truth is the loader's: `crates/bpf/examples/attach.rs` does what its arguments say.

mod fallback;
mod large;
mod live;
mod loaders;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::Once,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LAB: &str = env!("CARGO_BIN_EXE_lab");
/// Devices for the loader: veth on any kernel, netkit where there is one; up, so that they have traffic.
const DEVICES: &str = "ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up; \
                       ip addr add 192.0.2.1/24 dev v1; ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev v1; \
                       ip link add p0 type netkit 2>/dev/null && ip link set p0 up; ";

/// The loader, built once.
fn loader() -> PathBuf {
    let path = PathBuf::from(LAB).with_file_name("examples").join("attach");
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "lab-bpf", "--example", "attach"]).current_dir(ROOT);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the loader can't be built");
        // A run of no case builds the agent.
        let built =
            Command::new(LAB).args(["--project", ROOT, "run", "--kernel", "6.12", "--case", "nosuch-case"]).output();
        assert_eq!(built.unwrap().status.code(), Some(4));
    });
    path
}

/// Runs a script in which `attach` is the loader, with the account on standard error.
fn watched(kernel: &str, arguments: &[&str], script: &str) -> Output {
    let loader = loader();
    let script = format!("attach() {{ '{}' \"$@\"; }}; {DEVICES}{script}", loader.display());
    let mut lab = Command::new(LAB);
    lab.args(["--project", ROOT, "exec", "--no-build", "-k", kernel, "--no-input"]);
    if !arguments.contains(&"--witness") {
        lab.args(["--witness", "show"]);
    }
    lab.args(arguments).args(["--", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap()
}

/// The exit code of a command that the account fails. What fails on the newest kernel is told and does not count.
fn failure(kernel: &str) -> Option<i32> {
    Some(i32::from(kernel != "newest"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The lines of the account that have all of these words.
fn with<'a>(account: &'a str, words: &[&str]) -> Vec<&'a str> {
    account.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[track_caller]
fn has(account: &str, words: &[&str]) {
    assert!(!with(account, words).is_empty(), "no line with {words:?} in:\n{account}");
}

/// What every kernel has is in one guest: a guest is most of a test's time.
#[test]
fn every_hook_is_told_as_the_loader_used_it() {
    told_as_used(&["6.1", "6.12", "6.17"]);
}

fn told_as_used(kernels: &[&str]) {
    for &kernel in kernels {
        let mut script = "attach filter clsact/ingress v0 filter clsact/egress v0 cycle 300 clsact/ingress v1; \
                          attach filter clsact/egress v1 send 192.0.2.9; tc qdisc del dev v1 clsact; "
            .to_owned();
        if kernel != "6.1" {
            script += "attach link tcx/ingress v0 update prog tcx/egress v0 link netkit/primary v0 close; \
                       attach link netkit/peer p0 prog netkit/primary p0 cycle 300 tcx/egress v1; \
                       attach link tcx/ingress v1 pin /sys/fs/bpf/left; ";
        }
        let ran = watched(kernel, &["--forbid-leaks"], &script);
        let account = text(&ran.stderr);
        assert_eq!(ran.status.code(), failure(kernel), "{kernel}: {account}");
        has(&account, &["clsact/ingress of v0 (veth) in guest by filter", "direct-action", "attached 1 ×", "ran "]);
        has(&account, &["clsact/ingress of v1 (veth)", "attached 300 ×, detached 300 ×"]);
        has(&account, &["clsact/egress of v1 (veth)", "attached 1 ×, detached 1 ×", "ran "]);
        has(&account, &["left attached: program minimal", "clsact/egress of v0 (veth) in guest, attached by attach ("]);
        if kernel != "6.1" {
            has(&account, &["tcx/ingress of v0 (veth) in guest by link", "attached 1 ×, replaced 1 ×"]);
            has(&account, &["tcx/ingress of v0 (veth) in guest by link", "update, attached 1 ×, detached 1 ×"]);
            has(&account, &["netkit/primary of v0 (veth)", "refused 1 × "]);
            has(&account, &["netkit/peer of p0 (netkit) in guest by link", "attached 1 ×, detached 1 ×"]);
            has(&account, &["netkit/primary of p0 (netkit) in guest by prog", "attached 1 ×"]);
            has(&account, &["tcx/egress of v1 (veth) in guest by prog", "attached 300 ×, detached 300 ×"]);
            has(
                &account,
                &["left attached", "tcx/ingress of v1 (veth)", "pinned at /sys/fs/bpf/left, attached by attach ("],
            );
            has(&account, &["left attached", "netkit/primary of p0 (netkit)"]);
            has(&account, &["left attached", "tcx/egress of v0 (veth)"]);
        }
        // Two filters, and on newer kernels three more.
        let left = with(&account, &["left attached: "]);
        let wanted = if kernel == "6.1" { 2 } else { 5 };
        // The first one is the failure's message too, and all are in the account.
        assert_eq!(left.len(), 2 * wanted, "{kernel}: {account}");
        for gap in ["gap:", "no events"] {
            assert!(with(&account, &[gap]).is_empty(), "{kernel}: {account}");
        }
        assert!(with(&account, &["command_ends"]).is_empty(), "{kernel}: its own programs: {account}");
    }
}

/// It says netkit, and takes what it gets.
#[test]
fn a_loader_that_lies_is_told_by_what_the_kernel_did() {
    lies_are_told("6.12");
    let ran = watched("6.1", &["--forbid-attach", "tc"], "attach best v0");
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    has(&told, &["the kernel used clsact/ingress of v0 (veth) in guest; forbidden: tc; allowed: tcx or netkit"]);
}

fn lies_are_told(kernel: &str) {
    let ran = watched(
        kernel,
        &["--require-attach", "netkit=netkit", "--require-attach", "best"],
        "attach best p0; attach best v0",
    );
    assert_eq!(text(&ran.stdout), "attached by netkit\nattached by netkit\n", "standard output is the command's alone");
    assert_eq!(ran.status.code(), Some(0), "{}", text(&ran.stderr));
    let ran = watched(kernel, &["--require-attach", "netkit"], "attach best v0");
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), failure(kernel), "{told}");
    has(
        &told,
        &[
            "attach-mismatch: program minimal (id ",
            "the kernel used tcx/ingress of v0 (veth) in guest; required: netkit",
        ],
    );
}

#[test]
fn a_command_that_attaches_nothing_does_not_meet_a_demand_and_needs_no_witness() {
    let told = watched("6.12", &["--require-attach", "tcx"], "true");
    has(&text(&told.stderr), &["the command attached nothing by tc, tcx or netkit; required: tcx"]);
    assert_eq!(told.status.code(), Some(1));
    // A failure of the command is the command's.
    let told = watched("6.12", &["--require-attach", "tcx"], "exit 7");
    assert_eq!(told.status.code(), Some(7), "{}", text(&told.stderr));
    let told = watched("6.12", &["--require-ran"], "ip link set v1 down; attach link tcx/ingress v1");
    has(
        &text(&told.stderr),
        &["check: program minimal", "attached at tcx/ingress of v1 (veth) in guest, and it never ran"],
    );
    let mut off = Command::new(LAB);
    off.args(["--project", ROOT, "exec", "-k", "6.12", "--witness", "off", "--forbid-leaks", "--", "true"]);
    let told = off.output().unwrap();
    assert_eq!(told.status.code(), Some(125));
    has(&text(&told.stderr), &["need the witness"]);
}

/// A namespace that dies with its device, while a pin keeps the link.
#[test]
fn a_link_that_outlives_its_device_is_left_and_the_namespaces_programs_are_not() {
    links_outlive_devices(&["6.12", "6.17"]);
}

fn links_outlive_devices(kernels: &[&str]) {
    let script = "unshare -n sh -c 'ip link add d0 type veth; ip link set d0 up; \
                  \"$0\" link tcx/egress d0 pin /sys/fs/bpf/dead prog tcx/ingress d0 filter clsact/ingress d0' ";
    let script = format!("{script} '{}'", loader().display());
    for &kernel in kernels {
        let ran = watched(kernel, &["--forbid-leaks"], &script);
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), failure(kernel), "{told}");
        has(&told, &["left attached: program minimal", "(detached), pinned at /sys/fs/bpf/dead, attached by attach ("]);
        assert_eq!(with(&told, &["left attached"]).len(), 2, "{told}");
        has(&told, &["tcx/ingress of d0 (veth) in net:[", "attached 1 ×, detached 1 ×"]);
        has(&told, &["clsact/ingress of d0 (veth) in net:[", "attached 1 ×, detached 1 ×"]);
        assert!(with(&told, &["gap:"]).is_empty(), "{told}");
    }
}

#[test]
fn kernels_that_treat_a_program_differently_come_first() {
    let loader = loader();
    let script = format!("{DEVICES} '{}' best v0", loader.display());
    let mut lab = Command::new(LAB);
    lab.args([
        "--project",
        ROOT,
        "exec",
        "--no-build",
        "-k",
        "6.1",
        "-k",
        "6.12",
        "-k",
        "6.17",
        "--",
        "sh",
        "-c",
        &script,
    ]);
    let told = text(&lab.output().unwrap().stdout);
    let line = "differs: minimal of attach on v0 (veth) in guest: 6.1: clsact/ingress by filter";
    has(&told, &[line, "6.12, 6.17: tcx/ingress by link"]);
}

/// What a guest reads before it is saved is of its own namespace, and not of the topology of the first program.
#[test]
fn the_first_program_in_a_topology_has_its_nodes_by_name_and_their_devices_are_not_its_doing() {
    let options = ["--topology", "pair", "--kind", "veth", "--node", "pod"];
    let ran = watched("6.17", &options, "attach filter clsact/ingress eth0; \"$LAB_MARK\" attached");
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    has(&told, &["clsact/ingress of eth0 (veth) in pod by filter", "attached 1 ×"]);
    has(&told, &["mark attached (+", "+ device v0 (veth, up) in pod"]);
    assert_eq!(with(&told, &["+ device eth0"]), [""; 0], "{told}");
}

/// What changes the kernel between marks is told at the mark, by the kernel's own words.
#[test]
fn marks_tell_what_changed_and_an_account_what_it_cost() {
    let script = "\"$LAB_MARK\" ready; attach link tcx/ingress v0 pin /sys/fs/bpf/one; \"$LAB_MARK\" attached; \
                  attach netkit p0 drop netkit p7 drop; \
                  \"$LAB_MARK\" devices; rm /sys/fs/bpf/one; \"$LAB_MARK\" end; \"$LAB_MARK\"; \
                  setpriv --reuid 1000 --clear-groups \"$LAB_MARK\" other; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done";
    let ran = watched("6.12", &[], script);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    has(&told, &["mark ready (+", "+ device v0 (veth, up) in guest"]);
    has(&told, &["mark attached (+", "+ tcx/ingress of v0 in guest: program minimal (id ", ", link "]);
    has(&told, &["mark attached (+", "+ pin /sys/fs/bpf/one"]);
    has(&told, &["mark devices (+", "+ device p0 (netkit nk-l3, up, primary, policy drop"]);
    has(&told, &["mark devices (+", "- device p0 (netkit nk-l3, up, primary, policy pass"]);
    has(&told, &["mark devices (+", "+ device p7 (netkit nk-l2, down, primary, policy drop, peer policy pass"]);
    has(&told, &["netkit device p0 in guest made: without settings, by ip ("]);
    has(&told, &["netkit device p0 in guest changed: policy blackhole, by attach ("]);
    has(&told, &["netkit device p7 in guest made: policy blackhole, mode l2, by attach ("]);
    has(&told, &["mark other (+", "- pin /sys/fs/bpf/one"]);
    has(&told, &["mark other (+", "- tcx/ingress of v0 in guest: program minimal"]);
    has(&told, &["mark end (+"]);
    has(&told, &["`end` is the mark at the end of the command: choose another name"]);
    has(&told, &["mark: one name is wanted: /run/lab/mark NAME"]);
    has(&told, &["used ", " s of processor time and at most ", " MiB of memory"]);
    let here = Command::new(LAB).args(["mark", "here"]).output().unwrap();
    assert_eq!(here.status.code(), Some(2), "{}", text(&here.stderr));
    has(&text(&here.stderr), &["lab mark is for commands that `lab exec` runs"]);
}
