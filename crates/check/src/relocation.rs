//! CO-RE relocations, resolved against a kernel's type information as libbpf does it (src/relo_core.c of libbpf 1.7).

use crate::btf::{Type, TypeTable, essential, kind};

/// Types that lead to each other, at most (`bpf_core_types_are_compat`).
const DEPTH: u32 = 32;
/// Steps of an access, at most (`BPF_CORE_SPEC_MAX_LEN`).
const STEPS: usize = 64;

/// `enum bpf_core_relo_kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelocationKind {
    /// Offset, size, signedness or shifts of a field.
    Field,
    FieldExists,
    TypeIdLocal,
    TypeExists,
    /// A number or a size, which is 0 where the type is absent.
    TypeValue,
    /// A comparison that is not made here.
    TypeMatches,
    EnumExists,
    EnumValue,
}

impl RelocationKind {
    fn of(number: u32) -> Option<Self> {
        Some(match number {
            0 | 1 | 3 | 4 | 5 => Self::Field,
            2 => Self::FieldExists,
            6 => Self::TypeIdLocal,
            7 | 9 => Self::TypeValue,
            8 => Self::TypeExists,
            10 => Self::EnumExists,
            11 => Self::EnumValue,
            12 => Self::TypeMatches,
            _ => return None,
        })
    }
}

/// A relocation of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreRelocation {
    /// The instruction's number in its section.
    pub instruction: usize,
    /// The type, in the object's type information.
    pub root: u32,
    /// `0:1:2`: the path to a field, or the number of an enumerator.
    pub access: Vec<u32>,
    pub kind: RelocationKind,
}

/// What libbpf makes of an instruction with a relocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolved {
    /// A question, with its answer.
    Answer(bool),
    /// A value that does not matter here.
    Value,
    /// The instruction is replaced by a call that the verifier refuses.
    Poisoned,
    /// A module's type information may have the type, or the comparison is not made here.
    Unknown,
}

/// The relocations of an object by section. `None` for what is not understood.
pub fn relocations(btf: &TypeTable<'_>, ext: &[u8]) -> Option<Vec<(Vec<u8>, Vec<CoreRelocation>)>> {
    let word = |at: usize| Some(u32::from_le_bytes(ext.get(at..at.checked_add(4)?)?.try_into().ok()?));
    // struct btf_ext_header: what is beyond 24 bytes came with CO-RE.
    let header = word(4)? as usize;
    if header < 32 {
        return Some(Vec::new());
    }
    let (start, length) = (header.checked_add(word(24)? as usize)?, word(28)? as usize);
    let end = start.checked_add(length)?;
    ext.get(start..end)?;
    let mut all = Vec::new();
    if length == 0 {
        return Some(all);
    }
    let size = word(start)? as usize;
    if size < 16 {
        return None;
    }
    let mut at = start + 4;
    while at < end {
        let (name, count) = (btf.text(word(at)?), word(at + 4)? as usize);
        at += 8;
        ext.get(at..at.checked_add(size.checked_mul(count)?)?)?;
        let one = |number: usize| {
            let at = at + number * size;
            let path = std::str::from_utf8(btf.text(word(at + 8)?)).ok()?;
            Some(CoreRelocation {
                instruction: word(at)? as usize / 8,
                root: word(at + 4)?,
                access: path.split(':').map(|step| step.parse().ok()).collect::<Option<_>>()?,
                kind: RelocationKind::of(word(at + 12)?)?,
            })
        };
        all.push((name.to_vec(), (0..count).map(one).collect::<Option<_>>()?));
        at += size * count;
    }
    Some(all)
}

/// One step of an access: a named member of a struct, or an element.
struct Step<'a> {
    of: u32,
    index: u32,
    name: Option<&'a [u8]>,
}

fn alike(one: Type<'_>, other: Type<'_>) -> bool {
    one.kind == other.kind || one.is_enum() && other.is_enum()
}

/// An object's type information beside a kernel's.
#[derive(Clone, Copy)]
pub struct Matcher<'a> {
    pub local: &'a TypeTable<'a>,
    pub kernel: &'a TypeTable<'a>,
}

