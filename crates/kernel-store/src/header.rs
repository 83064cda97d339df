//! Reads the version from a kernel image: a bzImage of x86-64, or an `Image` of arm64.

use super::error::{KernelsError, Result};
use lab_base::arch::Architecture;
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

/// Where an `Image` has its magic number (Documentation/arch/arm64/booting.rst: `magic` of the header), and the number.
const ARM64_MAGIC: (usize, &[u8; 4]) = (56, b"ARMd");
/// The start of `linux_banner` (init/version-timestamp.c), which an uncompressed kernel has as text.
const LINUX_BANNER: &[u8] = b"Linux version ";

/// Reads the banner of an image for the architecture: of a bzImage from its setup header, of an `Image` from the kernel's own
/// text, because its header has none.
///
/// # Errors
/// The file can't be read or is not an image for this architecture.
pub(super) fn banner(image: &Path, architecture: Architecture) -> Result<Banner> {
    let bytes = bounded::file(image, LIMIT).map_err(|error| match error.kind() {
        // kernels.toml names the image, so its absence is an error in that file.
        std::io::ErrorKind::NotFound => KernelsError::BadKernel {
            path: image.to_owned(),
            reason: "the image does not exist: fix `source.path` in kernels.toml, or build the tree".into(),
        },
        _ => KernelsError::io(image)(error),
    })?;
    let bad = |reason: String| KernelsError::BadKernel { path: image.to_owned(), reason };
    if architecture == Architecture::Arm64 {
        return parse_arm64(&bytes).ok_or_else(|| {
            bad("is not an uncompressed arm64 Image with a version in it (compressed ones can't be read yet)".into())
        });
    }
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

fn parse_arm64(bytes: &[u8]) -> Option<Banner> {
    let (at, magic) = ARM64_MAGIC;
    if !bytes.get(at..)?.starts_with(magic) {
        return None;
    }
    // Formats with placeholders begin with the same words.
    let starts = bytes.windows(LINUX_BANNER.len()).enumerate().filter(|(_, window)| *window == LINUX_BANNER);
    starts.map(|(at, _)| &bytes[at + LINUX_BANNER.len()..]).find_map(|rest| {
        let rest = &rest[..rest.len().min(LONGEST_BANNER)];
        let text = std::str::from_utf8(rest.split(|byte| matches!(byte, 0 | b'\n')).next()?).ok()?;
        // RELEASE (BUILDER) (COMPILER) #NUMBER FLAGS DATE
        let (release, rest) = text.split_once(" (")?;
        let (_, build) = rest.rsplit_once(") #")?;
        if !super::names::is_file_name(release) {
            return None;
        }
        let version = KernelVersion::from_uname(release, &format!("#{build}"))?;
        Some(Banner { release: release.to_owned(), version })
    })
}

/// Bytes of a banner at most; the compiler's name is in it.
const LONGEST_BANNER: usize = 1024;

/// The smallest image of arm64 that [`banner`] accepts, for tests.
#[cfg(test)]
pub(super) fn sample_of_arm64(banner: &str) -> Vec<u8> {
    let (at, magic) = ARM64_MAGIC;
    let mut image = vec![0; 64];
    image[at..at + magic.len()].copy_from_slice(magic);
    image.extend(b"Linux version %s (%s)\0");
    image.extend(LINUX_BANNER);
    image.extend(banner.as_bytes());
    image.extend(b"\n\0");
    image
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
    fn the_version_of_an_arm64_image_is_in_its_text() {
        let text = "6.12.117+deb12-cloud-arm64 (debian-kernel@lists.debian.org) (aarch64-linux-gnu-gcc-12 (Debian 12.2.0-14) \
                    12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP Debian 6.12.117-1~deb12u1 (2026-11-14)";
        let parsed = parse_arm64(&sample_of_arm64(text)).unwrap();
        assert_eq!(parsed.release, "6.12.117+deb12-cloud-arm64");
        assert_eq!(parsed.version.to_string(), "6.12.117");
        let old = "6.1.0-56-cloud-arm64 (x@y) (gcc) #1 SMP Debian 6.1.192-2 (2026-11-14)";
        assert_eq!(parse_arm64(&sample_of_arm64(old)).unwrap().version.to_string(), "6.1.192");
        for not in ["../6.1 (x) (y) #1 SMP", "6.1.0 (x", ""] {
            assert_eq!(parse_arm64(&sample_of_arm64(not)), None, "{not}");
        }
    }

    #[test]
    fn an_image_of_another_architecture_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        fs::write(&path, sample("6.9.1-mine (a@b) #1 SMP")).unwrap();
        let error = banner(&path, Architecture::Arm64).unwrap_err().to_string();
        assert!(error.contains("is not an uncompressed arm64 Image"), "{error}");
        fs::write(&path, sample_of_arm64("6.9.1-mine (a@b) (gcc) #1 SMP")).unwrap();
        assert_eq!(banner(&path, Architecture::Arm64).unwrap().release, "6.9.1-mine");
        let error = banner(&path, Architecture::X86_64).unwrap_err().to_string();
        assert!(error.contains("is not an x86 bzImage"), "{error}");
    }

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
        assert_eq!(banner(&path, Architecture::X86_64).unwrap().release, "6.12.1");
        fs::write(&path, &whole[..whole.len() - 7]).unwrap();
        let error = banner(&path, Architecture::X86_64).unwrap_err().to_string();
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
