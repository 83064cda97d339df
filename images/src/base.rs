//! The image that was built last of the same inputs but its exchangeable parts. A guest that boots it, or is restored from its
//! snapshot, can be sent the parts that differ: after an edit of an eBPF program or of a case no kernel has to boot again.

use crate::cache::{self, BASE};
use lab_base::file;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Runs whose guests are sent the same agent. Together they take as long as the boot that an image of its own needs once.
const MOST_SENT: u32 = 3;

/// An image that stands in for another one.
#[derive(Debug, PartialEq, Eq)]
pub struct BaseImage {
    /// The file.
    pub path: PathBuf,
    /// Names of the parts that it holds in another version.
    pub differ: Vec<String>,
}

/// A part that can be exchanged: its name in the image, and its SHA-256.
pub type ImagePart = (String, String);

/// Remembers the image with this key as the one that was built last. `family` is a hash over the inputs that can't be exchanged. Without
/// the note the next image is built as well.
pub fn note(cache: &Path, family: &str, key: &str, parts: &[ImagePart]) {
    let lines = parts.iter().map(|(name, sum)| format!("{sum} {name}\n"));
    let text = format!("{key}\n{}", lines.collect::<String>());
    let _ = file::replace(&cache::path_of(cache, family, BASE), text.as_bytes());
}

/// The image that was built last, if it is still there and has parts of the same names.
pub fn find(cache: &Path, family: &str, parts: &[ImagePart]) -> Option<BaseImage> {
    let note = cache::path_of(cache, family, BASE);
    let (key, differ) = read(&fs::read_to_string(&note).ok()?, parts)?;
    let path = cache::path_of(cache, &key, "cpio");
    (cache::touch(&path) && cache::touch(&note)).then_some(BaseImage { path, differ })
}

/// Whether guests were to be sent the agent of the image with this key as often as is worth it; counts this time.
pub fn was_sent_enough(cache: &Path, key: &str) -> bool {
    let count = cache::path_of(cache, key, BASE);
    let before = fs::read_to_string(&count).ok().and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    // Without the count the agent is sent again.
    let _ = file::replace(&count, before.saturating_add(1).to_string().as_bytes());
    before >= MOST_SENT
}

/// The key of the image in a note, and the parts that differ from those in it.
pub fn read(text: &str, parts: &[ImagePart]) -> Option<(String, Vec<String>)> {
    let mut lines = text.lines();
    let key = lines.next().filter(|key| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    let mut differ = Vec::new();
    for (name, sum) in parts {
        let (had, noted) = lines.next()?.split_once(' ')?;
        if noted != name {
            return None;
        }
        if had != sum {
            differ.push(name.clone());
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
        let parts = |parts: [(&str, &str); 2]| parts.map(|(name, sum)| (name.to_owned(), sum.to_owned()));
        let old = parts([("lab.o", "one"), ("init", "two")]);
        let new = parts([("lab.o", "other"), ("init", "two")]);
        assert_eq!(find(cache, "family", &new), None);
        let image = cache::path_of(cache, &key, "cpio");
        cache::store(&image, b"image").unwrap();
        note(cache, "family", &key, &old);
        let found = BaseImage { path: image.clone(), differ: vec!["lab.o".to_owned()] };
        assert_eq!(find(cache, "family", &new), Some(found));
        assert_eq!(find(cache, "other", &new), None);
        assert_eq!(find(cache, "family", &parts([("else.o", "one"), ("init", "two")])), None, "an object is new");
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
