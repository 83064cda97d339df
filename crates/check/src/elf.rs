//! A look at an object before a guest boots: whether it is one for BPF at all, and which programs it has. The bytes are anybody's.

use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, SectionFlags,
    elf::{EM_BPF, SHF_EXECINSTR, STT_FUNC, STT_SECTION},
    read::elf::ElfFile64,
};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of an object, at most.
pub const MAX_OBJECT: u64 = 64 << 20;
/// Programs of an object, at most.
const MAX_PROGRAMS: usize = 10_000;
/// Bytes of an instruction.
const INSN: u64 = 8;
/// `BPF_JMP | BPF_CALL`; of a helper where the source register is 0.
const CALL: u8 = 0x85;

/// Why a file can't be checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// It is larger than any object.
    #[error("it has {} MiB; an eBPF object has at most {} MiB", .0 >> 20, MAX_OBJECT >> 20)]
    TooLarge(u64),
    /// It is no ELF file.
    #[error("it is no ELF file; compile the program with `clang -target bpf -g -O2 -c`")]
    NotElf,
    /// It is an ELF file of another kind.
    #[error(
        "it is an ELF file for {0}, and not a 64-bit little-endian object for BPF; compile it with `clang -target bpfel`"
    )]
    NotBpf(String),
    /// It is broken.
    #[error("it is a broken ELF file: {0}")]
    Broken(String),
    /// It has no program.
    #[error("it has no program: no function in an executable section; name the section by SEC(\"tc\")")]
    Empty,
    /// It has too many programs.
    #[error("it has {0} programs; at most {MAX_PROGRAMS} are checked")]
    Many(usize),
}

/// An object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ElfObject {
    /// Its programs, in the order of sections and addresses.
    pub programs: Vec<ElfProgram>,
    /// Names of functions that it calls and does not have: kfuncs.
    pub externs: Vec<String>,
    /// Whether it has type information.
    pub has_btf: bool,
}

/// A program of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ElfProgram {
    /// Its section: `tc`, `tcx/ingress`.
    pub section: String,
    /// The function's name.
    pub name: String,
    /// Its instructions.
    pub instructions: u64,
    /// The helpers that it calls, by their numbers (`enum bpf_func_id`); those of its subprograms in `.text` are not among them.
    pub helpers: BTreeSet<u32>,
}

/// Looks at a file's content.
///
/// # Errors
/// [`ElfError`].
pub fn inspect(bytes: &[u8]) -> Result<ElfObject, ElfError> {
    if bytes.len() as u64 > MAX_OBJECT {
        return Err(ElfError::TooLarge(bytes.len() as u64));
    }
    let Some((b"\x7fELF", ident)) = bytes.split_at_checked(4) else { return Err(ElfError::NotElf) };
    let [class, data, ..] = ident else { return Err(ElfError::Broken("it ends within its header".to_owned())) };
    if *data == 2 {
        return Err(ElfError::NotBpf("a big-endian machine".to_owned()));
    }
    if *class != 2 {
        return Err(ElfError::NotBpf("a 32-bit machine".to_owned()));
    }
    let broken = |error: object::Error| ElfError::Broken(error.to_string());
    let file = ElfFile64::<Endianness>::parse(bytes).map_err(broken)?;
    let machine = file.elf_header().e_machine.get(Endianness::Little);
    if machine != EM_BPF {
        return Err(ElfError::NotBpf(format!("the machine {machine} of ELF's list")));
    }
    let mut sections = BTreeMap::new();
    for section in file.sections() {
        let name = section.name().map_err(broken)?;
        // A section that lies outside of the file is a truncated file.
        let data = section.data().map_err(broken)?;
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        if sh_flags & u64::from(SHF_EXECINSTR) != 0 && name != ".text" {
            sections.insert(section.index().0, (name.to_owned(), data));
        }
    }
    let (mut programs, mut externs) = (Vec::new(), Vec::new());
    for symbol in file.symbols() {
        let name = symbol.name().map_err(broken)?;
        let kind = symbol.elf_symbol().st_info & 0xf;
        if symbol.is_undefined() && !name.is_empty() && kind != STT_SECTION {
            externs.push(name.to_owned());
        }
        if let Some((section, data)) = symbol.section_index().and_then(|index| sections.get(&index.0))
            && kind == STT_FUNC
        {
            let program = ElfProgram {
                section: section.clone(),
                name: name.to_owned(),
                instructions: symbol.size() / INSN,
                helpers: helpers(data, symbol.address(), symbol.size()),
            };
            programs.push((symbol.section_index(), symbol.address(), program));
        }
    }
    if programs.len() > MAX_PROGRAMS {
        return Err(ElfError::Many(programs.len()));
    }
    programs.sort_by_key(|(section, address, ..)| (section.map(|it| it.0), *address));
    let programs: Vec<ElfProgram> = programs.into_iter().map(|(_, _, program)| program).collect();
    if programs.is_empty() {
        return Err(ElfError::Empty);
    }
    externs.sort();
    externs.dedup();
    Ok(ElfObject { programs, externs, has_btf: file.section_by_name(".BTF").is_some() })
}

/// The helpers that the instructions call.
fn helpers(section: &[u8], start: u64, size: u64) -> BTreeSet<u32> {
    let range = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(size)).ok());
    let code = range.and_then(|(start, end)| section.get(start..end)).unwrap_or_default();
    let called = code.chunks_exact(INSN as usize).filter(|insn| insn[0] == CALL && insn[1] >> 4 == 0);
    called.filter_map(|insn| Some(u32::from_le_bytes(insn[4..8].try_into().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_objects_are_told_apart() {
        assert_eq!(inspect(b"#include <linux/bpf.h>"), Err(ElfError::NotElf));
        assert_eq!(inspect(b""), Err(ElfError::NotElf));
        assert!(matches!(inspect(b"\x7fELF"), Err(ElfError::Broken(_))));
        assert!(matches!(inspect(b"\x7fELF\x02\x02\x01"), Err(ElfError::NotBpf(what)) if what.contains("big-endian")));
        assert!(matches!(inspect(b"\x7fELF\x01\x01\x01"), Err(ElfError::NotBpf(what)) if what.contains("32-bit")));
        assert!(matches!(inspect(b"\x7fELF\x02\x01\x01"), Err(ElfError::Broken(_))));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        if own.len() as u64 <= MAX_OBJECT {
            assert!(matches!(inspect(&own), Err(ElfError::NotBpf(what)) if what.contains("62")), "x86-64 is 62");
        }
    }
}
