//! Fuzz targets for files from kernel packages: `docs/fuzzing.md`.

use crate::{
    base, decompress,
    deps::{Index, Provided},
    entry,
};

/// Maximum size of what a target unpacks, bytes: a few bytes can unpack to the whole limit of the lab, which takes a second.
const UNPACKED: u64 = 1 << 20;

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
        if let Ok(module) = decompress::unpack_within(UNPACKED, Some(suffix), packed) {
            assert!(module.starts_with(b"\x7fELF") && module.len() as u64 <= UNPACKED);
        }
    });
}

/// A bzImage; where the bytes hold none, they are the payload of one.
#[test]
fn kernel_image() {
    bolero::check!().for_each(|bytes: &[u8]| {
        if let Some(kernel) = entry::unpack(bytes, UNPACKED) {
            assert!(kernel.len() as u64 <= UNPACKED);
            entry::has_pvh_entry(&kernel);
        }
        entry::has_pvh_entry(bytes);
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        image.extend(bytes);
        if let Some(kernel) = entry::unpack(&image, UNPACKED) {
            assert!(kernel.len() as u64 <= UNPACKED);
        }
    });
}

#[test]
fn base_note() {
    bolero::check!().for_each(|bytes: &[u8]| {
        let parts = [("datapath.o", "one"), ("lab.o", "two"), ("init", "three")];
        let parts = parts.map(|(name, sum)| (name.to_owned(), sum.to_owned()));
        if let Some((key, differ)) = base::read(&String::from_utf8_lossy(bytes), &parts) {
            assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key:?} is a file name");
            assert!(differ.iter().all(|name| parts.iter().any(|(known, _)| known == name)), "{differ:?}");
        }
    });
}
