//! Hints from the byte code: best effort, and told as such.

use crate::code::{CodeProgram, Instruction, ObjectCode};
use std::collections::BTreeSet;

/// Offset of `ifindex` in `struct __sk_buff` (include/uapi/linux/bpf.h).
const IFINDEX: i16 = 40;
/// `bpf_map_lookup_elem`, `bpf_map_update_elem`, `bpf_map_delete_elem`.
const MAP_HELPERS: [i32; 3] = [1, 2, 3];
/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
const FRAME: usize = 10;
const REGISTERS: usize = 11;

/// What a register has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Other,
    Context,
    Ifindex,
    /// An address on the stack.
    Stack(i32),
}

/// Programs that read `skb->ifindex` and use it as a map's key. The instructions are read from the first to the last, without regard
/// to jumps.
pub fn ifindex_keys(code: &ObjectCode) -> Vec<&str> {
    code.programs.iter().filter(|program| is_keyed(code, program)).map(|program| &*program.name).collect()
}

fn is_keyed(code: &ObjectCode, program: &CodeProgram) -> bool {
    let Some(section) = code.sections.get(&program.place.0) else { return false };
    let next = code.programs.iter().map(|other| other.place).filter(|place| *place > program.place).min();
    let end = next.filter(|place| place.0 == program.place.0).map_or(section.instructions.len(), |place| place.1);
    let mut registers = [Held::Other; REGISTERS];
    (registers[1], registers[FRAME]) = (Held::Context, Held::Stack(0));
    let mut slots: BTreeSet<i32> = BTreeSet::new();
    for instruction in section.instructions.get(program.place.1..end).unwrap_or_default() {
        let Instruction { code, to, from, offset, number } = *instruction;
        let (to, from) = (to as usize, from as usize);
        if to >= REGISTERS || from >= REGISTERS {
            return false;
        }
        match code {
            CALL => {
                if from == 0
                    && MAP_HELPERS.contains(&number)
                    && matches!(registers[2], Held::Stack(at) if slots.contains(&at))
                {
                    return true;
                }
                registers[..6].fill(Held::Other);
            }
            // A load of four bytes, a store of four bytes, moves, and an addition to an address.
            0x61 if registers[from] == Held::Context && offset == IFINDEX => registers[to] = Held::Ifindex,
            0x63 => {
                if let Held::Stack(base) = registers[to] {
                    let at = base + i32::from(offset);
                    if registers[from] == Held::Ifindex {
                        slots.insert(at)
                    } else {
                        slots.remove(&at)
                    };
                }
            }
            0xbc | 0xbf if offset == 0 => registers[to] = registers[from],
            0x07 => {
                registers[to] = match registers[to] {
                    Held::Stack(base) => base.checked_add(number).map_or(Held::Other, Held::Stack),
                    _ => Held::Other,
                }
            }
            // Stores and jumps leave the registers as they are.
            _ if matches!(code & 7, 2 | 3 | 5 | 6) => {}
            _ => registers[to] = Held::Other,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeSection;
    use std::collections::BTreeMap;

    fn object(helper: i32, key: u8) -> ObjectCode {
        let op = |code, to, from, offset, number| Instruction { code, to, from, offset, number };
        let instructions = vec![
            op(0x61, 3, 1, IFINDEX, 0),
            op(0x61, 4, 1, 0, 0),
            op(0x63, 10, key, -4, 0),
            op(0xbf, 2, 10, 0, 0),
            op(0x07, 2, 0, 0, -4),
            op(CALL, 0, 0, 0, helper),
            op(0x95, 0, 0, 0, 0),
        ];
        ObjectCode {
            sections: BTreeMap::from([(1, CodeSection { instructions, ..CodeSection::default() })]),
            programs: vec![CodeProgram { name: "main".to_owned(), place: (1, 0) }],
            ..ObjectCode::default()
        }
    }

    #[test]
    fn the_device_as_a_key_is_told_and_other_keys_and_helpers_are_not() {
        assert_eq!(ifindex_keys(&object(2, 3)), ["main"]);
        assert!(ifindex_keys(&object(2, 4)).is_empty(), "the key is another field");
        assert!(ifindex_keys(&object(26, 3)).is_empty(), "no helper for maps");
    }
}
