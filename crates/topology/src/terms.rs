//! Types used by topologies: kinds of link, address families, netkit options.

pub use lab_protocol::LinkKind;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
    sync::OnceLock,
};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The families of this machine: a kernel without IPv6 (`CONFIG_IPV6`, `ipv6.disable=1`, `ipv6.disable_ipv6=1`)
    /// runs the IPv4 half of everything.
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<bool> = OnceLock::new();
        let setting = || std::fs::read_to_string("/proc/sys/net/ipv6/conf/default/disable_ipv6");
        let ipv6 = *AVAILABLE.get_or_init(|| setting().is_ok_and(|value| value.trim() == "0"));
        if ipv6 { &Self::ALL } else { &Self::ALL[..1] }
    }

    /// Whether this machine has it.
    pub fn is_available(self) -> bool {
        Self::available().contains(&self)
    }

    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The name used in cell ids.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// An address with the length of its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// The address.
    pub addr: IpAddr,
    /// Bits of its prefix.
    pub prefix: u8,
}

/// A text that is no address with the length of its prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address with a prefix length (expected: 10.0.0.1/24 or fd00::1/64)")]
pub struct NotACidr(pub String);

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let error = || NotACidr(text.to_owned());
        let (addr, prefix) = text.split_once('/').ok_or_else(error)?;
        let addr: IpAddr = addr.parse().map_err(|_| error())?;
        let prefix = prefix.parse().map_err(|_| error())?;
        let most = if addr.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
        if u32::from(prefix) > most { Err(error()) } else { Ok(Self { addr, prefix }) }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix)
    }
}

/// `IFLA_NETKIT_POLICY` and `IFLA_NETKIT_PEER_POLICY`: the verdict where no program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// `NETKIT_PASS`, the kernel's default.
    Forward,
    /// `NETKIT_DROP`.
    Blackhole,
}

/// `IFLA_NETKIT_SCRUB` and `IFLA_NETKIT_PEER_SCRUB`: whether mark and priority are cleared between namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scrub {
    /// `NETKIT_SCRUB_NONE`.
    None,
    /// `NETKIT_SCRUB_DEFAULT`, the kernel's default.
    Default,
}

/// What `IFLA_INFO_DATA` of a netkit request says beyond mode and peer. Unset fields are not sent.
///
/// A kernel that does not know an attribute accepts it silently: read back what counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetkitOptions {
    /// Policy of the primary.
    pub policy: Option<Policy>,
    /// Policy of the peer (`IFLA_NETKIT_PEER_POLICY`).
    pub peer_policy: Option<Policy>,
    /// Scrubbing at the primary.
    pub scrub: Option<Scrub>,
    /// Scrubbing at the peer.
    pub peer_scrub: Option<Scrub>,
    /// `needed_headroom` of both ends, bytes.
    pub headroom: Option<u16>,
    /// `needed_tailroom` of both ends, bytes.
    pub tailroom: Option<u16>,
    /// `IFLA_NETKIT_PAIRING`: true asks for a device without a peer.
    pub single: Option<bool>,
    /// Further attributes as (type, value), sent last and as they are: for requests that the kernel must refuse.
    pub raw: Vec<(u16, Vec<u8>)>,
}
