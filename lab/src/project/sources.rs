//! The sources of the programs in guests.

/// Directories of the agent and of the workspace crates that it uses, relative to the project. `lab/tests/architecture.rs`
/// compares this list with cargo's metadata.
pub const AGENT: [&str; 9] = [
    "crates/bpf",
    "crates/ebpf-abi",
    "crates/harness",
    "crates/netlink",
    "crates/protocol",
    "crates/suite",
    "crates/topology",
    "crates/traffic",
    "guest-agent",
];

/// Further sources of a guest's image: the eBPF programs, and the crate that builds images with its list of modules.
pub const IMAGE: [&str; 2] = ["ebpf", "images"];

/// The sources of agent and image.
pub fn all() -> impl Iterator<Item = &'static str> {
    AGENT.into_iter().chain(IMAGE)
}
