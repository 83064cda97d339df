//! The miniature datapath, as a node has it: maps that all its programs share, and per mechanism a jump map with the
//! programs that go with it.

use crate::{
    BpfError, ProgArray, expected_attach_type,
    load::{missing, object_error},
    object::{Parsed, Want},
    sys,
};
use aya::maps::{
    HashMap, Map, MapData, MapError, PerCpuHashMap, PerCpuValues,
    lpm_trie::{Key, LpmTrie},
};
pub use lab_abi::datapath::{Counters, FROM_WORKLOAD, TO_WORKLOAD, fault};
use lab_abi::{
    JUMP_SLOTS,
    datapath::{
        Address, Backend, ConnectionKey, CounterKey, DatapathConfig, EndpointKey, FORWARD_SLOT, RuleKey, ServiceKey,
        Tuple,
    },
};
use lab_protocol::{AttachType, Hook};
use std::{
    collections::HashMap as Table,
    fs,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

const JUMP: &str = "DP_JUMP";
/// What errors call the object as a whole.
const WHOLE: &str = "datapath";

/// The object file, read and parsed once.
#[derive(Debug, Clone)]
pub struct DatapathObject(Arc<Parsed>);

/// The object, and the maps that its programs share.
pub struct Datapath {
    object: Arc<Parsed>,
    maps: Table<String, MapData>,
    fault: u32,
}

/// The jump map of one mechanism. The kernel wants one `expected_attach_type` of everything in it.
#[derive(Debug)]
pub struct Mechanism {
    attach_type: AttachType,
    jump: ProgArray,
    _forward: OwnedFd,
}

/// One workload's programs for one mechanism. Dropping it leaves the entries where they are attached, and the policy in
/// its slot.
#[derive(Debug)]
pub struct WorkloadPrograms {
    /// For packets from the workload.
    pub from: Loaded,
    /// For packets to the workload.
    pub to: Loaded,
    policy: OwnedFd,
    slot: u32,
}

/// A loaded program of the datapath.
#[derive(Debug)]
pub struct Loaded {
    fd: OwnedFd,
    /// Id that the kernel gave the program (`bpf_prog_info.id`).
    pub id: u32,
}

impl AsFd for Loaded {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl DatapathObject {
    /// Reads the object.
    ///
    /// # Errors
    /// [`BpfError::File`], [`BpfError::Object`].
    pub fn open(path: &Path) -> Result<Self, BpfError> {
        let bytes = fs::read(path).map_err(|error| BpfError::File { path: path.to_owned(), error })?;
        Ok(Self(Arc::new(Parsed::new(&bytes, size_of::<DatapathConfig>(), WHOLE)?)))
    }
}

impl Datapath {
    /// Makes the maps. `fault` is one of [`lab_abi::datapath::fault`], built into every program.
    ///
    /// # Errors
    /// [`BpfError::Call`] where a map can't be made.
    pub fn new(object: &DatapathObject, fault: u32) -> Result<Self, BpfError> {
        let object = Arc::clone(&object.0);
        let maps = object.maps(WHOLE, &[JUMP])?;
        Ok(Self { object, maps, fault })
    }

    /// A mechanism's jump map with the forwarding program in it.
    ///
    /// # Errors
    /// [`BpfError::Load`], [`BpfError::Call`].
    pub fn mechanism(&self, attach_type: AttachType) -> Result<Mechanism, BpfError> {
        self.join(attach_type, ProgArray::create(JUMP_SLOTS)?)
    }

    /// Like [`Datapath::mechanism`], with the jump map of another one.
    ///
    /// # Errors
    /// [`BpfError::Load`] or [`BpfError::Call`] with `EINVAL` where the kernel compares the attach types.
    pub fn mechanism_sharing(&self, attach_type: AttachType, other: &Mechanism) -> Result<Mechanism, BpfError> {
        let fd = other.jump.as_fd().try_clone_to_owned();
        self.join(attach_type, ProgArray::from(fd.map_err(|error| object_error(WHOLE, error))?))
    }

    fn join(&self, attach_type: AttachType, jump: ProgArray) -> Result<Mechanism, BpfError> {
        let forward = self.load("forward", attach_type, &jump, DatapathConfig::default())?;
        jump.insert(FORWARD_SLOT, &forward)?;
        Ok(Mechanism { attach_type, jump, _forward: forward })
    }

    /// Loads a workload's programs and puts its policy into its slot.
    ///
    /// # Errors
    /// [`BpfError::Load`], [`BpfError::Call`].
    pub fn workload(&self, by: &Mechanism, host_ifindex: u32, slot: u32) -> Result<WorkloadPrograms, BpfError> {
        let config = DatapathConfig { host_ifindex, policy_slot: slot, fault: self.fault };
        let entry = |name| {
            let fd = self.load(name, by.attach_type, &by.jump, config)?;
            Ok::<_, BpfError>(Loaded { id: crate::id_of(&fd)?, fd })
        };
        let programs = WorkloadPrograms {
            from: entry("from_workload")?,
            to: entry("to_workload")?,
            policy: self.load("policy", by.attach_type, &by.jump, config)?,
            slot,
        };
        by.plug(&programs)?;
        Ok(programs)
    }

    fn load(&self, name: &str, by: AttachType, jump: &ProgArray, config: DatapathConfig) -> Result<OwnedFd, BpfError> {
        let mut given: Vec<(&str, BorrowedFd<'_>)> =
            self.maps.iter().map(|(name, data)| (name.as_str(), data.fd().as_fd())).collect();
        given.push((JUMP, jump.as_fd()));
        let config = DatapathConfig { fault: self.fault, ..config };
        let want = Want {
            program: name,
            config: sys::bytes_of(&config),
            given: &given,
            prog_type: crate::raw::BPF_PROG_TYPE_SCHED_CLS,
            expected_attach_type: expected_by(by),
            function: None,
            variable: None,
        };
        Ok(self.object.load(&want)?.0)
    }

    /// Registers a workload: its addresses, and counters from zero.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn register(&self, host_ifindex: u32, addresses: &[IpAddr]) -> Result<(), BpfError> {
        // The counters first: a packet that is judged by the new addresses is counted, also if it comes before the end of this.
        let mut counters: PerCpuHashMap<_, CounterKey, Counters> = self.typed("COUNTERS")?;
        for direction in [FROM_WORKLOAD, TO_WORKLOAD] {
            let cpus = aya::util::nr_cpus().map_err(|(what, error)| object_error(WHOLE, format!("{what}: {error}")))?;
            let zeros = PerCpuValues::try_from(vec![Counters::default(); cpus])
                .map_err(|error| BpfError::Map { map: "COUNTERS", error: error.into() })?;
            counters.insert(CounterKey { host_ifindex, direction }, zeros, 0).map_err(in_map("COUNTERS"))?;
        }
        let mut endpoints: HashMap<_, EndpointKey, Address> = self.typed("ENDPOINTS_MAP")?;
        for address in addresses {
            let key = EndpointKey { host_ifindex, family: if address.is_ipv4() { 4 } else { 6 } };
            endpoints.insert(key, words(*address), 0).map_err(in_map("ENDPOINTS_MAP"))?;
        }
        Ok(())
    }

    /// A workload's counters in one direction, all CPUs together.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn counters(&self, host_ifindex: u32, direction: u32) -> Result<Counters, BpfError> {
        let counters: PerCpuHashMap<_, CounterKey, Counters> = self.typed("COUNTERS")?;
        let shares = counters.get(&CounterKey { host_ifindex, direction }, 0).map_err(in_map("COUNTERS"))?;
        let mut sum = Counters::default();
        shares.iter().for_each(|share| sum.merge(share));
        Ok(sum)
    }

    /// Sets a rule: `prefix` bits of `remote` count, 0 to 32 or 128. Port and protocol 0 are everything.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn set_rule(&self, rule: &WorkloadRule, verdict: i32) -> Result<(), BpfError> {
        let mut rules: LpmTrie<_, RuleKey, i32> = self.typed("RULES_MAP")?;
        rules.insert(&rule.key(), verdict, 0).map_err(in_map("RULES_MAP"))
    }

    /// Takes a rule away.
    ///
    /// # Errors
    /// [`BpfError::Map`]: `ENOENT` where it is not there.
    pub fn clear_rule(&self, rule: &WorkloadRule) -> Result<(), BpfError> {
        let mut rules: LpmTrie<_, RuleKey, i32> = self.typed("RULES_MAP")?;
        rules.remove(&rule.key()).map_err(in_map("RULES_MAP"))
    }

    /// Makes a service's address lead to a backend.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn set_service(&self, protocol: u8, service: SocketAddr, backend: SocketAddr) -> Result<(), BpfError> {
        let mut services: HashMap<_, ServiceKey, Backend> = self.typed("SERVICES")?;
        let key = ServiceKey { address: words(service.ip()), port: service.port().to_be(), protocol: protocol.into() };
        let value = Backend { address: words(backend.ip()), port: backend.port().to_be(), reserved: 0 };
        services.insert(key, value, 0).map_err(in_map("SERVICES"))
    }

    /// Forgets every connection, as a policy change does that must hold at once. Gives back how many legs there were.
    ///
    /// # Errors
    /// [`BpfError::Map`].
    pub fn forget_connections(&self) -> Result<usize, BpfError> {
        let mut connections: HashMap<_, ConnectionKey, Tuple> = self.typed("CONNECTIONS_MAP")?;
        let known: Vec<ConnectionKey> =
            connections.keys().collect::<Result<_, _>>().map_err(in_map("CONNECTIONS_MAP"))?;
        for key in &known {
            connections.remove(key).map_err(in_map("CONNECTIONS_MAP"))?;
        }
        Ok(known.len())
    }

    fn typed<T: TryFrom<Map, Error = MapError>>(&self, name: &'static str) -> Result<T, BpfError> {
        let data = self.maps.get(name).ok_or_else(|| missing(WHOLE, name))?;
        let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| object_error(WHOLE, error))?;
        let data = MapData::from_fd(fd).map_err(|error| object_error(WHOLE, error))?;
        let map = Map::from_map_data(data).map_err(in_map(name))?;
        T::try_from(map).map_err(in_map(name))
    }
}

