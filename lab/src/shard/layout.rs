//! Formats a plan's shards for CI systems.

mod kubernetes;
mod slurm;

use super::Split;
use comfy_table::{CellAlignment, Table, presets};
use lab_base::text;
use lab_record::{plan::Plan, shard::Part};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// A layout that the serializer refuses.
#[derive(Debug, thiserror::Error)]
#[error("can't write the plan: {0}")]
pub struct LayoutError(String);

/// Output format of a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LayoutFormat {
    /// A text table.
    Text,
    /// JSON with all fields.
    Json,
    /// One line for `fromJSON` in a GitHub Actions matrix.
    Github,
    /// A child pipeline for GitLab, with `parallel:matrix`.
    Gitlab,
    /// An Indexed Job for Kubernetes.
    K8s,
    /// A script that submits an array job and its merge to Slurm.
    Slurm,
}

/// Time of a job in addition to its cells, minutes: packages, tools, downloads and uploads.
const OVERHEAD_MINUTES: u64 = 15;
/// Factor from the estimate to the timeout of a shard: CI machines may be slower.
const SLACK: u64 = 3;
/// Timeouts are multiples of this many minutes, so that they rarely change.
const STEP_MINUTES: u64 = 5;

/// A shard for a CI system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayoutEntry {
    /// The shard: `2/4`.
    pub shard: String,
    /// From 1.
    pub number: u32,
    /// Its kernels, separated by spaces.
    pub kernel: String,
    /// Number of cells.
    pub cells: usize,
    /// Estimated time from recorded durations, seconds.
    pub estimate_s: u64,
    /// Timeout of the job, minutes.
    pub timeout_minutes: u64,
    /// Whether its failures do not count.
    pub may_fail: bool,
    /// Arguments of `lab run`, quoted for a shell.
    pub args: String,
}

/// Every shard of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// Version of this structure as JSON.
    version: u32,
    /// Number of shards.
    pub count: u32,
    /// Number of cells over all kernels.
    pub cells: usize,
    /// Hashes of everything that all shards must agree on.
    pub identity: BTreeMap<String, String>,
    /// The shards in order.
    pub shards: Vec<LayoutEntry>,
    /// Arguments that select the plan in every shard, quoted for a shell.
    pub selection: String,
}

impl Layout {
    /// Creates the layout of a plan that has been split. `selection` are the arguments of `lab run` that select the
    /// plan.
    pub fn new(plan: &Plan, split: &Split, identity: BTreeMap<String, String>, selection: &[String]) -> Self {
        let selection: Vec<String> = selection.iter().map(|word| text::shell_quote(word)).collect();
        let count = u32::try_from(split.loads.len()).unwrap_or(u32::MAX);
        let entry = |(number, load): (u32, &super::Load)| {
            let kernels: Vec<_> = load.cells.iter().map(|(kernel, _)| &plan.kernels[*kernel].facts).collect();
            let part = Part { number, count };
            let minutes = (load.estimate_ms * SLACK).div_ceil(60_000) + OVERHEAD_MINUTES;
            let mut args = selection.clone();
            args.extend(["--partition".to_owned(), part.to_string()]);
            LayoutEntry {
                shard: part.to_string(),
                number,
                kernel: kernels.iter().map(|facts| &*facts.id).collect::<Vec<_>>().join(" "),
                cells: load.count(),
                estimate_s: load.estimate_ms.div_ceil(1000),
                timeout_minutes: minutes.next_multiple_of(STEP_MINUTES),
                may_fail: kernels.iter().all(|facts| facts.may_fail),
                args: args.join(" "),
            }
        };
        Self {
            version: 1,
            count,
            cells: split.loads.iter().map(super::Load::count).sum(),
            identity,
            shards: (1..).zip(&split.loads).map(entry).collect(),
            selection: selection.join(" "),
        }
    }

    /// Formats the layout; `image` is the container image of the Kubernetes job.
    ///
    /// # Errors
    /// The serializer fails.
    pub fn render(&self, format: LayoutFormat, image: &str) -> Result<String, LayoutError> {
        let failed = |error: &dyn std::fmt::Display| LayoutError(error.to_string());
        let yaml = |value: &serde_json::Value| serde_saphyr::to_string(value).map_err(|error| failed(&error));
        match format {
            LayoutFormat::Text => Ok(self.text()),
            LayoutFormat::Json => {
                serde_json::to_string_pretty(self).map_err(|error| failed(&error)).map(|it| it + "\n")
            }
            LayoutFormat::Github => Ok(format!("{}\n", json!({ "include": self.shards }))),
            LayoutFormat::Gitlab => Ok(format!("# Written by `lab plan --format gitlab`.\n{}", yaml(&self.gitlab())?)),
            LayoutFormat::K8s => {
                Ok(format!("# Written by `lab plan --format k8s`.\n{}", yaml(&kubernetes::job(self, image))?))
            }
            LayoutFormat::Slurm => Ok(slurm::script(self)),
        }
    }

