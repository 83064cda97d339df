//! Verdicts as a run's record holds them. A run says the same few things about hundreds of thousands of cells: each check's
//! words are kept once.

use crate::judge::Verdict;
use lab_protocol::Check;
use std::{borrow::Cow, collections::HashMap, ops::Deref, sync::Arc};

/// Every text once.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Texts {
    known: HashMap<Arc<str>, u32>,
    all: Vec<Arc<str>>,
}

impl Texts {
    fn index(&mut self, text: &str) -> u32 {
        if let Some(index) = self.known.get(text) {
            return *index;
        }
        let index = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.all.push(Arc::clone(&text));
        self.known.insert(text, index);
        index
    }

    fn text(&self, index: u32) -> String {
        self.all.get(index as usize).map_or_else(String::new, |text| (**text).to_owned())
    }
}

/// A check: name, whether it held, what was seen.
type Said = (u32, bool, u32);

/// A verdict. What it dereferences to has everything but the checks of its report.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    verdict: Box<Verdict>,
    checks: Box<[Said]>,
}

impl Kept {
    pub(super) fn new(mut verdict: Verdict, texts: &mut Texts) -> Self {
        let checks = std::mem::take(&mut verdict.report.checks);
        let said = |check: &Check| (texts.index(&check.name), check.ok, texts.index(&check.seen));
        Self { checks: checks.iter().map(said).collect(), verdict: Box::new(verdict) }
    }

    /// The verdict with its checks.
    pub(super) fn whole(&self, texts: &Texts) -> Cow<'_, Verdict> {
        if self.checks.is_empty() {
            return Cow::Borrowed(&self.verdict);
        }
        let check = |(name, ok, seen): &Said| Check { name: texts.text(*name), ok: *ok, seen: texts.text(*seen) };
        let mut verdict = (*self.verdict).clone();
        verdict.report.checks = self.checks.iter().map(check).collect();
        Cow::Owned(verdict)
    }
}

impl From<Verdict> for Kept {
    /// A verdict without checks.
    fn from(mut verdict: Verdict) -> Self {
        verdict.report.checks = Vec::new();
        Self { verdict: Box::new(verdict), checks: Box::default() }
    }
}

impl Deref for Kept {
    type Target = Verdict;

    fn deref(&self) -> &Verdict {
        &self.verdict
    }
}