impl WorkloadPrograms {
    /// The slot of the policy.
    pub const fn slot(&self) -> u32 {
        self.slot
    }
}

impl Mechanism {
    /// What the programs attach by.
    pub const fn attach_type(&self) -> AttachType {
        self.attach_type
    }

    /// Puts a workload's policy into its slot.
    ///
    /// # Errors
    /// [`BpfError::Call`].
    pub fn plug(&self, programs: &WorkloadPrograms) -> Result<(), BpfError> {
        self.jump.insert(programs.slot, &programs.policy)
    }

    /// Empties a workload's slot.
    ///
    /// # Errors
    /// [`BpfError::Call`]: `ENOENT` where it is empty.
    pub fn unplug(&self, programs: &WorkloadPrograms) -> Result<(), BpfError> {
        self.jump.remove(programs.slot)
    }
}

/// What a rule applies to.
#[derive(Debug, Clone, Copy)]
pub struct WorkloadRule {
    /// The workload's device on the node.
    pub host_ifindex: u32,
    /// [`FROM_WORKLOAD`] or [`TO_WORKLOAD`].
    pub direction: u32,
    /// IP protocol and destination port; `None` is everything.
    pub service: Option<(u8, u16)>,
    /// The other side.
    pub remote: IpAddr,
    /// Bits of it that count.
    pub prefix: u32,
}

