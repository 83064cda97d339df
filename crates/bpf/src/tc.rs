//! clsact and its `cls_bpf` filters, over rtnetlink (include/uapi/linux/pkt_sched.h, pkt_cls.h).

use crate::{BpfError, Observed, program::id_of, reading};
use lab_netlink::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Netlink, attribute, attributes, nested};
use lab_protocol::Hook;
use std::os::fd::{AsFd, AsRawFd};

const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
pub(crate) const RTM_NEWTFILTER: u16 = 44;
pub(crate) const RTM_DELTFILTER: u16 = 45;
pub(crate) const RTM_GETTFILTER: u16 = 46;
pub(crate) const TCA_KIND: u16 = 1;
pub(crate) const TCA_OPTIONS: u16 = 2;
const TCA_STATS2: u16 = 7;
const TCA_INGRESS_BLOCK: u16 = 13;
const TCA_EGRESS_BLOCK: u16 = 14;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
/// The protocol of a filter that sees packets of every protocol (include/uapi/linux/if_ether.h).
pub(crate) const ETH_P_ALL: u16 = 3;
/// In place of a device's index: the parent is a block's.
const TCM_IFINDEX_MAGIC_BLOCK: u32 = 0xffff_ffff;
/// Size of `struct tcmsg`.
pub(crate) const TCMSG: usize = 20;

/// The two filter lists of clsact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcDirection {
    /// Packets that the device received.
    Ingress,
    /// Packets that leave through the device.
    Egress,
}

