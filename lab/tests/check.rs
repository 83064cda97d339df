//! `lab check` on real guests, with objects of known properties: `check/corpus` says in `check.toml` what each must do, and every
//! class of failure has an object that shows it.

use lab::check::corpus;
use lab_check::LoadClass;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};
use tempfile::TempDir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/check");

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.arg("--project").arg(ROOT).args(arguments);
    command
}

fn check(arguments: &[&str]) -> Output {
    lab(&["check"]).args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Compiles a source of `check/`.
fn compile(source: &Path, object: &Path) {
    corpus::compile(source, object, &lab_base::paths::cache_dir().unwrap()).unwrap();
}

/// The corpus, compiled once.
fn corpus() -> &'static Path {
    static CORPUS: OnceLock<PathBuf> = OnceLock::new();
    CORPUS.get_or_init(|| {
        // What is static is never dropped: a temporary directory would stay behind.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        corpus::compile_all(&Path::new(ROOT).join(corpus::SOURCES), &directory, &lab_base::paths::cache_dir().unwrap())
            .unwrap();
        directory
    })
}

fn objects() -> Vec<String> {
    let all = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path());
    let objects = all.filter(|path| path.extension().is_some_and(|kind| kind == "o"));
    let mut objects: Vec<String> = objects.map(|path| path.display().to_string()).collect();
    objects.sort();
    objects
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect()
}

#[test]
fn every_object_of_the_corpus_does_on_every_kernel_what_its_file_says() {
    let objects = objects();
    assert!(objects.len() >= 53, "{objects:?}");
    let mut arguments = vec!["--format", "json"];
    arguments.extend(objects.iter().map(String::as_str));
    let done = check(&arguments);
    let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&done)));
    let mut classes = BTreeSet::new();
    for object in told["objects"].as_array().unwrap() {
        for kernel in object["kernels"].as_array().unwrap() {
            assert_eq!(texts(&kernel["unmet"]), [""; 0], "{} on {}", object["name"], kernel["kernel"]);
            assert_eq!(kernel["facts"]["complete"], true, "{} on {}", object["name"], kernel["kernel"]);
            let attempts = kernel["attempts"].as_array().unwrap().iter();
            classes.extend(attempts.filter_map(|attempt| attempt["class"].as_str()).map(str::to_owned));
        }
        assert_eq!(object["kernels"].as_array().unwrap().len(), 3, "{}", object["name"]);
    }
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    // The default matrix has no kernel that is locked down (`lockdown_is_the_cause…`); the others are for what has no name.
    let without = ["object", "other", "refused"];
    let missing: Vec<&str> =
        LoadClass::ALL.iter().map(|class| class.name()).filter(|name| !classes.contains(*name)).collect();
    assert_eq!(missing.iter().copied().collect::<BTreeSet<_>>(), BTreeSet::from(without));
    assert_eq!(told["predictions"]["contradicted"], serde_json::json!([]));
    predictions_hold(&told, &objects);
    let named = |name: &str| {
        let all = told["objects"].as_array().unwrap();
        all.iter().find(|object| object["name"] == name).unwrap_or_else(|| panic!("no {name}"))
    };
    let findings = texts(&named("verdicts")["findings"]).join("\n");
    for part in [
        "6.12, 6.17: hooks disagree on program pipe_it, which returns 3, TC_ACT_PIPE",
        "dropped at netkit/primary, netkit/peer; netkit drops packets for every value but -1, 0 and 7",
        "program to_peer calls bpf_redirect_peer",
    ] {
        assert!(findings.contains(part), "{part} is not in:\n{findings}");
    }
    let weak = texts(&named("kfunc-weak")["findings"]).join("\n");
    assert!(weak.contains("kernels disagree: it loads on 6.12, 6.17, and not on 6.1"), "{weak}");
}

