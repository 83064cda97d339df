//! The names in a kernel's type information (BTF): functions, types and constants, read from its image without booting it.

use crate::{entry, error::ImageError, setup_header::SetupHeader};
use object::{Object, ObjectSection, read::elf::ElfFile64};
use std::{collections::HashSet, fs, path::Path};

/// Maximum size of an uncompressed kernel, bytes.
const LIMIT: u64 = 512 << 20;
/// Where the header says where the strings are (`struct btf_header`, include/uapi/linux/btf.h).
const STRINGS: usize = 16;
const MAGIC: [u8; 2] = [0x9f, 0xeb];

/// Names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TypeNames(HashSet<Box<[u8]>>);

impl TypeNames {
    /// Of a bzImage. `None` if its compression is not supported, or the kernel has no type information.
    ///
    /// # Errors
    /// The image can't be read.
    pub fn of(image: &Path) -> Result<Option<Self>, ImageError> {
        let packed = fs::read(image).map_err(ImageError::io("kernel", image))?;
        let kernel = entry::unpack(&packed, LIMIT).or_else(|| lz4_kernel(&packed));
        Ok(kernel.and_then(|kernel| Self::of_kernel(&kernel)))
    }

    fn of_kernel(kernel: &[u8]) -> Option<Self> {
        let file = ElfFile64::<object::Endianness>::parse(kernel).ok()?;
        Self::of_btf(file.section_by_name(".BTF")?.data().ok()?)
    }

    fn of_btf(btf: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?) as usize);
        if !btf.starts_with(&MAGIC) {
            return None;
        }
        let start = word(4)?.checked_add(word(STRINGS)?)?;
        let strings = btf.get(start..start.checked_add(word(STRINGS + 4)?)?)?;
        let names = strings.split(|byte| *byte == 0).filter(|name| !name.is_empty());
        Some(Self(names.map(Box::from).collect()))
    }

    /// Whether the name occurs. One that does not names nothing in the kernel itself; its modules have names of their own.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name.as_bytes())
    }
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
    fn names_are_whole_strings_and_broken_information_has_none() {
        let mut btf = vec![0x9f, 0xeb, 1, 0];
        [24u32, 0, 0, 0, 18].iter().for_each(|word| btf.extend(word.to_le_bytes()));
        btf.extend(b"\0bpf_first\0second\0");
        let names = TypeNames::of_btf(&btf).unwrap();
        assert!(names.has("bpf_first") && names.has("second"));
        assert!(!names.has("bpf_firs") && !names.has("first") && !names.has(""));
        assert_eq!(TypeNames::of_btf(&btf[..40]), None);
        assert_eq!(TypeNames::of_btf(b"\x9f\xeb"), None);
        assert_eq!(TypeNames::of_kernel(b"\x7fELF"), None);
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
