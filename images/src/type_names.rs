//! The names in a kernel's type information (BTF): functions, types and constants, read from its image without booting it.

use crate::{entry, error::ImageError};
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
        Ok(entry::unpack(&packed, LIMIT).and_then(|kernel| Self::of_kernel(&kernel)))
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
}
