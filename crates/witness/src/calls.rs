//! Events of a kernel whose functions can't be watched: calls of bpf(2), which name programs, links and network namespaces by numbers
//! of the calling process, and rtnetlink's notices about filters. Who these numbers stand for is for the caller to look up.

use crate::{
    decode::{AttachEvent, SeenDevice, SeenProgram, What, array, text},
    request::{self, FilterRequest, attributes},
};
use lab_abi::witness::{
    HEAD, SHORT,
    command::{
        LINK_CREATE, LINK_DETACH, LINK_UPDATE, OBJ_GET, OBJ_PIN, PROG_ATTACH, PROG_DETACH, PROG_GET_FD_BY_ID,
        PROG_LOAD, RAW_TRACEPOINT_OPEN,
    },
    kind,
};

/// `BPF_F_REPLACE`, include/uapi/linux/bpf.h.
const REPLACE: u32 = 1 << 2;
/// `struct nlmsghdr` and `struct tcmsg`.
const MESSAGE_HEADER: usize = 16;
const TC_HEADER: usize = 16 + 20;
/// include/uapi/linux/rtnetlink.h.
const RTM_DELQDISC: u16 = 37;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
/// include/uapi/linux/rtnetlink.h and pkt_cls.h.
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_TAG: u16 = 10;
const TCA_BPF_ID: u16 = 11;

/// A call of bpf(2) that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfCall {
    bytes: Vec<u8>,
    /// Process and thread.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Name of the thread.
    pub process: String,
    /// The descriptor of a program that it names.
    pub program: Option<u32>,
    /// The descriptor of the program whose place that takes.
    pub instead: Option<u32>,
    /// The descriptor of a link.
    pub link: Option<u32>,
    /// Index of a device; 0 for none.
    pub ifindex: u32,
    /// The descriptor that the kernel made for it.
    pub made: Option<u32>,
    /// The name of a program that was loaded.
    pub loaded: Option<String>,
}

/// What the numbers of a call stand for; what is not known is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CallFacts {
    /// The device, and the network namespace of the caller.
    pub target: SeenDevice,
    /// The program.
    pub program: SeenProgram,
    /// Id of the program whose place it takes.
    pub instead: u32,
    /// Id of the link.
    pub link: u32,
    /// Its `enum bpf_link_type`.
    pub link_type: u32,
}

impl BpfCall {
    /// Reads the event of a call; `None` for other bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| u32::from_le_bytes(array(bytes, at).unwrap_or_default());
        if bytes.len() < HEAD + SHORT || word(40) != kind::CALL {
            return None;
        }
        let (ret, length) = (i64::from_le_bytes(array(bytes, 32)?), word(84) as usize);
        let mut bytes = bytes.to_vec();
        // Behind the request there may be anything.
        bytes[(HEAD + length.min(SHORT))..HEAD + SHORT].fill(0);
        let asked = |at: usize| u32::from_le_bytes(array(&bytes, HEAD + at).unwrap_or_default());
        let made = u32::try_from(ret).ok();
        let mut call = Self {
            pid: word_of(&bytes, 12),
            tid: word_of(&bytes, 8),
            process: text(&bytes[88..104]),
            program: None,
            instead: None,
            link: None,
            ifindex: 0,
            made: None,
            loaded: None,
            bytes: Vec::new(),
        };
        match word_of(&bytes, 44) {
            PROG_LOAD => {
                call.loaded = Some(text(&bytes[HEAD + 48..HEAD + SHORT]));
                call.made = made;
            }
            OBJ_GET | PROG_GET_FD_BY_ID => call.made = made,
            OBJ_PIN => (call.program, call.link) = (Some(asked(8)), Some(asked(8))),
            PROG_ATTACH | PROG_DETACH => {
                (call.program, call.ifindex) = (Some(asked(4)), asked(0));
                call.instead = (asked(12) & REPLACE != 0).then(|| asked(16));
            }
            LINK_CREATE => (call.program, call.ifindex, call.made) = (Some(asked(0)), asked(4), made),
            RAW_TRACEPOINT_OPEN => (call.program, call.made) = (Some(asked(8)), made),
            LINK_UPDATE => (call.link, call.program) = (Some(asked(0)), Some(asked(4))),
            LINK_DETACH => call.link = Some(asked(0)),
            _ => return None,
        }
        call.bytes = bytes;
        Some(call)
    }

    /// The event, if the call attaches, detaches or pins something.
    pub fn event(&self, facts: CallFacts) -> Option<AttachEvent> {
        let mut bytes = self.bytes.clone();
        let mut set = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        set(40, kind::COMMAND);
        set(60, facts.program.id);
        set(68, facts.instead);
        set(72, facts.link);
        set(76, facts.link_type);
        let event = AttachEvent::decode(&bytes)?;
        Some(AttachEvent { target: facts.target, program: facts.program, ..event })
    }
}

