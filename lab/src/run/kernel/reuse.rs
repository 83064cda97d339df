//! Takes over verdicts of an earlier run before a guest is started.

use super::KernelRun;
use crate::run::{common::Prepared, queue::Queue, reuse::Divided};
use lab_base::{hex::hex, text::count};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

impl KernelRun<'_> {
    /// Hash over everything that a verdict on this kernel depends on, apart from the cell.
    pub(super) fn content_of(&self, prepared: &Prepared) -> Option<String> {
        let run = self.content?;
        // A kernel or an image that can't be read shows where a guest is started.
        let guest = self.launcher.fingerprint(&prepared.spec).ok()?;
        let facts = serde_json::to_string(&self.kernel.facts).ok()?;
        let mut hash = Sha256::new();
        for part in [run, &guest, &prepared.image.key, &facts] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(hex(&hash.finalize()[..16]))
    }

    /// Takes over what an earlier run found out, if nothing has changed since.
    pub(super) fn take_over(&self, content: Option<&str>) {
        let Some((run, earlier)) = self.earlier else { return };
        let divide = |content| earlier.divide(run, self.plan, self.kernel, content);
        let Divided { taken, checked } = content.map(divide).unwrap_or_default();
        if taken.is_empty() && checked.is_empty() {
            return self.note(format!(
                "no verdict is taken over from run {}: its kernel, image, lists, lab or cells were others",
                earlier.run()
            ));
        }
        self.note(format!(
            "{} taken over from run {}, {} of those it could have taken run as a check",
            count(taken.len(), "verdict"),
            earlier.run(),
            checked.len()
        ));
        {
            let mut progress = self.progress();
            let settled: BTreeSet<_> = taken.iter().map(|verdict| &verdict.report.cell).collect();
            let rest: Vec<_> = progress.queue.drain().into_iter().filter(|cell| !settled.contains(cell)).collect();
            progress.queue = Queue::new(self.plan, rest.into_iter());
            progress.checked = checked;
        }
        taken.into_iter().for_each(|verdict| self.finish(0, verdict));
    }
}
