//! Queues of devices, by the `netdev` family of generic netlink (include/uapi/linux/netdev.h).
//!
//! A device without hardware can have queues that are another device's: a lease ("net: Add queue-create operation"). Of
//! all devices of Debian's kernels in a virtual machine only netkit can lease a queue, and none can lend one; netdevsim can.

use crate::netns::Netns;
use lab_netlink::{GENERIC_HEADER, Netlink, NetlinkError, attribute, attributes, generic, nested};

const FAMILY: &str = "netdev";
const NETDEV_CMD_QUEUE_GET: u8 = 10;
const NETDEV_CMD_QUEUE_CREATE: u8 = 16;
const NETDEV_A_QUEUE_ID: u16 = 1;
const NETDEV_A_QUEUE_IFINDEX: u16 = 2;
const NETDEV_A_QUEUE_TYPE: u16 = 3;
const NETDEV_A_QUEUE_LEASE: u16 = 8;
const NETDEV_A_LEASE_IFINDEX: u16 = 1;
const NETDEV_A_LEASE_QUEUE: u16 = 2;
/// `NETDEV_QUEUE_TYPE_RX`.
const RX: u32 = 0;

/// Gives a device a further receive queue that is another device's; returns its number.
///
/// # Errors
/// The kernel's refusal: `ENOENT` before 6.3 and `EOPNOTSUPP` before 7.1, which have no such family or command;
/// `EINVAL` where the one can't take a queue (`netdev_can_create_queue()`) or the other can't give one
/// (`netdev_can_lease_queue()`), which the extended acknowledgement distinguishes; `ENODEV` without the device.
pub fn lease(ns: &Netns, taker: u32, giver: u32, queue: u32) -> Result<u32, NetlinkError> {
    let asked = format!("queue-create ifindex {taker} from queue {queue} of ifindex {giver}");
    let parts = [
        number(NETDEV_A_QUEUE_IFINDEX, taker),
        number(NETDEV_A_QUEUE_TYPE, RX),
        nested(
            NETDEV_A_QUEUE_LEASE,
            &[
                number(NETDEV_A_LEASE_IFINDEX, giver),
                nested(NETDEV_A_LEASE_QUEUE, &[number(NETDEV_A_QUEUE_ID, queue), number(NETDEV_A_QUEUE_TYPE, RX)]),
            ],
        ),
    ];
    ns.run(|| {
        let mut netlink = Netlink::open_generic()?;
        let family = netlink.family(FAMILY)?;
        let answer = netlink.get_raw(family, &generic(NETDEV_CMD_QUEUE_CREATE, &parts), &asked)?;
        value(&answer, NETDEV_A_QUEUE_ID)
            .ok_or_else(|| NetlinkError::Answer { asked, detail: "no number of the queue".to_owned() })
    })
}

/// The receive queues that a device works with, by number. A device that is down has none.
///
/// # Errors
/// The kernel's refusal: `ENOENT` before 6.3 and `EOPNOTSUPP` before 6.8, which have no such family or command.
pub fn receive_queues(ns: &Netns, ifindex: u32) -> Result<Vec<u32>, NetlinkError> {
    let body = generic(NETDEV_CMD_QUEUE_GET, &[number(NETDEV_A_QUEUE_IFINDEX, ifindex)]);
    ns.run(|| {
        let mut netlink = Netlink::open_generic()?;
        let family = netlink.family(FAMILY)?;
        let queues = netlink.dump_raw(family, &body, &format!("queue-get ifindex {ifindex}"))?;
        let receiving = queues.iter().filter(|queue| value(queue, NETDEV_A_QUEUE_TYPE) == Some(RX));
        Ok(receiving.filter_map(|queue| value(queue, NETDEV_A_QUEUE_ID)).collect())
    })
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_ne_bytes())
}

/// An attribute of an answer.
fn value(answer: &[u8], wanted: u16) -> Option<u32> {
    let (_, value) = attributes(answer.get(GENERIC_HEADER..)?).find(|(kind, _)| *kind == wanted)?;
    value.try_into().ok().map(u32::from_ne_bytes)
}
