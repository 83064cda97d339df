//! What a guest's programs are built from.

/// Directories of the agent and of every crate of the workspace that it is built from, below the project's directory.
/// `lab/tests/architecture.rs` holds this list to what cargo says.
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

/// What else is in a guest's image: the eBPF programs, and the list of modules with what packs them.
pub const IMAGE: [&str; 2] = ["ebpf", "images"];

/// The agent's sources and the image's.
pub fn all() -> impl Iterator<Item = &'static str> {
    AGENT.into_iter().chain(IMAGE)
}
