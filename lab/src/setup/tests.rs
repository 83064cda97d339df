//! Tests of planning and of the doctor's report, with invented machines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{
    Purpose, SetupReport,
    apply::{InstallPlace, SetupPlan, SetupStep},
    catalogue,
    distribution::Distribution,
    host::{Host, Kvm},
    private,
    program::HostProgram,
};
use lab_vm::{Accel, Acceleration};

fn program(path: &str, version: (u32, u32, u32)) -> Option<HostProgram> {
    Some(HostProgram { path: PathBuf::from(path), version: Some(version), full: None, objection: None })
}

/// Debian with nothing but Rust.
fn fresh() -> Host {
    Host {
        distribution: Distribution::read("ID=debian\nVERSION_CODENAME=bookworm\n"),
        rustc: program("/usr/bin/rustc", (1, 95, 0)),
        kvm: Kvm::Unusable("/dev/kvm: No such file or directory".into()),
        ..Host::default()
    }
}

/// Debian with everything.
fn complete() -> Host {
    Host {
        packages: catalogue::packages().into_iter().map(|name| (name.to_owned(), "1-1".to_owned())).collect(),
        qemu: program("/usr/bin/qemu-system-x86_64", (10, 0, 2)),
        virtme_ng: Some("/cache/tools/virtme-ng-1.42/bin/vng".into()),
        bpf_linker: program("/cache/tools/bin/bpf-linker", (0, 13, 0)),
        private: BTreeMap::from([(private::PASST.name, BTreeMap::new())]),
        kvm: Kvm::Untried,
        ..fresh()
    }
}

#[test]
fn a_complete_machine_needs_nothing() {
    assert_eq!(SetupPlan::of(&complete(), Purpose::Runs, InstallPlace::Cache).unwrap().steps, []);
    assert!(SetupReport::of(&complete(), Purpose::Runs).ready());
}

#[test]
fn a_fresh_machine_gets_all_packages_in_one_step_and_then_the_tools() {
    let steps = SetupPlan::of(&fresh(), Purpose::Tests, InstallPlace::System).unwrap().steps;
    let [SetupStep::Packages(packages), rest @ ..] = &*steps else { panic!("{steps:?}") };
    let tools = [SetupStep::VirtmeNg, SetupStep::BpfLinker, SetupStep::TestTools, SetupStep::CargoDeny];
    let sets = [&private::PASST, &private::SUITES, &private::SLURM].map(SetupStep::Unpack);
    assert_eq!(rest, [&sets[..], &tools].concat());
    let every: BTreeSet<_> = catalogue::packages().into_iter().collect();
    let others: Vec<_> = every.difference(&packages.iter().copied().collect()).copied().collect();
    assert_eq!(others, ["bc", "bison", "flex", "make", "patch"], "only building kernels needs these");
    let SetupStep::Packages(to_run) = &SetupPlan::of(&fresh(), Purpose::Runs, InstallPlace::System).unwrap().steps[0]
    else {
        panic!()
    };
    assert!(!to_run.contains(&"chromium"), "running the lab needs no browser");
}

#[test]
fn a_fresh_machine_gets_a_compiler_and_everything_else_in_the_cache() {
    assert_eq!(
        SetupPlan::of(&fresh(), Purpose::Runs, InstallPlace::Cache).unwrap().steps,
        [
            SetupStep::Packages(vec!["gcc", "libc6-dev", "python3"]),
            SetupStep::Unpack(&private::QEMU),
            SetupStep::Unpack(&private::SHELL),
            SetupStep::Unpack(&private::BPF),
            SetupStep::Unpack(&private::ELF),
            SetupStep::Unpack(&private::PASST),
            SetupStep::VirtmeNg,
            SetupStep::BpfLinker
        ]
    );
}

