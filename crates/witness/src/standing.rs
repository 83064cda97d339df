//! What is attached by the events, to be held against what the kernel lists.

use crate::book::{Alive, Book};
use std::collections::BTreeSet;

/// A program on a hook, and its link where it is one.
pub type OnHook = (u32, Option<u32>);

impl Book {
    /// Events that were entered.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Ends that no event began, and begins that no event ended.
    pub const fn unexplained(&self) -> u64 {
        self.unexplained
    }

    /// A device, as reports have it.
    pub fn device(&self, netns: u32, ifindex: u32) -> String {
        let here = self.rows.iter().zip(&self.places).rev().find(|(_, place)| **place == (netns, ifindex));
        let namespace = self.namespace(netns);
        match here.map(|(row, _)| &row.place) {
            Some(place) if place.kind.is_empty() => format!("{} in {namespace}", place.device),
            Some(place) => format!("{} ({}) in {namespace}", place.device, place.kind),
            None => format!("index {ifindex} in {namespace}"),
        }
    }

    /// Names a network namespace.
    pub fn name(&mut self, inode: u32, name: impl FnOnce() -> Option<String>) {
        if !self.names.contains_key(&inode)
            && let Some(name) = name()
        {
            self.names.insert(inode, name);
        }
    }

    /// What is on a hook of a device, by the events.
    pub fn on(&self, netns: u32, ifindex: u32, hook: &str) -> BTreeSet<OnHook> {
        let here = (netns, ifindex);
        let links = self.links_on.get(&here).into_iter().flatten();
        let links = links.filter_map(|id| self.links.get(id).map(|alive| (Some(*id), alive)));
        let others = self.others.get(&here).into_iter().flatten().map(|alive| (None, alive));
        let on = links.chain(others).filter(|(_, alive)| alive.hook.name == hook);
        on.map(|(link, alive)| (alive.program.id, link)).collect()
    }

    /// Everything that is attached by the events, one line each.
    pub fn standing(&self) -> Vec<String> {
        let told = |alive: &Alive, link: Option<u32>| {
            let link = link.map_or_else(String::new, |id| format!(", link {id}"));
            let place = self.place(&alive.target, alive.hook.clone());
            format!("program {} (id {}) at {place}{link}, by {}", alive.program.name, alive.program.id, alive.by)
        };
        let links = self.links.iter().map(|(id, alive)| told(alive, Some(*id)));
        let mut lines: Vec<String> = links.chain(self.others.values().flatten().map(|alive| told(alive, None))).collect();
        lines.sort();
        lines
    }
}
