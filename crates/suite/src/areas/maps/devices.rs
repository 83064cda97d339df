//! Maps of devices, which hold them: a device that goes must be let go.

use lab_bpf::{BpfError, BpfMap, MapKind};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
};
use lab_protocol::Capability;
use lab_topology::{Netns, link};
use nix::errno::Errno;
use std::{
    sync::{Arc, mpsc},
    thread,
};

/// In the order in which they run.
pub const CASES: &[Case] = &[DEVICES_GO];

/// How long a device may take to go, milliseconds on a fast guest. The kernel looks after its references every 250 ms at the latest
/// (`netdev_wait_allrefs_any()`).
const GOES_MS: u64 = 3_000;

type Devices = BpfMap<4, 4>;

/// The keys under which a device is in a map: with two, none is let go for the other.
const fn keys(number: u32) -> [[u8; 4]; 2] {
    [number.to_ne_bytes(), (number + 10).to_ne_bytes()]
}

/// The device at a key, 0 for none.
fn at(map: &Devices, key: &[u8; 4]) -> Result<u32, BpfError> {
    match map.lookup(key) {
        Ok(ifindex) => Ok(u32::from_ne_bytes(ifindex)),
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(0),
        Err(error) => Err(error),
    }
}

/// Checks which device is at the keys of a number, in each map.
fn holds(ctx: &mut Ctx, when: &str, maps: &[(&str, Devices)], number: u32, wanted: u32) -> Result<(), Stop> {
    for (name, map) in maps {
        let seen = [at(map, &keys(number)[0])?, at(map, &keys(number)[1])?];
        ctx.equal(format!("{when}: {name}: devices at the keys of d{number}"), seen, [wanted; 2]);
    }
    Ok(())
}

/// Deletes a device, which the kernel does not end before all references to it are dropped.
fn goes(ctx: &mut Ctx, host: &Arc<Netns>, name: &'static str, when: &str) -> Result<(), Stop> {
    let (tell, told) = mpsc::channel();
    let host = host.clone();
    // Not waited for where it hangs: the maps that hold the device are dropped with the case.
    thread::spawn(move || tell.send(link::delete(&host, name)));
    let deleted = told.recv_timeout(ctx.patience(GOES_MS));
    let seen = match &deleted {
        Ok(Ok(())) => "RTM_DELLINK ended".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "RTM_DELLINK does not end".to_owned(),
    };
    ctx.require(&format!("{when}: {name} is deleted"), matches!(deleted, Ok(Ok(()))), seen)
}

const DEVICES_GO: Case = Case::new(
    "B09",
    "devices-go",
    "A device that is deleted or moved leaves every map of devices; an entry that is removed, and a map that is closed, let theirs go.",
    devices_go,
)
.needs(&[Capability::Dummy]);
fn devices_go(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    const NAMES: [&str; 5] = ["d0", "d1", "d2", "d3", "d4"];
    const ROOM: u32 = 16;
    let host = Arc::new(Netns::new("host")?);
    let maps = [
        ("DEVMAP", Devices::create(MapKind::DevMap, ROOM, 0)?),
        ("DEVMAP_HASH", Devices::create(MapKind::DevMapHash, ROOM, 0)?),
    ];
    let mut indexes = Vec::new();
    for (number, name) in (0..).zip(NAMES) {
        link::create_dummy(&host, name)?;
        let ifindex = link::info(&host, name)?.ifindex;
        indexes.push(ifindex);
        for (_, map) in &maps {
            host.run(|| keys(number).iter().try_for_each(|key| map.insert(key, &ifindex.to_ne_bytes())))?;
        }
        holds(ctx, "inserted", &maps, number, ifindex)?;
    }
    for (name, map) in &maps {
        let absent = host.run(|| map.insert(&keys(0)[0], &u32::MAX.to_ne_bytes()));
        ctx.refused(format!("{name}: a device that is not there"), absent, Errno::EINVAL);
    }

    goes(ctx, &host, NAMES[1], "deleted")?;
    holds(ctx, "deleted", &maps, 1, 0)?;

    let elsewhere = Netns::new("elsewhere")?;
    link::move_to(&host, NAMES[2], &elsewhere)?;
    holds(ctx, "moved", &maps, 2, 0)?;

    for (_, map) in &maps {
        keys(3).iter().try_for_each(|key| map.remove(key))?;
    }
    goes(ctx, &host, NAMES[3], "removed from the maps")?;
    holds(ctx, "removed from the maps", &maps, 3, 0)?;

    for number in [0, 4] {
        holds(ctx, "the others are gone", &maps, number, indexes[number as usize])?;
    }
    let mut listed: Vec<u32> = maps[1].1.keys()?.iter().copied().map(u32::from_ne_bytes).collect();
    listed.sort_unstable();
    ctx.equal("keys that DEVMAP_HASH lists", listed, vec![0, 4, 10, 14]);

    drop(maps);
    goes(ctx, &host, NAMES[4], "its maps are closed")?;
    ctx.refused("the device afterwards", link::info(&host, NAMES[4]), Errno::ENODEV);
    Ok(())
}
