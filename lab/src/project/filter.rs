//! Which cells on which kernels, as somebody asks for them.

use lab_protocol::AttachRequest;

/// Which kernels of `kernels.toml`. The default are those with `default = true`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelFilter {
    /// Patterns of ids.
    pub kernel: Vec<String>,
    /// Every kernel, in place of patterns.
    pub all: bool,
    /// Also the kernels with `may-fail = true`.
    pub newest: bool,
    /// Names of classes; none means every class.
    pub class: Vec<String>,
}

impl KernelFilter {
    /// Those that one pattern means.
    pub fn of(pattern: &str) -> Self {
        Self { kernel: vec![pattern.to_owned()], ..Self::default() }
    }

    /// Whether no filter narrows the kernels.
    pub const fn is_full_matrix(&self) -> bool {
        self.kernel.is_empty() && self.class.is_empty()
    }
}

/// Which cells, of which build of the agent. The default is the whole suite, built anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Patterns of cases, cells or catalogue numbers; none means every cell.
    pub case: Vec<String>,
    /// Attach types that a cell asks for; none means every one.
    pub attach: Vec<AttachRequest>,
    /// Use the agent and the eBPF object as they are.
    pub no_build: bool,
    /// The canaries in place of the suite.
    pub canary: bool,
}
