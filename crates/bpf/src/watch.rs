//! Loads the witness's programs onto functions of the kernel, and reads their events.

mod calls;
mod module;

use self::module::Module;
use crate::{
    BpfError, attr,
    btf::{Btf, BtfError, BtfKind},
    ids,
    object::{Parsed, Want},
    program::id_of,
    raw::Function,
    sys::{self, Command},
};
use aya::maps::{HashMap as BpfHashMap, Map, MapData, PerCpuArray, RingBuf};
use lab_abi::witness::{self, THIS_CPU_OFF, WitnessConfig, WitnessEvent, entered, kind};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    collections::HashMap,
    fs,
    io::PipeReader,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

const KERNEL: &str = "/sys/kernel/btf/vmlinux";
/// `BPF_PROG_TYPE_TRACING` of `enum bpf_prog_type`.
const TRACING: u32 = 26;
/// `BPF_TRACE_FENTRY` and `BPF_TRACE_FEXIT` of `enum bpf_attach_type`.
const FENTRY: u32 = 24;
const FEXIT: u32 = 25;
/// Time between two looks at whether events were written.
const STEP: Duration = Duration::from_micros(200);

/// One program on one function.
struct Hook {
    program: &'static str,
    function: &'static str,
    at_exit: bool,
    kind: u32,
    entered: u32,
    /// Of the classifier's module instead of the kernel.
    of_module: bool,
    /// Without it there are no events at all.
    is_required: bool,
    /// For a program that reads the result: which one it is, by the slots that the function's arguments take.
    by_slots: &'static [(u32, &'static str)],
}

const fn hook(program: &'static str, function: &'static str, at_exit: bool, kind: u32) -> Hook {
    Hook { program, function, at_exit, kind, entered: 0, of_module: false, is_required: false, by_slots: &[] }
}

/// At the exit of a function whose arguments take so many slots.
const fn exit(function: &'static str, kind: u32, by_slots: &'static [(u32, &'static str)]) -> Hook {
    Hook { by_slots, ..hook(by_slots[0].1, function, true, kind) }
}

const fn required(hook: Hook) -> Hook {
    Hook { is_required: true, ..hook }
}

const fn through(function: &'static str, entered: u32) -> Hook {
    Hook { entered, ..hook("entered", function, false, kind::COMMAND) }
}

const fn of_module(hook: Hook) -> Hook {
    Hook { of_module: true, ..hook }
}

/// `(skb, message, extack)`.
const REQUEST: &[(u32, &str)] = &[(3, "request_ends")];

/// Ends first, then the functions within, then the begins: nothing that is seen to begin lacks its end.
const HOOKS: [Hook; 26] = [
    // With the attributes of all commands (uattr_common) since Linux 7.2.
    required(exit("__sys_bpf", kind::COMMAND, &[(4, "command_ends"), (7, "command_with_more_ends")])),
    required(exit("tc_new_tfilter", kind::FILTER_NEW, REQUEST)),
    required(exit("tc_del_tfilter", kind::FILTER_DEL, REQUEST)),
    exit("tc_get_qdisc", kind::QDISC_DEL, REQUEST),
    exit("rtnl_newlink", kind::LINK_NEW, REQUEST),
    exit("dev_change_xdp_fd", kind::XDP, &[(5, "xdp_ends")]),
    hook("device_moved", "__dev_change_net_namespace", true, kind::DEVICE_MOVED),
    exit("bpf_prog_get_type_dev", 0, &[(3, "program_found")]),
    of_module(exit("cls_bpf_get", 0, &[(2, "filter_found")])),
    of_module(hook("filter_goes", "cls_bpf_delete", false, 0)),
    exit("bpf_mprog_detach", 0, &[(7, "program_taken_off")]),
    through("tcx_prog_attach", entered::TCX_PROG_ATTACH),
    through("tcx_prog_detach", entered::TCX_PROG_DETACH),
    through("tcx_link_attach", entered::TCX_LINK_ATTACH),
    through("netkit_prog_attach", entered::NETKIT_PROG_ATTACH),
    through("netkit_prog_detach", entered::NETKIT_PROG_DETACH),
    through("netkit_link_attach", entered::NETKIT_LINK_ATTACH),
    hook("link_freed", "bpf_link_free", false, kind::LINK_GONE),
    hook("program_event", "perf_event_bpf_event", false, 0),
    hook("device_goes", "dev_shutdown", false, kind::DEVICE_GONE),
    required(hook("command_begins", "__sys_bpf", false, kind::COMMAND)),
    required(hook("request_begins", "tc_new_tfilter", false, kind::FILTER_NEW)),
    required(hook("request_begins", "tc_del_tfilter", false, kind::FILTER_DEL)),
    hook("request_begins", "tc_get_qdisc", false, kind::QDISC_DEL),
    hook("request_begins", "rtnl_newlink", false, kind::LINK_NEW),
    hook("xdp_begins", "dev_change_xdp_fd", false, kind::XDP),
];

/// Why there are no events.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The object can't be read, or the kernel refuses it.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The kernel's type information does not say what has to be known.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// The kernel has no type information.
    #[error("{path}: {error}")]
    NoBtf {
        /// Its file.
        path: String,
        /// The system's answer.
        error: std::io::Error,
    },
    /// A function that has to be watched can't be.
    #[error("the kernel's function {function} can't be watched: {reason}")]
    Unwatched {
        /// Its name.
        function: &'static str,
        /// Why.
        reason: String,
    },
    /// Nor can the system calls.
    #[error("the calls of bpf(2) can't be watched: {0}")]
    Calls(String),
    /// Neither.
    #[error("{functions}; {calls}")]
    Neither {
        /// Why functions can't be.
        functions: Box<WatchError>,
        /// Why system calls can't be.
        calls: Box<WatchError>,
    },
}

/// The parsed object: parsing is most of the work, and needs no kernel.
#[derive(Debug)]
pub struct WatchObject(Parsed);

impl WatchObject {
    /// Reads the object.
    ///
    /// # Errors
    /// [`BpfError::File`], [`BpfError::Object`].
    pub fn open(path: &Path) -> Result<Self, BpfError> {
        let bytes = fs::read(path).map_err(|error| BpfError::File { path: path.to_owned(), error })?;
        Parsed::new(&bytes, size_of::<WitnessConfig>(), &path.display().to_string()).map(Self)
    }
}

/// Waits until there are events, at most this long. Returns false once the other end of the pipe `end` is closed.
pub fn wait(bell: &OwnedFd, end: &PipeReader, milliseconds: u16) -> bool {
    let mut fds = [PollFd::new(bell.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::empty())];
    // However it ends: the events are looked at.
    let _ = poll(&mut fds, PollTimeout::from(milliseconds));
    !fds[1].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP))
}

