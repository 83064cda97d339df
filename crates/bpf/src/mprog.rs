//! tcx and netkit: links and attached programs, with the anchors of the multi-program API (kernel/bpf/mprog.c).

use crate::{
    BpfError, BpfLink, attr, hook,
    sys::{self, Command},
};
use lab_protocol::Hook;
use std::os::fd::{AsFd, BorrowedFd};

const BPF_F_REPLACE: u32 = 1 << 2;
const BPF_F_BEFORE: u32 = 1 << 3;
const BPF_F_AFTER: u32 = 1 << 4;
const BPF_F_ID: u32 = 1 << 5;
const BPF_F_LINK: u32 = 1 << 13;

/// On which side of its anchor something goes; without an anchor, of all that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Position {
    /// No flag: at the end, and an anchor is an error of the caller.
    #[default]
    Default,
    /// `BPF_F_BEFORE`.
    Before,
    /// `BPF_F_AFTER`.
    After,
    /// Both flags at once.
    Both,
}

/// What a place is relative to.
#[derive(Debug, Clone, Copy, Default)]
pub enum Anchor<'a> {
    /// No anchor: the place is one of the whole list.
    #[default]
    None,
    /// A program's descriptor.
    ProgFd(BorrowedFd<'a>),
    /// A program's id (`BPF_F_ID`).
    ProgId(u32),
    /// A link's descriptor (`BPF_F_LINK`).
    LinkFd(BorrowedFd<'a>),
    /// A link's id (`BPF_F_ID | BPF_F_LINK`).
    LinkId(u32),
}

/// Options of one change to a hook. The default appends, whatever the revision.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mprog<'a> {
    /// On which side of the anchor.
    pub place: Position,
    /// Relative to what.
    pub anchor: Anchor<'a>,
    /// The revision that the hook must have, `ESTALE` otherwise; 0 for any.
    pub expected_revision: u64,
    /// The program whose slot is taken over (`BPF_F_REPLACE`).
    pub replace: Option<BorrowedFd<'a>>,
    /// Further flags as they are, for questions about what the kernel refuses.
    pub raw_flags: u32,
}

impl<'a> Mprog<'a> {
    /// In front of the anchor.
    pub fn before(anchor: Anchor<'a>) -> Self {
        Self { place: Position::Before, anchor, ..Self::default() }
    }

    /// Behind the anchor.
    pub fn after(anchor: Anchor<'a>) -> Self {
        Self { place: Position::After, anchor, ..Self::default() }
    }

    /// In the slot of `program`.
    pub fn replacing(program: &'a impl AsFd) -> Self {
        Self { replace: Some(program.as_fd()), ..Self::default() }
    }

    /// The same, if the hook still has this revision.
    pub fn at_revision(self, expected_revision: u64) -> Self {
        Self { expected_revision, ..self }
    }

    fn flags(&self) -> u32 {
        let place = match self.place {
            Position::Default => 0,
            Position::Before => BPF_F_BEFORE,
            Position::After => BPF_F_AFTER,
            Position::Both => BPF_F_BEFORE | BPF_F_AFTER,
        };
        let anchor = match self.anchor {
            Anchor::None | Anchor::ProgFd(_) => 0,
            Anchor::ProgId(_) => BPF_F_ID,
            Anchor::LinkFd(_) => BPF_F_LINK,
            Anchor::LinkId(_) => BPF_F_ID | BPF_F_LINK,
        };
        let replace = if self.replace.is_some() { BPF_F_REPLACE } else { 0 };
        place | anchor | replace | self.raw_flags
    }

    fn relative(&self) -> u32 {
        match self.anchor {
            Anchor::None => 0,
            Anchor::ProgFd(fd) | Anchor::LinkFd(fd) => sys::number(fd),
            Anchor::ProgId(id) | Anchor::LinkId(id) => id,
        }
    }
}

/// `BPF_LINK_CREATE`. For [`Hook::NetkitPeer`] too, `ifindex` is the primary's.
///
/// # Errors
/// [`BpfError::NotMprog`] for clsact; else [`BpfError::Call`] with the kernel's errno: `EINVAL` where the kernel lacks
/// the hook, `ENODEV` no such device in this namespace, `ENXIO` not netkit, `EACCES` netkit's peer, and mprog's own.
pub fn attach_link(hook: Hook, ifindex: u32, program: &impl AsFd, options: &Mprog<'_>) -> Result<BpfLink, BpfError> {
    let mut attr = attr::LinkCreate {
        prog_fd: sys::number(program.as_fd()),
        target_ifindex: ifindex,
        attach_type: hook::attach_type(hook)?,
        flags: options.flags(),
        relative: options.relative(),
        pad: 0,
        expected_revision: options.expected_revision,
    };
    sys::bpf_fd(Command::LinkCreate, &mut attr)
        .map(BpfLink::from)
        .map_err(|errno| BpfError::call(format!("BPF_LINK_CREATE {hook} ifindex {ifindex}"), errno))
}

/// `BPF_PROG_ATTACH`. The program stays attached until [`detach_prog`] or until the device goes.
///
/// # Errors
/// As [`attach_link`].
pub fn attach_prog(hook: Hook, ifindex: u32, program: &impl AsFd, options: &Mprog<'_>) -> Result<(), BpfError> {
    change(Command::ProgAttach, "BPF_PROG_ATTACH", hook, ifindex, Some(program.as_fd()), options)
}

/// `BPF_PROG_DETACH`. Without a program, the one at the place that the options name.
///
/// # Errors
/// As [`attach_link`]; `ENOENT` where there is nothing to detach, `EBUSY` where it belongs to a link.
pub fn detach_prog(
    hook: Hook,
    ifindex: u32,
    program: Option<BorrowedFd<'_>>,
    options: &Mprog<'_>,
) -> Result<(), BpfError> {
    change(Command::ProgDetach, "BPF_PROG_DETACH", hook, ifindex, program, options)
}

fn change(
    command: Command,
    name: &str,
    hook: Hook,
    ifindex: u32,
    program: Option<BorrowedFd<'_>>,
    options: &Mprog<'_>,
) -> Result<(), BpfError> {
    let mut attr = attr::ProgAttach {
        target_ifindex: ifindex,
        attach_bpf_fd: program.map_or(0, sys::number),
        attach_type: hook::attach_type(hook)?,
        attach_flags: options.flags(),
        replace_bpf_fd: options.replace.map_or(0, sys::number),
        relative: options.relative(),
        expected_revision: options.expected_revision,
    };
    sys::bpf(command, &mut attr)
        .map(drop)
        .map_err(|errno| BpfError::call(format!("{name} {hook} ifindex {ifindex}"), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags() {
        assert_eq!(Mprog::default().flags(), 0);
        assert_eq!(Mprog::before(Anchor::ProgId(7)).flags(), BPF_F_BEFORE | BPF_F_ID);
        let after = Mprog::after(Anchor::LinkId(9));
        assert_eq!((after.flags(), after.relative()), (BPF_F_AFTER | BPF_F_ID | BPF_F_LINK, 9));
    }
}
