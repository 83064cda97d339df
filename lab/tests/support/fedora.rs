//! A kernel of Debian's as Fedora would pack it: image and configuration beside the modules, in three packages.

use super::{archive::debians_kernel, rpm::Rpm};
use std::fs;

/// Repacks a kernel of this checkout's matrix, of this version; gives its release, too.
pub fn of_debians<'a>(id: &str, version: &'a str) -> (String, [Rpm<'a>; 3]) {
    let (release, debian) = debians_kernel(id);
    let (mut core, mut modules, mut few) = (Vec::new(), Vec::new(), Vec::new());
    let place = |file: &str| format!("lib/modules/{release}/{file}");
    for name in ["vmlinuz", "config"] {
        core.push((place(name), fs::read(debian.join(name)).unwrap()));
    }
    for entry in walkdir::WalkDir::new(debian.join("modules")).into_iter().flatten() {
        let inside = entry.path().strip_prefix(debian.join("modules")).unwrap().display().to_string();
        if inside.ends_with(".ko.xz") {
            let list = if inside.ends_with("/veth.ko.xz") { &mut few } else { &mut modules };
            list.push((place(&inside), fs::read(entry.path()).unwrap()));
        } else if ["modules.builtin", "modules.order"].contains(&&*inside) {
            core.push((place(&inside), fs::read(entry.path()).unwrap()));
        }
    }
    assert!(modules.len() > 1000 && few.len() == 1, "{} {}", modules.len(), few.len());
    let package = |name, files| Rpm { name, version, release: "200.fc43", arch: "x86_64", files };
    let packages =
        [package("kernel-core", core), package("kernel-modules-core", modules), package("kernel-modules", few)];
    (release, packages)
}
