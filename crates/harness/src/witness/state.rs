//! What the kernel lists as attached: links, and the hooks of every device in every network namespace that a process or the agent
//! holds.

use lab_bpf::{BpfLink, ProgramInfo};
use lab_protocol::AttachType;
use lab_topology::{Netns, link};
use lab_witness::{Hooked, ListedAttachment, SeenDevice, SeenProgram, hook_of_link, hook_of_type};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// Network namespaces that are looked at, at most.
const NAMESPACES: usize = 2000;
pub(super) const OWN: &str = "/proc/self/ns/net";
/// The children of kthreadd: all threads of the kernel (proc_pid_task_children(5), `CONFIG_PROC_CHILDREN`).
const KERNEL_THREADS: &str = "/proc/2/task/2/children";
/// Where iproute2 keeps names of network namespaces.
const NAMED: &str = "/run/netns";

/// The guest's first network namespace, which has no name of its own.
pub fn own() -> Option<(u32, String)> {
    fs::metadata(OWN).ok().map(|found| (found.ino() as u32, "guest".to_owned()))
}

/// The name that iproute2 has for a network namespace.
pub fn named(inode: u32) -> Option<String> {
    let is_it = |entry: &fs::DirEntry| fs::metadata(entry.path()).is_ok_and(|found| found.ino() as u32 == inode);
    let found = fs::read_dir(NAMED).ok()?.flatten().find(is_it)?;
    Some(found.file_name().to_string_lossy().chars().map(|c| if c.is_control() { '?' } else { c }).collect())
}

/// Reads the lists; the programs `own` and their links are left out.
pub fn read(nodes: &[Netns], own: &[u32]) -> Vec<ListedAttachment> {
    let mut found = Vec::new();
    for (inode, ns) in namespaces(nodes) {
        found.extend(of_namespace(inode, &ns));
    }
    let known: BTreeSet<u32> = found.iter().filter_map(|standing| standing.link).collect();
    found.extend(links().filter(|standing| standing.link.is_none_or(|link| !known.contains(&link))));
    found.retain(|standing| !own.contains(&standing.program.id));
    let mut programs: BTreeMap<u32, SeenProgram> = BTreeMap::new();
    for standing in &mut found {
        let id = standing.program.id;
        standing.program = programs.entry(id).or_insert_with(|| program(id)).clone();
    }
    found
}

/// A program by its id.
pub fn program(id: u32) -> SeenProgram {
    match lab_bpf::prog_fd(id).and_then(|fd| lab_bpf::program_info(&fd)) {
        Ok(ProgramInfo { name, tag, .. }) => SeenProgram { id, name, tag },
        Err(_) => SeenProgram { id, ..SeenProgram::default() },
    }
}

/// The namespaces of all processes and of the topology, by inode. Those that are only kept ready have nothing attached.
pub fn namespaces(nodes: &[Netns]) -> BTreeMap<u64, Netns> {
    let spares = Netns::spare_inodes();
    // Threads of the kernel are in the first one. There are a hundred, and one costs an emulated guest a tenth of a millisecond.
    let kernels = fs::read_to_string(KERNEL_THREADS).unwrap_or_default();
    let kernels: BTreeSet<&str> = kernels.split_ascii_whitespace().collect();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().filter(|entry| {
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit()) && !kernels.contains(name);
        entry.file_name().to_str().is_some_and(is_process)
    });
    let of_processes = processes.map(|entry| entry.path().join("ns/net"));
    let of_nodes = nodes.iter().map(|ns| {
        use std::os::fd::AsRawFd;
        PathBuf::from(format!("/proc/self/fd/{}", ns.fd().as_raw_fd()))
    });
    // By `ip netns`, without a process.
    let named = fs::read_dir(NAMED).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut all = BTreeMap::new();
    for path in of_nodes.chain(of_processes).chain(named) {
        let Ok(file) = File::open(&path) else { continue };
        let Ok(inode) = file.metadata().map(|found| found.ino()) else { continue };
        if all.len() < NAMESPACES
            && !spares.contains(&inode)
            && !all.contains_key(&inode)
            && let Ok(ns) = Netns::of(&format!("net:[{inode}]"), file.into())
        {
            all.insert(inode, ns);
        }
    }
    all
}

fn of_namespace(inode: u64, ns: &Netns) -> Vec<ListedAttachment> {
    let mut found = Vec::new();
    for device in link::list(ns).unwrap_or_default() {
        let kind = super::calls::kind(device.kind);
        let target = SeenDevice {
            netns: inode as u32,
            ifindex: device.ifindex,
            name: device.name.clone(),
            kind: kind.to_owned(),
        };
        for seen in ns.run(|| lab_bpf::observe(device.ifindex)).unwrap_or_default() {
            found.push(ListedAttachment {
                attach: Some(seen.hook.attach_type()),
                hook: seen.hook.name().to_owned(),
                target: target.clone(),
                program: SeenProgram { id: seen.prog_id, ..SeenProgram::default() },
                link: seen.link_id,
                is_detached: false,
            });
        }
    }
    found
}

/// All links. One of tcx or netkit that no device lists is detached.
fn links() -> impl Iterator<Item = ListedAttachment> {
    let ids = lab_bpf::link_ids().unwrap_or_default();
    ids.into_iter().filter_map(|id| {
        // One that has gone meanwhile.
        let info = BpfLink::from(lab_bpf::link_fd(id).ok()?).info().ok()?;
        let mechanism = info.kind();
        let hook = match mechanism {
            Some(by) => Hooked { attach: Some(by), ..hook_of_type(info.attach_type) },
            None => hook_of_link(info.link_type),
        };
        Some(ListedAttachment {
            attach: hook.attach,
            hook: hook.name,
            target: SeenDevice { ifindex: mechanism.map_or(0, |_: AttachType| info.ifindex), ..SeenDevice::default() },
            program: SeenProgram { id: info.prog_id, ..SeenProgram::default() },
            link: Some(id),
            is_detached: mechanism.is_some() && info.ifindex == 0,
        })
    })
}