/// Has the kernel count how often each program runs, until this is dropped.
///
/// # Errors
/// [`BpfError::Call`].
pub fn count_runs() -> Result<OwnedFd, BpfError> {
    sys::bpf_fd(Command::EnableStats, &mut attr::EnableStats::default())
        .map_err(|errno| BpfError::call("BPF_ENABLE_STATS", errno))
}

/// The programs, attached. Dropping it detaches and frees them.
pub struct Watch {
    // Links before programs before maps.
    links: Vec<OwnedFd>,
    programs: Vec<u32>,
    unwatched: Vec<(&'static str, String)>,
    events: RingBuf<MapData>,
    drained: u64,
    lost: PerCpuArray<MapData, u64>,
    written: PerCpuArray<MapData, u64>,
    under_way: BpfHashMap<MapData, u64, WitnessEvent>,
    _maps: Vec<MapData>,
}

impl Watch {
    /// Loads and attaches; events of the process `own_tgid` are not written.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn start(object: &WatchObject, own_tgid: u32) -> Result<Self, WatchError> {
        let kernel = read(Path::new(KERNEL)).and_then(|bytes| Ok(Btf::parse(bytes, None)?))?;
        let known = kernel.find(&wanted());
        let module = Module::find(&kernel);
        let mut config = config(&kernel, &known, module.as_ref())?;
        config.own_tgid = own_tgid;
        let variable = known.get("this_cpu_off").map(|id| (THIS_CPU_OFF, *id));
        let known = Known { kernel: &kernel, types: &known, module: module.as_ref(), variable };
        let maps = object.0.maps("witness", &[])?;
        let mut watch = (Vec::new(), Vec::new(), Vec::new());
        for hook in &HOOKS {
            let made = attach(&object.0, &maps, hook, &known, config);
            match made {
                Ok((link, id)) => {
                    watch.0.push(link);
                    watch.1.push(id);
                }
                Err(reason) if hook.is_required => {
                    return Err(WatchError::Unwatched { function: hook.function, reason });
                }
                Err(reason) => watch.2.push((hook.function, reason)),
            }
        }
        let (links, programs, unwatched) = watch;
        Self::of(maps, links, programs, unwatched)
    }

