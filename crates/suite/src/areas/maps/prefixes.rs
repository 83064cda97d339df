//! LPM tries, held against a list that is searched from one end to the other.

use super::differences;
use lab_bpf::{BPF_F_NO_PREALLOC, BpfError, BpfMap, MapKind};
use lab_harness::{
    case::{Case, CaseResult, Variant},
    ctx::{Ctx, Stop},
};
use nix::errno::Errno;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// In the order in which they run.
pub const CASES: &[Case] = &[LONGEST_PREFIX, LISTED_PREFIXES];

/// Bytes of a key: the length of the prefix, and an address.
const KEY_V4: usize = 4 + 4;
const KEY_V6: usize = 4 + 16;

/// Both sides of nodes that are prefixes, and of nodes that only join two, in an order in which either kind comes first.
const V4: [(&str, u32); 13] = [
    ("10.1.2.0", 24),
    ("10.1.0.0", 16),
    ("0.0.0.0", 0),
    ("10.1.2.3", 32),
    ("10.128.0.0", 9),
    ("10.0.0.0", 8),
    ("10.1.128.0", 17),
    ("10.1.2.2", 32),
    ("192.168.64.0", 18),
    ("192.168.4.0", 24),
    ("172.16.0.0", 12),
    ("192.168.0.0", 16),
    ("172.24.0.0", 13),
];

/// The same for IPv6, with prefixes that end in every quarter of the address.
const V6: [(&str, u32); 13] = [
    ("fd65:1:2::", 48),
    ("fd65:1::", 32),
    ("::", 0),
    ("fd65:1:2::3", 128),
    ("fd65:8000::", 17),
    ("fd65::", 16),
    ("fd65:1:8000::", 33),
    ("fd65:1:2::2", 128),
    ("2001:db8:0:1::", 64),
    ("2001:db8:0:1:8000::", 65),
    ("2001:db8:0:1:0:1::", 96),
    ("2001:db8::", 32),
    ("2001:db8:0:1:0:1:8000:0", 97),
];

/// Every length that an IPv4 prefix can have, one within the other.
const ALL_WITHIN: (&str, u32) = ("10.1.2.3", 32);

/// The leading bits of an address that count. An address is a number whose highest bit is the first; IPv4 has the upper 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    bits: u128,
    length: u32,
    is_v4: bool,
}

const fn mask(length: u32) -> u128 {
    match u128::MAX.checked_shr(length) {
        Some(rest) => !rest,
        None => u128::MAX,
    }
}

impl Prefix {
    fn of((address, length): (&str, u32)) -> Result<Self, Stop> {
        let (bits, is_v4) = match address.parse()? {
            IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, true),
            IpAddr::V6(address) => (address.to_bits(), false),
        };
        Ok(Self { bits, length, is_v4 })
    }

    const fn width(self) -> u32 {
        if self.is_v4 { 32 } else { 128 }
    }

    /// Another prefix of the same address.
    const fn cut_to(self, length: u32) -> Self {
        Self { bits: self.bits & mask(length), length, ..self }
    }

    const fn covers(self, address: Self) -> bool {
        (self.bits ^ address.bits).leading_zeros() >= self.length
    }

    /// The first and the last address in it, and the one on the other side of its last bit.
    fn addresses(self) -> impl Iterator<Item = Self> {
        let last = self.bits | (mask(self.width()) & !mask(self.length));
        let other = self.length.checked_sub(1).map(|bit| self.bits ^ (1 << (127 - bit)));
        let all = [Some(self.bits), Some(last), other].into_iter().flatten();
        all.map(move |bits| Self { bits, length: self.width(), ..self })
    }

    /// As `struct bpf_lpm_trie_key_u8` has it: the length in the order of the machine, the address in that of the network.
    fn key<const K: usize>(self) -> [u8; K] {
        let mut key = [0; K];
        key[..4].copy_from_slice(&self.length.to_ne_bytes());
        key[4..].copy_from_slice(&self.bits.to_be_bytes()[..K - 4]);
        key
    }

    fn from_key<const K: usize>(key: &[u8; K]) -> Self {
        let (mut length, mut bits) = ([0; 4], [0; 16]);
        length.copy_from_slice(&key[..4]);
        bits[..K - 4].copy_from_slice(&key[4..]);
        Self { bits: u128::from_be_bytes(bits), length: u32::from_ne_bytes(length), is_v4: K == KEY_V4 }
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = match self.is_v4 {
            true => IpAddr::V4(Ipv4Addr::from_bits((self.bits >> 96) as u32)),
            false => IpAddr::V6(Ipv6Addr::from_bits(self.bits)),
        };
        write!(f, "{address}/{}", self.length)
    }
}

/// The kernel's trie, and what it must hold.
struct Trie<const K: usize> {
    map: BpfMap<K, 4>,
    held: BTreeMap<Prefix, u32>,
}

