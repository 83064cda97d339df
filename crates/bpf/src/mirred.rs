//! Filters that hand packets to another device without a program: `matchall` with the action `mirred`
//! (include/uapi/linux/pkt_cls.h, tc_act/tc_mirred.h).

use super::tc::{
    ETH_P_ALL, RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER, TCA_KIND, TCA_OPTIONS, TCMSG, TcDirection, clsact_add,
    find, tcmsg, word,
};
use crate::BpfError;
use lab_netlink::{NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute, nested};

const TCA_MATCHALL_ACT: u16 = 2;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_STATS: u16 = 4;
const TCA_STATS_BASIC: u16 = 1;
const TCA_MIRRED_PARMS: u16 = 2;
const KIND: &[u8] = b"matchall\0";
/// What becomes of the packet itself: the next filter has it, or nobody.
const TC_ACT_PIPE: u32 = 3;
const TC_ACT_STOLEN: u32 = 4;
/// Of the filter. A device has one of them at a time in each direction, and no other filter beside it.
const PRIORITY: u32 = 1;

/// What is done with a packet (`eaction` of `struct tc_mirred`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirred {
    /// The other device sends it.
    Redirect,
    /// The other device sends a copy, and the packet goes on as if there was no filter.
    Mirror,
    /// The other device receives it.
    Receive,
}

/// A filter that was added. It stays when this value goes, and goes with its device or clsact.
#[derive(Debug)]
pub struct MirredFilter {
    ifindex: u32,
    direction: TcDirection,
}

/// Adds a filter for all packets, and clsact first where the device has none.
///
/// # Errors
/// [`BpfError::Netlink`]: `ENOENT` where the kernel has no `matchall` or no `mirred`, `ENODEV` without one of the devices.
pub fn mirred_add(ifindex: u32, direction: TcDirection, to: u32, how: Mirred) -> Result<MirredFilter, BpfError> {
    let _ = clsact_add(ifindex)?;
    let (action, towards) = match how {
        // TCA_EGRESS_REDIR, TCA_EGRESS_MIRROR
        Mirred::Redirect => (TC_ACT_STOLEN, 1u32),
        Mirred::Mirror => (TC_ACT_PIPE, 2),
        // TCA_INGRESS_REDIR
        Mirred::Receive => (TC_ACT_STOLEN, 3),
    };
    // struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
    let parameters: Vec<u8> = [0, 0, action, 0, 0, towards, to].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let options = nested(TCA_ACT_OPTIONS, &[attribute(TCA_MIRRED_PARMS, &parameters)]);
    let first = nested(1, &[attribute(TCA_ACT_KIND, b"mirred\0"), options]);
    let filter = MirredFilter { ifindex, direction };
    let settings = nested(TCA_OPTIONS, &[nested(TCA_MATCHALL_ACT, &[first])]);
    let body = [filter.header(), attribute(TCA_KIND, KIND), settings].concat();
    let asked = format!("RTM_NEWTFILTER matchall mirred {} ifindex {ifindex}", direction.hook());
    Netlink::open()?.request_raw(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &body, &asked)?;
    Ok(filter)
}

impl MirredFilter {
    /// Removes it.
    ///
    /// # Errors
    /// [`BpfError::Netlink`]: `ENOENT` where it is gone.
    pub fn remove(self) -> Result<(), BpfError> {
        let body = [self.header(), attribute(TCA_KIND, KIND)].concat();
        let asked = format!("RTM_DELTFILTER matchall {} ifindex {}", self.direction.hook(), self.ifindex);
        Ok(Netlink::open()?.request_raw(RTM_DELTFILTER, 0, &body, &asked)?)
    }

    /// Packets that it has handed on, by the kernel's account (`TCA_ACT_STATS`).
    ///
    /// # Errors
    /// [`BpfError::Netlink`].
    pub fn packets(&self) -> Result<u64, BpfError> {
        let asked = format!("RTM_GETTFILTER {} ifindex {}", self.direction.hook(), self.ifindex);
        let body = tcmsg(self.ifindex, 0, self.direction.parent(), 0);
        let listed = Netlink::open()?.dump_raw(RTM_GETTFILTER, &body, &asked)?;
        Ok(listed.iter().filter_map(|body| counted(body)).sum())
    }

    fn header(&self) -> Vec<u8> {
        tcmsg(self.ifindex, 1, self.direction.parent(), PRIORITY << 16 | u32::from(ETH_P_ALL.to_be()))
    }
}

/// The packets of the first action of a listed filter: `struct gnet_stats_basic`, include/uapi/linux/gen_stats.h.
fn counted(body: &[u8]) -> Option<u64> {
    let options = find(body.get(TCMSG..)?, TCA_OPTIONS)?;
    let action = find(find(options, TCA_MATCHALL_ACT)?, 1)?;
    let basic = find(find(action, TCA_ACT_STATS)?, TCA_STATS_BASIC)?;
    Some(word(basic, 8).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_action() {
        let basic: Vec<u8> = [1200u32, 0, 12, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        let stats = nested(TCA_ACT_STATS, &[attribute(TCA_STATS_BASIC, &basic)]);
        let action = nested(1, &[attribute(TCA_ACT_KIND, b"mirred\0"), stats]);
        let options = nested(TCA_OPTIONS, &[nested(TCA_MATCHALL_ACT, &[action])]);
        let header = tcmsg(2, 1, TcDirection::Ingress.parent(), 0);
        let body = [header, attribute(TCA_KIND, KIND), options].concat();
        assert_eq!(counted(&body), Some(12));
        assert_eq!(counted(&body[..24]), None);
    }
}
