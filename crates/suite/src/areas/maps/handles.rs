//! How an owner finds its maps again: by the programs that use them, and by pins.

use crate::areas::links::pins::pin_path;
use lab_bpf::{BpfMap, MapAccess, MapKind, maps_of, raw};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::Ctx,
};
use nix::errno::Errno;
use std::os::fd::AsFd;

/// In the order in which they run.
pub const CASES: &[Case] = &[MAPS_OF_A_PROGRAM, ACCESS_BY_PIN];

type Table = BpfMap<4, 8>;

const MAPS_OF_A_PROGRAM: Case = Case::new(
    "B10",
    "maps-of-a-program",
    "A program's info lists the ids of all its maps, each once; the maps that they open are those that the program uses.",
    maps_of_a_program,
);
fn maps_of_a_program(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const ROOM: usize = 8;
    let hash = Table::create(MapKind::Hash, 1, 0)?;
    let array = Table::create(MapKind::Array, 2, 0)?;
    let queue: BpfMap<0, 8> = BpfMap::create(MapKind::Queue, 3, 0)?;
    let unused = Table::create(MapKind::Hash, 4, 0)?;
    let key = 1u32.to_ne_bytes();
    hash.insert(&key, &[1; 8])?;
    array.insert(&key, &[2; 8])?;
    queue.push(&[3; 8], 0)?;
    unused.insert(&key, &[4; 8])?;
    // One of them is named twice.
    let program = raw::referring_to(&[array.as_fd(), hash.as_fd(), queue.as_fd(), hash.as_fd()])?;
    let (count, mut ids) = maps_of(&program, ROOM)?;
    ids.sort_unstable();
    let mut wanted = vec![hash.id(), array.id(), queue.id()];
    wanted.sort_unstable();
    ctx.equal("number of maps", count, wanted.len());
    ctx.equal("their ids", ids, wanted.clone());
    let (count, some) = maps_of(&program, 2)?;
    ctx.equal("number of maps with room for two", (count, some.len()), (wanted.len(), 2));
    ctx.check(
        "the two are others",
        some[0] != some[1] && some.iter().all(|id| wanted.contains(id)),
        format!("{some:?}"),
    );
    ctx.equal("maps of a program without any", maps_of(&raw::referring_to(&[])?, ROOM)?, (0, vec![]));
    let ids = [hash.id(), array.id(), queue.id()];
    // Only the program holds them now.
    drop((hash, array, queue));
    ctx.equal("the hash by its id", Table::by_id(MapKind::Hash, ids[0])?.lookup(&key)?, [1; 8]);
    ctx.equal("the array by its id", Table::by_id(MapKind::Array, ids[1])?.lookup(&key)?, [2; 8]);
    ctx.equal("the queue by its id", BpfMap::<0, 8>::by_id(MapKind::Queue, ids[2])?.peek()?, [3; 8]);
    drop(program);
    let gone = ctx.wait_until(2_000, || {
        let left = lab_bpf::map_ids()?;
        Ok(!ids.iter().any(|id| left.contains(id)))
    })?;
    ctx.check("the maps go with the program", gone, format!("{ids:?}"));
    Ok(())
}

const ACCESS_BY_PIN: Case = Case::new(
    "B11",
    "access-by-pin",
    "A descriptor of a pinned map that is opened with BPF_F_RDONLY changes nothing, one with BPF_F_WRONLY reads nothing; a frozen map takes no change.",
    access_by_pin,
);
fn access_by_pin(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let path = pin_path(ctx, "map");
    let (here, there) = (1u32.to_ne_bytes(), 2u32.to_ne_bytes());
    let (first, second) = ([1; 8], [2; 8]);
    let map = Table::create(MapKind::Hash, 8, 0)?;
    map.insert(&here, &first)?;
    map.pin(&path)?;
    let open = |access| Table::open_pinned(MapKind::Hash, &path, access);

    let reader = open(MapAccess::Read)?;
    ctx.equal("the reader's map", reader.id(), map.id());
    ctx.equal("what the reader looks up", reader.lookup(&here)?, first);
    ctx.equal("what it lists", reader.keys()?, vec![here]);
    ctx.equal("what it lists in batches", reader.batches(8)?, vec![(here, first)]);
    ctx.refused("an update by the reader", reader.insert(&here, &second), Errno::EPERM);
    ctx.refused("a new entry by the reader", reader.insert(&there, &second), Errno::EPERM);
    ctx.refused("a removal by the reader", reader.remove(&here), Errno::EPERM);
    ctx.refused("taking out by the reader", reader.drain(8), Errno::EPERM);
    ctx.equal("the entries after that", map.batches(8)?, vec![(here, first)]);

    let writer = open(MapAccess::Write)?;
    ctx.equal("the writer's map", writer.id(), map.id());
    ctx.refused("a lookup by the writer", writer.lookup(&here), Errno::EPERM);
    ctx.refused("the next key for the writer", writer.next_key(None), Errno::EPERM);
    ctx.refused("a batch for the writer", writer.batches(8), Errno::EPERM);
    let changed = writer.insert(&there, &second).and_then(|()| writer.remove(&here));
    ctx.check("an update and a removal by the writer", changed.is_ok(), format!("{changed:?}"));
    ctx.equal("the entries after the writer's changes", map.batches(8)?, vec![(there, second)]);

    ctx.refused("both flags at once", open(MapAccess::Contradicting), Errno::EINVAL);
    let both = open(MapAccess::Both)?;
    both.insert(&here, &first)?;
    ctx.equal("what both reads", both.lookup(&here)?, first);

    both.freeze()?;
    for (name, map) in [("its owner", &map), ("the writer", &writer), ("both", &both)] {
        ctx.refused(format!("an update of the frozen map by {name}"), map.insert(&here, &second), Errno::EPERM);
    }
    ctx.equal("a lookup in the frozen map", map.lookup(&here)?, first);
    Ok(())
}
