//! Reads an image: a manifest, its configuration and its layers (OCI image specification, manifest.md).

use super::{INDEX, MARK, PLATFORM, TAG};
use crate::{
    compressed::decompressed,
    digest::Digest,
    error::{KernelsError, Result},
    untar::{Refusal, UnpackedFiles, refused},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, ErrorKind},
    path::{Path, PathBuf},
};

/// Maximum bytes of a manifest or an index; registries have the same limit.
const MOST_JSON: u64 = 4 << 20;
/// Maximum layers of an image, as docker has it.
const MOST_LAYERS: usize = 127;
/// Maximum indexes that name each other.
const MOST_DEPTH: usize = 4;

/// Why an image can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadImage(pub String);

/// A blob that another one names (descriptor.md).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Platform {
    fn is_ours(&self) -> bool {
        (&*self.os, &*self.architecture) == PLATFORM
    }
}

/// A manifest or an index: an index has `manifests`.
#[derive(Debug, Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// Where blobs are.
#[derive(Debug, Clone)]
pub(crate) enum Blobs {
    /// An OCI layout: `blobs/sha256/…`.
    Layout(PathBuf),
    /// A directory that skopeo has written: every blob by its digits, and `manifest.json` (containers/image,
    /// `docs/containers-transports.5.md`, "dir").
    Directory(PathBuf),
}

impl Blobs {
    fn path(&self, digest: &Digest) -> PathBuf {
        match self {
            Self::Layout(dir) => dir.join("blobs").join(digest.algorithm()).join(digest.hex()),
            Self::Directory(dir) => dir.join(digest.hex()),
        }
    }

    /// A blob, whose size and digest are those by which it is named.
    fn file(&self, named: &Descriptor) -> Result<PathBuf> {
        let path = self.path(&named.digest);
        let size = path.metadata().map_err(|error| match error.kind() {
            ErrorKind::NotFound => bad(&path, "does not exist, and the image needs it"),
            _ => KernelsError::io(&path)(error),
        })?;
        if size.len() != named.size {
            return Err(bad(&path, &format!("has {} bytes, but {} were expected", size.len(), named.size)));
        }
        named.digest.check(&path, &path.display().to_string())?;
        Ok(path)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, named: &Descriptor) -> Result<T> {
        if named.size > MOST_JSON {
            let reason = format!("is named with {} bytes, which no manifest has", named.size);
            return Err(bad(&self.path(&named.digest), &reason));
        }
        json(&self.file(named)?)
    }
}

fn json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = lab_guard::bounded::file(path, MOST_JSON).map_err(KernelsError::io(path))?;
    parse(&bytes).map_err(|BadImage(reason)| bad(path, &reason))
}

/// Reads a file of an image.
fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> std::result::Result<T, BadImage> {
    serde_json::from_slice(bytes).map_err(|error| BadImage(format!("is damaged ({})", lab_base::text::reason(&error))))
}

fn bad(path: &Path, reason: &str) -> KernelsError {
    let reason = format!("{reason}: copy or pull the image again");
    KernelsError::BadKernel { path: path.to_owned(), reason }
}

/// An image for this architecture.
pub(crate) struct ContainerImage {
    blobs: Blobs,
    manifest: Manifest,
    /// Digest of its manifest.
    pub digest: Digest,
}

