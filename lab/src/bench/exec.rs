//! Results of `lab bench exec`: what a command in a guest costs beside `vng --exec true`.

use super::boot::Spread;
use serde::Serialize;
use std::fmt::Write;

/// A command on one kernel, divided by a stock boot of it.
const ONE_TARGET: f64 = 0.05;
/// A command on several kernels, divided by the sum of their stock boots.
const ALL_TARGET: f64 = 0.04;
/// From the start of a restored guest with this host's files to the end of `true`, seconds.
const HOST_ROOT_TARGET: f64 = 0.5;
/// Peak memory with this host's files, divided by that with the guest's own.
const MEMORY_TARGET: f64 = 1.3;
/// Commands in a guest each, on two processors: seconds, and their number.
const COMMANDS_TARGET: (f64, u32) = (40.0, 100);

/// `true` on one kernel, beside a stock boot right before it.
#[derive(Debug, Clone, Serialize)]
pub struct OneRound {
    pub kernel: String,
    /// Time of `vng --exec true`, seconds.
    pub stock_s: f64,
    /// Time of `lab exec -- true` from the start of the program to its exit, seconds.
    pub exec_s: f64,
    /// The same while `lab serve` runs.
    pub held_s: f64,
}

/// `true` on all kernels at once.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AllRound {
    /// Sum of the round's stock boots, seconds.
    pub stock_s: f64,
    /// Time of one `lab exec -- true`, seconds.
    pub exec_s: f64,
    /// The same while `lab serve` runs.
    pub held_s: f64,
}

/// `true` with each of two roots.
#[derive(Debug, Clone, Serialize)]
pub struct RootRound {
    pub kernel: String,
    /// From the start of the guest with this host's files to the end of the command, seconds.
    pub host_s: f64,
    /// The same with the guest's own files.
    pub image_s: f64,
    /// Peak memory of the guest with this host's files, KiB.
    pub host_kib: Option<u64>,
    /// Peak memory of the guest with its own files, KiB.
    pub image_kib: Option<u64>,
}

/// Many commands on one kernel, in a pristine guest each.
#[derive(Debug, Clone, Serialize)]
pub struct ManyCommands {
    pub kernel: String,
    pub count: u32,
    /// Number of commands at a time: the host's processors.
    pub jobs: usize,
    /// From the first start to the last exit, seconds.
    pub total_s: f64,
}

/// Content of `results/bench-exec.json`.
#[derive(Debug, Clone, Serialize)]
pub struct ExecBench {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    pub qemu: String,
    /// Processors of the host.
    pub processors: usize,
    /// One kernel, divided by the stock boot right before it.
    pub one_kernel_ratio: Option<Spread>,
    /// All kernels at once, divided by the sum of their stock boots.
    pub all_kernels_ratio: Option<Spread>,
    /// One kernel while `lab serve` runs.
    pub one_held_ratio: Option<Spread>,
    /// All kernels at once while `lab serve` runs.
    pub all_held_ratio: Option<Spread>,
    /// With this host's files, from the start of the guest to the end of the command, seconds.
    pub host_root_s: Option<Spread>,
    /// With the guest's own files.
    pub image_root_s: Option<Spread>,
    /// Peak memory with this host's files, divided by that with the guest's own.
    pub memory_ratio: Option<Spread>,
    pub commands: Option<ManyCommands>,
    /// The measurements behind the ratios.
    pub one: Vec<OneRound>,
    pub all: Vec<AllRound>,
    pub roots: Vec<RootRound>,
}

impl ExecBench {
    /// Computes the ratios.
    pub fn new(
        accelerator: String,
        qemu: String,
        processors: usize,
        (one, all): (Vec<OneRound>, Vec<AllRound>),
        roots: Vec<RootRound>,
        commands: Option<ManyCommands>,
    ) -> Self {
        let memory = |it: &RootRound| Some(it.host_kib? as f64 / it.image_kib? as f64);
        Self {
            accelerator,
            qemu,
            processors,
            one_kernel_ratio: Spread::of(one.iter().map(|it| it.exec_s / it.stock_s).collect()),
            all_kernels_ratio: Spread::of(all.iter().map(|it| it.exec_s / it.stock_s).collect()),
            one_held_ratio: Spread::of(one.iter().map(|it| it.held_s / it.stock_s).collect()),
            all_held_ratio: Spread::of(all.iter().map(|it| it.held_s / it.stock_s).collect()),
            host_root_s: Spread::of(roots.iter().map(|it| it.host_s).collect()),
            image_root_s: Spread::of(roots.iter().map(|it| it.image_s).collect()),
            memory_ratio: Spread::of(roots.iter().filter_map(memory).collect()),
            commands,
            one,
            all,
            roots,
        }
    }

