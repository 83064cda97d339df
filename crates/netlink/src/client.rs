//! The socket and the three shapes of a conversation: request, get, dump.

use crate::{
    NetlinkError,
    wire::{GENERIC_HEADER, attribute, attributes, generic, message, messages, verdict},
};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkSerializable, ParseableParametrized};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkAttribute};
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE},
};
use nix::sys::{
    socket::{setsockopt, sockopt::ReceiveTimeout},
    time::{TimeVal, TimeValLike},
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};

/// `NLM_F_DUMP_INTR` of `linux/netlink.h`.
const DUMP_INTERRUPTED: u16 = 0x10;
const DUMP_ATTEMPTS: u32 = 16;

/// A rtnetlink socket in the network namespace of the thread that opened it.
///
/// It stays in that namespace, whichever thread uses it later.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// One request of a netfilter transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchRequest {
    /// Subsystem and message type.
    pub kind: u16,
    /// Added to `NLM_F_REQUEST | NLM_F_ACK`.
    pub flags: u16,
    /// `struct nfgenmsg` and attributes.
    pub body: Vec<u8>,
    /// Words for it in errors.
    pub asked: String,
}

impl BatchRequest {
    /// `NFNL_SUBSYS_NFTABLES` of linux/netfilter/nfnetlink.h.
    pub const NFTABLES: u16 = 10;
    /// `NFNL_MSG_BATCH_BEGIN`.
    const BEGIN: u16 = 16;
    /// `NFNL_MSG_BATCH_END`.
    const END: u16 = 17;
}

/// Message type and body of one answer.
type Answer = (u16, Vec<u8>);

