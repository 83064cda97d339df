//! Checks that the suite detects deliberate faults: one round of cells per mutant, and a control round without a fault.

use comfy_table::{Table, presets};
use lab_base::text;
use lab_protocol::{
    Capability, CellId, Outcome,
    cell::{MutantInfo, NO_MUTANT},
};
use lab_record::{exit::Exit, run::RunRecord};

/// Maximum characters of a reason.
const MAX_REASON: usize = 100;

/// Cells to run with one fault, or without a fault.
#[derive(Debug, Clone)]
pub struct MutantRound {
    /// The mutant's name, or [`NO_MUTANT`].
    pub name: String,
    pub cells: Vec<CellId>,
    /// Capabilities that the kernel must have for the round, in addition to those that its cells need.
    pub needs: Vec<Capability>,
    breaks: String,
    /// Whether the cells only take longer.
    pub slows: bool,
}

/// Result of a round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MutantVerdict {
    /// The round's name.
    pub name: String,
    breaks: String,
    end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// Every cell of the control round passed.
    Clean,
    /// This cell failed because of the fault.
    Caught { cell: String, why: String },
    /// No cell failed, or a cell ended without a verdict.
    Wrong(String),
    /// The kernel can run none of the cells, or does not have the code that the fault breaks.
    NotApplicable(String),
}

impl MutantRound {
    /// The control round: the cells of all these mutants without a fault. A cell that fails without a fault detects
    /// nothing.
    pub fn control(mutants: &[&MutantInfo]) -> Self {
        let cells = mutants.iter().flat_map(|mutant| mutant.noticed_by.clone()).collect();
        Self { name: NO_MUTANT.to_owned(), cells, needs: Vec::new(), breaks: "nothing".to_owned(), slows: false }
    }

    /// The round of a mutant.
    pub fn of(mutant: &MutantInfo) -> Self {
        let MutantInfo { name, breaks, noticed_by, needs, of_witness: _, slows } = mutant.clone();
        Self { name, cells: noticed_by, needs, breaks, slows }
    }

    /// Returns the result for a kernel that can run none of the cells, or does not have the code that the fault breaks.
    /// It is not counted.
    pub fn not_applicable(&self, why: String) -> MutantVerdict {
        self.verdict(End::NotApplicable(why))
    }

    /// Only a failed cell detects the fault, or the finding that all are slow; an error is not a verdict.
    pub fn judge(&self, record: &RunRecord) -> MutantVerdict {
        if let Some((_, finding)) = record.slow().next().filter(|_| self.slows) {
            let why = text::line(&finding.line(), MAX_REASON);
            return self.verdict(End::Caught { cell: "its slowness".to_owned(), why });
        }
        let outcomes: Vec<(CellId, Outcome)> =
            record.verdicts().map(|(_, cell, verdict)| (cell.id.clone(), verdict.outcome.clone())).collect();
        self.weigh(&outcomes)
    }

    fn weigh(&self, outcomes: &[(CellId, Outcome)]) -> MutantVerdict {
        let failed = outcomes.iter().find(|(_, outcome)| matches!(outcome, Outcome::Failed { .. }));
        let other = outcomes.iter().find(|(_, outcome)| !matches!(outcome, Outcome::Passed));
        let told = |(cell, outcome): &(CellId, Outcome)| {
            format!("{cell} {}: {}", outcome.word(), text::line(&outcome.message(), MAX_REASON))
        };
        self.verdict(match (self.name == NO_MUTANT, failed, other) {
            (false, Some((cell, outcome)), _) => {
                End::Caught { cell: cell.to_string(), why: text::line(&outcome.message(), MAX_REASON) }
            }
            (_, _, Some(bad)) => End::Wrong(told(bad)),
            (true, _, None) => End::Clean,
            (false, _, None) => End::Wrong("every cell passed".to_owned()),
        })
    }

    fn verdict(&self, end: End) -> MutantVerdict {
        MutantVerdict { name: self.name.clone(), breaks: self.breaks.clone(), end }
    }
}

impl MutantVerdict {
    /// One line for a finished round.
    pub fn line(&self) -> String {
        match &self.end {
            End::Clean => format!("{}: every cell passed", self.name),
            End::Caught { cell, why } => format!("{}: caught by {cell}: {why}", self.name),
            End::Wrong(why) => format!("{}: NOT CAUGHT: {why}", self.name),
            End::NotApplicable(why) => format!("{}: not applicable: {why}", self.name),
        }
    }

    fn is_mutant(&self) -> bool {
        self.name != NO_MUTANT && !matches!(self.end, End::NotApplicable(_))
    }
}

