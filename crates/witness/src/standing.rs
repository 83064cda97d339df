//! What is attached by the events, to be held against what the kernel lists.

use crate::{
    account::is_judged,
    book::{Alive, Book, DeviceKey, device_key},
    decode::SeenDevice,
};
use std::collections::BTreeSet;

/// A program on a hook, and its link where it is one.
pub type OnHook = (u32, Option<u32>);

impl Book {
    /// The book of a source that has no events about the ends of attachments: what the lists have no more has ended, without a gap.
    #[must_use]
    pub const fn without_ends(mut self) -> Self {
        self.is_without_ends = true;
        self
    }

    /// The links that have not ended, by the events.
    pub fn link_ids(&self) -> Vec<u32> {
        self.links.keys().chain(self.idle.keys()).copied().collect()
    }

    /// Events that were entered.
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Whether a device has left its network namespace and not come to another one.
    pub const fn is_moving(&self) -> bool {
        self.moving.is_some()
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

    /// What was attached to a device is attached to it in another network namespace.
    pub(crate) fn moved(&mut self, from: DeviceKey, to: &SeenDevice) {
        if let Some(mut here) = self.others.remove(&from) {
            here.iter_mut().for_each(|alive| alive.target = to.clone());
            self.others.entry(device_key(to)).or_default().extend(here);
        }
        if let Some(links) = self.links_on.remove(&from) {
            for link in &links {
                if let Some(alive) = self.links.get_mut(link) {
                    alive.target = to.clone();
                }
            }
            self.links_on.entry(device_key(to)).or_default().extend(links);
        }
    }

    /// Programs of filters of shared blocks: the kernel lists them at every device that has the block.
    pub fn in_blocks(&self) -> BTreeSet<u32> {
        let filters = self.others.values().flatten().filter(|alive| alive.hook.name.starts_with("block "));
        filters.map(|alive| alive.program.id).collect()
    }

    /// The program of a link that is on a hook, by the events.
    pub fn link_program(&self, link: u32) -> Option<u32> {
        self.links.get(&link).map(|alive| alive.program.id)
    }

    /// Everything that is attached by the events and that the kernel would list, one line each.
    pub fn standing(&self) -> Vec<String> {
        let told = |alive: &Alive, link: Option<u32>| {
            let link = link.map_or_else(String::new, |id| format!(", link {id}"));
            let place = self.place(&alive.target, alive.hook.clone());
            format!("program {} (id {}) at {place}{link}, by {}", alive.program.name, alive.program.id, alive.by)
        };
        let links = self.links.iter().map(|(id, alive)| (Some(*id), alive));
        let all = links.chain(self.others.values().flatten().map(|alive| (None, alive)));
        let mut lines: Vec<String> =
            all.filter(|(_, alive)| is_judged(alive)).map(|(link, alive)| told(alive, link)).collect();
        lines.sort();
        lines
    }
}
