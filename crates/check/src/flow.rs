//! Which instructions of a program the verifier must look at, and which it may.
//!
//! The verifier follows both ways of a jump unless it knows the outcome. So what is behind a jump is certain to be looked at only
//! where the outcome can't be known: a comparison of a byte of the packet, of a field of the context, of what a helper returned. It
//! is certain not to be looked at where the answer of a CO-RE question decides. Everything else is open.

use crate::code::{CodePlace, CodeTarget, Instruction, ObjectCode};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// States of a program that are followed, at most.
const MOST: usize = 100_000;
const REGISTERS: usize = 11;
/// `BPF_JMP | BPF_CALL`, `| BPF_EXIT`, and `BPF_LD | BPF_IMM | BPF_DW`.
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const LOAD_LONG: u8 = 0x18;
/// Helpers whose result is any number or any pointer, `NULL` included, as far as the verifier knows. Not among them is
/// `bpf_map_lookup_elem`, of whose result kernels from 6.14 on know for arrays that it is a pointer.
const ANY_RESULT: [i32; 25] =
    [2, 3, 5, 7, 9, 10, 11, 13, 18, 19, 20, 21, 26, 28, 31, 32, 38, 39, 43, 44, 50, 54, 69, 84, 85];

/// What an instruction becomes on a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEffect {
    /// The verifier refuses it.
    Refused(usize),
    /// It loads this number.
    Number(i64),
    /// It loads an address that is not null.
    Address,
    /// It loads a number that is not known here.
    Unknown,
}

/// Effects by place; what is not among them is as it is in the object.
pub type KernelEffects = BTreeMap<CodePlace, KernelEffect>;

/// The context of a program: where it has the packet's addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Context {
    /// `struct __sk_buff`.
    Skb,
    /// `struct xdp_md`.
    Xdp,
    /// Another.
    Other,
}

impl Context {
    /// Offsets of `data` and `data_end`.
    const fn packet(self) -> Option<(i16, i16)> {
        match self {
            Self::Skb => Some((76, 80)),
            Self::Xdp => Some((0, 4)),
            Self::Other => None,
        }
    }
}

/// What is known of a register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Value {
    /// Nothing that helps.
    Open,
    Context,
    Number(i64),
    Address,
    /// A number of so many bytes that was compared with nothing; 0 bytes for what a helper returned.
    Any {
        id: u32,
        bytes: u8,
    },
    Packet,
    PacketEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    place: CodePlace,
    registers: [Value; REGISTERS],
    /// Whether the packet's length was compared.
    is_measured: bool,
}

/// How a jump ends.
enum Outcome {
    Known(bool),
    /// The verifier can't know: both ways.
    Both,
    Open,
}

/// Refused instructions that are looked at: by number of their cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Looked {
    pub certain: BTreeSet<usize>,
    pub possible: BTreeSet<usize>,
}

/// A walk through a program.
struct Walk<'a> {
    code: &'a ObjectCode,
    effects: &'a KernelEffects,
    context: Context,
    is_certain: bool,
    todo: Vec<State>,
    seen: HashSet<State>,
    /// States that are followed, at most.
    most: usize,
    found: BTreeSet<usize>,
}

/// Walks through a program. `budget` is what the object may still take, in states.
pub fn looked_at(
    code: &ObjectCode,
    effects: &KernelEffects,
    context: Context,
    start: CodePlace,
    budget: &mut usize,
) -> Looked {
    let mut walk = |is_certain| {
        let mut walk = Walk {
            code,
            effects,
            context,
            is_certain,
            todo: Vec::new(),
            seen: HashSet::new(),
            most: MOST.min(*budget),
            found: BTreeSet::new(),
        };
        let mut registers = [Value::Open; REGISTERS];
        registers[1] = Value::Context;
        walk.push(State { place: start, registers, is_measured: false });
        let is_whole = walk.run();
        *budget = budget.saturating_sub(walk.seen.len());
        (walk.found, is_whole)
    };
    let (certain, _) = walk(true);
    let (mut possible, is_whole) = walk(false);
    if !is_whole {
        possible.extend(effects.values().filter_map(|effect| match effect {
            KernelEffect::Refused(cause) => Some(*cause),
            _ => None,
        }));
    }
    Looked { certain, possible }
}

