//! Services of the host's loopback device, at the same ports of the guest's: without a network device, by way of a port.

use super::{MountError, share::at_home};
use crate::port;
use lab_protocol::world::SERVICES_PORT;
use lab_relay::{LoopbackFamily, Mux, PIECE, RelaySink, ServiceCall};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How often a listener looks whether its world still exists.
const POLL: Duration = Duration::from_millis(100);

/// The way to the host, opened once.
fn way() -> Result<Arc<Mux>, MountError> {
    static WAY: Mutex<Option<Arc<Mux>>> = Mutex::new(None);
    let mut way = WAY.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(mux) = &*way {
        return Ok(Arc::clone(mux));
    }
    let failed = || MountError::io(Path::new(SERVICES_PORT));
    let port = port::open(SERVICES_PORT).map_err(failed())?;
    let mux = Mux::new(port.try_clone().map_err(failed())?);
    let follow = Arc::clone(&mux);
    // The host opens no connection.
    let refuse = |_: ServiceCall, _| Err(io::ErrorKind::Unsupported.into());
    thread::spawn(move || at_home("services of the host", || follow.follow(port, refuse)));
    Ok(Arc::clone(way.insert(mux)))
}

/// Listeners of one world. They end with it.
#[derive(Debug, Default)]
pub struct Services {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Services {
    /// Listens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// A port is in use, or the machine has no port for services.
    pub fn listen(ports: &[u16]) -> Result<Self, MountError> {
        let mut services = Self::default();
        if ports.is_empty() {
            return Ok(services);
        }
        let mux = way()?;
        for (service, port) in (0..).zip(ports) {
            for (family, address) in [
                (LoopbackFamily::V4, IpAddr::V4(Ipv4Addr::LOCALHOST)),
                (LoopbackFamily::V6, IpAddr::V6(Ipv6Addr::LOCALHOST)),
            ] {
                let address = SocketAddr::new(address, *port);
                let failed = |error: io::Error| MountError::Service { address, error };
                let opened = ServiceCall { service, family, datagrams: false };
                let bound = TcpListener::bind(address).and_then(|listener| {
                    listener.set_nonblocking(true)?;
                    let socket = UdpSocket::bind(address)?;
                    socket.set_read_timeout(Some(POLL))?;
                    Ok((listener, socket))
                });
                let (listener, socket) = match bound {
                    Ok(bound) => bound,
                    // A kernel or a namespace without IPv6.
                    Err(error)
                        if family == LoopbackFamily::V6
                            && matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(failed(error)),
                };
                let (over, way) = (Arc::clone(&services.over), Arc::clone(&mux));
                services.start(move || accept(&listener, opened, &way, &over));
                let (over, way) = (Arc::clone(&services.over), Arc::clone(&mux));
                let opened = ServiceCall { datagrams: true, ..opened };
                services.start(move || receive(socket, opened, &way, &over));
            }
        }
        Ok(services)
    }

    fn start(&mut self, serve: impl FnOnce() -> io::Result<()> + Send + 'static) {
        self.threads.push(thread::spawn(move || at_home("a service of the host", serve)));
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // Their sockets hold the namespace.
        self.over.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, opened: ServiceCall, mux: &Arc<Mux>, over: &AtomicBool) -> io::Result<()> {
    while !over.load(Ordering::SeqCst) {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                // One connection too many is closed, and the others go on.
                let _ = mux.open(opened, RelaySink::Stream(stream));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(POLL / 20),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Every sender of datagrams has a channel of its own, on which answers come back.
fn receive(socket: UdpSocket, opened: ServiceCall, mux: &Arc<Mux>, over: &AtomicBool) -> io::Result<()> {
    let socket = Arc::new(socket);
    let mut channels: HashMap<SocketAddr, u32> = HashMap::new();
    let mut buffer = vec![0; PIECE];
    while !over.load(Ordering::SeqCst) {
        let (count, peer) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            // ECONNREFUSED: an answer met a closed socket.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused
                ) =>
            {
                continue;
            }
            Err(error) => return Err(error),
        };
        let known = channels.get(&peer).copied().filter(|channel| mux.datagram(*channel, &buffer[..count]).is_ok());
        if known.is_none() {
            let back = Arc::clone(&socket);
            let deliver = move |bytes: &[u8]| back.send_to(bytes, peer).map(drop);
            // Too many senders: the datagram is lost.
            if let Ok(channel) = mux.open(opened, RelaySink::Datagrams(Box::new(deliver))) {
                channels.insert(peer, channel);
                let _ = mux.datagram(channel, &buffer[..count]);
            }
        }
    }
    channels.into_values().for_each(|channel| mux.reset(channel));
    Ok(())
}
