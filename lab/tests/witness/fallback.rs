//! The witness where the kernel's functions can't be watched: by its system calls and rtnetlink's notices.

use super::{DEVICES, LAB, ROOT, has, loader, text, watched, with};
use std::process::{Command, Stdio};

/// A kernel without type information, whose programs read registers by a helper; then one that lets no program read its memory, whose
/// programs read them by their types.
#[test]
fn a_kernel_whose_functions_cant_be_watched_is_watched_by_its_system_calls() {
    let script = format!(
        "{DEVICES}LOADER='{}'; \
         watched() {{ watch-attach >/run/live 2>&1 & until grep -q ^watching /run/live; do kill -0 $! || {{ cat /run/live; exit 9; }}; \
         sleep 0.1; done; \
         w=$!; rm -f /run/told; \"$LOADER\" prog tcx/egress v1 filter clsact/egress v1 link netkit/primary v0 link tcx/ingress v0 \
         pin /sys/fs/bpf/left stay /run/told & until grep -q pinned /run/live; do sleep 0.1; done; touch /run/told; wait $!; \
         tc qdisc del dev v1 clsact; rm /sys/fs/bpf/left; \
         until grep -q 'detached  tcx/ingress' /run/live; do sleep 0.1; done; \
         kill -INT $w && wait $w; echo \"code $?\"; cat /run/live; }}; \
         mount -t tmpfs none /sys/kernel/btf; watched; umount /sys/kernel/btf; echo; \
         mountpoint -q /sys/kernel/security || mount -t securityfs none /sys/kernel/security; \
         echo confidentiality >/sys/kernel/security/lockdown && echo locked && watched",
        loader().display()
    );
    let mut lab = Command::new(LAB);
    lab.args(["--project", ROOT, "shell", "6.12", "--no-build", "--profile", "host", "--witness", "off"]);
    let ran = lab.args(["--", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    let all = text(&ran.stdout) + &text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(0), "{all}");
    let (untyped, locked) = all.split_once("\nlocked\n").unwrap_or_else(|| panic!("not locked: {all}"));
    for (told, why) in [(untyped, "/sys/kernel/btf/vmlinux: "), (locked, "the kernel's function ")] {
        has(told, &["source: calls of bpf(2)", "can't be watched: ", why]);
        has(told, &["attached  tcx/egress of v1 (veth) in guest: program minimal (id ", "by attach (", "through prog"]);
        has(told, &["attached  clsact/egress of v1 (veth) in guest: program minimal (id ", "through filter"]);
        has(told, &["not attached, ENXIO  netkit/primary of v0 (veth) in guest: program minimal"]);
        has(told, &["attached  tcx/ingress of v0 (veth) in guest: program minimal (id ", "link", "by attach ("]);
        has(told, &["pinned  tcx/ingress of v0 (veth) in guest", "at /sys/fs/bpf/left"]);
        has(told, &["detached  clsact/egress of v1 (veth) in guest: program minimal"]);
        has(told, &["detached  tcx/ingress of v0 (veth) in guest: program minimal", "by a process that was not seen"]);
        has(told, &["left attached: program minimal", "tcx/egress of v1 (veth)", "attached by attach ("]);
        has(told, &["not all is seen: ", why]);
        has(told, &["code 0"]);
        for own in ["call_ends", "call_begins"] {
            assert!(with(told, &[own]).is_empty(), "its own programs: {told}");
        }
    }
}

/// Debian 11's kernel has type information, and not all that the witness needs.
#[test]
#[ignore = "a kernel that is not in the default matrix: make witness"]
fn a_kernel_without_the_functions_is_watched_by_its_system_calls() {
    let script = "attach filter clsact/ingress v0 filter clsact/egress v0; attach cycle 20 clsact/egress v1; \
                  attach link tcx/ingress v0; \
                  ip netns add other; ip -n other link add d0 type veth; ip netns exec other \"$LOADER\" filter clsact/ingress d0";
    let script = &format!("export LOADER='{}'; {script}", loader().display());
    // What is seen is right, and proves nothing.
    let ran = watched("5.10", &["--require-attach", "tc"], script);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(125), "{told}");
    has(&told, &["no verdict on the attachments: they could not all be seen: the kernel's type information has no "]);
    // A fault that is seen is one.
    let ran = watched("5.10", &["--forbid-attach", "tc"], script);
    let told = text(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{told}");
    has(&told, &["source: calls of bpf(2)", "functions can't be watched: the kernel's type information has no "]);
    has(&told, &["the kernel used clsact/ingress of v0 (veth) in guest; forbidden: tc"]);
    has(&told, &["clsact/egress of v1 (veth) in guest by filter", "attached 20 ×, detached 20 ×"]);
    has(&told, &["tcx/ingress of v0 (veth) in guest by link", "refused 1 × EINVAL"]);
    // The namespace that the command made ends with it, and its filter too.
    has(
        &told,
        &["left attached: program minimal", "clsact/egress of v0 (veth) in guest", "by a process that was not seen"],
    );
    assert_eq!(with(&told, &["left attached: program minimal"]).len(), 2, "{told}");
    assert!(with(&told, &["gap:"]).is_empty(), "{told}");
}
