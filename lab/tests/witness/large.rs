//! What attaches in large numbers, in other namespaces and under memory pressure, and what an attachment costs: `make witness`.

use super::{failure, has, lies_are_told, links_outlive_devices, loader, text, told_as_used, watched, with};

/// What the other tests show of the default matrix.
#[test]
#[ignore = "a kernel that is not in the default matrix: make witness"]
fn the_newest_kernel_is_told_as_the_others() {
    told_as_used(&["newest"]);
    lies_are_told("newest");
    links_outlive_devices(&["newest"]);
}

#[test]
#[ignore = "10,000 attachments on four kernels"]
fn ten_thousand_attachments_are_all_told() {
    for (kernel, hook) in
        [("6.1", "clsact/ingress"), ("6.12", "tcx/ingress"), ("6.17", "tcx/egress"), ("newest", "tcx/egress")]
    {
        let ran = watched(kernel, &["--forbid-leaks"], &format!("attach cycle 10000 {hook} v0"));
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(0), "{kernel}: {told}");
        has(&told, &[hook, "of v0 (veth) in guest", "attached 10000 ×, detached 10000 ×"]);
        assert!(with(&told, &["gap:"]).is_empty(), "{kernel}: {told}");
    }
}

#[test]
#[ignore = "memory pressure on three kernels"]
fn memory_pressure_hides_no_attachment() {
    for kernel in ["6.12", "6.17", "newest"] {
        let script = "tail /dev/zero & attach cycle 300 tcx/ingress v0 cycle 300 clsact/egress v0; wait; true";
        let ran = watched(kernel, &["--forbid-leaks"], script);
        let told = text(&ran.stderr);
        // The kernel's complaint is the verdict; what was attached is told nevertheless.
        assert_eq!(ran.status.code(), failure(kernel), "{kernel}: {told}");
        has(&told, &["invoked oom-killer"]);
        has(&told, &["tcx/ingress of v0", "attached 300 ×, detached 300 ×"]);
        has(&told, &["clsact/egress of v0", "attached 300 ×, detached 300 ×"]);
        has(&told, &["the kernel killed 1 processes for want of memory"]);
        assert!(with(&told, &["gap:"]).is_empty(), "{kernel}: {told}");
    }
}

#[test]
#[ignore = "user namespaces, and programs that are gone at once"]
fn who_attaches_from_a_user_namespace_and_is_gone_is_told() {
    for kernel in ["6.12", "6.17", "newest"] {
        let script = "attach userns d0; attach link tcx/egress v1 send 192.0.2.9 close";
        let ran = watched(kernel, &["--forbid-leaks"], script);
        let told = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(0), "{kernel}: {told}");
        let link = match text(&ran.stdout).contains("userns: attached") {
            true => "attached 1 ×, detached 1 ×",
            false => "refused 1 × EPERM",
        };
        has(&told, &["tcx/ingress of d0 (veth) in net:[", "by link", link]);
        has(&told, &["clsact/ingress of d0 (veth) in net:[", "by filter", "attached 1 ×, detached 1 ×"]);
        // Its name and its runs, although nobody could ask for them any more.
        has(&told, &["tcx/egress of v1 (veth)", "program minimal (id ", "attached 1 ×, detached 1 ×, ran 1 ×"]);
        assert!(with(&told, &["gap:"]).is_empty(), "{kernel}: {told}");
    }
}

#[test]
#[ignore = "500 network namespaces"]
fn what_goes_beyond_the_accounts_rows_is_counted() {
    let script = "i=0; while [ $i -lt 500 ]; do ip netns add n$i; ip netns exec n$i \"$0\" prog tcx/ingress lo; i=$((i+1)); done";
    let script = format!("set -- ; {}", script.replace("\"$0\"", &format!("'{}'", loader().display())));
    let ran = watched("6.12", &["--forbid-leaks"], &script);
    let told = text(&ran.stderr);
    // The namespaces end with the command's mount namespace: nothing is left, and whether that holds of all is not known.
    assert_eq!(ran.status.code(), Some(125), "{told}");
    assert_eq!(with(&told, &["tcx/ingress of lo in net:[", "by prog", "attached 1 ×"]).len(), 256, "{told}");
    has(&told, &["no verdict on the attachments: their account has gaps: 0 events lost, 244 rows left out"]);
    has(&told, &["gap: 244 rows and leftovers are left out"]);
}

