//! Replays shards' events as those of one run. Two threads read ahead, because reading takes longer than replaying.

use super::{ShardError, files};
use crate::error::Error;
use lab_guard::Id;
use lab_protocol::{CellId, Outcome};
use lab_record::{
    event::{Event, Stamped},
    log::{EventLines, EventLog, LineEvent, LogError, part::Paused},
    plan::{Plan, PlannedKernel},
    reporter::Reporter,
    run::RunRecord,
    shard::Part,
    verdict::Verdict,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::Scope,
};

/// Number of threads that read.
const READERS: usize = 2;
/// Maximum number of [`EventLines`] that each of them reads ahead, some megabytes.
const AHEAD: usize = 64;

/// Reads the shards, each up to its end or its first damaged line. Several are read at once, each by a thread that hands over
/// batches on the receiver of its shard: the shard at a position is on the receiver of [`of`](Readers::of) that position.
pub(super) fn read<'scope>(scope: &'scope Scope<'scope, '_>, shards: Vec<Paused>) -> Readers {
    let mut of_each: [Vec<Paused>; READERS] = Default::default();
    shards.into_iter().enumerate().for_each(|(at, shard)| of_each[at % READERS].push(shard));
    Readers(of_each.map(|shards| {
        let (send, lines) = sync_channel(AHEAD);
        scope.spawn(move || shards.into_iter().try_for_each(|shard| read_one(shard, &send)));
        lines
    }))
}

/// The receivers of the threads that read.
pub(super) struct Readers([Receiver<EventLines>; READERS]);

impl Readers {
    /// That of the shard at a position.
    pub(super) fn of(&self, position: usize) -> &Receiver<EventLines> {
        &self.0[position % READERS]
    }
}

/// `None` if nobody receives any more: the merge has failed.
fn read_one(shard: Paused, send: &SyncSender<EventLines>) -> Option<()> {
    let mut events = match shard.resume() {
        Ok(events) => events,
        Err(error) => return send.send(EventLines::failed(error)).ok(),
    };
    loop {
        let lines = events.lines();
        let through = lines.end.is_some();
        send.send(lines).ok()?;
        if through {
            return Some(());
        }
    }
}

/// Information on a shard before its events are read.
#[derive(Debug)]
pub(super) struct Brought {
    pub(super) directory: PathBuf,
    /// Its events file.
    pub(super) path: PathBuf,
    pub(super) started_ms: u64,
    pub(super) part: Part,
    /// Its kernels, each with the positions of its cells in the whole plan.
    pub(super) kernels: Vec<(Id, Vec<u32>)>,
    /// A cell that the whole plan does not have, with its kernel.
    pub(super) stranger: Option<(Id, CellId)>,
}

impl Brought {
    fn overlap(&self, kernel: &Id, cell: &CellId) -> Error {
        let (path, kernel, cell) = (self.path.clone(), kernel.to_string(), cell.to_string());
        ShardError::Overlap { path, kernel, cell }.into()
    }
}

/// State of a planned cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// It is no cell of the kernel: a suite reported it on another one.
    Absent,
    /// No shard has started the cell's kernel.
    Unclaimed,
    /// The shard with this number must have its verdict.
    For(u32),
    /// The verdict has been replayed.
    Told,
}

/// The cells of the whole plan by position, for every kernel, and behind them those that suites reported.
#[derive(Debug)]
struct Ledger {
    planned: usize,
    cells: Vec<CellId>,
    places: HashMap<CellId, usize>,
    kernels: HashMap<Id, Vec<Waits>>,
}

impl Ledger {
    fn new(plan: &Plan) -> Self {
        let cells: Vec<CellId> = plan.cells.iter().map(|cell| cell.id.clone()).collect();
        let places = cells.iter().cloned().zip(0..).collect();
        let kernel = |kernel: &PlannedKernel| (kernel.facts.id.clone(), vec![Waits::Unclaimed; cells.len()]);
        Self { kernels: plan.kernels.iter().map(kernel).collect(), places, planned: cells.len(), cells }
    }

