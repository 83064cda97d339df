//! `lab exec --net pasta` on real guests: services of the host's loopback device from a guest, and a guest's from the host, over
//! both families, TCP and UDP.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::Once,
    thread,
    time::Duration,
};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const KERNEL: &str = "6.12";
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks a server of the host by its name, over both families, TCP and UDP.
const ASK: &str = r#"
import socket, sys
port = int(sys.argv[1])
for family, count in ((socket.AF_INET, 3_000_000), (socket.AF_INET6, 7)):
    host = socket.getaddrinfo("host.lab", port, family)[0][4]
    s = socket.socket(family, socket.SOCK_STREAM)
    s.settimeout(60)
    s.connect(host)
    s.sendall(b"x" * count)
    s.shutdown(socket.SHUT_WR)
    said = b""
    while piece := s.recv(65536):
        said += piece
    print(said.decode())
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(60)
    u.sendto(b"one", host)
    print(u.recv(100).decode())
"#;

/// Serves until each family has asked once over TCP and once over UDP.
const SERVE: &str = r#"
import socket
sockets = []
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_INET6, kind)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.settimeout(120)
    s.bind(("::", 80))
    sockets.append(s)
stream, datagrams = sockets
stream.listen()
print("ready", flush=True)
for _ in range(2):
    c, peer = stream.accept()
    c.sendall(b"tcp " + c.recv(100))
    c.close()
for _ in range(2):
    said, peer = datagrams.recvfrom(100)
    datagrams.sendto(b"udp " + said, peer)
"#;

fn lab(cwd: &Path, words: &[&str]) -> Command {
    static BUILT: Once = Once::new();
    let plain = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--project", ROOT]).stdin(Stdio::null());
        command
    };
    // `lab exec` starts no compiler where there is an agent; a test must have the agent of this checkout.
    BUILT.call_once(|| assert!(plain().args(["list", "--case", "P03*"]).output().unwrap().status.success()));
    let mut command = plain();
    command.args(["exec", "--no-build", "--net", "pasta", "--results"]).arg(cwd.join("results"));
    command.args(words).current_dir(cwd);
    command
}

/// A server of TCP and UDP on the same port of both loopback addresses, which says who it is and how much it was sent.
fn server() -> u16 {
    let listener = TcpListener::bind((LOOPBACK[0], 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let six = TcpListener::bind((LOOPBACK[1], port)).unwrap();
    for (listener, name) in [(listener, "four"), (six, "six")] {
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut all = Vec::new();
                    stream.read_to_end(&mut all).unwrap();
                    stream.write_all(format!("{name} {}", all.len()).as_bytes()).unwrap();
                    stream.shutdown(Shutdown::Both).unwrap();
                });
            }
        });
    }
    for (address, name) in LOOPBACK.into_iter().zip(["four", "six"]) {
        let socket = UdpSocket::bind((address, port)).unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(&[name.as_bytes(), b" udp ", &buffer[..count]].concat(), peer).unwrap();
            }
        });
    }
    port
}

fn reaches_the_host(kernel: &str, options: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ask.py"), ASK).unwrap();
    let port = server().to_string();
    let words = [&["-k", kernel][..], options, &["--", "python3", "ask.py", &port]].concat();
    let output = lab(dir.path(), &words).output().unwrap();
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(said, "four 3000000\nfour udp one\nsix 7\nsix udp one\n", "{kernel} {options:?}: {errors}");
    assert!(output.status.success() && !errors.contains("left behind"), "{kernel} {options:?}: {errors}");
}

#[test]
fn a_guest_reaches_the_hosts_loopback_and_a_published_port_reaches_the_guest() {
    reaches_the_host(KERNEL, &[]);
    // In a network namespace of a topology, of which nothing else leads out.
    reaches_the_host(KERNEL, &["--topology", "pair", "--node", "host"]);

    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("serve.py"), SERVE).unwrap();
    let free = TcpListener::bind((LOOPBACK[0], 0)).unwrap().local_addr().unwrap().port();
    let publish = format!("{free}:80");
    let words = ["-k", KERNEL, "--publish", &publish, "--", "python3", "serve.py"];
    let mut exec = lab(dir.path(), &words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(exec.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "ready");
    for address in LOOPBACK {
        let mut stream = TcpStream::connect((address, free)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"hello").unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert_eq!(said, "tcp hello", "{address}");
    }
    for address in LOOPBACK {
        let socket = UdpSocket::bind((address, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"hello", (address, free)).unwrap();
        let mut buffer = [0; 100];
        let count = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"udp hello", "{address}");
    }
    assert!(exec.wait().unwrap().success());
    // Nothing holds the port behind the guest.
    for address in LOOPBACK {
        TcpListener::bind(SocketAddr::new(address, free)).unwrap();
    }

    // A port that is in use is one error.
    let taken = TcpListener::bind((LOOPBACK[0], 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = lab(dir.path(), &["-k", KERNEL, "--publish", &port, "--", "true"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{errors}");
    assert!(errors.contains("can't connect the guest: ") && errors.contains(&port), "{errors}");
}

#[test]
#[ignore = "boots three kernels: make foreign"]
fn guests_of_the_matrix_reach_the_hosts_loopback() {
    for kernel in ["6.1", "6.12", "6.17"] {
        reaches_the_host(kernel, &[]);
    }
}

#[test]
fn words_of_a_network_that_make_no_sense_are_wrong_command_lines() {
    let dir = tempfile::tempdir().unwrap();
    for (words, told) in [
        (&["--net", "passt"][..], "`passt` is none of none, pasta and host:PORT[,PORT]"),
        (&["--publish", "80"], "add --net pasta"),
        (&["--net", "pasta", "--publish", "80:"], "`80:` is not PORT or PORT:PORT"),
        (&["--net", "pasta", "--root", "image"], "--net shares files of this host"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["--project", ROOT, "exec", "-k", KERNEL]).args(words).args(["--", "true"]);
        let output = command.current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(125) && errors.contains(told), "{words:?}: {:?} {errors}", output.status);
    }
}