impl<'a> Matcher<'a> {
    /// What becomes of the instruction. `None` where libbpf refuses the object's relocation, or this code does not understand it.
    pub fn resolve(self, relocation: &CoreRelocation) -> Option<Resolved> {
        use RelocationKind as K;
        let root = self.local.get(relocation.root)?;
        let name = essential(self.local.name(root));
        match relocation.kind {
            K::TypeIdLocal => return Some(Resolved::Value),
            _ if name.is_empty() => return None,
            K::TypeMatches => return Some(Resolved::Unknown),
            _ => {}
        }
        let is_candidate = |id: &&u32| self.kernel.get(**id).is_some_and(|it| alike(root, it));
        let candidates: Vec<u32> = self.kernel.named(name).iter().filter(is_candidate).copied().collect();
        if candidates.is_empty() {
            // libbpf asks the modules that are loaded.
            return Some(Resolved::Unknown);
        }
        Some(match relocation.kind {
            K::TypeExists | K::TypeValue => {
                let exists = candidates.iter().any(|id| self.types_fit(relocation.root, *id, DEPTH) == Some(true));
                if relocation.kind == K::TypeExists { Resolved::Answer(exists) } else { Resolved::Value }
            }
            K::EnumExists | K::EnumValue => {
                let (_, local) = self.local.plain(relocation.root)?;
                let (wanted, _) = *self.local.values(local).get(*relocation.access.first()? as usize)?;
                let has = |id: &u32| {
                    let found = self.kernel.plain(*id).map(|(_, found)| self.kernel.values(found)).unwrap_or_default();
                    found.iter().any(|(name, _)| essential(name) == essential(wanted))
                };
                match (relocation.kind, candidates.iter().any(has)) {
                    (K::EnumExists, exists) => Resolved::Answer(exists),
                    (_, true) => Resolved::Value,
                    (_, false) => Resolved::Poisoned,
                }
            }
            _ => {
                let steps = self.steps(relocation)?;
                let mut exists = false;
                for id in candidates {
                    exists |= self.has_field(&steps, id)?;
                }
                match (relocation.kind, exists) {
                    (K::FieldExists, exists) => Resolved::Answer(exists),
                    (_, true) => Resolved::Value,
                    (_, false) => Resolved::Poisoned,
                }
            }
        })
    }

