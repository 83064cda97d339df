//! The witness of a kernel whose functions can't be watched: calls of bpf(2), and rtnetlink's notices about filters. The calls name
//! programs, links and namespaces by numbers of the calling process: what these stand for is looked up when an event is read, which
//! is milliseconds after the call.

use super::{now_ns, programs::ProgramsByDescriptor, state};
use lab_bpf::{BpfLink, watch::Watch};
use lab_netlink::Notices;
use lab_protocol::DeviceKind;
use lab_topology::{Netns, link};
use lab_witness::{AttachEvent, Book, BpfCall, CallFacts, FilterNotice, SeenDevice, SeenProgram, What};
use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Descriptors, processes and filters that are remembered, at most each.
pub(super) const REMEMBERED: usize = 1 << 16;
/// Time between two looks at which links have ended.
const LOOK_AT_LINKS: Duration = Duration::from_millis(100);
/// The name of a network namespace whose process had ended before it could be asked.
pub(super) const UNSEEN_NAMESPACE: (u32, &str) = (0, "a network namespace that was not seen");
/// PID_MAX_LIMIT of include/linux/threads.h.
const LARGEST_PID: u32 = 4 << 20;
/// Who ended a link, of which there is no event.
const SOMEBODY: &str = "a process that was not seen";
/// What this source does not see.
pub(super) const UNSEEN: [&str; 2] = [
    "not seen: filters that the kernel refuses, and those in network namespaces beside the guest's first one and the topology's; XDP by \
     netlink; settings of netkit devices; who ends a link; runs of programs that have gone",
    "not seen of a process that ends within milliseconds: its network namespace, its programs' ids, and names of its devices",
];

/// Network namespace, device, and which filter it is there.
type FilterKey = (u32, u32, (u32, u32, u32));

/// A network namespace whose notices are heard.
struct Heard {
    ns: Netns,
    notices: Notices,
}

/// Looks up what events stand for.
pub(super) struct Calls {
    heard: Vec<Heard>,
    programs: ProgramsByDescriptor,
    /// Network namespaces and names of processes.
    processes: HashMap<u32, (u32, String)>,
    /// Programs of filters, by network namespace, device, parent, priority and handle.
    filters: HashMap<FilterKey, u32>,
    /// Devices that were looked up in this round.
    devices: HashMap<(u32, u32), SeenDevice>,
    /// The time of notices, which have none of their own: when this round began. Those of the first round may have come while what
    /// was there before was listed.
    heard_ns: u64,
    is_first: bool,
    looked_at_links: Instant,
    /// Notices that the kernel had no room for: each stands for one or more.
    pub lost: u64,
}

impl Calls {
    /// Begins to hear; what can't be heard is told.
    pub fn new(nodes: &[Netns], sources: &mut Vec<String>) -> Self {
        let own = File::open(state::OWN).map(|file| Netns::of("guest", file.into()));
        let own = own.ok().and_then(Result::ok);
        let others = nodes.iter().filter_map(|ns| {
            let file = ns.fd().try_clone_to_owned().ok()?;
            Netns::of(ns.name(), file).ok()
        });
        let mut heard = Vec::new();
        for ns in own.into_iter().chain(others) {
            match ns.run(|| Notices::of(Notices::TRAFFIC_CONTROL)) {
                Ok(notices) => heard.push(Heard { ns, notices }),
                Err(error) => sources.push(format!("no filters are seen in {}: {error}", ns.name())),
            }
        }
        Self {
            heard,
            programs: ProgramsByDescriptor::default(),
            processes: HashMap::new(),
            filters: HashMap::new(),
            devices: HashMap::new(),
            heard_ns: now_ns(),
            is_first: true,
            looked_at_links: Instant::now(),
            lost: 0,
        }
    }

    /// Hands over what has happened since the last call; `links` are those that have not ended, by what was handed over before.
    pub fn drain(&mut self, watch: &mut Watch, links: &[u32], mut take: impl FnMut(AttachEvent)) {
        self.devices.clear();
        let begin = now_ns();
        watch.drain(|bytes| {
            if let Some(call) = BpfCall::decode(bytes)
                && let Some(event) = self.complete(&call)
            {
                take(event);
            }
        });
        if !std::mem::take(&mut self.is_first) {
            self.heard_ns = begin;
        }
        for at in 0..self.heard.len() {
            self.notices(at, &mut take);
        }
        if self.looked_at_links.elapsed() >= LOOK_AT_LINKS {
            for &link in links.iter().filter(|id| lab_bpf::link_fd(**id).is_err()) {
                take(AttachEvent {
                    time_ns: begin,
                    pid: 0,
                    process: SOMEBODY.to_owned(),
                    target: SeenDevice::default(),
                    program: SeenProgram::default(),
                    refused: None,
                    what: What::LinkGone { link },
                });
            }
            self.looked_at_links = Instant::now();
        }
    }

    /// The event of a call, with what its numbers stand for.
    fn complete(&mut self, call: &BpfCall) -> Option<AttachEvent> {
        let netns = self.namespace(call);
        if let Some(fd) = call.made {
            self.programs.made((call.pid, fd), program_behind(call.pid, fd), call.loaded.clone());
        }
        let mut facts = CallFacts { target: self.device(call, netns), ..CallFacts::default() };
        let link = match call.link {
            Some(fd) => behind(call.pid, fd, "link_id"),
            None => call.made.and_then(|fd| behind(call.pid, fd, "link_id")),
        };
        if let Some(info) = link.and_then(|id| BpfLink::from(lab_bpf::link_fd(id).ok()?).info().ok()) {
            (facts.link, facts.link_type) = (info.id, info.link_type);
            facts.program = self.programs.named(state::program(info.prog_id));
        }
        // The link knows its program; the caller's descriptor may be closed by now.
        if facts.program.id == 0
            && let Some(program) = call.program.and_then(|fd| self.program(call.pid, fd))
        {
            facts.program = program;
        }
        facts.instead = call.instead.and_then(|fd| self.program(call.pid, fd)).map_or(0, |program| program.id);
        call.event(facts)
    }

