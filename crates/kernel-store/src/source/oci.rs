//! Kernels in images of containers: a layout on disk, or an image of a registry, which skopeo copies.

use super::{Bound, ConfiguredSource, Indexes, Job, KernelSource, LockEntry, Locked, Site, SourceTable};
use crate::{
    cache::{CachedKernel, WritePurpose, Writing},
    digest::Digest,
    error::{KernelsError, Result},
    header, modules,
    names::is_file_name,
    oci::ContainerImage,
    untar::{UnpackedFiles, refused},
};
use lab_base::{arch::Architecture, process, strict_toml::ConfigError};
use lab_protocol::KernelVersion;
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    path::{Path, PathBuf},
};

/// Disk space for an image, in the size of its layers.
const SPACE_PER_BYTE: u64 = 6;

/// `source.oci`: a kernel in an image of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciImage {
    place: Place,
    /// The image as `kernels.toml` writes it, with its tag.
    name: String,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// An OCI layout on this host.
    Layout { dir: PathBuf, tag: Option<String> },
    /// `registry/repository:tag`.
    Registry,
}

/// An image by the digest of its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedOci {
    /// As in `kernels.toml`.
    pub image: String,
    /// Digest of the manifest for this architecture.
    pub digest: Digest,
    /// Version of the kernel in it.
    pub kernel: KernelVersion,
}

impl ConfiguredSource for OciImage {
    const KEYS: &'static [&'static str] = &["layout", "tag", "image"];

    fn read(from: &SourceTable<'_>) -> std::result::Result<Self, ConfigError> {
        let SourceTable { table, kernel, .. } = from;
        let tag = table.text("tag")?;
        if let Some(wrong) = tag.filter(|tag| !is_file_name(tag)) {
            return Err(table.error_at("tag", format!("{wrong:?} in {kernel} is no tag of an image")));
        }
        match (table.text("layout")?, table.text("image")?, tag) {
            (Some(written), None, tag) => {
                let dir = from.path("layout")?.unwrap_or_default();
                let name = tag.map_or_else(|| written.to_owned(), |tag| format!("{written}:{tag}"));
                Ok(Self { place: Place::Layout { dir, tag: tag.map(str::to_owned) }, name })
            }
            (None, Some(image), None) if is_reference(image) => {
                Ok(Self { place: Place::Registry, name: image.to_owned() })
            }
            (None, Some(image), None) => {
                let message = format!(
                    "`image` in {kernel} is {image:?}: expected registry/repository:tag, with the registry's host"
                );
                Err(table.error_at("image", message))
            }
            _ => Err(from.error(format!(
                "`oci` source of {kernel} needs either only `image`, or `layout` with an optional `tag`"
            ))),
        }
    }
}

/// Whether a text is `host/repository:tag` with a host that nothing has to guess.
fn is_reference(image: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let Some((host, rest)) = image.split_once('/') else { return false };
    let tagged = rest
        .rsplit('/')
        .next()
        .is_some_and(|last| last.split_once(':').is_some_and(|(name, tag)| !name.is_empty() && is_file_name(tag)));
    image.len() <= 512
        && image.chars().all(plain)
        && (host.contains(['.', ':']) || host == "localhost")
        && !host.starts_with('-')
        && tagged
}

impl fmt::Display for OciImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci {}", self.name)
    }
}

impl fmt::Display for LockedOci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short: String = self.digest.hex().chars().take(12).collect();
        write!(f, "{} {} {}:{short}", self.image, self.kernel, self.digest.algorithm())
    }
}

impl LockEntry for LockedOci {
    fn kernel(&self) -> KernelVersion {
        self.kernel
    }

    fn difference(&self, before: &Locked) -> String {
        match before {
            Locked::Oci(before) if before.digest != self.digest => "the tag has another image".to_owned(),
            _ => "from another source".to_owned(),
        }
    }
}

