//! The witness of a whole machine, live, for as long as somebody watches.

use super::{
    Witness,
    calls::{self, Calls},
    now_ns, state,
};
use lab_bpf::watch::{self, Watch};
use lab_protocol::witness::{Account, LIVE_VERSION, LiveLine};
use lab_topology::unpoisoned;
use lab_witness::{AttachEvent, Book, EndedProgram, ListedAttachment};
use std::{
    collections::{HashMap, HashSet},
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// Time between two looks at what was lost.
const LOOK_AT_LOST: Duration = Duration::from_secs(1);
/// Namespaces without a name that are remembered, at most.
const NAMELESS: usize = 1 << 16;

/// Watches everything that is attached on this machine, except by its own process.
pub struct LiveWitness {
    watch: Arc<Mutex<Watch>>,
    book: Book,
    before: Vec<ListedAttachment>,
    sources: Vec<String>,
    /// Lost before it began.
    lost: u64,
    told_lost: u64,
    looked: Instant,
    counting: Option<OwnedFd>,
    /// Namespaces that have no name.
    nameless: HashSet<u32>,
    /// Where only system calls are watched.
    calls: Option<Calls>,
    partial: Option<String>,
}

impl Witness {
    /// Begins to watch; `own` is the name of this process's network namespace. With `counts_runs` the kernel counts how often each
    /// program runs, which makes every run of every program a little slower.
    pub fn follow(&self, own: &str, counts_runs: bool) -> LiveWitness {
        let mut sources = self.sources.clone();
        let counting = counts_runs.then(watch::count_runs).and_then(|counting| {
            counting.map_err(|error| sources.push(format!("no program's runs are known: {error}"))).ok()
        });
        if !counts_runs {
            sources.push("not counted: how often programs run (--runs has the kernel count)".to_owned());
        }
        let begun_ns = now_ns();
        let calls = self.partial.as_ref().map(|_| Calls::new(&[], &mut sources));
        let mut locked = unpoisoned(self.watch.lock());
        locked.drain(|_| ());
        let lost = locked.lost().unwrap_or_default();
        let before = state::read(&[], locked.programs());
        drop(locked);
        let names: HashMap<u32, String> = state::own().map(|(inode, _)| (inode, own.to_owned())).into_iter().collect();
        let mut book = Book::new(names, begun_ns).followed();
        before.iter().for_each(|it| book.name(it.target.netns, || state::named(it.target.netns)));
        book.knows(&before, now_ns());
        let book = if counting.is_some() { book } else { book.without_runs() };
        let book = if calls.is_some() { calls::book(book) } else { book };
        LiveWitness {
            watch: Arc::clone(&self.watch),
            book,
            before,
            sources,
            lost,
            told_lost: 0,
            looked: Instant::now(),
            counting,
            nameless: HashSet::new(),
            calls,
            partial: self.partial.clone(),
        }
    }
}

impl LiveWitness {
    /// A descriptor that is readable while there are events.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn bell(&self) -> io::Result<OwnedFd> {
        unpoisoned(self.watch.lock()).bell()
    }

    /// The first line.
    pub fn begun(&self) -> LiveLine {
        LiveLine::Begun {
            version: LIVE_VERSION,
            sources: self.sources.clone(),
            attached: self.before.iter().filter(|standing| standing.attach.is_some()).count() as u64,
        }
    }

    /// What has happened since the last look.
    pub fn look(&mut self) -> Vec<LiveLine> {
        let mut watch = unpoisoned(self.watch.lock());
        let (book, nameless) = (&mut self.book, &mut self.nameless);
        let links = if self.calls.is_some() { book.link_ids() } else { Vec::new() };
        let mut take = |event: AttachEvent| {
            let netns = event.target.netns;
            if !nameless.contains(&netns) {
                let mut is_nameless = false;
                book.name(netns, || {
                    let name = state::named(netns);
                    is_nameless = name.is_none();
                    name
                });
                if is_nameless && nameless.len() < NAMELESS {
                    nameless.insert(netns);
                }
            }
            book.take(event);
        };
        match &mut self.calls {
            Some(calls) => calls.drain(&mut watch, &links, take),
            None => watch.drain(|bytes| AttachEvent::decode(bytes).into_iter().for_each(&mut take)),
        }
        let mut lines = book.steps();
        if self.looked.elapsed() >= LOOK_AT_LOST {
            self.looked = Instant::now();
            let notices = self.calls.as_ref().map_or(0, |calls| calls.lost);
            let total = watch.lost().unwrap_or_default().saturating_sub(self.lost) + notices;
            if total > self.told_lost {
                self.told_lost = total;
                lines.push(LiveLine::Lost { total });
            }
        }
        lines
    }

    /// The last lines: what has happened since the last look, and the account with what is left.
    pub fn finish(mut self) -> Vec<LiveLine> {
        let mut lines = self.look();
        let watch = unpoisoned(self.watch.lock());
        let after = state::read(&[], watch.programs());
        drop(watch);
        // What ended while the list was read.
        lines.extend(self.look());
        if self.counting.is_some() {
            for id in lab_bpf::prog_ids().unwrap_or_default() {
                let info = lab_bpf::prog_fd(id).and_then(|fd| lab_bpf::program_info(&fd));
                // One that has gone meanwhile was in the events.
                if let Ok(info) = info {
                    self.book.ran(EndedProgram { id, runs: Some(info.run_count) });
                }
            }
        }
        let lost = unpoisoned(self.watch.lock()).lost().unwrap_or(u64::MAX).saturating_sub(self.lost);
        let lost = lost.saturating_add(self.calls.as_ref().map_or(0, |calls| calls.lost));
        let account = self.book.close(&self.before, &after, self.sources, lost);
        let account = Account { partial: self.partial, ..account };
        lines.push(LiveLine::Ended { account: Box::new(account) });
        lines
    }
}
