//! Batches of a run's events. The texts of the checks of a batch are in one piece: most of an event's texts are those of checks, and
//! to allocate each of them took a third of the time of a merge.

use super::{EventReader, LogError};
use crate::event::{Event, FinishedLine, Stamped};
use lab_protocol::Check;
use serde::Deserialize;
use std::{borrow::Cow, ops::Range};

/// Size of the batches of lines that are handed over, bytes: small enough for a processor's cache, and below the size
/// at which glibc's `free` consolidates memory (64 KiB).
const LINES_SIZE: usize = 32 << 10;

/// A batch of whole lines of a run's events.
#[derive(Debug)]
pub struct EventLines {
    /// The lines as they are in the file.
    pub text: Vec<u8>,
    /// The events in order.
    pub events: Vec<LineEvent>,
    /// The checks of all verdicts.
    pub checks: BatchChecks,
    /// `None` if more lines follow; otherwise the end of the events, or the error of the line after this batch.
    pub end: Option<Result<(), LogError>>,
}

/// An event of a batch.
#[derive(Debug)]
pub struct LineEvent {
    /// The event; the checks of an [`Event::CellFinished`] are in the batch.
    pub stamped: Stamped,
    /// End of its line in the batch's text.
    pub end: usize,
    /// Its checks in the batch's.
    pub checks: Range<usize>,
}

impl EventLines {
    /// A batch that only tells an error.
    pub fn failed(error: LogError) -> Self {
        Self { end: Some(Err(error)), ..Self::empty() }
    }

    const fn empty() -> Self {
        Self { text: Vec::new(), events: Vec::new(), checks: BatchChecks::new(), end: None }
    }
}

/// The checks of a batch's verdicts.
#[derive(Debug)]
pub struct BatchChecks {
    texts: String,
    /// Where each name and each observed value is.
    all: Vec<(Range<usize>, bool, Range<usize>)>,
}

/// The checks of one verdict: name, whether it passed, observed value.
#[derive(Debug, Clone)]
pub struct LineChecks<'a> {
    texts: &'a str,
    rest: std::slice::Iter<'a, (Range<usize>, bool, Range<usize>)>,
}

impl BatchChecks {
    const fn new() -> Self {
        Self { texts: String::new(), all: Vec::new() }
    }

    /// Those of an event.
    pub fn of(&self, places: Range<usize>) -> LineChecks<'_> {
        LineChecks { texts: &self.texts, rest: self.all[places].iter() }
    }

    fn text(&mut self, text: &str) -> Range<usize> {
        let begin = self.texts.len();
        self.texts.push_str(text);
        begin..self.texts.len()
    }

    fn add<'a>(&mut self, checks: impl IntoIterator<Item = (&'a str, bool, &'a str)>) -> Range<usize> {
        let begin = self.all.len();
        for (name, ok, seen) in checks {
            let places = (self.text(name), ok, self.text(seen));
            self.all.push(places);
        }
        begin..self.all.len()
    }
}

impl<'a> Iterator for LineChecks<'a> {
    type Item = (&'a str, bool, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, ok, seen) = self.rest.next()?;
        Some((&self.texts[name.clone()], *ok, &self.texts[seen.clone()]))
    }
}

impl LineChecks<'_> {
    /// As a verdict has them.
    pub fn owned(self) -> Vec<Check> {
        self.map(|(name, ok, seen)| Check { name: name.to_owned(), ok, seen: seen.to_owned() }).collect()
    }
}

/// A check as a line has it: only a text with escapes is copied.
#[derive(Deserialize)]
struct LineCheck<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    ok: bool,
    #[serde(borrow)]
    seen: Cow<'a, str>,
}

/// Parses a line; the checks of its verdict are added to `checks`.
fn parse(line: &[u8], checks: &mut BatchChecks) -> serde_json::Result<(Stamped, Range<usize>)> {
    if let Some(FinishedLine { at_ms, kernel, guest, verdict, .. }) =
        str::from_utf8(line).ok().and_then(FinishedLine::of)
    {
        let (verdict, own) = verdict.split();
        let own = checks.add(own.iter().map(|LineCheck { name, ok, seen }| (&**name, *ok, &**seen)));
        let event = Event::CellFinished { kernel, guest, verdict: Box::new(verdict) };
        return Ok((Stamped { at_ms, event }, own));
    }
    let mut stamped = Stamped::parse(line)?;
    let own = match &mut stamped.event {
        Event::CellFinished { verdict, .. } => std::mem::take(&mut verdict.report.checks),
        _ => Vec::new(),
    };
    let own = checks.add(own.iter().map(|it| (&*it.name, it.ok, &*it.seen)));
    Ok((stamped, own))
}

impl EventReader {
    /// The next batch of events after the first event, with their lines.
    pub fn lines(&mut self) -> EventLines {
        let mut lines = EventLines { text: Vec::with_capacity(LINES_SIZE + LINES_SIZE / 2), ..EventLines::empty() };
        let EventLines { text, checks, events, end } = &mut lines;
        while end.is_none() && text.len() < LINES_SIZE {
            match self.next_event(text, |line| parse(line, checks), |(stamped, _)| stamped) {
                Ok(Some((stamped, own))) => events.push(LineEvent { stamped, end: text.len(), checks: own }),
                Ok(None) => *end = Some(Ok(())),
                Err(error) => *end = Some(Err(error)),
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log::EventLog, reporter::Reporter, run::RunRecord, synthetic};

    #[test]
    fn a_record_of_batches_is_that_of_single_events() {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, mut record) = (EventLog::create(dir.path()).unwrap(), RunRecord::default());
        for mut stamped in synthetic::events(synthetic::run_info("x", synthetic::plan(2, 150))) {
            if let Event::CellFinished { verdict, .. } = &mut stamped.event {
                verdict.report.checks.push(Check {
                    name: "a \"quoted\"\nname é".to_owned(),
                    ok: true,
                    seen: String::new(),
                });
            }
            log.event(&stamped, &record).unwrap();
            record.take(stamped);
        }
        let mut reader = EventReader::open(dir.path()).unwrap();
        let mut told = RunRecord::default();
        told.take(reader.first.take().unwrap());
        let text = std::fs::read(dir.path().join(super::super::FILE)).unwrap();
        let mut at = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        loop {
            let lines = reader.lines();
            assert_eq!(text[at..at + lines.text.len()], lines.text);
            at += lines.text.len();
            let mut begin = 0;
            for LineEvent { stamped, end, checks } in lines.events {
                let mut whole = stamped.clone();
                if let Event::CellFinished { verdict, .. } = &mut whole.event {
                    assert!(verdict.report.checks.is_empty());
                    verdict.report.checks = lines.checks.of(checks.clone()).owned();
                }
                assert_eq!(whole, Stamped::parse(&lines.text[begin..end]).unwrap());
                told.take_line(stamped, lines.checks.of(checks));
                begin = end;
            }
            if lines.end.is_some() {
                break;
            }
        }
        assert_eq!(at, text.len());
        assert_eq!(told, record);
    }
}