    fn of(
        mut maps: HashMap<String, MapData>,
        links: Vec<OwnedFd>,
        programs: Vec<u32>,
        unwatched: Vec<(&'static str, String)>,
    ) -> Result<Self, WatchError> {
        let mut take = |name: &'static str| {
            let data = maps.remove(name).ok_or_else(|| crate::load::missing("witness", name))?;
            Map::from_map_data(data).map_err(|error| BpfError::Map { map: name, error })
        };
        let wrong = |map| move |error| BpfError::Map { map, error };
        let events = RingBuf::try_from(take("EVENTS")?).map_err(wrong("EVENTS"))?;
        let lost = PerCpuArray::try_from(take("LOST")?).map_err(wrong("LOST"))?;
        let written = PerCpuArray::try_from(take("WRITTEN")?).map_err(wrong("WRITTEN"))?;
        let under_way = BpfHashMap::try_from(take("WAITING")?).map_err(wrong("WAITING"))?;
        Ok(Self {
            links,
            programs,
            unwatched,
            events,
            drained: 0,
            lost,
            written,
            under_way,
            _maps: maps.into_values().collect(),
        })
    }

    /// Hands every event that is there to `take`.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        while let Some(event) = self.events.next() {
            self.drained += 1;
            take(&event);
        }
    }

    /// Hands over every event of what had begun when it is called, and gives whether that was all within this time: the kernel
    /// changes its lists before the event about it is written.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn settle(&mut self, within: Duration, mut take: impl FnMut(&[u8])) -> Result<bool, BpfError> {
        let end = Instant::now() + within;
        let wrong = |map| move |error| BpfError::Map { map, error };
        // First what is under way must write its event. A thread that is at something else by now has.
        let mut waiting = Vec::new();
        for entry in self.under_way.iter() {
            let (thread, event) = entry.map_err(wrong("WAITING"))?;
            waiting.push((thread, event.time_ns));
        }
        while !waiting.is_empty() {
            waiting.retain(|(thread, begun)| self.under_way.get(thread, 0).is_ok_and(|event| event.time_ns == *begun));
            self.drain(&mut take);
            if !waiting.is_empty() {
                if Instant::now() > end {
                    return Ok(false);
                }
                thread::sleep(STEP);
            }
        }
        // Then as many must have come out of the ring as were written by now: a ring is read in order, and counted before it is
        // written, so that later ones can't stand for these.
        let sum = |counts: aya::maps::PerCpuValues<u64>| counts.iter().sum::<u64>();
        let written = sum(self.written.get(&0, 0).map_err(wrong("WRITTEN"))?);
        loop {
            self.drain(&mut take);
            let refused = sum(self.lost.get(&0, 0).map_err(wrong("LOST"))?);
            if self.drained.saturating_add(refused) >= written {
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            thread::sleep(STEP);
        }
    }

    /// A descriptor that is readable while there are events, for [`wait`].
    ///
    /// # Errors
    /// No more descriptors.
    pub fn bell(&self) -> std::io::Result<OwnedFd> {
        self.events.as_fd().try_clone_to_owned()
    }

    /// Events that were lost so far.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn lost(&self) -> Result<u64, BpfError> {
        let counts = self.lost.get(&0, 0).map_err(|error| BpfError::Map { map: "LOST", error })?;
        let missed = self.programs.iter().filter_map(|id| ids::prog_fd(*id).ok());
        let missed: u64 = missed.filter_map(|fd| crate::program::missed(&fd).ok()).sum();
        Ok(counts.iter().sum::<u64>() + missed)
    }

    /// Ids of its own programs.
    pub fn programs(&self) -> &[u32] {
        &self.programs
    }

    /// Functions that are not watched, each with the reason.
    pub fn unwatched(&self) -> &[(&'static str, String)] {
        &self.unwatched
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watch({} functions)", self.links.len())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, WatchError> {
    fs::read(path).map_err(|error| WatchError::NoBtf { path: path.display().to_string(), error })
}

/// Everything that is looked up in the kernel's type information.
fn wanted() -> Vec<(BtfKind, &'static str)> {
    let functions = HOOKS.iter().filter(|hook| !hook.of_module).map(|hook| (BtfKind::Function, hook.function));
    let mut wanted: Vec<_> = functions.collect();
    wanted.sort_by_key(|(_, name)| *name);
    wanted.dedup();
    wanted.push((BtfKind::Variable, "this_cpu_off"));
    wanted.extend(STRUCTS.iter().map(|name| (BtfKind::Struct, *name)));
    wanted
}

const STRUCTS: [&str; 17] = [
    "task_struct",
    "files_struct",
    "fdtable",
    "file",
    "nsproxy",
    "net",
    "net_device",
    "rtnl_link_ops",
    "sk_buff",
    "sock",
    "bpf_prog",
    "bpf_prog_aux",
    "bpf_prog_stats",
    "bpf_link",
    "tcf_proto",
    "bpf_mprog_entry",
    "bpf_mprog_bundle",
];

fn config(kernel: &Btf<'_>, known: &HashMap<&str, u32>, module: Option<&Module>) -> Result<WitnessConfig, BtfError> {
    let offset = |name: &str, member: &str| {
        let id = known.get(name).ok_or_else(|| BtfError::Absent(format!("struct {name}")))?;
        kernel.offset(*id, member)
    };
    let processors = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_CONF).ok().flatten();
    Ok(WitnessConfig {
        cpus: processors.and_then(|count| u32::try_from(count).ok()).unwrap_or(1).min(witness::CPUS),
        task_files: offset("task_struct", "files")?,
        task_nsproxy: offset("task_struct", "nsproxy")?,
        files_fdt: offset("files_struct", "fdt")?,
        fdt_fd: offset("fdtable", "fd")?,
        file_private: offset("file", "private_data")?,
        nsproxy_net: offset("nsproxy", "net_ns")?,
        net_inum: offset("net", "ns.inum")?,
        net_index: offset("net", "dev_index_head")?,
        dev_name: offset("net_device", "name")?,
        dev_ifindex: offset("net_device", "ifindex")?,
        dev_hlist: offset("net_device", "index_hlist")?,
        dev_net: offset("net_device", "nd_net")?,
        dev_ops: offset("net_device", "rtnl_link_ops")?,
        dev_state: offset("net_device", "reg_state")?,
        ops_kind: offset("rtnl_link_ops", "kind")?,
        skb_sk: offset("sk_buff", "sk")?,
        sk_net: offset("sock", "__sk_common.skc_net")?,
        prog_type: offset("bpf_prog", "type")?,
        prog_tag: offset("bpf_prog", "tag")?,
        prog_aux: offset("bpf_prog", "aux")?,
        prog_stats: offset("bpf_prog", "stats")?,
        aux_id: offset("bpf_prog_aux", "id")?,
        aux_name: offset("bpf_prog_aux", "name")?,
        aux_prog: offset("bpf_prog_aux", "prog")?,
        stats_cnt: offset("bpf_prog_stats", "cnt")?,
        stats_nsecs: offset("bpf_prog_stats", "nsecs")?,
        link_id: offset("bpf_link", "id")?,
        link_type: offset("bpf_link", "type")?,
        link_prog: offset("bpf_link", "prog")?,
        proto_prio: offset("tcf_proto", "prio")?,
        cls_filter: module.map_or(0, |module| module.filter),
        // From 6.6 on, as the function that uses them.
        mprog_parent: offset("bpf_mprog_entry", "parent").unwrap_or_default(),
        bundle_ref: offset("bpf_mprog_bundle", "ref").unwrap_or_default(),
        ..WitnessConfig::default()
    })
}

