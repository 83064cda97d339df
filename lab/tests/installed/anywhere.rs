//! The installed lab in directories that are not projects.

use super::own_cache;
use super::package::{fine, lab, packages, project, words};
use lab_protocol::message::PORT_NAME;
use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

/// The directory of the cached 6.12.
fn kernel() -> PathBuf {
    let project = project();
    let said = fine(&lab(project.path(), &["kernels", "fetch", "--kernel", "6.12"]).output().unwrap());
    PathBuf::from(said.trim_end().rsplit(" at ").next().unwrap()).parent().unwrap().to_owned()
}

#[track_caller]
fn counts(output: &Output, directory: &Path) -> serde_json::Value {
    let run = fs::read(directory.join("results/latest/run.json")).unwrap_or_else(|_| panic!("{}", words(output)));
    serde_json::from_slice::<serde_json::Value>(&run).unwrap()["counts"].clone()
}

#[test]
fn init_lists_its_files_and_replaces_none_without_force() {
    let dir = project();
    let refused = lab(dir.path(), &["init"]).output().unwrap();
    let error = words(&refused);
    assert_eq!(refused.status.code(), Some(2), "{error}");
    assert!(error.contains("has kernels.toml, lab.toml, known.toml, splats.toml, kernels.lock already"), "{error}");
    fine(&lab(dir.path(), &["init", "--force"]).output().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let lost = lab(elsewhere.path(), &["list"]).output().unwrap();
    assert_eq!(lost.status.code(), Some(2), "{}", words(&lost));
    assert!(words(&lost).contains("`lab init`"), "{}", words(&lost));
}

#[test]
fn every_command_works_in_a_new_project_without_a_compiler() {
    let dir = project();
    let at = dir.path();
    let run = |arguments: &[&str]| fine(&lab(at, arguments).output().unwrap());
    let started = Instant::now();
    assert!(run(&["list", "--case", "A01*"]).contains("A01-"));
    assert!(started.elapsed() < Duration::from_secs(3), "`lab list` took {:?}", started.elapsed());
    assert!(run(&["topology", "list"]).contains("pods"));
    let doctor = words(&lab(at, &["doctor"]).output().unwrap());
    assert!(!doctor.contains("Rust") && !doctor.contains("bpf-linker"), "it builds nothing: {doctor}");
    let select = ["--kernel", "6.12", "--case", "A01-*"];
    run(&[&["run"][..], &select].concat());
    let capabilities = run(&["capabilities", "--kernel", "6.12"]);
    assert!(capabilities.contains("netkit"), "{capabilities}");
    assert_eq!(run(&["shell", "6.12", "--", "echo", "in a guest"]), "in a guest\n");
    let shards = at.join("shards");
    for part in ["1/2", "2/2"] {
        run(&[&["run"][..], &select, &["--partition", part, "--out", "shards"]].concat());
    }
    run(&["merge", "shards"]);
    let watch = lab(at, &["run", "--watch"]).output().unwrap();
    assert_eq!(watch.status.code(), Some(2), "{}", words(&watch));
    assert!(words(&watch).contains("this lab is installed"), "{}", words(&watch));

    let other = other_lab(&[("datapath.o", &|object| [object, &[0]].concat())]);
    fs::remove_dir_all(&shards).unwrap();
    run(&[&["run"][..], &select, &["--partition", "1/2", "--out", "shards"]].concat());
    let second = [&["run"][..], &select, &["--partition", "2/2", "--out", "shards"]].concat();
    fine(&of_other(&other, at, &second).output().unwrap());
    let refused = lab(at, &["merge", "shards"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", words(&refused));
    assert!(words(&refused).contains("the installed lab"), "{}", words(&refused));
}

type Change<'a> = (&'a str, &'a dyn Fn(&[u8]) -> Vec<u8>);

/// A lab whose guests run something else.
fn other_lab(changes: &[Change<'_>]) -> tempfile::TempDir {
    let other = tempfile::tempdir().unwrap();
    let prefix = &packages().prefix;
    fine(&Command::new("cp").arg("-a").arg(prefix.join(".")).arg(other.path()).output().unwrap());
    for (name, change) in changes {
        let object = other.path().join("lib/netkit-lab").join(name);
        fs::write(&object, change(&fs::read(&object).unwrap())).unwrap();
    }
    other
}

fn of_other(other: &tempfile::TempDir, at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(other.path().join("bin/lab"));
    super::package::plain(command.current_dir(at).args(arguments));
    command
}

/// This machine's cache without its images: the one that was built last stands in for others, and other tests build some meanwhile.
fn own_images() -> tempfile::TempDir {
    let cache = tempfile::tempdir().unwrap();
    own_cache::but(cache.path(), &["images", "snapshots"]);
    cache
}

fn in_cache(cache: &tempfile::TempDir, mut command: Command) -> io::Result<Output> {
    command.env("NETKIT_LAB_CACHE", cache.path()).output()
}

#[test]
fn objects_that_have_changed_are_sent_to_restored_guests() {
    const BOOTS: &str = "for a snapshot";
    let (dir, cache) = (project(), own_images());
    let cells = ["run", "--kernel", "6.12", "--case", "A01-*veth*", "--case", "T02-datapath-pod-to-pod[tc,veth]"];
    fine(&in_cache(&cache, lab(dir.path(), &cells)).unwrap());
    // The loader of either object does not read what is behind its sections.
    let longer = |object: &[u8]| [object, &[0]].concat();
    let other = other_lab(&[("lab.o", &longer), ("datapath.o", &longer)]);
    let sent = in_cache(&cache, of_other(&other, dir.path(), &cells)).unwrap();
    fine(&sent);
    assert!(!words(&sent).contains(BOOTS), "{}", words(&sent));
    for (file, name) in [("lab.o", "lab.o"), ("datapath.o", "program datapath")] {
        let broken = other_lab(&[(file, &|_| b"no object".to_vec())]);
        let failed = in_cache(&cache, of_other(&broken, dir.path(), &cells)).unwrap();
        assert_eq!(failed.status.code(), Some(3), "{}", words(&failed));
        let why = words(&failed);
        assert!(why.contains("the agent gave up") && why.contains(name) && !why.contains(BOOTS), "{why}");
    }
    // Many cells are worth an image.
    let all = ["run", "--kernel", "6.12", "--case", "V0*"];
    let built = in_cache(&cache, of_other(&other, dir.path(), &all)).unwrap();
    fine(&built);
    assert!(words(&built).contains(BOOTS), "{}", words(&built));
}

#[test]
fn an_agent_that_has_changed_takes_the_place_of_the_one_in_restored_guests() {
    const BOOTS: &str = "for a snapshot";
    let (dir, cache) = (project(), own_images());
    let cells = ["run", "--kernel", "6.12", "--case", "A01-*veth*"];
    fine(&in_cache(&cache, lab(dir.path(), &cells)).unwrap());
    // The kernel does not load what is behind the last segment.
    let longer = |file: &[u8]| [file, &[0]].concat();
    let other = other_lab(&[("guest-agent", &longer), ("lab.o", &longer)]);
    let sent = in_cache(&cache, of_other(&other, dir.path(), &cells)).unwrap();
    fine(&sent);
    assert!(!words(&sent).contains(BOOTS), "{}", words(&sent));
    let again = in_cache(&cache, of_other(&other, dir.path(), &cells)).unwrap();
    fine(&again);
    assert!(!words(&again).contains(BOOTS), "{}", words(&again));
    // One that lists its cells, and finds no port in a guest.
    let lost = other_lab(&[("guest-agent", &|agent| renamed(agent, PORT_NAME.as_bytes()))]);
    let failed = in_cache(&cache, of_other(&lost, dir.path(), &cells)).unwrap();
    assert_eq!(failed.status.code(), Some(3), "{}", words(&failed));
    let why = words(&failed);
    let told = "guest-agent could not take the place of the snapshot's (the next run boots a guest with it)";
    assert!(why.contains(told) && why.contains("6.12") && !why.contains(BOOTS), "{why}");
    // It may have been the snapshot's agent that failed.
    let booted = in_cache(&cache, lab(dir.path(), &cells)).unwrap();
    fine(&booted);
    assert!(words(&booted).contains(BOOTS), "{}", words(&booted));
    // Each cell in a guest of its own is worth an image.
    let apart = [&cells[..], &["--isolate", "case"]].concat();
    let built = in_cache(&cache, of_other(&other, dir.path(), &apart)).unwrap();
    fine(&built);
    assert!(words(&built).contains(BOOTS), "{}", words(&built));
}

/// A file with each occurrence of a word changed in its last letter.
fn renamed(file: &[u8], word: &[u8]) -> Vec<u8> {
    let mut changed = file.to_vec();
    let found: Vec<usize> = file.windows(word.len()).enumerate().filter(|(_, it)| *it == word).map(|it| it.0).collect();
    assert!(!found.is_empty(), "the program does not contain it");
    found.into_iter().for_each(|at| changed[at + word.len() - 1] ^= 1);
    changed
}

/// The figures of docs/install.md: `cargo test -p lab --test installed one_cell -- --nocapture` shows them.
#[test]
fn one_cell_again_takes_little_more_time_than_its_guest() {
    let dir = project();
    let cell = ["run", "--kernel", "6.12", "--case", "A02-tcx-link[tcx,veth,from-workload]"];
    fine(&lab(dir.path(), &cell).output().unwrap());
    // Processor time, the guest's included: other work on this machine does not lengthen it as much as the wait.
    let time = |more: &[&str]| {
        let started = Instant::now();
        let run = lab(dir.path(), &[&cell, more].concat());
        let mut timed = Command::new("bash");
        timed.args(["-c", r#"TIMEFORMAT="%U %S"; time "$@""#, "bash"]).arg(run.get_program()).args(run.get_args());
        let output = super::package::plain(timed.current_dir(dir.path())).output().unwrap();
        fine(&output);
        let waited = started.elapsed();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let used = errors.lines().last().unwrap().split(' ').map(|part| part.parse::<f64>().unwrap()).sum::<f64>();
        (used, waited)
    };
    let (booted, _) = time(&["--cold"]);
    let runs: Vec<_> = (0..5).map(|_| time(&[])).collect();
    let used = runs.iter().map(|run| run.0).fold(f64::MAX, f64::min);
    let waited = runs.iter().map(|run| run.1).min().unwrap();
    let told = format!("{waited:?} until the exit, processors for {used:.2} s; {booted:.2} s with a boot");
    println!("one cell again: {told}");
    // Machines differ by more than the two ways do on one of them.
    assert!(used < booted / 4.0, "{told}");
}

#[test]
fn a_kernel_of_this_host_needs_no_file() {
    let kernel = kernel();
    let dir = tempfile::tempdir().unwrap();
    let image = kernel.join("vmlinuz").display().to_string();
    let modules = kernel.join("modules").display().to_string();
    let case = ["--case", "A01-*veth*"];
    let with =
        lab(dir.path(), &[&["run", "--image", &image, "--modules", &modules][..], &case].concat()).output().unwrap();
    let told = fine(&with);
    assert!(told.contains("image") && counts(&with, dir.path())["passed"].as_u64() > Some(0), "{}", words(&with));
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["results"], "nothing but results is written");

    let without = lab(dir.path(), &[&["run", "--image", &image][..], &case].concat()).output().unwrap();
    assert_eq!(without.status.code(), Some(1), "{}", words(&without));
    let hint: Vec<String> =
        words(&without).lines().filter(|line| line.contains("--modules DIR")).map(str::to_owned).collect();
    assert_eq!(hint.len(), 1, "one line: {}", words(&without));

    // A built tree without modules has its image and its configuration where a build puts them.
    let tree = dir.path().join("linux");
    fs::create_dir_all(tree.join("arch/x86/boot")).unwrap();
    symlink(&image, tree.join("arch/x86/boot/bzImage")).unwrap();
    symlink(kernel.join("config"), tree.join(".config")).unwrap();
    let output = lab(dir.path(), &["run", "--tree", "linux", "--case", "A02-*nk-l3*"]).output().unwrap();
    fine(&output);

    for (arguments, wanted) in [
        (&["run", "--image", "/nonexistent"][..], "/nonexistent"),
        (&["run", "--modules", &modules], "--image"),
        (&["run", "--image", &image, "--kernel", "6.12"], "--kernel"),
    ] {
        let refused = lab(dir.path(), arguments).output().unwrap();
        assert!(!refused.status.success() && words(&refused).contains(wanted), "{}", words(&refused));
    }
}

#[test]
fn local_kernels_are_merged_and_not_committed() {
    let kernel = kernel();
    let dir = project();
    let at = |name: &str| kernel.join(name).display().to_string();
    let local = format!(
        "[kernels.mine]\nclass = \"mine\"\nsource.path = {{ image = \"{}\", modules = \"{}\" }}\n",
        at("vmlinuz"),
        at("modules")
    );
    fs::write(dir.path().join("kernels.local.toml"), local).unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(dir.path()).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null");
        fine(&git.output().unwrap())
    };
    git(&["init", "--quiet"]);
    assert!(!git(&["status", "--porcelain", "--untracked-files=all"]).contains("local"), "git ignores it");
    let listed = fine(&lab(dir.path(), &["kernels", "list"]).output().unwrap());
    assert!(listed.contains("6.12") && listed.contains("mine"), "{listed}");
    fine(&lab(dir.path(), &["run", "--kernel", "mine", "--case", "A01-*veth*"]).output().unwrap());
}
