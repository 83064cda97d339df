//! What a workload needs of a kernel, and what the host knows against it before a guest boots.

use lab_base::nearest::suggest;
use lab_kernel_store::{ConfigWish, KernelConfig};
use lab_protocol::{Capability, CellId};
use lab_record::plan::{Expectation, Plan};
use std::{collections::BTreeMap, str::FromStr};

/// Something that a kernel must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Requirement {
    /// A capability, which guests probe.
    Capability(Capability),
    /// An option of its configuration, which the host reads.
    Config(ConfigWish),
}

/// A text that names nothing that a kernel could have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is neither a capability nor CONFIG_NAME[=VALUE]{hint}")]
pub struct NotARequirement {
    word: String,
    hint: String,
}

impl FromStr for Requirement {
    type Err = NotARequirement;

    fn from_str(text: &str) -> Result<Self, NotARequirement> {
        let names = Capability::ALL.map(Capability::name);
        let named = Capability::ALL.into_iter().find(|it| it.name() == text).map(Self::Capability);
        named
            .or_else(|| text.parse().ok().map(Self::Config))
            .ok_or_else(|| NotARequirement { word: text.to_owned(), hint: suggest(text, &names) })
    }
}

/// What the host knows of kernels that rules cells out.
#[derive(Debug, Clone, Default)]
pub struct HostSkips {
    /// Kernels that lack something, with why.
    kernels: BTreeMap<String, String>,
    /// Kernels whose suite lacks a test, with why.
    cells: Vec<(String, CellId, String)>,
    /// Whether cells that need a capability are ruled out by the plan alone.
    by_plan: bool,
}

impl HostSkips {
    /// Those of options that kernels lack. A kernel without a known configuration is told by `unknown`, and runs.
    pub fn of_configs(
        wanted: &[Requirement],
        configs: &BTreeMap<String, Option<KernelConfig>>,
        mut unknown: impl FnMut(&str),
    ) -> Self {
        let wishes: Vec<&ConfigWish> =
            wanted.iter().filter_map(|it| if let Requirement::Config(wish) = it { Some(wish) } else { None }).collect();
        let mut kernels = BTreeMap::new();
        for (kernel, config) in configs.iter().filter(|_| !wishes.is_empty()) {
            match config {
                None => unknown(kernel),
                Some(config) => {
                    let why: Vec<String> = wishes.iter().filter_map(|wish| config.lacks(wish)).collect();
                    if !why.is_empty() {
                        kernels.insert(kernel.clone(), why.join(", "));
                    }
                }
            }
        }
        Self { kernels, ..Self::default() }
    }

    /// Adds tests that a kernel's suite does not have. Many tests share what they need: none of them asks a guest.
    #[must_use]
    pub fn of_suite(self, absent: Vec<(String, CellId, String)>) -> Self {
        Self { cells: absent, by_plan: true, ..self }
    }

    /// The plan in which these cells are skipped.
    #[must_use]
    pub fn apply(&self, mut plan: Plan) -> Plan {
        for (kernel, cell, why) in &self.cells {
            plan.skip(kernel, cell, why);
        }
        for planned in &mut plan.kernels {
            let why = self.kernels.get(planned.facts.id.as_str());
            for cell in &mut planned.cells {
                let told = match (&cell.expectation, why) {
                    (Expectation::Run, Some(why)) => why.clone(),
                    (Expectation::Skip { capability, why }, _) if self.by_plan => format!("{capability}: {why}"),
                    _ => continue,
                };
                cell.expectation = Expectation::HostSkip { why: told };
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lab_record::testing::{cell, facts};

    #[test]
    fn a_word_that_names_nothing_has_its_nearest_names() {
        assert_eq!("netkit".parse(), Ok(Requirement::Capability(Capability::Netkit)));
        assert!(matches!("CONFIG_NETKIT=y".parse(), Ok(Requirement::Config(_))));
        let error = "netkti".parse::<Requirement>().unwrap_err().to_string();
        assert!(
            error.starts_with("`netkti` is neither a capability nor CONFIG_NAME[=VALUE]") && error.contains("netkit")
        );
    }

    #[test]
    fn what_a_kernel_lacks_is_a_skip_with_all_reasons() {
        let wanted: Vec<Requirement> =
            ["CONFIG_NETKIT", "netkit", "CONFIG_AMT"].iter().map(|word| word.parse().unwrap()).collect();
        let configs = BTreeMap::from([
            ("old".to_owned(), Some(KernelConfig::parse("CONFIG_X=y\n"))),
            ("new".to_owned(), Some(KernelConfig::parse("CONFIG_NETKIT=y\nCONFIG_AMT=m\n"))),
            ("mine".to_owned(), None),
        ]);
        let mut unknown = Vec::new();
        let skips = HostSkips::of_configs(&wanted, &configs, |kernel| unknown.push(kernel.to_owned()));
        assert_eq!(unknown, ["mine"]);
        let plan = Plan::new(
            vec![facts("old", "6.1"), facts("new", "6.12"), facts("mine", "6.12")],
            vec![cell("a[tc]")],
            false,
        );
        let plan = skips.apply(plan);
        let why = "CONFIG_NETKIT is not set, CONFIG_AMT is not set".to_owned();
        let told: Vec<&Expectation> = plan.kernels.iter().map(|kernel| &kernel.cells[0].expectation).collect();
        assert_eq!(told, [&Expectation::HostSkip { why }, &Expectation::Run, &Expectation::Run]);
    }
}
