//! What the loader in a guest is to do.

use crate::{facts::CounterPlace, fault::CheckFault};
use lab_protocol::Hook;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The hooks for programs of the type `sched_cls`, in the order of tables.
pub const HOOKS: [Hook; 6] =
    [Hook::ClsactIngress, Hook::ClsactEgress, Hook::TcxIngress, Hook::TcxEgress, Hook::NetkitPrimary, Hook::NetkitPeer];

/// The hook of that name; `tc/ingress` is the same as `clsact/ingress`.
pub fn hook_named(name: &str) -> Option<Hook> {
    let name = name.strip_prefix("tc/").map_or_else(|| name.to_owned(), |direction| format!("clsact/{direction}"));
    HOOKS.into_iter().find(|hook| hook.name() == name)
}

/// What is to be done with one object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckOrder {
    /// Its name in reports.
    pub name: String,
    /// The programs to load; all if it is empty.
    pub only: Vec<String>,
    /// Program types by section or program: `sched_cls`.
    pub types: BTreeMap<String, String>,
    /// The hooks to attach to.
    pub hooks: Vec<Hook>,
    /// What is sent through each hook.
    pub packets: Vec<CheckPacket>,
    /// Values of global variables, as bytes.
    pub globals: BTreeMap<String, Vec<u8>>,
    /// Sizes and contents of maps.
    pub maps: BTreeMap<String, CheckMap>,
    /// Slots of program arrays.
    pub slots: Vec<CheckSlot>,
    /// Modules of the kernel that are loaded first.
    pub modules: Vec<String>,
    /// The directory for maps that are pinned by name; one of its own if `None`.
    pub pins: Option<String>,
    /// Counters that are read before and after each packet.
    pub counters: Vec<CounterPlace>,
    /// What loads the object.
    pub loader: CheckLoader,
    /// What is expected, by the kernel's name in `kernels.toml`.
    pub expect: BTreeMap<String, Vec<CheckExpectation>>,
    /// A fault of the check that is made on purpose.
    pub fault: Option<CheckFault>,
}

/// What loads the object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckLoader {
    /// The libbpf of the guest program.
    #[default]
    Libbpf,
    /// aya, in the guest program.
    Aya,
    /// iproute2's `tc`: the words that start it.
    Tc(Vec<String>),
    /// `bpftool`: the words that start it.
    Bpftool(Vec<String>),
    /// A program of the user's: its words, and the object in place of `{}` or behind them.
    Command(Vec<String>),
}

/// In place of the object's path in the words of a command.
pub const OBJECT_WORD: &str = "{}";

/// One packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckPacket {
    /// Its name in reports.
    pub name: String,
    /// From the Ethernet header on. The loader writes the devices' addresses into the header.
    pub frame: Vec<u8>,
}

/// Keys and values.
pub type MapEntries = Vec<(Vec<u8>, Vec<u8>)>;

/// A map.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CheckMap {
    /// Another `max_entries` than the object's.
    pub max_entries: Option<u32>,
    /// Keys and values that are written after the load.
    pub entries: MapEntries,
    /// A map that is already pinned under its name, as an object that is loaded before would leave it.
    pub pinned: Option<MapShape>,
    /// What its inner maps are, where the object does not say.
    pub inner: Option<MapShape>,
    /// Maps that are made and put into this one after the load.
    pub inner_maps: Vec<InnerMap>,
}

/// A map in a map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerMap {
    /// Its key in the outer map.
    pub key: Vec<u8>,
    /// Its own keys and values.
    pub entries: MapEntries,
}

/// What a map is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapShape {
    /// Its type: `hash`.
    pub kind: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries.
    pub max_entries: u32,
}

/// A slot of a program array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckSlot {
    /// The map's name.
    pub map: String,
    /// The index.
    pub index: u32,
    /// Name of the program.
    pub program: String,
}

/// One expectation, for the kernel that it is listed under.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckExpectation {
    /// The program; every one if `None`.
    pub program: Option<String>,
    /// The hook; every one that the kernel has if `None`.
    pub hook: Option<Hook>,
    /// The packet; every one if `None`.
    pub packet: Option<String>,
    /// What must be.
    pub what: Expected,
    /// Where it is written: `check.toml:7`.
    pub origin: String,
}

/// What must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// It loads.
    Loads,
    /// Whether it loads does not matter.
    LoadsOrFails,
    /// It does not load, for this class of reason; any if `None`.
    Fails(Option<String>),
    /// The program returns this for the packet, by `BPF_PROG_TEST_RUN`.
    Verdict(i64),
    /// The packet's fate: `delivered`, `changed`, `dropped`, `redirected` or `redirected: DEVICE`.
    Fate(String),
    /// The packet's bytes where it is delivered, from the Ethernet header on.
    Bytes(Vec<u8>),
    /// At most so many verified instructions.
    Instructions(u32),
    /// By how much a packet changes a counter.
    Adds(CounterPlace, u32),
    /// How often the program runs for a packet.
    Runs(u32),
}

impl Expected {
    /// Whether it says if the object loads.
    pub const fn is_about_loading(&self) -> bool {
        matches!(self, Self::Loads | Self::LoadsOrFails | Self::Fails(_))
    }
}