/// What is predicted without a boot must be what the boots have shown.
fn predictions_hold(told: &Value, objects: &[String]) {
    let mut arguments = vec!["--predict", "--format", "json"];
    arguments.extend(objects.iter().map(String::as_str));
    let done = check(&arguments);
    let predicted: Value =
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&done)));
    let mut certain = 0;
    for object in predicted["predicted"].as_array().unwrap() {
        let booted = told["objects"].as_array().unwrap().iter().find(|it| it["name"] == object[0]).unwrap();
        assert_eq!(object[1].as_array().unwrap().len(), 3, "every kernel that was booted is in the cache");
        for (it, kernel) in object[1].as_array().unwrap().iter().zip(booted["kernels"].as_array().unwrap()) {
            assert_eq!(it["kernel"], kernel["kernel"]);
            if !it["load"].is_null() {
                assert_eq!(it["load"], kernel["class"], "{} on {}", object[0], it["kernel"]);
                certain += 1;
            }
            for hook in kernel["facts"]["hooks"].as_array().unwrap() {
                let kind = hook["hook"].as_str().unwrap().split('-').next().unwrap();
                let absent = hook["attach"].get("absent").is_some();
                if kind != "clsact" {
                    assert_eq!(it[kind], !absent, "{kind} on {}", it["kernel"]);
                }
            }
        }
    }
    // Among them are kfunc, helper-cgroup and attach-type on 6.1, and kfunc-none, core, core-branch and lsm on all three.
    assert!(certain >= 40, "{certain}: {predicted}");
}

#[test]
fn an_expectation_that_is_not_met_fails_with_what_was_seen_and_where_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("wrong.toml");
    let wrong = r#"
        [packets]
        small = "udp 10.0.0.1:1 > 10.0.0.2:2"
        [[expect]]
        load = "fails: core"
        [[expect]]
        program = "pass"
        verdict = "2"
        [[expect]]
        program = "pipe_it"
        hook = "netkit/peer"
        fate = "delivered"
        [[expect]]
        program = "change_it"
        hook = "tcx/egress"
        bytes = "udp 10.0.0.1:1 > 10.0.0.2:2"
        [[expect]]
        program = "away"
        instructions = 1
        [[expect]]
        kernels = "<6.7"
        program = "pass"
        fate = "dropped"
    "#;
    fs::write(&config, wrong).unwrap();
    let object = corpus().join("verdicts.o").display().to_string();
    let done = check(&["-k", "6.12", "--config", config.to_str().unwrap(), &object]);
    let text = out(&done).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(done.status.code(), Some(1), "{text} {}", said(&done));
    for part in [
        "it loads, expected: failure `core`",
        "program pass with the packet small: verdict 0, expected: 2",
        "program pipe_it at netkit/peer, packet small: dropped, expected: delivered",
        "program change_it at tcx/egress, packet small: byte 22 is 07, expected: 40",
        "program away: 4 instructions, expected: at most 1",
        "wrong.toml:4)",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{}", out(&done));
    }
    assert!(!text.contains("program pass at"), "an expectation for another kernel counts:\n{text}");
    assert!(out(&done).lines().all(|line| line.chars().count() <= 80 || line.contains('/')), "{}", out(&done));
}

#[test]
fn a_crash_of_the_kernel_costs_the_object_that_causes_it_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    compile(Path::new(&format!("{SOURCES}/crash.c")), &path("crash.o"));
    compile(Path::new(&format!("{SOURCES}/corpus/longer.c")), &path("after.o"));
    fs::write(path("check.toml"), "modules = [\"nf_conntrack\"]\n").unwrap();
    let names: Vec<String> = ["crash.o", "after.o"].iter().map(|name| path(name).display().to_string()).collect();
    let done = check(&["-k", "6.17", "--format", "json", &names[0], &names[1]]);
    assert_eq!(done.status.code(), Some(1), "{}", said(&done));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    let [crash, after] = [0, 1].map(|at| &told["objects"][at]["kernels"][0]);
    let unmet = texts(&crash["unmet"]).join("\n");
    assert!(unmet.starts_with("crashed the kernel: BUG: unable to handle page fault"), "{unmet}");
    assert!(unmet.ends_with("it was at: BPF_PROG_TEST_RUN of program crashes with the packet udp"), "{unmet}");
    assert_eq!((crash["standing"].as_str(), after["standing"].as_str()), (Some("errored"), Some("passed")));
    assert_eq!(after["facts"]["hooks"].as_array().unwrap().len(), 2 * 6, "both programs at every hook");
}

/// Runs a check, and returns its exit code and what it told.
fn told(arguments: &[&str]) -> (Option<i32>, Value) {
    let done = check(&[&["--format", "json"], arguments].concat());
    let told = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(&done)));
    (done.status.code(), told)
}

/// Objects of the corpus, alone in a directory: nothing is expected of them but what is expected of every object.
fn plain(names: &[&str]) -> (TempDir, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let paths = names.iter().map(|name| {
        let to = directory.path().join(name);
        fs::copy(corpus().join(name), &to).unwrap();
        to.display().to_string()
    });
    let paths = paths.collect();
    (directory, paths)
}

