//! The sources of the lab and of the programs in guests. `lab/tests/architecture.rs` compares the lists with cargo's metadata.

/// Directories of the agent and of the workspace crates that it uses, relative to the project.
pub const AGENT: [&str; 11] = [
    "crates/bpf",
    "crates/ebpf-abi",
    "crates/harness",
    "crates/netlink",
    "crates/protocol",
    "crates/relay",
    "crates/suite",
    "crates/topology",
    "crates/traffic",
    "crates/witness",
    "guest-agent",
];

/// Directories of the crates that `lab` is built from.
pub const LAB: [&str; 13] = [
    "crates/base",
    "crates/check",
    "crates/dialects",
    "crates/guard",
    "crates/kernel-store",
    "crates/protocol",
    "crates/record",
    "crates/relay",
    "crates/report",
    "crates/share",
    "crates/vm",
    "images",
    "lab",
];

/// Further sources of a guest's image: the eBPF programs, and the crate that builds images with its list of modules.
pub const IMAGE: [&str; 2] = ["ebpf", "images"];

/// The sources of agent and image.
pub fn all() -> impl Iterator<Item = &'static str> {
    AGENT.into_iter().chain(IMAGE)
}
