//! What the kernel announces of devices to everybody who listens.

use crate::{netns::Netns, readback::DeviceInfo};
use lab_netlink::{
    NetlinkError, Notices,
    route::{
        AddressFamily, RouteNetlinkMessage,
        link::{LinkAttribute, LinkMessage},
    },
};

/// One announcement about a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// The device is there, new or changed (`RTM_NEWLINK`).
    Here(DeviceInfo),
    /// The device is there no more (`RTM_DELLINK`).
    Gone {
        /// Its name.
        name: String,
        /// The index that it had.
        ifindex: u32,
        /// Where it was moved: the number of the other namespace in this one (`IFLA_NEW_NETNSID`), and the index that it has there
        /// (`IFLA_NEW_IFINDEX`).
        moved: Option<(i32, i32)>,
    },
}

impl Announced {
    /// Name of the device.
    pub fn name(&self) -> &str {
        match self {
            Self::Here(info) => &info.name,
            Self::Gone { name, .. } => name,
        }
    }

    fn of(message: RouteNetlinkMessage) -> Option<Self> {
        // A port of a bridge is announced once more, with another family.
        let of_a_device = |message: &LinkMessage| message.header.interface_family == AddressFamily::Unspec;
        match message {
            RouteNetlinkMessage::NewLink(message) if of_a_device(&message) => {
                Some(Self::Here(DeviceInfo::of(&message)))
            }
            RouteNetlinkMessage::DelLink(message) if of_a_device(&message) => {
                let (mut netns, mut there) = (None, None);
                for attribute in &message.attributes {
                    match attribute {
                        LinkAttribute::NewNetnsId(id) => netns = Some(*id),
                        LinkAttribute::NewIfIndex(index) => there = Some(*index),
                        _ => {}
                    }
                }
                let info = DeviceInfo::of(&message);
                Some(Self::Gone { name: info.name, ifindex: info.ifindex, moved: netns.zip(there) })
            }
            _ => None,
        }
    }
}

/// Hears what a namespace is told of its devices (`RTNLGRP_LINK`), from its start on.
#[derive(Debug)]
pub struct DeviceNews(Notices);

impl DeviceNews {
    /// Begins to listen.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn of(ns: &Netns) -> Result<Self, NetlinkError> {
        ns.run(|| Notices::of(Notices::LINK)).map(Self)
    }

    /// What was announced since the last call, oldest first. The kernel announces what a request changes before it acknowledges the
    /// request; what follows later, such as the state of a carrier, it announces when it comes.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`]: `ENOBUFS` where the kernel had no room for some.
    pub fn take(&self) -> Result<Vec<Announced>, NetlinkError> {
        Ok(self.0.messages()?.into_iter().filter_map(Announced::of).collect())
    }
}
