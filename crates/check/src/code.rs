//! The code of an object as libbpf reads it: instructions, what they refer to, and what the object wants of the kernel.

use crate::{
    btf::{TypeTable, kind},
    relocation::{CoreRelocation, relocations},
};
use object::{
    Endianness, Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionFlags,
    elf::{R_BPF_64_32, R_BPF_64_64, SHF_EXECINSTR, STB_LOCAL, STT_FUNC},
    read::elf::ElfFile64,
};
use std::collections::{BTreeMap, BTreeSet};

/// Subprograms that programs share.
const TEXT: &str = ".text";
/// Instructions of an object that are looked at, at most.
const MOST: usize = 4 << 20;

/// An instruction (`struct bpf_insn`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    pub code: u8,
    pub to: u8,
    pub from: u8,
    pub offset: i16,
    pub number: i32,
}

/// A place in the code: section and instruction.
pub type CodePlace = (usize, usize);

/// What an instruction refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CodeTarget {
    /// A function of the object.
    Code(CodePlace),
    /// Something of the kernel.
    Extern(String),
    /// A map or a variable.
    Data,
}

/// A section with code.
#[derive(Debug, Clone, Default)]
pub struct CodeSection {
    pub name: String,
    pub instructions: Vec<Instruction>,
    pub targets: BTreeMap<usize, CodeTarget>,
    pub relocations: BTreeMap<usize, CoreRelocation>,
}

/// A function in a section that is not `.text`.
#[derive(Debug, Clone)]
pub struct CodeProgram {
    pub name: String,
    pub place: CodePlace,
}

/// What the kernel must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExternKind {
    /// An option of its configuration.
    Kconfig,
    /// A kfunc, with the type of its prototype.
    Kfunc(u32),
    /// A variable with a type.
    Variable,
    /// A symbol without a type.
    Symbol,
}

/// An extern.
#[derive(Debug, Clone)]
pub struct Extern {
    pub name: String,
    pub is_weak: bool,
    pub kind: ExternKind,
}

/// A map that is defined with types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeMap {
    pub name: String,
    /// `enum bpf_map_type`.
    pub kind: u32,
    /// Whether it is only the pattern of maps in another one.
    pub is_inner: bool,
}

/// The whole.
#[derive(Debug, Clone, Default)]
pub struct ObjectCode {
    /// `.BTF`.
    pub btf: Vec<u8>,
    /// The sections with code, by their numbers.
    pub sections: BTreeMap<usize, CodeSection>,
    /// In the order in which they are loaded.
    pub programs: Vec<CodeProgram>,
    /// In the order in which libbpf looks for them.
    pub externs: Vec<Extern>,
    /// The maps.
    pub maps: Vec<CodeMap>,
    /// Functions that other objects may call, which the verifier checks by themselves.
    pub globals: BTreeSet<CodePlace>,
    /// Static functions in sections of programs.
    pub statics: Vec<String>,
    /// Whether it has a section `maps`.
    pub has_legacy_maps: bool,
}

