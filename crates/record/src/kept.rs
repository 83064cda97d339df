//! Compact storage of verdicts. The texts of checks repeat over hundreds of thousands of cells, so each text is stored
//! once.

mod packed;

use crate::verdict::{Standing, Verdict};
use lab_protocol::{AttachRecord, AttachType, CellId, CellInfo, Check, Outcome};
use std::{borrow::Cow, cell::OnceCell, collections::HashMap, ops::Deref, sync::Arc};

/// Interned texts, and what else repeats.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Texts {
    known: HashMap<Arc<str>, u32>,
    all: Vec<Arc<str>>,
    known_outcomes: HashMap<Outcome, u32>,
    outcomes: Vec<Outcome>,
    known_places: HashMap<AttachRecord, u32>,
    /// Attachments without the numbers that the kernel gave them.
    places: Vec<AttachRecord>,
    /// The checks of the last verdict.
    last: Vec<Said>,
}

/// The number of a value in a list in which each is once.
fn number<T: Clone + Eq + std::hash::Hash>(known: &mut HashMap<T, u32>, all: &mut Vec<T>, value: &T) -> u32 {
    if let Some(number) = known.get(value) {
        return *number;
    }
    let number = u32::try_from(all.len()).unwrap_or(u32::MAX);
    all.push(value.clone());
    known.insert(value.clone(), number);
    number
}

impl Texts {
    fn outcome(&mut self, outcome: &Outcome) -> u32 {
        number(&mut self.known_outcomes, &mut self.outcomes, outcome)
    }

    /// The checks of a verdict. Those of the next cell mostly have the same names, and often the same values.
    fn checks<'a>(&mut self, checks: impl Iterator<Item = CheckText<'a>>) -> Vec<Said> {
        let last = std::mem::take(&mut self.last);
        let same = |texts: &Self, number: Option<u32>, text: &str| {
            number.filter(|number| texts.all.get(*number as usize).is_some_and(|known| **known == *text))
        };
        let said = checks.enumerate().map(|(at, (name, ok, seen))| {
            let near = last.get(at);
            let name = same(self, near.map(|near| near.0), name).unwrap_or_else(|| self.index(name));
            let seen = same(self, near.map(|near| near.2), seen).unwrap_or_else(|| self.index(seen));
            (name, ok, seen)
        });
        let said: Vec<Said> = said.collect();
        // A cell without checks, such as one that was skipped, is no pattern for the next.
        self.last = if said.is_empty() { last } else { said.clone() };
        said
    }

    fn place(&mut self, record: &AttachRecord) -> u32 {
        let place = AttachRecord { prog_id: 0, link_id: None, ran: None, ..record.clone() };
        number(&mut self.known_places, &mut self.places, &place)
    }

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
pub type CheckText<'a> = (&'a str, bool, &'a str);

/// The same with the numbers of its texts.
type Said = (u32, bool, u32);

/// A stored verdict.
///
/// Every report iterates over all verdicts of a run, often several times, and mostly needs these few bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    stored: Stored,
    standing: Standing,
    plain: bool,
    /// The attach types that the kernel reported, each a bit at its place in [`AttachType::ALL`].
    used: u8,
}

/// See [`Kept::used`].
fn bits(verdict: &Verdict) -> u8 {
    let place = |attach: &AttachType| AttachType::ALL.iter().position(|it| it == attach).unwrap_or_default();
    verdict.used().iter().fold(0, |bits, attach| bits | 1 << place(attach))
}

#[derive(Debug, Clone, PartialEq)]
enum Stored {
    Whole(Box<Unpacked>),
    Packed(Box<[u8]>),
}

/// A verdict without its checks, and the checks.
#[derive(Debug, Clone, PartialEq)]
struct Unpacked {
    verdict: Verdict,
    checks: Box<[Said]>,
}

impl Kept {
    pub(super) fn new(mut verdict: Box<Verdict>, texts: &mut Texts) -> Self {
        let checks = std::mem::take(&mut verdict.report.checks);
        Self::with(verdict, checks.iter().map(|it| (&*it.name, it.ok, &*it.seen)), texts)
    }

    /// A verdict whose checks are not in it.
    pub(super) fn with<'a>(
        verdict: Box<Verdict>,
        checks: impl Iterator<Item = CheckText<'a>>,
        texts: &mut Texts,
    ) -> Self {
        let checks = texts.checks(checks);
        let (standing, plain, used) = (verdict.standing(), verdict.is_plain(), bits(&verdict));
        let stored = match packed::pack(&verdict, &checks, texts) {
            Some(bytes) => Stored::Packed(bytes),
            None => Stored::Whole(Box::new(Unpacked { verdict: *verdict, checks: checks.into() })),
        };
        Self { stored, standing, plain, used }
    }

    /// As [`Verdict::standing`].
    pub const fn standing(&self) -> Standing {
        self.standing
    }

    /// As [`Verdict::is_plain`].
    pub const fn is_plain(&self) -> bool {
        self.plain
    }

    /// The verdict without its checks, unless it is one of the many that say little: those have passed or were skipped by a
    /// guest, and have no evidence.
    pub fn whole(&self) -> Option<&Verdict> {
        match &self.stored {
            Stored::Whole(unpacked) => Some(&unpacked.verdict),
            Stored::Packed(_) => None,
        }
    }
}

