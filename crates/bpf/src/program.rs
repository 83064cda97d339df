//! A loaded program and its maps.

use crate::{BpfError, ProgramKind, attr, load::missing, sys};
use aya::maps::{HashMap, MapData, PerCpuArray};
use lab_abi::{PolicyKey, Stats};
use std::{
    fmt,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// A program in the kernel, with maps of its own. Dropping it leaves it where it is attached.
pub struct Program {
    kind: ProgramKind,
    expected_attach_type: u32,
    id: u32,
    fd: OwnedFd,
    maps: Maps,
}

/// The maps that user space works with.
pub(crate) struct Maps {
    pub stats: PerCpuArray<MapData, Stats>,
    /// Of [`ProgramKind::Policy`] only.
    pub policy: Option<HashMap<MapData, PolicyKey, i32>>,
}

impl Program {
    pub(crate) fn new(kind: ProgramKind, expected_attach_type: u32, fd: OwnedFd, maps: Maps) -> Result<Self, BpfError> {
        let id = id_of(&fd)?;
        Ok(Self { kind, expected_attach_type, id, fd, maps })
    }

    /// Which of the object's programs it is.
    pub const fn kind(&self) -> ProgramKind {
        self.kind
    }

    /// `bpf_prog_info.id`.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Its configuration.
    pub const fn expected_attach_type(&self) -> u32 {
        self.expected_attach_type
    }

    /// Its counters, all CPUs together.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn stats(&self) -> Result<Stats, BpfError> {
        let shares = self.maps.stats.get(&0, 0).map_err(|error| BpfError::Map { map: "STATS", error })?;
        let mut sum = Stats::default();
        shares.iter().for_each(|share| sum.merge(share));
        Ok(sum)
    }

    /// Lists a destination in the policy map.
    ///
    /// # Errors
    /// [`BpfError::Map`]; [`BpfError::Object`] for a program without one.
    pub fn set_policy(&mut self, key: PolicyKey, verdict: i32) -> Result<(), BpfError> {
        self.policy()?.insert(key, verdict, 0).map_err(|error| BpfError::Map { map: "POLICY", error })
    }
    fn policy(&mut self) -> Result<&mut HashMap<MapData, PolicyKey, i32>, BpfError> {
        self.maps.policy.as_mut().ok_or_else(|| missing(self.kind.name(), "POLICY"))
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, expected_attach_type, id, fd: _, maps: _ } = self;
        write!(f, "Program({kind}, id {id}, expected attach type {expected_attach_type})")
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A program's kernel id, from its descriptor.
///
/// # Errors
/// [`BpfError::Call`].
pub fn id_of(program: &impl AsFd) -> Result<u32, BpfError> {
    sys::info::<attr::ProgInfo>(program.as_fd())
        .map(|info| info.id)
        .map_err(|errno| BpfError::call("BPF_OBJ_GET_INFO_BY_FD of a program", errno))
}

/// What the kernel lists of any program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramInfo {
    /// `bpf_prog_info.id`.
    pub id: u32,
    /// `enum bpf_prog_type`.
    pub prog_type: u32,
    /// Hash of its instructions.
    pub tag: [u8; 8],
    /// Its name, at most 15 bytes.
    pub name: String,
    /// How often it ran while the kernel counted.
    pub run_count: u64,
}

/// What the kernel lists of the program.
///
/// # Errors
/// [`BpfError::Call`].
pub fn program_info(program: &impl AsFd) -> Result<ProgramInfo, BpfError> {
    let info = run_info(program)?;
    let name = info.name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(ProgramInfo {
        id: info.id,
        prog_type: info.prog_type,
        tag: info.tag,
        name: String::from_utf8_lossy(name).into_owned(),
        run_count: info.run_cnt,
    })
}

/// How many maps a program uses, and the ids of as many of them as there is room for (`bpf_prog_get_info_by_fd()`).
///
/// # Errors
/// [`BpfError::Call`].
pub fn maps_of(program: &impl AsFd, room: usize) -> Result<(usize, Vec<u32>), BpfError> {
    let mut ids = vec![0; room];
    let asking = attr::ProgRunInfo {
        nr_map_ids: room as u32,
        map_ids: sys::address_mut(&mut ids),
        ..attr::ProgRunInfo::default()
    };
    let info = sys::info_into(program.as_fd(), asking)
        .map_err(|errno| BpfError::call("BPF_OBJ_GET_INFO_BY_FD of a program's maps", errno))?;
    let count = info.nr_map_ids as usize;
    ids.truncate(count);
    Ok((count, ids))
}

/// How often it was to run and did not, since it was running on the same processor already.
pub(crate) fn missed(program: &impl AsFd) -> Result<u64, BpfError> {
    run_info(program).map(|info| info.recursion_misses)
}

fn run_info(program: &impl AsFd) -> Result<attr::ProgRunInfo, BpfError> {
    sys::info(program.as_fd()).map_err(|errno| BpfError::call("BPF_OBJ_GET_INFO_BY_FD of a program", errno))
}