/// The result as a Markdown table, followed by a line with the number of mutants that were made and caught.
pub fn summary(verdicts: &[MutantVerdict]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(["mutant", "what it breaks", "caught by", "because"]);
    for verdict in verdicts {
        // `|` would end the table cell.
        let safe = |text: &str| text.replace('|', "/");
        let (by, why) = match &verdict.end {
            End::Clean => ("-", "every cell passed".to_owned()),
            End::Caught { cell, why } => (&**cell, safe(why)),
            End::Wrong(why) => ("NOTHING", safe(why)),
            End::NotApplicable(why) => ("not applicable", safe(why)),
        };
        table.add_row([&*verdict.name, &*verdict.breaks, by, &*why]);
    }
    let made = verdicts.iter().filter(|verdict| verdict.is_mutant()).count();
    let caught = verdicts.iter().filter(|verdict| matches!(verdict.end, End::Caught { .. })).count();
    let skipped = verdicts.iter().filter(|verdict| matches!(verdict.end, End::NotApplicable(_))).count();
    let skipped = if skipped == 0 { String::new() } else { format!(" ({skipped} not applicable)") };
    format!("{table}\n\nmutants: {made} made, {caught} caught{skipped}")
}

/// Passed only if every mutant was caught and the same cells pass without one.
pub fn exit(verdicts: &[MutantVerdict]) -> Exit {
    let any = verdicts.iter().any(MutantVerdict::is_mutant);
    match verdicts.iter().any(|verdict| matches!(verdict.end, End::Wrong(_))) {
        true => Exit::Failed,
        false if any => Exit::Passed,
        false => Exit::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::{ErrorKind, FailureKind};

    fn cell(name: &str) -> CellId {
        CellId(name.into())
    }

    fn mutant() -> MutantInfo {
        MutantInfo {
            name: "no-rpf".to_owned(),
            breaks: "any source passes".to_owned(),
            noticed_by: vec![cell("T17-x[tc]"), cell("T18-y[tc]")],
            needs: Vec::new(),
            of_witness: false,
            slows: false,
        }
    }

    fn failed() -> Outcome {
        Outcome::Failed { kind: FailureKind::Check, message: "3|0, wanted 0".to_owned() }
    }

    #[test]
    fn one_failed_cell_detects_a_mutant_and_an_error_does_not() {
        let round = MutantRound::of(&mutant());
        let error = Outcome::Errored { kind: ErrorKind::Boot, message: "no hello".to_owned() };
        for (outcomes, wanted) in [
            ([Outcome::Passed, failed()], "no-rpf: caught by T18-y[tc]: check: 3|0, wanted 0"),
            ([Outcome::Passed, Outcome::Passed], "no-rpf: NOT CAUGHT: every cell passed"),
            ([Outcome::Passed, error], "no-rpf: NOT CAUGHT: T18-y[tc] errored: boot: no hello"),
        ] {
            let outcomes: Vec<_> = round.cells.iter().cloned().zip(outcomes).collect();
            assert_eq!(round.weigh(&outcomes).line(), wanted);
        }
    }

    #[test]
    fn a_mutant_that_does_not_apply_is_listed_but_not_counted() {
        let round = MutantRound::of(&mutant());
        let caught = round.weigh(&[(cell("T17-x[tc]"), failed())]);
        let elsewhere = round.not_applicable("prog-array-strict: new in 6.12.53".to_owned());
        assert_eq!(elsewhere.line(), "no-rpf: not applicable: prog-array-strict: new in 6.12.53");
        assert_eq!(exit(std::slice::from_ref(&elsewhere)), Exit::Nothing);
        let verdicts = [caught, elsewhere];
        assert_eq!(exit(&verdicts), Exit::Passed);
        assert!(summary(&verdicts).ends_with("\n\nmutants: 1 made, 1 caught (1 not applicable)"));
    }

    #[test]
    fn a_failure_in_the_control_round_fails_the_whole_measurement() {
        let mutant = mutant();
        let control = MutantRound::control(&[&mutant]);
        let caught = MutantRound::of(&mutant).weigh(&[(cell("T17-x[tc]"), failed())]);
        let clean = control.weigh(&[(cell("T17-x[tc]"), Outcome::Passed)]);
        let spoilt = control.weigh(&[(cell("T17-x[tc]"), failed())]);
        assert_eq!(exit(&[clean.clone(), caught.clone()]), Exit::Passed);
        assert_eq!(exit(&[spoilt, caught.clone()]), Exit::Failed);
        assert_eq!(exit(std::slice::from_ref(&clean)), Exit::Nothing);
        let summary = summary(&[clean, caught]);
        assert!(summary.ends_with("\n\nmutants: 1 made, 1 caught"), "{summary}");
        assert!(summary.contains("3/0, wanted 0"), "{summary}");
    }
}
