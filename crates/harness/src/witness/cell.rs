//! The witness of the suite's own cells: its account is held against every reading that a case takes of the kernel.

use super::{FENCE, Witness, enter, now_ns, state};
use crate::fence;
use lab_bpf::{
    LinkInfo, Observed,
    reading::{self, KernelAnswer, Listener},
    watch::Watch,
};
use lab_protocol::{
    AttachType, CellReport, Hook,
    witness::{Account, DIFFERENCES, Readings},
};
use lab_topology::{Netns, unpoisoned};
use lab_witness::{AttachEvent, Book, OnHook, WitnessFault};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The calling thread's network namespace.
const HERE: &str = "/proc/thread-self/ns/net";
/// Time for the events of what other threads were at during a reading.
const WRITTEN_WITHIN: Duration = Duration::from_secs(1);

/// A cell that is watched.
pub struct CellWatching {
    ear: Arc<Ear>,
    sources: Vec<String>,
    lost: u64,
}

/// Hears of the readings.
struct Ear {
    watch: Arc<Mutex<Watch>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    book: Book,
    readings: Readings,
}

impl Witness {
    /// Begins to watch a cell of the agent's own process.
    pub fn begin_cell(&self, fault: Option<WitnessFault>) -> CellWatching {
        let mut watch = unpoisoned(self.watch.lock());
        watch.drain(|_| ());
        let lost = watch.lost().unwrap_or_default();
        drop(watch);
        let book = Book::new(state::own().into_iter().collect(), now_ns()).with_fault(fault).without_runs();
        let seen = Mutex::new(Seen { book, readings: Readings::default() });
        let ear = Arc::new(Ear { watch: Arc::clone(&self.watch), seen });
        reading::listen(Some(Arc::<Ear>::clone(&ear)));
        CellWatching { ear, sources: self.sources.clone(), lost }
    }
}

impl CellWatching {
    /// The account, once the cell's leaks were looked for.
    pub fn finish(self, report: &CellReport) -> Account {
        reading::listen(None);
        let mut watch = unpoisoned(self.ear.watch.lock());
        let mut seen = std::mem::take(&mut *unpoisoned(self.ear.seen.lock()));
        enter(&mut watch, &mut seen.book, None);
        if !seen.book.standing().is_empty() && fence::pass(Instant::now() + FENCE).is_ok() {
            // The programs of a netkit peer are free once it has gone, and the primary goes next.
            enter(&mut watch, &mut seen.book, None);
        }
        let lost = watch.lost().unwrap_or(u64::MAX).saturating_sub(self.lost);
        let Seen { book, mut readings } = seen;
        if lost == 0 && !report.log.iter().any(|line| line.starts_with(crate::leaks::LEFT)) {
            for standing in book.standing() {
                readings.differ(format!("{standing} is attached by the events, and the suite found nothing left"));
            }
            if book.unexplained() > 0 {
                let count = book.unexplained();
                readings.differ(format!("{count} attachments ended by the events, and no event began them"));
            }
        }
        let account = book.close(&[], &[], self.sources, lost);
        Account { readings: Some(readings), ..account }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        let mut watch = unpoisoned(self.watch.lock());
        watch.drain(|_| ());
    }
}

impl Ear {
    fn with<R>(&self, work: impl FnOnce(&mut Watch, &mut Seen) -> R) -> R {
        let mut watch = unpoisoned(self.watch.lock());
        let mut seen = unpoisoned(self.seen.lock());
        enter(&mut watch, &mut seen.book, None);
        work(&mut watch, &mut seen)
    }
}

impl Listener for Ear {
    fn asks(&self) -> u64 {
        self.with(|_, seen| seen.book.events())
    }

    fn answered(&self, asked: u64, reading: &KernelAnswer<'_>) {
        let netns = fs::metadata(HERE).map_or(0, |found| found.ino() as u32);
        let is_clear = self.with(|_, seen| {
            seen.book.name(netns, || named(netns));
            let is_clear = seen.book.events() == asked;
            let counter = if is_clear { &mut seen.readings.compared } else { &mut seen.readings.unclear };
            *counter += 1;
            is_clear
        });
        if !is_clear || self.with(|_, seen| differences(&seen.book, netns, reading)).is_empty() {
            return;
        }
        // Another thread may have changed what was listed and not have written its event yet.
        self.with(|watch, seen| {
            let is_settled = settle(watch, &mut seen.book);
            if is_settled && seen.book.events() == asked {
                differences(&seen.book, netns, reading).into_iter().for_each(|line| seen.readings.differ(line));
            } else {
                seen.readings.compared -= 1;
                seen.readings.unclear += 1;
            }
        });
    }
}

/// Enters the events of everything that has begun; gives whether they are all there, and no device is on its way to another
/// namespace.
fn settle(watch: &mut Watch, book: &mut Book) -> bool {
    let take = |bytes: &[u8]| {
        if let Some(event) = AttachEvent::decode(bytes) {
            book.take(event);
        }
    };
    watch.settle(WRITTEN_WITHIN, take).unwrap_or(false) && !book.is_moving()
}

/// The topology's name of a namespace.
fn named(inode: u32) -> Option<String> {
    let living = Netns::living().unwrap_or_default();
    living.iter().find(|ns| ns.inode() as u32 == inode).map(|ns| ns.name().to_owned())
}

fn differences(book: &Book, netns: u32, reading: &KernelAnswer<'_>) -> Vec<String> {
    match reading {
        KernelAnswer::Device { ifindex, hooks, found } => {
            hooks.iter().filter_map(|hook| of_hook(book, (netns, *ifindex), *hook, found)).collect()
        }
        KernelAnswer::Link(info) => of_link(book, info).into_iter().collect(),
    }
}

fn of_hook(book: &Book, (netns, ifindex): (u32, u32), hook: Hook, found: &[Observed]) -> Option<String> {
    let listed = found.iter().filter(|seen| seen.hook == hook);
    let listed: BTreeSet<OnHook> = listed.map(|seen| (seen.prog_id, seen.link_id)).collect();
    let mut told = book.on(netns, ifindex, hook.name());
    if hook.attach_type() == AttachType::Tc {
        let shared = book.in_blocks();
        told.extend(listed.iter().filter(|(program, _)| shared.contains(program)));
    }
    (listed != told).then(|| {
        let place = book.device(netns, ifindex);
        format!("{hook} of {place}: the kernel lists {}, by the events it has {}", list(&listed), list(&told))
    })
}

/// The index of a link of netkit's peer is valid in the peer's namespace: only whether there is one can be compared.
fn of_link(book: &Book, info: &LinkInfo) -> Option<String> {
    let told = |program: Option<u32>| match program {
        Some(program) => format!("on a device with program {program}"),
        None => "on no device".to_owned(),
    };
    let listed = (info.ifindex != 0).then_some(info.prog_id);
    let seen = book.link_program(info.id);
    (listed != seen)
        .then(|| format!("link {}: the kernel has it {}, by the events it is {}", info.id, told(listed), told(seen)))
}

fn list(on: &BTreeSet<OnHook>) -> String {
    let each = on.iter().map(|(program, link)| match link {
        Some(link) => format!("program {program} (link {link})"),
        None => format!("program {program}"),
    });
    let all: Vec<String> = each.collect();
    if all.is_empty() { "nothing".to_owned() } else { all.join(" and ") }
}

/// Adds a difference, as far as there is room.
trait Differ {
    fn differ(&mut self, line: String);
}

impl Differ for Readings {
    fn differ(&mut self, line: String) {
        if self.differing.len() < DIFFERENCES {
            self.differing.push(line);
        }
    }
}
