//! Sets the commit that the `lab` binary is built from.

use std::{path::Path, process::Command};

#[path = "src/project/commit.rs"]
mod commit;
#[allow(dead_code)]
#[path = "src/project/sources.rs"]
mod sources;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    // Tests of this crate are not part of the program; in the other crates all files count.
    let own = ["lab/build.rs", "lab/Cargo.toml", "lab/src"];
    let built_from: Vec<&str> = sources::LAB.into_iter().filter(|name| *name != "lab").chain(own).collect();
    for path in built_from.iter().map(|path| root.join(path)).chain(heads(&root)) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    println!("cargo::rerun-if-env-changed={}", commit::VARIABLE);
    println!("cargo::rustc-env={}={}", commit::VARIABLE, commit::of(&root, &built_from));
}

/// The files of git that change with a commit or a checkout. Missing files are left out: cargo would treat them as
/// changed in every build.
fn heads(root: &Path) -> Vec<std::path::PathBuf> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
    let names = ["HEAD".to_owned(), "packed-refs".to_owned()].into_iter().chain(branch);
    let paths = names.filter_map(|name| git(&["rev-parse", "--git-path", &name]));
    paths.map(|path| root.join(path)).filter(|path| path.exists()).collect()
}