impl ContainerImage {
    /// The image of a layout with this tag; without one, its only image.
    ///
    /// # Errors
    /// It is no layout, has no such image, or none for this architecture.
    pub fn tagged(layout: &Path, tag: Option<&str>) -> Result<Self> {
        let wrong = |reason: String| KernelsError::BadKernel { path: layout.to_owned(), reason };
        if !layout.join(MARK.0).is_file() {
            return Err(wrong(format!("is no OCI layout: it has no file {}", MARK.0)));
        }
        let index: Manifest = json(&layout.join(INDEX))?;
        let all = index.manifests.unwrap_or_default();
        // An index may name an image for each architecture itself.
        let (ours, others): (Vec<Descriptor>, Vec<Descriptor>) =
            all.into_iter().partition(|it| it.platform.as_ref().is_none_or(Platform::is_ours));
        if ours.is_empty() && !others.is_empty() {
            return Err(bad(&layout.join(INDEX), &only_for(&others)));
        }
        let all = ours;
        let tags: Vec<&str> = all.iter().filter_map(|it| it.annotations.get(TAG)).map(|tag| &**tag).collect();
        let named = |it: &&Descriptor| tag.is_none_or(|tag| it.annotations.get(TAG).is_some_and(|has| has == tag));
        let mut found = all.iter().filter(named);
        let descriptor = match (found.next(), found.next(), tag) {
            (Some(one), None, _) => one,
            (Some(_), Some(_), Some(tag)) => return Err(wrong(format!("has several images of tag {tag}"))),
            (Some(_), Some(_), None) => {
                return Err(wrong(format!("has several images: name one by `tag` ({})", tags.join(", "))));
            }
            (None, ..) if all.is_empty() => return Err(wrong("has no images".to_owned())),
            (None, ..) => {
                let tag = tag.unwrap_or_default();
                return Err(wrong(format!("has no image of tag {tag}; it has {}", tags.join(", "))));
            }
        };
        Self::open(Blobs::Layout(layout.to_owned()), descriptor.clone())
    }

    /// The first image of a layout for this architecture, whatever its tag.
    ///
    /// # Errors
    /// As [`Self::tagged`].
    fn first(layout: &Path) -> Result<Self> {
        let index: Manifest = json(&layout.join(INDEX))?;
        let all = index.manifests.unwrap_or_default();
        let ours = all.iter().find(|it| it.platform.as_ref().is_none_or(Platform::is_ours));
        let named = ours.cloned().ok_or_else(|| bad(&layout.join(INDEX), &only_for(&all)))?;
        Self::open(Blobs::Layout(layout.to_owned()), named)
    }

    /// The image whose manifest has this digest.
    ///
    /// # Errors
    /// There is no such image, or it is damaged.
    pub fn with_digest(layout: &Path, digest: &Digest) -> Result<Self> {
        let blobs = Blobs::Layout(layout.to_owned());
        let path = blobs.path(digest);
        let size = path.metadata().map_err(KernelsError::io(&path))?.len();
        Self::open(blobs, plain(digest.clone(), size))
    }

    /// The image that skopeo has copied to a directory.
    ///
    /// # Errors
    /// It is damaged.
    pub fn copied(dir: &Path) -> Result<Self> {
        let path = dir.join("manifest.json");
        let bytes = lab_guard::bounded::file(&path, MOST_JSON).map_err(KernelsError::io(&path))?;
        let manifest: Manifest = parse(&bytes).map_err(|BadImage(reason)| bad(&path, &reason))?;
        let digest = Digest::of(&bytes);
        Self { blobs: Blobs::Directory(dir.to_owned()), manifest, digest }.checked()
    }

    fn open(blobs: Blobs, mut named: Descriptor) -> Result<Self> {
        for _ in 0..MOST_DEPTH {
            let manifest: Manifest = blobs.json(&named)?;
            let path = blobs.path(&named.digest);
            let Some(all) = manifest.manifests else {
                return Self { blobs, manifest, digest: named.digest }.checked();
            };
            let ours = all.iter().find(|it| it.platform.as_ref().is_some_and(Platform::is_ours));
            named = ours.cloned().ok_or_else(|| bad(&path, &only_for(&all)))?;
        }
        Err(bad(&blobs.path(&named.digest), &format!("has indexes in more than {MOST_DEPTH} others")))
    }

