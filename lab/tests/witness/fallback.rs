//! The witness where the kernel's functions can't be watched: by its system calls and rtnetlink's notices.

use super::{DEVICES, LAB, ROOT, has, live::WATCHES, loader, text, watched, with};
use std::process::{Command, Stdio};

/// A kernel that lets no program read its memory, from the boot on.
#[test]
fn a_kernel_that_is_locked_down_is_watched_by_its_system_calls() {
    let script = "attach filter clsact/ingress v0 link netkit/primary v0 link netkit/peer p0 close; \
                  attach prog tcx/egress v1 link tcx/ingress v1 update pin /sys/fs/bpf/left; \
                  attach filter clsact/egress v1; tc qdisc del dev v1 clsact; \
                  ip netns add other; ip -n other link add d0 type veth; \
                  ip netns exec other \"$LOADER\" prog tcx/ingress d0 filter clsact/ingress d0";
    let script = format!("export LOADER='{}'; {script}", loader().display());
    let locked = ["--cmdline", "lockdown=confidentiality", "--require-attach", "netkit,tcx,tc"];
    let ran = watched("6.12", &locked, &script);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(125), "{told}");
    has(&told, &["they could not all be seen: the kernel's function "]);
    has(&told, &["source: calls of bpf(2) (raw tracepoints of system calls), rtnetlink's notices about filters"]);
    has(&told, &["source: not seen: filters in network namespaces that are neither the guest's first one"]);
    has(&told, &["clsact/ingress of v0 (veth) in guest by filter", "program minimal (id ", "attached 1 ×"]);
    has(&told, &["netkit/primary of v0 (veth) in guest by link", "refused 1 × ENXIO"]);
    has(&told, &["netkit/peer of p0 (netkit) in guest by link", "of attach (", "attached 1 ×, detached 1 ×"]);
    has(&told, &["tcx/egress of v1 (veth) in guest by prog", "of attach (", "attached 1 ×"]);
    has(&told, &["tcx/ingress of v1 (veth) in guest by link", "update, attached 1 ×"]);
    has(&told, &["clsact/egress of v1 (veth) in guest by filter", "attached 1 ×, detached 1 ×"]);
    has(
        &told,
        &[
            "left attached: program minimal",
            "tcx/ingress of v1 (veth)",
            "pinned at /sys/fs/bpf/left, attached by attach",
        ],
    );
    // The filter is left, and who made it was not seen: the namespace came while the command ran.
    has(
        &told,
        &["left attached: program minimal", "clsact/ingress of d0 (veth) in net:[", "by a process that was not seen"],
    );
    for gap in ["gap:", "no events"] {
        assert!(with(&told, &[gap]).is_empty(), "{told}");
    }
    for own in ["call_ends", "call_begins"] {
        assert!(with(&told, &[own]).is_empty(), "its own programs: {told}");
    }
    // A fault that was seen is one.
    let ran =
        watched("6.12", &["--cmdline", "lockdown=confidentiality", "--require-attach", "netkit"], "attach best v0");
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    has(&told, &["the kernel used tcx/ingress of v0 (veth) in guest; required: netkit"]);
}

/// A kernel without type information, live.
#[test]
fn a_kernel_without_type_information_is_watched_by_its_system_calls() {
    let script = format!(
        "{DEVICES}{WATCHES}LOADER='{}'; mount -t tmpfs none /sys/kernel/btf; watch-attach >/run/live 2>&1 & \
         until grep -q ^watching /run/live; do sleep 0.1; done; \
         \"$LOADER\" prog tcx/egress v1 filter clsact/egress v1 link netkit/primary v0 link tcx/ingress v0 pin /sys/fs/bpf/left; \
         tc qdisc del dev v1 clsact; rm /sys/fs/bpf/left; \
         until grep -q 'detached  tcx/ingress' /run/live; do sleep 0.1; done; ends",
        loader().display()
    );
    let mut lab = Command::new(LAB);
    lab.args(["--project", ROOT, "shell", "6.12", "--no-build", "--profile", "host", "--witness", "off"]);
    let ran = lab.args(["--", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    let told = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{told}");
    has(&told, &["source: calls of bpf(2)", "can't be watched: /sys/kernel/btf/vmlinux: "]);
    has(&told, &["attached  tcx/egress of v1 (veth) in guest: program minimal (id ", "by attach (", "through prog"]);
    has(
        &told,
        &["attached  clsact/egress of v1 (veth) in guest: program minimal (id ", "by attach (", "through filter"],
    );
    has(&told, &["not attached, ENXIO  netkit/primary of v0 (veth) in guest: program minimal"]);
    has(&told, &["attached  tcx/ingress of v0 (veth) in guest: program minimal (id ", "link", "by attach ("]);
    has(&told, &["pinned  tcx/ingress of v0 (veth) in guest", "at /sys/fs/bpf/left"]);
    has(&told, &["detached  clsact/egress of v1 (veth) in guest: program minimal", "by tc ("]);
    has(&told, &["detached  tcx/ingress of v0 (veth) in guest: program minimal", "by a process that was not seen"]);
    has(&told, &["left attached: program minimal", "tcx/egress of v1 (veth)", "attached by attach ("]);
    has(&told, &["not all is seen: /sys/kernel/btf/vmlinux: "]);
    has(&told, &["code 0"]);
    assert!(with(&told, &["call_ends"]).is_empty(), "its own programs: {told}");
}

/// Debian 11's kernel has type information, and not the function that the witness needs: its programs read registers by a helper.
#[test]
#[ignore = "a kernel that is not in the default matrix: make witness"]
fn a_kernel_without_the_functions_is_watched_by_its_system_calls() {
    let script = "attach filter clsact/ingress v0 filter clsact/egress v0; attach cycle 20 clsact/egress v1; \
                  attach link tcx/ingress v0";
    let ran = watched("5.10", &["--forbid-attach", "tc"], script);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    has(&told, &["source: calls of bpf(2)", "can't be watched: the kernel's function __sys_bpf can't be watched: "]);
    has(&told, &["the kernel used clsact/ingress of v0 (veth) in guest; forbidden: tc"]);
    has(&told, &["clsact/egress of v1 (veth) in guest by filter", "attached 20 ×, detached 20 ×"]);
    has(&told, &["tcx/ingress of v0 (veth) in guest by link", "refused 1 × EINVAL"]);
    assert_eq!(with(&told, &["left attached: program minimal"]).len(), 2, "{told}");
    assert!(with(&told, &["gap:"]).is_empty(), "{told}");
}
