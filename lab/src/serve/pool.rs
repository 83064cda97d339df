//! Which guests there are, and which there should be.

use super::keep::GuestWish;
use crate::run::held::HoldOrder;
use lab_protocol::CellJob;
use std::{
    collections::BTreeMap,
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

/// How many guests are held, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Guests of one snapshot.
    pub guests: usize,
    /// Guests in all.
    pub most: usize,
    /// Time without a run after which the guests of a snapshot are ended.
    pub idle: Duration,
}

/// One guest.
#[derive(Debug)]
struct Slot {
    key: String,
    kernel: String,
    ready: bool,
    wishes: Sender<GuestWish>,
}

#[derive(Debug)]
struct Wanted {
    order: HoldOrder,
    used: Instant,
    /// Cells that did not pass: a run that repeats them finds a guest that has run none.
    failed: Option<Vec<CellJob>>,
}

/// The guests, those that are being prepared included, and what was asked for. Guests that are lent are not part of it.
#[derive(Debug, Default)]
pub struct Pool {
    slots: BTreeMap<u64, Slot>,
    orders: BTreeMap<String, Wanted>,
    last: u64,
}

impl Pool {
    /// Notes what a run asks for.
    pub fn want(&mut self, mut order: HoldOrder) {
        let failed = self.orders.remove(&order.key).and_then(|earlier| earlier.failed);
        if failed.as_ref() == Some(&order.jobs) {
            order.jobs.clear();
        }
        self.orders.insert(order.key.clone(), Wanted { order, used: Instant::now(), failed });
    }

    /// The next guest to prepare, with its number. Where there are as many as there may be, one of a snapshot that was used
    /// earlier is ended for it.
    pub fn missing(&mut self, limits: Limits, wishes: impl FnOnce() -> Sender<GuestWish>) -> Option<(u64, HoldOrder)> {
        let mut keys: Vec<(Instant, &String)> = self.orders.iter().map(|(key, wanted)| (wanted.used, key)).collect();
        keys.sort_by(|a, b| b.cmp(a));
        let key = keys.iter().map(|(_, key)| (*key).clone()).find(|key| self.count(key) < limits.guests)?;
        if self.slots.len() >= limits.most {
            let used = |key: &str| self.orders.get(key).map(|wanted| wanted.used);
            let oldest = self.slots.iter().min_by_key(|(_, slot)| used(&slot.key)).map(|(number, _)| *number)?;
            if used(&self.slots[&oldest].key) >= used(&key) {
                return None;
            }
            self.end(oldest);
        }
        let order = self.orders[&key].order.clone();
        let kernel = order.spec.name.clone();
        self.last += 1;
        self.slots.insert(self.last, Slot { key: key.clone(), kernel, ready: false, wishes: wishes() });
        Some((self.last, order))
    }

    /// A guest is ready; false if it is no longer wanted.
    pub fn ready(&mut self, number: u64) -> bool {
        self.slots.get_mut(&number).map(|slot| slot.ready = true).is_some()
    }

    /// Takes a guest that is ready, with its kernel.
    pub fn take(&mut self, key: &str) -> Option<(String, Sender<GuestWish>)> {
        if let Some(wanted) = self.orders.get_mut(key) {
            wanted.used = Instant::now();
        }
        let number = self.slots.iter().find(|(_, slot)| slot.ready && slot.key == key).map(|(number, _)| *number)?;
        self.slots.remove(&number).map(|slot| (slot.kernel, slot.wishes))
    }

    /// A guest has ended, or could not be prepared. Of cells that do not pass the next one runs none; a snapshot that no guest can be
    /// restored from is not tried again.
    pub fn lost(&mut self, number: u64, failed: bool) {
        let Some(slot) = self.slots.remove(&number) else { return };
        if !failed {
            return;
        }
        match self.orders.get_mut(&slot.key) {
            Some(wanted) if !wanted.order.jobs.is_empty() => {
                wanted.failed = Some(std::mem::take(&mut wanted.order.jobs))
            }
            _ => drop(self.orders.remove(&slot.key)),
        }
    }

    /// Ends the guests of snapshots that no run has used for a while.
    pub fn age(&mut self, limits: Limits) {
        self.orders.retain(|_, wanted| wanted.used.elapsed() < limits.idle);
        let old: Vec<u64> =
            self.slots.iter().filter(|(_, slot)| !self.orders.contains_key(&slot.key)).map(|(it, _)| *it).collect();
        old.into_iter().for_each(|number| self.end(number));
    }