impl Netlink {
    /// How long the kernel may take for one datagram of an answer. Deleting a namespace's last device takes RCU grace
    /// periods, which are slow in an emulated guest.
    pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);

    /// Opens a socket with strict checking (`NETLINK_GET_STRICT_CHK`), extended and capped acknowledgements.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`]: no permission, no memory, or a kernel before 4.20.
    pub fn open() -> Result<Self, NetlinkError> {
        let netlink = Self::open_protocol(NETLINK_ROUTE)?;
        netlink.socket.set_netlink_get_strict_chk(true).map_err(|error| socket_error("open", &error))?;
        Ok(netlink)
    }

    /// Opens a socket to netfilter, for [`Self::batch`].
    ///
    /// # Errors
    /// As [`Self::open`]; `EPROTONOSUPPORT` without the `nfnetlink` module.
    pub fn open_netfilter() -> Result<Self, NetlinkError> {
        Self::open_protocol(NETLINK_NETFILTER)
    }

    /// Opens a socket to generic netlink, for [`Self::request_raw`], [`Self::get_raw`] and [`Self::dump_raw`] with the
    /// number of [`Self::family`].
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_generic() -> Result<Self, NetlinkError> {
        Self::open_protocol(NETLINK_GENERIC)
    }

    /// The message type of a family of generic netlink (`CTRL_CMD_GETFAMILY`).
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with `ENOENT` where the kernel has no such family.
    pub fn family(&mut self, name: &str) -> Result<u16, NetlinkError> {
        const GENL_ID_CTRL: u16 = 16;
        const CTRL_CMD_GETFAMILY: u8 = 3;
        const CTRL_ATTR_FAMILY_ID: u16 = 1;
        const CTRL_ATTR_FAMILY_NAME: u16 = 2;
        let asked = format!("CTRL_CMD_GETFAMILY {name}");
        let name = attribute(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), &[0]].concat());
        let body = self.get_raw(GENL_ID_CTRL, &generic(CTRL_CMD_GETFAMILY, &[name]), &asked)?;
        let id = attributes(body.get(GENERIC_HEADER..).unwrap_or_default())
            .find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID)
            .and_then(|(_, value)| value.try_into().ok())
            .map(u16::from_ne_bytes);
        id.ok_or_else(|| NetlinkError::Answer { asked, detail: "no number of the family".to_owned() })
    }

    fn open_protocol(protocol: isize) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(protocol)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            let patience = TimeVal::seconds(Self::ANSWER_WITHIN.as_secs().cast_signed());
            setsockopt(&descriptor(&socket), ReceiveTimeout, &patience)?;
            Ok(socket)
        };
        open().map(|socket| Self { socket, sequence: 0 }).map_err(|error| socket_error("open", &error))
    }

    /// Sends a request that changes something and waits for the acknowledgement. `flags` are added to
    /// `NLM_F_REQUEST | NLM_F_ACK`.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] with the kernel's errno and explanation.
    pub fn request(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<(), NetlinkError> {
        self.request_raw(message.message_type(), flags, &body_of(&message), &describe(&message))
    }

    /// Like [`Self::request`] for a body made by hand, with the words for it in errors: `RTM_NEWLINK nk0`.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub fn request_raw(&mut self, kind: u16, flags: u16, body: &[u8], asked: &str) -> Result<(), NetlinkError> {
        self.converse(kind, flags | NLM_F_ACK, body, asked).map(drop)
    }

    /// Asks for one object: `RTM_GETLINK` with an index or a name.
    ///
    /// # Errors
    /// As [`Self::request`]; [`NetlinkError::Answer`] where the kernel acknowledges without an answer.
    pub fn get(&mut self, message: RouteNetlinkMessage) -> Result<RouteNetlinkMessage, NetlinkError> {
        let asked = describe(&message);
        let answers = self.converse(message.message_type(), NLM_F_ACK, &body_of(&message), &asked)?.0;
        decode(answers, &asked)?
            .pop()
            .ok_or_else(|| NetlinkError::Answer { asked, detail: "acknowledged without an object".to_owned() })
    }

    /// Asks for one object and returns its undecoded body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_raw(&mut self, kind: u16, body: &[u8], asked: &str) -> Result<Vec<u8>, NetlinkError> {
        self.converse(kind, NLM_F_ACK, body, asked)?.0.pop().map(|(_, body)| body).ok_or_else(|| NetlinkError::Answer {
            asked: asked.to_owned(),
            detail: "acknowledged without an object".to_owned(),
        })
    }

    /// Asks for all objects that match; an interrupted dump is asked for again.
    ///
    /// # Errors
    /// As [`Self::request`]; [`NetlinkError::Unstable`] where the dump is interrupted every time.
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let asked = describe(&message);
        let answers = self.dump_answers(message.message_type(), &body_of(&message), &asked)?;
        decode(answers, &asked)
    }

    /// Like [`Self::dump`], with undecoded bodies on both sides.
    ///
    /// # Errors
    /// As [`Self::dump`].
    pub fn dump_raw(&mut self, kind: u16, body: &[u8], asked: &str) -> Result<Vec<Vec<u8>>, NetlinkError> {
        Ok(self.dump_answers(kind, body, asked)?.into_iter().map(|(_, body)| body).collect())
    }

    /// Sends a transaction of nf_tables, which takes effect as a whole, and waits until each request is acknowledged.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] for the first request that the kernel refused; none has taken effect then.
    pub fn batch(&mut self, requests: &[BatchRequest]) -> Result<(), NetlinkError> {
        let mut datagram = Vec::new();
        let mut unanswered = BTreeMap::new();
        let frame = [0, 0, 0, BatchRequest::NFTABLES as u8];
        datagram.extend(self.next_message(BatchRequest::BEGIN, NLM_F_REQUEST, &frame));
        for request in requests {
            datagram.extend(self.next_message(request.kind, request.flags | NLM_F_REQUEST | NLM_F_ACK, &request.body));
            unanswered.insert(self.sequence, &*request.asked);
        }
        datagram.extend(self.next_message(BatchRequest::END, NLM_F_REQUEST, &frame));
        self.socket.send(&datagram, 0).map_err(|error| socket_error("netfilter transaction", &error))?;
        while !unanswered.is_empty() {
            let answer = self.receive().map_err(|error| socket_error("netfilter transaction", &error))?;
            let received = messages(&answer).map_err(|cut| NetlinkError::Answer {
                asked: "netfilter transaction".to_owned(),
                detail: cut.to_string(),
            })?;
            for received in &received {
                let Some((errno, extack)) = verdict(received) else { continue };
                let asked = unanswered.remove(&received.sequence).unwrap_or("netfilter transaction");
                if errno != 0 {
                    return Err(NetlinkError::Refused { asked: asked.to_owned(), errno, extack });
                }
            }
        }
        Ok(())
    }

    fn next_message(&mut self, kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        message(kind, flags, self.sequence, body)
    }

    fn dump_answers(&mut self, kind: u16, body: &[u8], asked: &str) -> Result<Vec<Answer>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let (answers, interrupted) = self.converse(kind, NLM_F_DUMP, body, asked)?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(NetlinkError::Unstable { asked: asked.to_owned(), attempts: DUMP_ATTEMPTS })
    }

    /// Sends, then reads up to the message that ends the answer; returns whether a dump was interrupted.
    fn converse(
        &mut self,
        kind: u16,
        flags: u16,
        body: &[u8],
        asked: &str,
    ) -> Result<(Vec<Answer>, bool), NetlinkError> {
        let request = self.next_message(kind, flags | NLM_F_REQUEST, body);
        self.socket.send(&request, 0).map_err(|error| socket_error(asked, &error))?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let datagram = self.receive().map_err(|error| socket_error(asked, &error))?;
            let received = messages(&datagram)
                .map_err(|cut| NetlinkError::Answer { asked: asked.to_owned(), detail: cut.to_string() })?;
            // An answer that an earlier, failed request left in the socket is dropped.
            for received in received.iter().filter(|received| received.sequence == self.sequence) {
                interrupted |= received.flags & DUMP_INTERRUPTED != 0;
                match verdict(received) {
                    Some((0, _)) => return Ok((answers, interrupted)),
                    Some((errno, extack)) => {
                        return Err(NetlinkError::Refused { asked: asked.to_owned(), errno, extack });
                    }
                    None => answers.push((received.kind, received.body.to_vec())),
                }
            }
        }
    }

    fn receive(&self) -> io::Result<Vec<u8>> {
        loop {
            match self.socket.recv_from_full() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map(|(bytes, _)| bytes),
            }
        }
    }
}

