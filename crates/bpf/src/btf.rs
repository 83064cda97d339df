//! The kernel's type information (BTF, Documentation/bpf/btf.rst), as much as a loader of tracing programs asks of it.
//!
//! aya parses all of it, which takes half a second in an emulated guest; this reads it in place.

use std::collections::HashMap;

/// Kinds of types in use (`BTF_KIND_*`, include/uapi/linux/btf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BtfKind {
    /// `BTF_KIND_STRUCT`.
    Struct = 4,
    /// `BTF_KIND_TYPEDEF`.
    Typedef = 8,
    /// `BTF_KIND_FUNC`.
    Function = 12,
    /// `BTF_KIND_VAR`.
    Variable = 14,
}

const UNION: u8 = 5;
/// `BTF_KIND_FUNC_PROTO`.
const PROTOTYPE: u8 = 13;
const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Types within types that are followed, at most.
const DEPTH: u32 = 32;

/// Why type information can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// It is no BTF, or ends early.
    #[error("broken type information: {0}")]
    Broken(&'static str),
    /// There is no such type or member.
    #[error("the kernel's type information has no {0}")]
    Absent(String),
}

/// Type information of the kernel, or of a module on top of it.
#[derive(Debug)]
pub struct Btf<'a> {
    bytes: Vec<u8>,
    /// Position of each type.
    types: Vec<u32>,
    strings: (usize, usize),
    base: Option<&'a Btf<'a>>,
}

/// The head of a type.
#[derive(Clone, Copy)]
struct Head {
    name: u32,
    kind: u8,
    count: usize,
    is_flagged: bool,
    /// Size, or the type that it refers to.
    refers: u32,
    /// Position behind the head.
    rest: usize,
}

impl<'a> Btf<'a> {
    /// Reads where the types are.
    ///
    /// # Errors
    /// [`BtfError::Broken`].
    pub fn parse(bytes: Vec<u8>, base: Option<&'a Btf<'a>>) -> Result<Self, BtfError> {
        let field = |at| word(&bytes, at).ok_or(BtfError::Broken("short header"));
        if bytes.get(..2) != Some(&MAGIC.to_le_bytes()) {
            return Err(BtfError::Broken("another magic number"));
        }
        let header = field(4)? as usize;
        if header < HEADER {
            return Err(BtfError::Broken("short header"));
        }
        let section = |offset, length| {
            let start = header.checked_add(offset as usize)?;
            let end = start.checked_add(length as usize)?;
            (end <= bytes.len()).then_some((start, end))
        };
        let beyond = BtfError::Broken("a section is not in the file");
        let (start, end) = section(field(8)?, field(12)?).ok_or_else(|| beyond.clone())?;
        let strings = section(field(16)?, field(20)?).ok_or(beyond)?;
        let mut types = Vec::with_capacity((end - start) / 24);
        let mut at = start;
        while at < end {
            let head = head(&bytes, at).ok_or(BtfError::Broken("a type ends early"))?;
            types.push(u32::try_from(at).map_err(|_| BtfError::Broken("too long"))?);
            at = head.rest + tail(&head).ok_or(BtfError::Broken("a type of unknown kind"))?;
        }
        if at != end {
            return Err(BtfError::Broken("the last type ends early"));
        }
        Ok(Self { bytes, types, strings, base })
    }