#[test]
fn an_installed_lab_needs_no_compiler() {
    let host = Host { installed: true, rustc: None, ..fresh() };
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps,
        [
            SetupStep::Packages(vec!["python3"]),
            SetupStep::Unpack(&private::QEMU),
            SetupStep::Unpack(&private::SHELL),
            SetupStep::Unpack(&private::PASST),
            SetupStep::VirtmeNg
        ]
    );
    let report = SetupReport::of(&host, Purpose::Runs);
    assert!(!report.to_string().contains("make setup"), "there is no Makefile: {report}");
    let text = report.to_string();
    assert!(text.contains("fix: lab setup") && text.contains("`lab setup` fixes what it can"), "{text}");
}

#[test]
fn the_tests_need_a_browser_and_the_readers_of_the_reports() {
    let steps = |host: &Host| SetupPlan::of(host, Purpose::Tests, InstallPlace::Cache).unwrap().steps;
    let sets = [&private::SUITES, &private::SLURM].map(SetupStep::Unpack);
    let of_tests = [&sets[..], &[SetupStep::TestTools, SetupStep::CargoDeny]].concat();
    assert_eq!(steps(&complete()), of_tests);
    let mut host = complete();
    host.packages.remove("chromium");
    assert_eq!(steps(&host), [&[SetupStep::Packages(vec!["chromium"])][..], &of_tests].concat());
    assert_eq!(SetupReport::of(&host, Purpose::Tests).findings.iter().filter(|finding| !finding.usable()).count(), 5);
}

#[test]
fn kernel_build_tools_are_installed_on_request() {
    let mut host = complete();
    for name in ["flex", "bison"] {
        host.packages.remove(name);
    }
    assert_eq!(SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps, []);
    assert_eq!(
        SetupPlan::of(&host, Purpose::Builds, InstallPlace::Cache).unwrap().steps,
        [SetupStep::Packages(vec!["flex", "bison"])]
    );
}

#[test]
fn only_what_is_missing_is_installed() {
    let mut host = complete();
    host.packages.remove("kmod");
    host.packages.remove("libc6-dev");
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps,
        [SetupStep::Packages(vec!["libc6-dev"]), SetupStep::Unpack(&private::SHELL)]
    );
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::System).unwrap().steps,
        [SetupStep::Packages(vec!["libc6-dev", "kmod"])]
    );
}

#[test]
fn an_old_qemu_of_the_hosts_is_not_enough_unless_it_was_chosen() {
    let host = Host { qemu: program("/usr/bin/qemu-system-x86_64", (7, 2, 22)), ..complete() };
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps,
        [SetupStep::Unpack(&private::QEMU)]
    );
    let host = Host { qemu_chosen: true, ..host };
    assert_eq!(SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps, []);
}

#[test]
fn what_is_in_the_cache_is_not_missing() {
    let mut host = complete();
    for name in ["kmod", "busybox-static", "tcpdump", "rustc-web"] {
        host.packages.remove(name);
    }
    let versions = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "2-1".to_owned())).collect();
    host.private =
        [("shell", versions(&["kmod", "file"])), ("bpf", versions(&["rustc-web"])), ("passt", versions(&["passt"]))]
            .into();
    assert_eq!(SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps, []);
    let report = SetupReport::of(&host, Purpose::Runs);
    let found = |name| report.findings.iter().find(|finding| finding.name == name).unwrap().found.clone();
    assert_eq!(found("kernel tools"), "kmod 2-1, file 2-1, in the cache");
    assert_eq!(found("BPF compiler"), "rustc-web 2-1, cargo-web, in the cache");
}

#[test]
fn a_usable_nightly_replaces_the_bpf_packages() {
    let mut host = complete();
    host.packages.retain(|name, _| !private::BPF.roots.contains(&name.as_str()));
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps,
        [SetupStep::Unpack(&private::BPF)]
    );
    host.nightly_rust_src = true;
    assert_eq!(SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps, []);
}

#[test]
fn an_old_bpf_linker_is_replaced() {
    let host = Host { bpf_linker: program("/root/.cargo/bin/bpf-linker", (0, 9, 14)), ..complete() };
    assert_eq!(SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap().steps, [SetupStep::BpfLinker]);
}

#[test]
fn an_old_compiler_stops_everything_with_one_line() {
    let host = Host { rustc: program("/usr/bin/rustc", (1, 63, 0)), ..fresh() };
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap_err().to_string(),
        "Rust: 1.63.0; install Rust 1.95 or newer, with rustup: `rustup update stable`"
    );
}

