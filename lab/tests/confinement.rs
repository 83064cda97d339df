//! Checks, on both sides of a running guest, that it can't reach the host.

use std::{
    env, fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SECRET: &str = "a-secret-of-the-host-5f1c";

/// QEMU's command line and its `/proc/<pid>/status`, once the marked process executes QEMU.
fn machine(mark: &str) -> Option<(Vec<String>, String)> {
    let words = |path: String| {
        let bytes = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&bytes).split('\0').map(str::to_owned).collect::<Vec<_>>()
    };
    procfs::process::all_processes().ok()?.flatten().find_map(|process| {
        let command = words(format!("/proc/{}/cmdline", process.pid));
        let ours = command.first().is_some_and(|program| program.contains("qemu-system"))
            // Earlier QEMU processes only print the version and the list of machines.
            && command.contains(&"-append".to_owned())
            && words(format!("/proc/{}/environ", process.pid)).contains(&format!("LAB_CONFINED={mark}"));
        // Between fork and exec the process was still the lab.
        let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).ok()?;
        ours.then_some((command, status))
    })
}

/// Waits for the end of a run. Returns its status, and the last information about QEMU's process.
fn observed(lab: &mut Child, mark: &str) -> (ExitStatus, Option<(Vec<String>, String)>) {
    let limit = Instant::now() + Duration::from_secs(300);
    let mut told = None;
    loop {
        // The latest look: QEMU closes its sandbox behind itself while it starts.
        told = machine(mark).or(told);
        if let Some(status) = lab.try_wait().unwrap() {
            return (status, told);
        }
        assert!(Instant::now() < limit, "the run takes too long");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A line of `/proc/<pid>/status`.
fn said(status: &str, key: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The build takes long and is not observed.
fn build() {
    let built = Command::new(env!("CARGO_BIN_EXE_lab")).args(["--project", ROOT, "list", "--canary"]).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

#[test]
fn a_guest_can_access_no_secret_and_no_network_of_its_host() {
    let results = tempfile::tempdir().unwrap();
    build();
    let mark = std::process::id().to_string();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_lab"))
        .args([
            "--project",
            ROOT,
            "run",
            "--cold",
            "--canary",
            "--case",
            "Z25*",
            "--kernel",
            "6.17",
            "--no-build",
            "--out",
        ])
        .arg(results.path())
        .env("LAB_CONFINED", &mark)
        .env("SECRET_OF_THE_HOST", SECRET)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (status, told) = observed(&mut lab, &mark);
    // In the guest: file systems, network devices, disks, the export.
    let junit = fs::read_to_string(results.path().join("latest/junit.xml")).unwrap_or_default();
    assert_eq!(status.code(), Some(0), "{junit}");

    // On the host: QEMU's command line.
    let (words, status) = told.expect("a guest ran");
    assert!(!words.iter().any(|word| word.contains(SECRET)), "{words:?}");
    let follows = |option: &str| {
        let places = words.iter().enumerate().filter(|(_, word)| *word == option);
        places.filter_map(|(at, _)| words.get(at + 1).cloned()).collect::<Vec<_>>()
    };
    let networks: Vec<String> = ["-netdev", "-net", "-nic"].iter().flat_map(|option| follows(option)).collect();
    assert!(networks.iter().all(|network| network == "none"), "{networks:?}");
    assert!(!networks.is_empty() || words.contains(&"-nodefaults".to_owned()), "QEMU adds a network card by itself");
    for gone in ["-fsdev", "-virtfs", "virtio-9p", "vhost-user-fs", "i6300esb", "virtconsole", "/proc/self/fd"] {
        assert!(!words.iter().any(|word| word.contains(gone)), "{gone}: {words:?}");
    }

    // The privileges of QEMU's process: a guest that exploits QEMU gains no more than these.
    let said = |key: &str| said(&status, key);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            set == "CapBnd" && !nix::unistd::geteuid().is_root() || said(set).chars().all(|digit| digit == '0'),
            "{status}"
        );
    }
    assert_eq!(said("NoNewPrivs"), "1", "{status}");
    // Debian's QEMU has its sandbox.
    assert_eq!(follows("-sandbox").len(), 1, "{words:?}");
    assert!(follows("-sandbox")[0].contains("spawn=deny"), "{words:?}");
    assert_eq!(said("Seccomp"), "2", "{status}");
}

/// An ordinary user for this test, and the group of /dev/kvm. No other user has these numbers.
const USER: u32 = 64_210;
const KVM: u32 = 64_211;

/// Prepares mounts that only this process sees, and becomes the user: the cache's tools where they were installed, since
/// they know their place; a copy of a kernel; the user's lines in the lists of users and groups; and /dev/kvm as distributions set it up.
const ENTER: &str = r#"
set -e
scratch=$1 cache=$2 closed=$3 kernel=$4 user=$5 kvm=$6; shift 6
mkdir "$scratch/tools"
mount --bind "$cache/tools" "$scratch/tools"
mkdir "$scratch/kernels"
cp -r "$kernel" "$scratch/kernels"
mount -t tmpfs -o mode=0755 none "$closed"
mkdir -p "$cache/tools"
mv "$scratch/kernels" "$cache"
chown -R "$user:$user" "$cache" "$scratch/home" "$scratch/tmp" "$scratch/project" "$scratch/results"
mount --bind "$scratch/tools" "$cache/tools"
for file in passwd group; do cp "/etc/$file" "$scratch/$file"; done
echo "lab-user:x:$user:$user::$scratch/home:/bin/sh" >>"$scratch/passwd"
printf 'lab-user:x:%s:\nlab-kvm:x:%s:lab-user\n' "$user" "$kvm" >>"$scratch/group"
for file in passwd group; do mount --bind "$scratch/$file" "/etc/$file"; done
if [ -e /dev/kvm ]; then
    mkdir "$scratch/dev"
    mount -t tmpfs -o dev none "$scratch/dev"
    mknod "$scratch/dev/kvm" c 10 232
    chgrp "$kvm" "$scratch/dev/kvm"
    chmod 660 "$scratch/dev/kvm"
    mount --bind "$scratch/dev/kvm" /dev/kvm
fi
exec setpriv --reuid="$user" --regid="$user" --groups="$kvm" --inh-caps=-all "$@"
"#;

/// The first directory on the way to a path that others can't enter, or the path.
fn closed(path: &Path) -> PathBuf {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let open = |dir: &&Path| fs::metadata(dir).is_ok_and(|found| found.mode() & 0o001 != 0);
    above.into_iter().find(|dir| !open(dir)).unwrap_or(path).to_owned()
}

/// A project with the agent and the eBPF objects of this one, which the user may read whatever the umask was.
fn copied(scratch: &Path) -> PathBuf {
    let project = scratch.join("project");
    let mut from = vec![PathBuf::from("kernels.toml"), "kernels.lock".into()];
    from.push("target/guest/x86_64-unknown-linux-gnu/release/guest-agent".into());
    let objects = "ebpf/target/bpfel-unknown-none/release";
    for entry in fs::read_dir(Path::new(ROOT).join(objects)).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            from.push(Path::new(objects).join(entry.file_name()));
        }
    }
    for file in from {
        fs::create_dir_all(project.join(&file).parent().unwrap()).unwrap();
        fs::copy(Path::new(ROOT).join(&file), project.join(&file)).unwrap();
    }
    project
}

