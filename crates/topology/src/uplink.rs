//! The machine's own network device, which leads out of it.

use crate::{
    Netns, TopologyError, address, link,
    model::{Cidr, Family, Hop, Route},
};
use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

/// Maximum time until the device carries packets.
const READY_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Moves the device from one namespace to another, or leaves it where both are the same, and gives it a name, addresses and
/// default routes. Returns once it carries packets.
///
/// # Errors
/// The kernel's refusal, or [`TopologyError::NotReady`].
pub fn connect(
    (home, dev): (&Netns, &str),
    (to, name): (&Netns, &str),
    addresses: &[(IpAddr, u8)],
    gateways: &[IpAddr],
) -> Result<(), TopologyError> {
    if home.inode() != to.inode() {
        link::move_to(home, dev, to).map_err(|error| home.error(error))?;
    }
    let failed = |error| to.error(error);
    if dev != name {
        link::rename(to, dev, name).map_err(failed)?;
    }
    link::set_up(to, name).map_err(failed)?;
    let ifindex = link::info(to, name).map_err(failed)?.ifindex;
    let have = |addr: IpAddr| Family::of(addr).is_available();
    for (addr, prefix) in addresses.iter().filter(|(addr, _)| have(*addr)) {
        let cidr = Cidr { addr: *addr, prefix: *prefix };
        address::add(&mut to.netlink(), ifindex, cidr).map_err(failed)?;
    }
    for via in gateways.iter().copied().filter(|via| have(*via)) {
        let any = if via.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let route = Route {
            node: to.name().to_owned(),
            table: None,
            to: Cidr { addr: any, prefix: 0 },
            hop: Hop { via: Some(via), dev: name.to_owned() },
        };
        address::add_route(&mut to.netlink(), &route, ifindex).map_err(failed)?;
    }
    let begin = Instant::now();
    loop {
        let device = link::info(to, name).map_err(failed)?;
        if device.carries && device.running {
            return Ok(());
        }
        if begin.elapsed() > READY_WITHIN {
            let missing = format!("{name} does not carry packets");
            return Err(TopologyError::NotReady { node: to.name().to_owned(), missing, waited: begin.elapsed() });
        }
        thread::sleep(POLL);
    }
}
