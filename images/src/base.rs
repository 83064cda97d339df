//! The image that was built last of the same inputs but its exchangeable objects. A guest that boots it, or is restored from its
//! snapshot, can be sent the objects that differ: after an edit of an eBPF program no kernel has to boot again.

use crate::cache::{self, BASE};
use lab_base::{file, hex::hex};
use sha2::{Digest, Sha256};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// An image that stands in for another one.
#[derive(Debug, PartialEq, Eq)]
pub struct BaseImage {
    /// The file.
    pub path: PathBuf,
    /// Names of the objects that it holds in another version.
    pub differ: Vec<String>,
}

/// Remembers the image with this key as the one that was built last. `family` is a hash over the inputs that can't be exchanged. Without
/// the note the next image is built as well.
pub fn note(cache: &Path, family: &str, key: &str, objects: &[(&str, &[u8])]) {
    let lines = objects.iter().map(|(name, bytes)| format!("{} {name}\n", hex(&Sha256::digest(bytes))));
    let text = format!("{key}\n{}", lines.collect::<String>());
    let _ = file::replace(&cache::path_of(cache, family, BASE), text.as_bytes());
}

/// The image that was built last, if it is still there and has objects of the same names.
pub fn find(cache: &Path, family: &str, objects: &[(&str, &[u8])]) -> Option<BaseImage> {
    let note = cache::path_of(cache, family, BASE);
    let (key, differ) = read(&fs::read_to_string(&note).ok()?, objects)?;
    let path = cache::path_of(cache, &key, "cpio");
    (cache::touch(&path) && cache::touch(&note)).then_some(BaseImage { path, differ })
}

/// The key of the image in a note, and the objects that differ from those in it.
pub fn read(text: &str, objects: &[(&str, &[u8])]) -> Option<(String, Vec<String>)> {
    let mut lines = text.lines();
    let key = lines.next().filter(|key| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let mut differ = Vec::new();
    for (name, bytes) in objects {
        let (sum, noted) = lines.next()?.split_once(' ')?;
        if noted != *name {
            return None;
        }
        if sum != hex(&Sha256::digest(bytes)) {
            differ.push((*name).to_owned());
        }
    }
    Some((key.to_owned(), differ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_found_as_long_as_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (cache, key) = (dir.path(), "a".repeat(64));
        let old: [(&str, &[u8]); 2] = [("lab.o", b"one"), ("datapath.o", b"two")];
        let new: [(&str, &[u8]); 2] = [("lab.o", b"other"), ("datapath.o", b"two")];
        assert_eq!(find(cache, "family", &new), None);
        let image = cache::path_of(cache, &key, "cpio");
        cache::store(&image, b"image").unwrap();
        note(cache, "family", &key, &old);
        let found = BaseImage { path: image.clone(), differ: vec!["lab.o".to_owned()] };
        assert_eq!(find(cache, "family", &new), Some(found));
        assert_eq!(find(cache, "other", &new), None);
        assert_eq!(find(cache, "family", &[("else.o", b"one"), ("datapath.o", b"two")]), None, "an object is new");
        let note = cache::path_of(cache, "family", BASE);
        for broken in ["", "../../x", &"a".repeat(64), &format!("{}\nlab.o", "a".repeat(64))] {
            fs::write(&note, broken).unwrap();
            assert_eq!(find(cache, "family", &new), None, "{broken:?}");
        }
        super::note(cache, "family", &key, &old);
        fs::remove_file(&image).unwrap();
        assert_eq!(find(cache, "family", &new), None, "the image is gone");
    }
}