impl WorkloadRule {
    fn key(&self) -> Key<RuleKey> {
        let (protocol, port) = self.service.unwrap_or_default();
        let mapped = if self.remote.is_ipv4() { 96 } else { 0 };
        let key = RuleKey {
            host_ifindex: self.host_ifindex,
            direction: self.direction as u16,
            port: port.to_be(),
            protocol: protocol.into(),
            remote: words(self.remote),
        };
        Key::new(RuleKey::FIXED_BITS + mapped + self.prefix, key)
    }
}

/// One type for the whole jump map: entries of both directions call through it. Attaching does not compare it.
const fn expected_by(attach_type: AttachType) -> u32 {
    expected_attach_type(match attach_type {
        AttachType::Tc => Hook::ClsactIngress,
        AttachType::Tcx => Hook::TcxIngress,
        AttachType::Netkit => Hook::NetkitPrimary,
    })
}

/// As the maps have it: network byte order, IPv4 mapped.
pub fn words(address: IpAddr) -> Address {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

const fn in_map(map: &'static str) -> impl Fn(MapError) -> BpfError {
    move |error| BpfError::Map { map, error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_network_order_and_ipv4_is_mapped() {
        assert_eq!(words("10.65.0.2".parse().unwrap()), [0, 0, 0xffff_u32.to_be(), 0x0a41_0002_u32.to_be()]);
        assert_eq!(words("fd65::2".parse().unwrap())[0], 0xfd65_0000_u32.to_be());
    }

    #[test]
    fn a_rule_for_an_ipv4_network_counts_the_mapped_prefix_too() {
        let remote = "10.65.0.0".parse().unwrap();
        let rule = WorkloadRule { host_ifindex: 1, direction: FROM_WORKLOAD, service: None, remote, prefix: 24 };
        assert_eq!(rule.key().prefix_len(), RuleKey::FIXED_BITS + 96 + 24);
    }

    #[test]
    fn programs_of_two_mechanisms_are_of_two_types() {
        // What a jump map compares, where a kernel compares anything (enum bpf_attach_type).
        let types = [AttachType::Tc, AttachType::Tcx, AttachType::Netkit].map(expected_by);
        assert_eq!(types, [0, 46, 54]);
    }
}
