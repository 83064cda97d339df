//! Attaches the loaded programs at every hook, asks the kernel what it lists there, and sends packets through.

use crate::{
    attempt::LoadedObject,
    libbpf::{self, Counter, KernelMap, ObjectProgram, SCHED_CLS},
    settings::name_of,
    tell::Teller,
    wire::{self, HookPath, SeenFrame, Taps, Wire},
};
use lab_bpf::{
    BpfError, BpfLink, Mprog, TcDirection, TcFilter, TcOptions, attach_link, attach_tc, filters, id_of, query,
};
use lab_check::{AttachFact, CheckOrder, CheckPacket, CounterFact, FactLine, Fate, HookFact, PacketFact, RunFact};
use lab_protocol::{AttachType, Hook};
use std::{
    os::fd::{AsFd, BorrowedFd},
    thread,
    time::{Duration, Instant},
};

/// Time for a packet after its program has run.
const AFTER_RUN: Duration = Duration::from_millis(60);
/// Time for a packet altogether.
const ALTOGETHER: Duration = Duration::from_millis(800);
const POLL: Duration = Duration::from_millis(2);

/// Tries every program.
pub fn through_hooks(order: &CheckOrder, loaded: &[LoadedObject<'_>], tell: &mut Teller) {
    let all: Vec<ObjectProgram<'_>> =
        loaded.iter().flat_map(LoadedObject::programs).filter(|it| it.kind() == SCHED_CLS).collect();
    if all.is_empty() {
        return;
    }
    tell.begin("making devices".to_owned());
    let wire = match Wire::make() {
        Ok(wire) => wire,
        Err(error) => {
            tell.note(format!("no devices for packets: {error}"));
            return;
        }
    };
    let maps = maps_of(order, &all);
    for program in &all {
        let name = program.name();
        for packet in &order.packets {
            tell.begin(format!("BPF_PROG_TEST_RUN of program {name} with the packet {}", packet.name));
            let fact = test_run(program, &name, &packet.name, &packet.frame);
            tell.fact(FactLine::Run(fact));
        }
        for hook in &order.hooks {
            tell.begin(format!("program {name} at {hook}"));
            let fact = at_hook(order, &wire, program, &maps, &name, *hook);
            tell.fact(FactLine::Hook(fact));
        }
    }
}

/// The maps of loaded programs, if counters are asked for.
pub fn maps_of(order: &CheckOrder, programs: &[impl AsFd]) -> Vec<KernelMap> {
    if order.counters.is_empty() { Vec::new() } else { programs.iter().flat_map(KernelMap::of_program).collect() }
}

/// `BPF_PROG_TEST_RUN` with a packet.
pub fn test_run(program: &impl AsFd, name: &str, packet: &str, frame: &[u8]) -> RunFact {
    let done = libbpf::test_run(program, frame);
    let (verdict, errno) = (done.as_ref().ok().map(|(verdict, _)| *verdict), done.as_ref().err().copied());
    let after = done.map(|(_, bytes)| bytes).unwrap_or_default();
    RunFact {
        program: name.to_owned(),
        packet: packet.to_owned(),
        verdict,
        errno,
        changes: if after.is_empty() { Vec::new() } else { changes(frame, &after) },
        length: after.len() as u32,
    }
}

/// An attachment, which ends with this value.
enum Attached {
    Filter(Option<TcFilter>),
    Link(#[expect(dead_code, reason = "held for what its end does")] BpfLink),
}

fn at_hook(
    order: &CheckOrder,
    wire: &Wire,
    program: &ObjectProgram<'_>,
    maps: &[KernelMap],
    name: &str,
    hook: Hook,
) -> HookFact {
    let mut fact = HookFact { program: name.to_owned(), hook, attach: AttachFact::Unlisted, packets: Vec::new() };
    if let Some(why) = absent(wire, hook) {
        fact.attach = AttachFact::Absent(why);
        return fact;
    }
    let near = wire.side(wire::Side::Near);
    let ifindex = wire::device(hook);
    let fd = program.as_fd();
    let attached = near.run(|| attach(hook, ifindex, fd));
    let attached = match attached {
        Ok(attached) => attached,
        Err(error) => {
            fact.attach = AttachFact::Refused(error.to_string());
            return fact;
        }
    };
    let is_listed = near.run(|| listed(hook, ifindex, fd));
    match is_listed {
        Ok(true) => fact.attach = AttachFact::Listed,
        Ok(false) => {}
        Err(error) => fact.attach = AttachFact::Refused(format!("what is attached can't be listed: {error}")),
    }
    if fact.attach == AttachFact::Listed {
        fact.packets = packets_through(order, wire, program, maps, hook);
    }
    if let Attached::Filter(Some(filter)) = attached {
        // A filter that can't be removed is still there for the next program, which the kernel then refuses.
        near.run(|| drop(filter.detach()));
    }
    fact
}

/// Sends every packet through the hook where the program is.
pub fn packets_through(
    order: &CheckOrder,
    wire: &Wire,
    program: &impl AsFd,
    maps: &[KernelMap],
    hook: Hook,
) -> Vec<PacketFact> {
    let counters: Vec<Counter> = order.counters.iter().map(|place| Counter::find(place, maps)).collect();
    let one = |packet: &CheckPacket| {
        let before: Vec<_> = counters.iter().map(Counter::read).collect();
        let mut fact = through(wire, program, hook, &packet.name, &packet.frame);
        let around = order.counters.iter().zip(&counters).zip(before);
        fact.counters = around
            .map(|((place, counter), before)| {
                let after = counter.read();
                let problem = before.as_ref().err().or(after.as_ref().err()).map(ToString::to_string);
                let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
                CounterFact { place: place.clone(), before, after, problem }
            })
            .collect();
        fact
    };
    order.packets.iter().map(one).collect()
}

/// Why the kernel has no such hook, if it has none.
pub fn absent(wire: &Wire, hook: Hook) -> Option<String> {
    match hook.attach_type() {
        AttachType::Tc => None,
        AttachType::Netkit => wire.no_netkit.clone(),
        AttachType::Tcx => {
            let asked = wire.side(wire::Side::Near).run(|| query(hook, wire::device(hook)));
            asked.err().map(|error| error.to_string())
        }
    }
}

fn attach(hook: Hook, ifindex: u32, program: BorrowedFd<'_>) -> Result<Attached, BpfError> {
    let direction = match hook {
        Hook::ClsactIngress => TcDirection::Ingress,
        Hook::ClsactEgress => TcDirection::Egress,
        _ => return attach_link(hook, ifindex, &program, &Mprog::default()).map(Attached::Link),
    };
    attach_tc(ifindex, direction, &program, TcOptions::default()).map(|filter| Attached::Filter(Some(filter)))
}

/// Whether the kernel lists the program at the hook.
fn listed(hook: Hook, ifindex: u32, program: BorrowedFd<'_>) -> Result<bool, BpfError> {
    let id = id_of(&program)?;
    Ok(match hook {
        Hook::ClsactIngress | Hook::ClsactEgress => {
            filters(ifindex)?.iter().any(|filter| filter.prog_id == id && filter.direction.hook() == hook)
        }
        _ => query(hook, ifindex)?.prog_ids().contains(&id),
    })
}

/// Sends a packet through the hook.
fn through(wire: &Wire, program: &impl AsFd, hook: Hook, packet: &str, frame: &[u8]) -> PacketFact {
    let route = wire::route(hook);
    let frame = wire.addressed(route, frame);
    let fact = |ran, fate, bytes: Vec<u8>| PacketFact {
        packet: packet.to_owned(),
        ran,
        changes: if matches!(fate, Fate::Changed) { changes(&frame, &bytes) } else { Vec::new() },
        fate,
        bytes,
        counters: Vec::new(),
    };
    let taps = match wire.tap(&frame) {
        Ok(taps) => taps,
        Err(error) => return fact(0, Fate::Unsent(error.to_string()), Vec::new()),
    };
    let runs = || libbpf::listed(program).map_or(0, |it| it.ran);
    let before = runs();
    if let Err(error) = wire.send(route.from, &frame) {
        // A program at egress that drops a packet makes its sender fail with ENOBUFS.
        let ran = runs().saturating_sub(before);
        let errno = error.raw_os_error();
        if ran == 0 || errno != Some(libc::ENOBUFS) {
            let why = errno.map_or_else(|| error.to_string(), name_of);
            return fact(ran, Fate::Unsent(why), Vec::new());
        }
    }
    let (fate, bytes) = watch(&taps, route, &frame, || runs() > before);
    fact(runs().saturating_sub(before), fate, bytes)
}

/// Waits for the packet where it may come out.
fn watch(taps: &Taps, route: HookPath, frame: &[u8], ran: impl Fn() -> bool) -> (Fate, Vec<u8>) {
    let start = Instant::now();
    let mut run_at = None;
    let mut elsewhere: Option<(String, Vec<u8>)> = None;
    loop {
        let (every, behind) = taps.seen();
        let arrived = if route.is_ingress { &behind } else { &every };
        let at_goal = |seen: &&SeenFrame| (seen.side, seen.ifindex) == route.to && !seen.is_outgoing;
        if let Some(seen) = arrived.iter().find(at_goal) {
            let fate = if seen.bytes == frame { Fate::Delivered } else { Fate::Changed };
            return (fate, seen.bytes.clone());
        }
        if elsewhere.is_none() {
            elsewhere = every.iter().find_map(|seen| strayed(seen, route));
        }
        let now = Instant::now();
        if run_at.is_none() && ran() {
            run_at = Some(now);
        }
        if now > start + ALTOGETHER || run_at.is_some_and(|at| now > at + AFTER_RUN) {
            return match elsewhere {
                Some((device, bytes)) => (Fate::Redirected(device), bytes),
                None => (Fate::Dropped, Vec::new()),
            };
        }
        thread::sleep(POLL);
    }
}

/// Where a packet went instead, if that is what was seen.
fn strayed(seen: &SeenFrame, route: HookPath) -> Option<(String, Vec<u8>)> {
    let place = (seen.side, seen.ifindex);
    let name = wire::name(seen.side, seen.ifindex);
    let device = match (place == route.from, place == route.to, seen.is_outgoing) {
        // Sent by the check itself, or on its way to the hook.
        (true, _, true) | (_, true, false) => return None,
        (true, _, false) => format!("back into {name}"),
        (_, true, true) => format!("back out of {name}"),
        (false, false, true) => name,
        (false, false, false) => format!("into {name}"),
    };
    Some((device, seen.bytes.clone()))
}

/// Bytes that differ.
fn changes(before: &[u8], after: &[u8]) -> Vec<(u32, u8, u8)> {
    let pairs = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
    pairs.map(|(at, (before, after))| (at as u32, *before, *after)).take(Fate::MOST_CHANGES).collect()
}
