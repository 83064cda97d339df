//! What people attach programs with, on a netkit device: libbpf's, aya's, `bpftool`'s and `tc`'s own functions, under one demand. All
//! of them say that they have attached it; what the kernel used differs.

use super::{DEVICES, LAB, ROOT, has, loader, text, with};
use lab::setup::Tools;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The object, with its program in this section.
fn object(section: &str) -> PathBuf {
    let compiler = Tools::in_cache(&lab_base::paths::cache_dir().unwrap()).bpf_compiler();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("let_pass-{}.o", section.replace('/', "-")));
    let made = path.with_extension(format!("{}.tmp", std::process::id()));
    let mut clang = Command::new(&compiler.clang);
    clang.args(compiler.arguments());
    clang.arg(format!("-DWHERE=\"{section}\"")).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/let_pass.c"));
    let done = clang.arg("-o").arg(&made).output().expect("clang is not there: run `make setup-tests`");
    assert!(done.status.success(), "{}", text(&done.stderr));
    fs::rename(&made, &path).unwrap();
    path
}

/// aya's loader.
fn by_aya() -> PathBuf {
    loader();
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "lab-bpf", "--example", "by_aya"])
        .current_dir(ROOT)
        .status();
    assert!(built.unwrap().success(), "the loader can't be built");
    PathBuf::from(LAB).with_file_name("examples").join("by_aya")
}

/// Runs a loader under the demand for netkit; gives the exit code and what was said.
fn demanded(script: &str) -> (Option<i32>, String) {
    let script = format!("{DEVICES}{script}");
    let mut lab = Command::new(LAB);
    lab.args(["--project", ROOT, "exec", "--no-build", "-k", "6.12", "--no-input", "--require-attach", "netkit"]);
    let ran = lab.args(["--", "sh", "-c", &script]).stdin(Stdio::null()).output().unwrap();
    (ran.status.code(), text(&ran.stdout) + &text(&ran.stderr))
}

#[test]
fn what_the_kernel_used_for_loaders_that_people_use() {
    let aya = by_aya();
    let (any, netkit) = (object("classifier"), object("netkit/primary"));
    let tools = Tools::in_cache(&lab_base::paths::cache_dir().unwrap());
    let set = tools.shell().expect("the network tools are not there: run `make setup`");
    let libraries = set.root().join("usr/lib/x86_64-linux-gnu");
    let bpftool = set.program("bpftool");
    // libbpf needs the C library that it was built with, and that needs its own loader, which runs this machine's Python too.
    let python = format!(
        "{} --library-path {}:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu /usr/bin/python3",
        set.root().join("usr/sbin/bpftool.loader").display(),
        libraries.display()
    );
    let by_libbpf = format!(
        "{python} {} {} {} let_pass p0",
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/witness/by_libbpf.py"),
        libraries.join("libbpf.so.1").display(),
        netkit.display(),
    );
    let (any, tc, bpftool) = (any.display(), set.program("tc").display().to_string(), bpftool.display());

    let (code, said) = demanded(&by_libbpf);
    assert_eq!((code, said.lines().next()), (Some(0), Some("attached")), "{said}");

    let pin = "/sys/fs/bpf/let_pass";
    let others = [
        (format!("{} {any} let_pass p0", aya.display()), "by_aya", "tcx/ingress"),
        (
            format!(
                "{bpftool} prog load {any} {pin} type classifier && {bpftool} net attach tcx_ingress pinned {pin} dev p0"
            ),
            "bpftool",
            "tcx/ingress",
        ),
        (
            format!("{tc} qdisc add dev p0 clsact && {tc} filter add dev p0 ingress bpf da obj {any} sec classifier"),
            "tc",
            "clsact/ingress",
        ),
    ];
    for (script, by, used) in others {
        let (code, said) = demanded(&script);
        assert_eq!(code, Some(1), "{by}: {said}");
        let program = "attach-mismatch: program let_pass (id ";
        let rest = format!("the kernel used {used} of p0 (netkit) in guest; required: netkit");
        // The private tools are started by a program with their name.
        has(&said, &["6.12: failed: ", program, &format!(" of {by}"), &rest]);
        assert_eq!(with(&said, &["required: netkit"]).len(), 1, "{by}: one line says why: {said}");
    }
}