fn word_of(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at).unwrap_or_default())
}

/// A notice of rtnetlink about filters of cls_bpf, or that a queueing discipline was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterNotice {
    /// Index of the device.
    pub ifindex: u32,
    /// The port of whoever asked for it, which is its process in most cases; 0 for the kernel.
    pub port: u32,
    /// The program's id and tag; without a name.
    pub program: SeenProgram,
    /// Which filter it is: parent, priority, handle.
    pub filter: (u32, u32, u32),
    request: FilterRequest,
    message: u16,
}

impl FilterNotice {
    /// Reads the notices of a datagram.
    pub fn all(datagram: &[u8]) -> Vec<Self> {
        let mut rest = datagram;
        let mut found = Vec::new();
        while let Some(length) = array(rest, 0).map(u32::from_le_bytes).map(|length| length as usize) {
            let Some(message) = rest.get(..length).filter(|message| message.len() >= MESSAGE_HEADER) else { break };
            found.extend(Self::of(message));
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        found
    }

    fn of(message: &[u8]) -> Option<Self> {
        let kind = u16::from_le_bytes(array(message, 4)?);
        let request = request::filter(message, message.len())?;
        let is_filter = matches!(kind, RTM_NEWTFILTER | RTM_DELTFILTER) && request.is_bpf == Some(true);
        if !is_filter && kind != RTM_DELQDISC {
            return None;
        }
        let mut program = SeenProgram::default();
        let options = attributes(message.get(TC_HEADER..)?).find(|(kind, _)| *kind == TCA_OPTIONS);
        for (kind, value) in options.iter().flat_map(|(_, value)| attributes(value)) {
            match kind {
                TCA_BPF_ID => program.id = u32::from_le_bytes(array(value, 0)?),
                TCA_BPF_TAG => program.tag = array(value, 0)?,
                _ => {}
            }
        }
        Some(Self {
            ifindex: word_of(message, MESSAGE_HEADER + 4),
            port: word_of(message, 12),
            program,
            filter: (request.parent, request.prio, request.handle),
            request,
            message: kind,
        })
    }

    /// Whether a filter was made or changed.
    pub const fn is_new(&self) -> bool {
        self.message == RTM_NEWTFILTER
    }

    /// What happened; `instead` is the program that the filter had.
    pub fn what(&self, instead: Option<u32>) -> What {
        let request = self.request.clone();
        match self.message {
            RTM_NEWTFILTER => What::FilterNew { request, instead },
            RTM_DELTFILTER => What::FilterDel { request, gone: Some(self.program.id).filter(|id| *id != 0) },
            _ => What::QdiscDel { request },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_abi::witness::LONG;

    /// The event of a call, with these words of its request.
    fn call(command: u32, ret: i64, words: &[(usize, u32)]) -> Vec<u8> {
        let mut bytes = vec![0; HEAD + LONG];
        bytes[8..16].copy_from_slice(&((77_u64 << 32) | 78).to_le_bytes());
        bytes[32..40].copy_from_slice(&ret.to_le_bytes());
        bytes[40..44].copy_from_slice(&kind::CALL.to_le_bytes());
        bytes[44..48].copy_from_slice(&command.to_le_bytes());
        bytes[84..88].copy_from_slice(&64_u32.to_le_bytes());
        bytes[88..94].copy_from_slice(b"loader");
        for (at, word) in words {
            bytes[HEAD + at..HEAD + at + 4].copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    fn facts() -> CallFacts {
        let program = SeenProgram { id: 23, name: "main".to_owned(), tag: [7; 8] };
        let target = SeenDevice { netns: 5, ifindex: 3, name: "nk0".to_owned(), kind: "netkit".to_owned() };
        CallFacts { target, program, instead: 0, link: 9, link_type: 13 }
    }

    #[test]
    fn a_link_is_told_by_the_type_that_was_asked_for() {
        let made = BpfCall::decode(&call(LINK_CREATE, 6, &[(0, 5), (4, 3), (8, 54)])).unwrap();
        assert_eq!((made.pid, made.tid, made.program, made.ifindex, made.made), (77, 78, Some(5), 3, Some(6)));
        let event = made.event(facts()).unwrap();
        assert_eq!((event.process.as_str(), event.target, event.program), ("loader", facts().target, facts().program));
        let What::LinkAttach { hook, link } = event.what else { panic!("{:?}", event.what) };
        assert_eq!((hook.name.as_str(), link), ("netkit/primary", 9));
        let refused = BpfCall::decode(&call(LINK_CREATE, -6, &[(0, 5), (4, 3), (8, 54)])).unwrap();
        assert_eq!((refused.made, refused.event(facts()).unwrap().refused), (None, Some(6)));
    }

    #[test]
    fn what_is_behind_the_request_is_not_read() {
        let mut bytes = call(PROG_ATTACH, 0, &[(0, 3), (4, 5), (8, 46), (12, REPLACE), (16, 8)]);
        assert_eq!(BpfCall::decode(&bytes).unwrap().instead, Some(8));
        bytes[84..88].copy_from_slice(&12_u32.to_le_bytes());
        assert_eq!(BpfCall::decode(&bytes).unwrap().instead, None);
        assert_eq!(BpfCall::decode(&bytes[..HEAD]), None);
        bytes[40..44].copy_from_slice(&kind::COMMAND.to_le_bytes());
        assert_eq!(BpfCall::decode(&bytes), None, "an event of the kernel's functions");
    }

    #[test]
    fn a_load_has_a_name_and_is_no_event() {
        let mut bytes = call(PROG_LOAD, 4, &[]);
        bytes[HEAD + 48..HEAD + 52].copy_from_slice(b"main");
        let loaded = BpfCall::decode(&bytes).unwrap();
        assert_eq!((loaded.loaded.as_deref(), loaded.made), (Some("main"), Some(4)));
        assert_eq!(loaded.event(CallFacts::default()), None);
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_le_bytes().to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn notice(kind: u16, parent: u32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = ((TC_HEADER + attributes.len()) as u32).to_le_bytes().to_vec();
        bytes.extend(kind.to_le_bytes());
        bytes.extend([0; 6]);
        bytes.extend(77_u32.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(parent.to_le_bytes());
        bytes.extend((49152_u32 << 16).to_le_bytes());
        bytes.extend(attributes);
        bytes
    }

    #[test]
    fn notices_tell_filters_and_their_programs() {
        let options = [attribute(TCA_BPF_ID, &23_u32.to_le_bytes()), attribute(TCA_BPF_TAG, &[7; 8])].concat();
        let ours = [attribute(1, b"bpf\0"), attribute(TCA_OPTIONS, &options)].concat();
        let flower = attribute(1, b"flower\0");
        let datagram = [
            notice(RTM_NEWTFILTER, 0xffff_fff2, &ours),
            notice(RTM_NEWTFILTER, 0xffff_fff2, &flower),
            notice(RTM_DELTFILTER, 0xffff_fff3, &ours),
            notice(RTM_DELQDISC, 0xffff_fff1, &attribute(1, b"clsact\0")),
        ]
        .concat();
        let all = FilterNotice::all(&datagram);
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].ifindex, all[0].port, all[0].filter), (3, 77, (0xffff_fff2, 49152, 1)));
        assert_eq!((all[0].program.id, all[0].program.tag), (23, [7; 8]));
        assert!(matches!(all[0].what(Some(4)), What::FilterNew { instead: Some(4), .. }));
        assert!(matches!(all[1].what(None), What::FilterDel { gone: Some(23), .. }));
        assert!(matches!(all[2].what(None), What::QdiscDel { .. }));
        for length in 0..datagram.len() {
            assert!(FilterNotice::all(&datagram[..length]).len() <= 3);
        }
    }
}
