//! What the lab and a guest's programs are built from. `lab/tests/architecture.rs` holds the lists to what cargo says.

/// Directories of the agent and of every crate of the workspace that it is built from, below the project's directory.
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

/// Directories of the crates that `lab` is built from.
pub const LAB: [&str; 9] = [
    "crates/base",
    "crates/guard",
    "crates/kernel-store",
    "crates/protocol",
    "crates/record",
    "crates/report",
    "crates/vm",
    "images",
    "lab",
];

/// What else is in a guest's image: the eBPF programs, and the list of modules with what packs them.
pub const IMAGE: [&str; 2] = ["ebpf", "images"];

/// The agent's sources and the image's.
pub fn all() -> impl Iterator<Item = &'static str> {
    AGENT.into_iter().chain(IMAGE)
}
