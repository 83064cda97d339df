//! The table kernel × capability, as the probes in the guests answered.

use comfy_table::{Table, TableStyle, presets};
use lab_base::text;
use lab_protocol::{Capability, CapabilityReport, CapabilityState, KernelVersion};
use lab_record::run::RunRecord;
use serde::Serialize;

/// How the table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Columns for a terminal.
    Text,
    /// A table for a document.
    Markdown,
    /// Everything that the probes said.
    Json,
}

/// One kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Id in `kernels.toml`.
    pub kernel: String,
    /// Class.
    pub class: String,
    /// The true version.
    pub version: KernelVersion,
    /// `uname -r`; none where no guest came up.
    pub release: Option<String>,
    /// The answers; empty where no guest came up.
    pub capabilities: Vec<Answer>,
    /// Why there is no answer.
    pub losses: Vec<String>,
}

/// One capability on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What the probe found.
    #[serde(flatten)]
    pub report: CapabilityReport,
    /// Whether the kernel's version must have it.
    pub expected: bool,
    /// The reason that `kernels.toml` gives for its absence.
    pub unsupported: Option<String>,
}

impl Answer {
    /// A word, marked where version and probe contradict each other and `kernels.toml` does not say why.
    fn word(&self) -> String {
        let word = match self.report.state {
            CapabilityState::Supported => "yes",
            CapabilityState::TooOld => "too old",
            CapabilityState::ConfigOff => "off",
            CapabilityState::ModuleMissing => "no module",
            CapabilityState::Broken => "broken",
        };
        let supported = self.report.state == CapabilityState::Supported;
        match &self.unsupported {
            Some(_) if !supported => format!("{word}*"),
            None if supported == self.expected => word.to_owned(),
            _ => format!("{word}!"),
        }
    }
}

/// The kernels of a run in the plan's order.
pub fn rows(record: &RunRecord) -> Vec<Row> {
    let kernels = record.info.iter().flat_map(|info| &info.plan.kernels);
    let row = |facts: &lab_record::plan::KernelFacts| {
        let seen = record.kernels.get(&facts.id);
        let answer = |report: &CapabilityReport| Answer {
            report: report.clone(),
            expected: facts.expects(report.capability),
            unsupported: facts.unsupported(report.capability).map(|it| it.reason.clone()),
        };
        Row {
            kernel: facts.id.clone(),
            class: facts.class.clone(),
            version: facts.version,
            release: seen.and_then(|seen| seen.boot.as_ref()).map(|boot| boot.release.clone()),
            capabilities: seen.iter().flat_map(|seen| &seen.capabilities).map(answer).collect(),
            losses: seen.map(|seen| seen.losses.iter().chain(&seen.notes).cloned().collect()).unwrap_or_default(),
        }
    };
    kernels.map(|kernel| row(&kernel.facts)).collect()
}

/// Below the table: the words and marks that it has, explained.
const LEGEND: [(&str, &str); 5] = [
    ("too old", "too old: the kernel's version is older than the capability"),
    ("off", "off: the kernel's configuration leaves it out"),
    ("no module", "no module: a module that is not there or does not load"),
    ("*", "\\*: listed as unsupported in kernels.toml"),
    ("!", "!: not what the version promises, and kernels.toml gives no reason"),
];

impl Format {
    fn table(
        self,
        preset: TableStyle,
        rows: &[Row],
        group: &[Capability],
        word: impl Fn(&Row, Capability) -> String,
    ) -> String {
        let mut table = Table::new();
        table.load_style(preset);
        // Words below each other keep the columns narrow.
        let stacked = |text: String, at: &str| if self == Self::Text { text.replace(at, "\n") } else { text };
        let names = group.iter().map(|capability| stacked(capability.name().to_owned(), "-"));
        table.set_header(["kernel", "version"].map(str::to_owned).into_iter().chain(names));
        for row in rows {
            let words = group.iter().map(|capability| match word(row, *capability) {
                module if module.starts_with("no module") => stacked(module, " "),
                other => other,
            });
            table.add_row([row.kernel.clone(), row.version.to_string()].into_iter().chain(words));
        }
        if self == Self::Text {
            for column in table.column_iter_mut() {
                column.set_padding((0, 1));
            }
        }
        table.trim_fmt()
    }