    fn longest(&self, may_fail: bool) -> u64 {
        let shards = self.shards.iter().filter(|shard| shard.may_fail == may_fail);
        shards.map(|shard| shard.timeout_minutes).max().unwrap_or(OVERHEAD_MINUTES)
    }

    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(["shard", "kernel", "cells", "estimate", "timeout", ""]);
        for shard in &self.shards {
            table.add_row([
                shard.shard.clone(),
                shard.kernel.clone(),
                shard.cells.to_string(),
                format!("{} s", shard.estimate_s),
                format!("{} min", shard.timeout_minutes),
                if shard.may_fail { "may fail".to_owned() } else { String::new() },
            ]);
        }
        table.column_iter_mut().skip(2).take(3).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
        format!("{table}\n{} cells in {} shards\n", self.cells, self.count)
    }

    /// A job with `parallel:matrix`, and a second job for shards whose failures do not count. Both extend the job in
    /// the included file. GitLab does not allow different timeouts within a matrix.
    fn gitlab(&self) -> serde_json::Value {
        let mut pipeline = json!({ "include": [{ "local": "ci/gitlab/shard.yml" }] });
        for (name, may_fail) in [("lab", false), ("lab-newest", true)] {
            let shards = self.shards.iter().filter(|shard| shard.may_fail == may_fail);
            let matrix: Vec<_> = shards
                .map(|shard| json!({ "LAB_KERNEL": shard.kernel, "LAB_SHARD": shard.number.to_string(), "LAB_ARGS": shard.args }))
                .collect();
            if !matrix.is_empty() {
                pipeline[name] = json!({
                    "extends": ".lab-shard",
                    "timeout": format!("{} minutes", self.longest(may_fail)),
                    "allow_failure": may_fail,
                    "parallel": { "matrix": matrix },
                });
            }
        }
        pipeline
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::split;
    use lab_record::testing::{cell, facts};

    fn layout() -> Layout {
        let cells = (0..40).map(|number| cell(&format!("A{number:02}-x[tc,veth]"))).collect();
        let mut newest = facts("newest", "7.3");
        newest.may_fail = true;
        let plan = Plan::new(vec![facts("6.1", "6.1.192"), facts("6.12", "6.12.117"), newest], cells, true);
        let split = split(&plan, 4, &|facts, _| if facts.id == "6.12" { 20_000 } else { 100 }).unwrap();
        let identity = [("the cells".to_owned(), "0123456789abcdef".to_owned())].into();
        Layout::new(&plan, &split, identity, &["--newest".to_owned(), "--case".to_owned(), "A*".to_owned()])
    }

    #[test]
    fn a_shard_may_fail_only_if_all_its_kernels_may() {
        let mut newest = facts("newest", "7.3");
        newest.may_fail = true;
        let plan = Plan::new(vec![facts("6.12", "6.12.117"), newest], vec![cell("A01-x[tc,veth]")], true);
        let of = |count| {
            let layout = Layout::new(&plan, &split(&plan, count, &|_, _| 100).unwrap(), BTreeMap::new(), &[]);
            layout.shards.into_iter().map(|shard| (shard.kernel, shard.may_fail)).collect::<Vec<_>>()
        };
        assert_eq!(of(1), [("6.12 newest".to_owned(), false)]);
        assert_eq!(of(2), [("6.12".to_owned(), false), ("newest".to_owned(), true)]);
    }

    #[test]
    fn text_format() {
        insta::assert_snapshot!(layout().render(LayoutFormat::Text, "").unwrap());
    }

    #[test]
    fn json_format() {
        insta::assert_snapshot!(layout().render(LayoutFormat::Json, "").unwrap());
    }

    #[test]
    fn github_format_is_one_line() {
        let line = layout().render(LayoutFormat::Github, "").unwrap();
        assert_eq!(line.lines().count(), 1, "a step's output is one line");
        insta::assert_snapshot!(line);
    }

    #[test]
    fn gitlab_format() {
        insta::assert_snapshot!(layout().render(LayoutFormat::Gitlab, "").unwrap());
    }

    #[test]
    fn slurm_format_starts_with_the_longest_shard() {
        let script = layout().render(LayoutFormat::Slurm, "").unwrap();
        assert!(script.contains("\norder=(2 3 1 4)\n"), "{script}");
        insta::assert_snapshot!(script);
    }

    #[test]
    fn kubernetes_format() {
        insta::assert_snapshot!(layout().render(LayoutFormat::K8s, "registry.example/netkit-lab:1").unwrap());
    }
}