    fn program(&self, pid: u32, fd: u32) -> Option<SeenProgram> {
        self.programs.behind((pid, fd), program_behind(pid, fd))
    }

    fn namespace(&mut self, call: &BpfCall) -> u32 {
        let found = fs::metadata(of_thread(call)).ok().map(|file| file.ino() as u32);
        if let Some(inode) = found
            && self.processes.len() < REMEMBERED
        {
            self.processes.insert(call.pid, (inode, call.process.clone()));
        }
        found.or_else(|| Some(self.processes.get(&call.pid)?.0)).unwrap_or(UNSEEN_NAMESPACE.0)
    }

    fn device(&mut self, call: &BpfCall, netns: u32) -> SeenDevice {
        let unknown = SeenDevice { netns, ifindex: call.ifindex, ..SeenDevice::default() };
        if call.ifindex == 0 {
            return unknown;
        }
        if let Some(known) = self.devices.get(&(netns, call.ifindex)) {
            return known.clone();
        }
        let found = match self.heard.iter().find(|heard| heard.ns.inode() as u32 == netns) {
            Some(heard) => device(&heard.ns, call.ifindex),
            // Opened for this question only: who holds a namespace keeps it alive.
            None => File::open(of_thread(call))
                .ok()
                .filter(|file| file.metadata().is_ok_and(|found| found.ino() as u32 == netns))
                .and_then(|file| Netns::of("of a process", file.into()).ok())
                .and_then(|ns| device(&ns, call.ifindex)),
        };
        let Some(found) = found else { return unknown };
        self.devices.insert((netns, call.ifindex), found.clone());
        found
    }

    fn notices(&mut self, at: usize, take: &mut impl FnMut(AttachEvent)) {
        loop {
            let heard = &self.heard[at];
            let datagram = match heard.notices.read() {
                Ok(Some(datagram)) => datagram,
                Ok(None) => return,
                Err(_) => {
                    self.lost += 1;
                    // One refusal stands for all that there was no room for; what there was room for follows.
                    match heard.notices.read() {
                        Ok(Some(datagram)) => datagram,
                        _ => return,
                    }
                }
            };
            for notice in FilterNotice::all(&datagram) {
                let event = self.noticed(at, &notice);
                take(event);
            }
        }
    }

    fn noticed(&mut self, at: usize, notice: &FilterNotice) -> AttachEvent {
        let ns = &self.heard[at].ns;
        let netns = ns.inode() as u32;
        let known = self.devices.get(&(netns, notice.ifindex)).cloned();
        let target = known.or_else(|| device(ns, notice.ifindex)).unwrap_or(SeenDevice {
            netns,
            ifindex: notice.ifindex,
            ..SeenDevice::default()
        });
        self.devices.insert((netns, notice.ifindex), target.clone());
        let key = (netns, notice.ifindex, notice.filter);
        let before = if notice.is_new() && self.filters.len() < REMEMBERED {
            self.filters.insert(key, notice.program.id)
        } else {
            self.filters.remove(&key)
        };
        let mut program = notice.program.clone();
        if program.id != 0 {
            program.name = state::program(program.id).name;
            program = self.programs.named(program);
        }
        let now = fs::read_to_string(format!("/proc/{}/comm", notice.port)).ok();
        let process = now.or_else(|| Some(self.processes.get(&notice.port)?.1.clone()));
        AttachEvent {
            time_ns: self.heard_ns,
            // The kernel gives a process's second netlink socket a port that is no number of a process
            // (net/netlink/af_netlink.c, netlink_autobind).
            pid: if notice.port <= LARGEST_PID { notice.port } else { 0 },
            process: process.map_or_else(|| SOMEBODY.to_owned(), |name| plain(name.trim_end())),
            target,
            program,
            refused: None,
            what: notice.what(before),
        }
    }
}

/// A book for these events.
pub(super) fn book(book: Book) -> Book {
    let mut book = book.without_ends();
    book.name(UNSEEN_NAMESPACE.0, || Some(UNSEEN_NAMESPACE.1.to_owned()));
    book
}

fn of_thread(call: &BpfCall) -> PathBuf {
    Path::new("/proc").join(call.pid.to_string()).join("task").join(call.tid.to_string()).join("ns/net")
}

/// A number that the kernel tells of a descriptor of a process (`prog_id`, `link_id`).
fn behind(pid: u32, fd: u32, key: &str) -> Option<u32> {
    let told = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    told.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
}

fn program_behind(pid: u32, fd: u32) -> Option<SeenProgram> {
    behind(pid, fd, "prog_id").map(state::program)
}

fn device(ns: &Netns, ifindex: u32) -> Option<SeenDevice> {
    let info = link::info_by_index(ns, ifindex).ok()?;
    let kind = kind(info.kind).to_owned();
    Some(SeenDevice { netns: ns.inode() as u32, ifindex, name: plain(&info.name), kind })
}

/// A device's kind as the kernel names it, where it matters here.
pub(super) const fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Veth => "veth",
        DeviceKind::NetkitL2 | DeviceKind::NetkitL3 => "netkit",
        DeviceKind::Other => "",
    }
}

fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
