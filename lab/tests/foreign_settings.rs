//! Variables of a git hook and the user's own settings do not affect the programs that the lab starts.

#[path = "support/bzimage.rs"]
mod bzimage;

use bzimage::image;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const MATRIX: &str =
    "[kernels.mine]\nclass = \"6.7+\"\ndefault = true\nsource.git = { tree = \"linux\", ref = \"main\" }\n";

/// git without the user's and the system's settings.
fn git(tree: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.arg("-C").arg(tree).args(["-c", "user.name=k", "-c", "user.email=k@k.example"]).args(arguments);
    let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn repository(tree: &Path, makefile: &str) -> String {
    fs::create_dir(tree).unwrap();
    git(tree, &["init", "--quiet", "--initial-branch=main"]);
    fs::write(tree.join("Makefile"), makefile).unwrap();
    git(tree, &["add", "."]);
    git(tree, &["commit", "--quiet", "--message", "first"]);
    git(tree, &["rev-parse", "HEAD"])
}

/// The observable state of a repository.
fn state(tree: &Path) -> [String; 5] {
    let asked = [
        &["symbolic-ref", "HEAD"][..],
        &["for-each-ref"],
        &["ls-files", "--stage"],
        &["status", "--porcelain"],
        &["worktree", "list"],
    ];
    asked.map(|arguments| git(tree, arguments))
}

fn program(path: &Path, script: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A project with a kernel from git, another repository whose hook runs the lab, and a person with settings.
struct Desk {
    dir: tempfile::TempDir,
    commit: String,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        fs::write(at.join("kernels.toml"), MATRIX).unwrap();
        let commit = repository(&at.join("linux"), "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = 3\n");
        repository(&at.join("other"), "VERSION = 7\nPATCHLEVEL = 1\nSUBLEVEL = 0\n");
        fs::write(at.join("other/staged"), "by the person").unwrap();
        git(&at.join("other"), &["add", "staged"]);
        fs::write(at.join("image"), image()).unwrap();
        // It prints the variables that it received, and writes a kernel.
        let at_image = at.join("image");
        let vng = format!(
            "env > '{0}/vng.env'; ls \"$HOME\"/.config/virtme-ng > '{0}/vng.settings'\n\
             for word; do last=$word; done; cp \"$last\" .config\n\
             mkdir -p arch/x86/boot; cp '{1}' arch/x86/boot/bzImage; : > modules.builtin; : > modules.order",
            at.display(),
            at_image.display()
        );
        program(&at.join("bin/vng"), &vng);
        let home = at.join("home");
        fs::create_dir_all(home.join(".config/virtme-ng")).unwrap();
        fs::write(home.join(".config/virtme-ng/kernel.config"), "CONFIG_MINE=y\n").unwrap();
        fs::write(home.join(".config/virtme-ng/virtme-ng.conf"), "{\"default_opts\": {\"verbose\": true}}").unwrap();
        program(&home.join("hooks/post-checkout"), &format!("touch '{}/hooked'", at.display()));
        let settings = format!(
            "[core]\n\thooksPath = {}\n\tpager = false\n[color]\n\tui = always\n[commit]\n\tgpgSign = true\n\
             [log]\n\tshowSignature = true\n[user]\n\tuseConfigOnly = true\n",
            home.join("hooks").display()
        );
        fs::write(home.join(".gitconfig"), settings).unwrap();
        Self { dir, commit }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The lab, from a hook of the other repository.
    fn lab(&self, arguments: &[&str]) -> Output {
        let path = lab_base::programs::search_path().into_string().unwrap();
        Command::new(env!("CARGO_BIN_EXE_lab"))
            .arg("--project")
            .arg(self.dir.path())
            .args(arguments)
            .current_dir(self.path("other"))
            .env("HOME", self.path("home"))
            .env("PATH", format!("{}:{path}", self.path("bin").display()))
            .env("NETKIT_LAB_CACHE", self.path("cache"))
            .env("GIT_DIR", self.path("other/.git"))
            .env("GIT_WORK_TREE", self.path("other"))
            .env("GIT_INDEX_FILE", self.path("other/.git/index"))
            .env("GIT_PAGER", "false")
            .env("GIT_EXTERNAL_DIFF", "false")
            .env("LANGUAGE", "de")
            .env("KBUILD_OUTPUT", self.path("elsewhere"))
            .env("KCONFIG_CONFIG", self.path("elsewhere.config"))
            .env("MAKEFLAGS", "w -- V=1")
            .output()
            .unwrap()
    }
}

#[track_caller]
fn fine(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_hooks_repository_is_neither_locked_nor_checked_out() {
    let desk = Desk::new();
    let before = state(&desk.path("other"));
    fine(&desk.lab(&["kernels", "update"]));
    let lock = fs::read_to_string(desk.path("kernels.lock")).unwrap();
    assert!(lock.contains(&desk.commit), "the commit of linux/:\n{lock}");
    fine(&desk.lab(&["kernels", "build", "mine"]));
    assert_eq!(state(&desk.path("other")), before);
    assert!(!desk.path("hooked").exists(), "a hook of the person's ran");
    let tree = desk.path("cache/trees/mine");
    assert_eq!(git(&tree, &["rev-parse", "HEAD"]), desk.commit);

    let environment = fs::read_to_string(desk.path("vng.env")).unwrap();
    for name in ["LANGUAGE", "KBUILD_OUTPUT", "KCONFIG_CONFIG", "MAKEFLAGS"] {
        assert!(!environment.lines().any(|line| line.starts_with(&format!("{name}="))), "{name} reached vng");
    }
    assert_eq!(fs::read_to_string(desk.path("vng.settings")).unwrap(), "virtme-ng.conf\n");
    let home = environment.lines().find_map(|line| line.strip_prefix("HOME=")).unwrap();
    assert_eq!(fs::read_to_string(Path::new(home).join(".config/virtme-ng/virtme-ng.conf")).unwrap(), "{}\n");
}

/// Another compiler makes another kernel of the same commit.
#[test]
fn a_kernel_is_built_again_by_another_compiler() {
    let desk = Desk::new();
    let built = |version: &str| {
        program(&desk.path("bin/gcc"), &format!("echo 'gcc (mine) {version}'"));
        let _ = fs::remove_file(desk.path("vng.env"));
        fine(&desk.lab(&["kernels", "build", "mine"]));
        desk.path("vng.env").exists()
    };
    fine(&desk.lab(&["kernels", "update"]));
    assert_eq!([built("14.1"), built("14.1"), built("15.2"), built("15.2")], [true, false, true, false]);
}

/// A repository's own configuration is read, and still decides nothing that is read here.
#[test]
fn a_repositorys_own_settings_change_nothing() {
    let desk = Desk::new();
    let linux = desk.path("linux");
    for (key, value) in [
        ("color.ui", "always"),
        ("log.showSignature", "true"),
        ("core.fsmonitor", "false --no-such"),
        ("commit.gpgSign", "true"),
        ("status.showUntrackedFiles", "all"),
    ] {
        git(&linux, &["config", key, value]);
    }
    let second = {
        git(&linux, &["commit", "--quiet", "--allow-empty", "--no-gpg-sign", "--message", "second"]);
        git(&linux, &["rev-parse", "HEAD"])
    };
    fine(&desk.lab(&["kernels", "update"]));
    assert!(fs::read_to_string(desk.path("kernels.lock")).unwrap().contains(&second));
}
