//! Corrupt mirrors. They are directories (`file:`) with the index that this machine fetched for its kernels, including
//! Debian's signature, so that only the injected fault can be detected.

use crate::{ROOT, fault::Seen, real::Stage, reals::project};
use std::{
    fs,
    path::{Path, PathBuf},
};

const SUITE: &str = "bookworm-security";

/// A valid index, and a package with other bytes.
pub fn corrupt(stage: &Stage) -> Seen {
    fetch(stage, |index| index)
}

/// An index that was changed after Debian signed it.
pub fn unsigned(stage: &Stage) -> Seen {
    fetch(stage, |index| index.replace("Suite: ", "Suite:  "))
}

fn fetch(stage: &Stage, change: impl Fn(String) -> String) -> Seen {
    let matrix = format!(
        "[debian]\nstale.{SUITE} = \"a mirror in a test\"\n[kernels.\"6.12\"]\nclass = \"6.7+\"\ndefault = true\n\
         source.deb = {{ suite = \"{SUITE}\", package = \"linux-image-6.12.*-cloud-amd64\" }}\n"
    );
    let project = project(stage, &matrix);
    fs::copy(Path::new(ROOT).join("kernels.lock"), project.join("kernels.lock")).expect("the lock");
    let mirror = mirror(stage, change);
    let mut command = stage.lab_on(&project, &["kernels", "fetch", "--kernel", "6.12"]);
    command.env("NETKIT_LAB_CACHE", stage.scratch.join("cache"));
    command.env("PATH", lab_base::programs::search_path());
    command.env("NETKIT_LAB_DEBIAN_SECURITY_MIRROR", format!("file:{}", mirror.display()));
    stage.finish(command)
}

fn mirror(stage: &Stage, change: impl Fn(String) -> String) -> PathBuf {
    let lists = lab_base::paths::cache_dir().expect("the cache").join("apt").join(SUITE).join("state/lists");
    let list = |end: &str| {
        let files = fs::read_dir(&lists).expect("this machine fetched its kernels").flatten();
        let found = files.map(|file| file.path()).find(|path| path.to_string_lossy().ends_with(end));
        fs::read_to_string(found.unwrap_or_else(|| panic!("no {end} in {}", lists.display()))).expect("a list")
    };
    let (release, packages) = (list("_InRelease"), list("_main_binary-amd64_Packages"));
    let mirror = stage.scratch.join("mirror");
    let write = |path: &str, bytes: &[u8]| {
        let path = mirror.join(path);
        fs::create_dir_all(path.parent().expect("a file's directory")).expect("a directory");
        fs::write(path, bytes).expect("a file");
    };
    // apt requests the compressed index, which no longer exists; the unpacked one is valid as long as the signature is.
    let known = stage.scratch.join("cache/apt").join(SUITE).join("state/lists");
    fs::create_dir_all(&known).expect("a directory");
    let name = format!("{}_dists_{SUITE}", mirror.to_string_lossy().replace('_', "%5f").replace('/', "_"));
    fs::write(known.join(format!("{name}_InRelease")), &release).expect("a list");
    fs::write(known.join(format!("{name}_main_binary-amd64_Packages")), &packages).expect("a list");
    write(&format!("dists/{SUITE}/InRelease"), change(release).as_bytes());
    for stanza in packages.split("\n\n").filter(|stanza| stanza.starts_with("Package: linux-image-6.12.")) {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let size = field("Size: ").parse().expect("a size");
        if field("Package: ").ends_with("-cloud-amd64") {
            write(field("Filename: "), &vec![0; size]);
        }
    }
    mirror
}
