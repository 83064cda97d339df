//! The witness in a guest: watches what others attach, and reads the kernel's lists.
//!
//! Where to start: [`Witness::load`] once in the life of a guest, [`Witness::begin`] before a program starts, and
//! [`Watching::finish`] once all of its processes have ended.

mod calls;
mod cell;
mod effects;
mod live;
mod marks;
mod programs;
mod state;

use crate::fence;
use calls::Calls;
pub use cell::CellWatching;
use effects::EffectsBegin;
pub use lab_bpf::watch::WatchError;
use lab_bpf::watch::{self, Watch, WatchObject};
use lab_protocol::witness::Account;
use lab_topology::{Netns, unpoisoned};
use lab_witness::{AttachEvent, Book, EndedProgram};
pub use lab_witness::{ListedAttachment, WitnessFault};
pub use live::LiveWitness;
use marks::{Marks, State};
use nix::time::{ClockId, clock_gettime};
use std::{
    collections::{BTreeSet, HashMap},
    io::{PipeReader, PipeWriter, pipe},
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Path of the object in a guest.
pub const OBJECT: &str = "/lib/bpf/witness.o";
/// Longest time between two looks at the events, milliseconds.
const LOOK: u16 = 10;
/// Time within which the kernel frees nearly every program whose last user has gone.
const FREED_WITHIN: Duration = Duration::from_millis(200);
const POLL: Duration = Duration::from_millis(2);
/// Time between two looks at the memory.
const LOOK_AT_MEMORY: Duration = Duration::from_millis(50);
/// One pass of the kernel's clean-up of dead namespaces, at most.
const FENCE: Duration = Duration::from_secs(10);
/// No process has this number.
const NO_PROCESS: u32 = 0;
/// What no event tells.
const UNSEEN: &str =
    "not seen: programs that are attached by ioctl (perf events, sockets), actions of act_bpf, and LWT programs";

/// Whose attachments are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Those of all processes but the agent's own.
    Others,
    /// Those of the agent's own process too, which runs the suite's cases.
    All,
}

/// The witness, loaded; it stays loaded as long as the guest lives, since detaching takes seconds in an emulated one.
#[derive(Debug)]
pub struct Witness {
    watch: Arc<Mutex<Watch>>,
    sources: Vec<String>,
    /// Why the kernel's functions can't be watched, if only the system calls are.
    partial: Option<String>,
    /// What was read ahead for the next program.
    ahead: Mutex<Option<BeginState>>,
}

/// What a program is compared with.
#[derive(Debug)]
struct BeginState {
    counting: Result<OwnedFd, String>,
    before: Vec<ListedAttachment>,
    /// When `before` was complete.
    listed_ns: u64,
    /// Events that were lost.
    lost: u64,
    /// Programs that there were, and maps.
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    /// Programs of the witness itself.
    own: Vec<u32>,
    /// Names of network namespaces, by inode.
    names: HashMap<u32, String>,
    state: State,
    machine: EffectsBegin,
}

impl Witness {
    /// Loads the programs and attaches them to the kernel's functions.
    ///
    /// # Errors
    /// Why this kernel's functions can't be watched.
    pub fn load(whom: Whom) -> Result<Self, WatchError> {
        Self::load_from(Path::new(OBJECT), whom)
    }

    /// As [`Self::load`], with the object at a path.
    ///
    /// # Errors
    /// Likewise.
    pub fn load_from(object: &Path, whom: Whom) -> Result<Self, WatchError> {
        let object = WatchObject::open(object)?;
        let own = if whom == Whom::Others { std::process::id() } else { NO_PROCESS };
        let (watch, partial) = match Watch::start(&object, own) {
            Ok(watch) => (watch, None),
            // The suite's readings are held against every event.
            Err(error) if whom == Whom::All => return Err(error),
            Err(error) => {
                let partial = Some(error.to_string());
                let neither = |calls| WatchError::Neither { functions: Box::new(error), calls: Box::new(calls) };
                (Watch::calls(&object, own).map_err(neither)?, partial)
            }
        };
        let sources = sources(&watch, partial.as_deref());
        Ok(Self { watch: Arc::new(Mutex::new(watch)), sources, partial, ahead: Mutex::default() })
    }

    /// Reads the begin of the next program now, for one that starts in the guest's own network namespaces: in a guest that is
    /// saved next, since reading takes a restored one a fifth of a second. Nothing but the agent may run until then.
    pub fn look_ahead(&self) {
        let read = self.read(&[]);
        *unpoisoned(self.ahead.lock()) = Some(read);
    }

