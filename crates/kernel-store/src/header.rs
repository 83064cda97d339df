//! Reads the version out of a kernel image.

use super::error::{KernelsError, Result};
use lab_protocol::KernelVersion;
use std::{fs, path::Path};

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Banner {
    /// `uname -r`: the name of the modules directory.
    pub release: String,
    /// The true version, also where the release hides it.
    pub version: KernelVersion,
}

/// Reads the banner of a bzImage: Documentation/arch/x86/boot.rst, `HdrS` at 0x202 and `kernel_version` at 0x20E, an
/// offset (less 0x200) to `uname -r`, builder and `uname -v` in one NUL-terminated text.
///
/// # Errors
/// The file cannot be read or is no bzImage.
pub(super) fn banner(image: &Path) -> Result<Banner> {
    let bytes = fs::read(image).map_err(|error| match error.kind() {
        // The image is what kernels.toml names, so its absence is the file's fault and not the disk's.
        std::io::ErrorKind::NotFound => KernelsError::BadKernel {
            path: image.to_owned(),
            reason: "there is no such image: mend `source.path` in kernels.toml, or build the tree".into(),
        },
        _ => KernelsError::io(image)(error),
    })?;
    let bad = |reason: String| KernelsError::BadKernel { path: image.to_owned(), reason };
    let banner = parse(&bytes).ok_or_else(|| bad("is not an x86 bzImage with a version in its setup header".into()))?;
    match length(&bytes) {
        Some(length) if length > bytes.len() as u64 => {
            let missing = length - bytes.len() as u64;
            Err(bad(format!("is {missing} bytes short of what its header says: build or copy it again")))
        }
        _ => Ok(banner),
    }
}

/// What the setup header says of the image's length: `setup_sects` at 0x1F1 counts sectors behind the first one (0 means
/// 4), `syssize` at 0x1F4 what follows them, in units of 16 bytes. A signature may come behind.
fn length(bytes: &[u8]) -> Option<u64> {
    let sectors = match *bytes.get(0x1F1)? {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let rest = u32::from_le_bytes(bytes.get(0x1F4..0x1F8)?.try_into().ok()?);
    Some((sectors + 1) * 512 + u64::from(rest) * 16)
}

pub(super) fn parse(bytes: &[u8]) -> Option<Banner> {
    if bytes.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let offset = usize::from(u16::from_le_bytes(bytes.get(0x20E..0x210)?.try_into().ok()?));
    let rest = bytes.get(offset + 0x200..)?;
    let text = std::str::from_utf8(rest.get(..rest.iter().position(|&byte| byte == 0)?)?).ok()?;
    let (release, build) = text.split_once(' ')?;
    if !super::config::is_file_name(release) {
        return None;
    }
    Some(Banner { release: release.to_owned(), version: KernelVersion::from_uname(release, build)? })
}

/// The smallest image that [`banner`] reads, for tests of everything that handles images.
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

    #[test]
    fn finds_the_version_that_the_release_hides() {
        let banner = parse(&sample("6.1.0-56-cloud-amd64 (x@y) #1 SMP Debian 6.1.192-2 (2026-11-14)")).unwrap();
        assert_eq!(banner.release, "6.1.0-56-cloud-amd64");
        assert_eq!(banner.version.to_string(), "6.1.192");
    }

    #[test]
    fn an_image_that_is_cut_says_by_how_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        let mut whole = sample("6.12.1 (x@y) #1 SMP");
        whole[0x1F4] = 2;
        whole.extend([0; 32]);
        fs::write(&path, &whole).unwrap();
        assert_eq!(banner(&path).unwrap().release, "6.12.1");
        fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let error = banner(&path).unwrap_err().to_string();
        assert!(error.contains("is 7 bytes short of what its header says"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..600), offset: u16) {
            let mut image = vec![0; 0x202];
            image.extend(b"HdrS");
            image.extend([0; 8]);
            image.extend(offset.to_le_bytes());
            image.extend(tail);
            parse(&image);
        }
    }
}