    /// Ids of the types of these kinds and names; what is not there is left out.
    pub fn find<'n>(&self, wanted: &[(BtfKind, &'n str)]) -> HashMap<&'n str, u32> {
        let mut found = HashMap::new();
        let first = self.first();
        for (&at, id) in self.types.iter().zip(first..) {
            let Some(head) = head(&self.bytes, at as usize) else { continue };
            if !matches!(head.kind, 4 | 8 | 12 | 14) || head.name == 0 {
                continue;
            }
            let Some(name) = self.name(head.name) else { continue };
            let hit = wanted.iter().find(|(kind, wanted)| *kind as u8 == head.kind && wanted.as_bytes() == name);
            if let Some((_, wanted)) = hit {
                found.entry(*wanted).or_insert(id);
            }
        }
        found
    }

    /// Offset of a member in bytes: `ns.inum` of `net`. Anonymous structures are looked through.
    ///
    /// # Errors
    /// [`BtfError::Absent`].
    pub fn offset(&self, of: u32, path: &str) -> Result<u32, BtfError> {
        let mut at = of;
        let mut bits = 0;
        for part in path.split('.') {
            let absent = || BtfError::Absent(format!("member {path}"));
            let (offset, next) = self.member(at, part, DEPTH).ok_or_else(absent)?;
            bits += offset;
            at = next;
        }
        Ok(bits / 8)
    }

    /// Registers, or words on the stack, that a function's arguments take: a tracing program finds the result behind them. `None`
    /// for what is no function, or takes any number of arguments.
    pub fn argument_slots(&self, function: u32) -> Option<u32> {
        let (_, function) = self.plain(function, DEPTH)?;
        let (btf, prototype) = self.plain(function.refers, DEPTH)?;
        if function.kind != BtfKind::Function as u8 || prototype.kind != PROTOTYPE {
            return None;
        }
        let slots = |number: usize| {
            let (_, kind) = self.plain(word(&btf.bytes, prototype.rest + 8 * number + 4)?, DEPTH)?;
            Some(if matches!(kind.kind, 4 | UNION) { kind.refers.div_ceil(8) } else { 1 })
        };
        (0..prototype.count).map(slots).sum()
    }

    fn member(&self, of: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        let (btf, head) = self.plain(of, depth)?;
        if !matches!(head.kind, 4 | UNION) {
            return None;
        }
        for number in 0..head.count {
            let at = head.rest + 12 * number;
            let (label, kind, offset) = (word(&btf.bytes, at)?, word(&btf.bytes, at + 4)?, word(&btf.bytes, at + 8)?);
            let bits = if head.is_flagged { offset & 0x00ff_ffff } else { offset };
            if self.name(label)? == name.as_bytes() && label != 0 {
                return Some((bits, kind));
            }
            if label == 0
                && depth > 0
                && let Some((inner, kind)) = self.member(kind, name, depth - 1)
            {
                return Some((bits + inner, kind));
            }
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn plain(&self, id: u32, depth: u32) -> Option<(&Self, Head)> {
        let mut id = id;
        for _ in 0..=depth {
            let first = self.first();
            let (btf, index) = match self.base {
                Some(base) if id < first => (base, id.checked_sub(1)?),
                _ => (self, id.checked_sub(first)?),
            };
            let head = head(&btf.bytes, *btf.types.get(index as usize)? as usize)?;
            match head.kind {
                // typedef, volatile, const, restrict, type tag
                8..=11 | 18 => id = head.refers,
                _ => return Some((btf, head)),
            }
        }
        None
    }

    /// Id of the first type: 0 is void.
    fn first(&self) -> u32 {
        1 + self.base.map_or(0, |base| base.types.len() as u32)
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let (start, end) = self.strings;
        let own = match self.base {
            Some(base) => {
                let length = (base.strings.1 - base.strings.0) as u32;
                match offset.checked_sub(length) {
                    Some(own) => own,
                    None => return base.name(offset),
                }
            }
            None => offset,
        };
        let text = self.bytes.get(start + own as usize..end)?;
        text.split(|byte| *byte == 0).next()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn head(bytes: &[u8], at: usize) -> Option<Head> {
    let info = word(bytes, at + 4)?;
    Some(Head {
        name: word(bytes, at)?,
        kind: (info >> 24 & 31) as u8,
        count: (info & 0xffff) as usize,
        is_flagged: info >> 31 != 0,
        refers: word(bytes, at + 8)?,
        rest: at + 12,
    })
}

/// Bytes behind a type's head.
const fn tail(head: &Head) -> Option<usize> {
    Some(match head.kind {
        // pointer, forward, typedef, volatile, const, restrict, function, float, type tag
        2 | 7..=12 | 16 | 18 => 0,
        // integer, variable, declaration tag
        1 | 14 | 17 => 4,
        // array
        3 => 12,
        4 | 5 | 15 | 19 => 12 * head.count,
        // enum, parameters of a function
        6 | 13 => 8 * head.count,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Made {
        types: Vec<u8>,
        strings: Vec<u8>,
        known: u32,
    }

    impl Made {
        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32 + self.known;
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        fn push(&mut self, name: &str, kind: u32, count: u32, refers: u32, rest: &[u32]) {
            let name = self.name(name);
            for number in [name, kind << 24 | count, refers].into_iter().chain(rest.iter().copied()) {
                self.types.extend(number.to_le_bytes());
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let lengths =
                [HEADER as u32, 0, self.types.len() as u32, self.types.len() as u32, self.strings.len() as u32];
            let mut bytes = vec![0x9f, 0xeb, 1, 0];
            bytes.extend(lengths.iter().flat_map(|number| number.to_le_bytes()));
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }
    }

    /// `struct inner { int a; int inum; }; typedef struct inner inner_t; struct net { int x; union { inner_t ns; }; };
    /// int f(); `
    fn kernel() -> Vec<u8> {
        let mut made = Made { types: Vec::new(), strings: vec![0], known: 0 };
        made.push("int", 1, 0, 4, &[32]);
        let (a, inum) = (made.name("a"), made.name("inum"));
        made.push("inner", 4, 2, 8, &[a, 1, 0, inum, 1, 32]);
        made.push("inner_t", 8, 0, 2, &[]);
        let ns = made.name("ns");
        made.push("", 5, 1, 8, &[ns, 3, 0]);
        let x = made.name("x");
        made.push("net", 4, 2, 12, &[x, 1, 0, 0, 4, 32]);
        made.push("", 13, 0, 1, &[]);
        made.push("f", 12, 0, 6, &[]);
        made.bytes()
    }

    #[test]
    fn members_are_found_through_typedefs_and_anonymous_unions() {
        let btf = Btf::parse(kernel(), None).unwrap();
        let found = btf.find(&[(BtfKind::Struct, "net"), (BtfKind::Function, "f"), (BtfKind::Function, "net")]);
        assert_eq!((found.get("net"), found.get("f")), (Some(&5), Some(&7)));
        assert_eq!(btf.offset(5, "ns.inum"), Ok(8));
        assert_eq!(btf.offset(5, "x"), Ok(0));
        assert_eq!(
            btf.offset(5, "ns.gone").unwrap_err().to_string(),
            "the kernel's type information has no member ns.gone"
        );
    }

    /// `struct net` by value takes two slots.
    #[test]
    fn a_structure_that_is_passed_by_value_takes_several_slots() {
        let base = Btf::parse(kernel(), None).unwrap();
        assert_eq!(base.argument_slots(7), Some(0));
        assert_eq!(base.argument_slots(5), None, "a structure is no function");
        let mut made = Made { types: Vec::new(), strings: Vec::new(), known: (base.strings.1 - base.strings.0) as u32 };
        made.push("", 13, 3, 1, &[0, 1, 0, 5, 0, 3]);
        made.push("g", 12, 0, 8, &[]);
        made.push("", 13, 2, 1, &[0, 1, 0, 0]);
        made.push("printk", 12, 0, 10, &[]);
        let module = Btf::parse(made.bytes(), Some(&base)).unwrap();
        assert_eq!((module.argument_slots(9), module.argument_slots(11)), (Some(4), None));
    }

    #[test]
    fn a_modules_types_continue_the_kernels() {
        let base = Btf::parse(kernel(), None).unwrap();
        let mut made = Made { types: Vec::new(), strings: Vec::new(), known: (base.strings.1 - base.strings.0) as u32 };
        let filter = made.name("filter");
        made.push("cls_bpf_prog", 4, 1, 16, &[filter, 2, 64]);
        made.push("cls_bpf_get", 12, 0, 6, &[]);
        let module = Btf::parse(made.bytes(), Some(&base)).unwrap();
        let found = module.find(&[(BtfKind::Struct, "cls_bpf_prog"), (BtfKind::Function, "cls_bpf_get")]);
        assert_eq!((found["cls_bpf_prog"], found["cls_bpf_get"]), (8, 9));
        assert_eq!(module.offset(8, "filter.inum"), Ok(12));
    }

    #[test]
    fn broken_information_is_refused() {
        let whole = kernel();
        assert!(Btf::parse(Vec::new(), None).is_err());
        for length in 0..whole.len() {
            // A shorter one may end where the strings do not matter; none may panic.
            let _ = Btf::parse(whole[..length].to_vec(), None);
        }
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            if let Ok(btf) = Btf::parse(bytes, None) {
                let found = btf.find(&[(BtfKind::Struct, "net")]);
                let _ = found.get("net").map(|id| btf.offset(*id, "ns.inum"));
            }
        }
    }
}