#[test]
fn what_got_worse_since_an_earlier_run_fails_and_a_wrong_prediction_is_told() {
    let (directory, objects) = plain(&["verdicts.o"]);
    let results = directory.path().join("results").display().to_string();
    let run = |more: &[&str]| told(&[&["-k", "6.12", "--results", &results, &objects[0]], more].concat());
    assert_eq!(run(&[]).0, Some(0));
    // As if it had been run a day before: runs are told apart by the names of their directories.
    let first = fs::read_link(format!("{results}/latest")).unwrap();
    let yesterday = "20251125T080000Z-abcdef";
    fs::rename(Path::new(&results).join(first), format!("{results}/{yesterday}")).unwrap();
    // A redirected packet is told to be dropped: one of the check's own faults stands in for a kernel that does it.
    let before = format!("{results}/latest");
    let (code, worse) = run(&["--against", "yesterday", "--mutant", "redirected-dropped"]);
    assert!(worse["against"]["run"].as_str().unwrap().ends_with(yesterday), "{worse}");
    let changed = &worse["against"]["changed"][0];
    assert_eq!((code, changed["kernel"].as_str()), (Some(1), Some("6.12")), "{worse}");
    let texts: Vec<&str> = changed["changes"].as_array().unwrap().iter().filter_map(|it| it["text"].as_str()).collect();
    assert!(texts.contains(&"program away at tcx/ingress, packet udp: redirected: r0, now: dropped"), "{texts:?}");
    // What is better again fails nothing, and a prediction that takes every answer for yes is found out by the boot.
    let guarded = corpus().join("core-guarded.o").display().to_string();
    let (code, better) = run(&["--against", &before, "--mutant", "answers-yes", &guarded]);
    assert_eq!(code, Some(0), "{better}");
    let wrong = &better["predictions"]["contradicted"][0];
    assert_eq!(wrong["object"], "core-guarded");
    assert!(
        wrong["text"].as_str().unwrap().starts_with("predicted: it does not load (program reads: the field"),
        "{wrong}"
    );
    let findings = better["objects"][1]["findings"].as_array().unwrap();
    assert!(findings.iter().any(|it| it.as_str().unwrap().contains("the prediction is wrong")), "{findings:?}");
    for (run, wanted) in [("nothing", "nothing"), ("/nonexistent", "/nonexistent")] {
        let done = check(&["-k", "6.12", "--against", run, &objects[0]]);
        assert!(done.status.code() == Some(2) || done.status.code() == Some(3), "{:?}", done.status);
        assert!(said(&done).contains(wanted), "{}", said(&done));
    }
}

/// Kernels of Debian with modules, so that they have veth; the oldest has no kfuncs and no type information of modules.
const KERNELS: [&str; 15] = [
    "5.10",
    "6.1",
    "6.12.111",
    "6.12.116",
    "6.12",
    "6.17",
    "6.18.5",
    "6.18.9",
    "6.18.12",
    "6.18.15",
    "7.2.6",
    "7.2.9",
    "7.2.12",
    "7.3-rc",
    "6.17-generic",
];
/// `make objects`.
#[test]
#[ignore = "boots fifteen kernels"]
fn what_is_predicted_with_certainty_is_what_fifteen_kernels_do() {
    let objects = objects();
    let kernels = KERNELS.iter().flat_map(|kernel| ["-k", kernel]);
    let arguments: Vec<&str> = kernels.chain(objects.iter().map(String::as_str)).collect();
    let (_, told) = told(&arguments);
    let predictions = &told["predictions"];
    println!("{} certain predictions; {} failures not predicted", predictions["certain"], predictions["unforeseen"]);
    assert_eq!(predictions["contradicted"], serde_json::json!([]));
    assert!(predictions["certain"].as_u64().unwrap() > 700, "{predictions}");
    let mut unmet = Vec::new();
    for object in told["objects"].as_array().unwrap() {
        for kernel in object["kernels"].as_array().unwrap() {
            let name = kernel["kernel"].as_str().unwrap();
            // What is expected is written for kernels with kfuncs.
            if name != "5.10" {
                unmet
                    .extend(texts(&kernel["unmet"]).iter().map(|line| format!("{} on {name}: {line}", object["name"])));
            }
        }
    }
    assert!(unmet.is_empty(), "{}", unmet.join("\n"));
}