impl<const K: usize> Trie<K> {
    fn new(room: usize) -> Result<Self, BpfError> {
        let map = BpfMap::create(MapKind::LpmTrie, room as u32, BPF_F_NO_PREALLOC)?;
        Ok(Self { map, held: BTreeMap::new() })
    }

    /// It is wanted from now on, whatever the kernel says.
    fn insert(&mut self, prefix: Prefix, value: u32) -> Result<(), BpfError> {
        self.held.insert(prefix, value);
        self.map.insert(&prefix.key(), &value.to_ne_bytes())
    }

    /// Each with its position as value.
    fn insert_all(&mut self, prefixes: &[Prefix]) -> Result<(), BpfError> {
        (1..).zip(prefixes).try_for_each(|(value, prefix)| self.insert(*prefix, value))
    }

    /// It is no longer wanted, whatever the kernel says.
    fn remove(&mut self, prefix: Prefix) -> Result<(), BpfError> {
        self.held.remove(&prefix);
        self.map.remove(&prefix.key())
    }

    fn lookup(&self, address: Prefix) -> Result<Option<u32>, BpfError> {
        match self.map.lookup(&address.key()) {
            Ok(value) => Ok(Some(u32::from_ne_bytes(value))),
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of the longest prefix that covers the whole of another one.
    fn wanted(&self, address: Prefix) -> Option<u32> {
        let covering = self.held.iter().filter(|(held, _)| held.length <= address.length && held.covers(address));
        covering.max_by_key(|(held, _)| held.length).map(|(_, value)| *value)
    }
}

/// What is wrong with a trie, and the prefixes that it was made of.
type Ask<const K: usize> = fn(&Trie<K>, &[Prefix]) -> Result<Vec<String>, BpfError>;

/// Asks of a trie in every state: full, with each of its prefixes removed and inserted again, and while it gets empty from either end.
fn in_every_state<const K: usize>(ctx: &mut Ctx, of: &str, prefixes: &[Prefix], ask: Ask<K>) -> CaseResult {
    let full = || {
        let mut trie: Trie<K> = Trie::new(prefixes.len())?;
        trie.insert_all(prefixes)?;
        Ok::<_, BpfError>(trie)
    };
    let mut trie = full()?;
    said(ctx, format!("{of}: with all"), &ask(&trie, prefixes)?);
    let mut wrong = Vec::new();
    for (value, prefix) in (1..).zip(prefixes) {
        let removed = trie.remove(*prefix);
        note(&mut wrong, format!("without {prefix:?}"), removed, ask(&trie, prefixes)?);
        let inserted = trie.insert(*prefix, value);
        note(&mut wrong, format!("with {prefix:?} again"), inserted, ask(&trie, prefixes)?);
    }
    said(ctx, format!("{of}: each removed and inserted again"), &wrong);
    let backwards: Vec<Prefix> = prefixes.iter().rev().copied().collect();
    for (order, name) in [(prefixes, "in their order"), (&backwards, "backwards")] {
        let (mut trie, mut wrong) = (full()?, Vec::new());
        for prefix in order {
            let removed = trie.remove(*prefix);
            note(&mut wrong, format!("up to the removal of {prefix:?}"), removed, ask(&trie, prefixes)?);
        }
        said(ctx, format!("{of}: all removed {name}"), &wrong);
    }
    Ok(())
}

/// Notes what is wrong in a state, and the refusal of what led to it.
fn note(wrong: &mut Vec<String>, state: String, change: Result<(), BpfError>, said: Vec<String>) {
    let refusal = change.err().map(|error| error.to_string());
    wrong.extend(refusal.into_iter().chain(said).map(|it| format!("{state}: {it}")));
}

/// Records one check of what may be many differences.
fn said(ctx: &mut Ctx, name: String, wrong: &[String]) {
    const SHOWN: usize = 3;
    let seen = match wrong {
        [] => "as wanted".to_owned(),
        _ => format!("{} differences: {}", wrong.len(), wrong[..wrong.len().min(SHOWN)].join("; ")),
    };
    ctx.check(name, wrong.is_empty(), seen);
}

fn parsed(set: &[(&str, u32)]) -> Result<Vec<Prefix>, Stop> {
    set.iter().map(|it| Prefix::of(*it)).collect()
}

const LONGEST_PREFIX: Case = Case::new(
    "B01",
    "longest-prefix",
    "An LPM trie finds the longest prefix that covers an address, whichever others were inserted, replaced or removed.",
    longest_prefix,
);
fn longest_prefix(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    let (v4, v6) = (parsed(&V4)?, parsed(&V6)?);
    in_every_state::<KEY_V4>(ctx, "IPv4", &v4, lookups)?;
    in_every_state::<KEY_V6>(ctx, "IPv6", &v6, lookups)?;
    replaced_and_refused(ctx, &v4)
}

fn lookups<const K: usize>(trie: &Trie<K>, prefixes: &[Prefix]) -> Result<Vec<String>, BpfError> {
    // Also prefixes themselves: a lookup with less than a whole address finds what covers all of it.
    let addresses = prefixes.iter().flat_map(|prefix| prefix.addresses().chain([*prefix]));
    let mut wrong = Vec::new();
    for address in addresses.collect::<BTreeSet<_>>() {
        let (seen, wanted) = (trie.lookup(address)?, trie.wanted(address));
        if seen != wanted {
            wrong.push(format!("{address:?} finds {seen:?}, expected {wanted:?}"));
        }
    }
    Ok(wrong)
}

/// Values that are replaced take no room, and what is not there can't be removed.
fn replaced_and_refused(ctx: &mut Ctx, prefixes: &[Prefix]) -> CaseResult {
    let mut trie: Trie<KEY_V4> = Trie::new(prefixes.len() + 1)?;
    trie.insert_all(prefixes)?;
    for (value, prefix) in (100..).zip(prefixes) {
        trie.insert(*prefix, value)?;
    }
    said(ctx, "values that were replaced".to_owned(), &lookups(&trie, prefixes)?);
    let [one_more, too_many] = [Prefix::of(("203.0.113.0", 24))?, Prefix::of(("198.51.100.0", 24))?];
    let inserted = trie.insert(one_more, 1);
    ctx.check("one more has room", inserted.is_ok(), format!("{inserted:?}"));
    ctx.refused("one too many", trie.map.insert(&too_many.key(), &[1; 4]), Errno::ENOSPC);
    let removed = trie.remove(one_more);
    ctx.check("one goes", removed.is_ok(), format!("{removed:?}"));
    ctx.refused("it goes once", trie.remove(one_more), Errno::ENOENT);
    // 10.1.2.2/31 joins two addresses, 10.0.0.0/7 would cover a prefix, 10.1.2.0/25 would be within one.
    for absent in [("10.1.2.2", 31), ("10.0.0.0", 7), ("10.1.2.0", 25)] {
        let absent = Prefix::of(absent)?;
        ctx.refused(format!("removing {absent:?}"), trie.remove(absent), Errno::ENOENT);
    }
    let too_long = Prefix { length: 33, ..prefixes[0] };
    ctx.refused("a prefix longer than an address", trie.map.insert(&too_long.key(), &[1; 4]), Errno::EINVAL);
    ctx.equal("a lookup longer than an address", trie.lookup(too_long)?, None);
    said(ctx, "after what was refused".to_owned(), &lookups(&trie, prefixes)?);
    Ok(())
}

const LISTED_PREFIXES: Case = Case::new(
    "B02",
    "listed-prefixes",
    "An LPM trie lists each of its prefixes once, those with longer ones within too, whichever others were inserted or removed.",
    listed_prefixes,
);
fn listed_prefixes(ctx: &mut Ctx, _variant: &Variant) -> CaseResult {
    in_every_state::<KEY_V4>(ctx, "IPv4", &parsed(&V4)?, listing)?;
    in_every_state::<KEY_V6>(ctx, "IPv6", &parsed(&V6)?, listing)?;
    let innermost = Prefix::of(ALL_WITHIN)?;
    let within: Vec<Prefix> = (0..=innermost.width()).map(|length| innermost.cut_to(length)).collect();
    in_every_state::<KEY_V4>(ctx, "IPv4, one within the other", &within, listing)
}

fn listing<const K: usize>(trie: &Trie<K>, _prefixes: &[Prefix]) -> Result<Vec<String>, BpfError> {
    let listed: Vec<Prefix> = trie.map.keys()?.iter().map(Prefix::from_key).collect();
    let held: Vec<Prefix> = trie.held.keys().copied().collect();
    Ok(differences(&listed, &held))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(address: &str, length: u32) -> Prefix {
        Prefix::of((address, length)).unwrap()
    }

    #[test]
    fn prefixes_are_what_they_say() {
        for it in V4.iter().chain(&V6).chain([&ALL_WITHIN]) {
            let parsed = Prefix::of(*it).unwrap();
            assert_eq!(parsed.cut_to(parsed.length), parsed, "bits beyond the length of {parsed:?}");
        }
        assert!(prefix("0.0.0.0", 0).covers(prefix("255.1.2.3", 32)));
        assert!(prefix("10.128.0.0", 9).covers(prefix("10.255.0.1", 32)));
        assert!(!prefix("10.128.0.0", 9).covers(prefix("10.127.255.255", 32)));
        let addresses: Vec<Prefix> = prefix("10.1.0.0", 16).addresses().collect();
        assert_eq!(addresses, [("10.1.0.0", 32), ("10.1.255.255", 32), ("10.0.0.0", 32)].map(|(a, l)| prefix(a, l)));
    }

    #[test]
    fn keys_are_read_back() {
        assert_eq!(prefix("10.1.2.0", 24).key::<KEY_V4>()[4..], [10, 1, 2, 0]);
        assert_eq!(Prefix::from_key(&prefix("10.1.2.0", 24).key::<KEY_V4>()), prefix("10.1.2.0", 24));
        assert_eq!(Prefix::from_key(&prefix("fd65:1::", 32).key::<KEY_V6>()), prefix("fd65:1::", 32));
    }
}