    /// Adds a cell that a suite reported on a kernel; its verdict comes next. Returns whether it is new there.
    fn adopt(&mut self, kernel: &Id, cell: &CellId, number: u32) -> bool {
        let place = *self.places.entry(cell.clone()).or_insert_with(|| {
            self.cells.push(cell.clone());
            self.cells.len() - 1
        });
        let Some(all) = self.kernels.get_mut(kernel).filter(|_| place >= self.planned) else { return false };
        if all.len() <= place {
            all.resize(place + 1, Waits::Absent);
        }
        let Some(waits) = all.get_mut(place).filter(|waits| **waits == Waits::Absent) else { return false };
        *waits = Waits::For(number);
        true
    }

    /// Gives the cell at a position of the plan to a shard; returns whether no other has it.
    fn claim(&mut self, kernel: &Id, place: usize, number: u32) -> bool {
        let waits = self.kernels.get_mut(kernel).and_then(|all| all.get_mut(place));
        let Some(waits) = waits.filter(|waits| **waits == Waits::Unclaimed) else { return false };
        *waits = Waits::For(number);
        true
    }

    /// Changes a cell's state; returns whether it was in the state `from`.
    fn pass(&mut self, kernel: &Id, cell: &CellId, from: Waits, to: Waits) -> bool {
        let place = self.places.get(cell).copied();
        let waits = place.and_then(|place| self.kernels.get_mut(kernel)?.get_mut(place));
        let Some(waits) = waits.filter(|waits| **waits == from) else { return false };
        *waits = to;
        true
    }

    /// Removes the remaining cells of a kernel, and returns their ids.
    fn take(&mut self, kernel: &Id, from: Waits) -> Vec<CellId> {
        let all = self.kernels.get_mut(kernel).into_iter().flatten().zip(&self.cells);
        let left = all.filter(|(waits, _)| **waits == from).map(|(waits, cell)| {
            *waits = Waits::Told;
            cell.clone()
        });
        let mut left: Vec<CellId> = left.collect();
        left.sort();
        left
    }
}

/// State of a kernel after some of its shards.
#[derive(Debug, Default)]
struct Through {
    started: bool,
    guests: u32,
    peak_memory_kib: Option<u64>,
    gave_up: bool,
    /// Longest wall time of its shards, milliseconds: they ran in parallel.
    wall_ms: Option<u64>,
}

/// How a line of a shard is replayed.
enum Line {
    /// Unchanged.
    Same(Event),
    /// Changed.
    Changed(Event),
    /// Not replayed, because it is written once for all shards.
    Dropped,
}

/// The merged run so far, in memory and on disk.
pub(super) struct Replay<'a> {
    record: RunRecord,
    log: Option<&'a mut EventLog>,
    ledger: Ledger,
    kernels: BTreeMap<Id, Through>,
    last_ms: u64,
    wall_ms: u64,
}

impl<'a> Replay<'a> {
    pub(super) fn new(plan: &Plan, log: Option<&'a mut EventLog>, started_ms: u64) -> Self {
        let (record, ledger, kernels) = (RunRecord::default(), Ledger::new(plan), BTreeMap::new());
        Self { record, log, ledger, kernels, last_ms: started_ms, wall_ms: 0 }
    }

    /// Adds an event that is not copied from a shard.
    pub(super) fn take(&mut self, at_ms: u64, event: Event) -> Result<(), Error> {
        let stamped = Stamped { at_ms, event };
        if let Some(log) = &mut self.log {
            log.event(&stamped, &self.record)?;
        }
        self.record.take(stamped);
        Ok(())
    }

    fn copy(&mut self, lines: &[u8]) -> Result<(), Error> {
        match &mut self.log {
            Some(log) if !lines.is_empty() => Ok(log.copy(lines)?),
            _ => Ok(()),
        }
    }

    fn not_run(&mut self, at_ms: u64, kernel: &Id, cell: CellId, message: String) -> Result<(), Error> {
        let verdict = Box::new(Verdict::bare(cell, Outcome::NotRun { message }));
        self.take(at_ms, Event::CellFinished { kernel: kernel.clone(), guest: 0, verdict })
    }

