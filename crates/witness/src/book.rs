//! Enters events into rows, and keeps what is attached.

use crate::{
    decode::{AttachEvent, SeenDevice, SeenProgram, What},
    fault::WitnessFault,
    live::{Doer, Steps},
    names::Hooked,
    netkit,
    request::FilterRequest,
};
use lab_protocol::{
    AttachType,
    witness::{AttachPlace, AttachRow, AttachWay, DeviceRow, LiveVerb, ROWS, errno_name, process_named},
};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Attachments that are followed at the same time, at most; those beyond are counted in their rows, and their ends are not.
pub(crate) const ALIVE: usize = 1 << 16;
/// Programs whose runs are followed at the same time, at most.
pub(crate) const PROGRAMS: usize = 1 << 16;
/// Ids of programs in a row.
const IDS: usize = 16;

/// Something that is attached, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedAttachment {
    /// The mechanism.
    pub attach: Option<AttachType>,
    /// The hook.
    pub hook: String,
    /// The device; index 0 for a link without one.
    pub target: SeenDevice,
    /// The program.
    pub program: SeenProgram,
    /// The link, where it is one.
    pub link: Option<u32>,
    /// The link is on no hook any more.
    pub is_detached: bool,
}

/// A program at its end, or at the end of the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedProgram {
    /// Its id.
    pub id: u32,
    /// How often it ran; `None` where the kernel did not count.
    pub runs: Option<u64>,
}

/// An attachment that no event has ended.
#[derive(Debug, Clone)]
pub(crate) struct Alive {
    pub row: Option<usize>,
    pub program: SeenProgram,
    pub target: SeenDevice,
    pub hook: Hooked,
    /// A filter's parent and priority.
    pub filter: Option<(u32, u32)>,
    pub by: String,
    /// It was attached before the book began.
    pub is_old: bool,
}

/// The account as far as it is written.
#[derive(Debug, Default)]
pub struct Book {
    pub(crate) rows: Vec<AttachRow>,
    pub(crate) devices: Vec<DeviceRow>,
    /// The device of each row.
    pub(crate) places: Vec<DeviceKey>,
    index: HashMap<RowKey, usize>,
    pub(crate) links: HashMap<u32, Alive>,
    /// Links that are on no hook any more, and not freed.
    pub(crate) idle: HashMap<u32, Alive>,
    pub(crate) links_on: HashMap<DeviceKey, HashSet<u32>>,
    /// The device that has left its network namespace.
    pub(crate) moving: Option<DeviceKey>,
    pub(crate) others: HashMap<DeviceKey, Vec<Alive>>,
    pub(crate) alive: usize,
    /// The rows of each program that is loaded, and how often it ran before.
    programs: HashMap<u32, Vec<usize>>,
    /// Names and tags of programs that are loaded, by id.
    pub(crate) seen: HashMap<u32, SeenProgram>,
    pub(crate) pins: HashMap<u32, String>,
    pub(crate) begin_ns: Option<u64>,
    pub(crate) events: u64,
    pub(crate) omitted: u64,
    pub(crate) unexplained: u64,
    pub(crate) names: HashMap<u32, String>,
    fault: Option<WitnessFault>,
    /// The kernel does not count how often programs run.
    is_uncounted: bool,
    /// Ends of attachments have no events.
    pub(crate) is_without_ends: bool,
    /// Whose event is entered.
    pub(crate) doer: Doer,
    /// The steps of the events, where somebody follows them.
    pub(crate) steps: Option<Steps>,
    /// When the list of what was there was complete: what began before may be in it.
    pub(crate) listed_ns: u64,
}

/// Network namespace and index of a device.
pub(crate) type DeviceKey = (u32, u32);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct RowKey {
    place: AttachPlace,
    way: AttachWay,
    program: String,
    tag: [u8; 8],
    process: String,
    detail: String,
}

impl Book {
    /// An empty book; `names` are the topology's names of network namespaces, by inode. Times count from `begin_ns`.
    pub fn new(names: HashMap<u32, String>, begin_ns: u64) -> Self {
        Self { names, begin_ns: Some(begin_ns), ..Self::default() }
    }

    /// The book of a witness that has this fault.
    #[must_use]
    pub fn with_fault(mut self, fault: Option<WitnessFault>) -> Self {
        self.fault = fault;
        self
    }

    /// The book of a kernel that does not count how often programs run.
    #[must_use]
    pub fn without_runs(mut self) -> Self {
        self.is_uncounted = true;
        self
    }

