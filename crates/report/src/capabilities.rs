//! The table of kernels and capabilities, from the probes in the guests.

use comfy_table::{Table, TableStyle, presets};
use lab_base::text;
use lab_protocol::{Capability, CapabilityReport, CapabilityState, KernelVersion};
use lab_record::run::RunRecord;
use serde::Serialize;

/// Output format of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CapabilityFormat {
    /// Columns for a terminal.
    Text,
    /// A Markdown table.
    Markdown,
    /// JSON with the probes' whole results.
    Json,
}

/// The probe results of one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapabilityRow {
    /// Id in `kernels.toml`.
    pub kernel: String,
    pub class: String,
    /// The upstream version behind the distribution's numbering.
    pub version: KernelVersion,
    /// `uname -r`; `None` if no guest booted.
    pub release: Option<String>,
    /// Probe results; empty if no guest booted.
    pub capabilities: Vec<CapabilityAnswer>,
    /// Why there are no results.
    pub losses: Vec<String>,
}

/// One capability on one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CapabilityAnswer {
    /// The result of the probe.
    #[serde(flatten)]
    pub report: CapabilityReport,
    /// Whether the kernel's version implies the capability.
    pub expected: bool,
    /// The reason for its absence from `kernels.toml`.
    pub unsupported: Option<String>,
}

impl CapabilityAnswer {
    /// The result as a word, marked if version and probe contradict each other without a reason in `kernels.toml`.
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
pub fn rows(record: &RunRecord) -> Vec<CapabilityRow> {
    let kernels = record.info.iter().flat_map(|info| &info.plan.kernels);
    let row = |facts: &lab_record::plan::KernelFacts| {
        let seen = record.kernels.get(&facts.id);
        let answer = |report: &CapabilityReport| CapabilityAnswer {
            report: report.clone(),
            expected: facts.expects(report.capability),
            unsupported: facts.unsupported(report.capability).map(|it| it.reason.clone()),
        };
        CapabilityRow {
            kernel: facts.id.to_string(),
            class: facts.class.clone(),
            version: facts.version,
            release: seen.and_then(|seen| seen.boot.as_ref()).map(|boot| boot.release.clone()),
            capabilities: seen.iter().flat_map(|seen| &seen.capabilities).map(answer).collect(),
            losses: seen.map(|seen| seen.losses.iter().chain(&seen.notes).cloned().collect()).unwrap_or_default(),
        }
    };
    kernels.map(|kernel| row(&kernel.facts)).collect()
}

/// Explanations of the words and marks, printed below the table if they occur.
const LEGEND: [(&str, &str); 5] = [
    ("too old", "too old: the kernel's version is older than the capability"),
    ("off", "off: disabled in the kernel's configuration"),
    ("no module", "no module: a module that does not exist or does not load"),
    ("*", "\\*: listed as unsupported in kernels.toml, with a reason"),
    ("!", "!: contradicts the version, and kernels.toml gives no reason"),
];

impl CapabilityFormat {
    fn table(
        self,
        preset: TableStyle,
        rows: &[CapabilityRow],
        group: &[Capability],
        word: impl Fn(&CapabilityRow, Capability) -> String,
    ) -> String {
        let mut table = Table::new();
        table.load_style(preset);
        // Stacked words keep the columns narrow.
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
    pub fn render(self, rows: &[CapabilityRow]) -> String {
        let preset = match self {
            Self::Json => {
                let told = serde_json::json!({ "version": 1, "kernels": rows });
                return serde_json::to_string_pretty(&told).unwrap_or_default();
            }
            Self::Text => presets::NOTHING,
            Self::Markdown => presets::ASCII_MARKDOWN,
        };
        // On a terminal, modules are a table of their own, and the others two, so that none is too wide.
        let groups: Vec<Vec<Capability>> = match self {
            Self::Text => {
                let (modules, others): (Vec<_>, Vec<_>) =
                    Capability::ALL.into_iter().partition(|capability| capability.is_module());
                let others = others.chunks(others.len().div_ceil(2).max(1)).map(<[Capability]>::to_vec);
                std::iter::once(modules).chain(others).collect()
            }
            Self::Markdown | Self::Json => vec![Capability::ALL.to_vec()],
        };
        let word = |row: &CapabilityRow, capability| {
            let answer = row.capabilities.iter().find(|answer| answer.report.capability == capability);
            answer.map_or_else(|| "-".to_owned(), CapabilityAnswer::word)
        };
        let tables: Vec<String> = groups.iter().map(|group| self.table(preset, rows, group, word)).collect();
        let mut text = tables.join("\n\n");
        let told = |mark: &str| rows.iter().any(|row| Capability::ALL.iter().any(|it| word(row, *it).contains(mark)));
        let legend: Vec<&str> = LEGEND.iter().filter(|(mark, _)| told(mark)).map(|(_, words)| *words).collect();
        if !legend.is_empty() {
            // In Markdown, two trailing blanks are a line break, and a leading star would start a list.
            let (gap, star) = if self == Self::Markdown { ("  \n", "\\*") } else { ("\n", "*") };
            text = format!("{text}\n\n{}", legend.join(gap).replace("\\*", star));
        }
        for row in rows.iter().filter(|row| row.capabilities.is_empty()) {
            let why = row.losses.last().map_or("its guest sent no message", |why| why);
            let why = text::line(why, 200);
            let why = if self == Self::Markdown { text::markdown(&why) } else { why };
            text = format!("{text}\n{}: no answer: {why}", row.kernel);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(
        kernel: &str,
        version: &str,
        answers: &[(Capability, CapabilityState)],
        unsupported: &[Capability],
    ) -> CapabilityRow {
        let answer = |&(capability, state): &(Capability, CapabilityState)| CapabilityAnswer {
            report: CapabilityReport { capability, state, detail: String::new() },
            expected: capability.since().expected_on(version.parse().unwrap()),
            unsupported: unsupported.contains(&capability).then(|| "CONFIG_NETKIT is not set".to_owned()),
        };
        CapabilityRow {
            kernel: kernel.into(),
            class: "6.7+".into(),
            version: version.parse().unwrap(),
            release: None,
            capabilities: answers.iter().map(answer).collect(),
            losses: Vec::new(),
        }
    }

    #[test]
    fn words_show_why_a_capability_is_missing_and_marks_show_contradictions() {
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
        let text = CapabilityFormat::Text.render(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
        assert!(text.contains("\n*: listed as unsupported") && !text.contains("!: not"), "{text}");
        assert!(text.ends_with("7.3-rc: no answer: its guest sent no message"), "{text}");
        let markdown = CapabilityFormat::Markdown.render(&rows);
        assert!(markdown.lines().nth(1).unwrap().starts_with("|--"), "{markdown}");
        assert!(markdown.contains("\n\\*: listed as unsupported"), "{markdown}");
        let json: serde_json::Value = serde_json::from_str(&CapabilityFormat::Json.render(&rows)).unwrap();
        assert_eq!(json["kernels"][0]["capabilities"][0]["state"], "module-missing");
    }
}