    fn read(&self, nodes: &[Netns]) -> BeginState {
        let counting = watch::count_runs().map_err(|error| error.to_string());
        let names: HashMap<u32, String> =
            nodes.iter().map(|ns| (ns.inode() as u32, ns.name().to_owned())).chain(state::own()).collect();
        let mut watch = unpoisoned(self.watch.lock());
        let own = watch.programs().to_vec();
        // What happened while the guest was made ready.
        watch.drain(|_| ());
        let lost = watch.lost().unwrap_or_default();
        drop(watch);
        let before = state::read(nodes, &own);
        let listed_ns = now_ns();
        let programs = lab_bpf::prog_ids().unwrap_or_default().into_iter().collect();
        let maps: BTreeSet<u32> = lab_bpf::map_ids().unwrap_or_default().into_iter().collect();
        let state = State::read(nodes, &own, &maps, &names);
        BeginState {
            counting,
            before,
            listed_ns,
            lost,
            programs,
            maps,
            own,
            names,
            state,
            machine: EffectsBegin::now(),
        }
    }

    /// Begins to watch. `nodes` have the names of network namespaces.
    pub fn begin(&self, nodes: &[Netns]) -> Watching {
        let ahead = unpoisoned(self.ahead.lock()).take().filter(|_| nodes.is_empty());
        let begin = match ahead {
            Some(ahead) => BeginState { machine: ahead.machine.again(), ..ahead },
            None => self.read(nodes),
        };
        let BeginState { counting, before, listed_ns, lost, programs, maps, own, names, state, machine } = begin;
        let mut sources = self.sources.clone();
        let calls = self.partial.as_ref().map(|_| Arc::new(Mutex::new(Calls::new(nodes, &mut sources))));
        if let Err(error) = &counting {
            sources.push(format!("no program's runs are known: {error}"));
        }
        let bell = unpoisoned(self.watch.lock()).bell();
        let begun_ns = now_ns();
        let marker =
            Marker { own, maps, names: names.clone(), begun_ns, marks: Arc::new(Mutex::new(Marks::new(state))) };
        let machine = Arc::new(Mutex::new(machine));
        let mut book = Book::new(names, begun_ns);
        book.knows(&before, listed_ns);
        let book = if calls.is_some() { calls::book(book) } else { book };
        let book = Arc::new(Mutex::new(if counting.is_ok() { book } else { book.without_runs() }));
        let started = bell.and_then(|bell| {
            let (watch, book) = (Arc::clone(&self.watch), Arc::clone(&book));
            let (machine, calls) = (Arc::clone(&machine), calls.clone());
            let (end, stop) = pipe()?;
            let read = move || read_on(&bell, &end, (&watch, &book, calls.as_deref()), &machine);
            Ok((thread::Builder::new().name("witness".into()).spawn(read)?, stop))
        });
        let reader = started.ok();
        if reader.is_none() {
            sources.push("no thread for the events: those beyond the ring buffer are lost".to_owned());
        }
        Watching {
            watch: Arc::clone(&self.watch),
            book,
            before,
            programs,
            sources,
            lost,
            reader,
            counting: counting.ok(),
            marker,
            machine,
            calls,
            partial: self.partial.clone(),
        }
    }
}

/// A program is being watched.
pub struct Watching {
    watch: Arc<Mutex<Watch>>,
    book: Arc<Mutex<Book>>,
    before: Vec<ListedAttachment>,
    /// Programs that there were.
    programs: BTreeSet<u32>,
    sources: Vec<String>,
    lost: u64,
    /// Reads events until the other end of its pipe is closed.
    reader: Option<(JoinHandle<()>, PipeWriter)>,
    counting: Option<OwnedFd>,
    marker: Marker,
    machine: Arc<Mutex<EffectsBegin>>,
    /// Where only system calls are watched.
    calls: Option<Arc<Mutex<Calls>>>,
    partial: Option<String>,
}

/// Makes marks, on any thread, while the program runs.
#[derive(Clone)]
pub struct Marker {
    own: Vec<u32>,
    maps: BTreeSet<u32>,
    names: HashMap<u32, String>,
    begun_ns: u64,
    marks: Arc<Mutex<Marks>>,
}

impl Marker {
    /// Makes a mark: reads the state of the kernel. Gives the number of changes since the last one, or `None` beyond
    /// [`lab_protocol::witness::MARKS`].
    pub fn mark(&self, name: &str, nodes: &[Netns]) -> Option<usize> {
        // The lock first: marks are in the order in which the state was read.
        let mut marks = unpoisoned(self.marks.lock());
        let state = self.state(nodes);
        marks.add(name.to_owned(), self.at_ms(), state)
    }

    fn state(&self, nodes: &[Netns]) -> State {
        State::read(nodes, &self.own, &self.maps, &self.names)
    }

    fn at_ms(&self) -> u64 {
        now_ns().saturating_sub(self.begun_ns) / 1_000_000
    }
}

impl Watching {
    /// What makes marks.
    pub fn marker(&self) -> Marker {
        self.marker.clone()
    }