/// The lab as an ordinary user: the one who runs this test, or, if that is root, one of the test's own in the group
/// kvm.
#[test]
fn an_ordinary_user_in_group_kvm_runs_guests_without_any_rights() {
    build();
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["home", "tmp", "results"] {
        fs::create_dir(at(name)).unwrap();
    }
    let project = copied(scratch.path());
    let program = at("lab");
    fs::copy(env!("CARGO_BIN_EXE_lab"), &program).unwrap();
    let cache = lab_base::paths::cache_dir().unwrap();
    let is_wanted = |dir: &PathBuf| {
        fs::read_to_string(dir.join("meta.toml")).is_ok_and(|meta| meta.lines().any(|line| line == "id = \"6.12\""))
    };
    let root = nix::unistd::geteuid().is_root();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(if root { "unshare".as_ref() } else { program.as_os_str() });
        if root {
            let fetched = Command::new(env!("CARGO_BIN_EXE_lab"))
                .args(["--project", ROOT, "kernels", "fetch", "--kernel", "6.12"])
                .output()
                .unwrap();
            assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
            let mut kernels = fs::read_dir(cache.join("kernels")).unwrap().flatten().map(|entry| entry.path());
            let kernel = kernels.find(is_wanted).expect("it was just fetched");
            command.args(["--mount", "sh", "-c", ENTER, "sh"]).arg(scratch.path()).arg(&cache).arg(closed(&cache));
            command.arg(kernel).args([USER.to_string(), KVM.to_string()]).arg(&program);
        }
        command.arg("--project").arg(&project).args(arguments);
        command.env("HOME", at("home")).env("TMPDIR", at("tmp")).env("NETKIT_LAB_CACHE", &cache);
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env_remove("XDG_CACHE_HOME");
        command
    };
    let mark = format!("user-{}", std::process::id());
    let results = at("results");
    let run = ["run", "--cold", "--no-build", "--kernel", "6.12", "--case", "D10*", "--out", results.to_str().unwrap()];
    let mut lab = command(&run);
    let printed = fs::File::create(at("printed")).unwrap();
    lab.env("LAB_CONFINED", &mark).stdout(printed.try_clone().unwrap()).stderr(printed);
    let (status, told) = observed(&mut lab.spawn().unwrap(), &mark);
    let printed = fs::read_to_string(at("printed")).unwrap();
    assert_eq!(status.code(), Some(0), "{printed}");
    let (words, status) = told.expect("a guest ran");
    let id = if root { USER } else { nix::unistd::geteuid().as_raw() };
    assert_eq!(said(&status, "Uid").split_whitespace().collect::<Vec<_>>(), vec![id.to_string(); 4], "{status}");
    if root {
        assert_eq!(said(&status, "Groups"), KVM.to_string(), "{status}");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(said(&status, set).chars().all(|digit| digit == '0'), "{status}");
    }
    assert_eq!((&*said(&status, "NoNewPrivs"), &*said(&status, "Seccomp")), ("1", "2"), "{status}");
    assert!(words.iter().any(|word| word.contains("spawn=deny")), "{words:?}");
    for entry in walkdir::WalkDir::new(&results).into_iter().flatten() {
        assert_eq!(entry.metadata().unwrap().uid(), id, "{}", entry.path().display());
    }
}
