//! Errors of building the agent for another architecture.

use lab_base::arch::Architecture;

/// Why there is no agent for another architecture.
#[derive(Debug, thiserror::Error)]
pub enum CrossError {
    /// An installed lab has one agent.
    #[error("this lab is installed with an agent for amd64 alone: run guests of {architecture} from a checkout")]
    OneArchitecture { architecture: Architecture },
    /// What builds an agent for another architecture is missing.
    #[error(
        "what builds the agent for guests of {architecture} is missing: `lab setup --arm64` unpacks it. It needs Debian's rustc-web, \
         too, which builds the eBPF objects"
    )]
    NoTools { architecture: Architecture },
    /// The standard library is not the compiler's.
    #[error(
        "the compiler is rustc {compiler}, and its library for arm64 is libstd-rust-web-dev {library}: remove both from the cache \
         (tools/bpf and tools/arm64-libraries) and run `lab setup --arm64`, which unpacks what belongs together"
    )]
    OtherLibrary { compiler: String, library: String },
}
