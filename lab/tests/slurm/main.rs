//! What `lab plan --format slurm` writes, on a real Slurm of four nodes: tasks start in the order of recorded times, those of lost
//! nodes run again, every shard counts once, and the merge waits for all of them. The short form has a stand-in for the lab;
//! `make test-slurm` runs the default matrix in guests.

mod cluster;

use cluster::{Cluster, wait_for};
use lab::{
    project::artifacts::BPF_OBJECTS,
    shard::{
        layout::{Layout, LayoutFormat},
        split,
    },
};
use lab_record::synthetic;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const LAB: &str = env!("CARGO_BIN_EXE_lab");
const SHARDS: u32 = 8;
/// Until the stand-in's tasks have ended, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(400);
/// The same for guests.
const NIGHT: Duration = Duration::from_secs(4 * 3600);

/// The numbers of the jobs that a script has submitted.
struct Jobs {
    array: String,
    merge: String,
    directory: PathBuf,
}

/// Submits a script in a directory, as a person does.
fn submit(cluster: &Cluster, script: &Path, home: &Path, lab: &Path, options: &[&str]) -> Jobs {
    let mut command = Command::new("bash");
    cluster.environment(&mut command);
    let output = command.arg(script).args(options).env("LAB", lab).current_dir(home).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}{}", String::from_utf8_lossy(&output.stderr), cluster.logs());
    let words = said.strip_prefix("array job ").and_then(|rest| rest.trim_end().split_once(", merge job "));
    let told = words.and_then(|(array, rest)| Some((array, rest.split_once("; logs and shards in ")?)));
    let (array, (merge, directory)) = told.unwrap_or_else(|| panic!("{said}"));
    Jobs { array: array.to_owned(), merge: merge.to_owned(), directory: directory.into() }
}

/// Waits for the merge; returns its exit code.
fn merged(cluster: &Cluster, jobs: &Jobs, patience: Duration) -> String {
    wait_for("end of the merge", patience, || {
        let state = cluster.job(&jobs.merge, "JobState")?;
        matches!(&*state, "COMPLETED" | "FAILED" | "CANCELLED" | "TIMEOUT").then_some(())
    });
    cluster.job(&jobs.merge, "ExitCode").unwrap()
}

