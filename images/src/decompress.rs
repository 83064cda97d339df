//! Decompresses module files (xz, zstd, gzip or none). The guest gets them uncompressed: kernels load compressed
//! modules only with `CONFIG_MODULE_DECOMPRESS`, and the host decompresses faster than an emulated guest.

use crate::error::ImageError;
use object::{Object, ObjectSection, read::elf::ElfFile64};
use std::{fs::File, io::Read, path::Path};

/// Maximum size of a module, bytes; a file that unpacks to more is broken or hostile.
const LIMIT: u64 = 256 << 20;

/// Reads a module file and returns its ELF content.
pub fn read_module(path: &Path) -> Result<Vec<u8>, ImageError> {
    let file = File::open(path).map_err(ImageError::io("module", path))?;
    let problem = |problem: String| ImageError::Module { path: path.to_owned(), problem };
    unpack(path.extension().and_then(|suffix| suffix.to_str()), file).map_err(|error| problem(error.to_string()))
}

/// Release of the kernel that the module was built for: the first word of its `vermagic` (`VERMAGIC_STRING`,
/// include/linux/vermagic.h). `None` for a module without one, which a kernel only loads by force.
///
/// # Errors
/// [`ImageError::Module`] for a file that is not a module.
pub fn module_release(path: &Path) -> Result<Option<String>, ImageError> {
    let bytes = read_module(path)?;
    let problem = |error: object::Error| ImageError::Module { path: path.to_owned(), problem: error.to_string() };
    let file = ElfFile64::<object::Endianness>::parse(&*bytes).map_err(problem)?;
    let Some(section) = file.section_by_name(".modinfo") else { return Ok(None) };
    let info = section.data().map_err(problem)?;
    let magic = info.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"vermagic="));
    Ok(magic.and_then(|magic| String::from_utf8_lossy(magic).split_whitespace().next().map(str::to_owned)))
}

/// Why a module can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is damaged.
    #[error(transparent)]
    Damaged(#[from] std::io::Error),
    /// It unpacks to something else.
    #[error("not an ELF file after decompression")]
    NotElf,
    /// It is larger than the limit, MiB.
    #[error("unpacks to more than {0} MiB")]
    TooLarge(u64),
}

/// The content of a module file with this suffix, decompressed.
///
/// # Errors
/// The file is damaged, larger than [`LIMIT`], or not an ELF file.
pub fn unpack<'a>(suffix: Option<&str>, file: impl Read + 'a) -> Result<Vec<u8>, UnpackError> {
    unpack_within(LIMIT, suffix, file)
}

/// As [`unpack`], with another limit in bytes.
pub fn unpack_within<'a>(limit: u64, suffix: Option<&str>, file: impl Read + 'a) -> Result<Vec<u8>, UnpackError> {
    let reader: Box<dyn Read + 'a> = match suffix {
        Some("xz") => Box::new(liblzma::read::XzDecoder::new(file)),
        Some("zst") => Box::new(zstd::stream::read::Decoder::new(file)?),
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut bytes = Vec::new();
    reader.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(UnpackError::TooLarge(limit >> 20));
    }
    if !bytes.starts_with(b"\x7fELF") {
        return Err(UnpackError::NotElf);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_compression_is_supported_and_a_truncated_file_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let body = [b"\x7fELF".as_slice(), &[7; 5000]].concat();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&body).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&body).unwrap();
        for (name, packed) in [
            ("a.ko", body.clone()),
            ("a.ko.xz", xz.finish().unwrap()),
            ("a.ko.gz", gz.finish().unwrap()),
            ("a.ko.zst", zstd::encode_all(&body[..], 1).unwrap()),
        ] {
            let path = dir.path().join(name);
            std::fs::write(&path, &packed).unwrap();
            assert_eq!(read_module(&path).unwrap(), body, "{name}");
            std::fs::write(&path, &packed[..3]).unwrap();
            let error = read_module(&path).unwrap_err().to_string();
            assert!(error.starts_with("module ") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_module_that_unpacks_to_more_than_its_limit_is_refused() {
        let body = [b"\x7fELF".as_slice(), &[0; 5000]].concat();
        let packed = zstd::encode_all(&body[..], 1).unwrap();
        assert_eq!(unpack_within(body.len() as u64, Some("zst"), &*packed).unwrap(), body);
        let error = unpack_within(body.len() as u64 - 1, Some("zst"), &*packed).unwrap_err();
        assert!(error.to_string().starts_with("unpacks to more than"), "{error}");
        let bomb = zstd::encode_all(std::io::repeat(0).take(LIMIT + 1), 1).unwrap();
        assert!(bomb.len() < 1 << 20);
        assert_eq!(unpack(Some("zst"), &*bomb).unwrap_err().to_string(), "unpacks to more than 256 MiB");
    }
}
