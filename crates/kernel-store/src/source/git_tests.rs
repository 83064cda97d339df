use super::*;
use crate::{Cache, ClassRule, KernelClass, cache::WritePurpose, header};
use std::os::unix::fs::PermissionsExt;

fn repository(dir: &Path, patch: &str) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("Makefile"), format!("# GPL\nVERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = {patch}\n")).unwrap();
    if !dir.join(".git").exists() {
        git(dir, ["init", "--quiet"]).unwrap();
    }
    git(dir, ["add", "."]).unwrap();
    let who = ["-c", "user.name=k", "-c", "user.email=k@k.example", "-c", "commit.gpgsign=false"];
    git(dir, who.into_iter().chain(["commit", "--quiet", "-m", patch])).unwrap();
}

/// A `vng` that copies an image instead of building, and records its calls.
fn vng(dir: &Path) -> PathBuf {
    let path = dir.join("vng");
    let script = format!(
        "#!/bin/sh\nset -e\necho \"$1 $2 $3\" >> {0}/calls\ncp \"$4\" .config\nmkdir -p arch/x86/boot\n\
         cp {0}/image arch/x86/boot/bzImage\necho kernel/net/veth.ko > modules.builtin\n: > modules.order\n",
        dir.display()
    );
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn builds_the_locked_commit_in_a_separate_worktree() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let tree = at.join("linux");
    repository(&tree, "3");
    let LockedCommit { commit, kernel: version, .. } = resolve(&tree, "HEAD").unwrap();
    assert_eq!(version.to_string(), "6.12.3");
    repository(&tree, "4");
    fs::write(at.join("image"), header::sample("6.12.3-virtme (a@b) #1 SMP")).unwrap();
    fs::write(at.join("my.config"), "CONFIG_EXTRA=y\n").unwrap();
    let (vng, fragments) = (vng(at), [at.join("my.config")]);
    let rule = ClassRule { class: KernelClass::From67, lacks_netkit: false, has_netkit: false, believes_probes: false };
    let target = Target {
        id: lab_guard::Id::new("tree").unwrap(),
        origin: "git HEAD".into(),
        rule,
        architecture: lab_base::arch::Architecture::default(),
    };
    let cache = Cache::at(at.join("cache")).unwrap();
    let writing = cache.write(WritePurpose::Build, &|_| ()).unwrap();
    let build = CommitBuild { tree: &tree, commit: &commit, version, fragments: &fragments, vng: &vng };
    let sha256 = build.identity().unwrap();
    for _ in 0..2 {
        let finished = build.fetch(&writing, &target, &sha256, &|_| ()).unwrap();
        assert_eq!(finished.meta.release, "6.12.3-virtme");
        let config = fs::read_to_string(finished.dir.join("config")).unwrap();
        assert!(config.contains("CONFIG_NETKIT=y") && config.ends_with("CONFIG_EXTRA=y\n"));
        assert!(finished.dir.join("modules/modules.builtin").is_file());
        assert!(finished.dir.join("modules/modules.dep").is_file());
    }
    assert_eq!(fs::read_to_string(at.join("calls")).unwrap(), "--build --force --config\n".repeat(2));
    let makefile = |tree: &Path| fs::read_to_string(tree.join("Makefile")).unwrap();
    assert!(makefile(&tree).contains("SUBLEVEL = 4"), "the user's checkout is unchanged");
    assert!(makefile(&at.join("cache/trees/tree")).contains("SUBLEVEL = 3"));
    fs::write(&fragments[0], "CONFIG_EXTRA=n\n").unwrap();
    assert_ne!(build.identity().unwrap(), sha256);
}

#[test]
fn an_error_about_a_missing_reference_names_the_keys() {
    let dir = tempfile::tempdir().unwrap();
    repository(dir.path(), "3");
    let error = resolve(dir.path(), "v9.9").unwrap_err().to_string();
    assert!(
        error.ends_with("is not a git repository with a commit `v9.9`: fix `tree` or `ref` in kernels.toml"),
        "{error}"
    );
}
