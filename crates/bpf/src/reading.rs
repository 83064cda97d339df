//! Lets a second observer of the kernel know what this crate reads of it: the witness holds its events against each reading.

use crate::{LinkInfo, Observed};
use lab_protocol::Hook;
use std::sync::{Arc, PoisonError, RwLock};

/// An answer of the kernel.
#[derive(Debug, Clone, Copy)]
pub enum KernelAnswer<'a> {
    /// Everything on these hooks of a device of the calling thread's network namespace.
    Device {
        /// The device.
        ifindex: u32,
        /// The hooks that were asked for.
        hooks: &'a [Hook],
        /// What is on them.
        found: &'a [Observed],
    },
    /// A link of tcx or netkit.
    Link(&'a LinkInfo),
}

/// Hears of every reading, on the thread that reads.
pub trait Listener: Send + Sync {
    /// The kernel is about to be asked. The value comes back with the answer.
    fn asks(&self) -> u64;
    /// It has answered.
    fn answered(&self, asked: u64, reading: &KernelAnswer<'_>);
}

static NOW: RwLock<Option<Arc<dyn Listener>>> = RwLock::new(None);

/// Sets who hears of the readings from now on.
pub fn listen(listener: Option<Arc<dyn Listener>>) {
    *NOW.write().unwrap_or_else(PoisonError::into_inner) = listener;
}

/// A reading under way.
pub(crate) struct Unanswered(Option<(Arc<dyn Listener>, u64)>);

pub(crate) fn ask() -> Unanswered {
    let listener = NOW.read().unwrap_or_else(PoisonError::into_inner).clone();
    Unanswered(listener.map(|listener| {
        let asked = listener.asks();
        (listener, asked)
    }))
}

impl Unanswered {
    /// Tells the answer, which is made out only where somebody listens.
    pub fn answered<I: Iterator<Item = Observed>>(self, ifindex: u32, hooks: &[Hook], found: impl FnOnce() -> I) {
        if let Some((listener, asked)) = self.0 {
            let found: Vec<Observed> = found().collect();
            listener.answered(asked, &KernelAnswer::Device { ifindex, hooks, found: &found });
        }
    }

    /// Tells what is known of a link.
    pub fn told_of(self, info: &LinkInfo) {
        if let Some((listener, asked)) = self.0
            && info.kind().is_some()
        {
            listener.answered(asked, &KernelAnswer::Link(info));
        }
    }
}