    /// The account, once every process of the program has ended and before its topology is deleted.
    pub fn finish(mut self, nodes: &[Netns]) -> Account {
        let effects = std::mem::take(&mut *unpoisoned(self.machine.lock())).finish();
        let own = unpoisoned(self.watch.lock()).programs().to_vec();
        let mut after = state::read(nodes, &own);
        let is_new = |standing: &ListedAttachment| !self.before.contains(standing);
        if after.iter().any(is_new) && fence::pass(Instant::now() + FENCE).is_ok() {
            // What hangs on a dead namespace has gone by now.
            after = state::read(nodes, &own);
        }
        let attached: BTreeSet<u32> = after.iter().map(|standing| standing.program.id).collect();
        let begin = Instant::now();
        let mut alive = self.new_programs(&own);
        while begin.elapsed() < FREED_WITHIN && alive.iter().any(|id| !attached.contains(id)) {
            thread::sleep(POLL);
            alive = self.new_programs(&own);
        }
        if let Some((reader, stop)) = self.reader.take() {
            drop(stop);
            let _ = reader.join();
        }
        let mut watch = unpoisoned(self.watch.lock());
        let mut shared = unpoisoned(self.book.lock());
        let mut book = std::mem::take(&mut *shared);
        drop(shared);
        let mut calls = self.calls.as_ref().map(|calls| unpoisoned(calls.lock()));
        enter(&mut watch, &mut book, calls.as_deref_mut());
        if self.counting.is_some() {
            // How often the witness's own ran is of no interest.
            for id in alive.iter().chain(self.programs.iter().filter(|id| !own.contains(id))) {
                let info = lab_bpf::prog_fd(*id).and_then(|fd| lab_bpf::program_info(&fd));
                // One that has gone meanwhile was in the events.
                if let Ok(info) = info {
                    book.ran(EndedProgram { id: *id, runs: Some(info.run_count) });
                }
            }
        }
        let lost = watch.lost().unwrap_or(u64::MAX).saturating_sub(self.lost);
        let lost = lost.saturating_add(calls.map_or(0, |calls| calls.lost));
        let account = book.close(&self.before, &after, std::mem::take(&mut self.sources), lost);
        let marks = std::mem::take(&mut *unpoisoned(self.marker.marks.lock()));
        let marks = marks.finish(self.marker.at_ms(), || self.marker.state(nodes));
        Account { marks, effects: Some(effects), partial: self.partial.take(), ..account }
    }

    fn new_programs(&self, own: &[u32]) -> Vec<u32> {
        let all = lab_bpf::prog_ids().unwrap_or_default();
        all.into_iter().filter(|id| !self.programs.contains(id) && !own.contains(id)).collect()
    }
}

/// The account of a kernel whose functions can't be watched: what is left.
pub fn without_events(before: &[ListedAttachment], nodes: &[Netns], reason: String) -> Account {
    let after = state::read(nodes, &[]);
    let account = Book::new(HashMap::new(), now_ns()).close(before, &after, Vec::new(), 0);
    let only = "the kernel's lists at the begin and at the end: what was attached and detached in between is not seen";
    Account { absent: Some(reason), sources: vec![only.to_owned()], ..account }
}

/// What is attached now.
pub fn standing(nodes: &[Netns]) -> Vec<ListedAttachment> {
    state::read(nodes, &[])
}

fn read_on(
    bell: &OwnedFd,
    end: &PipeReader,
    (watch, book, calls): (&Mutex<Watch>, &Mutex<Book>, Option<&Mutex<Calls>>),
    machine: &Mutex<EffectsBegin>,
) {
    let mut looked = Instant::now();
    while watch::wait(bell, end, LOOK) {
        if looked.elapsed() >= LOOK_AT_MEMORY {
            unpoisoned(machine.lock()).look();
            looked = Instant::now();
        }
        let (mut watch, mut book) = (unpoisoned(watch.lock()), unpoisoned(book.lock()));
        let mut calls = calls.map(|calls| unpoisoned(calls.lock()));
        enter(&mut watch, &mut book, calls.as_deref_mut());
    }
}

fn enter(watch: &mut Watch, book: &mut Book, calls: Option<&mut Calls>) {
    if let Some(calls) = calls {
        let links = book.link_ids();
        calls.drain(watch, &links, |event| book.take(event));
        return;
    }
    watch.drain(|bytes| {
        if let Some(event) = AttachEvent::decode(bytes) {
            book.take(event);
        }
    });
}

fn sources(watch: &Watch, partial: Option<&str>) -> Vec<String> {
    if let Some(reason) = partial {
        let source = "calls of bpf(2) (raw tracepoints of system calls), rtnetlink's notices about filters, and the kernel's lists at \
                      the begin and at the end";
        let source = format!("{source}; functions can't be watched: {reason}");
        return std::iter::once(&*source).chain(calls::UNSEEN).chain([UNSEEN]).map(str::to_owned).collect();
    }
    let mut told = vec!["the kernel's functions (fentry, fexit), and its lists at the begin and at the end".to_owned()];
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for (function, reason) in watch.unwatched() {
        match reasons.iter_mut().find(|(known, _)| known == reason) {
            Some((_, functions)) => functions.push(function),
            None => reasons.push((reason, vec![function])),
        }
    }
    told.extend(
        reasons.into_iter().map(|(reason, functions)| format!("not watched: {} ({reason})", functions.join(", "))),
    );
    told.push(UNSEEN.to_owned());
    told
}

/// `CLOCK_BOOTTIME`, which is the events' clock.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    now.map_or(0, |now| u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))
}
