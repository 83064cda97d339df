//! Extracts the uncompressed kernel, which the virtual machine can start directly through the PVH entry point.
//!
//! A bzImage decompresses and relocates itself in the guest. Under TCG this takes a fifth of a boot; on the host it
//! takes milliseconds. QEMU can start an ELF file with a PVH note (`XEN_ELFNOTE_PHYS32_ENTRY`, `CONFIG_PVH`) directly,
//! and the kernel inside a bzImage is such a file (`Documentation/arch/x86/boot.rst`, `payload_offset`;
//! `include/xen/interface/elfnote.h`).

use crate::{cache, error::ImageError, setup_header::SetupHeader};
use lab_base::facts::Facts;
use object::{
    elf::FileHeader64,
    read::elf::{FileHeader, ProgramHeader},
};
use sha2::{Digest, Sha256};
use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the physical address of the kernel's entry point.
const PHYS32_ENTRY: u32 = 18;
/// Version of the cache: increase it when more images can be unpacked, because failures are cached too.
const FORMAT: u32 = 1;
/// Maximum size of an uncompressed kernel, bytes; a payload that unpacks to more is damaged.
const LIMIT: u64 = 512 << 20;

/// The kernel of a bzImage as an ELF file in the cache. `None` if it has no PVH entry or an unsupported compression;
/// the kernel must decompress itself then. This result is cached as an empty file.
///
/// # Errors
/// The image can't be read, or the cache can't be written.
pub fn direct_kernel(image: &Path, cache: &Path, facts: &Facts) -> Result<Option<PathBuf>, ImageError> {
    let read = || fs::read(image).map_err(ImageError::io("kernel", image));
    let digest = |packed: &[u8]| {
        lab_base::hex::hex(&Sha256::new().chain_update(FORMAT.to_le_bytes()).chain_update(packed).finalize())
    };
    let key = facts.of_files(&format!("unpacked kernel {FORMAT}"), &[image], || Ok(digest(&read()?)))?;
    let mut path = cache::path_of(cache, &key, "elf");
    if !cache::touch(&path) {
        // Its own digest: the file may be another one by now.
        let packed = read()?;
        path = cache::path_of(cache, &digest(&packed), "elf");
        let kernel = unpack(&packed, LIMIT).filter(|kernel| has_pvh_entry(kernel)).unwrap_or_default();
        cache::store(&path, &kernel)?;
    }
    let length = fs::metadata(&path).map_err(ImageError::io("kernel", &path))?.len();
    Ok((length > 0).then_some(path))
}

/// Decompresses the payload of a bzImage; `None` if it is more than `limit` bytes.
pub(crate) fn unpack(image: &[u8], limit: u64) -> Option<Vec<u8>> {
    let payload = SetupHeader::of(image)?.payload()?;
    let reader: Box<dyn Read + '_> = match payload {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::GzDecoder::new(payload)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(liblzma::read::XzDecoder::new(payload)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::new(payload).ok()?.single_frame()),
        _ => return None,
    };
    let mut kernel = Vec::new();
    reader.take(limit + 1).read_to_end(&mut kernel).ok()?;
    (kernel.len() as u64 <= limit).then_some(kernel)
}

pub(crate) fn has_pvh_entry(kernel: &[u8]) -> bool {
    let find = || -> object::read::Result<bool> {
        let header = FileHeader64::<object::Endianness>::parse(kernel)?;
        let endian = header.endian()?;
        for program in header.program_headers(endian, kernel)? {
            let Some(mut notes) = program.notes(endian, kernel)? else { continue };
            while let Some(note) = notes.next()? {
                if note.name() == b"Xen" && note.n_type(endian) == PHYS32_ENTRY {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    };
    find().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    /// An ELF file whose only segment is a Xen note.
    fn kernel(note: u32) -> Vec<u8> {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
        elf.resize(64, 0);
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        let mut segment = vec![0; 56];
        segment[0] = 4;
        segment[8] = 120;
        segment[32] = 20;
        segment[48] = 4;
        elf.extend(segment);
        elf.extend(4u32.to_le_bytes());
        elf.extend(4u32.to_le_bytes());
        elf.extend(note.to_le_bytes());
        elf.extend(b"Xen\0\0\0\0\x01");
        elf
    }

    fn image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend(payload);
        image
    }

    /// Appends the uncompressed size to the compressed stream, as the kernel's build does.
    fn sized(mut packed: Vec<u8>) -> Vec<u8> {
        packed.extend([1, 2, 3, 4]);
        packed
    }

    fn packings(kernel: &[u8]) -> [Vec<u8>; 3] {
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(kernel).unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(kernel).unwrap();
        [xz.finish().unwrap(), gz.finish().unwrap(), zstd::encode_all(kernel, 1).unwrap()].map(sized)
    }

    #[test]
    fn a_kernel_with_a_pvh_entry_is_unpacked_once_for_every_compression() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        for packed in packings(&kernel(PHYS32_ENTRY)) {
            fs::write(&path, image(&packed)).unwrap();
            let elf = direct_kernel(&path, dir.path(), &Facts::below(dir.path())).unwrap().unwrap();
            assert_eq!(fs::read(&elf).unwrap(), kernel(PHYS32_ENTRY));
            fs::write(&elf, "kept").unwrap();
            assert_eq!(
                fs::read(direct_kernel(&path, dir.path(), &Facts::below(dir.path())).unwrap().unwrap()).unwrap(),
                b"kept"
            );
        }
    }

    #[test]
    fn a_file_without_pvh_entry_is_not_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        let whole = image(&packings(&kernel(PHYS32_ENTRY))[2]);
        for bytes in [
            image(&packings(&kernel(6))[2]),
            image(&packings(b"no ELF")[0]),
            image(b"\x02\x21\x4c\x18 lz4 is not known"),
            whole[..whole.len() - 9].to_vec(),
            b"MZ".to_vec(),
        ] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(direct_kernel(&path, dir.path(), &Facts::below(dir.path())).unwrap(), None);
            assert_eq!(
                direct_kernel(&path, dir.path(), &Facts::below(dir.path())).unwrap(),
                None,
                "the result is cached"
            );
        }
        assert!(direct_kernel(&dir.path().join("absent"), dir.path(), &Facts::below(dir.path())).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_handled_without_a_panic(header in proptest::collection::vec(any::<u8>(), 0..80), tail in any::<Vec<u8>>()) {
            let mut bytes = image(&tail);
            let end = (0x240 + header.len()).min(bytes.len());
            bytes[0x240..end].copy_from_slice(&header[..end - 0x240]);
            unpack(&bytes, LIMIT);
            has_pvh_entry(&tail);
        }
    }
}
