//! Writes a kernel as an image of an OCI layout. The same kernel gives the same bytes.

use super::{INDEX, INDEX_TYPE, MANIFEST_TYPE, MARK, PLATFORM, TAG};
use crate::{
    digest::Digest,
    error::{KernelsError, Result},
    files,
};
use flate2::{Compression, write::GzEncoder};
use lab_protocol::KernelVersion;
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// What an image has of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PushedKernel<'a> {
    /// `uname -r`.
    pub release: &'a str,
    pub version: KernelVersion,
    /// bzImage.
    pub vmlinuz: &'a Path,
    /// Directory with `modules.dep` and `kernel/`.
    pub modules: &'a Path,
    pub config: Option<&'a Path>,
}

/// Writes a kernel into a layout, which is created if it does not exist, and gives the image a tag. An image that had the
/// tag loses it. Returns the digest of the image's manifest.
///
/// # Errors
/// The directory exists and is no layout, or a file can't be read or written.
pub(crate) fn write(kernel: &PushedKernel<'_>, layout: &Path, tag: &str) -> Result<Digest> {
    let mut index = index_of(layout)?;
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(KernelsError::io(&blobs))?;
    let (layer, unpacked) = layer(kernel, &blobs)?;
    let platform = json!({ "architecture": PLATFORM.1, "os": PLATFORM.0 });
    let mut config = platform.clone();
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [unpacked.to_string()] });
    let config = blob(&blobs, "application/vnd.oci.image.config.v1+json", &config)?;
    let annotations = json!({
        "org.opencontainers.image.title": format!("Linux {}", kernel.release),
        "org.opencontainers.image.version": kernel.version.to_string(),
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer], "annotations": annotations,
    });
    let mut named = blob(&blobs, MANIFEST_TYPE, &manifest)?;
    let digest = Digest::of(manifest.to_string().as_bytes());
    named["platform"] = platform;
    named["annotations"] = json!({ TAG: tag });
    index.retain(|it| it["annotations"][TAG] != tag);
    index.push(named);
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": index });
    replace(&layout.join(INDEX), index.to_string().as_bytes())?;
    replace(&layout.join(MARK.0), MARK.1.as_bytes())?;
    Ok(digest)
}

/// The images that a layout has; none if there is no such directory, or an empty one.
fn index_of(layout: &Path) -> Result<Vec<Value>> {
    let path = layout.join(INDEX);
    let wrong = |path: &Path, reason: &str| {
        let reason = format!("{reason}: name a new directory, or an OCI layout");
        KernelsError::BadKernel { path: path.to_owned(), reason }
    };
    match lab_guard::bounded::text(&path) {
        Ok(text) => {
            let mut index: Value = serde_json::from_str(&text).map_err(|_| wrong(&path, "is no index of images"))?;
            match index["manifests"].take() {
                Value::Array(all) if layout.join(MARK.0).is_file() => Ok(all),
                _ => Err(wrong(layout, "is no OCI layout")),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match fs::read_dir(layout).map(|mut entries| entries.next().is_none()) {
                Ok(false) => Err(wrong(layout, "has files and is no OCI layout")),
                _ => Ok(Vec::new()),
            }
        }
        Err(error) => Err(KernelsError::io(path)(error)),
    }
}

/// Writes the kernel's files as a layer; returns its descriptor, and the digest of the unpacked archive.
fn layer(kernel: &PushedKernel<'_>, blobs: &Path) -> Result<(Value, Digest)> {
    let stage = tempfile::NamedTempFile::new_in(blobs).map_err(KernelsError::io(blobs))?;
    let unpacked = tempfile::tempfile_in(blobs).map_err(KernelsError::io(blobs))?;
    let release = kernel.release;
    let mut all = vec![(format!("boot/vmlinuz-{release}"), kernel.vmlinuz.to_owned())];
    all.extend(kernel.config.iter().map(|path| (format!("boot/config-{release}"), path.to_path_buf())));
    for file in files::of_modules(kernel.modules)? {
        all.push((format!("lib/modules/{release}/{}", file.display()), kernel.modules.join(&file)));
    }
    let mut archive = tar::Builder::new(unpacked);
    for (name, path) in all {
        append(&mut archive, &name, &path)?;
    }
    let mut unpacked = archive.into_inner().map_err(KernelsError::io(blobs))?;
    let read = |file: &mut File| io::Seek::rewind(file).map_err(KernelsError::io(blobs));
    read(&mut unpacked)?;
    let whole = Digest::of_stream(&mut unpacked).map_err(KernelsError::io(blobs))?;
    read(&mut unpacked)?;
    // Modules are compressed themselves.
    let mut packed = GzEncoder::new(stage, Compression::fast());
    io::copy(&mut unpacked, &mut packed).map_err(KernelsError::io(blobs))?;
    let stage = packed.finish().map_err(KernelsError::io(blobs))?;
    let mut file = File::open(stage.path()).map_err(KernelsError::io(stage.path()))?;
    let digest = Digest::of_stream(&mut file).map_err(KernelsError::io(blobs))?;
    let size = file.metadata().map_err(KernelsError::io(blobs))?.len();
    let path = blobs.join(digest.hex());
    keep(stage, &path)?;
    Ok((descriptor("application/vnd.oci.image.layer.v1.tar+gzip", &digest, size), whole))
}

fn append(archive: &mut tar::Builder<File>, name: &str, path: &PathBuf) -> Result<()> {
    let mut file = File::open(path).map_err(KernelsError::io(path))?;
    let mut header = tar::Header::new_gnu();
    header.set_size(file.metadata().map_err(KernelsError::io(path))?.len());
    header.set_mode(0o644);
    header.set_mtime(0);
    archive.append_data(&mut header, name, &mut file).map_err(KernelsError::io(path))
}

/// Writes a JSON file as a blob.
fn blob(blobs: &Path, kind: &str, content: &Value) -> Result<Value> {
    let bytes = content.to_string().into_bytes();
    let digest = Digest::of(&bytes);
    replace(&blobs.join(digest.hex()), &bytes)?;
    Ok(descriptor(kind, &digest, bytes.len() as u64))
}

fn descriptor(kind: &str, digest: &Digest, size: u64) -> Value {
    json!({ "mediaType": kind, "digest": digest.to_string(), "size": size })
}

/// Writes a file as a whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    let mut stage = tempfile::NamedTempFile::new_in(dir).map_err(KernelsError::io(dir))?;
    stage.write_all(bytes).map_err(KernelsError::io(path))?;
    keep(stage, path)
}

/// Moves a temporary file to its place, readable for everybody as files of layouts are.
fn keep(stage: tempfile::NamedTempFile, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::Permissions::from_mode(0o644);
    fs::set_permissions(stage.path(), mode).map_err(KernelsError::io(path))?;
    stage.persist(path).map(drop).map_err(|error| KernelsError::io(path)(error.error))
}