    /// The table, without a line break at its end.
    pub fn render(self, rows: &[Row]) -> String {
        let preset = match self {
            Self::Json => return serde_json::to_string_pretty(rows).unwrap_or_default(),
            Self::Text => presets::NOTHING,
            Self::Markdown => presets::ASCII_MARKDOWN,
        };
        // What is a module is a table of its own on a terminal, which is no wider for it.
        let groups: Vec<Vec<Capability>> = match self {
            Self::Text => {
                let (modules, others) = Capability::ALL.into_iter().partition(|capability| capability.is_module());
                vec![modules, others]
            }
            Self::Markdown | Self::Json => vec![Capability::ALL.to_vec()],
        };
        let word = |row: &Row, capability| {
            let answer = row.capabilities.iter().find(|answer| answer.report.capability == capability);
            answer.map_or_else(|| "-".to_owned(), Answer::word)
        };
        let tables: Vec<String> = groups.iter().map(|group| self.table(preset, rows, group, word)).collect();
        let mut text = tables.join("\n\n");
        let told = |mark: &str| rows.iter().any(|row| Capability::ALL.iter().any(|it| word(row, *it).contains(mark)));
        let legend: Vec<&str> = LEGEND.iter().filter(|(mark, _)| told(mark)).map(|(_, words)| *words).collect();
        if !legend.is_empty() {
            // Markdown breaks a line where two blanks end it, and makes a list of one that begins with a star.
            let (gap, star) = if self == Self::Markdown { ("  \n", "\\*") } else { ("\n", "*") };
            text = format!("{text}\n\n{}", legend.join(gap).replace("\\*", star));
        }
        for row in rows.iter().filter(|row| row.capabilities.is_empty()) {
            let why = row.losses.last().map_or("its guest said nothing", |why| why);
            text = format!("{text}\n{}: no answer: {}", row.kernel, text::line(why, 200));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kernel: &str, version: &str, answers: &[(Capability, CapabilityState)], unsupported: &[Capability]) -> Row {
        let answer = |&(capability, state): &(Capability, CapabilityState)| Answer {
            report: CapabilityReport { capability, state, detail: String::new() },
            expected: capability.since().expected_on(version.parse().unwrap()),
            unsupported: unsupported.contains(&capability).then(|| "CONFIG_NETKIT is not set".to_owned()),
        };
        Row {
            kernel: kernel.into(),
            class: "6.7+".into(),
            version: version.parse().unwrap(),
            release: None,
            capabilities: answers.iter().map(answer).collect(),
            losses: Vec::new(),
        }
    }

    #[test]
    fn words_tell_the_ways_of_missing_and_marks_tell_surprises() {
        use CapabilityState::{Broken, ConfigOff, ModuleMissing, Supported, TooOld};
        let word = |version: &str, capability, state, unsupported: &[Capability]| {
            row("k", version, &[(capability, state)], unsupported).capabilities[0].word()
        };
        assert_eq!(word("6.12.43", Capability::Netkit, Supported, &[]), "yes");
        assert_eq!(word("6.1.192", Capability::Netkit, TooOld, &[]), "too old");
        assert_eq!(word("6.12.43", Capability::Netkit, ConfigOff, &[Capability::Netkit]), "off*");
        assert_eq!(word("6.12.43", Capability::Netkit, Supported, &[Capability::Netkit]), "yes!");
        assert_eq!(word("6.12.43", Capability::Veth, ModuleMissing, &[]), "no module!");
        assert_eq!(word("6.12.43", Capability::ProgArrayStrict, Supported, &[]), "yes!");
        assert_eq!(word("6.12.60", Capability::ProgArrayStrict, Broken, &[]), "broken!");
    }

    #[test]
    fn the_table_fits_a_terminal_and_explains_its_marks() {
        let every = Capability::ALL.map(|capability| {
            let netkit = capability.name().starts_with("netkit");
            (capability, if netkit { CapabilityState::ConfigOff } else { CapabilityState::ModuleMissing })
        });
        let rows = [row("6.12-no-netkit", "6.12.117", &every, &Capability::ALL), row("7.3-rc", "7.3", &[], &[])];
        let text = Format::Text.render(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(text.contains("\n*: listed as unsupported") && !text.contains("!: not"), "{text}");
        assert!(text.ends_with("7.3-rc: no answer: its guest said nothing"), "{text}");
        let markdown = Format::Markdown.render(&rows);
        assert!(markdown.lines().nth(1).unwrap().starts_with("|--"), "{markdown}");
        assert!(markdown.contains("\n\\*: listed as unsupported"), "{markdown}");
        let json: serde_json::Value = serde_json::from_str(&Format::Json.render(&rows)).unwrap();
        assert_eq!(json[0]["capabilities"][0]["state"], "module-missing");
    }
}