impl From<Verdict> for Kept {
    /// Converts a verdict, without its checks.
    fn from(mut verdict: Verdict) -> Self {
        verdict.report.checks = Vec::new();
        let (standing, plain, used) = (verdict.standing(), verdict.is_plain(), bits(&verdict));
        Self { stored: Stored::Whole(Box::new(Unpacked { verdict, checks: Box::default() })), standing, plain, used }
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

    /// As [`Self::values`], with the cells.
    pub(super) fn by_cell(&self) -> impl Iterator<Item = (&CellId, &Kept)> {
        self.places.cells.iter().zip(&self.all).filter_map(|(cell, kept)| Some((cell, kept.as_ref()?)))
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
    Kept {
        kept: &'a Kept,
        cell: &'a CellId,
        /// The verdict, once something has asked for more than its standing.
        unpacked: OnceCell<Box<Unpacked>>,
    },
    /// A verdict that the record does not hold.
    Other(Box<Verdict>),
}

impl<'a> ReportedVerdict<'a> {
    pub(super) const fn kept(kept: &'a Kept, cell: &'a CellId, texts: &'a Texts) -> Self {
        Self { verdict: Source::Kept { kept, cell, unpacked: OnceCell::new() }, texts }
    }

    pub(super) fn other(verdict: Verdict, texts: &'a Texts) -> Self {
        Self { verdict: Source::Other(Box::new(verdict)), texts }
    }

    /// The verdict, and those of its checks that are not in it.
    fn unpacked(&self) -> (&Verdict, &[Said]) {
        let unpacked = match &self.verdict {
            Source::Other(verdict) => return (verdict, &[]),
            Source::Kept { kept: Kept { stored: Stored::Whole(whole), .. }, .. } => whole,
            Source::Kept { kept: Kept { stored: Stored::Packed(bytes), .. }, cell, unpacked } => {
                unpacked.get_or_init(|| {
                    let (verdict, checks) =
                        packed::unpack(bytes, cell, self.texts).expect("the bytes were packed with the record's texts");
                    Box::new(Unpacked { verdict, checks: checks.into_boxed_slice() })
                })
            }
        };
        (&unpacked.verdict, &unpacked.checks)
    }

    /// As [`Verdict::standing`].
    pub fn standing(&self) -> Standing {
        match &self.verdict {
            Source::Kept { kept, .. } => kept.standing,
            Source::Other(verdict) => verdict.standing(),
        }
    }

    /// As [`Verdict::is_plain`].
    pub fn is_plain(&self) -> bool {
        match &self.verdict {
            Source::Kept { kept, .. } => kept.plain,
            Source::Other(verdict) => verdict.is_plain(),
        }
    }

    /// The attach types that the kernel reported, each a bit at its place in [`AttachType::ALL`].
    pub fn used_bits(&self) -> u8 {
        match &self.verdict {
            Source::Kept { kept, .. } => kept.used,
            Source::Other(verdict) => bits(verdict),
        }
    }

    /// As [`Verdict::used`].
    pub fn used(&self) -> Vec<AttachType> {
        let bits = self.used_bits();
        AttachType::ALL.into_iter().enumerate().filter(|(at, _)| bits & 1 << at != 0).map(|(_, it)| it).collect()
    }

    /// How long the cell took, microseconds.
    pub fn duration_us(&self) -> u64 {
        match &self.verdict {
            Source::Kept { kept: Kept { stored: Stored::Packed(bytes), .. }, .. } => packed::duration_us(bytes),
            _ => None,
        }
        .unwrap_or_else(|| self.report.duration_us)
    }

    /// The checks, in order.
    pub fn checks(&self) -> impl Iterator<Item = StoredCheck<'_>> {
        let (verdict, said) = self.unpacked();
        let word = |number: u32| self.texts.word(number);
        let said = said.iter().map(move |&(name, ok, seen)| StoredCheck { name: word(name), ok, seen: word(seen) });
        verdict.report.checks.iter().map(StoredCheck::from).chain(said)
    }

    /// The verdict including its checks.
    pub fn whole(self) -> Cow<'a, Verdict> {
        let owned = |StoredCheck { name, ok, seen }: StoredCheck<'_>| Check {
            name: name.text.to_owned(),
            ok,
            seen: seen.text.to_owned(),
        };
        if let Source::Kept { kept: Kept { stored: Stored::Whole(whole), .. }, .. } = &self.verdict
            && whole.checks.is_empty()
        {
            return Cow::Borrowed(&whole.verdict);
        }
        let checks = self.checks().map(owned).collect();
        let mut verdict = (*self).clone();
        verdict.report.checks = checks;
        Cow::Owned(verdict)
    }
}

impl Deref for ReportedVerdict<'_> {
    type Target = Verdict;

    fn deref(&self) -> &Verdict {
        self.unpacked().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cell;
    use lab_protocol::Outcome;

    #[test]
    fn verdicts_are_in_the_order_of_the_plan_and_a_cell_that_is_not_in_it_comes_last() {
        let ids = ["A01-x[tc]", "A02-x[tc]", "A03-x[tc]", "Z01-no-plan[tc]"].map(|id| CellId(id.into()));
        let places = Arc::new(CellPositions::of(&[cell("A01-x[tc]"), cell("A02-x[tc]"), cell("A03-x[tc]")]));
        let mut verdicts = Verdicts::of(Arc::clone(&places));
        let insert = |verdicts: &mut Verdicts, at: usize, outcome: Outcome| {
            verdicts.insert(&ids[at], Verdict::bare(ids[at].clone(), outcome).into());
        };
        for at in [3, 2, 0] {
            insert(&mut verdicts, at, Outcome::NotRun { message: String::new() });
        }
        insert(&mut verdicts, 2, Outcome::Passed);
        let told: Vec<&CellId> = verdicts.by_cell().map(|(cell, _)| cell).collect();
        assert_eq!((told, verdicts.len()), (vec![&ids[0], &ids[2], &ids[3]], 3));
        assert_eq!(verdicts.get(&ids[2]).unwrap().standing(), Standing::Passed);
        assert!(verdicts.get(&ids[1]).is_none());
        assert_eq!(places.cells.len(), 3, "other kernels keep the plan's places");
    }
}