impl Walk<'_> {
    fn push(&mut self, state: State) {
        if self.seen.len() < self.most && self.seen.insert(state.clone()) {
            self.todo.push(state);
        }
    }

    /// Returns whether everything was followed.
    fn run(&mut self) -> bool {
        while let Some(state) = self.todo.pop() {
            self.step(state);
        }
        self.seen.len() < self.most
    }

    fn step(&mut self, mut state: State) {
        let Some(instruction) = self.code.at(state.place) else { return };
        let effect = self.effects.get(&state.place);
        if let Some(KernelEffect::Refused(cause)) = effect {
            self.found.insert(*cause);
            return;
        }
        let to = instruction.to as usize;
        if to >= REGISTERS || instruction.from as usize >= REGISTERS {
            return;
        }
        let next = |state: State, by: i64| {
            let at = i64::try_from(state.place.1).ok()?.checked_add(by)?;
            Some(State { place: (state.place.0, usize::try_from(at).ok()?), ..state })
        };
        let value = match effect {
            Some(KernelEffect::Number(number)) => Some(Value::Number(*number)),
            Some(KernelEffect::Address) => Some(Value::Address),
            Some(KernelEffect::Unknown) => Some(Value::Open),
            _ => None,
        };
        let mut length = 1;
        match (instruction.code, instruction.code & 7) {
            (LOAD_LONG, _) => {
                state.registers[to] = value.unwrap_or_else(|| self.long(state.place, instruction));
                // A function that is called back.
                if let Some(CodeTarget::Code(callee)) = self.code.target(state.place)
                    && !self.is_certain
                {
                    let registers = [Value::Open; REGISTERS];
                    self.push(State { place: *callee, registers, is_measured: true });
                }
                length = 2;
            }
            (EXIT, _) => return,
            (CALL, _) => self.call(&mut state, instruction),
            (_, 5 | 6) => return self.jump(state, instruction),
            (_, 1) => state.registers[to] = value.unwrap_or_else(|| self.loaded(&state, instruction)),
            (_, 4 | 7) => state.registers[to] = value.unwrap_or_else(|| arithmetic(&state, instruction)),
            // Packet accesses of classic BPF, and atomic operations, which write to their source.
            (_, 0) => state.registers[..6].fill(Value::Open),
            (_, 3) if instruction.code & 0xe0 == 0xc0 => {
                state.registers[0] = Value::Open;
                state.registers[instruction.from as usize] = Value::Open;
            }
            _ => {}
        }
        if let Some(state) = next(state, length) {
            self.push(state);
        }
    }

    fn long(&self, place: CodePlace, instruction: Instruction) -> Value {
        if self.code.target(place).is_some() {
            return Value::Open;
        }
        let high = self.code.at((place.0, place.1 + 1)).map_or(0, |second| second.number);
        Value::Number(i64::from(high) << 32 | i64::from(instruction.number.cast_unsigned()))
    }

    /// A load from memory.
    fn loaded(&self, state: &State, instruction: Instruction) -> Value {
        let bytes = match instruction.code & 0x18 {
            0 => 4,
            0x08 => 2,
            0x10 => 1,
            _ => 8,
        };
        // Loads with a sign, and atomic ones, are other numbers.
        if instruction.code & 0xe0 != 0x60 {
            return Value::Open;
        }
        let id = state.place.1 as u32;
        match (state.registers[instruction.from as usize], self.context.packet()) {
            (Value::Packet, _) if bytes < 8 => Value::Any { id, bytes },
            (Value::Context, Some((data, _))) if instruction.offset == data => Value::Packet,
            (Value::Context, Some((_, end))) if instruction.offset == end => Value::PacketEnd,
            (Value::Context, Some(_)) if bytes == 4 => Value::Any { id, bytes },
            _ => Value::Open,
        }
    }

    fn call(&mut self, state: &mut State, instruction: Instruction) {
        let callee = match (self.code.target(state.place), instruction.from) {
            (Some(CodeTarget::Code(place)), _) => Some(*place),
            (None, 1) => {
                let at = (state.place.1 as i64).saturating_add(i64::from(instruction.number)).saturating_add(1);
                usize::try_from(at).ok().map(|at| (state.place.0, at))
            }
            _ => None,
        };
        if let Some(place) = callee {
            let mut registers = [Value::Open; REGISTERS];
            registers[1..6].copy_from_slice(&state.registers[1..6]);
            // A global function is checked for every number, not for the one that is passed.
            if self.code.globals.contains(&place) && !self.is_certain {
                let is_fixed = |value: &&mut Value| matches!(value, Value::Number(_) | Value::Address);
                registers.iter_mut().filter(is_fixed).for_each(|value| *value = Value::Open);
            }
            self.push(State { place, registers, is_measured: state.is_measured });
        }
        let is_any = callee.is_none() && instruction.from == 0 && ANY_RESULT.contains(&instruction.number);
        state.registers[0] = if is_any { Value::Any { id: state.place.1 as u32, bytes: 0 } } else { Value::Open };
        state.registers[1..6].fill(Value::Open);
        // Helpers that change the packet make its addresses invalid; new ones may have been measured or not.
        let is_packet = |value: &&mut Value| matches!(value, Value::Packet | Value::PacketEnd);
        state.registers.iter_mut().filter(is_packet).for_each(|value| *value = Value::Open);
        state.is_measured = true;
    }

    fn jump(&mut self, mut state: State, instruction: Instruction) {
        let is_short = instruction.code & 7 == 6;
        let (operation, place) = (instruction.code & 0xf0, state.place);
        let go = |state: &State, by: i64| {
            let at = (place.1 as i64).saturating_add(by).saturating_add(1);
            usize::try_from(at).ok().map(|at| State { place: (place.0, at), ..state.clone() })
        };
        let distance = i64::from(instruction.offset);
        let ways: Vec<i64> = if operation == 0 {
            vec![if is_short { i64::from(instruction.number) } else { distance }]
        } else {
            let operand = if instruction.code & 8 == 0 {
                Value::Number(i64::from(instruction.number))
            } else {
                state.registers[instruction.from as usize]
            };
            match outcome(&mut state, instruction, operand) {
                Outcome::Known(true) => vec![distance],
                Outcome::Known(false) => vec![0],
                Outcome::Open if self.is_certain => Vec::new(),
                Outcome::Both | Outcome::Open => vec![0, distance],
            }
        };
        for by in ways {
            if let Some(state) = go(&state, by) {
                self.push(state);
            }
        }
    }
}

