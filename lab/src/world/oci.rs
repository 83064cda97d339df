//! An OCI image layout (`oci-layout`, `index.json`, `blobs/sha256/…`): its layers, above each other.
//!
//! Only the files are taken: entry point, environment and user of the image's configuration are the command line's business.

use super::{WorldError, archive::TarTree, unpack};
use std::path::{Path, PathBuf};

/// The file by which a layout is known.
pub const MARK: &str = "oci-layout";

/// The index of a layout, which names all of its content by checksums.
pub fn index(layout: &Path) -> Option<PathBuf> {
    layout.join(MARK).is_file().then(|| layout.join("index.json"))
}

/// The layers of a layout, the lowest first.
///
/// # Errors
/// It is damaged, or has no image for x86-64.
pub fn layers(layout: &Path, cache: &Path) -> Result<Vec<TarTree>, WorldError> {
    let layers = lab_kernel_store::image_layers(layout).map_err(WorldError::Image)?;
    layers.iter().map(|layer| TarTree::read(unpack::blob(layer, cache)?, &layer.path)).collect()
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
        let named = |sum: &str, architecture: &str| {
            let size = fs::metadata(dir.join("blobs/sha256").join(sum)).map_or(0, |found| found.len());
            format!(
                r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{sum}","size":{size},
                "platform":{{"architecture":"{architecture}","os":"linux"}}}}"#
            )
        };
        let config = put(dir, br#"{"architecture":"amd64","os":"linux"}"#);
        let manifest = format!(r#"{{"config":{},"layers":[{}]}}"#, named(&config, "amd64"), named(&layer, "amd64"));
        let manifest = put(dir, manifest.as_bytes());
        let index = format!(r#"{{"manifests":[{},{}]}}"#, named(&"0".repeat(64), "arm64"), named(&manifest, "amd64"));
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
            fs::write(dir.path().join("index.json"), format!(r#"{{"manifests":[{{"digest":"{digest}","size":2}}]}}"#))
                .unwrap();
            let error = layers(dir.path(), cache.path()).unwrap_err().to_string();
            assert!(error.contains("is no SHA-256 or SHA-512 checksum"), "{error}");
        }
    }
}
