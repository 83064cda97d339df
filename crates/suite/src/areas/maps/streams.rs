//! Maps without keys: ring buffers, queues and stacks.

use lab_bpf::{BPF_EXIST, BPF_NOEXIST, BpfMap, MapKind, Ring, raw, raw::RingQuery, raw::RingWrite};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
};
use nix::errno::Errno;
use std::os::fd::AsFd;

/// In the order in which they run.
pub const CASES: &[Case] = &[DISCARDED_RECORDS, FULL_RING, FULL_QUEUE];

/// Bytes of a ring buffer: one page.
const RING: u32 = 4096;
/// Bytes that the kernel puts before each record (`BPF_RINGBUF_HDR_SZ`).
const HEADER: u32 = 8;
/// The shortest packet of a run. Programs write the packet's length, so that each record has a number of its own.
const SHORTEST: u32 = 60;

/// Runs a program with a packet of that length, of an unused protocol.
fn run(program: &impl AsFd, length: u32) -> Result<u32, Stop> {
    Ok(raw::test_run(program, &vec![0; length as usize])?)
}

/// The numbers in records: their first four bytes.
fn numbers(records: &[Vec<u8>]) -> Vec<u32> {
    let number = |record: &Vec<u8>| record.first_chunk().copied().map_or(0, u32::from_ne_bytes);
    records.iter().map(number).collect()
}

const DISCARDED_RECORDS: Case = Case::new(
    "B03",
    "discarded-records",
    "A ring buffer delivers the records that a program submitted, in their order, and none that it discarded.",
    discarded_records,
);
fn discarded_records(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const BYTES: i32 = 32;
    /// Enough for the ring to begin anew twice.
    const ROUNDS: u32 = 40;
    use RingWrite::{Discard, Submit};
    let mut ring = Ring::create(RING)?;
    let submitting = raw::writing_to_ring(&ring, BYTES, Submit)?;
    let discarding = raw::writing_to_ring(&ring, BYTES, Discard)?;
    let unread = raw::querying_ring(&ring, RingQuery::Unread)?;
    let size = raw::querying_ring(&ring, RingQuery::Size)?;
    ctx.equal("size that bpf_ringbuf_query tells", run(&size, SHORTEST)?, RING);
    let (mut wanted, mut delivered, mut refused) = (Vec::new(), Vec::new(), 0);
    let mut number = SHORTEST;
    for _ in 0..ROUNDS {
        for then in [Submit, Discard, Discard, Submit, Discard, Submit] {
            number += 1;
            let program = if then == Submit { &submitting } else { &discarding };
            refused += u32::from(run(program, number)? == 0);
            wanted.extend((then == Submit).then_some(number));
        }
        delivered.extend(ring.records());
    }
    ctx.equal("records that the ring had no room for", refused, 0);
    ctx.equal("number of delivered records", delivered.len(), wanted.len());
    let other = numbers(&delivered).into_iter().zip(wanted).find(|(seen, wanted)| seen != wanted);
    ctx.equal("the first that is another one, and which it should be", other, None);
    let other = delivered.iter().filter(|record| record.len() != BYTES as usize).count();
    ctx.equal("records of another length", other, 0);
    for _ in 0..3 {
        run(&discarding, SHORTEST)?;
    }
    let each = BYTES as u32 + HEADER;
    ctx.equal("bytes before three discarded records are passed", run(&unread, SHORTEST)?, 3 * each);
    ctx.equal("records that are delivered of three discarded ones", numbers(&ring.records()), vec![]);
    ctx.equal("bytes once they are passed", run(&unread, SHORTEST)?, 0);
    Ok(())
}

const FULL_RING: Case = Case::new(
    "B04",
    "full-ring",
    "A full ring buffer refuses further records until the consumer has read, and delivers every record that it took.",
    full_ring,
);
fn full_ring(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    /// With its header a quarter of the ring; three fit, since it is never filled to the last byte (`__bpf_ringbuf_reserve()`).
    const QUARTER: u32 = RING / 4 - HEADER;
    let mut ring = Ring::create(RING)?;
    let submitting = raw::writing_to_ring(&ring, QUARTER as i32, RingWrite::Submit)?;
    let discarding = raw::writing_to_ring(&ring, QUARTER as i32, RingWrite::Discard)?;
    let mut number = SHORTEST;
    let mut write = |program: &raw::RawProgram| {
        number += 1;
        run(program, number)
    };
    let mut fill =
        |programs: [&raw::RawProgram; 5]| programs.map(&mut write).into_iter().collect::<Result<Vec<_>, _>>();

    let took = fill([&submitting; 5])?;
    ctx.equal("records that an empty ring takes of five", took, vec![1, 1, 1, 0, 0]);
    let records = ring.records();
    ctx.equal("numbers of the delivered records", numbers(&records), vec![61, 62, 63]);
    let whole = records.iter().all(|record| record.len() == QUARTER as usize);
    ctx.check("they are whole", whole, format!("{:?}", records.iter().map(Vec::len).collect::<Vec<_>>()));

    let took = fill([&submitting, &discarding, &submitting, &submitting, &discarding])?;
    ctx.equal("records that it takes with discarded ones among them", took, vec![1, 1, 1, 0, 0]);
    ctx.equal("number of the first", numbers(ring.next_record().as_slice()), vec![66]);
    // The second was discarded, and still has its place.
    let took = fill([&submitting; 5])?;
    ctx.equal("records that it takes after one was read", took, vec![1, 0, 0, 0, 0]);
    ctx.equal("numbers of the others", numbers(&ring.records()), vec![68, 71]);
    ctx.equal("records in the empty ring", numbers(&ring.records()), vec![]);
    copies(ctx)
}