    /// Enters an event.
    pub fn take(&mut self, event: AttachEvent) {
        self.events += 1;
        let seen = match self.fault {
            Some(fault) => fault.spoil(event),
            None => Some(event),
        };
        if let Some(event) = seen {
            self.enter(event);
        }
    }

    fn enter(&mut self, mut event: AttachEvent) {
        self.named(&mut event);
        let refused = event.refused;
        self.doer = Doer::of(&event);
        match event.what.clone() {
            What::ProgAttach { hook, instead } => {
                let row = self.row(&event, hook.clone(), AttachWay::Program, String::new());
                self.attached(&event, &hook, AttachWay::Program, (None, instead), "");
                if self.count(row, refused) {
                    if let Some(old) = instead {
                        self.end_program(&event.target, &hook.name, old, true);
                    }
                    self.live(&event, hook, None, row);
                }
            }
            What::ProgDetach { hook } if refused.is_none() => {
                self.end_program(&event.target, &hook.name, event.program.id, false);
            }
            What::ProgDetach { hook } => self.step(LiveVerb::Detach, &event, &hook, None),
            What::LinkAttach { hook, link } => {
                let row = self.row(&event, hook.clone(), AttachWay::Link, String::new());
                self.attached(&event, &hook, AttachWay::Link, (Some(link).filter(|id| *id != 0), None), "");
                if self.count(row, refused) && link != 0 && self.has_room() {
                    // One of that id whose end was not seen, or that was listed already.
                    if !self.forget_listed_link(&event, link) && self.end_link(link, false) {
                        self.unexplained += 1;
                    }
                    self.alive += 1;
                    self.links_on.entry(device_key(&event.target)).or_default().insert(link);
                    self.links.insert(link, alive(&event, hook, None, row));
                }
            }
            What::LinkUpdate { link } if refused.is_none() => self.update(&event, link),
            What::LinkUpdate { link } => self.step_of_link(LiveVerb::Update, &event, link),
            What::LinkDetach { link } if refused.is_some() => self.step_of_link(LiveVerb::Detach, &event, link),
            What::LinkDetach { link } | What::LinkGone { link } if refused.is_none() => {
                let is_freed = matches!(event.what, What::LinkGone { .. });
                self.end_link(link, !is_freed);
                if is_freed {
                    self.idle.remove(&link);
                    self.pins.remove(&link);
                }
            }
            What::FilterNew { request, instead } => self.filter(&event, &request, instead),
            What::FilterDel { request, gone } if refused.is_none() => self.unfilter(&event.target, &request, gone),
            What::FilterDel { request, .. } => self.step(LiveVerb::Detach, &event, &filter_hook(&request), None),
            What::QdiscDel { request } if refused.is_none() => {
                self.end_where(&event.target, |alive| alive.filter.is_some_and(|(parent, _)| request.takes(parent)));
            }
            What::DeviceGone { for_good } => {
                // One that moves keeps all but its queueing disciplines. Only one moves at a time, since the kernel locks
                // that (RTNL).
                self.moving = (!for_good).then(|| device_key(&event.target));
                self.end_where(&event.target, |alive| for_good || alive.filter.is_some());
                if for_good {
                    let links = self.links_on.remove(&device_key(&event.target)).unwrap_or_default();
                    for link in links {
                        self.end_link(link, true);
                    }
                }
            }
            What::Netkit { request } => {
                let row = netkit::row(&event, &request, self.namespace(event.target.netns));
                if let Some(steps) = &mut self.steps {
                    steps.device(row.clone());
                }
                if !netkit::enter(&mut self.devices, row) {
                    self.omitted += 1;
                }
            }
            What::DeviceMoved => {
                if let Some(from) = self.moving.take() {
                    self.moved(from, &event.target);
                }
            }
            What::Xdp { is_removal } => {
                let hook = Hooked { attach: None, name: "xdp".to_owned() };
                // A device has one such program.
                if refused.is_none() {
                    self.end_where(&event.target, |alive| alive.hook == hook);
                }
                if is_removal {
                    return;
                }
                let row = self.row(&event, hook.clone(), AttachWay::Netlink, String::new());
                self.attached(&event, &hook, AttachWay::Netlink, (None, None), "");
                if self.count(row, refused) {
                    self.live(&event, hook, None, row);
                }
            }
            What::Pin { link: Some(link), path } if refused.is_none() && self.pins.len() < ALIVE => {
                self.pinned(&event, link, &path);
                self.pins.insert(link, path);
            }
            What::Unloaded { runs } => self.ran(EndedProgram { id: event.program.id, runs: Some(runs) }),
            _ => {}
        }
    }

