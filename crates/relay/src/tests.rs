use super::*;
use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::net::UnixStream,
    sync::mpsc::channel,
    thread,
    time::Duration,
};

const OPENED: ServiceCall = ServiceCall { service: 3, family: LoopbackFamily::V4, datagrams: false };

/// A guest's end, and a host's end that connects to `target`.
fn ends(target: Option<std::net::SocketAddr>) -> Arc<Mux> {
    let (guest, host) = UnixStream::pair().unwrap();
    let near = Mux::new(guest.try_clone().unwrap());
    let far = Mux::new(host.try_clone().unwrap());
    let follow = Arc::clone(&near);
    thread::spawn(move || follow.follow(guest, |_, _| Err(io::ErrorKind::Unsupported.into())));
    thread::spawn(move || {
        far.follow(host, move |opened, _| {
            assert_eq!(opened, OPENED);
            let target = target.ok_or(io::ErrorKind::ConnectionRefused)?;
            TcpStream::connect(target).map(RelaySink::Stream)
        })
    });
    near
}

/// A connection as a program in the guest has it.
fn connection(mux: &Arc<Mux>) -> TcpStream {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let program = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    mux.open(OPENED, RelaySink::Stream(listener.accept().unwrap().0)).unwrap();
    program.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    program
}

#[test]
fn megabytes_go_both_ways_and_each_end_comes_after_its_data() {
    let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mux = ends(Some(service.local_addr().unwrap()));
    thread::spawn(move || {
        for stream in service.incoming().flatten() {
            // Reads all of it before it answers: what is on its way is more than any window.
            thread::spawn(move || {
                let (mut stream, mut all) = (stream, Vec::new());
                stream.read_to_end(&mut all).unwrap();
                all.reverse();
                stream.write_all(&all).unwrap();
            });
        }
    });
    let sent: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut program = connection(&mux);
                program.write_all(&sent).unwrap();
                program.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                program.read_to_end(&mut back).unwrap();
                back.reverse();
                assert!(back == sent);
            });
        }
    });
    // Both ends forget connections that are over.
    for _ in 0..500 {
        if lock(&mux.lines).open.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("connections stay open");
}

