//! Closes the book: what happened is held against what the kernel lists.

use crate::{
    book::{Alive, Book, ListedAttachment},
    names::Hooked,
};
use lab_protocol::witness::{Account, LEFT, Leftover};

impl Book {
    /// The account. `before` and `after` are the kernel's lists at the begin and at the end, `sources` says what was watched and
    /// `lost` how many events the kernel could not hand over.
    pub fn close(
        mut self,
        before: &[ListedAttachment],
        after: &[ListedAttachment],
        sources: Vec<String>,
        lost: u64,
    ) -> Account {
        let is_new = |standing: &ListedAttachment| !before.iter().any(|old| is_same(old, standing));
        let mut left = Vec::new();
        for standing in after {
            // What is listed has not ended, whether it is new or not.
            let maker = self.maker(standing);
            if !is_new(standing) {
                continue;
            }
            let pin = standing.link.and_then(|link| self.pins.get(&link).cloned());
            // Its maker's words for the place, which name what a link's own list does not.
            let (hook, target) = match &maker {
                Some(alive) if alive.hook.attach == standing.attach => (alive.hook.clone(), &alive.target),
                _ => (Hooked { attach: standing.attach, name: standing.hook.clone() }, &standing.target),
            };
            left.push(Leftover {
                place: self.place(target, hook),
                program: standing.program.name.clone(),
                prog_id: standing.program.id,
                link_id: standing.link,
                is_detached: standing.is_detached,
                pin,
                by: maker.map(|alive| alive.by),
            });
        }
        // What is attached by the events and not by the kernel's list has ended, and no event said so.
        let unseen: Vec<Option<usize>> = self
            .links
            .values()
            .chain(self.others.values().flatten())
            .filter(|alive| is_judged(alive))
            .map(|alive| alive.row)
            .collect();
        if !self.is_without_ends {
            self.unexplained += unseen.len() as u64;
        }
        unseen.into_iter().for_each(|row| self.count_end(row, false));
        let omitted = left.len().saturating_sub(LEFT) as u64;
        left.sort_by(|a, b| (&a.place, a.prog_id, a.link_id).cmp(&(&b.place, b.prog_id, b.link_id)));
        left.truncate(LEFT);
        Account {
            absent: None,
            partial: None,
            sources,
            rows: self.rows,
            left,
            devices: self.devices,
            events: self.events,
            lost,
            omitted: self.omitted + omitted,
            unexplained: self.unexplained,
            readings: None,
            marks: Vec::new(),
            effects: None,
        }
    }

    /// Who attached it; it is taken off the book.
    fn maker(&mut self, standing: &ListedAttachment) -> Option<Alive> {
        if let Some(link) = standing.link {
            return self.links.remove(&link).or_else(|| self.idle.remove(&link));
        }
        let on = |alive: &Alive| alive.program.id == standing.program.id && alive.hook.name == standing.hook;
        let here = self.others.get_mut(&(standing.target.netns, standing.target.ifindex))?;
        let at = here.iter().position(on)?;
        Some(here.swap_remove(at))
    }
}

/// Whether the kernel lists this kind of attachment: links and what is on the hooks of the three mechanisms.
pub(crate) fn is_judged(alive: &Alive) -> bool {
    alive.hook.attach.is_some() && !is_unlisted(&alive.hook.name)
}

fn is_same(a: &ListedAttachment, b: &ListedAttachment) -> bool {
    let place = |it: &ListedAttachment| (it.target.netns, it.target.ifindex, it.hook.clone());
    match (a.link, b.link) {
        (Some(one), Some(other)) => one == other,
        (None, None) => a.program.id == b.program.id && place(a) == place(b),
        _ => false,
    }
}

/// Filters of shared blocks and of queueing disciplines other than clsact and ingress.
fn is_unlisted(hook: &str) -> bool {
    hook.starts_with("qdisc ") || hook.starts_with("block ")
}
