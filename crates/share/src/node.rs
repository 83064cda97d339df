//! Nodes: what the guest's kernel has looked up and not forgotten, by number.

use crate::tree::ItemId;
use nix::errno::Errno;
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// Number of the root, which always exists.
pub const ROOT: u64 = 1;
/// Nodes that a guest may hold. A kernel forgets those that it has no memory for.
const MOST: usize = 500_000;

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the tree.
    Item(ItemId),
    /// Below a directory of the host.
    Host {
        /// The item of that directory.
        export: ItemId,
        /// The node of the directory that it is in.
        parent: u64,
        /// Its name there.
        name: OsString,
        /// Its number there: another file of this name has another one.
        ino: u64,
        /// Number of its file system.
        dev: u64,
        /// Whether it is shown as an empty directory.
        blank: bool,
        /// Whether its name is gone.
        unlinked: bool,
    },
}

#[derive(Debug)]
struct Node {
    place: Place,
    lookups: u64,
}

/// All nodes.
#[derive(Debug)]
pub struct Nodes {
    nodes: HashMap<u64, Node>,
    items: HashMap<ItemId, u64>,
    names: HashMap<(u64, OsString), u64>,
    next: u64,
}

impl Nodes {
    pub fn new() -> Self {
        let root = Node { place: Place::Item(0), lookups: 1 };
        Self { nodes: [(ROOT, root)].into(), items: [(0, ROOT)].into(), names: HashMap::new(), next: ROOT + 1 }
    }

    pub fn place(&self, node: u64) -> Result<&Place, Errno> {
        self.nodes.get(&node).map(|node| &node.place).ok_or(Errno::ESTALE)
    }

    /// The node of a place, with one lookup more, and whether it was another file before.
    pub fn looked_up(&mut self, place: Place) -> Result<(u64, bool), Errno> {
        let known = match &place {
            Place::Item(id) => self.items.get(id),
            Place::Host { parent, name, .. } => self.names.get(&(*parent, name.clone())),
        };
        if let Some(number) = known.copied() {
            let node = self.nodes.get_mut(&number).ok_or(Errno::ESTALE)?;
            node.lookups = node.lookups.saturating_add(1);
            // Another file may have its name by now.
            let changed = node.place != place;
            node.place = place;
            return Ok((number, changed));
        }
        if self.nodes.len() >= MOST {
            return Err(Errno::ENFILE);
        }
        let number = self.next;
        self.next += 1;
        match &place {
            Place::Item(id) => drop(self.items.insert(*id, number)),
            Place::Host { parent, name, .. } => drop(self.names.insert((*parent, name.clone()), number)),
        }
        self.nodes.insert(number, Node { place, lookups: 1 });
        Ok((number, false))
    }

    /// Takes lookups back. Returns whether the node is gone.
    pub fn forget(&mut self, number: u64, count: u64) -> bool {
        let Some(node) = self.nodes.get_mut(&number).filter(|_| number != ROOT) else { return false };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups > 0 {
            return false;
        }
        match self.nodes.remove(&number).map(|node| node.place) {
            Some(Place::Item(id)) => drop(self.items.remove(&id)),
            Some(Place::Host { parent, name, unlinked: false, .. }) => drop(self.names.remove(&(parent, name))),
            _ => {}
        }
        true
    }

    /// The node of a name, if there is one.
    pub fn named(&self, parent: u64, name: &OsStr) -> Option<u64> {
        self.names.get(&(parent, name.to_owned())).copied()
    }

    /// A name is gone; its node stays until it is forgotten.
    pub fn unlink(&mut self, parent: u64, name: &OsStr) {
        let number = self.names.remove(&(parent, name.to_owned()));
        if let Some(node) = number.and_then(|number| self.nodes.get_mut(&number))
            && let Place::Host { unlinked, .. } = &mut node.place
        {
            *unlinked = true;
        }
    }

    /// A file has another name.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        self.unlink(to.0, to.1);
        let Some(number) = self.names.remove(&(from.0, from.1.to_owned())) else { return };
        if let Some(node) = self.nodes.get_mut(&number)
            && let Place::Host { parent, name, .. } = &mut node.place
        {
            *parent = to.0;
            *name = to.1.to_owned();
            self.names.insert((to.0, to.1.to_owned()), number);
        }
    }

    /// The export that a node is below, and its path there.
    pub fn path(&self, node: u64) -> Result<(ItemId, PathBuf), Errno> {
        let mut names = Vec::new();
        let mut at = node;
        loop {
            match self.place(at)? {
                Place::Item(id) => return Ok((*id, names.iter().rev().collect())),
                Place::Host { unlinked: true, .. } => return Err(Errno::ENOENT),
                Place::Host { parent, name, .. } => {
                    names.push(name);
                    at = *parent;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(parent: u64, name: &str) -> Place {
        Place::Host { export: 1, parent, name: name.into(), ino: 0, dev: 0, blank: false, unlinked: false }
    }

    #[test]
    fn paths_follow_renames_and_end_with_names() {
        let mut nodes = Nodes::new();
        let export = nodes.looked_up(Place::Item(1)).unwrap().0;
        let dir = nodes.looked_up(host(export, "d")).unwrap().0;
        let file = nodes.looked_up(host(dir, "f")).unwrap().0;
        assert_eq!(nodes.path(file).unwrap(), (1, "d/f".into()));
        nodes.rename((export, OsStr::new("d")), (export, OsStr::new("e")));
        assert_eq!(nodes.path(file).unwrap(), (1, "e/f".into()));
        nodes.unlink(dir, OsStr::new("f"));
        assert_eq!(nodes.path(file), Err(Errno::ENOENT));
        let again = nodes.looked_up(host(dir, "f")).unwrap().0;
        assert_ne!(again, file, "a new file is another node");
        assert!(nodes.forget(file, 1) && nodes.place(again).is_ok());
        assert!(!nodes.forget(ROOT, u64::MAX) && nodes.place(ROOT).is_ok());
        assert_eq!(nodes.path(file), Err(Errno::ESTALE));
    }
}
