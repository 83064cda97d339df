//! The network of a guest that has one: passt, which is a guest's network without an interface, a bridge or root on the host.
//!
//! passt takes the machine's frames and answers them by sockets of its own, as the person who runs the lab. It ends with the
//! machine, whose end of the connection it is given.

use super::WorldError;
use lab_base::process::POLL;
use lab_protocol::world::Uplink;
use std::{
    fs::{self, File},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Maximum time until passt has bound its ports.
const START: Duration = Duration::from_secs(20);
/// Maximum time for passt to end after its machine.
const END: Duration = Duration::from_secs(2);
/// Bytes of its standard error for an error.
const TOLD: u64 = 16 << 10;

/// The guest's addresses, and those of its gateway, at which the host's loopback device is reached. IPv4 as in QEMU's user
/// networking, which people know; IPv6 from the unique local addresses (RFC 4193), `6c:61:62` is "lab".
const GUEST: [(IpAddr, u8); 2] =
    [(IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15)), 24), (IpAddr::V6(Ipv6Addr::new(0xfd6c, 0x6162, 0, 0, 0, 0, 0, 15)), 64)];
const HOST: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 0, 2, 2)), IpAddr::V6(Ipv6Addr::new(0xfd6c, 0x6162, 0, 0, 0, 0, 0, 2))];
/// Queries to it go to the first name server of the host.
const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 3));

/// A port of the host's loopback device that leads to one of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishedPort {
    /// The host's.
    pub host: u16,
    /// The guest's.
    pub guest: u16,
}

/// How guests are connected.
#[derive(Debug, Clone)]
pub struct PastaOptions {
    /// The program passt.
    pub passt: PathBuf,
    /// Ports that lead into the guest.
    pub published: Vec<PublishedPort>,
}

/// What the agent sets up.
pub fn uplink() -> Uplink {
    Uplink { addresses: GUEST.to_vec(), gateways: HOST.to_vec(), name_server: NAMES }
}

/// The network of one guest, while it runs.
#[derive(Debug)]
pub struct Pasta {
    child: Child,
    /// Removed with it.
    _dir: TempDir,
}

impl PastaOptions {
    fn words(&self, pid: &Path) -> Vec<String> {
        let mut words: Vec<String> = ["--foreground", "--quiet", "--fd", "0"].map(str::to_owned).to_vec();
        let mut add = |option: &str, value: String| words.extend([option.to_owned(), value]);
        add("--pid", pid.display().to_string());
        for ((guest, prefix), host) in GUEST.into_iter().zip(HOST) {
            add("--address", guest.to_string());
            if guest.is_ipv4() {
                add("--netmask", prefix.to_string());
            }
            add("--gateway", host.to_string());
            add("--map-host-loopback", host.to_string());
        }
        add("--dns-forward", NAMES.to_string());
        for PublishedPort { host, guest } in &self.published {
            for option in ["--tcp-ports", "--udp-ports"] {
                for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
                    add(option, format!("{address}/{host}:{guest}"));
                }
            }
        }
        // The agent sets the addresses itself.
        words.extend(["--no-dhcp", "--no-dhcpv6", "--no-ra"].map(str::to_owned));
        words
    }

    /// Connects a guest. Returns once passt has bound its ports.
    ///
    /// # Errors
    /// [`WorldError::Passt`] with what it says.
    pub fn connect(&self, machine: UnixStream) -> Result<Pasta, WorldError> {
        let dir = lab_vm::scratch()?;
        let (pid, told) = (dir.path().join("pid"), dir.path().join("told"));
        let file = File::create(&told).map_err(WorldError::io(&told))?;
        let failed = |problem: String| WorldError::Passt { passt: self.passt.clone(), problem };
        // The machine's connection is its standard input, which no other process that is started meanwhile can inherit.
        let child = Command::new(&self.passt)
            .args(self.words(&pid))
            .stdin(OwnedFd::from(machine))
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        // Dropping it ends passt.
        let mut pasta = Pasta { child, _dir: dir };
        let begin = Instant::now();
        loop {
            if fs::metadata(&pid).is_ok_and(|found| found.len() > 0) {
                return Ok(pasta);
            }
            if let Some(status) = pasta.child.try_wait().map_err(WorldError::io(&self.passt))? {
                let said = lab_guard::bounded::tail(&told, TOLD).unwrap_or_default();
                let said = String::from_utf8_lossy(&said).into_owned();
                let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                // It names the port before it says that it gives up.
                let told = lines[lines.len().saturating_sub(2)..].join("; ");
                return Err(failed(format!("{status}: {told}")));
            }
            if begin.elapsed() > START {
                return Err(failed(format!("it is not ready after {} s", START.as_secs())));
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Pasta {
    fn drop(&mut self) {
        let begin = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if begin.elapsed() > END {
                // Its machine runs on, or it hangs.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_passt_that_does_not_start_is_one_error_with_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let passt = dir.path().join("passt");
        let connect = |script: &str| {
            fs::write(&passt, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&passt, fs::Permissions::from_mode(0o755)).unwrap();
            let (_guest, machine) = UnixStream::pair().unwrap();
            let published = vec![PublishedPort { host: 8080, guest: 80 }];
            PastaOptions { passt: passt.clone(), published }.connect(machine)
        };
        let error = connect("echo 'Failed to bind port 8080' >&2; exit 1").unwrap_err().to_string();
        assert!(error.contains("exit status: 1: Failed to bind port 8080"), "{error}");
        // Ready once it has written its number, with the machine's connection as its input and each port of both families.
        let ready = "test -S /proc/self/fd/0 && case \"$*\" in *'--udp-ports ::1/8080:80'*) ;; *) exit 2;; esac; \
                     while test $# -gt 0; do case $1 in --pid) echo $$ >$2;; esac; shift; done; exec sleep 60";
        drop(connect(ready).unwrap());
    }
}