#[test]
fn a_service_that_is_not_there_is_a_reset() {
    let mux = ends(None);
    // Often the refusal comes before the line has its socket.
    for _ in 0..300 {
        let mut program = connection(&mux);
        let read = program.read(&mut [0; 1]);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn who_sends_more_than_its_window_loses_the_connection() {
    let (peer, own) = UnixStream::pair().unwrap();
    let mux = Mux::new(own.try_clone().unwrap());
    let (connecting, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    thread::spawn(move || {
        mux.follow(own, move |_, _| {
            // A service that never answers: nothing is taken.
            let _ = lock(&wait).recv();
            Err(io::ErrorKind::TimedOut.into())
        })
    });
    let mut port = &peer;
    port.write_all(&Frame::encode(1, Kind::Open, &OPENED.encode())).unwrap();
    for _ in 0..=WINDOW / PIECE {
        port.write_all(&Frame::encode(1, Kind::Data, &[0; PIECE])).unwrap();
    }
    let answer = Frame::read(&mut port, PIECE).unwrap().unwrap();
    assert_eq!((answer.channel, answer.kind), (1, Kind::Reset));
    // More connections than there may be.
    for channel in 0..=MOST as u32 {
        port.write_all(&Frame::encode(channel + 10, Kind::Open, &OPENED.encode())).unwrap();
    }
    let answer = Frame::read(&mut port, PIECE).unwrap().unwrap();
    assert_eq!((answer.channel, answer.kind), (10 + MOST as u32, Kind::Reset));
    drop(connecting);
}

/// A piece costs more of the window than its bytes: all of that is given back when the socket has taken it.
#[test]
fn a_talk_in_single_bytes_goes_on_beyond_the_window() {
    let service = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mux = ends(Some(service.local_addr().unwrap()));
    thread::spawn(move || {
        let (stream, _) = service.accept().unwrap();
        io::copy(&mut &stream, &mut &stream)
    });
    let mut program = connection(&mux);
    for number in 0..2 * WINDOW / cost(1) {
        let (sent, mut back) = ([number as u8], [0]);
        program.write_all(&sent).unwrap();
        program.read_exact(&mut back).unwrap_or_else(|error| panic!("byte {number}: {error}"));
        assert_eq!(back, sent, "byte {number}");
    }
}

#[test]
fn connections_that_are_reset_while_they_connect_have_a_limit() {
    let (peer, own) = UnixStream::pair().unwrap();
    let mux = Mux::new(own.try_clone().unwrap());
    let ((connecting, wait), (done, ends)) = (channel::<()>(), channel());
    let wait = Mutex::new(wait);
    let follow = Arc::clone(&mux);
    thread::spawn(move || {
        let followed = follow.follow(own, move |_, _| {
            let _ = lock(&wait).recv();
            Err(io::ErrorKind::TimedOut.into())
        });
        done.send(followed.is_ok()).unwrap();
    });
    let mut port = &peer;
    for _ in 0..=threads::MOST_THREADS {
        port.write_all(&Frame::encode(1, Kind::Open, &OPENED.encode())).unwrap();
        port.write_all(&Frame::encode(1, Kind::Reset, &[])).unwrap();
    }
    // The one that is too many is refused, and nothing else was said.
    let answer = Frame::read(&mut port, PIECE).unwrap().unwrap();
    assert_eq!((answer.channel, answer.kind), (1, Kind::Reset));
    assert_eq!(mux.count(), 0);
    // When the threads have ended there is room again.
    drop(connecting);
    mux.join();
    port.write_all(&Frame::encode(2, Kind::Open, &OPENED.encode())).unwrap();
    let answer = Frame::read(&mut port, PIECE).unwrap().unwrap();
    assert_eq!((answer.channel, answer.kind), (2, Kind::Reset));
    port.shutdown(Shutdown::Write).unwrap();
    assert!(ends.recv_timeout(Duration::from_secs(20)).unwrap());
}

#[test]
fn bytes_that_are_no_frames_end_the_stream() {
    for bytes in [&[0; 9][..], &[0, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff], &[1, 2, 3], &[0, 0, 0, 0, 2, 9, 0, 0, 0, 1]] {
        let mux = Mux::new(io::sink());
        assert!(mux.follow(bytes, |_, _| Err(io::ErrorKind::Unsupported.into())).is_err(), "{bytes:?}");
    }
    assert!(ServiceCall::decode(&[0, 0, 2, 0]).is_none() && ServiceCall::decode(&[0; 3]).is_none());
}

#[test]
fn datagrams_keep_their_borders() {
    let (guest, host) = UnixStream::pair().unwrap();
    let (near, far) = (Mux::new(guest.try_clone().unwrap()), Mux::new(host.try_clone().unwrap()));
    let (got, heard) = channel();
    let got = Mutex::new(got);
    thread::spawn(move || {
        far.follow(host, move |_, _| {
            let got = lock(&got).clone();
            Ok(RelaySink::Datagrams(Box::new(move |bytes| got.send(bytes.to_vec()).map_err(io::Error::other))))
        })
    });
    let opened = ServiceCall { datagrams: true, ..OPENED };
    let channel = near.open(opened, RelaySink::Datagrams(Box::new(|_| Ok(())))).unwrap();
    for bytes in [&b"one"[..], b"", b"three"] {
        near.datagram(channel, bytes).unwrap();
    }
    let got: Vec<Vec<u8>> = (0..3).map(|_| heard.recv_timeout(Duration::from_secs(20)).unwrap()).collect();
    assert_eq!(got, [b"one".to_vec(), b"".to_vec(), b"three".to_vec()]);
    // None is lost where each is taken before the next one comes, however many there are.
    for number in 0..2 * WINDOW / cost(1) {
        near.datagram(channel, &[number as u8]).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(20)), Ok(vec![number as u8]), "datagram {number}");
    }
    near.reset(channel);
    assert!(near.datagram(channel, b"x").is_err());
}
