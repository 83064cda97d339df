//! Measures how well the suite detects faults of a kernel: a kernel that was built with many, one of which each boot turns on.

use comfy_table::{Table, presets};
use lab_base::{
    strict_toml::{ConfigError, Origin, Section},
    text,
};
use lab_kernel_store::KernelsError;
use lab_protocol::{CellId, ErrorKind, Outcome};
use lab_record::{exit::Exit, run::RunRecord};
use std::path::Path;
use toml_edit::Document;

/// Maximum characters of a reason.
const MAX_REASON: usize = 100;
/// More faults than any kernel has.
const MAX_NUMBER: u32 = 10_000;

/// A fault of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plant {
    /// Its number on the kernel's command line, from 1.
    pub number: u32,
    /// What the kernel does wrong.
    pub breaks: String,
    /// The source file.
    pub place: String,
    /// Patterns of cases that run first.
    pub cases: Vec<String>,
}

impl Plant {
    /// The word of the kernel's command line that turns it on.
    pub fn word(&self) -> String {
        format!("plant={}", self.number)
    }

    /// The plants of a file, in its order.
    ///
    /// # Errors
    /// The file can't be read, or a line is invalid.
    pub fn load(path: &Path) -> Result<Vec<Self>, KernelsError> {
        let text = lab_guard::bounded::text(path).map_err(|error| KernelsError::Io { path: path.to_owned(), error })?;
        Ok(Self::parse(&text, &path.display().to_string())?)
    }

    fn parse(text: &str, file: &str) -> Result<Vec<Self>, ConfigError> {
        let origin = Origin { file, text };
        let document = Document::parse(text).map_err(|error| origin.syntax(&error))?;
        let top = Section::open(origin, document.as_table(), None, "the file".into(), &["plants"])?;
        let plants = top.section("plants", "[plants]".into(), &[])?.ok_or_else(|| top.missing("plants"))?;
        let mut found: Vec<Self> = Vec::new();
        for key in plants.keys() {
            let number = key.parse().ok().filter(|number| (1..MAX_NUMBER).contains(number));
            let number = number.ok_or_else(|| {
                plants.error_at(key, format!("{key:?} must be a number from 1 to {}", MAX_NUMBER - 1))
            })?;
            let name = format!("[plants.{key}]");
            let plant = plants.section(key, name, &["breaks", "where", "cases"])?.ok_or_else(|| plants.missing(key))?;
            if found.iter().any(|it| it.number == number) {
                return Err(plants.error_at(key, format!("plant {number} is listed twice")));
            }
            found.push(Self {
                number,
                breaks: plant.required("breaks")?.to_owned(),
                place: plant.required("where")?.to_owned(),
                cases: plant.texts("cases")?.into_iter().map(str::to_owned).collect(),
            });
        }
        Ok(found)
    }
}

/// What a run on a kernel with a fault says of the fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlantEnd {
    /// The cell or row that failed because of it.
    Caught { by: String, why: String },
    /// Every cell passed.
    Missed,
    /// No cell failed, and one ended without a verdict.
    Unclear(String),
}

impl PlantEnd {
    /// A failed check detects the fault, and so does a kernel that dies, or one that is much slower than without the fault;
    /// anything else is no verdict on the kernel.
    pub fn of(record: &RunRecord) -> Self {
        let verdicts = record.verdicts().map(|(_, cell, verdict)| (cell.id.clone(), verdict.outcome.clone()));
        let end = Self::weigh(&verdicts.collect::<Vec<_>>());
        match (end, record.slow().next()) {
            (Self::Missed, Some((_, finding))) => Self::Caught { by: "its slowness".to_owned(), why: finding.line() },
            (end, _) => end,
        }
    }

    fn weigh(outcomes: &[(CellId, Outcome)]) -> Self {
        let told = |(cell, outcome): &(CellId, Outcome)| (cell.to_string(), text::line(&outcome.message(), MAX_REASON));
        let caught = |outcome: &Outcome| {
            matches!(
                outcome,
                Outcome::Failed { .. } | Outcome::Errored { kind: ErrorKind::Panic | ErrorKind::Hang, .. }
            )
        };
        if let Some(found) = outcomes.iter().find(|(_, outcome)| caught(outcome)) {
            let (by, why) = told(found);
            return Self::Caught { by, why };
        }
        match outcomes.iter().find(|(_, outcome)| !matches!(outcome, Outcome::Passed | Outcome::Skipped { .. })) {
            Some(found) => {
                let (cell, why) = told(found);
                Self::Unclear(format!("{cell}: {why}"))
            }
            None => Self::Missed,
        }
    }

