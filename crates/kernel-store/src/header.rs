//! Reads the version from a kernel image.

use super::error::{KernelsError, Result};
use lab_guard::bounded;
use lab_image::SetupHeader;
use lab_protocol::KernelVersion;
use std::path::Path;

/// Maximum size of an image, bytes; Debian's have 12 MiB.
const LIMIT: u64 = 512 << 20;

/// Version information of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Banner {
    /// `uname -r`: the name of the modules directory.
    pub release: String,
    /// The upstream version, also if the release does not contain it.
    pub version: KernelVersion,
}

/// Reads the banner of a bzImage from its setup header.
///
/// # Errors
/// The file can't be read or is not a bzImage.
pub(super) fn banner(image: &Path) -> Result<Banner> {
    let bytes = bounded::file(image, LIMIT).map_err(|error| match error.kind() {
        // kernels.toml names the image, so its absence is an error in that file.
        std::io::ErrorKind::NotFound => KernelsError::BadKernel {
            path: image.to_owned(),
            reason: "the image does not exist: fix `source.path` in kernels.toml, or build the tree".into(),
        },
        _ => KernelsError::io(image)(error),
    })?;
    let bad = |reason: String| KernelsError::BadKernel { path: image.to_owned(), reason };
    let banner = parse(&bytes).ok_or_else(|| bad("is not an x86 bzImage with a version in its setup header".into()))?;
    match SetupHeader::of(&bytes).and_then(|header| header.length()) {
        Some(length) if length > bytes.len() as u64 => {
            let missing = length - bytes.len() as u64;
            Err(bad(format!("is {missing} bytes shorter than its header says: build or copy it again")))
        }
        _ => Ok(banner),
    }
}

pub(super) fn parse(bytes: &[u8]) -> Option<Banner> {
    let text = SetupHeader::of(bytes)?.version()?;
    let (release, build) = text.split_once(' ')?;
    if !super::names::is_file_name(release) {
        return None;
    }
    Some(Banner { release: release.to_owned(), version: KernelVersion::from_uname(release, build)? })
}

/// The smallest image that [`banner`] accepts, for tests.
#[cfg(test)]
pub(super) fn sample(banner: &str) -> Vec<u8> {
    let mut image = vec![0; 0x400];
    image[0x1F1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x20E..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    image[0x300..0x300 + banner.len()].copy_from_slice(banner.as_bytes());
    image
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn finds_the_version_that_the_release_does_not_contain() {
        let banner = parse(&sample("6.1.0-56-cloud-amd64 (x@y) #1 SMP Debian 6.1.192-2 (2026-11-14)")).unwrap();
        assert_eq!(banner.release, "6.1.0-56-cloud-amd64");
        assert_eq!(banner.version.to_string(), "6.1.192");
    }

    #[test]
    fn an_error_about_a_truncated_image_names_the_missing_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        let mut whole = sample("6.12.1 (x@y) #1 SMP");
        whole[0x1F4] = 2;
        whole.extend([0; 32]);
        fs::write(&path, &whole).unwrap();
        assert_eq!(banner(&path).unwrap().release, "6.12.1");
        fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let error = banner(&path).unwrap_err().to_string();
        assert!(error.contains("is 7 bytes shorter than its header says"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_without_a_panic(tail in proptest::collection::vec(any::<u8>(), 0..600), offset: u16) {
            let mut image = vec![0; 0x202];
            image.extend(b"HdrS");
            image.extend([0; 8]);
            image.extend(offset.to_le_bytes());
            image.extend(tail);
            parse(&image);
        }
    }
}
