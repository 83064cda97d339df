//! An OCI image layout (`oci-layout`, `index.json`, `blobs/sha256/…`): its layers, above each other.
//!
//! Only the files are taken: entry point, environment and user of the image's configuration are the command line's business.

use super::{WorldError, archive::TarTree, unpack};
use serde::Deserialize;
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// The file by which a layout is known.
pub const MARK: &str = "oci-layout";
/// The index of a layout, which names all of its content by checksums.
pub fn index(layout: &Path) -> Option<PathBuf> {
    layout.join(MARK).is_file().then(|| layout.join("index.json"))
}

/// Bytes of an index or a manifest.
const MOST: u64 = 4 << 20;
/// An index in an index in an index is none that a tool writes.
const DEPTH: usize = 4;

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

impl Descriptor {
    /// The checksum, if it is one that can be the name of a file.
    fn sha256(&self) -> Option<&str> {
        let sum = self.digest.strip_prefix("sha256:")?;
        (sum.len() == 64 && sum.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(sum)
    }

    fn fits(&self) -> bool {
        self.platform.as_ref().is_none_or(|it| it.architecture == "amd64" && it.os == "linux")
    }
}

/// The layers of a layout, the lowest first.
///
/// # Errors
/// It is damaged, or has no image for x86-64.
pub fn layers(layout: &Path, cache: &Path) -> Result<Vec<TarTree>, WorldError> {
    let mut path = layout.join("index.json");
    for _ in 0..DEPTH {
        let document = read(&path)?;
        if !document.layers.is_empty() {
            return document.layers.iter().map(|layer| unpacked(layout, layer, cache)).collect();
        }
        let next = document.manifests.iter().find(|it| it.fits());
        let next = next.ok_or_else(|| damaged(&path, "it names no image for linux/amd64".to_owned()))?;
        path = blob(layout, next, &path)?;
    }
    Err(damaged(layout, "its indexes name each other".to_owned()))
}

fn unpacked(layout: &Path, layer: &Descriptor, cache: &Path) -> Result<TarTree, WorldError> {
    let path = blob(layout, layer, layout)?;
    let file = unpack::blob(&path, layer.sha256().unwrap_or_default(), cache)?;
    TarTree::read(file, &path)
}

fn blob(layout: &Path, of: &Descriptor, named_in: &Path) -> Result<PathBuf, WorldError> {
    let sum =
        of.sha256().ok_or_else(|| damaged(named_in, format!("`{}` is no SHA-256 digest", of.digest.escape_debug())))?;
    Ok(layout.join("blobs/sha256").join(sum))
}

fn read(path: &Path) -> Result<Document, WorldError> {
    let mut text = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut text));
    read.map_err(WorldError::io(path))?;
    serde_json::from_slice(&text).map_err(|error| damaged(path, error.to_string()))
}

fn damaged(path: &Path, problem: String) -> WorldError {
    WorldError::Damaged { path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};
    use std::{fs, io::Write};

    fn put(layout: &Path, bytes: &[u8]) -> String {
        let sum = lab_base::hex::hex(&Sha256::digest(bytes));
        fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        fs::write(layout.join("blobs/sha256").join(&sum), bytes).unwrap();
        sum
    }

    fn layout(dir: &Path) -> String {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(2);
        header.set_mode(0o755);
        tar.append_data(&mut header, "bin/x", &b"hi"[..]).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&tar.into_inner().unwrap()).unwrap();
        let layer = put(dir, &gz.finish().unwrap());
        let manifest = put(dir, format!(r#"{{"layers":[{{"digest":"sha256:{layer}"}}]}}"#).as_bytes());
        let index = format!(
            r#"{{"manifests":[{{"digest":"sha256:{0}","platform":{{"architecture":"arm64","os":"linux"}}}},
            {{"digest":"sha256:{manifest}","platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#,
            "0".repeat(64)
        );
        fs::write(dir.join("index.json"), index).unwrap();
        layer
    }

    #[test]
    fn the_image_for_this_architecture_is_taken_and_a_changed_layer_is_refused() {
        let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let layer = layout(dir.path());
        let found = layers(dir.path(), cache.path()).unwrap();
        let mut tree = lab_share::Tree::new();
        found[0].plant(&mut tree, 0).unwrap();
        assert!(tree.find(0, Path::new("bin/x")).is_some());
        let other = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("blobs/sha256").join(&layer), "changed").unwrap();
        let error = layers(dir.path(), other.path()).unwrap_err().to_string();
        assert!(error.ends_with("is damaged: it has another checksum than its name"), "{error}");
        for digest in ["sha256:../../etc/passwd", "md5:00"] {
            fs::write(dir.path().join("index.json"), format!(r#"{{"manifests":[{{"digest":"{digest}"}}]}}"#)).unwrap();
            let error = layers(dir.path(), cache.path()).unwrap_err().to_string();
            assert!(error.contains("is no SHA-256 digest"), "{error}");
        }
    }
}
