//! Searches in the commits of a git tree, from the command line to the report. What a guest does depends on the modules that
//! were built for it.

use crate::{
    Test,
    fake::Scenario,
    lab,
    tree::{self, Module, Tree},
};
use lab::testing::agent::{Script, good};
use lab_protocol::{Check, FailureKind, Outcome};
use serde_json::Value;
use std::{
    env, fs,
    io::{BufRead, BufReader, Read as _},
    os::unix::fs::FileExt as _,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

/// The name of the scenario: the guest's cell fails if a module of its kernel says so.
const BY_MODULES: &str = "by-modules";
/// The same, and each guest takes a while.
const SLOWLY: &str = "slowly";
/// The time that a slow guest takes.
const PAUSE: Duration = Duration::from_secs(4);

pub const TESTS: [Test; 7] = [
    ("commits that differ in a .ko.xz only are not the same kernel", || a_module_decides("xz")),
    ("commits that differ in a .ko.gz only are not the same kernel", || a_module_decides("gz")),
    ("commits that differ in a .ko.zst only are not the same kernel", || a_module_decides("zst")),
    ("a revert that does not cure makes the answer not sure", a_revert_that_does_not_cure),
    ("swapped ends are told to be swapped", swapped_ends),
    ("a long search says how far it is", progress),
    ("a search for a selftest that the tree has not builds nothing", a_selftest_that_is_not_there),
];

pub fn scenario(name: &str) -> Scenario {
    let pause = if name == SLOWLY { PAUSE } else { Duration::ZERO };
    Scenario::of(move |mut script: Script<'_>| {
        let fails = fails();
        let cells = script.boot();
        if cells.is_empty() {
            return;
        }
        thread::sleep(pause);
        for cell in &cells {
            script.start(cell);
            let mut report = good(cell);
            if fails {
                report.outcome =
                    Outcome::Failed { kind: FailureKind::Check, message: "udp arrives: 0 of 3".to_owned() };
                report.checks.push(Check { name: "udp arrives".to_owned(), ok: false, seen: "0 of 3".to_owned() });
            }
            script.finish(report);
        }
        script.end(cells.len());
    })
}

/// Whether a module of the guest's image says that the cell fails. In QEMU's place, the other files of the kernel can't be read. A
/// restored guest has no image: the guest that became the snapshot has left the answer in the memory, as a kernel does.
fn fails() -> bool {
    let words: Vec<String> = env::args().collect();
    let image = words.windows(2).find(|pair| pair[0] == "-initrd").map(|pair| &pair[1]);
    let memory = words.iter().flat_map(|word| word.split(',')).find_map(|part| part.strip_prefix("mem-path="));
    let Some(image) = image else {
        let mut answer = [0];
        fs::File::open(memory.expect("a memory")).and_then(|mut file| file.read_exact(&mut answer)).expect("an answer");
        return answer[0] == 1;
    };
    let fails = tree::fails(Path::new(image));
    if let Some(memory) = memory {
        let file = fs::File::options().write(true).open(memory).expect("the memory");
        file.write_all_at(&[u8::from(fails)], 0).expect("an answer");
    }
    fails
}

/// A tree, and the lab's project and cache.
struct Desk {
    scratch: tempfile::TempDir,
    tree: Tree,
}

impl Desk {
    fn new(suffix: &'static str) -> Self {
        let scratch = tempfile::Builder::new().prefix("search-").tempdir().unwrap();
        let tree = Tree::new(scratch.path(), suffix);
        Self { scratch, tree }
    }

    /// `lab bisect` between two commits of the tree.
    fn bisect(&self, name: &str, good: &str, bad: &str) -> Command {
        self.bisect_case(name, "B02*", good, bad)
    }

    fn bisect_case(&self, name: &str, case: &str, good: &str, bad: &str) -> Command {
        let (tree, build) = (self.tree.path().display().to_string(), self.tree.build_command());
        let words =
            ["bisect", "--no-build", "--case", case, "--tree", &tree, "--build-command", &build, "--good", good];
        let words: Vec<&str> = words.into_iter().chain(["--bad", bad]).collect();
        let mut command = lab(name, self.scratch.path(), &words, tree::VERSION);
        let path = lab_base::programs::search_path().into_string().unwrap();
        command.env("PATH", format!("{}:{path}", self.tree.programs().display()));
        command
    }

    /// The report for programs, of the only search.
    fn report(&self) -> Value {
        let searches = self.scratch.path().join("project/results/bisect");
        let search = fs::read_dir(&searches).unwrap().flatten().next().expect("a search").path();
        serde_json::from_slice(&fs::read(search.join("report.json")).unwrap()).unwrap()
    }
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout))
}

