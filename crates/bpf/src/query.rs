//! What is on a tcx or netkit hook, as `BPF_PROG_QUERY` reports it.

use crate::{
    BpfError, Observed, attr, hook, reading,
    sys::{self, Command},
};
use lab_protocol::Hook;

/// `BPF_MPROG_MAX`: more programs than this never fit on a hook.
const MPROG_MAX: usize = 64;

/// A hook's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Counts the changes, from 1.
    pub revision: u64,
    /// In the order of execution.
    pub entries: Vec<ListedProgram>,
}

/// One program on a hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedProgram {
    /// Kernel id of the program.
    pub prog_id: u32,
    /// Kernel id of its link; `None` where it was attached by `BPF_PROG_ATTACH`.
    pub link_id: Option<u32>,
}

impl Query {
    /// The program ids, in order.
    pub fn prog_ids(&self) -> Vec<u32> {
        self.entries.iter().map(|entry| entry.prog_id).collect()
    }
}

/// Asks a hook. For [`Hook::NetkitPeer`] too, `ifindex` is the primary's.
///
/// # Errors
/// [`BpfError::NotMprog`] for clsact, else [`BpfError::Call`] with the errnos of [`crate::attach_link`].
pub fn query(hook: Hook, ifindex: u32) -> Result<Query, BpfError> {
    let asking = reading::ask();
    let state = query_with_room(hook, ifindex, MPROG_MAX).1?;
    let seen = |entry: &ListedProgram| Observed { hook, prog_id: entry.prog_id, link_id: entry.link_id };
    asking.answered(ifindex, &[hook], || state.entries.iter().map(seen));
    Ok(state)
}

/// Asks with room for so many programs. The first value is the count that the kernel wrote, which it also does when it
/// refuses with `ENOSPC`.
pub fn query_with_room(hook: Hook, ifindex: u32, room: usize) -> (u32, Result<Query, BpfError>) {
    let attach_type = match hook::attach_type(hook) {
        Ok(attach_type) => attach_type,
        Err(error) => return (0, Err(error)),
    };
    let mut prog_ids = vec![0u32; room];
    let mut link_ids = vec![0u32; room];
    // Without room the kernel only counts; it wants no addresses then.
    let addresses = if room == 0 { (0, 0) } else { (sys::address_mut(&mut prog_ids), sys::address_mut(&mut link_ids)) };
    let mut attr = attr::ProgQuery {
        target_ifindex: ifindex,
        attach_type,
        prog_ids: addresses.0,
        count: room as u32,
        link_ids: addresses.1,
        ..attr::ProgQuery::default()
    };
    let result = sys::bpf(Command::ProgQuery, &mut attr)
        .map_err(|errno| BpfError::call(format!("BPF_PROG_QUERY {hook} ifindex {ifindex}"), errno))
        .map(|_| Query {
            revision: attr.revision,
            entries: prog_ids
                .iter()
                .zip(&link_ids)
                .take(attr.count as usize)
                .map(|(&prog_id, &link_id)| ListedProgram { prog_id, link_id: (link_id != 0).then_some(link_id) })
                .collect(),
        });
    (attr.count, result)
}