/// The descriptor of a socket.
pub(crate) fn descriptor(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open for as long as `socket`, which outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

pub(crate) fn socket_error(asked: &str, error: &io::Error) -> NetlinkError {
    NetlinkError::Socket { asked: asked.to_owned(), errno: error.raw_os_error().unwrap_or(libc::EIO) }
}

fn body_of(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut body = vec![0; NetlinkSerializable::buffer_len(message)];
    message.serialize(&mut body);
    body
}

fn decode(answers: Vec<Answer>, asked: &str) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
    answers
        .into_iter()
        .map(|(kind, body)| {
            RouteNetlinkMessage::parse_with_param(&body[..], kind)
                .map_err(|error| NetlinkError::Answer { asked: asked.to_owned(), detail: error.to_string() })
        })
        .collect()
}

/// The request in the kernel's words: type, and the device where it names one.
fn describe(message: &RouteNetlinkMessage) -> String {
    use RouteNetlinkMessage as M;
    let (kind, index, link) = match message {
        M::NewLink(link) => ("RTM_NEWLINK", link.header.index, Some(link)),
        M::DelLink(link) => ("RTM_DELLINK", link.header.index, Some(link)),
        M::GetLink(link) => ("RTM_GETLINK", link.header.index, Some(link)),
        M::SetLink(link) => ("RTM_SETLINK", link.header.index, Some(link)),
        M::NewAddress(address) => ("RTM_NEWADDR", address.header.index, None),
        M::DelAddress(address) => ("RTM_DELADDR", address.header.index, None),
        M::GetAddress(address) => ("RTM_GETADDR", address.header.index, None),
        M::NewNeighbour(neighbour) => ("RTM_NEWNEIGH", neighbour.header.ifindex, None),
        M::GetNeighbour(neighbour) => ("RTM_GETNEIGH", neighbour.header.ifindex, None),
        M::NewRoute(_) => ("RTM_NEWROUTE", 0, None),
        M::NewRule(_) => ("RTM_NEWRULE", 0, None),
        M::NewQueueDiscipline(tc) => ("RTM_NEWQDISC", tc.header.index.cast_unsigned(), None),
        M::DelQueueDiscipline(tc) => ("RTM_DELQDISC", tc.header.index.cast_unsigned(), None),
        M::NewTrafficFilter(tc) => ("RTM_NEWTFILTER", tc.header.index.cast_unsigned(), None),
        M::DelTrafficFilter(tc) => ("RTM_DELTFILTER", tc.header.index.cast_unsigned(), None),
        M::GetTrafficFilter(tc) => ("RTM_GETTFILTER", tc.header.index.cast_unsigned(), None),
        other => return format!("rtnetlink message {}", other.message_type()),
    };
    let name = link.and_then(|link| {
        link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.as_str()),
            _ => None,
        })
    });
    match (name, index) {
        (Some(name), _) => format!("{kind} {name}"),
        (None, 0) => kind.to_owned(),
        (None, index) => format!("{kind} ifindex {index}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_route::link::{LinkHeader, LinkMessage};

    fn by_index(index: u32) -> RouteNetlinkMessage {
        let mut link = LinkMessage::default();
        link.header = LinkHeader { index, ..LinkHeader::default() };
        RouteNetlinkMessage::GetLink(link)
    }

    #[test]
    fn loopback_is_found_by_dump_and_by_index() {
        let mut netlink = Netlink::open().unwrap();
        assert!(!netlink.dump(by_index(0)).unwrap().is_empty());
        assert!(matches!(netlink.get(by_index(1)).unwrap(), RouteNetlinkMessage::NewLink(_)));
    }

    #[test]
    fn families_are_found_by_name() {
        let mut netlink = Netlink::open_generic().unwrap();
        assert_eq!(netlink.family("nlctrl").unwrap(), 16, "the one family with a fixed number");
        assert_eq!(netlink.family("no such family").unwrap_err().errno(), Some(libc::ENOENT));
    }

    #[test]
    fn refusal_names_the_request_and_leaves_the_socket_usable() {
        let mut netlink = Netlink::open().unwrap();
        let error = netlink.get(by_index(0x7fff_ffff)).unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENODEV));
        assert!(error.to_string().starts_with("RTM_GETLINK ifindex 2147483647: ENODEV"), "{error}");
        netlink.get(by_index(1)).unwrap();
    }

    #[test]
    fn a_dump_that_was_interrupted_at_any_message_is_asked_for_again() {
        /// Programs of one user may talk to each other (linux/netlink.h).
        const NETLINK_USERSOCK: isize = 2;
        const DONE: u16 = 3;
        let mut answering = Socket::new(NETLINK_USERSOCK).unwrap();
        let mut netlink = Netlink::open_protocol(NETLINK_USERSOCK).unwrap();
        netlink.socket.connect(&answering.bind_auto().unwrap()).unwrap();
        let mut asking = SocketAddr::new(0, 0);
        netlink.socket.get_address(&mut asking).unwrap();
        // A change shows at one message; those behind it are from after the change, and not flagged.
        for (sequence, flags, value) in [(1, [DUMP_INTERRUPTED, 0], 1), (2, [0, 0], 2)] {
            let objects = flags.map(|flags| message(16, flags, sequence, &[value; 4])).concat();
            let end = message(DONE, 0, sequence, &[0; 4]);
            answering.send_to(&[objects, end].concat(), &asking, 0).unwrap();
        }
        assert_eq!(netlink.dump_raw(18, &[], "all").unwrap(), [[2; 4], [2; 4]]);
    }
}
