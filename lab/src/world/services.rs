//! Services of the host's loopback device, for a guest without a network.
//!
//! The guest names a service by its number in a list, so that it can ask for no other. The threads may connect to the listed
//! TCP ports and open no file (Landlock).

use lab_relay::{LoopbackFamily, Mux, RelaySink, ServiceCall};
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

/// How long a service may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// Silence after which the way back of datagrams is given up.
const IDLE: Duration = Duration::from_secs(60);
/// Landlock rights of Linux 6.12; older kernels apply those that they support.
const RIGHTS: ABI = ABI::V6;

/// Serves one guest, until its machine ends.
///
/// # Errors
/// No thread can be started.
pub fn serve(ports: Vec<u16>, stream: UnixStream) -> io::Result<()> {
    let writer = stream.try_clone()?;
    let serve = move || {
        // Threads that this one starts are restricted as it is.
        if confine(&ports).is_err() {
            return;
        }
        let mux = Mux::new(writer);
        let back = Arc::downgrade(&mux);
        // A stream that breaks ends with its guest; connections see a reset.
        let _ = mux.follow(&stream, move |opened, channel| connect(&ports, opened, channel, &back));
    };
    thread::Builder::new().name("services".to_owned()).spawn(serve).map(drop)
}

fn confine(ports: &[u16]) -> Result<(), RulesetError> {
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?;
    let ports = ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp)));
    rules.add_rules(ports)?.restrict_self().map(drop)
}

fn connect(ports: &[u16], opened: ServiceCall, channel: u32, back: &Weak<Mux>) -> io::Result<RelaySink> {
    let port = *ports.get(usize::from(opened.service)).ok_or(io::ErrorKind::ConnectionRefused)?;
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    // A program in the guest has no refusal by which it would try the other family.
    let order = if opened.family == LoopbackFamily::V4 { [v4, v6] } else { [v6, v4] };
    let addresses = order.map(|address| SocketAddr::new(address, port));
    if !opened.datagrams {
        let first = TcpStream::connect_timeout(&addresses[0], PATIENCE);
        return first.or_else(|_| TcpStream::connect_timeout(&addresses[1], PATIENCE)).map(RelaySink::Stream);
    }
    let socket = UdpSocket::bind((order[0], 0))?;
    socket.connect(addresses[0])?;
    socket.set_read_timeout(Some(IDLE))?;
    let (answers, back) = (socket.try_clone()?, Weak::clone(back));
    thread::spawn(move || {
        let mut buffer = vec![0; lab_relay::PIECE];
        while let Ok(count) = answers.recv(&mut buffer) {
            let Some(mux) = back.upgrade() else { return };
            if mux.datagram(channel, &buffer[..count]).is_err() {
                return;
            }
        }
        if let Some(mux) = back.upgrade() {
            mux.reset(channel);
        }
    });
    Ok(RelaySink::Datagrams(Box::new(move |bytes| socket.send(bytes).map(drop))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    #[test]
    fn only_listed_services_are_reached_whatever_the_guest_asks_for() {
        let listed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listed.local_addr().unwrap().port();
        thread::spawn(move || listed.incoming().flatten().for_each(|mut stream| stream.write_all(b"listed").unwrap()));
        let (guest, host) = UnixStream::pair().unwrap();
        serve(vec![port], host).unwrap();
        let mux = Mux::new(guest.try_clone().unwrap());
        let follow = Arc::clone(&mux);
        thread::spawn(move || follow.follow(guest, |_, _| Err(io::ErrorKind::Unsupported.into())));
        let ask = |service, family| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut program = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let opened = ServiceCall { service, family, datagrams: false };
            mux.open(opened, RelaySink::Stream(listener.accept().unwrap().0)).unwrap();
            program.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut said = String::new();
            program.read_to_string(&mut said).map(|_| said)
        };
        for family in [LoopbackFamily::V4, LoopbackFamily::V6] {
            assert_eq!(ask(0, family).unwrap(), "listed");
            for service in [1, 7, u16::MAX] {
                // Refused by a reset, or by the end of a connection without a byte.
                assert_eq!(ask(service, family).unwrap_or_default(), "");
            }
        }
        drop(other);
    }
}
