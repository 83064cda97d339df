//! Type information (BTF, Documentation/bpf/btf.rst): of a kernel, or of an object. The bytes are anybody's.

use std::collections::HashMap;

const MAGIC: [u8; 2] = [0x9f, 0xeb];
/// Types that lead to each other through modifiers, at most: cycles are broken input.
const DEPTH: usize = 64;
/// Bytes of a name that are read, at most; a symbol of the kernel has less than 512 (`KSYM_NAME_LEN`).
const NAME: usize = 1024;
/// Types that are read, at most; a kernel has 150,000.
const MOST: usize = 1 << 20;

/// `BTF_KIND_*`.
pub mod kind {
    pub const VOID: u8 = 0;
    pub const INT: u8 = 1;
    pub const PTR: u8 = 2;
    pub const ARRAY: u8 = 3;
    pub const STRUCT: u8 = 4;
    pub const UNION: u8 = 5;
    pub const ENUM: u8 = 6;
    pub const FWD: u8 = 7;
    pub const TYPEDEF: u8 = 8;
    pub const VOLATILE: u8 = 9;
    pub const CONST: u8 = 10;
    pub const RESTRICT: u8 = 11;
    pub const FUNC: u8 = 12;
    pub const FUNC_PROTO: u8 = 13;
    pub const VAR: u8 = 14;
    pub const DATASEC: u8 = 15;
    pub const FLOAT: u8 = 16;
    pub const DECL_TAG: u8 = 17;
    pub const TYPE_TAG: u8 = 18;
    pub const ENUM64: u8 = 19;
}

/// Type information. Type 0 is `void`.
#[derive(Debug)]
pub struct TypeTable<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    /// Where each type begins; the first is number 1.
    starts: Vec<u32>,
    /// Types by name without its flavour.
    names: HashMap<&'a [u8], Vec<u32>>,
}

/// A type.
#[derive(Debug, Clone, Copy)]
pub struct Type<'a> {
    /// `BTF_KIND_*`.
    pub kind: u8,
    name: u32,
    /// Its size, or the type that it refers to.
    word: u32,
    rest: &'a [u8],
}

/// A member of a struct or union.
#[derive(Debug, Clone, Copy)]
pub struct Member<'a> {
    pub name: &'a [u8],
    pub kind: u32,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// Bytes behind the common part of a type.
fn behind(kind: u8, count: usize) -> Option<usize> {
    Some(match kind {
        kind::INT | kind::VAR | kind::DECL_TAG => 4,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => 12 * count,
        kind::ENUM | kind::FUNC_PROTO => 8 * count,
        kind::PTR
        | kind::FWD
        | kind::TYPEDEF
        | kind::VOLATILE
        | kind::CONST
        | kind::RESTRICT
        | kind::FUNC
        | kind::FLOAT
        | kind::TYPE_TAG => 0,
        _ => return None,
    })
}

/// A name without its flavour: `task_struct___old` is `task_struct` (`bpf_core_essential_name_len`).
pub fn essential(name: &[u8]) -> &[u8] {
    let is_flavour = |at: usize| {
        let underscore = |at: usize| name.get(at) == Some(&b'_');
        !underscore(at)
            && (1..4).all(|step| underscore(at + step))
            && name.get(at + 4).is_some_and(|byte| *byte != b'_')
    };
    let last = name.len().checked_sub(5).and_then(|last| (0..=last).rev().find(|at| is_flavour(*at)));
    last.map_or(name, |at| &name[..=at])
}