/// How a comparison ends. What was compared is known better afterwards.
fn outcome(state: &mut State, instruction: Instruction, operand: Value) -> Outcome {
    let (operation, is_short) = (instruction.code & 0xf0, instruction.code & 7 == 6);
    let value = state.registers[instruction.to as usize];
    match (value, operand) {
        // may_goto.
        _ if operation == 0xe0 => Outcome::Both,
        (Value::Number(one), Value::Number(other)) => {
            compare(operation, is_short, one, other).map_or(Outcome::Open, Outcome::Known)
        }
        (Value::Address, Value::Number(0)) if operation == 0x10 => Outcome::Known(false),
        (Value::Address, Value::Number(0)) if operation == 0x50 => Outcome::Known(true),
        (Value::Any { id, bytes }, Value::Number(number)) => {
            let most = if bytes == 0 { 0 } else { (1i64 << (8 * u32::from(bytes).min(4))) - 2 };
            let is_open = match operation {
                // Equal, not equal.
                0x10 | 0x50 => (0..=most).contains(&number),
                // Greater, less, and bits.
                0x20 | 0x30 | 0x40 | 0xa0 | 0xb0 => (1..=most).contains(&number),
                _ => false,
            };
            let is_same = |value: &&mut Value| matches!(value, Value::Any { id: other, .. } if *other == id);
            state.registers.iter_mut().filter(is_same).for_each(|value| *value = Value::Open);
            if is_open { Outcome::Both } else { Outcome::Open }
        }
        (Value::Packet, Value::PacketEnd) | (Value::PacketEnd, Value::Packet) if !state.is_measured => {
            state.is_measured = true;
            Outcome::Both
        }
        _ => Outcome::Open,
    }
}

fn compare(operation: u8, is_short: bool, one: i64, other: i64) -> Option<bool> {
    let (one, other) = if is_short { (i64::from(one as i32), i64::from(other as i32)) } else { (one, other) };
    let (large, small) = if is_short {
        (u64::from(one as u32), u64::from(other as u32))
    } else {
        (one.cast_unsigned(), other.cast_unsigned())
    };
    Some(match operation {
        0x10 => one == other,
        0x20 => large > small,
        0x30 => large >= small,
        0x40 => one & other != 0,
        0x50 => one != other,
        0x60 => one > other,
        0x70 => one >= other,
        0xa0 => large < small,
        0xb0 => large <= small,
        0xc0 => one < other,
        0xd0 => one <= other,
        _ => return None,
    })
}

