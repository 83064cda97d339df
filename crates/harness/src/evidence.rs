//! Evidence of a failed case: packets at both ends, the drawing of the topology, its devices and programs.
//!
//! Captures start with a case's first traffic and cost nothing until they are read. The dump is taken when the first
//! check fails, while everything is still in place; a case that stops otherwise is dumped at its end.

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
    /// Captures at these nodes from now on, each once.
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

    /// Keeps devices and programs as they are now, unless an earlier failure has.
    pub fn dump(&mut self) {
        if self.dump.is_none() {
            self.dump = Some(self.nets.iter().map(|watched| dump(&watched.net)).collect());
        }
    }

    /// Everything, for the host.
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

/// Every device of every node with its counters, and what is attached to it.
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
