//! The witness live: `watch-attach` in a guest, in a shell, and on this machine.

use super::{DEVICES, LAB, ROOT, has, loader, text, watched, with};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

/// What a watcher in the background needs: it writes into `live`, and the script goes on once it watches.
const WATCHES: &str = "watches() { until grep -q begun /run/live; do kill -0 $! || { cat /run/live; exit 9; }; sleep 0.1; done; }; \
                       ends() { kill -INT $! && wait $!; echo \"code $?\"; cat /run/live; }; ";

/// The truth is the loader's; each step is told once, and what the watcher does itself is not.
fn live_steps_agree(kernel: &str) {
    let mut script = format!(
        "{WATCHES}attach filter clsact/egress v1; /run/lab/watch-attach --format json >/run/live 2>&1 & watches; "
    );
    if kernel != "6.1" {
        script += "attach link tcx/ingress v0 update prog tcx/egress v0 link netkit/primary v0 close; \
                   attach netkit p7 drop link netkit/peer p0 pin /sys/fs/bpf/left; ";
    }
    script += "ip netns add web; ip -n web link add d0 type veth; \
               ip netns exec web \"$LOADER\" filter clsact/ingress d0; tc qdisc del dev v1 clsact; ends";
    let set = format!("export LOADER='{}'; {script}", loader().display());
    let ran = watched(kernel, &[], &set);
    let (told, account) = (text(&ran.stdout), text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0), "{kernel}: {told}{account}");
    has(&told, &["code 0"]);
    let lines: Vec<serde_json::Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["line"] == kind).collect::<Vec<_>>();
    assert_eq!((of("begun").len(), of("ended").len(), of("lost").len()), (1, 1, 0), "{kernel}: {told}");
    assert_eq!(of("begun")[0]["version"], 1);
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let steps: Vec<[String; 6]> = of("step")
        .iter()
        .map(|step| ["verb", "hook", "device", "namespace", "way", "refused"].map(|key| word(&step[key])))
        .collect();
    let mut wanted: Vec<[&str; 6]> = Vec::new();
    if kernel != "6.1" {
        wanted.extend([
            ["attach", "tcx/ingress", "v0", "guest", "link", ""],
            ["update", "tcx/ingress", "v0", "guest", "link", ""],
            ["attach", "tcx/egress", "v0", "guest", "program", ""],
            ["attach", "netkit/primary", "v0", "guest", "link", "ENXIO"],
            ["detach", "tcx/ingress", "v0", "guest", "", ""],
            ["attach", "netkit/peer", "p0", "guest", "link", ""],
            ["pin", "netkit/peer", "p0", "guest", "", ""],
        ]);
    }
    wanted.push(["attach", "clsact/ingress", "d0", "web", "filter", ""]);
    // What was attached before it watched.
    wanted.push(["detach", "clsact/egress", "v1", "guest", "", ""]);
    assert_eq!(steps, wanted, "{kernel}: {told}");
    assert!(of("step").iter().all(|step| step["program"] == "minimal"), "{kernel}: {told}");
    let by: Vec<String> = of("step").iter().map(|step| word(&step["process"])).collect();
    assert!(by.iter().all(|by| by == "attach" || by == "tc"), "{kernel}: {told}");
    let account = &of("ended")[0]["account"];
    let left: Vec<String> = account["left"].as_array().unwrap().iter().map(|left| word(&left["hook"])).collect();
    let wanted: &[&str] = match kernel {
        "6.1" => &["clsact/ingress"],
        _ => &["clsact/ingress", "tcx/egress", "netkit/peer"],
    };
    assert!(
        wanted.iter().all(|hook| left.iter().any(|it| it == hook)) && left.len() == wanted.len(),
        "{kernel}: {told}"
    );
    assert_eq!((account["lost"].as_u64(), account["unexplained"].as_u64()), (Some(0), Some(0)), "{kernel}: {told}");
    if kernel != "6.1" {
        assert_eq!(of("device").len(), 1, "{kernel}: {told}");
        assert_eq!(of("device")[0]["settings"], "policy blackhole, mode l2", "{kernel}: {told}");
    }
}

#[test]
fn watching_live_tells_each_step_as_the_loader_took_it() {
    live_steps_agree("6.12");
}

#[test]
#[ignore = "the other kernels: make witness"]
fn watching_live_tells_the_same_on_every_kernel() {
    live_steps_agree("6.1");
    live_steps_agree("6.17");
}

/// The text that a person reads, in a shell, whose end has an account as a command's has.
#[test]
fn a_shell_has_a_watcher_and_an_account() {
    let script = format!(
        "{DEVICES}{WATCHES}watch-attach >/run/live 2>&1 & until grep -q ^watching /run/live; do sleep 0.1; done; \
         '{}' link tcx/ingress v0 pin /sys/fs/bpf/left best p0; ends; \
         mount -t tmpfs none /sys/kernel/btf; setpriv --inh-caps=-all --bounding-set=-all watch-attach; echo \"code $?\"; \
         setpriv --reuid 1000 watch-attach --runs; watch-attach -x",
        loader().display()
    );
    let mut lab = Command::new(LAB);
    lab.args(["--project", ROOT, "shell", "6.12", "--no-build", "--profile", "host", "--witness", "show"]);
    let ran = lab.args(["--", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    let (told, account) = (text(&ran.stdout), text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(2), "{told}{account}");
    has(&told, &["source: the kernel's functions (fentry, fexit)"]);
    has(&told, &["attached  tcx/ingress of v0 (veth) in guest: program minimal (id ", "by attach (", "through link"]);
    has(&told, &["pinned  tcx/ingress of v0 (veth) in guest", "at /sys/fs/bpf/left"]);
    has(&told, &["attached  netkit/primary of p0 (netkit) in guest", "link"]);
    has(&told, &["left attached: program minimal", "pinned at /sys/fs/bpf/left, attached by attach ("]);
    assert!(with(&told, &["command_ends"]).is_empty(), "its own programs: {told}");
    has(&told, &["code 0"]);
    has(&told, &["code 3"]);
    has(
        &account,
        &["error: this kernel has no type information (/sys/kernel/btf/vmlinux: ", "CONFIG_DEBUG_INFO_BTF=y"],
    );
    has(&account, &["error: watching what is attached needs root"]);
    has(&account, &["error: `-x` is not known; usage: watch-attach"]);
    has(&account, &["6.12: tcx/ingress of v0 (veth) in guest by link: program minimal", "attached 1 ×"]);
    has(&account, &["6.12: left attached: program minimal", "pinned at /sys/fs/bpf/left"]);
}

/// On this machine: either it watches, or one line says what the machine lacks.
#[test]
fn this_machine_is_watched_or_one_line_says_why_not() {
    loader();
    let mut lab = Command::new(LAB);
    lab.args(["--project", ROOT, "watch-attach", "--format", "json"]);
    let mut child = lab.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut first).unwrap();
    if first.is_empty() {
        let ended = child.wait_with_output().unwrap();
        let told = text(&ended.stderr);
        assert_eq!(ended.status.code(), Some(3), "{told}");
        assert!(told.starts_with("error: ") && told.lines().count() == 1, "{told}");
        return;
    }
    assert_eq!(serde_json::from_str::<serde_json::Value>(&first).unwrap()["line"], "begun", "{first}");
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    let last = rest.lines().last().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(last).unwrap()["line"], "ended", "{rest}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