/// What is known of the kernel.
struct Known<'a> {
    kernel: &'a Btf<'a>,
    types: &'a HashMap<&'static str, u32>,
    module: Option<&'a Module>,
    variable: Option<(u64, u32)>,
}

fn attach(
    object: &Parsed,
    maps: &HashMap<String, MapData>,
    hook: &Hook,
    known: &Known<'_>,
    config: WitnessConfig,
) -> Result<(OwnedFd, u32), String> {
    let function = if hook.of_module {
        let module = known.module.ok_or("the module cls_bpf has no type information, or is not loaded")?;
        let found = module.functions.get(hook.function);
        found.map(|(id, slots)| (Function { id: *id, module: module.fd.as_ref().map(AsFd::as_fd) }, *slots))
    } else {
        let found = known.types.get(hook.function);
        found.map(|id| (Function { id: *id, module: None }, known.kernel.argument_slots(*id)))
    };
    let (function, slots) = function.ok_or("not in the kernel's type information")?;
    let fitting = hook.by_slots.iter().find(|(count, _)| Some(*count) == slots);
    let program = match (hook.by_slots, fitting) {
        ([], _) => hook.program,
        (_, Some((_, program))) => program,
        _ => return Err("its arguments are others than those that this lab knows".to_owned()),
    };
    let config = WitnessConfig { kind: hook.kind, entered: hook.entered, ..config };
    let given: Vec<(&str, BorrowedFd<'_>)> =
        maps.iter().map(|(name, data)| (name.as_str(), data.fd().as_fd())).collect();
    let want = Want {
        program,
        config: sys::bytes_of(&config),
        given: &given,
        prog_type: TRACING,
        expected_attach_type: if hook.at_exit { FEXIT } else { FENTRY },
        function: Some(function),
        variable: known.variable,
    };
    let (fd, _settings) = object.load(&want).map_err(|error| error.line())?;
    let id = id_of(&fd).map_err(|error| error.to_string())?;
    let mut attr = attr::RawTracepoint { prog_fd: sys::number(fd.as_fd()), ..attr::RawTracepoint::default() };
    let link = sys::bpf_fd(Command::RawTracepointOpen, &mut attr).map_err(|errno| format!("attaching: {errno}"))?;
    Ok((link, id))
}