/// Text of a file that a task writes.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Behaves as the lab does towards the script. Files in its directory let the first attempt of a node end; that of the shard
/// UNDECIDED has no verdict, and the shard FAILING has failures.
const STAND_IN: &str = r#"#!/bin/bash
here=$(dirname "$0") restarts=${SLURM_RESTART_COUNT:-0}
case $1 in
run)
    while [ $# -gt 0 ]; do
        case $1 in
        --partition) shard=${2%/*} ;;
        --out) out=$2 ;;
        esac
        shift
    done
    echo "$shard $SLURMD_NODENAME $restarts $NETKIT_LAB_CACHE" >>"$here/started"
    mkdir -p "$out/run"
    echo '{}' >"$out/run/events.jsonl"
    until [ -e "$here/go-$SLURMD_NODENAME" ] || [ "$restarts" -gt 0 ]; do sleep 0.1; done
    echo "$SLURMD_NODENAME" >"$out/run/node"
    case $shard-$restarts in
    UNDECIDED-0) exit 3 ;;
    FAILING-*) exit 1 ;;
    esac
    ;;
merge) printf '%s\n' "${@:2}" >"$here/merged" ;;
esac
"#;

#[test]
fn tasks_of_lost_nodes_run_again_and_every_shard_counts_once() {
    let stage = tempfile::tempdir().unwrap();
    let at = |name: &str| stage.path().join(name);
    let plan = synthetic::plan(3, 60);
    let split = split(&plan, SHARDS, &|kernel, _| 100 * kernel.id.len() as u64).unwrap();
    let layout = Layout::new(&plan, &split, BTreeMap::new(), &[]);
    fs::write(at("night.sh"), layout.render(LayoutFormat::Slurm, "").unwrap()).unwrap();
    let mut order: Vec<_> = layout.shards.iter().collect();
    order.sort_by_key(|shard| std::cmp::Reverse(shard.estimate_s));
    let order: Vec<u32> = order.iter().map(|shard| shard.number).collect();
    // The last two, so that neither of them is on a node that is lost.
    let [undecided, failing] = [order[6], order[7]];
    let stand_in = STAND_IN.replace("UNDECIDED", &undecided.to_string()).replace("FAILING", &failing.to_string());
    fs::write(at("lab"), stand_in).unwrap();
    fs::set_permissions(at("lab"), fs::Permissions::from_mode(0o755)).unwrap();

    let nodes = ["n1", "n2", "n3", "n4"].map(|name| (name, at(name)));
    let mut cluster = Cluster::start(&nodes);
    let jobs = submit(&cluster, &at("night.sh"), stage.path(), &at("lab"), &[]);
    let started = || -> Vec<(u32, String, u32, PathBuf)> {
        let all = text(&at("started"));
        let words = all.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        words.map(|it| (it[0].parse().unwrap(), it[1].to_owned(), it[2].parse().unwrap(), it[3].into())).collect()
    };
    let first = wait_for("task on each node", PATIENCE, || Some(started()).filter(|all| all.len() == nodes.len()));
    let set = |numbers: &[u32]| numbers.iter().copied().collect::<BTreeSet<_>>();
    let numbers: Vec<u32> = first.iter().map(|it| it.0).collect();
    assert_eq!(set(&numbers), set(&order[..nodes.len()]), "the longest ones come first: {order:?}");
    for (_, node, _, cache) in &first {
        assert_eq!(*cache, at(node), "each node has a cache of its own");
    }
    assert_eq!(cluster.job(&jobs.merge, "JobState").as_deref(), Some("PENDING"));

    // One node is lost whole. Of another one only the daemon is, and its task ends after the repetition.
    let on = |node: &str| first.iter().find(|it| it.1 == node).unwrap().0;
    let (lost, cut_off) = (on("n2"), on("n3"));
    assert!(cluster.cut_power("n2") > 0, "the stand-in ran there");
    cluster.disconnect("n3");
    // What the controller does by itself after SlurmdTimeout; the long form waits for that.
    for node in ["n2", "n3"] {
        cluster.tried("scontrol", &["update", &format!("nodename={node}"), "state=down", "reason=lost"]);
    }
    for node in ["n1", "n4"] {
        fs::write(at(&format!("go-{node}")), "").unwrap();
    }
    let shard = |number: u32| jobs.directory.join(format!("shards/{number}"));
    wait_for("repetition of a task that is cut off", PATIENCE, || shard(cut_off).exists().then_some(()));
    fs::write(at("go-n3"), "").unwrap();
    let unused = format!("shard {cut_off}/{SHARDS} has the results of another attempt: those of this one are not used");
    let log = |number: u32| {
        let task = order.iter().position(|it| *it == number).unwrap() + 1;
        text(&jobs.directory.join(format!("task-{task}.log")))
    };
    wait_for("end of the attempt that is cut off", PATIENCE, || log(cut_off).contains(&unused).then_some(()));

    assert_eq!(merged(&cluster, &jobs, PATIENCE), "0:0", "{}", text(&jobs.directory.join("merge.log")));
    let merged: Vec<PathBuf> = text(&at("merged")).lines().map(PathBuf::from).collect();
    assert_eq!(merged, (1..=SHARDS).map(shard).collect::<Vec<_>>(), "once each, and only when all had ended");
    let attempts = |number: u32| started().iter().filter(|it| it.0 == number).count();
    for number in [lost, cut_off, undecided] {
        assert!(attempts(number) > 1, "shard {number} ran again: {:?}", started());
    }
    assert_ne!(text(&shard(cut_off).join("run/node")), "n3\n");
    let ended = format!("shard {failing}/{SHARDS} ended with exit code 1");
    assert!(log(failing).contains(&ended), "a failure is a verdict, and not repeated: {}", log(failing));
    assert!(!log(failing).contains("requeued"), "{}", log(failing));
}

/// A checkout as the nodes of a cluster share it, with what guests run.
fn checkout(place: &Path) {
    let built = Command::new(LAB).args(["--project", ROOT, "build"]).status().unwrap();
    assert!(built.success());
    let mut git = Command::new("git");
    // A hook or an outer git may have named another repository.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_")) {
        git.env_remove(name);
    }
    let cloned = git.args(["clone", "--quiet", "--shared", ROOT]).arg(place).status().unwrap();
    assert!(cloned.success(), "the checkout is a clone of HEAD");
    let objects = BPF_OBJECTS.map(|(name, _)| format!("ebpf/target/bpfel-unknown-none/release/{name}"));
    for file in objects.iter().map(String::as_str).chain(["target/guest/x86_64-unknown-linux-gnu/release/guest-agent"])
    {
        let target = place.join(file);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(Path::new(ROOT).join(file), target).unwrap();
    }
}

/// Runs the lab to a verdict; returns what it printed.
fn lab(home: &Path, words: &[&str]) -> String {
    let output = Command::new(LAB).args(words).current_dir(home).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let code = output.status.code();
    assert!(matches!(code, Some(0 | 1)), "lab {words:?}: {code:?}\n{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// `CASES='A01* L0*'` in the environment selects some cases.
#[test]
#[ignore = "runs the default matrix twice; `make test-slurm`"]
fn the_matrix_on_a_cluster_that_loses_a_node_is_equal_to_one_run() {
    let stage = tempfile::tempdir_in("/var/tmp").unwrap();
    let home = stage.path().join("checkout");
    checkout(&home);
    let cases = std::env::var("CASES").unwrap_or_default();
    let selection: Vec<&str> = cases.split_whitespace().flat_map(|case| ["--case", case]).collect();
    let one = stage.path().join("one").display().to_string();
    eprintln!("== one run of everything");
    lab(&home, &[&["run", "--no-build", "--out", &one], &selection[..]].concat());

    // Two nodes share a cache. The programs that guests are started with are the same for all, as on an image of a cluster.
    let caches = [("n1", "cache-1"), ("n2", "cache-2"), ("n3", "cache-shared"), ("n4", "cache-shared")];
    let nodes = caches.map(|(node, cache)| (node, stage.path().join(cache)));
    for (_, cache) in &nodes {
        if !cache.exists() {
            fs::create_dir(cache).unwrap();
            fs::set_permissions(cache, fs::Permissions::from_mode(0o700)).unwrap();
            symlink(lab_base::paths::cache_dir().unwrap().join("tools"), cache.join("tools")).unwrap();
        }
    }
    let plan = [&["plan", "--no-build", "--shards", "8", "--format", "slurm"], &selection[..]].concat();
    fs::write(stage.path().join("night.sh"), lab(&home, &plan)).unwrap();
    let mut cluster = Cluster::start(&nodes);
    // One guest at once on each node: they share the processors of this machine.
    let jobs =
        submit(&cluster, &stage.path().join("night.sh"), &home, Path::new(LAB), &["--cpus-per-task=1", "--exclusive"]);
    eprintln!("== {SHARDS} tasks on 4 nodes: array job {}, merge job {}", jobs.array, jobs.merge);
    let attempt = |number: &str| jobs.directory.join(format!("attempts/{number}-0"));
    let on = |task: u32, node: &str| {
        let log = text(&jobs.directory.join(format!("task-{task}.log")));
        let begun = log.lines().find(|line| line.contains(&format!(" on {node}, attempt 1")))?;
        Some(begun.strip_prefix("shard ")?.split_once('/')?.0.to_owned())
    };
    // Whichever of its tasks is seen in the middle.
    let in_the_middle = |number: &String| {
        let runs = fs::read_dir(attempt(number)).into_iter().flatten().flatten();
        runs.map(|run| text(&run.path().join("events.jsonl"))).any(|events| events.contains("\"cell-finished\""))
    };
    let number = wait_for("verdicts on n2", NIGHT, || {
        assert_eq!(
            cluster.job(&jobs.merge, "JobState").as_deref(),
            Some("PENDING"),
            "no task of n2 was seen in the middle"
        );
        (1..=SHARDS).filter_map(|task| on(task, "n2")).find(in_the_middle)
    });
    eprintln!("== n2 loses its power while it runs shard {number}: {} processes", cluster.cut_power("n2"));
    assert_eq!(cluster.job(&jobs.merge, "JobState").as_deref(), Some("PENDING"));

    let exit = merged(&cluster, &jobs, NIGHT);
    let log = text(&jobs.directory.join("merge.log"));
    assert!(matches!(&*exit, "0:0" | "1:0"), "{exit}\n{log}");
    assert!(attempt(&number).exists() && jobs.directory.join("shards").join(&number).exists(), "it ran again");
    assert_eq!(fs::read_dir(jobs.directory.join("shards")).unwrap().count(), SHARDS as usize);
    // Refuses a shard or a cell that is there twice, and says what is missing.
    let runs = [format!("{one}/latest"), "results/latest".to_owned()];
    let same = Command::new(LAB).args(["compare", "--same"]).args(runs).current_dir(&home).output().unwrap();
    let said = String::from_utf8_lossy(&same.stdout).into_owned();
    eprintln!("== {}", said.trim_end());
    assert!(same.status.success(), "{said}{}", String::from_utf8_lossy(&same.stderr));
    let count: u64 = said.lines().last().and_then(|line| line.split_once(" cells, ")).unwrap().0.parse().unwrap();
    let planned: serde_json::Value = serde_json::from_str(&lab(
        &home,
        &[&["plan", "--no-build", "--shards", "8", "--format", "json"], &selection[..]].concat(),
    ))
    .unwrap();
    // Beside the cells each kernel has rows of its guests: boot, splats, teardown.
    assert!(
        planned["cells"].as_u64().is_some_and(|cells| cells > 0 && cells <= count),
        "every planned cell is in both"
    );
}
