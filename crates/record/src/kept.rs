//! Compact storage of verdicts. The texts of checks repeat over hundreds of thousands of cells, so each text is stored
//! once.

use crate::verdict::{Standing, Verdict};
use lab_protocol::{CellId, CellInfo, Check};
use std::{borrow::Cow, collections::HashMap, ops::Deref, sync::Arc};

/// Interned texts.
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

    fn word(&self, number: u32) -> InternedText<'_> {
        InternedText { text: self.all.get(number as usize).map_or("", |text| text), number: Some(number) }
    }
}

/// A text of a check, with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InternedText<'a> {
    /// The text.
    pub text: &'a str,
    /// Number of the text in the record's table: equal numbers mean equal texts. `None` if the record does not hold it.
    pub number: Option<u32>,
}

impl<'a> From<&'a str> for InternedText<'a> {
    fn from(text: &'a str) -> Self {
        Self { text, number: None }
    }
}

/// A check of a stored verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredCheck<'a> {
    /// What was asserted.
    pub name: InternedText<'a>,
    /// Whether the check passed.
    pub ok: bool,
    /// The observed value.
    pub seen: InternedText<'a>,
}

impl<'a> From<&'a Check> for StoredCheck<'a> {
    fn from(Check { name, ok, seen }: &'a Check) -> Self {
        Self { name: (&**name).into(), ok: *ok, seen: (&**seen).into() }
    }
}

/// A check: name, whether it passed, observed value.
type Said = (u32, bool, u32);

/// A stored verdict. It dereferences to everything but the checks of its report.
///
/// Every report iterates over all verdicts of a run, often several times, and mostly needs these few bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    verdict: Box<Verdict>,
    checks: Box<[Said]>,
    standing: Standing,
    plain: bool,
}

impl Kept {
    pub(super) fn new(mut verdict: Box<Verdict>, texts: &mut Texts) -> Self {
        let checks = std::mem::take(&mut verdict.report.checks);
        let said = |check: &Check| (texts.index(&check.name), check.ok, texts.index(&check.seen));
        Self {
            checks: checks.iter().map(said).collect(),
            standing: verdict.standing(),
            plain: verdict.is_plain(),
            verdict,
        }
    }

    /// As [`Verdict::standing`].
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// As [`Verdict::is_plain`].
    pub const fn is_plain(&self) -> bool {
        self.plain
    }
}

impl From<Verdict> for Kept {
    /// Converts a verdict, without its checks.
    fn from(mut verdict: Verdict) -> Self {
        verdict.report.checks = Vec::new();
        Self::new(Box::new(verdict), &mut Texts::default())
    }
}

impl Deref for Kept {
    type Target = Verdict;

    fn deref(&self) -> &Verdict {
        &self.verdict
    }
}

/// Maps cells to their positions in the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct CellPositions {
    cells: Vec<CellId>,
    by_cell: HashMap<CellId, usize>,
}

impl CellPositions {
    pub(super) fn of(cells: &[CellInfo]) -> Self {
        let mut places = Self::default();
        for cell in cells {
            places.add(&cell.id);
        }
        places
    }

    fn add(&mut self, cell: &CellId) -> usize {
        let place = *self.by_cell.entry(cell.clone()).or_insert(self.cells.len());
        if place == self.cells.len() {
            self.cells.push(cell.clone());
        }
        place
    }

    /// Position of a cell; tries `near` first.
    fn find(&self, cell: &CellId, near: usize) -> Option<usize> {
        if self.cells.get(near) == Some(cell) { Some(near) } else { self.by_cell.get(cell).copied() }
    }
}

/// The verdicts of a kernel, by cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Verdicts {
    /// Cells of the plan. All kernels share them, except those that have cells outside of the plan.
    places: Arc<CellPositions>,
    all: Vec<Option<Kept>>,
    count: usize,
}

impl Verdicts {
    pub(super) const fn of(places: Arc<CellPositions>) -> Self {
        Self { places, all: Vec::new(), count: 0 }
    }

    /// Inserts the verdict of a cell, or replaces it.
    pub fn insert(&mut self, cell: &CellId, kept: Kept) {
        let known = self.places.find(cell, self.all.len());
        let place = known.unwrap_or_else(|| Arc::make_mut(&mut self.places).add(cell));
        self.all.resize(self.all.len().max(place + 1), None);
        self.count += usize::from(self.all[place].replace(kept).is_none());
    }

    /// The verdict of a cell.
    pub fn get(&self, cell: &CellId) -> Option<&Kept> {
        self.next(cell, &mut 0)
    }