/// `bpf_ringbuf_output` up to the last record that has room.
fn copies(ctx: &mut Ctx) -> CaseResult {
    const BYTES: u32 = 8;
    const ROOM: u32 = (RING - 1) / (BYTES + HEADER);
    let mut ring = Ring::create(RING)?;
    let copying = raw::copying_to_ring(&ring)?;
    let results: Vec<i32> =
        (0..ROOM + 2).map(|at| run(&copying, SHORTEST + at).map(u32::cast_signed)).collect::<Result<_, _>>()?;
    let (took, refused) = results.split_at(ROOM as usize);
    ctx.equal(
        "records that bpf_ringbuf_output writes",
        took.iter().filter(|result| **result == 0).count(),
        ROOM as usize,
    );
    ctx.equal("what it says to the next", refused.to_vec(), vec![-(Errno::EAGAIN as i32); 2]);
    let wanted: Vec<u32> = (SHORTEST..SHORTEST + ROOM).collect();
    ctx.equal("numbers of its records", numbers(&ring.records()), wanted);
    Ok(())
}

const FULL_QUEUE: Case = Case::new(
    "B05",
    "full-queue",
    "A full queue or stack refuses a value, and with BPF_EXIST replaces its oldest, from user space and by bpf_map_push_elem.",
    full_queue,
);
/// A map without keys.
type Values = BpfMap<0, 8>;
fn full_queue(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROOM: u32 = 4;
    for (kind, name) in [(MapKind::Queue, "queue"), (MapKind::Stack, "stack")] {
        for by in ["user space", "a program"] {
            let map = Values::create(kind, ROOM, 0)?;
            let (plain, replacing) = (raw::pushing(&map, 0)?, raw::pushing(&map, BPF_EXIST as i32)?);
            let push = |value: u32, flags: u64| match by {
                "user space" => match map.push(&u64::from(value).to_ne_bytes(), flags) {
                    Ok(()) => Ok(0),
                    Err(error) => error.errno().map(|errno| -(errno as i32)).ok_or_else(|| error.into()),
                },
                _ => run(if flags == BPF_EXIST { &replacing } else { &plain }, value).map(u32::cast_signed),
            };
            let push_all = |numbers: &[u32], flags| -> Result<Vec<i32>, Stop> {
                numbers.iter().map(|number| push(*number, flags)).collect()
            };
            let what = format!("{name} filled by {by}");
            let full = vec![0, 0, 0, 0, -(Errno::E2BIG as i32)];
            ctx.equal(format!("{what}: five values for four places"), push_all(&[61, 62, 63, 64, 65], 0)?, full);
            ctx.equal(format!("{what}: what it holds"), emptied(&map)?, in_order(kind, &[61, 62, 63, 64]));
            ctx.equal(format!("{what}: four values again"), push_all(&[71, 72, 73, 74], 0)?, vec![0; 4]);
            ctx.equal(format!("{what}: two values with BPF_EXIST"), push_all(&[75, 76], BPF_EXIST)?, vec![0; 2]);
            let next = map.peek().map(u64::from_ne_bytes)?;
            ctx.equal(format!("{what}: the next value"), next, in_order(kind, &[73, 74, 75, 76])[0]);
            ctx.equal(format!("{what}: what it holds then"), emptied(&map)?, in_order(kind, &[73, 74, 75, 76]));
            ctx.equal(format!("{what}: BPF_EXIST with room"), push_all(&[81], BPF_EXIST)?, vec![0]);
            ctx.equal(format!("{what}: the only value"), emptied(&map)?, vec![81]);
            ctx.refused(format!("{what}: the next value of none"), map.peek(), Errno::ENOENT);
        }
        let map = Values::create(kind, ROOM, 0)?;
        ctx.refused(format!("{name}: BPF_NOEXIST"), map.push(&[0; 8], BPF_NOEXIST), Errno::EINVAL);
    }
    Ok(())
}

/// Takes everything out.
fn emptied(map: &Values) -> Result<Vec<u64>, Stop> {
    const MOST: usize = 100;
    let mut taken = Vec::new();
    while taken.len() < MOST {
        match map.pop() {
            Ok(value) => taken.push(u64::from_ne_bytes(value)),
            Err(error) if error.errno() == Some(Errno::ENOENT) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(taken)
}

/// Values as they come out.
fn in_order(kind: MapKind, pushed: &[u64]) -> Vec<u64> {
    match kind {
        MapKind::Stack => pushed.iter().rev().copied().collect(),
        _ => pushed.to_vec(),
    }
}