/// `make objects`.
#[test]
#[ignore = "a run for each fault"]
fn every_fault_of_the_check_is_noticed() {
    let corpus = |name: &str| corpus().join(name).display().to_string();
    for fault in lab_check::CheckFault::ALL {
        let name = fault.name();
        let object = match name {
            "loads-always" | "nothing-said" => "kfunc-none.o",
            "nothing-verified" => "helper.o",
            "instructions-many" => "growing.o",
            "answers-yes" => "core-guarded.o",
            "counter-stuck" | "runs-doubled" => "counters.o",
            _ => "verdicts.o",
        };
        let kernel = if name == "absent-refused" { "6.1" } else { "6.12" };
        let (code, told) = told(&["-k", kernel, "--mutant", name, &corpus(object)]);
        let is_contradicted = !told["predictions"]["contradicted"].as_array().unwrap().is_empty();
        assert!(code == Some(1) || is_contradicted, "{name} is not noticed: {told}");
    }
}

/// The kernel's entry of an object that was checked on one kernel, by this loader.
fn by<'a>(told: &'a Value, object: &str, loader: &str) -> &'a Value {
    let object = told["objects"].as_array().unwrap().iter().find(|it| it["name"] == object).unwrap();
    let kernels = object["kernels"].as_array().unwrap();
    kernels.iter().find(|it| it["loader"] == loader).unwrap_or_else(|| panic!("no {loader}: {object}"))
}

/// Hooks at which the kernel listed a program, with the fate of the packet.
fn fates(kernel: &Value, program: &str) -> Vec<(String, String)> {
    let hooks = kernel["facts"]["hooks"].as_array().unwrap().iter();
    let own = hooks.filter(|hook| hook["program"] == program && hook["attach"] == "listed");
    let fate = |packet: &Value| match &packet["fate"] {
        Value::String(word) => word.clone(),
        other => other.as_object().unwrap().keys().next().unwrap().clone(),
    };
    own.map(|hook| (hook["hook"].as_str().unwrap().to_owned(), fate(&hook["packets"][0]))).collect()
}

#[test]
fn other_loaders_are_told_beside_libbpf_and_the_kernel_says_where_they_attach() {
    let (directory, mut objects) = plain(&["verdicts.o"]);
    let plainest = directory.path().join("loaders.o");
    compile(Path::new(&format!("{SOURCES}/loaders.c")), &plainest);
    objects.push(plainest.display().to_string());
    // One that goes on after it has attached, as daemons do: a shell that has the guest's tc attach, and stops itself.
    let stays = "cmd:/bin/bash -c 'in=/check/programs/tc; tc() { $in/ld-linux*.so.* --library-path $in $in/tc \"$@\"; }; \
                 tc qdisc add dev $LAB_DEVICE clsact && tc filter add dev $LAB_DEVICE ingress bpf da obj {} sec classifier && \
                 kill -STOP $$'";
    let loaders = ["tc", "bpftool", "aya", "cmd:/bin/false", "cmd:/bin/echo loads {} never", stays];
    let mut arguments = vec!["-k", "6.12"];
    loaders.iter().for_each(|loader| arguments.extend(["--loader", loader]));
    arguments.extend(objects.iter().map(String::as_str));
    let (code, told) = told(&arguments);
    // /bin/false loads nothing, and aya knows no section `tc`.
    assert_eq!(code, Some(1), "{told}");
    let at = |hooks: [&str; 2], fate: &str| hooks.map(|hook| (hook.to_owned(), fate.to_owned()));
    let (clsact, tcx) = (["clsact-ingress", "clsact-egress"], ["tcx-ingress", "tcx-egress"]);
    for (loader, hooks, word) in
        [("tc", clsact, "clsact/ingress"), ("bpftool", tcx, "tcx/ingress"), ("aya", tcx, "tcx/ingress")]
    {
        let kernel = by(&told, "loaders", loader);
        assert_eq!(fates(kernel, "drops"), at(hooks, "dropped"), "{loader}: {kernel}");
        assert_eq!((kernel["standing"].as_str(), texts(&kernel["unmet"]).len()), (Some("passed"), 0), "{kernel}");
        let seen = texts(&kernel["attached"]).join("\n");
        assert!(seen.contains(word), "the witness tells what {loader} attached: {seen}");
    }
    // tc takes the first program of a section, bpftool each, and both do what libbpf does.
    assert_eq!(fates(by(&told, "verdicts", "tc"), "pass"), at(clsact, "delivered"), "{told}");
    assert_eq!(fates(by(&told, "verdicts", "tc"), "drop_it"), [], "{told}");
    assert_eq!(fates(by(&told, "verdicts", "bpftool"), "drop_it"), at(tcx, "dropped"), "{told}");
    let findings = |at: usize| texts(&told["objects"][at]["findings"]).join("\n");
    assert!(!findings(0).contains("loaders disagree"), "{}", findings(0));
    assert!(findings(0).contains("6.12: aya does not load it, libbpf does: "), "{}", findings(0));
    assert!(!findings(1).contains("6.12: aya does not load it"), "{}", findings(1));
    assert!(findings(1).contains("6.12: false does not load it, libbpf does"), "{}", findings(1));
    let failed = by(&told, "loaders", "false");
    assert_eq!((failed["standing"].as_str(), texts(&failed["unmet"]).len()), (Some("failed"), 1), "{failed}");
    let echo = by(&told, "loaders", "echo");
    let notes = texts(&echo["facts"]["notes"]).join("\n");
    assert!(notes.contains("attached nothing"), "{notes}");
    assert!(texts(&echo["facts"]["loads"][0]["said"])[0].ends_with("loaders.o never"), "{echo}");
    let stays = by(&told, "loaders", "bash");
    assert_eq!(fates(stays, "drops"), at(clsact, "dropped")[..1], "{stays}");
    assert_eq!((stays["standing"].as_str(), texts(&stays["unmet"]).len()), (Some("passed"), 0), "{stays}");
}