    /// Ends all guests.
    pub fn clear(&mut self) {
        self.orders.clear();
        let all: Vec<u64> = self.slots.keys().copied().collect();
        all.into_iter().for_each(|number| self.end(number));
    }

    fn count(&self, key: &str) -> usize {
        self.slots.values().filter(|slot| slot.key == key).count()
    }

    fn end(&mut self, number: u64) {
        if let Some(slot) = self.slots.remove(&number) {
            // Its thread may have ended.
            let _ = slot.wishes.send(GuestWish::End);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_vm::fake::specification;
    use std::sync::mpsc::{self, Receiver};

    const LIMITS: Limits = Limits { guests: 2, most: 3, idle: Duration::from_secs(3600) };

    fn order(key: &str, cells: usize) -> HoldOrder {
        let job = |number| lab_protocol::CellJob::case(lab_protocol::CellId(format!("A0{number}").into()));
        HoldOrder {
            key: key.to_owned(),
            spec: specification("/nonexistent".into()),
            version: "6.12.43".parse().unwrap(),
            time_scale: 1.0,
            jobs: (0..cells).map(job).collect(),
            files: None,
        }
    }

    /// Prepares what is missing: keys with numbers, and where wishes arrive.
    fn fill(pool: &mut Pool) -> Vec<(u64, String, Receiver<GuestWish>)> {
        let mut new = Vec::new();
        loop {
            let (sender, wishes) = mpsc::channel();
            match pool.missing(LIMITS, || sender) {
                Some((number, order)) => new.push((number, order.key, wishes)),
                None => return new,
            }
        }
    }

    fn is_ended(wishes: &Receiver<GuestWish>) -> bool {
        matches!(wishes.try_recv(), Ok(GuestWish::End))
    }

    #[test]
    fn so_many_guests_of_a_snapshot_are_held_and_the_latest_snapshot_comes_first() {
        let mut pool = Pool::default();
        pool.want(order("a", 1));
        let first = fill(&mut pool);
        assert_eq!(first.iter().map(|(_, key, _)| &**key).collect::<Vec<_>>(), ["a", "a"]);
        assert!(pool.take("a").is_none(), "none is ready yet");
        assert!(pool.ready(first[0].0) && pool.ready(first[1].0));
        pool.want(order("b", 1));
        let second = fill(&mut pool);
        assert_eq!(second.iter().map(|(_, key, _)| &**key).collect::<Vec<_>>(), ["b", "b"], "three in all");
        assert_eq!(
            first.iter().filter(|(_, _, wishes)| is_ended(wishes)).count(),
            1,
            "one of the older ones had to go"
        );
        assert!(pool.take("a").is_some() && pool.take("a").is_none());
        let third = fill(&mut pool);
        assert_eq!(third.iter().map(|(_, key, _)| &**key).collect::<Vec<_>>(), ["a", "a"], "it was used last");
        assert_eq!(second.iter().filter(|(_, _, wishes)| is_ended(wishes)).count(), 1);
    }

    #[test]
    fn a_guest_that_can_not_be_prepared_is_tried_once_more_without_cells() {
        let mut pool = Pool::default();
        pool.want(order("a", 2));
        let first = fill(&mut pool);
        pool.lost(first[0].0, true);
        let (_, again) = pool.missing(LIMITS, || mpsc::channel().0).unwrap();
        assert!(again.jobs.is_empty());
        pool.want(order("a", 2));
        assert!(pool.orders["a"].order.jobs.is_empty(), "the same cells again");
        pool.want(order("a", 1));
        assert_eq!(pool.orders["a"].order.jobs.len(), 1, "others");
        pool.orders.get_mut("a").unwrap().order.jobs.clear();
        pool.lost(first[1].0, true);
        assert!(pool.missing(LIMITS, || mpsc::channel().0).is_none(), "the snapshot is of no use");
        pool.want(order("a", 1));
        assert!(pool.missing(LIMITS, || mpsc::channel().0).is_some(), "a run asks again");
    }

    #[test]
    fn guests_that_nobody_uses_are_ended() {
        let mut pool = Pool::default();
        pool.want(order("a", 0));
        let guests = fill(&mut pool);
        assert!(pool.ready(guests[0].0));
        pool.age(Limits { idle: Duration::ZERO, ..LIMITS });
        assert!(guests.iter().all(|(_, _, wishes)| is_ended(wishes)) && !pool.ready(guests[0].0));
        assert!(fill(&mut pool).is_empty());
    }
}