    /// Replays a shard; its guests are numbered after those of the shards before it.
    pub(super) fn shard(
        &mut self,
        shard: Brought,
        into: Option<&Path>,
        lines: &Receiver<EventLines>,
    ) -> Result<(), Error> {
        let shift: BTreeMap<Id, u32> = self.kernels.iter().map(|(id, it)| (id.clone(), it.guests)).collect();
        if let Some(into) = into {
            files::copy(&shard.directory, into, &shard.part, shard.kernels.iter().map(|(id, _)| id), &shift)?;
        }
        let number = shard.part.number;
        if let Some((kernel, cell)) = &shard.stranger {
            return Err(shard.overlap(kernel, cell));
        }
        for (id, cells) in &shard.kernels {
            for place in cells.iter().map(|&place| place as usize) {
                if !self.ledger.claim(id, place, number) {
                    return Err(shard.overlap(id, &self.ledger.cells[place]));
                }
            }
        }
        let mut telling =
            Telling { shard: &shard, shift, running: BTreeMap::new(), last_ms: shard.started_ms, finished: false };
        for lines in lines {
            let end = self.lines(&mut telling, lines)?;
            match end {
                None => {}
                Some(Ok(())) => break,
                Some(Err(error)) => return Err(error.into()),
            }
        }
        self.end_shard(telling)
    }

    /// Replays a batch; returns its end.
    fn lines(&mut self, telling: &mut Telling<'_>, lines: EventLines) -> Result<Option<Result<(), LogError>>, Error> {
        let EventLines { text, events, checks, end: last } = lines;
        // Consecutive unchanged lines are written in one piece.
        let (mut copied, mut begin) = (0, 0);
        for LineEvent { stamped: Stamped { at_ms, event }, end, checks: own } in events {
            telling.last_ms = telling.last_ms.max(at_ms);
            match self.line(telling, event)? {
                Line::Same(event) => self.record.take_line(Stamped { at_ms, event }, checks.of(own)),
                other => {
                    self.copy(&text[copied..begin])?;
                    copied = end;
                    if let Line::Changed(mut event) = other {
                        if let Event::CellFinished { verdict, .. } = &mut event {
                            verdict.report.checks = checks.of(own).owned();
                        }
                        self.take(at_ms, event)?;
                    }
                }
            }
            begin = end;
        }
        self.copy(&text[copied..begin])?;
        Ok(last)
    }

    fn line(&mut self, telling: &mut Telling<'_>, mut event: Event) -> Result<Line, Error> {
        let mut changed = false;
        if let Some((kernel, guest)) = guest(&mut event) {
            let shift = telling.shift.get(kernel).copied().unwrap_or_default();
            // 0 means that no guest was running.
            changed = *guest > 0 && shift > 0;
            let number = guest.checked_add(if changed { shift } else { 0 });
            let many = || ShardError::TooManyGuests { path: telling.shard.path.clone(), kernel: kernel.to_string() };
            *guest = number.ok_or_else(many)?;
            let through = through(&mut self.kernels, kernel);
            through.guests = through.guests.max(*guest);
        }
        let once = match &event {
            Event::RunStarted { .. } => true,
            // Every shard has the same topology library.
            Event::Topologies { .. } => !self.record.topologies.is_empty(),
            Event::RunFinished { wall_ms, .. } => {
                telling.finished = true;
                self.wall_ms = self.wall_ms.max(*wall_ms);
                true
            }
            Event::KernelStarted { kernel, .. } => {
                std::mem::replace(&mut through(&mut self.kernels, kernel).started, true)
            }
            Event::KernelFinished { kernel, peak_memory_kib, gave_up, wall_ms, .. } => {
                let through = through(&mut self.kernels, kernel);
                through.peak_memory_kib = through.peak_memory_kib.max(*peak_memory_kib);
                through.gave_up |= gave_up;
                through.wall_ms = through.wall_ms.max(Some(*wall_ms));
                true
            }
            Event::CellStarted { kernel, cell, .. } => {
                telling.running.insert(kernel.clone(), cell.clone());
                false
            }
            Event::CellAdopted { kernel, info, .. } => {
                if !self.ledger.adopt(kernel, &info.id, telling.shard.part.number) {
                    return Err(telling.shard.overlap(kernel, &info.id));
                }
                false
            }
            Event::CellFinished { kernel, verdict, .. } => {
                let cell = &verdict.report.cell;
                let own = Waits::For(telling.shard.part.number);
                if !self.ledger.pass(kernel, cell, own, Waits::Told) {
                    let (path, kernel, cell) = (telling.shard.path.clone(), kernel.to_string(), cell.to_string());
                    return Err(ShardError::ForeignCell { path, kernel, cell }.into());
                }
                false
            }
            _ => false,
        };
        Ok(match (once, changed) {
            (true, _) => Line::Dropped,
            (false, true) => Line::Changed(event),
            (false, false) => Line::Same(event),
        })
    }