/// `make objects`.
#[test]
#[ignore = "boots a kernel that is locked down"]
fn lockdown_is_the_cause_where_it_takes_a_helper_away() {
    let (_directory, objects) = plain(&["lockdown.o", "verdicts.o"]);
    let (code, told) = told(&["-k", "6.12+hardened", &objects[0], &objects[1]]);
    assert_eq!(code, Some(1), "{told}");
    let refused = by(&told, "lockdown", "libbpf");
    assert_eq!(refused["class"], "refused", "{refused}");
    let unmet = texts(&refused["unmet"]).join("\n");
    assert!(unmet.contains("the kernel is locked down (integrity): it refuses bpf_probe_write_user"), "{unmet}");
    assert_eq!(by(&told, "verdicts", "libbpf")["standing"], "passed", "other programs load: {told}");
}

/// `make objects`.
#[test]
#[ignore = "boots four kernels several times"]
fn a_bisection_finds_the_kernel_from_which_on_an_object_loads() {
    let (directory, objects) = plain(&["attach-type.o"]);
    let out = directory.path().join("out").display().to_string();
    let ends = ["--good", "6.12", "--bad", "6.1", "-k", "6.12.111,6.12.116", "--out", &out];
    let done = lab(&["bisect", "--check", &objects[0]]).args(ends).output().unwrap();
    let report = self::out(&done);
    assert_eq!(done.status.code(), Some(0), "{report}{}", said(&done));
    assert!(report.contains("6.12.111") && report.contains("lab check --kernel 6.12.111 "), "{report}");
}

#[test]
fn what_is_no_object_is_refused_before_a_guest_boots() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        fs::write(directory.path().join(name), bytes).unwrap();
        directory.path().join(name).display().to_string()
    };
    let object = fs::read(corpus().join("verdicts.o")).unwrap();
    let (mut big_endian, mut other) = (object.clone(), object.clone());
    big_endian[5] = 2;
    other[18] = 62;
    let large = directory.path().join("large.o");
    fs::File::create(&large).unwrap().set_len(200 << 20).unwrap();
    for (path, wanted) in [
        (file("text.o", b"SEC(\"tc\") int x;"), "text.o: it is no ELF file; compile the program with `clang"),
        (file("big.o", &big_endian), "big.o: it is an ELF file for a big-endian machine"),
        (file("x86.o", &other), "x86.o: it is an ELF file for the machine 62"),
        (file("cut.o", &object[..object.len() / 2]), "cut.o: it is a broken ELF file: "),
        (large.display().to_string(), "large.o: it has 200 MiB; an eBPF object has at most 64 MiB"),
        ("/nonexistent.o".to_owned(), "can't read /nonexistent.o: No such file or directory"),
    ] {
        let done = check(&["-k", "6.12", &path]);
        let said = said(&done);
        assert_eq!((done.status.code(), said.lines().count()), (Some(2), 1), "{said}");
        assert!(said.contains(wanted), "{wanted} is not in: {said}");
    }
    file("check.toml", b"[[expect]]\nprogram = \"pas\"\nfate = \"dropped\"\n");
    let done = check(&["-k", "6.12", &file("verdicts.o", &object)]);
    let said = said(&done);
    assert!(said.contains("check.toml:1: ") && said.contains("has no program `pas`; did you mean `pass`?"), "{said}");
}