    /// The verdict of a cell; tries position `near` first, and sets `near` to the next position.
    pub(super) fn next(&self, cell: &CellId, near: &mut usize) -> Option<&Kept> {
        let place = self.places.find(cell, *near)?;
        *near = place + 1;
        self.all.get(place)?.as_ref()
    }

    /// All verdicts, in plan order.
    pub fn values(&self) -> impl Iterator<Item = &Kept> {
        self.all.iter().flatten()
    }

    /// Number of verdicts.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is no verdict.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A verdict for a report. It dereferences to a verdict without the checks that are interned in the record: see
/// [`checks`](Self::checks).
#[derive(Debug)]
pub struct ReportedVerdict<'a> {
    verdict: Source<'a>,
    texts: &'a Texts,
}

#[derive(Debug)]
enum Source<'a> {
    Kept(&'a Kept),
    /// A verdict that the record does not hold.
    Other(Box<Verdict>),
}

impl<'a> ReportedVerdict<'a> {
    pub(super) const fn kept(kept: &'a Kept, texts: &'a Texts) -> Self {
        Self { verdict: Source::Kept(kept), texts }
    }

    pub(super) fn other(verdict: Verdict, texts: &'a Texts) -> Self {
        Self { verdict: Source::Other(Box::new(verdict)), texts }
    }

    /// As [`Verdict::standing`].
    pub fn standing(&self) -> Standing {
        match &self.verdict {
            Source::Kept(kept) => kept.standing,
            Source::Other(verdict) => verdict.standing(),
        }
    }

    /// As [`Verdict::is_plain`].
    pub fn is_plain(&self) -> bool {
        match &self.verdict {
            Source::Kept(kept) => kept.plain,
            Source::Other(verdict) => verdict.is_plain(),
        }
    }

    /// The checks, in order.
    pub fn checks(&self) -> impl Iterator<Item = StoredCheck<'_>> {
        let said = match &self.verdict {
            Source::Kept(kept) => &*kept.checks,
            Source::Other(_) => &[],
        };
        let word = |number: u32| self.texts.word(number);
        let said = said.iter().map(move |&(name, ok, seen)| StoredCheck { name: word(name), ok, seen: word(seen) });
        self.report.checks.iter().map(StoredCheck::from).chain(said)
    }

    /// The verdict including its checks.
    pub fn whole(self) -> Cow<'a, Verdict> {
        let owned = |StoredCheck { name, ok, seen }: StoredCheck<'_>| Check {
            name: name.text.to_owned(),
            ok,
            seen: seen.text.to_owned(),
        };
        match self.verdict {
            Source::Other(verdict) => Cow::Owned(*verdict),
            Source::Kept(kept) if kept.checks.is_empty() => Cow::Borrowed(&kept.verdict),
            Source::Kept(kept) => {
                let checks = self.checks().map(owned).collect();
                let mut verdict = (*kept.verdict).clone();
                verdict.report.checks = checks;
                Cow::Owned(verdict)
            }
        }
    }
}

impl Deref for ReportedVerdict<'_> {
    type Target = Verdict;

    fn deref(&self) -> &Verdict {
        match &self.verdict {
            Source::Kept(kept) => kept,
            Source::Other(verdict) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cell;
    use lab_protocol::Outcome;

    #[test]
    fn verdicts_are_in_the_order_of_the_plan_and_a_cell_that_is_not_in_it_comes_last() {
        let ids = ["A01-x[tc]", "A02-x[tc]", "A03-x[tc]", "Z01-no-plan[tc]"].map(|id| CellId(id.to_owned()));
        let places = Arc::new(CellPositions::of(&[cell("A01-x[tc]"), cell("A02-x[tc]"), cell("A03-x[tc]")]));
        let mut verdicts = Verdicts::of(Arc::clone(&places));
        let insert = |verdicts: &mut Verdicts, at: usize, outcome: Outcome| {
            verdicts.insert(&ids[at], Verdict::bare(ids[at].clone(), outcome).into());
        };
        for at in [3, 2, 0] {
            insert(&mut verdicts, at, Outcome::NotRun { message: String::new() });
        }
        insert(&mut verdicts, 2, Outcome::Passed);
        let told: Vec<&CellId> = verdicts.values().map(|kept| &kept.report.cell).collect();
        assert_eq!((told, verdicts.len()), (vec![&ids[0], &ids[2], &ids[3]], 3));
        assert_eq!(verdicts.get(&ids[2]).unwrap().standing(), Standing::Passed);
        assert!(verdicts.get(&ids[1]).is_none());
        assert_eq!(places.cells.len(), 3, "other kernels keep the plan's places");
    }
}
