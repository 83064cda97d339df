//! The state of the kernel at a mark, as far as programs that attach others change it, and what changed from one mark to the next.

use super::state;
use crate::runner::PINS;
use lab_protocol::witness::{CHANGES, MARKS, StateMark};
use lab_topology::{DeviceInfo, Netns, link};
use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    fs,
    path::Path,
};

/// Depth of directories of pins.
const DEPTH: usize = 8;

/// The state, a line for each object; equal lines are the same object in the same state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State(BTreeSet<String>);

impl State {
    /// Reads it; the programs `own` are left out, and the maps `own_maps`.
    pub fn read(nodes: &[Netns], own: &[u32], own_maps: &BTreeSet<u32>, names: &HashMap<u32, String>) -> Self {
        let mut lines = BTreeSet::new();
        let namespace = |inode: u64| names.get(&(inode as u32)).cloned().unwrap_or_else(|| format!("net:[{inode}]"));
        for (inode, ns) in state::namespaces(nodes) {
            let space = namespace(inode);
            lines.insert(format!("network namespace {space}"));
            for device in link::list(&ns).unwrap_or_default() {
                lines.insert(format!("device {}{} in {space}", device.name, told(&device)));
                let qdiscs = ns.run(|| lab_bpf::qdiscs(device.ifindex)).unwrap_or_default();
                let qdiscs = qdiscs.iter().filter(|qdisc| qdisc.kind != "noqueue");
                lines.extend(qdiscs.map(|qdisc| format!("qdisc {} of {} in {space}", qdisc.kind, device.name)));
            }
        }
        for standing in state::read(nodes, own) {
            let target = &standing.target;
            let place = match (&*target.name, standing.is_detached) {
                (_, true) => " of no device".to_owned(),
                ("", _) => String::new(),
                (name, _) => format!(" of {name} in {}", namespace(target.netns.into())),
            };
            let link = standing.link.map_or_else(String::new, |id| format!(", link {id}"));
            let program = &standing.program;
            lines.insert(format!("{}{place}: program {} (id {}){link}", standing.hook, program.name, program.id));
        }
        for id in lab_bpf::prog_ids().unwrap_or_default().into_iter().filter(|id| !own.contains(id)) {
            lines.insert(format!("program {} (id {id})", state::program(id).name));
        }
        let maps = lab_bpf::map_ids().unwrap_or_default();
        lines.extend(maps.into_iter().filter(|id| !own_maps.contains(id)).map(|id| format!("map (id {id})")));
        pins(Path::new(PINS), DEPTH, &mut lines);
        Self(lines)
    }

    /// What is in `later` and not here, and the reverse, one line each.
    fn changes(&self, later: &Self) -> Vec<String> {
        let new = later.0.difference(&self.0).map(|line| format!("+ {line}"));
        new.chain(self.0.difference(&later.0).map(|line| format!("- {line}"))).collect()
    }
}

/// What the kernel says of a device beyond its name.
fn told(device: &DeviceInfo) -> String {
    let state = if device.up { "up" } else { "down" };
    let Some(netkit) = &device.netkit else { return format!(" ({}, {state})", device.kind) };
    fn word<T: Debug>(name: &str, value: Option<T>) -> Option<String> {
        value.map(|value| format!("{name} {}", format!("{value:?}").to_lowercase()))
    }
    let words = [
        netkit.primary.map(|primary| if primary { "primary" } else { "peer" }.to_owned()),
        word("policy", netkit.policy),
        word("peer policy", netkit.peer_policy),
        word("scrub", netkit.scrub),
        word("peer scrub", netkit.peer_scrub),
        word("headroom", netkit.headroom.filter(|bytes| *bytes > 0)),
        word("tailroom", netkit.tailroom.filter(|bytes| *bytes > 0)),
        netkit.single.filter(|single| *single).map(|_| "no peer".to_owned()),
    ];
    let words: Vec<String> = words.into_iter().flatten().collect();
    format!(" (netkit {}, {state}, {})", device.kind, words.join(", "))
}

fn pins(directory: &Path, depth: usize, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pins(&path, depth - 1, lines);
        } else {
            lines.insert(format!("pin {}", path.display()));
        }
    }
}

/// The marks of a program, oldest first.
#[derive(Debug, Default)]
pub struct Marks {
    last: State,
    marks: Vec<StateMark>,
}

impl Marks {
    /// The state at the begin.
    pub fn new(begin: State) -> Self {
        Self { last: begin, marks: Vec::new() }
    }

    /// Adds a mark; gives the number of changes since the last one, or `None` where there is no room for more marks.
    pub fn add(&mut self, name: String, at_ms: u64, state: State) -> Option<usize> {
        // The last place is for the end.
        if self.marks.len() + 1 >= MARKS {
            return None;
        }
        Some(self.push(name, at_ms, state))
    }

    fn push(&mut self, name: String, at_ms: u64, state: State) -> usize {
        let mut changes = self.last.changes(&state);
        self.last = state;
        let count = changes.len();
        changes.truncate(CHANGES);
        self.marks.push(StateMark { name, at_ms, omitted: (count - changes.len()) as u64, changes });
        count
    }

    /// All marks, and the end as the last one; nothing where there was no mark.
    pub fn finish(mut self, at_ms: u64, end: impl FnOnce() -> State) -> Vec<StateMark> {
        if !self.marks.is_empty() {
            self.push("end".to_owned(), at_ms, end());
        }
        self.marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(lines: &[&str]) -> State {
        State(lines.iter().map(|line| (*line).to_owned()).collect())
    }

    #[test]
    fn a_mark_tells_what_changed_since_the_one_before() {
        let mut marks = Marks::new(state(&["a", "b"]));
        assert_eq!(marks.add("one".to_owned(), 5, state(&["b", "c"])), Some(2));
        assert_eq!(marks.add("two".to_owned(), 6, state(&["b", "c"])), Some(0));
        let told = marks.finish(7, || state(&["a", "b"]));
        let told: Vec<(&str, Vec<&str>)> =
            told.iter().map(|mark| (&*mark.name, mark.changes.iter().map(|line| &**line).collect())).collect();
        assert_eq!(told, [("one", vec!["+ c", "- a"]), ("two", vec![]), ("end", vec!["+ a", "- c"])]);
        assert!(Marks::new(state(&["a"])).finish(1, || state(&[])).is_empty(), "an end alone is no mark");
        let mut many = Marks::default();
        let added = (0..2 * MARKS).filter_map(|number| many.add(number.to_string(), 0, State::default())).count();
        assert_eq!((added, many.finish(1, State::default).len()), (MARKS - 1, MARKS));
    }
}