    /// The path of a relocation by names (`bpf_core_parse_spec`).
    fn steps(self, relocation: &CoreRelocation) -> Option<Vec<Step<'a>>> {
        let (mut id, _) = self.local.plain(relocation.root)?;
        let (first, rest) = relocation.access.split_first()?;
        let mut steps = vec![Step { of: id, index: *first, name: None }];
        for index in rest.iter().take(STEPS) {
            let (of, found) = self.local.plain(id)?;
            if found.is_composite() {
                let member = *self.local.members(found).get(*index as usize)?;
                if !member.name.is_empty() {
                    steps.push(Step { of, index: *index, name: Some(member.name) });
                }
                id = member.kind;
            } else {
                let (element, _) = found.array()?;
                id = self.local.plain(element)?.0;
                steps.push(Step { of: id, index: *index, name: None });
            }
        }
        Some(steps)
    }

    /// Whether a type of the kernel has the field (`bpf_core_spec_match`).
    fn has_field(self, steps: &[Step<'a>], candidate: u32) -> Option<bool> {
        let (mut id, mut last) = (candidate, None);
        for (number, step) in steps.iter().enumerate() {
            let (plain, found) = self.kernel.plain(id)?;
            if step.name.is_some() {
                let Some((member, place)) = self.member(step, plain, DEPTH)? else { return Some(false) };
                (id, last) = (member, Some(place));
            } else if number > 0 {
                let Some((element, count)) = found.array() else { return Some(false) };
                // The last member of a struct may have any number of elements (`is_flex_arr`).
                let is_flexible = count == 0 && last == Some(true);
                if !is_flexible && step.index >= count {
                    return Some(false);
                }
                (id, last) = (self.kernel.plain(element)?.0, None);
            }
        }
        Some(true)
    }

    /// The type of a member of that name, also within members without names, and whether it is the last of its struct; `None`
    /// within if there is none or one of another kind (`bpf_core_match_member`).
    #[expect(clippy::option_option, reason = "the outer one is broken type information")]
    fn member(self, step: &Step<'a>, id: u32, depth: u32) -> Option<Option<(u32, bool)>> {
        let (_, found) = self.kernel.plain(id)?;
        if depth == 0 || !found.is_composite() {
            return Some(None);
        }
        let local = *self.local.members(self.local.get(step.of)?).get(step.index as usize)?;
        let members = self.kernel.members(found);
        for (number, member) in members.iter().enumerate() {
            if member.name.is_empty() {
                if let Some(found) = self.member(step, member.kind, depth - 1)? {
                    return Some(Some(found));
                }
            } else if Some(member.name) == step.name {
                let fits = self.fields_fit(local.kind, member.kind)?;
                return Some(fits.then_some((member.kind, number + 1 == members.len())));
            }
        }
        Some(None)
    }

    /// `bpf_core_fields_are_compat`.
    fn fields_fit(self, mut local: u32, mut kernel: u32) -> Option<bool> {
        for _ in 0..DEPTH {
            let ((_, one), (_, other)) = (self.local.plain(local)?, self.kernel.plain(kernel)?);
            if one.is_composite() && other.is_composite() {
                return Some(true);
            }
            if !alike(one, other) {
                return Some(false);
            }
            match one.kind {
                kind::PTR | kind::FLOAT => return Some(true),
                kind::FWD | kind::ENUM | kind::ENUM64 => {
                    let (one, other) = (essential(self.local.name(one)), essential(self.kernel.name(other)));
                    return Some(one.is_empty() || other.is_empty() || one == other);
                }
                kind::INT => return Some(one.int_offset() == 0 && other.int_offset() == 0),
                kind::ARRAY => (local, kernel) = (one.array()?.0, other.array()?.0),
                _ => return Some(false),
            }
        }
        None
    }

    /// `bpf_core_types_are_compat`, also for the prototypes of kfuncs. `None` where libbpf gives up.
    pub fn types_fit(self, mut local: u32, mut kernel: u32, level: u32) -> Option<bool> {
        if !alike(self.local.get(local)?, self.kernel.get(kernel)?) {
            return Some(false);
        }
        for _ in 0..DEPTH {
            let ((_, one), (_, other)) = (self.local.plain(local)?, self.kernel.plain(kernel)?);
            if !alike(one, other) {
                return Some(false);
            }
            match one.kind {
                kind::VOID | kind::STRUCT | kind::UNION | kind::ENUM | kind::FWD | kind::ENUM64 => return Some(true),
                kind::INT => return Some(one.int_offset() == 0 && other.int_offset() == 0),
                kind::PTR => (local, kernel) = (one.target(), other.target()),
                kind::ARRAY => (local, kernel) = (one.array()?.0, other.array()?.0),
                kind::FUNC_PROTO => {
                    let (ones, others) = (one.parameters(), other.parameters());
                    if ones.len() != others.len() {
                        return Some(false);
                    }
                    for (one, other) in ones.iter().zip(&others) {
                        let level = level.checked_sub(1)?;
                        let (one, other) = (self.local.plain(*one)?.0, self.kernel.plain(*other)?.0);
                        if !self.types_fit(one, other, level)? {
                            return Some(false);
                        }
                    }
                    (local, kernel) = (self.local.plain(one.target())?.0, self.kernel.plain(other.target())?.0);
                }
                _ => return Some(false),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf::tests::Written;

    fn object(change: impl FnOnce(&mut Written) -> u32) -> (Vec<u8>, u32) {
        let mut written = Written::default();
        let id = change(&mut written);
        (written.bytes(), id)
    }

    fn resolve(local: &(Vec<u8>, u32), kernel: &[u8], access: &[u32], kind: u32) -> Option<Resolved> {
        let (local_btf, kernel) = (TypeTable::read(&local.0).unwrap(), TypeTable::read(kernel).unwrap());
        let kind = RelocationKind::of(kind).unwrap();
        let relocation = CoreRelocation { instruction: 0, root: local.1, access: access.to_vec(), kind };
        Matcher { local: &local_btf, kernel: &kernel }.resolve(&relocation)
    }

    #[test]
    fn fields_are_matched_by_name_through_members_without_names() {
        let (kernel, _) = object(|written| {
            let int = written.int();
            let inner = written.structure("", &[("deep", int)]);
            let other = written.structure("other", &[("x", int)]);
            written.structure("task", &[("pid", int), ("", inner), ("thing", other)])
        });
        let local = |name: &'static str, member: &'static str| {
            object(move |written| {
                let int = written.int();
                written.structure(name, &[(member, int)])
            })
        };
        for (name, member, wanted) in [
            ("task", "pid", Resolved::Value),
            ("task___flavour", "deep", Resolved::Value),
            ("task", "gone", Resolved::Poisoned),
            // An int is no struct.
            ("task", "thing", Resolved::Poisoned),
            ("nowhere", "pid", Resolved::Unknown),
        ] {
            assert_eq!(resolve(&local(name, member), &kernel, &[0, 0], 0), Some(wanted), "{name}.{member}");
        }
        assert_eq!(resolve(&local("task", "gone"), &kernel, &[0, 0], 2), Some(Resolved::Answer(false)));
        assert_eq!(resolve(&local("task", "pid"), &kernel, &[0, 0], 2), Some(Resolved::Answer(true)));
        assert_eq!(resolve(&local("task", "pid"), &kernel, &[0, 9], 0), None, "no such member in the object itself");
        assert_eq!(resolve(&local("task", "pid"), &kernel, &[0], 8), Some(Resolved::Answer(true)));
    }

    #[test]
    fn enumerators_and_array_elements_are_matched() {
        let (kernel, _) = object(|written| {
            let int = written.int();
            let three = written.add("", kind::ARRAY, 0, 0, &[int, int, 3]);
            written.enumeration("bpf_func_id", &[("BPF_FUNC_new", 9)]);
            written.structure("holder", &[("values", three)])
        });
        let local =
            object(|written| written.enumeration("bpf_func_id", &[("BPF_FUNC_new___x", 1), ("BPF_FUNC_no", 2)]));
        assert_eq!(resolve(&local, &kernel, &[0], 10), Some(Resolved::Answer(true)));
        assert_eq!(resolve(&local, &kernel, &[1], 10), Some(Resolved::Answer(false)));
        assert_eq!(resolve(&local, &kernel, &[1], 11), Some(Resolved::Poisoned));
        let holder = object(|written| {
            let int = written.int();
            let ten = written.add("", kind::ARRAY, 0, 0, &[int, int, 10]);
            written.structure("holder", &[("values", ten)])
        });
        assert_eq!(resolve(&holder, &kernel, &[0, 0, 2], 0), Some(Resolved::Value));
        assert_eq!(resolve(&holder, &kernel, &[0, 0, 3], 0), Some(Resolved::Poisoned));
    }

    #[test]
    fn prototypes_fit_where_kinds_and_numbers_of_parameters_do() {
        let (kernel, kernel_id) = object(|written| {
            let int = written.int();
            let pointer = written.add("", kind::PTR, 0, int, &[]);
            written.add("", kind::FUNC_PROTO, 2, int, &[0, pointer, 0, int])
        });
        let fits = |count: usize, of_pointer: bool| {
            let (local, id) = object(|written| {
                let int = written.int();
                let pointer = written.add("", kind::PTR, 0, int, &[]);
                let first = if of_pointer { pointer } else { int };
                let parameters = [0, first, 0, int];
                written.add("", kind::FUNC_PROTO, count as u32, int, &parameters[..2 * count])
            });
            let (local, kernel) = (TypeTable::read(&local).unwrap(), TypeTable::read(&kernel).unwrap());
            Matcher { local: &local, kernel: &kernel }.types_fit(id, kernel_id, DEPTH)
        };
        assert_eq!([fits(2, true), fits(1, true), fits(2, false)], [Some(true), Some(false), Some(false)]);
    }
}
