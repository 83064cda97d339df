//! Filters for kernels and cells.

use lab_protocol::AttachRequest;

/// Filter for kernels of `kernels.toml`. The default selects those with `default = true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// Patterns of ids.
    pub kernel: Vec<String>,
    /// Selects every kernel, instead of patterns.
    pub all: bool,
    /// Selects also the kernels with `may-fail = true`.
    pub newest: bool,
    /// Names of classes; empty selects every class.
    pub class: Vec<String>,
}

impl KernelFilter {
    /// Selects the kernels that match one pattern.
    pub fn of(pattern: &str) -> Self {
        Self { kernel: vec![pattern.to_owned()], ..Self::default() }
    }

    /// Whether no filter excludes kernels.
    pub const fn is_full_matrix(&self) -> bool {
        self.kernel.is_empty() && self.class.is_empty()
    }
}

/// Filter for cells, and how the agent is built. The default selects the whole suite, with a new build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellFilter {
    /// Patterns of cases, cells or catalogue numbers; empty selects every cell.
    pub case: Vec<String>,
    /// Patterns of those that are left out of them.
    pub exclude: Vec<String>,
    /// Requested attach types; empty selects all.
    pub attach: Vec<AttachRequest>,
    /// Use existing builds of the agent and the eBPF objects.
    pub no_build: bool,
    /// Selects the canaries instead of the suite.
    pub canary: bool,
}

impl CellFilter {
    /// Whether no filter leaves out cells.
    pub const fn is_every_cell(&self) -> bool {
        self.case.is_empty() && self.exclude.is_empty() && self.attach.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_of_every_cell_only_if_nothing_leaves_one_out() {
        assert!(CellFilter { no_build: true, ..CellFilter::default() }.is_every_cell());
        let patterns = || vec!["A01*".to_owned()];
        for filter in [
            CellFilter { case: patterns(), ..CellFilter::default() },
            CellFilter { exclude: patterns(), ..CellFilter::default() },
            CellFilter { attach: vec![AttachRequest::Tc], ..CellFilter::default() },
        ] {
            assert!(!filter.is_every_cell(), "{filter:?}");
        }
    }
}
