//! Builds a topology in network namespaces, and deletes it.

use crate::{
    TopologyError, address, ahead, link,
    link::PairRequest,
    model::{DeviceSpec, End, Family, Node, Topology},
    nat, neighbour,
    netns::Netns,
    quiet,
    readback::DeviceInfo,
    tap::Tap,
};
use lab_netlink::NetlinkError;
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

/// Maximum time until links and addresses are usable. Only a broken kernel needs that long.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// First index for devices, above the indexes that the kernel gives to `lo` and to dummy devices.
const FIRST_IFINDEX: u32 = 100;
const POLL: Duration = Duration::from_millis(2);

const ROUTER: [(&str, &str); 2] = [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1")];

/// A built topology. Dropping it releases its namespaces, and the kernel deletes them asynchronously with everything in
/// them, several at once (`cleanup_net`): deleting each device would wait for grace periods each time.
#[derive(Debug)]
pub struct Net {
    topology: Topology,
    nodes: BTreeMap<String, Netns>,
    ifindexes: BTreeMap<(String, String), u32>,
    taps: BTreeMap<(String, String), Tap>,
}

impl Net {
    /// Builds in fresh namespaces, and returns once every link is operationally up and every address usable. Takes one that
    /// was built [ahead](crate::ahead) where there is one.
    ///
    /// # Errors
    /// The first step that failed. Everything that was built before is deleted.
    ///
    /// # Panics
    /// If the topology names a node or device that it does not have.
    pub fn build(topology: &Topology) -> Result<Self, TopologyError> {
        ahead::take(topology).map_or_else(|| Self::build_new(topology), Ok)
    }

    /// [`Net::build`] where none was built before.
    pub(crate) fn build_new(topology: &Topology) -> Result<Self, TopologyError> {
        let mut net = Self {
            topology: topology.clone(),
            nodes: BTreeMap::new(),
            ifindexes: BTreeMap::new(),
            taps: BTreeMap::new(),
        };
        for node in &topology.nodes {
            net.nodes.insert(node.name.clone(), namespace(node, topology)?);
        }
        net.create_devices()?;
        net.configure()?;
        net.wait()?;
        Ok(net)
    }

    /// The topology that was built, with the MAC addresses that the builder chose.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// A node's namespace.
    ///
    /// # Panics
    /// If the topology has no such node.
    pub fn ns(&self, node: &str) -> &Netns {
        self.nodes.get(node).unwrap_or_else(|| panic!("topology `{}` has no node `{node}`", self.topology.name))
    }

    /// Inodes of its namespaces.
    pub(crate) fn inodes(&self) -> impl Iterator<Item = u64> + '_ {
        self.nodes.values().map(Netns::inode)
    }

    /// A device's index in its node, as it was when the topology was built.
    ///
    /// # Panics
    /// If the topology has no such device.
    pub fn ifindex(&self, node: &str, dev: &str) -> u32 {
        let key = (node.to_owned(), dev.to_owned());
        *self
            .ifindexes
            .get(&key)
            .unwrap_or_else(|| panic!("topology `{}` has no device `{dev}` in `{node}`", self.topology.name))
    }

    /// The user space end of a tap.
    ///
    /// # Panics
    /// If the topology has no such tap.
    pub fn tap(&self, node: &str, dev: &str) -> &Tap {
        let key = (node.to_owned(), dev.to_owned());
        self.taps
            .get(&key)
            .unwrap_or_else(|| panic!("topology `{}` has no tap `{dev}` in `{node}`", self.topology.name))
    }

    /// A node's address in a family.
    ///
    /// # Panics
    /// If the node has none.
    pub fn addr(&self, node: &str, family: Family) -> IpAddr {
        self.topology
            .first_addr(node, family)
            .unwrap_or_else(|| panic!("topology `{}` has no {family} address on `{node}`", self.topology.name))
    }

    /// A node's IPv4 address.
    ///
    /// # Panics
    /// If the node has none.
    pub fn addr4(&self, node: &str) -> Ipv4Addr {
        match self.addr(node, Family::V4) {
            IpAddr::V4(addr) => addr,
            IpAddr::V6(_) => unreachable!("the family is IPv4"),
        }
    }

    /// A device as the kernel reports it now.
    ///
    /// # Errors
    /// [`TopologyError::Netlink`], with `ENODEV` if it is gone.
    pub fn readback(&self, node: &str, dev: &str) -> Result<DeviceInfo, TopologyError> {
        let ns = self.ns(node);
        link::info(ns, dev).map_err(|error| ns.error(error))
    }

    fn create_devices(&mut self) -> Result<(), TopologyError> {
        for (link, number) in self.topology.links.iter_mut().zip(0u8..) {
            // Different on both sides, also because the kernel defers the link-up event of a device whose index equals
            // its peer's for a second (linkwatch_urgent_event).
            let first = FIRST_IFINDEX + 2 * u32::from(number);
            link.primary.ifindex.get_or_insert(first);
            link.peer.ifindex.get_or_insert(first + 1);
            if link.kind.has_macs() {
                link.primary.mac.get_or_insert([0x02, 0x4e, 0x4b, 0, number, 1]);
                link.peer.mac.get_or_insert([0x02, 0x4e, 0x4b, 0, number, 2]);
            }
        }
        for wanted in &self.topology.links {
            let ns = self.ns(&wanted.primary.node);
            let request = PairRequest::of(wanted, self.ns(&wanted.peer.node));
            link::create_pair(ns, &request).map_err(|error| ns.error(error))?;
        }
        for device in &self.topology.devices {
            let ns = self.ns(&device.node);
            link::create_device(ns, &device.name, &device.spec).map_err(|error| ns.error(error))?;
            if let DeviceSpec::Tap { .. } = device.spec {
                let tap = Tap::open(ns, &device.name)?;
                self.taps.insert((device.node.clone(), device.name.clone()), tap);
            }
        }
        // Before addresses are added: a VRF removes its ports' IPv6 addresses.
        for port in &self.topology.ports {
            self.ask(&port.node, |ns| link::set_controller(ns, &port.dev, Some(&port.controller)))?;
        }
        for end in self.topology.links.iter().flat_map(|link| [&link.primary, &link.peer]) {
            // The requested index: the kernel uses it or fails.
            self.ifindexes.extend(end.ifindex.map(|ifindex| ((end.node.clone(), end.name.clone()), ifindex)));
        }
        for (node, ns) in &self.nodes {
            if self.topology.devices.iter().all(|device| device.node != *node) {
                continue;
            }
            for info in link::list(ns).map_err(|error| ns.error(error))? {
                self.ifindexes.insert((node.clone(), info.name), info.ifindex);
            }
        }
        Ok(())
    }

    fn ends(&self) -> impl Iterator<Item = &End> {
        self.topology.links.iter().flat_map(|link| [&link.primary, &link.peer])
    }

    fn configure(&self) -> Result<(), TopologyError> {
        for device in &self.topology.devices {
            self.ask(&device.node, |ns| link::set_up(ns, &device.name))?;
        }
        // After the bridges: one that waits for its first port has its carrier dealt with at once, one that comes up
        // over ports with a carrier up to a second later (qdisc_tx_changing in linkwatch_urgent_event).
        for end in self.ends() {
            self.ask(&end.node, |ns| link::set_up(ns, &end.name))?;
        }
        let have = |addr: IpAddr| Family::of(addr).is_available();
        for wanted in self.topology.addresses.iter().filter(|wanted| have(wanted.cidr.addr)) {
            let ifindex = self.ifindex(&wanted.node, &wanted.dev);
            self.ask(&wanted.node, |ns| address::add(&mut ns.netlink(), ifindex, wanted.cidr))?;
        }
        for route in self.topology.routes.iter().filter(|route| have(route.to.addr) && route.hop.via.is_none_or(have)) {
            let ifindex = self.ifindex(&route.node, &route.hop.dev);
            self.ask(&route.node, |ns| address::add_route(&mut ns.netlink(), route, ifindex))?;
        }
        for rule in self.topology.rules.iter().filter(|rule| rule.family.is_available()) {
            self.ask(&rule.node, |ns| address::add_rule(&mut ns.netlink(), rule))?;
        }
        for (node, ns) in &self.nodes {
            nat::translate(ns, self.topology.nat.iter().filter(|nat| nat.node() == node))
                .map_err(|error| ns.error(error))?;
        }
        for device in &self.topology.devices {
            let DeviceSpec::Tap { far } = &device.spec else { continue };
            let ifindex = self.ifindex(&device.node, &device.name);
            for addr in far.iter().filter(|addr| Family::of(**addr).is_available()) {
                self.ask(&device.node, |ns| neighbour::add(&mut ns.netlink(), ifindex, *addr, Tap::FAR_MAC))?;
            }
        }
        if self.topology.static_neighbours {
            for link in &self.topology.links {
                self.introduce(&link.primary, &link.peer)?;
                self.introduce(&link.peer, &link.primary)?;
            }
        }
        Ok(())
    }

    /// Adds the addresses of `of` to `to` as permanent neighbours.
    fn introduce(&self, of: &End, to: &End) -> Result<(), TopologyError> {
        let Some(mac) = of.mac else { return Ok(()) };
        let ifindex = self.ifindex(&to.node, &to.name);
        let theirs = self.topology.addresses.iter().filter(|address| address.node == of.node && address.dev == of.name);
        for address in theirs.filter(|address| Family::of(address.cidr.addr).is_available()) {
            self.ask(&to.node, |ns| neighbour::add(&mut ns.netlink(), ifindex, address.cidr.addr, mac))?;
        }
        Ok(())
    }

    fn ask(&self, node: &str, request: impl FnOnce(&Netns) -> Result<(), NetlinkError>) -> Result<(), TopologyError> {
        let ns = self.ns(node);
        request(ns).map_err(|error| ns.error(error))
    }

    /// Waits until everything in every node is usable.
    fn wait(&self) -> Result<(), TopologyError> {
        let started = Instant::now();
        for (node, ns) in &self.nodes {
            while let Some(missing) = self.missing(node, ns).map_err(|error| ns.error(error))? {
                if started.elapsed() > READY_WITHIN {
                    return Err(TopologyError::NotReady { node: node.clone(), missing, waited: started.elapsed() });
                }
                thread::sleep(POLL);
            }
        }
        Ok(())
    }

    /// Describes an end of a pair that does not carry packets yet. Its carrier comes with its other end, and until the
    /// kernel has dealt with that (linkwatch_do_dev) sent packets are silently lost.
    fn ends_down(&self, node: &str, ns: &Netns) -> Result<Option<String>, NetlinkError> {
        let links = link::list(ns)?;
        let carries = |end: &&End| links.iter().any(|link| link.name == end.name && link.up && link.carries);
        let down = self.ends().filter(|end| end.node == node).find(|end| !carries(end));
        Ok(down.map(|end| format!("{} does not carry packets", end.name)))
    }

    /// Describes what is not usable yet.
    fn missing(&self, node: &str, ns: &Netns) -> Result<Option<String>, NetlinkError> {
        if let Some(down) = self.ends_down(node, ns)? {
            return Ok(Some(down));
        }
        // Other devices have no carrier state, or have a carrier from the start.
        let mut devices = self.topology.devices.iter().filter(|device| device.node == node).peekable();
        if devices.peek().is_some() {
            let links = link::list(ns)?;
            let runs = |name: &str| links.iter().any(|link| link.name == name && link.up && link.running);
            if let Some(device) = devices.find(|device| !runs(&device.name)) {
                return Ok(Some(format!("{} is not operationally up", device.name)));
            }
        }
        if !Family::V6.is_available() {
            return Ok(None);
        }
        let received_at = address::received_at(&mut ns.netlink())?;
        for wanted in self.topology.addresses.iter().filter(|address| address.node == node) {
            let IpAddr::V6(addr) = wanted.cidr.addr else { continue };
            if !received_at.contains(&(self.ifindex(node, &wanted.dev), addr)) {
                return Ok(Some(format!("{} on {} is not usable", wanted.cidr, wanted.dev)));
            }
        }
        Ok(None)
    }
}

fn namespace(node: &Node, topology: &Topology) -> Result<Netns, TopologyError> {
    let ns = Netns::new(&node.name)?;
    // This comes first because it waits for the RTNL lock; writing some of the settings would instead be retried
    // repeatedly while the clean-up of an earlier namespace holds the lock (restart_syscall).
    link::set_up(&ns, "lo").map_err(|error| ns.error(error))?;
    let own = topology.sysctls.iter().filter(|sysctl| sysctl.node == node.name);
    let settings: Vec<(&str, &str)> = quiet::settings()
        .iter()
        .copied()
        .chain(ROUTER.into_iter().filter(|_| node.router))
        .chain(own.map(|sysctl| (sysctl.key.as_str(), sysctl.value.as_str())))
        .filter(|(key, _)| Family::V6.is_available() || !key.starts_with("net/ipv6/"))
        .collect();
    if settings.is_empty() {
        return Ok(ns);
    }
    ns.run(|| {
        for (key, value) in settings {
            fs::write(quiet::path(key), value).map_err(|error| TopologyError::Sysctl {
                node: node.name.clone(),
                key: key.to_owned(),
                value: value.to_owned(),
                error,
            })?;
        }
        Ok(())
    })?;
    Ok(ns)
}
