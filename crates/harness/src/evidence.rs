//! Evidence of a failed case: packets at both ends, the drawing of the topology, its devices and programs.
//! Captures start with a case's first traffic and have no cost until they are read. Devices and programs are recorded
//! when the first check fails, while they still exist; in a case that stops otherwise, at its end.

use crate::survey;
use lab_protocol::attachment::{Attachment, AttachmentKind};
use lab_topology::{Net, link};
use lab_traffic::{Capture, pcap};
use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

/// The watched topologies of one cell.
#[derive(Default)]
pub struct Evidence {
    nets: Vec<Watched>,
    dump: Option<String>,
    complaints: Vec<String>,
}

struct Watched {
    net: Arc<Net>,
    captures: BTreeMap<String, Capture>,
}

impl Evidence {
    /// Starts captures at these nodes, at most one per node.
    pub fn watch(&mut self, net: &Arc<Net>, nodes: [&str; 2]) {
        let at = self.nets.iter().position(|watched| Arc::ptr_eq(&watched.net, net)).unwrap_or_else(|| {
            self.nets.push(Watched { net: net.clone(), captures: BTreeMap::new() });
            self.nets.len() - 1
        });
        for node in nodes {
            if self.nets[at].captures.contains_key(node) {
                continue;
            }
            match Capture::start(net.ns(node)) {
                Ok(capture) => drop(self.nets[at].captures.insert(node.to_owned(), capture)),
                Err(error) => self.complaints.push(format!("no capture at {node}: {error}")),
            }
        }
    }

    /// Records the current devices and programs, unless an earlier failure already did.
    pub fn dump(&mut self) {
        if self.dump.is_none() {
            self.dump = Some(self.nets.iter().map(|watched| dump(&watched.net)).collect());
        }
    }

    /// All evidence as files for the host.
    pub fn attachments(mut self) -> Vec<Attachment> {
        self.dump();
        let mut attachments = Vec::new();
        let mut add = |name: String, kind, bytes| attachments.push(Attachment { name, kind, bytes });
        for (number, watched) in self.nets.iter_mut().enumerate() {
            let prefix = if number == 0 { String::new() } else { format!("{}-", number + 1) };
            let topology = watched.net.topology();
            add(format!("{prefix}topology"), AttachmentKind::Text, format!("{topology}\n").into_bytes());
            add(format!("{prefix}topology"), AttachmentKind::Svg, topology.svg().into_bytes());
            for (node, capture) in &mut watched.captures {
                match capture.packets() {
                    Ok(packets) => add(format!("{prefix}{node}"), AttachmentKind::Pcap, pcap(packets)),
                    Err(error) => self.complaints.push(format!("capture at {node}: {error}")),
                }
            }
        }
        let mut dump = self.dump.unwrap_or_default();
        self.complaints.iter().for_each(|complaint| _ = writeln!(dump, "{complaint}"));
        if !dump.is_empty() {
            add("state".to_owned(), AttachmentKind::Text, dump.into_bytes());
        }
        attachments
    }
}

/// All devices of all nodes with their counters and programs.
fn dump(net: &Net) -> String {
    let mut out = String::new();
    for node in &net.topology().nodes {
        let ns = net.ns(&node.name);
        survey::write(&mut out, ns, |info| match link::stats(ns, &info.name) {
            Ok(stats) => Some(stats.to_string()),
            Err(_) => Some(String::new()),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_programs_are_those_at_the_first_failure() {
        let state = |evidence: Evidence| {
            let attachments = evidence.attachments();
            attachments.iter().map(|file| String::from_utf8_lossy(&file.bytes).into_owned()).collect::<Vec<_>>()
        };
        let mut evidence = Evidence { dump: Some("p0: program 7\n".to_owned()), ..Evidence::default() };
        // A second failure, and the end of the case, when the program has gone.
        evidence.dump();
        assert_eq!(state(evidence), ["p0: program 7\n"]);
        assert_eq!(state(Evidence::default()), [""; 0], "nothing was watched");
    }
}
