//! A kernel's type information (BTF), read from its image without booting it.

use crate::{cache, entry, error::ImageError, setup_header::SetupHeader};
use object::{Object, ObjectSection, read::elf::ElfFile64};
use sha2::{Digest, Sha256};
use std::{fs, path::Path};

/// Maximum size of an uncompressed kernel, bytes.
const LIMIT: u64 = 512 << 20;
/// Maximum size of a kernel's type information, bytes; today's have six million.
const MOST: usize = 64 << 20;
/// Version of the cache: increase it when more images can be read, because failures are cached too.
const FORMAT: u32 = 1;
/// Compression in the cache: a quarter of the size, and read in a hundredth of the time that the kernel takes to be unpacked.
const LEVEL: i32 = 1;

/// The type information of the kernel in a bzImage, as it is in its section `.BTF`. `None` if the image's compression is not
/// supported, or the kernel has none. What was found is kept in the cache, a failure as an empty file.
///
/// # Errors
/// The image can't be read, or the cache can't be written.
pub fn type_info(image: &Path, cache: &Path) -> Result<Option<Vec<u8>>, ImageError> {
    let packed = fs::read(image).map_err(ImageError::io("kernel", image))?;
    let key = Sha256::new().chain_update(FORMAT.to_le_bytes()).chain_update(&packed).finalize();
    let path = cache::path_of(cache, &lab_base::hex::hex(&key), cache::TYPES);
    if cache::touch(&path) {
        let kept = fs::read(&path).map_err(ImageError::io("type information", &path))?;
        // One that is damaged is read again.
        if let Some(found) = unpacked(&kept) {
            return Ok(found);
        }
    }
    let kernel = entry::unpack(&packed, LIMIT).or_else(|| lz4_kernel(&packed));
    let found = kernel.and_then(|kernel| section(&kernel));
    let kept = found.as_ref().map(|btf| zstd::bulk::compress(btf, LEVEL)).transpose();
    cache::store(&path, &kept.map_err(ImageError::io("type information", &path))?.unwrap_or_default())?;
    Ok(found)
}

/// What the cache has; `None` where it is damaged.
#[expect(clippy::option_option, reason = "the inner one is a kernel without type information")]
fn unpacked(kept: &[u8]) -> Option<Option<Vec<u8>>> {
    if kept.is_empty() {
        return Some(None);
    }
    zstd::bulk::decompress(kept, MOST).ok().map(Some)
}

fn section(kernel: &[u8]) -> Option<Vec<u8>> {
    let file = ElfFile64::<object::Endianness>::parse(kernel).ok()?;
    let btf = file.section_by_name(".BTF")?.data().ok()?;
    (btf.len() <= MOST).then(|| btf.to_vec())
}

/// Decompresses a kernel that is packed by LZ4 in its old format (Documentation/arch/x86/boot.rst; `lz4 -l`): a magic number, then
/// blocks of at most 8 MiB, each behind its packed length. Such a kernel is not started directly, see `entry`.
fn lz4_kernel(image: &[u8]) -> Option<Vec<u8>> {
    const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
    const BLOCK: usize = 8 << 20;
    let mut rest = SetupHeader::of(image)?.payload()?.strip_prefix(&MAGIC)?;
    let mut kernel = Vec::new();
    // The last four bytes are the length of the whole.
    while rest.len() > 4 {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (block, next) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        kernel.extend(lz4_flex::block::decompress(block, BLOCK).ok()?);
        if kernel.len() as u64 > LIMIT {
            return None;
        }
        rest = next;
    }
    Some(kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_kept_and_what_is_damaged_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("vmlinuz");
        fs::write(&image, b"no kernel").unwrap();
        let kept = || fs::read_dir(dir.path().join("images")).unwrap().next().unwrap().unwrap().path();
        assert_eq!(type_info(&image, dir.path()).unwrap(), None);
        assert_eq!(fs::read(kept()).unwrap(), b"");
        fs::write(kept(), zstd::bulk::compress(b"types", LEVEL).unwrap()).unwrap();
        assert_eq!(type_info(&image, dir.path()).unwrap().as_deref(), Some(&b"types"[..]));
        fs::write(kept(), b"damaged").unwrap();
        assert_eq!(type_info(&image, dir.path()).unwrap(), None);
        assert!(type_info(&dir.path().join("absent"), dir.path()).is_err());
    }

    #[test]
    fn a_kernel_of_several_blocks_is_unpacked_and_a_broken_one_is_not() {
        let image = |payload: &[u8]| {
            let mut image = vec![0; 1024];
            image[0x1f1] = 1;
            image[0x202..0x206].copy_from_slice(b"HdrS");
            image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
            image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
            [&image[..], payload].concat()
        };
        let mut packed = vec![0x02, 0x21, 0x4c, 0x18];
        for part in [&b"first "[..], b"second"] {
            let block = lz4_flex::block::compress(part);
            packed.extend((block.len() as u32).to_le_bytes());
            packed.extend(block);
        }
        packed.extend(12u32.to_le_bytes());
        assert_eq!(lz4_kernel(&image(&packed)).as_deref(), Some(&b"first second"[..]));
        packed[4] = 200;
        assert_eq!(lz4_kernel(&image(&packed)), None);
    }
}