/// Arithmetic and moves.
fn arithmetic(state: &State, instruction: Instruction) -> Value {
    let is_short = instruction.code & 7 == 4;
    let before = state.registers[instruction.to as usize];
    let operand = if instruction.code & 8 == 0 {
        Value::Number(i64::from(instruction.number))
    } else {
        state.registers[instruction.from as usize]
    };
    let cut = |number: i64| if is_short { i64::from(number as u32) } else { number };
    match (instruction.code & 0xf0, before, operand) {
        // A move; one with a sign has an offset.
        (0xb0, _, Value::Number(number)) if instruction.offset == 0 => Value::Number(cut(number)),
        (0xb0, _, Value::Any { id, bytes }) if instruction.offset == 0 && (1..=4).contains(&bytes) => {
            Value::Any { id, bytes }
        }
        (0xb0, _, value) if instruction.offset == 0 && !is_short => value,
        // The order of bytes: as unknown as before.
        (0xd0, Value::Any { bytes, .. }, _) if bytes > 0 => {
            Value::Any { id: state.place.1 as u32, bytes: bytes.min((instruction.number / 8).clamp(1, 4) as u8) }
        }
        (0x00, Value::Packet, Value::Number(_)) if !is_short => Value::Packet,
        (operation, Value::Number(one), Value::Number(other)) => match operation {
            0x00 => Value::Number(cut(one.wrapping_add(other))),
            0x40 => Value::Number(cut(one | other)),
            0x50 => Value::Number(cut(one & other)),
            0xa0 => Value::Number(cut(one ^ other)),
            0x60 if !is_short => Value::Number(one.wrapping_shl(other as u32)),
            0x70 if !is_short => Value::Number((one.cast_unsigned().wrapping_shr(other as u32)).cast_signed()),
            _ => Value::Open,
        },
        _ => Value::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::CodeSection;

    fn op(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
        Instruction { code, to, from, offset, number }
    }

    fn looked(instructions: &[Instruction], effects: &[(usize, KernelEffect)]) -> Looked {
        let section = CodeSection { instructions: instructions.to_vec(), ..CodeSection::default() };
        let code = ObjectCode { sections: BTreeMap::from([(1, section)]), ..ObjectCode::default() };
        let effects = effects.iter().map(|(at, effect)| ((1, *at), effect.clone())).collect();
        looked_at(&code, &effects, Context::Skb, (1, 0), &mut 1000)
    }

    const CALLED: Instruction = Instruction { code: CALL, to: 0, from: 0, offset: 0, number: 999 };
    const END: Instruction = Instruction { code: EXIT, to: 0, from: 0, offset: 0, number: 0 };

    fn cases(found: &Looked) -> (usize, usize) {
        (found.certain.len(), found.possible.len())
    }

    #[test]
    fn what_is_behind_a_jump_is_certain_only_where_its_outcome_can_not_be_known() {
        let refused = KernelEffect::Refused(0);
        assert_eq!(cases(&looked(&[CALLED, END], &[(0, refused.clone())])), (1, 1));
        // if (skb->mark == 5) call
        let load = op(0x61, 2, 1, 8, 0);
        let field = [load, op(0x55, 2, 0, 1, 5), CALLED, END];
        assert_eq!(cases(&looked(&field, &[(2, refused.clone())])), (1, 1));
        // The same number, compared again.
        let twice = [load, op(0x55, 2, 0, 2, 5), op(0x55, 2, 0, 1, 5), CALLED, END];
        assert_eq!(cases(&looked(&twice, &[(3, refused.clone())])), (0, 1));
        // From the stack: the verifier may know it.
        let stack = [op(0x61, 2, 10, -8, 0), op(0x55, 2, 0, 1, 5), CALLED, END];
        assert_eq!(cases(&looked(&stack, &[(2, refused.clone())])), (0, 1));
        // A number that no byte has is not in a packet.
        let byte = [op(0x61, 3, 1, 76, 0), op(0x71, 2, 3, 0, 0), op(0x55, 2, 0, 1, 300), CALLED, END];
        assert_eq!(cases(&looked(&byte, &[(3, refused.clone())])), (0, 1));
        // Behind the end, and in a loop.
        assert_eq!(cases(&looked(&[END, CALLED], &[(1, refused.clone())])), (0, 0));
        assert_eq!(cases(&looked(&[op(0x05, 0, 0, -1, 0), CALLED], &[(1, refused)])), (0, 0));
    }

    #[test]
    fn the_answer_of_a_question_decides_which_way_is_looked_at() {
        let code = [op(0xb7, 2, 0, 0, 1), op(0x15, 2, 0, 1, 0), CALLED, END];
        for (answer, wanted) in [(0, (0, 0)), (1, (1, 1))] {
            let effects = [(0, KernelEffect::Number(answer)), (2, KernelEffect::Refused(0))];
            assert_eq!(cases(&looked(&code, &effects)), wanted);
        }
        assert_eq!(cases(&looked(&code, &[(0, KernelEffect::Unknown), (2, KernelEffect::Refused(0))])), (0, 1));
        assert_eq!(cases(&looked(&code, &[(0, KernelEffect::Address), (2, KernelEffect::Refused(0))])), (1, 1));
    }

    #[test]
    fn packets_are_measured_once_and_functions_are_followed() {
        // data + 14 > data_end
        let packet = [
            op(0x61, 2, 1, 76, 0),
            op(0x61, 3, 1, 80, 0),
            op(0xbf, 4, 2, 0, 0),
            op(0x07, 4, 0, 0, 14),
            op(0x2d, 4, 3, 1, 0),
            CALLED,
            END,
        ];
        assert_eq!(cases(&looked(&packet, &[(5, KernelEffect::Refused(0))])), (1, 1));
        let function = [op(CALL, 0, 1, 0, 1), END, CALLED, END];
        assert_eq!(cases(&looked(&function, &[(2, KernelEffect::Refused(0))])), (1, 1));
    }
}