impl TcDirection {
    /// The hook's name.
    pub const fn hook(self) -> Hook {
        match self {
            Self::Ingress => Hook::ClsactIngress,
            Self::Egress => Hook::ClsactEgress,
        }
    }

    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_{INGRESS,EGRESS})`.
    pub(crate) const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }
}

/// Where a filter goes in its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcOptions {
    /// Lower runs first.
    pub priority: u16,
    /// Tells filters of one priority apart.
    pub handle: u32,
    /// Whether the program's return value is the verdict; otherwise it is a class.
    pub direct_action: bool,
    /// EtherType of the packets that it sees, host byte order (lower half of `tcm_info`). The default is `ETH_P_ALL`.
    pub protocol: u16,
}

impl Default for TcOptions {
    fn default() -> Self {
        Self { priority: 1, handle: 1, direct_action: true, protocol: ETH_P_ALL }
    }
}

/// Whether a call made the qdisc or found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClsactState {
    /// It was there.
    Found,
    /// This call created it, so that the caller removes it.
    Created,
}

/// Which lists of clsact are the shared block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The ingress list.
    Ingress,
    /// The ingress and the egress list.
    Both,
    /// The only list of `ingress`, which clsact has come after.
    Old,
    /// The ingress list, of a clsact that replaces an `ingress`.
    Replacing,
}

/// A filter that was attached. It stays when this value goes, as it does when a process dies.
#[derive(Debug)]
pub struct TcFilter {
    /// Opened at attach: stays in that namespace, whichever thread detaches.
    netlink: Netlink,
    ifindex: u32,
    parent: u32,
    direction: TcDirection,
    options: TcOptions,
    clsact: ClsactState,
}

/// A filter as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedFilter {
    /// Ingress or egress list of the clsact qdisc.
    pub direction: TcDirection,
    /// Priority: filters run in ascending order (upper half of `tcm_info`).
    pub priority: u16,
    /// Handle, unique within a priority (`tcm_handle`).
    pub handle: u32,
    /// Kernel id of the program, `TCA_BPF_ID`.
    pub prog_id: u32,
    /// `TCA_BPF_NAME`.
    pub name: String,
    /// Whether the program's return value is the verdict.
    pub direct_action: bool,
}

/// A qdisc as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// `noqueue`, `clsact`, …
    pub kind: String,
    /// Handle of the parent (`tcm_parent`), for example `TC_H_CLSACT`.
    pub parent: u32,
    /// Its own handle.
    pub handle: u32,
    /// What it has counted: packets, bytes, drops (`TCA_STATS2`).
    pub counted: [u64; 3],
}

/// Attaches a filter, and clsact first where the device has none.
///
/// # Errors
/// [`BpfError::Netlink`]: `EEXIST` where priority and handle are taken, `ENOENT` where the kernel has no clsact or no
/// `cls_bpf`, `ENODEV` without the device.
pub fn attach_tc(
    ifindex: u32,
    direction: TcDirection,
    program: &impl AsFd,
    options: TcOptions,
) -> Result<TcFilter, BpfError> {
    let mut netlink = Netlink::open()?;
    let clsact = add_clsact(&mut netlink, ifindex)?;
    let mut filter = TcFilter { netlink, ifindex, parent: direction.parent(), direction, options, clsact };
    match filter.put(program, NLM_F_CREATE | NLM_F_EXCL) {
        Ok(()) => Ok(filter),
        Err(error) => {
            // A refused filter leaves the device as it was; what the caller needs to know is the first error.
            if clsact == ClsactState::Created {
                let _ = clsact_del(ifindex);
            }
            Err(error)
        }
    }
}

/// Attaches a filter to a block, and so to the ingress of every device that shares it, see [`clsact_sharing`].
///
/// # Errors
/// [`BpfError::Netlink`]: `EINVAL` where no device has such a block.
pub fn attach_to_block(block: u32, program: &impl AsFd, options: TcOptions) -> Result<TcFilter, BpfError> {
    let mut filter = TcFilter {
        netlink: Netlink::open()?,
        ifindex: TCM_IFINDEX_MAGIC_BLOCK,
        parent: block,
        direction: TcDirection::Ingress,
        options,
        clsact: ClsactState::Found,
    };
    filter.put(program, NLM_F_CREATE | NLM_F_EXCL).map(|()| filter)
}

impl TcFilter {
    /// The hook in the report's terms.
    pub const fn hook(&self) -> Hook {
        self.direction.hook()
    }

    /// Whether attaching made the qdisc.
    pub const fn clsact(&self) -> ClsactState {
        self.clsact
    }

    /// Swaps the program in place (`tc filter replace`).
    ///
    /// # Errors
    /// [`BpfError::Netlink`].
    pub fn replace(&mut self, program: &impl AsFd) -> Result<(), BpfError> {
        self.put(program, NLM_F_CREATE)
    }

    /// Removes the filter and leaves clsact, whose removal can lose a packet.
    ///
    /// # Errors
    /// [`BpfError::Netlink`]: `ENOENT` where it is gone.
    pub fn detach(mut self) -> Result<(), BpfError> {
        let body = [self.header(), attribute(TCA_KIND, b"bpf\0")].concat();
        let asked = self.asked("RTM_DELTFILTER");
        Ok(self.netlink.request_raw(RTM_DELTFILTER, 0, &body, &asked)?)
    }

    fn put(&mut self, program: &impl AsFd, flags: u16) -> Result<(), BpfError> {
        let act = if self.options.direct_action { TCA_BPF_FLAG_ACT_DIRECT } else { 0 };
        let name = format!("lab-{}\0", id_of(program)?);
        let settings = nested(
            TCA_OPTIONS,
            &[
                attribute(TCA_BPF_FD, &program.as_fd().as_raw_fd().to_ne_bytes()),
                attribute(TCA_BPF_NAME, name.as_bytes()),
                attribute(TCA_BPF_FLAGS, &act.to_ne_bytes()),
            ],
        );
        let body = [self.header(), attribute(TCA_KIND, b"bpf\0"), settings].concat();
        let asked = self.asked("RTM_NEWTFILTER");
        Ok(self.netlink.request_raw(RTM_NEWTFILTER, flags, &body, &asked)?)
    }

    fn header(&self) -> Vec<u8> {
        let info = u32::from(self.options.priority) << 16 | u32::from(self.options.protocol.to_be());
        tcmsg(self.ifindex, self.options.handle, self.parent, info)
    }

    fn asked(&self, what: &str) -> String {
        let hook = self.direction.hook();
        match self.ifindex {
            TCM_IFINDEX_MAGIC_BLOCK => format!("{what} bpf {hook} block {}", self.parent),
            ifindex => format!("{what} bpf {hook} ifindex {ifindex}"),
        }
    }
}

/// Adds clsact where it is missing.
///
/// # Errors
/// [`BpfError::Netlink`]: `ENOENT` where the kernel has no clsact.
pub fn clsact_add(ifindex: u32) -> Result<ClsactState, BpfError> {
    add_clsact(&mut Netlink::open()?, ifindex)
}

fn add_clsact(netlink: &mut Netlink, ifindex: u32) -> Result<ClsactState, BpfError> {
    let asked = format!("RTM_NEWQDISC clsact ifindex {ifindex}");
    match netlink.request_raw(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &clsact(ifindex), &asked) {
        Ok(()) => Ok(ClsactState::Created),
        Err(error) if error.errno() == Some(libc::EEXIST) => Ok(ClsactState::Found),
        Err(error) => Err(error.into()),
    }
}

/// Makes a clsact whose lists are a block that devices share.
///
/// # Errors
/// [`BpfError::Netlink`]: `EBUSY` "block dev insert failed" where the block has the device already, since 6.8; `EEXIST` where
/// the device has a qdisc that is not to be replaced, `ENOENT` where the kernel has none.
pub fn clsact_sharing(ifindex: u32, block: u32, how: Sharing) -> Result<(), BpfError> {
    let asked = format!("RTM_NEWQDISC clsact ifindex {ifindex} block {block} {how:?}");
    let list = |kind| attribute(kind, &block.to_ne_bytes());
    // A replacement has no handle yet: with the old one's that one would be changed, see `__tc_modify_qdisc()`.
    let (handle, flags) = match how {
        Sharing::Replacing => (0, NLM_F_CREATE | NLM_F_REPLACE),
        _ => (CLSACT_HANDLE, NLM_F_CREATE | NLM_F_EXCL),
    };
    let kind: &[u8] = if how == Sharing::Old { b"ingress\0" } else { b"clsact\0" };
    let mut body =
        [tcmsg(ifindex, handle, TC_H_CLSACT, 0), attribute(TCA_KIND, kind), list(TCA_INGRESS_BLOCK)].concat();
    if how == Sharing::Both {
        body.extend(list(TCA_EGRESS_BLOCK));
    }
    Ok(Netlink::open()?.request_raw(RTM_NEWQDISC, flags, &body, &asked)?)
}

/// Removes clsact, or the `ingress` in its place, with all its filters. May lose a packet: qdisc_graft() stops the device for a moment.
///
/// # Errors
/// [`BpfError::Netlink`].
pub fn clsact_del(ifindex: u32) -> Result<(), BpfError> {
    let asked = format!("RTM_DELQDISC clsact ifindex {ifindex}");
    Ok(Netlink::open()?.request_raw(RTM_DELQDISC, 0, &tcmsg(ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0), &asked)?)
}

fn clsact(ifindex: u32) -> Vec<u8> {
    [tcmsg(ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0), attribute(TCA_KIND, b"clsact\0")].concat()
}

/// The device's qdiscs.
///
/// # Errors
/// [`BpfError::Netlink`].
pub fn qdiscs(ifindex: u32) -> Result<Vec<Qdisc>, BpfError> {
    let asked = format!("RTM_GETQDISC ifindex {ifindex}");
    let listed = Netlink::open()?.dump_raw(RTM_GETQDISC, &tcmsg(ifindex, 0, 0, 0), &asked)?;
    // The kernel filters by device only on request; old ones not at all.
    Ok(listed
        .iter()
        .filter(|body| word(body, 4) == ifindex)
        .filter_map(|body| {
            let attributes = body.get(TCMSG..)?;
            Some(Qdisc {
                kind: text(find(attributes, TCA_KIND)?),
                parent: word(body, 12),
                handle: word(body, 8),
                counted: find(attributes, TCA_STATS2).map_or([0; 3], counted),
            })
        })
        .collect())
}

/// Packets, bytes and drops: `struct gnet_stats_basic` and `struct gnet_stats_queue`, include/uapi/linux/gen_stats.h.
fn counted(stats: &[u8]) -> [u64; 3] {
    const TCA_STATS_BASIC: u16 = 1;
    const TCA_STATS_QUEUE: u16 = 3;
    let basic = find(stats, TCA_STATS_BASIC).unwrap_or_default();
    let queue = find(stats, TCA_STATS_QUEUE).unwrap_or_default();
    let bytes = u64::from(word(basic, 0)) | u64::from(word(basic, 4)) << 32;
    [word(basic, 8).into(), bytes, word(queue, 8).into()]
}

/// The device's `cls_bpf` filters of both directions, in the order of execution.
///
/// # Errors
/// [`BpfError::Netlink`].
pub fn filters(ifindex: u32) -> Result<Vec<ListedFilter>, BpfError> {
    const DIRECTIONS: [TcDirection; 2] = [TcDirection::Ingress, TcDirection::Egress];
    let asking = reading::ask();
    let mut netlink = Netlink::open()?;
    let mut found = Vec::new();
    for direction in DIRECTIONS {
        let asked = format!("RTM_GETTFILTER {} ifindex {ifindex}", direction.hook());
        let body = tcmsg(ifindex, 0, direction.parent(), 0);
        let listed = netlink.dump_raw(RTM_GETTFILTER, &body, &asked)?;
        found.extend(listed.iter().filter_map(|body| listed_filter(direction, body)));
    }
    let seen =
        |filter: &ListedFilter| Observed { hook: filter.direction.hook(), prog_id: filter.prog_id, link_id: None };
    asking.answered(ifindex, &DIRECTIONS.map(TcDirection::hook), || found.iter().map(seen));
    Ok(found)
}

/// One filter of a dump; `None` for the list heads, which have no program.
fn listed_filter(direction: TcDirection, body: &[u8]) -> Option<ListedFilter> {
    let options = find(body.get(TCMSG..)?, TCA_OPTIONS)?;
    Some(ListedFilter {
        direction,
        priority: (word(body, 16) >> 16) as u16,
        handle: word(body, 8),
        prog_id: word(find(options, TCA_BPF_ID)?, 0),
        name: find(options, TCA_BPF_NAME).map_or_else(String::new, text),
        direct_action: find(options, TCA_BPF_FLAGS).is_some_and(|flags| word(flags, 0) & TCA_BPF_FLAG_ACT_DIRECT != 0),
    })
}

/// `struct tcmsg`: family and padding, ifindex, handle, parent, info.
pub(crate) fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [0, ifindex, handle, parent, info].iter().flat_map(|word| word.to_ne_bytes()).collect()
}

pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The word at `offset`; 0 past the end.
pub(crate) fn word(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..offset + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(b"\0").unwrap_or(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_read_and_a_list_head_is_not() {
        let head = [tcmsg(2, 0, TcDirection::Egress.parent(), 7 << 16), attribute(TCA_KIND, b"bpf\0")].concat();
        assert_eq!(listed_filter(TcDirection::Egress, &head), None);

        let options = nested(
            TCA_OPTIONS,
            &[
                attribute(TCA_BPF_NAME, b"lab-9\0"),
                attribute(TCA_BPF_FLAGS, &1u32.to_ne_bytes()),
                attribute(TCA_BPF_ID, &9u32.to_ne_bytes()),
            ],
        );
        let body =
            [tcmsg(2, 3, TcDirection::Egress.parent(), 7 << 16), attribute(TCA_KIND, b"bpf\0"), options].concat();
        let wanted = ListedFilter {
            direction: TcDirection::Egress,
            priority: 7,
            handle: 3,
            prog_id: 9,
            name: "lab-9".to_owned(),
            direct_action: true,
        };
        assert_eq!(listed_filter(TcDirection::Egress, &body), Some(wanted));
        assert_eq!(listed_filter(TcDirection::Egress, &body[..10]), None);
    }
}