#[test]
fn a_chosen_qemu_that_does_not_start_is_named() {
    let qemu = Some(HostProgram { path: "/opt/qemu".into(), version: None, full: None, objection: None });
    let host = Host { qemu, qemu_chosen: true, ..complete() };
    assert_eq!(
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap_err().to_string(),
        "QEMU: does not start (/opt/qemu); correct or unset NETKIT_LAB_QEMU"
    );
}

#[test]
fn other_distributions_get_the_list_of_missing_packages() {
    let error = |id: &str| {
        let host = Host { distribution: Distribution::read(&format!("ID={id}\n")), ..fresh() };
        SetupPlan::of(&host, Purpose::Runs, InstallPlace::Cache).unwrap_err().to_string()
    };
    let missing =
        "C compiler: cc, qemu-system-x86_64, depmod, file, strings, xz, apt-get, dpkg-deb, python3, busybox missing; ";
    let advice = "sudo dnf install apt binutils busybox dpkg file gcc kmod python3 qemu-system-x86 xz";
    assert_eq!(error("fedora"), format!("{missing}{advice}"));
    let advice = "sudo pacman -S apt binutils busybox dpkg file gcc kmod python qemu-system-x86 xz";
    assert_eq!(error("arch"), format!("{missing}{advice}"));
    assert_eq!(error("void"), format!("{missing}install them with this distribution's package manager"));
}

#[test]
fn the_doctor_names_a_fix_for_each_finding() {
    let mut host = complete();
    host.packages.remove("kmod");
    host.qemu = program("/usr/bin/qemu-system-x86_64", (6, 2, 0));
    host.virtme_ng = None;
    let report = SetupReport::of(&host, Purpose::Runs);
    assert!(!report.ready());
    insta::assert_snapshot!(report, @"
    ok       Rust           1.95.0
    ok       C compiler     gcc 1-1, libc6-dev 1-1
    missing  QEMU           qemu-system-x86 9.0 or newer
                            why: runs the guests
                            fix: make setup
    missing  kernel tools   kmod
                            why: verify, unpack and inspect kernel packages
                            fix: make setup
    ok       Python         python3 1-1
    ok       pip            python3-venv 1-1
    ok       busybox        busybox-static 1-1
    ok       network tools  iproute2 1-1, bpftool 1-1
    ok       BPF compiler   rustc-web 1-1, cargo-web 1-1
    ok       libelf         libelf-dev 1-1, zlib1g-dev 1-1
    missing  virtme-ng      virtme-ng 1.42
                            why: boots the guests
                            fix: make setup
    ok       bpf-linker     0.13.0 (/cache/tools/bin/bpf-linker)
    ok       passt          passt, in the cache
    ok       KVM            /dev/kvm can create virtual machines; the next run tests whether a guest boots with KVM

    3 of 14 checks failed; `make setup` fixes what it can.
    ");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["findings"][3]["fix"], "make setup");
}

#[test]
fn the_doctor_reports_the_result_of_the_kvm_test() {
    let told = |accel, reason: &str| {
        let verdict = Acceleration { accel, reason: reason.to_owned() };
        let kvm = Kvm::Tried { verdict, kept: "/cache/accelerator.json".into() };
        let report = SetupReport::of(&Host { kvm, ..complete() }, Purpose::Runs);
        let found = report.findings.into_iter().find(|finding| finding.name == "KVM").unwrap();
        (found.state, found.found, found.fix.unwrap_or_default())
    };
    let spoke = "a guest under KVM answered after 1.2 s";
    assert_eq!(told(Accel::Kvm, spoke), ("ok", spoke.to_owned(), String::new()));
    let died = "/dev/kvm opens, but QEMU ended under KVM (exit code 1: failed to set MSR 0x10a)";
    let (state, found, advice) = told(Accel::Tcg, died);
    assert_eq!((state, &*found), ("warn", died));
    assert!(advice.ends_with("remove /cache/accelerator.json to test KVM again"), "{advice}");
}