    /// One line for a finished plant.
    pub fn line(&self, plant: &Plant) -> String {
        match self {
            Self::Caught { by, why } => format!("plant {}: caught by {by}: {why}", plant.number),
            Self::Missed => format!("plant {}: NOT CAUGHT: every cell passed", plant.number),
            Self::Unclear(why) => format!("plant {}: NOT CAUGHT: {why}", plant.number),
        }
    }
}

/// The result as a Markdown table, followed by a line with the number of plants that were made and caught.
pub fn summary(ends: &[(&Plant, PlantEnd)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header([
        "plant",
        "where",
        "what the kernel does wrong",
        "caught by",
        "because",
    ]);
    for (plant, end) in ends {
        // `|` would end the table cell.
        let safe = |text: &str| text.replace('|', "/");
        let (by, why) = match end {
            PlantEnd::Caught { by, why } => (&**by, safe(why)),
            PlantEnd::Missed => ("NOTHING", "every cell passed".to_owned()),
            PlantEnd::Unclear(why) => ("NOTHING", safe(why)),
        };
        table.add_row([&*plant.number.to_string(), &*plant.place, &*plant.breaks, by, &*why]);
    }
    let caught = ends.iter().filter(|(_, end)| matches!(end, PlantEnd::Caught { .. })).count();
    format!("{table}\n\nplants: {} made, {caught} caught", ends.len())
}

/// Passed only if every plant was caught.
pub fn exit(ends: &[(&Plant, PlantEnd)]) -> Exit {
    match ends.iter().all(|(_, end)| matches!(end, PlantEnd::Caught { .. })) {
        _ if ends.is_empty() => Exit::Nothing,
        true => Exit::Passed,
        false => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_protocol::FailureKind;
    use std::collections::BTreeSet;

    fn own(file: &str) -> String {
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/plants").join(file)).unwrap()
    }

    #[test]
    fn the_list_has_every_fault_of_the_patch_and_no_other() {
        let listed: BTreeSet<u32> =
            Plant::parse(&own("plants.toml"), "plants.toml").unwrap().iter().map(|plant| plant.number).collect();
        let patch = own("plants.patch");
        let added = patch.lines().filter(|line| line.starts_with('+') && !line.contains("define plant"));
        let used: BTreeSet<u32> = added
            .flat_map(|line| line.split("plant(").skip(1))
            .filter_map(|rest| rest.split(')').next()?.parse().ok())
            .collect();
        assert_eq!(listed, used);
        assert!(listed.len() >= 40);
    }

    #[test]
    fn a_failure_and_a_dead_kernel_detect_a_plant() {
        let cell = |name: &str| CellId(name.into());
        let failed = Outcome::Failed { kind: FailureKind::Check, message: "3, wanted 0".to_owned() };
        let errored = |kind| Outcome::Errored { kind, message: "no answer".to_owned() };
        let plant = Plant { number: 7, breaks: "x".to_owned(), place: "netkit.c".to_owned(), cases: Vec::new() };
        for (outcome, wanted) in [
            (failed, "plant 7: caught by V02: check: 3, wanted 0"),
            (errored(ErrorKind::Panic), "plant 7: caught by V02: panic: no answer"),
            (errored(ErrorKind::Agent), "plant 7: NOT CAUGHT: V02: agent: no answer"),
            (Outcome::Passed, "plant 7: NOT CAUGHT: every cell passed"),
        ] {
            let end = PlantEnd::weigh(&[(cell("A01"), Outcome::Passed), (cell("V02"), outcome)]);
            assert_eq!(end.line(&plant), wanted);
        }
    }

    #[test]
    fn a_wrong_list_names_the_line() {
        let wrong = |text: &str| Plant::parse(text, "plants.toml").unwrap_err().to_string();
        insta::assert_snapshot!(wrong("[plants.x]\nbreaks = \"a\"\n"), @r#"plants.toml:1: "x" must be a number from 1 to 9999"#);
        insta::assert_snapshot!(wrong("[plants.1]\nwhere = \"a.c\"\n"), @"plants.toml:1: [plants.1] has no `breaks`");
    }
}