    /// How often a program ran.
    pub fn ran(&mut self, program: EndedProgram) {
        let Some(runs) = program.runs.filter(|_| !self.is_uncounted) else { return };
        for row in self.programs.remove(&program.id).unwrap_or_default() {
            let total = &mut self.rows[row].runs;
            *total = Some(total.unwrap_or_default().saturating_add(runs));
        }
    }

    fn update(&mut self, event: &AttachEvent, link: u32) {
        let Some(before) = self.links.get(&link).cloned() else {
            self.unexplained += u64::from(!self.is_early(event.time_ns));
            return;
        };
        // The request names the link only: the place is where the link was made.
        let event = AttachEvent { target: before.target.clone(), ..event.clone() };
        self.updated(&event, &before, link);
        let row = self.row(&event, before.hook.clone(), AttachWay::Link, "update".to_owned());
        self.count(row, None);
        if let Some(row) = before.row {
            self.rows[row].replaced += 1;
        }
        self.links.insert(link, Alive { filter: None, ..alive(&event, before.hook, None, row) });
    }

    fn filter(&mut self, event: &AttachEvent, request: &FilterRequest, instead: Option<u32>) {
        let hook = filter_hook(request);
        let detail = if request.is_direct { "direct-action" } else { "" };
        self.attached(event, &hook, AttachWay::Filter, (None, instead), detail);
        let row = self.row(event, hook.clone(), AttachWay::Filter, detail.to_owned());
        if self.count(row, event.refused) {
            if let Some(old) = instead {
                self.end_program(&event.target, &hook.name, old, true);
            }
            self.live(event, hook, Some((request.parent, request.prio)), row);
        }
    }

    fn unfilter(&mut self, target: &SeenDevice, request: &FilterRequest, gone: Option<u32>) {
        let hook = request.hook();
        if let Some(program) = gone {
            self.end_program(target, &hook, program, false);
            return;
        }
        let has = |prio| request.prio == 0 || prio == 0 || prio == request.prio;
        self.end_where(target, |alive| alive.hook.name == hook && alive.filter.is_some_and(|(_, prio)| has(prio)));
    }

    /// Counts an attempt; gives whether something is attached now.
    fn count(&mut self, row: Option<usize>, refused: Option<i32>) -> bool {
        if let Some(row) = row.map(|row| &mut self.rows[row]) {
            match refused {
                None => row.attached += 1,
                Some(errno) => *row.refused.entry(errno_name(errno)).or_default() += 1,
            }
        }
        refused.is_none()
    }

    fn has_room(&mut self) -> bool {
        let has = self.alive < ALIVE;
        if !has {
            self.omitted += 1;
        }
        has
    }

    fn live(&mut self, event: &AttachEvent, hook: Hooked, filter: Option<(u32, u32)>, row: Option<usize>) {
        if self.has_room() {
            self.forget_listed(event, &hook);
            self.alive += 1;
            self.others.entry(device_key(&event.target)).or_default().push(alive(event, hook, filter, row));
        }
    }

    /// Ends the attachment of a program; without an id the only one.
    fn end_program(&mut self, target: &SeenDevice, hook: &str, program: u32, is_replaced: bool) {
        let here = self.others.entry(device_key(target)).or_default();
        let mut fitting = here
            .iter()
            .enumerate()
            .filter(|(_, alive)| alive.hook.name == hook && (program == 0 || alive.program.id == program));
        let found = fitting.next().map(|(at, _)| at);
        let is_clear = program != 0 || fitting.next().is_none();
        let ended = found.filter(|_| is_clear).map(|at| here.swap_remove(at));
        if here.is_empty() {
            self.others.remove(&device_key(target));
        }
        match ended {
            Some(ended) => {
                self.alive -= 1;
                self.ended(&ended, None, is_replaced);
            }
            None => self.unexplained += u64::from(!self.is_early(self.doer.time_ns)),
        }
    }

    fn end_link(&mut self, link: u32, stays: bool) -> bool {
        let Some(ended) = self.links.remove(&link) else { return false };
        if let Some(here) = self.links_on.get_mut(&device_key(&ended.target)) {
            here.remove(&link);
            if here.is_empty() {
                self.links_on.remove(&device_key(&ended.target));
            }
        }
        self.alive -= 1;
        self.ended(&ended, Some(link), false);
        if stays && self.idle.len() < ALIVE {
            self.idle.insert(link, ended);
        }
        true
    }