    /// Formats a Markdown table, targets beside the figures.
    pub fn table(&self) -> String {
        let mut out = format!("{}, QEMU {}, {} processors\n\n", self.accelerator, self.qemu, self.processors);
        out.push_str("| what | median | min | max | target |\n|---|---|---|---|---|\n");
        let kernels = {
            let mut names: Vec<&str> = self.one.iter().map(|round| &*round.kernel).collect();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        let together = format!("`lab exec -- true` on {kernels} kernels at once, of their `vng --exec true`");
        let rows = [
            ("`lab exec -- true` on one kernel, of `vng --exec true`", self.one_kernel_ratio, Some(ONE_TARGET)),
            ("the same while `lab serve` runs", self.one_held_ratio, Some(ONE_TARGET)),
            (&*together, self.all_kernels_ratio, Some(ALL_TARGET)),
            ("the same while `lab serve` runs", self.all_held_ratio, Some(ALL_TARGET)),
            (
                "from the restored guest to the end of `true`, `--root host`, s",
                self.host_root_s,
                Some(HOST_ROOT_TARGET),
            ),
            ("the same, `--root image`, s", self.image_root_s, None),
            ("peak memory, `--root host` of `--root image`", self.memory_ratio, Some(MEMORY_TARGET)),
        ];
        for (what, value, target) in rows {
            let Some(Spread { median, min, max }) = value else { continue };
            let target = target.map_or_else(|| "-".to_owned(), |target| target.to_string());
            let _ = writeln!(out, "| {what} | {median:.3} | {min:.3} | {max:.3} | {target} |");
        }
        if let Some(ManyCommands { kernel, count, jobs, total_s }) = &self.commands {
            let (target, of) = COMMANDS_TARGET;
            let _ = writeln!(
                out,
                "\n{count} commands on {kernel}, a pristine guest each, {jobs} at a time: {total_s:.1} s, {:.2} s each \
                 (target: {of} in {target} s).",
                total_s / f64::from(*count)
            );
        }
        if !self.one.is_empty() {
            out.push_str("\n| kernel | stock s | `lab exec` s | with `lab serve` s |\n|---|---|---|---|\n");
        }
        for OneRound { kernel, stock_s, exec_s, held_s } in &self.one {
            let _ = writeln!(out, "| {kernel} | {stock_s:.2} | {exec_s:.2} | {held_s:.2} |");
        }
        for AllRound { stock_s, exec_s, held_s } in &self.all {
            let _ = writeln!(out, "| all | {stock_s:.2} | {exec_s:.2} | {held_s:.2} |");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_is_divided_by_the_stock_boot_before_it() {
        let one = |kernel: &str, stock_s, exec_s| OneRound {
            kernel: kernel.to_owned(),
            stock_s,
            exec_s,
            held_s: exec_s / 2.0,
        };
        let root =
            RootRound { kernel: "a".into(), host_s: 0.6, image_s: 0.4, host_kib: Some(130), image_kib: Some(100) };
        let unknown = RootRound { host_kib: None, host_s: 0.8, ..root.clone() };
        let commands = ManyCommands { kernel: "a".into(), count: 50, jobs: 2, total_s: 25.0 };
        let bench = ExecBench::new(
            "tcg".into(),
            "11.1".into(),
            2,
            (
                vec![one("a", 10.0, 0.5), one("b", 20.0, 2.0)],
                vec![AllRound { stock_s: 30.0, exec_s: 1.5, held_s: 0.6 }],
            ),
            vec![root, unknown],
            Some(commands),
        );
        let table = bench.table();
        for line in [
            "| `lab exec -- true` on one kernel, of `vng --exec true` | 0.075 | 0.050 | 0.100 | 0.05 |",
            "| the same while `lab serve` runs | 0.038 | 0.025 | 0.050 | 0.05 |",
            "| the same while `lab serve` runs | 0.020 | 0.020 | 0.020 | 0.04 |",
            "| `lab exec -- true` on 2 kernels at once, of their `vng --exec true` | 0.050 | 0.050 | 0.050 | 0.04 |",
            "`--root host`, s | 0.700 | 0.600 | 0.800 | 0.5 |",
            "| peak memory, `--root host` of `--root image` | 1.300 | 1.300 | 1.300 | 1.3 |",
            "50 commands on a, a pristine guest each, 2 at a time: 25.0 s, 0.50 s each (target: 100 in 40 s).",
        ] {
            assert!(table.contains(line), "{line}\n{table}");
        }
    }
}
