//! Programs that use maps, for `BPF_PROG_TEST_RUN`. What they write is the length of the packet.

use super::{
    BPF_PROG_TYPE_SCHED_CLS, RawProgram, assemble, below_frame, call, exit, instruction, load_map, mov, store_zero,
};
use crate::BpfError;
use aya_obj::generated::bpf_insn;
use std::os::fd::{AsFd, BorrowedFd};

/// `enum bpf_func_id`.
const MAP_LOOKUP_ELEM: i32 = 1;
const MAP_PUSH_ELEM: i32 = 87;
const RINGBUF_OUTPUT: i32 = 130;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_QUERY: i32 = 134;

/// Bytes of what is written from the stack.
const VALUE: i32 = 8;

/// What a program does with a record that it has reserved; numbered as the helpers in `enum bpf_func_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum RingWrite {
    /// `bpf_ringbuf_submit`.
    Submit = 132,
    /// `bpf_ringbuf_discard`.
    Discard = 133,
}

/// What `bpf_ringbuf_query` is asked for, numbered as in include/uapi/linux/bpf.h.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum RingQuery {
    /// `BPF_RB_AVAIL_DATA`: bytes that the consumer has not passed.
    Unread = 0,
    /// `BPF_RB_RING_SIZE`.
    Size = 1,
}

/// A program that refers to maps in this order, and does nothing with them.
///
/// # Errors
/// [`BpfError::Load`].
pub fn referring_to(maps: &[BorrowedFd<'_>]) -> Result<RawProgram, BpfError> {
    let loads = maps.iter().flat_map(|map| load_map(1, *map));
    load("referring_to", loads.chain([mov(0, 0), exit()]))
}

/// A program that writes to the ring buffer by `bpf_ringbuf_reserve` of so many bytes. It returns 1, or 0 where the ring has no room.
///
/// # Errors
/// [`BpfError::Load`].
pub fn writing_to_ring(ring: &impl AsFd, bytes: i32, then: RingWrite) -> Result<RawProgram, BpfError> {
    let reserve = [mov(2, bytes), mov(3, 0), call(RINGBUF_RESERVE)];
    let write = [load_length(7, 6), store_word(0, 7), copy(1, 0), mov(2, 0), call(then as i32), mov(0, 1), exit()];
    let instructions = [copy(6, 1)].into_iter().chain(load_map(1, ring.as_fd())).chain(reserve);
    load("writing_to_ring", instructions.chain(unless_zero()).chain(write))
}

/// A program that writes 8 bytes to the ring buffer by `bpf_ringbuf_output`, and returns what that says.
///
/// # Errors
/// [`BpfError::Load`].
pub fn copying_to_ring(ring: &impl AsFd) -> Result<RawProgram, BpfError> {
    load("copying_to_ring", from_stack(ring).chain([mov(3, VALUE), mov(4, 0), call(RINGBUF_OUTPUT), exit()]))
}

/// A program that returns what `bpf_ringbuf_query` says.
///
/// # Errors
/// [`BpfError::Load`].
pub fn querying_ring(ring: &impl AsFd, what: RingQuery) -> Result<RawProgram, BpfError> {
    let ask = [mov(2, what as i32), call(RINGBUF_QUERY), exit()];
    load("querying_ring", load_map(1, ring.as_fd()).into_iter().chain(ask))
}

/// A program that pushes 8 bytes to a queue or stack by `bpf_map_push_elem` with these flags, and returns what that says.
///
/// # Errors
/// [`BpfError::Load`].
pub fn pushing(map: &impl AsFd, flags: i32) -> Result<RawProgram, BpfError> {
    load("pushing", from_stack(map).chain([mov(3, flags), call(MAP_PUSH_ELEM), exit()]))
}

/// A program that returns whether `bpf_map_lookup_elem` finds the key 0, of 4 bytes.
///
/// # Errors
/// [`BpfError::Load`].
pub fn finding(map: &impl AsFd) -> Result<RawProgram, BpfError> {
    let [pointer, back] = below_frame(2, VALUE);
    let look = load_map(1, map.as_fd()).into_iter().chain([pointer, back, store_zero(2), call(MAP_LOOKUP_ELEM)]);
    load("finding", look.chain(unless_zero()).chain([mov(0, 1), exit()]))
}

fn load(name: &str, instructions: impl IntoIterator<Item = bpf_insn>) -> Result<RawProgram, BpfError> {
    assemble(BPF_PROG_TYPE_SCHED_CLS, 0, name, &instructions.into_iter().collect::<Vec<_>>())
}

/// The map as the first argument, and the packet's length on the stack as the second.
fn from_stack(map: &impl AsFd) -> std::array::IntoIter<bpf_insn, 6> {
    let [pointer, back] = below_frame(2, VALUE);
    let [low, high] = load_map(1, map.as_fd());
    [load_length(7, 1), pointer, back, store_double(2, 7), low, high].into_iter()
}

/// `len` of `struct __sk_buff`: `BPF_LDX | BPF_MEM | BPF_W`.
fn load_length(dst: u8, ctx: u8) -> bpf_insn {
    instruction(0x61, dst, ctx, 0)
}

/// `BPF_STX | BPF_MEM | BPF_W`.
fn store_word(at: u8, src: u8) -> bpf_insn {
    instruction(0x63, at, src, 0)
}

/// `BPF_STX | BPF_MEM | BPF_DW`.
fn store_double(at: u8, src: u8) -> bpf_insn {
    instruction(0x7b, at, src, 0)
}

/// `BPF_ALU64 | BPF_MOV | BPF_X`.
fn copy(dst: u8, src: u8) -> bpf_insn {
    instruction(0xbf, dst, src, 0)
}

/// Ends the program with a result of 0: `BPF_JMP | BPF_JNE | BPF_K` over an exit.
fn unless_zero() -> [bpf_insn; 2] {
    [bpf_insn { off: 1, ..instruction(0x55, 0, 0, 0) }, exit()]
}