fn a_module_decides(suffix: &'static str) {
    let desk = Desk::new(suffix);
    let first = desk.tree.commit("first", Module::Passes(1), Module::Passes(1));
    let docs = desk.tree.commit_text("docs: say more");
    let breaks = desk.tree.commit("net: break it", Module::Fails, Module::Passes(1));
    let last = desk.tree.commit("net: change another", Module::Fails, Module::Passes(2));
    let output = desk.bisect(BY_MODULES, &first, &last).output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(0), "{told}");
    let report = desk.report();
    assert_eq!(report["culprit_name"]["exact"], breaks, "{told}");
    let finding = &report["finding"];
    assert_eq!(finding["sure"], true, "{told}");
    assert_eq!(finding["revert"]["cured"], true, "{told}");
    let hashes = [first, docs, breaks, last];
    let image = |hash: &str| {
        let point = hashes.iter().position(|it| it == hash).unwrap();
        let steps = finding["steps"].as_array().unwrap();
        steps.iter().find(|step| step["point"] == point).map(|step| step["image"].clone()).expect("it was tested")
    };
    assert_eq!(image(&hashes[0]), image(&hashes[1]), "the same files: {told}");
    assert_ne!(image(&hashes[1]), image(&hashes[2]), "{told}");
    assert_ne!(image(&hashes[2]), image(&hashes[3]), "{told}");
    // The image alone is the same for all of them.
    assert_eq!(tree::images(&desk.scratch.path().join("cache")).len(), 1);
}

fn a_revert_that_does_not_cure() {
    let desk = Desk::new("xz");
    let first = desk.tree.commit("first", Module::Passes(1), Module::Passes(1));
    let breaks = desk.tree.commit("net: break it", Module::Fails, Module::Passes(1));
    let also = desk.tree.commit("net: break another", Module::Fails, Module::Fails);
    let output = desk.bisect(BY_MODULES, &first, &also).output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let likeliest = format!("culprit: not sure; the likeliest is {} (net: break it)", &breaks[..12]);
    assert!(told.contains(&likeliest) && told.contains("but reverting it changes nothing"), "{told}");
    assert!(told.contains("3 of 3 runs fail: without it the bad end is unchanged"), "{told}");
    let report = desk.report();
    assert!(report["culprit_name"].is_null(), "{told}");
    let (sure, confidence) = (&report["finding"]["sure"], report["finding"]["confidence"].as_f64().unwrap());
    assert!(*sure == false && confidence < 0.5, "{confidence}: {told}");
}

fn swapped_ends() {
    let desk = Desk::new("xz");
    let first = desk.tree.commit("first", Module::Passes(1), Module::Passes(1));
    let breaks = desk.tree.commit("net: break it", Module::Fails, Module::Passes(1));
    let output = desk.bisect(BY_MODULES, &breaks, &first).output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(
        told.contains(
            "the ends are swapped: the failure occurred in 3 of 3 runs at the good end and in 0 of 3 at the bad one; \
             swap --good and --bad"
        ),
        "{told}"
    );
    assert!(!told.contains("fails on both ends"), "{told}");
    // Every step has a line.
    for line in ["building ", "built ", ": booting "] {
        assert_eq!(told.matches(line).count(), 2, "{line}: {told}");
    }
}

/// Between two lines are at most some seconds more than those after which a line is due, however many runs there are.
fn progress() {
    let desk = Desk::new("xz");
    let first = desk.tree.commit("first", Module::Passes(1), Module::Passes(1));
    let breaks = desk.tree.commit("net: break it", Module::Fails, Module::Passes(1));
    let mut lab = desk.bisect(SLOWLY, &first, &breaks).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(lab.stderr.take().unwrap()).lines().map_while(Result::ok);
    let mut told = Vec::new();
    for line in lines {
        let done = line.ends_with(" so far");
        told.push(line);
        if done {
            break;
        }
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(lab.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let code = lab.wait().unwrap().code();
    let last = told.last().cloned().unwrap_or_default();
    assert!(last.contains(": it passes; ") || last.contains(": the failure occurred; "), "{told:?}");
    assert!(last.ends_with(" runs so far"), "{told:?}");
    assert_eq!(code, Some(143), "{told:?}");
}

/// The tree's own tests, as they are checked out.
fn a_selftest_that_is_not_there() {
    let wrong = |case| {
        let desk = Desk::new("xz");
        let first = desk.tree.commit("first", Module::Passes(1), Module::Passes(1));
        let last = desk.tree.commit_selftest("net/a.sh");
        let output = desk.bisect_case(BY_MODULES, case, &first, &last).output().unwrap();
        (output.status.code(), told(&output))
    };
    let (code, said) = wrong("kselftest/net/b.sh");
    assert!(code != Some(0) && said.contains("b.sh") && !said.contains("building"), "{said}");
    let (code, said) = wrong("kselftest/net/*");
    assert!(code == Some(2) && said.contains("name one selftest, for example kselftest/net/fib_tests.sh"), "{said}");
}