impl<'a> TypeTable<'a> {
    /// Reads it. `None` if it is none, or has kinds of types that are not known here.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(&MAGIC) {
            return None;
        }
        let header = word(bytes, 4)? as usize;
        let part = |at: usize| {
            let start = header.checked_add(word(bytes, at)? as usize)?;
            bytes.get(start..start.checked_add(word(bytes, at + 4)? as usize)?)
        };
        let (types, strings) = (part(8)?, part(16)?);
        let mut btf = Self { types, strings, starts: Vec::new(), names: HashMap::new() };
        let mut at = 0;
        while at < types.len() {
            let info = word(types, at + 4)?;
            let (kind, count) = ((info >> 24 & 0x1f) as u8, (info & 0xffff) as usize);
            let length = 12 + behind(kind, count)?;
            types.get(at..at.checked_add(length)?)?;
            if btf.starts.len() >= MOST {
                return None;
            }
            btf.starts.push(u32::try_from(at).ok()?);
            let name = btf.text(word(types, at)?);
            if !name.is_empty() {
                let number = u32::try_from(btf.starts.len()).ok()?;
                btf.names.entry(essential(name)).or_default().push(number);
            }
            at += length;
        }
        Some(btf)
    }

    /// A name.
    pub fn text(&self, offset: u32) -> &'a [u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        let rest = &rest[..rest.len().min(NAME)];
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The type of that number.
    pub fn get(&self, id: u32) -> Option<Type<'a>> {
        if id == 0 {
            return Some(Type { kind: kind::VOID, name: 0, word: 0, rest: &[] });
        }
        let start = *self.starts.get(id as usize - 1)? as usize;
        let info = word(self.types, start + 4)?;
        let kind = (info >> 24 & 0x1f) as u8;
        let rest = self.types.get(start + 12..start + 12 + behind(kind, (info & 0xffff) as usize)?)?;
        Some(Type { kind, name: word(self.types, start)?, word: word(self.types, start + 8)?, rest })
    }

    /// The types whose names without flavour are this one.
    pub fn named(&self, essential: &[u8]) -> &[u32] {
        self.names.get(essential).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first type of that name and kind.
    pub fn find(&self, name: &[u8], kind: u8) -> Option<u32> {
        let is_it = |id: &&u32| self.get(**id).is_some_and(|it| it.kind == kind && self.name(it) == name);
        self.named(essential(name)).iter().find(is_it).copied()
    }

    /// Its name.
    pub fn name(&self, of: Type<'_>) -> &'a [u8] {
        self.text(of.name)
    }

    /// The type behind typedefs, `const` and the like.
    pub fn plain(&self, mut id: u32) -> Option<(u32, Type<'a>)> {
        for _ in 0..DEPTH {
            let found = self.get(id)?;
            match found.kind {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => id = found.word,
                _ => return Some((id, found)),
            }
        }
        None
    }

    /// Its members.
    pub fn members(&self, of: Type<'a>) -> Vec<Member<'a>> {
        if !of.is_composite() {
            return Vec::new();
        }
        let member = |words: &[u8]| Some(Member { name: self.text(word(words, 0)?), kind: word(words, 4)? });
        of.rest.chunks_exact(12).filter_map(member).collect()
    }

    /// Names and values of an enum.
    pub fn values(&self, of: Type<'a>) -> Vec<(&'a [u8], u64)> {
        let value = |words: &[u8]| {
            let high = if of.kind == kind::ENUM64 { word(words, 8)? } else { 0 };
            Some((self.text(word(words, 0)?), u64::from(high) << 32 | u64::from(word(words, 4)?)))
        };
        let size = match of.kind {
            kind::ENUM => 8,
            kind::ENUM64 => 12,
            _ => return Vec::new(),
        };
        of.rest.chunks_exact(size).filter_map(value).collect()
    }

    /// The variables and functions of a section of an object, by their types' numbers.
    pub fn section(&self, name: &[u8]) -> Vec<u32> {
        let Some(found) = self.find(name, kind::DATASEC).and_then(|id| self.get(id)) else { return Vec::new() };
        found.rest.chunks_exact(12).filter_map(|words| word(words, 0)).collect()
    }
}

impl Type<'_> {
    /// The type that it refers to.
    pub const fn target(&self) -> u32 {
        self.word
    }

    pub const fn is_composite(&self) -> bool {
        matches!(self.kind, kind::STRUCT | kind::UNION)
    }

    pub const fn is_enum(&self) -> bool {
        matches!(self.kind, kind::ENUM | kind::ENUM64)
    }

    /// Of an array: the type of its elements, and their number.
    pub fn array(&self) -> Option<(u32, u32)> {
        (self.kind == kind::ARRAY).then_some(())?;
        Some((word(self.rest, 0)?, word(self.rest, 8)?))
    }

    /// Of an integer: the bit at which it begins, which is 0 but for bit fields of old compilers.
    pub fn int_offset(&self) -> u32 {
        word(self.rest, 0).unwrap_or_default() >> 16 & 0xff
    }

    /// Of a prototype: the types of its parameters.
    pub fn parameters(&self) -> Vec<u32> {
        if self.kind != kind::FUNC_PROTO {
            return Vec::new();
        }
        self.rest.chunks_exact(8).filter_map(|words| word(words, 4)).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Writes type information.
    #[derive(Default)]
    pub struct Written {
        types: Vec<u8>,
        strings: Vec<u8>,
        count: u32,
    }

    impl Written {
        pub fn text(&mut self, text: &str) -> u32 {
            if self.strings.is_empty() {
                self.strings.push(0);
            }
            if text.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(text.bytes().chain([0]));
            at
        }

        pub fn add(&mut self, name: &str, kind: u8, count: u32, word: u32, rest: &[u32]) -> u32 {
            let name = self.text(name);
            for word in [name, u32::from(kind) << 24 | count, word].iter().chain(rest) {
                self.types.extend(word.to_le_bytes());
            }
            self.count += 1;
            self.count
        }

        pub fn int(&mut self) -> u32 {
            self.add("int", kind::INT, 0, 4, &[32])
        }

        /// A struct with members of these types, one behind the other.
        pub fn structure(&mut self, name: &str, members: &[(&str, u32)]) -> u32 {
            let mut rest = Vec::new();
            for (number, (name, of)) in members.iter().enumerate() {
                rest.extend([self.text(name), *of, number as u32 * 32]);
            }
            let count = members.len() as u32;
            self.add(name, kind::STRUCT, count, 4 * count, &rest)
        }

        pub fn enumeration(&mut self, name: &str, values: &[(&str, u32)]) -> u32 {
            let mut rest = Vec::new();
            for (name, value) in values {
                rest.extend([self.text(name), *value]);
            }
            self.add(name, kind::ENUM, values.len() as u32, 4, &rest)
        }

        pub fn bytes(&self) -> Vec<u8> {
            let mut all = vec![0x9f, 0xeb, 1, 0];
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            [24, 0, types, types, strings].iter().for_each(|word: &u32| all.extend(word.to_le_bytes()));
            all.extend(&self.types);
            all.extend(&self.strings);
            all
        }
    }

    #[test]
    fn types_are_found_by_their_names_without_flavours() {
        let mut written = Written::default();
        let int = written.int();
        let alias = written.add("u32", kind::TYPEDEF, 0, int, &[]);
        let point = written.structure("point___old", &[("x", alias), ("y", int)]);
        let values = written.enumeration("color", &[("RED", 1), ("BLUE", 7)]);
        let bytes = written.bytes();
        let btf = TypeTable::read(&bytes).unwrap();
        assert_eq!((btf.named(b"point"), btf.find(b"point___old", kind::STRUCT)), (&[point][..], Some(point)));
        assert_eq!((btf.find(b"point", kind::STRUCT), btf.find(b"u32", kind::STRUCT)), (None, None));
        let members = btf.members(btf.get(point).unwrap());
        assert_eq!((members[1].name, members[1].kind), (&b"y"[..], int));
        assert_eq!(btf.values(btf.get(values).unwrap()), [(&b"RED"[..], 1), (&b"BLUE"[..], 7)]);
        assert_eq!(btf.plain(alias).map(|(id, _)| id), Some(int));
        assert!(
            (0..bytes.len()).all(|length| TypeTable::read(&bytes[..length]).is_none()),
            "what is cut off is not read"
        );
    }

    #[test]
    fn a_flavour_is_what_follows_three_underscores() {
        for (name, wanted) in [
            ("task_struct", "task_struct"),
            ("task_struct___x", "task_struct"),
            ("a___b___c", "a___b"),
            ("___a", "___a"),
            ("a____b", "a____b"),
            ("a___", "a___"),
            ("", ""),
        ] {
            assert_eq!(essential(name.as_bytes()), wanted.as_bytes(), "{name}");
        }
    }
}