/// The kernels and hooks of which the costs are measured.
const MEASURED: [(&str, &[&str]); 3] =
    [("6.1", &["clsact/ingress"]), ("6.12", &["clsact/ingress", "tcx/ingress"]), ("6.17", &["tcx/ingress"])];
/// Attachments, each followed by its end, that are one measurement.
const CYCLES: u32 = 2000;

/// A function for a script, `t WHAT`, which prints `WHAT HOOK MICROSECONDS` for each hook.
fn timed(hooks: &[&str]) -> String {
    format!(
        "t() {{ for h in {}; do s=$(date +%s%N); attach cycle {CYCLES} $h v0 || exit 9; e=$(date +%s%N); echo \"$1 $h $(( (e-s)/1000 ))\"; done; }}; ",
        hooks.join(" ")
    )
}

/// The ratio of the medians of what [`timed`] printed; prints both, and the ratio of the least times.
fn ratio(kernel: &str, hook: &str, rounds: usize, told: &str) -> f64 {
    let times = |what: &str| {
        let of = |line: &str| line.strip_prefix(&format!("{what} {hook} "))?.parse::<u64>().ok();
        let mut all: Vec<u64> = told.lines().filter_map(of).collect();
        assert_eq!(all.len(), rounds, "{kernel}: {told}");
        all.sort_unstable();
        [all[rounds / 2], all[0]].map(|of| of as f64 / f64::from(CYCLES))
    };
    let ([bare, least_bare], [watched, least_watched]) = (times("bare"), times("watched"));
    println!(
        "{kernel} {hook}: {bare:.1} µs without, {watched:.1} µs with the witness for attaching and detaching (medians of {rounds}), \
         ratio {:.2}; the least of each: ratio {:.2}",
        watched / bare,
        least_watched / least_bare
    );
    watched / bare
}

/// Attaching and detaching with and without a live watcher, alternately in one guest; prints the medians and their ratio.
#[test]
#[ignore = "measures: make witness"]
fn what_an_attachment_costs_under_a_live_watcher() {
    const ROUNDS: usize = 7;
    for (kernel, hooks) in MEASURED {
        let script = format!(
            "{}t warm; for i in $(seq {ROUNDS}); do t bare; /run/lab/watch-attach >/run/live & \
             until grep -q ^watching /run/live; do sleep 0.1; done; t watched; kill -INT $!; wait $!; rm /run/live; done",
            timed(hooks)
        );
        let ran = watched(kernel, &["--witness", "off"], &script);
        let told = text(&ran.stdout);
        assert_eq!(ran.status.code(), Some(0), "{kernel}: {told}{}", text(&ran.stderr));
        for hook in hooks {
            assert!(ratio(kernel, hook, ROUNDS, &told) < 3.0, "{kernel} {hook}: {told}");
        }
    }
}

/// Attaching and detaching in commands with and without the witness, in turn; prints the medians and their ratio.
#[test]
#[ignore = "measures: make witness"]
fn what_an_attachment_costs_in_a_command() {
    const ROUNDS: usize = 11;
    for (kernel, hooks) in MEASURED {
        let mut told = String::new();
        for _ in 0..ROUNDS {
            for (what, witness) in [("bare", "off"), ("watched", "report")] {
                let ran = watched(kernel, &["--witness", witness], &format!("{}t warm; t {what}", timed(hooks)));
                assert_eq!(ran.status.code(), Some(0), "{kernel}: {}", text(&ran.stderr));
                told += &text(&ran.stdout);
            }
        }
        for hook in hooks {
            assert!(ratio(kernel, hook, ROUNDS, &told) < 2.0, "{kernel} {hook}: {told}");
        }
    }
}
