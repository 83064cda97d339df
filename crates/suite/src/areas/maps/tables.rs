//! Hashes and arrays.

use super::differences;
use lab_bpf::{BPF_EXIST, BPF_F_NO_PREALLOC, BPF_NOEXIST, BpfMap, MapEntry, MapKind, raw};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
};
use nix::errno::Errno;

/// In the order in which they run.
pub const CASES: &[Case] = &[DUMPS, FULL_MAPS, LEAST_RECENTLY_USED];

type Table = BpfMap<4, 8>;
type Entry = MapEntry<4, 8>;

/// The entry with this number: its value is another number.
fn entry(number: u32) -> Entry {
    (number.to_ne_bytes(), (u64::from(number) << 20 | 7).to_ne_bytes())
}

fn insert(map: &Table, numbers: impl IntoIterator<Item = u32>) -> Result<(), Stop> {
    for (key, value) in numbers.into_iter().map(entry) {
        map.insert(&key, &value)?;
    }
    Ok(())
}

fn numbers(keys: &[[u8; 4]]) -> Vec<u32> {
    keys.iter().copied().map(u32::from_ne_bytes).collect()
}

/// What is found one by one, by `BPF_MAP_GET_NEXT_KEY` and `BPF_MAP_LOOKUP_ELEM`.
fn walked(map: &Table) -> Result<Vec<Entry>, Stop> {
    let keys = map.keys()?;
    Ok(keys.iter().map(|key| map.lookup(key).map(|value| (*key, value))).collect::<Result<_, _>>()?)
}

/// Checks that a map holds these entries and no others.
fn holds(ctx: &mut Ctx, what: impl Into<String>, seen: &[Entry], wanted: impl IntoIterator<Item = u32>) {
    let readable = |entries: &[Entry]| -> Vec<(u32, u64)> {
        entries.iter().map(|(key, value)| (u32::from_ne_bytes(*key), u64::from_ne_bytes(*value))).collect()
    };
    let wanted: Vec<Entry> = wanted.into_iter().map(entry).collect();
    let wrong = differences(&readable(seen), &readable(&wanted));
    let seen = if wrong.is_empty() { format!("{} entries", seen.len()) } else { wrong.join("; ") };
    ctx.check(what, wrong.is_empty(), seen);
}

const DUMPS: Case = Case::new(
    "B06",
    "dumps",
    "Dumps of hashes list each entry once, one by one and in batches, and after every second entry was removed the others.",
    dumps,
);
fn dumps(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    /// A hash has at least as many buckets (`htab_map_alloc()`).
    const ROOM: u32 = 256;
    const ENTRIES: u32 = 120;
    /// No bucket has as many, and a batch ends within the dump.
    const BATCH: usize = 16;
    for (kind, flags, name) in [
        (MapKind::Hash, 0, "hash"),
        (MapKind::Hash, BPF_F_NO_PREALLOC, "hash without preallocation"),
        (MapKind::LruHash, 0, "LRU hash"),
        (MapKind::PerCpuHash, 0, "per-CPU hash"),
        (MapKind::LruPerCpuHash, 0, "LRU per-CPU hash"),
    ] {
        let map = Table::create(kind, ROOM, flags)?;
        ctx.equal(format!("{name}: keys of an empty one"), numbers(&map.keys()?), vec![]);
        insert(&map, 0..ENTRIES)?;
        holds(ctx, format!("{name}: one by one"), &walked(&map)?, 0..ENTRIES);
        holds(ctx, format!("{name}: in batches"), &map.batches(BATCH)?, 0..ENTRIES);
        // As a datapath clears its connections: the next key is asked for before this one goes.
        let mut key = map.next_key(None)?;
        while let Some(this) = key {
            key = map.next_key(Some(&this))?;
            if u32::from_ne_bytes(this) % 2 == 0 {
                map.remove(&this)?;
            }
        }
        let odd = || (0..ENTRIES).filter(|number| number % 2 == 1);
        holds(ctx, format!("{name}: the odd ones, one by one"), &walked(&map)?, odd());
        holds(ctx, format!("{name}: the odd ones, in batches"), &map.batches(BATCH)?, odd());
        holds(ctx, format!("{name}: taken out in batches"), &map.drain(BATCH)?, odd());
        ctx.equal(format!("{name}: keys that are left"), numbers(&map.keys()?), vec![]);
    }
    Ok(())
}