    /// An attachment has ended; one that there was before has a row from then on.
    fn ended(&mut self, alive: &Alive, link: Option<u32>, is_replaced: bool) {
        if !is_replaced {
            self.detached(alive, link);
        }
        let row = alive.row.or_else(|| alive.is_old.then(|| self.row_of_old(alive, link)).flatten());
        self.count_end(row, is_replaced);
    }

    /// Counts an end.
    pub(crate) fn count_end(&mut self, row: Option<usize>, is_replaced: bool) {
        if let Some(row) = row.map(|row| &mut self.rows[row]) {
            if is_replaced {
                row.replaced += 1;
            } else {
                row.detached += 1;
            }
        }
    }

    fn end_where(&mut self, target: &SeenDevice, over: impl Fn(&Alive) -> bool) {
        let Some(here) = self.others.remove(&device_key(target)) else { return };
        let (ended, rest): (Vec<Alive>, Vec<Alive>) = here.into_iter().partition(over);
        if !rest.is_empty() {
            self.others.insert(device_key(target), rest);
        }
        self.alive -= ended.len();
        ended.into_iter().for_each(|alive| self.ended(&alive, None, false));
    }

    /// The row of an event, and that its program's runs belong to it.
    pub(crate) fn row(&mut self, event: &AttachEvent, hook: Hooked, way: AttachWay, detail: String) -> Option<usize> {
        let key = RowKey {
            place: self.place(&event.target, hook),
            way,
            program: event.program.name.clone(),
            tag: event.program.tag,
            process: event.process.clone(),
            detail,
        };
        let row = match self.index.get(&key) {
            Some(row) => *row,
            None if self.rows.len() == ROWS => {
                self.omitted += 1;
                return None;
            }
            None => {
                let began = self.begin_ns.unwrap_or_default();
                self.rows.push(AttachRow {
                    place: key.place.clone(),
                    way,
                    program: key.program.clone(),
                    tag: hex(key.tag),
                    ids: Vec::new(),
                    process: key.process.clone(),
                    pid: event.pid,
                    first_ms: event.time_ns.saturating_sub(began) / 1_000_000,
                    attached: 0,
                    refused: BTreeMap::new(),
                    detached: 0,
                    replaced: 0,
                    runs: None,
                    detail: key.detail.clone(),
                });
                self.places.push(device_key(&event.target));
                self.index.insert(key, self.rows.len() - 1);
                self.rows.len() - 1
            }
        };
        let id = event.program.id;
        if id != 0 {
            let ids = &mut self.rows[row].ids;
            if ids.len() < IDS && !ids.contains(&id) {
                ids.push(id);
            }
            if self.programs.contains_key(&id) || self.programs.len() < PROGRAMS {
                let rows = self.programs.entry(id).or_default();
                if !rows.contains(&row) {
                    rows.push(row);
                }
            } else {
                self.omitted += 1;
            }
        }
        Some(row)
    }

    pub(crate) fn place(&self, target: &SeenDevice, hook: Hooked) -> AttachPlace {
        let has_device = target.ifindex != 0 || !target.name.is_empty();
        let is_block = hook.name.starts_with("block ");
        AttachPlace {
            attach: hook.attach,
            hook: hook.name,
            device: match (&*target.name, target.ifindex) {
                _ if is_block => String::new(),
                ("", 0) => String::new(),
                ("", index) => format!("index {index}"),
                (name, _) => name.to_owned(),
            },
            kind: target.kind.clone(),
            namespace: if has_device { self.namespace(target.netns) } else { String::new() },
        }
    }

    pub(crate) fn namespace(&self, inode: u32) -> String {
        self.names.get(&inode).cloned().unwrap_or_else(|| format!("net:[{inode}]"))
    }
}

pub(crate) const fn device_key(target: &SeenDevice) -> DeviceKey {
    (target.netns, target.ifindex)
}

fn alive(event: &AttachEvent, hook: Hooked, filter: Option<(u32, u32)>, row: Option<usize>) -> Alive {
    let AttachEvent { program, target, process, pid, .. } = event;
    let by = process_named(process, *pid);
    Alive { row, program: program.clone(), target: target.clone(), hook, filter, by, is_old: false }
}

fn filter_hook(request: &FilterRequest) -> Hooked {
    Hooked { attach: Some(AttachType::Tc), name: request.hook() }
}

pub(crate) fn hex(tag: [u8; 8]) -> String {
    tag.iter().map(|byte| format!("{byte:02x}")).collect()
}
