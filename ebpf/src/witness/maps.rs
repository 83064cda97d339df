//! The maps: commands under way, the events, and how many were lost.

use crate::{config::set, kernel};
use aya_ebpf::{
    EbpfContext,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_boot_ns},
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};
use lab_abi::witness::{HEAD, LONG, PENDING, RING, SHORT, WitnessEvent, kind};

/// `BPF_RB_NO_WAKEUP`, include/uapi/linux/bpf.h.
const NO_WAKEUP: u64 = 1;

#[map]
static WAITING: HashMap<u64, WitnessEvent> = HashMap::with_max_entries(PENDING, 0);
// An event is larger than a program's stack: new ones are copies of this one.
#[map]
static EMPTY: Array<WitnessEvent> = Array::with_max_entries(1, 0);
// For events without an end. Per CPU: the programs that use it don't call each other.
#[map]
static SCRATCH: PerCpuArray<WitnessEvent> = PerCpuArray::with_max_entries(1, 0);
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING, 0);
// Events that were begun to be written, the lost ones among them.
#[map]
static WRITTEN: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

fn lost() {
    if let Some(count) = LOST.get_ptr_mut(0) {
        // SAFETY: this CPU's value.
        unsafe { *count += 1 };
    }
}

/// The thread, unless it is one of the witness's own process.
#[inline(always)]
fn other() -> Option<u64> {
    let thread = bpf_get_current_pid_tgid();
    ((thread >> 32) as u32 != set!(own_tgid)).then_some(thread)
}

#[inline(always)]
fn begin(event: &mut WitnessEvent, thread: u64) {
    // SAFETY: the helper takes nothing.
    event.time_ns = unsafe { bpf_ktime_get_boot_ns() };
    event.pid_tgid = thread;
    event.kind = set!(kind);
    kernel::comm(&mut event.comm);
}

/// A command begins on this thread.
#[inline(always)]
pub fn enter() -> Option<&'static mut WitnessEvent> {
    let thread = other()?;
    let empty = EMPTY.get_ptr(0)?;
    // SAFETY: the array's one value.
    if WAITING.insert(&thread, unsafe { &*empty }, 0).is_err() {
        lost();
        return None;
    }
    let event = under_way()?;
    begin(event, thread);
    Some(event)
}

/// The command that this thread is at.
#[inline(always)]
pub fn under_way() -> Option<&'static mut WitnessEvent> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: only this thread's programs touch the value, which lives until they remove it.
    WAITING.get_ptr_mut(&thread).map(|event| unsafe { &mut *event })
}

/// It has ended.
#[inline(always)]
pub fn leave() {
    let _ = WAITING.remove(&bpf_get_current_pid_tgid());
}

/// An event without an end.
#[inline(always)]
pub fn at_once() -> Option<&'static mut WitnessEvent> {
    let thread = other()?;
    let empty = EMPTY.get_ptr(0)?;
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: this CPU's value, and the array's one value; both live as long as the program.
    let event = unsafe {
        core::ptr::copy_nonoverlapping(empty.cast::<u64>(), scratch.cast::<u64>(), HEAD / 8);
        &mut *scratch
    };
    begin(event, thread);
    Some(event)
}

/// Writes an event, with as much of the request as belongs to it.
#[inline(always)]
pub fn write(event: &WitnessEvent, long: bool) {
    if let Some(count) = WRITTEN.get_ptr_mut(0) {
        // SAFETY: this CPU's value.
        unsafe { *count += 1 };
    }
    // The agent looks every ten milliseconds, and waking it for each event costs more than writing the event. A call must be looked up
    // while its process lives.
    let flags = if set!(kind) == kind::CALL { 0 } else { NO_WAKEUP };
    let start = core::ptr::from_ref(event).cast::<u8>();
    // SAFETY: both lengths are within the event.
    let written = unsafe {
        if long {
            EVENTS.output::<[u8]>(&*core::ptr::slice_from_raw_parts(start, HEAD + LONG), flags)
        } else {
            EVENTS.output::<[u8]>(&*core::ptr::slice_from_raw_parts(start, HEAD + SHORT), flags)
        }
    };
    if written.is_err() {
        lost();
    }
}

/// A slot of the traced function's arguments, or of its result behind them.
#[inline(always)]
pub fn slot(ctx: &impl EbpfContext, number: usize) -> u64 {
    // SAFETY: the verifier knows how many there are.
    unsafe { *ctx.as_ptr().cast::<u64>().add(number) }
}