    /// Adds verdicts for cells that the shard did not finish.
    fn end_shard(&mut self, telling: Telling<'_>) -> Result<(), Error> {
        let Telling { shard, running, last_ms, finished, .. } = telling;
        let part = shard.part;
        let mut kernels: Vec<&Id> = shard.kernels.iter().map(|(id, _)| id).collect();
        kernels.sort_unstable();
        for kernel in kernels {
            for cell in self.ledger.take(kernel, Waits::For(part.number)) {
                let message = match running.get(kernel) {
                    Some(running) if !finished && *running == cell => {
                        format!("shard {part} ended while the cell was running")
                    }
                    _ => format!("shard {part} ended before the cell"),
                };
                self.not_run(last_ms, kernel, cell, message)?;
            }
        }
        self.last_ms = self.last_ms.max(last_ms);
        Ok(())
    }

    /// Ends a kernel; `missing` names its missing shards, if any.
    pub(super) fn end_kernel(&mut self, kernel: &Id, missing: Option<String>) -> Result<(), Error> {
        if let Some(text) = missing.clone() {
            self.take(self.last_ms, Event::Note { kernel: kernel.clone(), text })?;
        }
        let message = missing.unwrap_or_else(|| "no shard has the cell in its plan".to_owned());
        for cell in self.ledger.take(kernel, Waits::Unclaimed) {
            self.not_run(self.last_ms, kernel, cell, message.clone())?;
        }
        if let Some(Through { guests, peak_memory_kib, gave_up, wall_ms: Some(wall_ms), .. }) =
            self.kernels.remove(kernel)
        {
            let kernel = kernel.clone();
            self.take(self.last_ms, Event::KernelFinished { kernel, guests, peak_memory_kib, gave_up, wall_ms })?;
        }
        Ok(())
    }

    /// Ends the run.
    pub(super) fn end(mut self) -> Result<RunRecord, Error> {
        let exit = self.record.exit();
        self.take(self.last_ms, Event::RunFinished { exit, wall_ms: self.wall_ms })?;
        Ok(self.record)
    }
}

/// A shard that is being replayed.
struct Telling<'a> {
    shard: &'a Brought,
    /// Offset of its guests' numbers, by kernel.
    shift: BTreeMap<Id, u32>,
    /// The running cell, by kernel.
    running: BTreeMap<Id, CellId>,
    last_ms: u64,
    finished: bool,
}

fn through<'a>(kernels: &'a mut BTreeMap<Id, Through>, kernel: &Id) -> &'a mut Through {
    kernels.entry(kernel.clone()).or_default()
}

/// The kernel and the guest number of an event.
fn guest(event: &mut Event) -> Option<(&Id, &mut u32)> {
    match event {
        Event::GuestStarted { kernel, guest, .. }
        | Event::Booted { kernel, guest, .. }
        | Event::Probed { kernel, guest, .. }
        | Event::CellStarted { kernel, guest, .. }
        | Event::CellRetried { kernel, guest, .. }
        | Event::CellFinished { kernel, guest, .. }
        | Event::Splat { kernel, guest, .. }
        | Event::GuestEnded { kernel, guest, .. }
        | Event::GuestLost { kernel, guest, .. } => Some((kernel, guest)),
        Event::RunStarted { .. }
        | Event::Topologies { .. }
        | Event::KernelStarted { .. }
        | Event::Note { .. }
        | Event::CellAdopted { .. }
        | Event::Slow { .. }
        | Event::KernelFinished { .. }
        | Event::RunFinished { .. } => None,
    }
}