    /// Refuses an image of another architecture.
    fn checked(self) -> Result<Self> {
        let path = self.blobs.path(&self.digest);
        let Some(config) = &self.manifest.config else { return Err(bad(&path, "is no manifest of an image")) };
        if self.manifest.layers.is_empty() || self.manifest.layers.len() > MOST_LAYERS {
            let reason = format!("has {} layers; 1 to {MOST_LAYERS} are possible", self.manifest.layers.len());
            return Err(bad(&path, &reason));
        }
        let platform: Platform = self.blobs.json(config)?;
        // An artefact that is no image has an empty configuration.
        if platform.is_ours() || platform.architecture.is_empty() {
            return Ok(self);
        }
        let Platform { os, architecture } = &platform;
        Err(bad(&path, &format!("is an image for {os}/{architecture}, not for {}/{}", PLATFORM.0, PLATFORM.1)))
    }

    /// Bytes of its layers, compressed.
    pub fn size(&self) -> u64 {
        self.manifest.layers.iter().map(|it| it.size).fold(0, u64::saturating_add)
    }

    /// Extracts the kernel's files of all layers. `name` is the image's in messages.
    ///
    /// # Errors
    /// A layer is damaged, or an entry is refused.
    pub fn unpack(&self, stage: &Path, found: &mut UnpackedFiles, name: &str) -> Result<()> {
        for layer in &self.manifest.layers {
            let path = self.blobs.file(layer)?;
            let refusing = |refusal| match refusal {
                Refusal::Archive(reason) => {
                    KernelsError::Archive { archive: format!("layer {} of {name}", layer.digest), reason }
                }
                other => refused(other, name, stage),
            };
            if !layer.media_type.contains("tar") {
                let reason = format!("is no archive ({})", layer.media_type.escape_debug());
                return Err(refusing(Refusal::Archive(reason)));
            }
            let file = File::open(&path).map_err(KernelsError::io(&path))?;
            let stream = decompressed(BufReader::new(file)).map_err(KernelsError::io(&path))?;
            found.add_renamed(stream, stage, within).map_err(refusing)?;
        }
        Ok(())
    }
}

/// What is wrong with images of other architectures.
fn only_for(others: &[Descriptor]) -> String {
    let name = |it: &Descriptor| it.platform.clone().map(|it| format!("{}/{}", it.os, it.architecture));
    let others: Vec<String> = others.iter().filter_map(name).collect();
    let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
    format!("has no image for {}/{}, only for {others}", PLATFORM.0, PLATFORM.1)
}

/// A layer of an image: an archive, which may be compressed.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    /// Its file.
    pub path: PathBuf,
    /// Its checksum, by which the image names it.
    pub digest: Digest,
}

impl ImageLayer {
    /// Whether the file has the checksum.
    ///
    /// # Errors
    /// It can't be read.
    pub fn is_whole(&self) -> Result<bool> {
        self.digest.is_of(&self.path)
    }
}

/// The layers of a layout's first image for this architecture, the lowest first. Their files are not read.
///
/// # Errors
/// The layout is damaged, or has no such image.
pub fn image_layers(layout: &Path) -> Result<Vec<ImageLayer>> {
    let image = ContainerImage::first(layout)?;
    let layer = |it: &Descriptor| ImageLayer { path: image.blobs.path(&it.digest), digest: it.digest.clone() };
    Ok(image.manifest.layers.iter().map(layer).collect())
}

/// A descriptor of which only digest and size are known.
fn plain(digest: Digest, size: u64) -> Descriptor {
    Descriptor { media_type: String::new(), digest, size, platform: None, annotations: BTreeMap::new() }
}

/// The name of a file as in a kernel's package. Images for little-vm-helper have their kernels in `data/kernels/NAME`.
fn within(name: &str) -> &str {
    let plain = name.trim_start_matches("./").trim_start_matches('/');
    let rest = plain.strip_prefix("data/kernels/").and_then(|rest| rest.split_once('/'));
    rest.map_or(name, |(_, inside)| inside)
}

/// Reads a manifest and says which layers it has.
#[cfg(test)]
pub(crate) fn layers(bytes: &[u8]) -> Option<usize> {
    parse::<Manifest>(bytes).ok().map(|it| it.layers.len())
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
