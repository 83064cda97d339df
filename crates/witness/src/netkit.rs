//! Requests that make or change netkit devices (include/uapi/linux/if_link.h).

use crate::{
    decode::{AttachEvent, text},
    request::attributes,
};
use lab_protocol::witness::{DeviceRow, ROWS, errno_name};

/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16 + 16;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
/// `IFLA_NETKIT_PEER_INFO`: a `struct ifinfomsg` and attributes of the peer.
const PEER_INFO: u16 = 1;
const PEER_HEADER: usize = 16;

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetkitRequest {
    /// Whether it asks for a new device.
    pub is_new: bool,
    /// `IFLA_IFNAME`.
    pub name: String,
    /// Its settings, in the order of their numbers.
    pub settings: String,
}

/// Reads a request of which the first bytes are known; `None` for one about other devices.
pub fn netkit(bytes: &[u8], length: usize) -> Option<NetkitRequest> {
    let is_cut = length > bytes.len();
    let bytes = bytes.get(..length.min(bytes.len()))?;
    let flags = u16::from_le_bytes(bytes.get(6..8)?.try_into().ok()?);
    let mut request = NetkitRequest { is_new: flags & NLM_F_CREATE != 0, ..NetkitRequest::default() };
    let (mut is_netkit, mut settings) = (false, Vec::new());
    for (kind, value) in attributes(bytes.get(HEADER..)?) {
        match kind {
            IFLA_IFNAME => request.name = text(value),
            IFLA_LINKINFO => {
                for (kind, value) in attributes(value) {
                    match kind {
                        IFLA_INFO_KIND => is_netkit = text(value) == "netkit",
                        IFLA_INFO_DATA => settings = attributes(value).filter_map(setting).collect(),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    settings.sort();
    let mut words: Vec<String> = settings.into_iter().map(|(_, word)| word).collect();
    words.extend(is_cut.then(|| "and more that is not known".to_owned()));
    request.settings = words.join(", ");
    is_netkit.then_some(request)
}

fn setting((kind, value): (u16, &[u8])) -> Option<(u16, String)> {
    let number = match *value {
        [a, b, c, d, ..] => u32::from_le_bytes([a, b, c, d]),
        [a, b] => u16::from_le_bytes([a, b]).into(),
        _ => 0,
    };
    let policy = |name: &str| match number {
        0 => format!("{name} pass"),
        2 => format!("{name} blackhole"),
        other => format!("{name} {other}"),
    };
    let scrub = |name: &str| match number {
        0 => format!("{name} none"),
        1 => format!("{name} default"),
        other => format!("{name} {other}"),
    };
    let word = match kind {
        PEER_INFO => {
            let peer = attributes(value.get(PEER_HEADER..)?).find(|(kind, _)| *kind == IFLA_IFNAME);
            format!("peer {}", peer.map_or_else(|| "without a name".to_owned(), |(_, name)| text(name)))
        }
        3 => policy("policy"),
        4 => policy("peer policy"),
        5 if number == 0 => "mode l2".to_owned(),
        5 if number == 1 => "mode l3".to_owned(),
        5 => format!("mode {number}"),
        6 => scrub("scrub"),
        7 => scrub("peer scrub"),
        8 => format!("headroom {number}"),
        9 => format!("tailroom {number}"),
        other => format!("attribute {other}"),
    };
    Some((kind, word))
}

/// The row of a request.
pub(crate) fn row(event: &AttachEvent, request: &NetkitRequest, namespace: String) -> DeviceRow {
    let name = if request.name.is_empty() { &event.target.name } else { &request.name };
    DeviceRow {
        name: name.clone(),
        namespace,
        // A request for a new device may be about one that is there.
        is_new: request.is_new && event.target.name.is_empty(),
        settings: request.settings.clone(),
        refused: event.refused.map(errno_name),
        process: event.process.clone(),
        pid: event.pid,
        count: 1,
    }
}

/// Enters a row into those of devices; gives whether there was room.
pub(crate) fn enter(rows: &mut Vec<DeviceRow>, row: DeviceRow) -> bool {
    let is_same = |known: &&mut DeviceRow| DeviceRow { pid: row.pid, count: 1, ..(**known).clone() } == row;
    if let Some(known) = rows.iter_mut().find(is_same) {
        known.count += 1;
        return true;
    }
    let has_room = rows.len() < ROWS;
    if has_room {
        rows.push(row);
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = u16::try_from(value.len() + 4).unwrap().to_le_bytes().to_vec();
        out.extend(kind.to_le_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn request(kind: &str, data: &[u8]) -> Vec<u8> {
        let info = [attribute(IFLA_INFO_KIND, kind.as_bytes()), attribute(IFLA_INFO_DATA, data)].concat();
        let mut bytes = vec![0; HEADER];
        bytes[6..8].copy_from_slice(&(NLM_F_CREATE | 5).to_le_bytes());
        [bytes, attribute(IFLA_IFNAME, b"nk0\0"), attribute(IFLA_LINKINFO | 0x8000, &info)].concat()
    }

    #[test]
    fn a_request_is_told_by_its_settings() {
        let peer = [vec![0; PEER_HEADER], attribute(IFLA_IFNAME, b"nk1\0")].concat();
        let data = [
            attribute(5, &1u32.to_le_bytes()),
            attribute(3, &2u32.to_le_bytes()),
            attribute(6, &0u32.to_le_bytes()),
            attribute(PEER_INFO, &peer),
            attribute(8, &64u16.to_le_bytes()),
        ]
        .concat();
        let bytes = request("netkit", &data);
        let read = netkit(&bytes, bytes.len()).unwrap();
        assert!(read.is_new && read.name == "nk0");
        assert_eq!(read.settings, "peer nk1, policy blackhole, mode l3, scrub none, headroom 64");
        let cut = netkit(&bytes, bytes.len() + 9).unwrap();
        assert!(cut.settings.ends_with(", and more that is not known"), "{}", cut.settings);
        let other = request("veth", &data);
        assert!(netkit(&other, other.len()).is_none() && netkit(&[], 0).is_none());
    }
}
