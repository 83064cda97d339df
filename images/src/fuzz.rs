//! Fuzz targets for files from kernel packages: `docs/fuzzing.md`.

use crate::{
    decompress,
    deps::{Index, Provided},
};

#[test]
fn modules_dep() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let (dep, builtin) = text.split_once("\n\n").unwrap_or((&text, ""));
        let Ok(mut index) = Index::parse_dep(dep) else { return };
        let _ = index.add_builtin(builtin);
        for name in dep.lines().chain(builtin.lines()).filter_map(|line| line.split(['/', '.', ':']).rev().nth(1)) {
            if let Ok(Provided::Files(files)) = index.provide(&name.replace('-', "_")) {
                for (_, path) in &files {
                    assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."), "{path}");
                }
            }
        }
    });
}

/// The first byte chooses the compression.
#[test]
fn module_files() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let Some((choice, packed)) = bytes.split_first() else { return };
        let suffix = ["xz", "zst", "gz", "ko"][usize::from(*choice) % 4];
        if let Ok(module) = decompress::unpack(Some(suffix), packed) {
            assert!(module.starts_with(b"\x7fELF"));
        }
    });
}
