//! Loads eBPF programs, attaches them by every attach type, and asks the kernel what is attached.
//!
//! Where to start: [`Programs`] opens the object and loads [`Program`]s; [`attach_tc`], [`attach_link`] and
//! [`attach_prog`] attach them; [`observe`] and [`query`] list what is attached. aya loads programs and owns their
//! maps; [`BpfMap`] and [`Ring`] are maps without a program, for questions about maps themselves. What aya does not
//! offer is done with bpf(2) directly: links and attachments of tcx and netkit with all their anchors,
//! `expected_attach_type` at load, link ids in queries.
//!
//! *Architecture invariant:* requests are never reported as results: [`observe`], [`query`] and [`BpfLink::info`] read
//! from the kernel.
//!
//! *Architecture invariant:* interface indexes are resolved in the network namespace of the *calling thread*, as the
//! kernel does it; this crate knows no topology.

mod attr;
pub mod btf;
mod by_aya;
pub mod datapath;
mod error;
mod hook;
mod ids;
mod link;
mod load;
mod map;
mod mirred;
mod mprog;
mod object;
mod observe;
mod pin;
pub mod probe;
mod prog_array;
mod program;
mod query;
pub mod raw;
pub mod reading;
mod ring;
mod sys;
mod tc;
pub mod watch;
mod xdp;

pub use by_aya::{AyaAttachment, attach_by_aya, aya_reads_version};
pub use error::{BpfError, chain};
pub use hook::expected_attach_type;
pub use ids::{link_fd, link_ids, map_fd, map_ids, prog_fd, prog_ids};
pub use lab_abi::{
    BPF_FIB_LOOKUP_MARK, BPF_FIB_LOOKUP_TBID, CURRENT_NETNS, Config, NO_SOCKET, PolicyKey, STAMP_MARK, STAMP_PRIORITY,
    STAMP_QUEUE, Seen, Stats, VLAN_PRESENT, edit,
};
pub use link::{BpfLink, LinkInfo};
pub use load::{LoadOptions, ProgramKind, Programs};
pub use map::{BPF_EXIST, BPF_F_NO_PREALLOC, BPF_NOEXIST, BpfMap, MapAccess, MapEntry, MapKind};
pub use mirred::{Mirred, MirredFilter, mirred_add};
pub use mprog::{Anchor, Mprog, Position, attach_link, attach_prog, detach_prog};
pub use observe::{Observed, find, observe};
pub use prog_array::ProgArray;
pub use program::{Program, ProgramInfo, id_of, maps_of, program_info};
pub use query::{ListedProgram, Query, query, query_with_room};
pub use ring::Ring;
pub use sys::as_nobody;
pub use tc::{
    ClsactState, ListedFilter, Qdisc, Sharing, TcDirection, TcFilter, TcOptions, attach_tc, attach_to_block,
    clsact_add, clsact_del, clsact_sharing, filters, qdiscs,
};
pub use xdp::{XdpMode, attach_xdp};