const FULL_MAPS: Case = Case::new(
    "B07",
    "full-maps",
    "Hashes and arrays insert and replace by their flags, refuse what is too much or absent with its errno, and then hold what they held.",
    full_maps,
);
const ROOM: u32 = 4;
fn full_maps(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    /// `BPF_NOEXIST` and `BPF_EXIST`.
    const BOTH: u64 = BPF_NOEXIST | BPF_EXIST;
    for (kind, flags, name) in [
        (MapKind::Hash, 0, "hash"),
        (MapKind::Hash, BPF_F_NO_PREALLOC, "hash without preallocation"),
        (MapKind::PerCpuHash, 0, "per-CPU hash"),
    ] {
        let map = Table::create(kind, ROOM, flags)?;
        let (other, [first, next]) = ([9; 8], [entry(0), entry(ROOM)]);
        ctx.refused(format!("{name}: a lookup of nothing"), map.lookup(&first.0), Errno::ENOENT);
        ctx.refused(format!("{name}: a removal of nothing"), map.remove(&first.0), Errno::ENOENT);
        let absent = map.insert_if(&first.0, &other, BPF_EXIST);
        ctx.refused(format!("{name}: BPF_EXIST without an entry"), absent, Errno::ENOENT);
        // In a map of its own, so that a kernel that takes both leaves nothing in this one.
        let both = Table::create(kind, ROOM, flags)?.insert_if(&first.0, &other, BOTH);
        ctx.refused(format!("{name}: both flags"), both, Errno::EINVAL);
        holds(ctx, format!("{name}: nothing after that"), &walked(&map)?, 0..0);
        map.insert_if(&first.0, &other, BPF_NOEXIST)?;
        ctx.equal(format!("{name}: the value by BPF_NOEXIST"), map.lookup(&first.0)?, other);
        map.insert_if(&first.0, &first.1, BPF_EXIST)?;
        let present = map.insert_if(&first.0, &other, BPF_NOEXIST);
        ctx.refused(format!("{name}: BPF_NOEXIST with an entry"), present, Errno::EEXIST);
        insert(&map, 1..ROOM)?;
        for (what, flags) in [("", 0), (" with BPF_NOEXIST", BPF_NOEXIST)] {
            let refused = map.insert_if(&next.0, &next.1, flags);
            ctx.refused(format!("{name}: one more than it has room for{what}"), refused, Errno::E2BIG);
        }
        holds(ctx, format!("{name}: full"), &walked(&map)?, 0..ROOM);
        for (what, flags) in [("any", 0), ("BPF_EXIST", BPF_EXIST)] {
            map.insert_if(&first.0, &other, flags)?;
            ctx.equal(format!("{name}: a value that is replaced when full, {what}"), map.lookup(&first.0)?, other);
            map.insert_if(&first.0, &first.1, flags)?;
        }
        map.remove(&first.0)?;
        map.insert(&next.0, &next.1)?;
        holds(ctx, format!("{name}: full again"), &walked(&map)?, 1..=ROOM);
    }
    array(ctx)
}

fn array(ctx: &mut Ctx) -> CaseResult {
    let map = Table::create(MapKind::Array, ROOM, 0)?;
    let (value, past) = ([9; 8], ROOM.to_ne_bytes());
    let zeros: Vec<Entry> = (0..ROOM).map(|index| (index.to_ne_bytes(), [0; 8])).collect();
    ctx.equal("array: what a new one holds", walked(&map)?, zeros);
    insert(&map, 0..ROOM)?;
    ctx.refused("array: BPF_NOEXIST", map.insert_if(&entry(0).0, &value, BPF_NOEXIST), Errno::EEXIST);
    ctx.refused("array: a value past the end", map.insert(&past, &value), Errno::E2BIG);
    ctx.refused("array: a lookup past the end", map.lookup(&past), Errno::ENOENT);
    ctx.refused("array: a removal", map.remove(&entry(0).0), Errno::EINVAL);
    holds(ctx, "array: one by one", &walked(&map)?, 0..ROOM);
    holds(ctx, "array: in batches", &map.batches(ROOM as usize - 1)?, 0..ROOM);
    map.insert_if(&entry(1).0, &value, BPF_EXIST)?;
    ctx.equal("array: the value by BPF_EXIST", map.lookup(&entry(1).0)?, value);
    Ok(())
}

const LEAST_RECENTLY_USED: Case = Case::new(
    "B08",
    "least-recently-used",
    "A full LRU hash refuses no entry: it takes each new one, keeps the one that a program uses, and loses the oldest.",
    least_recently_used,
);
fn least_recently_used(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROOM: u32 = 256;
    const INSERTED: u32 = 4 * ROOM;
    /// More often than the kernel looks for entries to take away: it frees up to 128 at a time (`LOCAL_FREE_TARGET`).
    const USED_EVERY: u32 = 8;
    /// The key that the program looks up.
    const USED: u32 = 0;
    for (kind, name) in [(MapKind::LruHash, "LRU hash"), (MapKind::LruPerCpuHash, "LRU per-CPU hash")] {
        let map = Table::create(kind, ROOM, 0)?;
        let finding = raw::finding(&map)?;
        let (mut refused, mut lost, mut unused) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..INSERTED {
            let (key, value) = entry(number);
            match map.insert(&key, &value) {
                Ok(()) if map.lookup(&key).ok() != Some(value) => lost.push(number),
                Ok(()) => {}
                Err(error) => refused.push(format!("{number}: {error}")),
            }
            if number % USED_EVERY == 0 && raw::test_run(&finding, &[0; 60])? != 1 {
                unused.push(number);
            }
        }
        ctx.equal(format!("{name}: entries that it refused"), refused, vec![]);
        ctx.equal(format!("{name}: entries that were not there at once"), lost, vec![]);
        ctx.equal(format!("{name}: entries after which the used one was gone"), unused, vec![]);
        let left = walked(&map)?;
        let keys: Vec<u32> = left.iter().map(|(key, _)| u32::from_ne_bytes(*key)).collect();
        let fits = left.len() <= ROOM as usize && left.len() >= ROOM as usize / 2;
        ctx.check(format!("{name}: entries that are left of {INSERTED} with room for {ROOM}"), fits, left.len());
        holds(ctx, format!("{name}: what is left"), &left, keys.iter().copied());
        let oldest = keys.iter().copied().filter(|key| *key != USED).min().unwrap_or(0);
        // Half of what was inserted is twice what has room.
        ctx.check(format!("{name}: the oldest of the others"), oldest >= INSERTED / 2, oldest);
    }
    Ok(())
}