impl ObjectCode {
    /// Reads an object. `None` where it is not understood.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let file = ElfFile64::<Endianness>::parse(bytes).ok()?;
        let mut code = Self::default();
        let (mut weak, mut externs, mut total) = (BTreeSet::new(), BTreeSet::new(), 0);
        let mut functions = Vec::new();
        let is_code = |section: &object::read::elf::ElfSection64<'_, '_, Endianness>| matches!(section.flags(), SectionFlags::Elf { sh_flags } if sh_flags & u64::from(SHF_EXECINSTR) != 0);
        for section in file.sections().filter(is_code) {
            let instructions: Vec<Instruction> = section.data().ok()?.chunks_exact(8).map(Instruction::read).collect();
            total += instructions.len();
            if total > MOST {
                return None;
            }
            let name = section.name().ok()?.to_owned();
            code.sections.insert(section.index().0, CodeSection { name, instructions, ..CodeSection::default() });
        }
        for symbol in file.symbols() {
            let name = symbol.name().ok()?;
            let info = symbol.elf_symbol().st_info;
            if symbol.is_undefined() && !name.is_empty() {
                externs.insert(name.to_owned());
                if symbol.is_weak() {
                    weak.insert(name.to_owned());
                }
            }
            let Some(section) = symbol.section_index().filter(|at| code.sections.contains_key(&at.0)) else { continue };
            if info & 0xf != STT_FUNC {
                continue;
            }
            let place = (section.0, usize::try_from(symbol.address() / 8).ok()?);
            let is_program = code.sections[&section.0].name != TEXT;
            if info >> 4 != STB_LOCAL {
                code.globals.insert(place);
            } else if is_program {
                code.statics.push(name.to_owned());
            }
            if is_program {
                functions.push(CodeProgram { name: name.to_owned(), place });
            }
        }
        functions.sort_by_key(|it| it.place);
        code.programs = functions;
        code.targets(&file)?;
        code.has_legacy_maps = file.section_by_name("maps").is_some();
        if let Some(section) = file.section_by_name(".BTF") {
            code.btf = section.data().ok()?.to_vec();
            let ext = file.section_by_name(".BTF.ext").map(|section| section.data()).transpose().ok()?;
            code.typed(ext.unwrap_or_default(), &externs, &weak)?;
        }
        Some(code)
    }

    /// What instructions refer to.
    fn targets(&mut self, file: &ElfFile64<'_, Endianness>) -> Option<()> {
        for section in file.sections() {
            let at = section.index().0;
            if !self.sections.contains_key(&at) {
                continue;
            }
            for (offset, relocation) in section.relocations() {
                let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
                let RelocationTarget::Symbol(symbol) = relocation.target() else { continue };
                let symbol = file.symbol_by_index(symbol).ok()?;
                let place = usize::try_from(offset / 8).ok()?;
                let number = self.sections[&at].instructions.get(place)?.number;
                let start = usize::try_from(symbol.address() / 8).ok()?;
                let into =
                    symbol.section_index().map(|index| index.0).filter(|index| self.sections.contains_key(index));
                let target = match (into, r_type) {
                    _ if symbol.is_undefined() => CodeTarget::Extern(symbol.name().ok()?.to_owned()),
                    (Some(into), R_BPF_64_32) => {
                        // From the instruction behind the call: -1 is the function itself.
                        CodeTarget::Code((into, start.checked_add_signed(number as isize + 1)?))
                    }
                    // The address of a function, for a helper that calls it back.
                    (Some(into), R_BPF_64_64) => {
                        CodeTarget::Code((into, start.checked_add(usize::try_from(number).ok()? / 8)?))
                    }
                    _ => CodeTarget::Data,
                };
                self.sections.get_mut(&at)?.targets.insert(place, target);
            }
        }
        Some(())
    }

    /// What only the type information says.
    fn typed(&mut self, ext: &[u8], externs: &BTreeSet<String>, weak: &BTreeSet<String>) -> Option<()> {
        let bytes = std::mem::take(&mut self.btf);
        let btf = TypeTable::read(&bytes)?;
        if !ext.is_empty() {
            for (name, list) in relocations(&btf, ext)? {
                let section = self.sections.values_mut().find(|section| section.name.as_bytes() == name);
                let Some(section) = section else { continue };
                section.relocations.extend(list.into_iter().map(|it| (it.instruction, it)));
            }
        }
        for (section, is_config) in [(&b".kconfig"[..], true), (b".ksyms", false)] {
            for id in btf.section(section) {
                let found = btf.get(id)?;
                let name = String::from_utf8_lossy(btf.name(found)).into_owned();
                if !externs.contains(&name) {
                    continue;
                }
                let kind = match (is_config, found.kind) {
                    (true, _) => ExternKind::Kconfig,
                    (_, kind::FUNC) => ExternKind::Kfunc(btf.plain(found.target())?.0),
                    _ if btf.plain(found.target())?.1.kind == kind::VOID => ExternKind::Symbol,
                    _ => ExternKind::Variable,
                };
                self.externs.push(Extern { is_weak: weak.contains(&name), name, kind });
            }
        }
        self.externs.sort_by(|one, other| one.name.cmp(&other.name));
        for id in btf.section(b".maps") {
            let variable = btf.get(id)?;
            let name = String::from_utf8_lossy(btf.name(variable)).into_owned();
            self.maps.extend(map(&btf, variable.target(), &name, false));
        }
        drop(btf);
        self.btf = bytes;
        Some(())
    }

    /// The instruction at a place.
    pub fn at(&self, place: CodePlace) -> Option<Instruction> {
        self.sections.get(&place.0)?.instructions.get(place.1).copied()
    }

    /// What it refers to.
    pub fn target(&self, place: CodePlace) -> Option<&CodeTarget> {
        self.sections.get(&place.0)?.targets.get(&place.1)
    }
}

/// A map's definition, and the one within it. Numbers are lengths of arrays: `__uint(type, …)` of bpf_helpers.h.
fn map(btf: &TypeTable<'_>, id: u32, name: &str, is_inner: bool) -> Vec<CodeMap> {
    let Some((_, found)) = btf.plain(id) else { return Vec::new() };
    let mut all = Vec::new();
    for member in btf.members(found) {
        let Some((_, pointer)) = btf.plain(member.kind) else { continue };
        match member.name {
            b"type" => {
                let length = btf.plain(pointer.target()).and_then(|(_, array)| array.array());
                if let Some((_, kind)) = length {
                    all.push(CodeMap { name: name.to_owned(), kind, is_inner });
                }
            }
            b"values" if !is_inner => {
                let element = pointer.array().and_then(|(element, _)| btf.plain(element));
                if let Some((_, element)) = element.filter(|(_, element)| element.kind == kind::PTR) {
                    all.extend(map(btf, element.target(), name, true));
                }
            }
            _ => {}
        }
    }
    all
}

impl Instruction {
    fn read(bytes: &[u8]) -> Self {
        Self {
            code: bytes[0],
            to: bytes[1] & 0xf,
            from: bytes[1] >> 4,
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            number: i32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }
}