impl OciImage {
    /// Opens the image: the locked one, or the one that has the tag now. One of a registry is copied to `dir`.
    fn open(&self, locked: Option<&Digest>, dir: &Path, progress: &dyn Fn(&str)) -> Result<ContainerImage> {
        match (&self.place, locked) {
            (Place::Layout { dir, tag }, None) => ContainerImage::tagged(dir, tag.as_deref()),
            (Place::Layout { dir, tag }, Some(digest)) => ContainerImage::with_digest(dir, digest).or_else(|error| {
                // What the layout has instead, if that is why.
                let now = ContainerImage::tagged(dir, tag.as_deref())?;
                if now.digest == *digest {
                    return Err(error);
                }
                Err(KernelsError::Vanished {
                    package: "the image".to_owned(),
                    version: digest.to_string(),
                    suite: self.name.clone(),
                    available: now.digest.to_string(),
                })
            }),
            (Place::Registry, locked) => {
                let from = match (locked, self.name.rsplit_once(':')) {
                    (Some(digest), Some((repository, _))) => format!("docker://{repository}@{digest}"),
                    _ => format!("docker://{}", self.name),
                };
                progress(&format!("downloading {}", from.trim_start_matches("docker://")));
                let options = ["copy", "--quiet", "--override-os", "linux", "--override-arch", "amd64"];
                let to = format!("dir:{}", dir.display());
                let arguments = options.into_iter().chain(["--preserve-digests", &from, &to]);
                let command = process::command("skopeo", arguments);
                let what = format!("skopeo copy {from}");
                process::capture(&what, "skopeo", command)?;
                let image = ContainerImage::copied(dir)?;
                match locked {
                    Some(digest) if *digest != image.digest => Err(KernelsError::Digest {
                        what: self.name.clone(),
                        found: image.digest.to_string(),
                        wanted: digest.to_string(),
                    }),
                    _ => Ok(image),
                }
            }
        }
    }

    /// Unpacks an image to a stage; returns the release of its kernel.
    fn unpack(&self, image: &ContainerImage, writing: &Writing<'_>, stage: &Path) -> Result<String> {
        writing.reserve(image.size().saturating_mul(SPACE_PER_BYTE))?;
        let mut found = UnpackedFiles::default();
        image.unpack(stage, &mut found, &self.name)?;
        let nameless = found.is_nameless();
        let banner = || header::banner(&stage.join("vmlinuz"), Architecture::default()).map(|banner| banner.release);
        if nameless {
            return banner();
        }
        let release = found.release().map_err(|refusal| refused(refusal, &self.name, stage))?;
        let own = banner()?;
        if own != release {
            let reason = format!("its image is of kernel {own}, but its files are named after {release}");
            return Err(KernelsError::Archive { archive: self.name.clone(), reason });
        }
        Ok(release)
    }
}

impl KernelSource for OciImage {
    fn is_published(&self) -> bool {
        true
    }

    fn is_resolved_by(&self, locked: &Locked) -> bool {
        matches!(locked, Locked::Oci(it) if it.image == self.name)
    }

    fn resolve(&self, site: &Site<'_>, _: &mut Indexes, progress: &dyn Fn(&str)) -> Result<Option<Locked>> {
        let writing = site.cache.write(WritePurpose::Fetch, progress)?;
        let (copy, stage) = (writing.stage()?, writing.stage()?);
        let image = self.open(None, copy.path(), progress)?;
        self.unpack(&image, &writing, stage.path())?;
        let kernel = header::banner(&stage.path().join("vmlinuz"), Architecture::default())?.version;
        Ok(Some(Locked::Oci(LockedOci { image: self.name.clone(), digest: image.digest, kernel })))
    }

    fn identity(&self, _: &Site<'_>, locked: Option<&Locked>) -> Result<Bound> {
        let Some(Locked::Oci(locked)) = locked else { return Err(KernelsError::Unlocked) };
        Ok(Bound { version: locked.kernel, sha256: locked.digest.hex().to_owned() })
    }

    fn fetch(&self, job: &Job<'_>) -> Result<CachedKernel> {
        let Job { writing, target, progress, .. } = *job;
        let Some(Locked::Oci(locked)) = job.locked else { return Err(KernelsError::Unlocked) };
        let (copy, stage) = (writing.stage()?, writing.stage()?);
        let image = self.open(Some(&locked.digest), copy.path(), progress)?;
        progress(&format!("unpacking {}", self.name));
        let release = self.unpack(&image, writing, stage.path())?;
        modules::index(stage.path(), &release)?;
        writing.finish(stage, target, locked.kernel, &job.bound.sha256)
    }
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
