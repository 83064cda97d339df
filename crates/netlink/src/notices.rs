//! What the kernel tells everybody who listens.

use crate::{
    NetlinkError,
    client::{descriptor, socket_error},
    wire::messages,
};
use netlink_packet_core::ParseableParametrized;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    sys::socket::{setsockopt, sockopt::RcvBufForce},
};
use std::io;

/// Bytes of notices that the kernel keeps until they are read.
const ROOM: usize = 4 << 20;

/// A socket that hears the notices of one group, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Notices(Socket);

impl Notices {
    /// `RTNLGRP_LINK` of linux/rtnetlink.h: devices that appear, change and go.
    pub const LINK: u32 = 1;
    /// `RTNLGRP_TC` of linux/rtnetlink.h: queueing disciplines, classes and filters.
    pub const TRAFFIC_CONTROL: u32 = 4;

    /// Listens to a group of rtnetlink.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn of(group: u32) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.bind_auto()?;
            setsockopt(&descriptor(&socket), RcvBufForce, &ROOM)?;
            socket.set_non_blocking(true)?;
            socket.add_membership(group)?;
            Ok(socket)
        };
        open().map(Self).map_err(|error| socket_error("listen", &error))
    }

    /// The next datagram, of one message or more; `None` where there is no more. `Err` counts as notices that were lost, and the next
    /// call goes on.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`]: `ENOBUFS` where the kernel had no room for some.
    pub fn read(&self) -> Result<Option<Vec<u8>>, NetlinkError> {
        next(self.0.recv_from_full().map(|(bytes, _)| bytes))
    }

    /// Everything that was told since the last call, oldest first.
    ///
    /// # Errors
    /// As [`Self::read`]; [`NetlinkError::Answer`] for what can't be decoded.
    pub fn messages(&self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let unreadable = |detail: String| NetlinkError::Answer { asked: "listen".to_owned(), detail };
        let mut told = Vec::new();
        while let Some(datagram) = self.read()? {
            for message in messages(&datagram).map_err(|cut| unreadable(cut.to_string()))? {
                let decoded = RouteNetlinkMessage::parse_with_param(message.body, message.kind);
                told.push(decoded.map_err(|error| unreadable(error.to_string()))?);
            }
        }
        Ok(told)
    }
}

fn next(received: io::Result<Vec<u8>>) -> Result<Option<Vec<u8>>, NetlinkError> {
    match received {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => Ok(None),
        Err(error) => Err(socket_error("listen", &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_that_were_lost_are_an_error_and_no_more_notices_are_none() {
        let after = |errno: Errno| next(Err(io::Error::from_raw_os_error(errno as i32)));
        assert_eq!(next(Ok(vec![1])).unwrap(), Some(vec![1]));
        assert_eq!(after(Errno::EAGAIN).unwrap(), None);
        assert_eq!(after(Errno::ENOBUFS).unwrap_err().errno(), Some(libc::ENOBUFS));
    }
}
