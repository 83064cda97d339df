//! A process in a user namespace and a network namespace of its own, as root of an unprivileged container is: it may do all
//! with its own devices, and nothing with those of others.
//!
//! It is the agent's binary again, because only a process with one thread can make a user namespace (`unshare(2)`).

use crate::ctx::AsErrno;
use lab_topology::{LinkKind, NetkitOptions, Netns, PairRequest, Policy, link};
use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
};
use std::{
    convert::Infallible,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::fd::{AsFd, OwnedFd},
    process::{Child, ChildStdout, Command, ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Argument by which the agent's binary becomes such a process.
pub const STRANGER: &str = "--stranger";
/// The device that it waits for; the other end of the pair is elsewhere.
pub const GIVEN: &str = "given";
/// The ends of the pair that it tries to make.
pub const OWN: (&str, &str) = ("own", "planted");

/// What is said once the namespaces are there.
const READY: &str = "ready";
/// How long it waits for its device.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// What the process tries, in this order.
const TRIED: [&str; 3] = ["policy", "peer policy", "pair"];

/// The process as its parent sees it. Dropping it kills it.
#[derive(Debug)]
pub struct Stranger {
    child: Child,
    said: BufReader<ChildStdout>,
}

/// How its attempts ended: `None` is success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerAttempts {
    /// A change of the policy of its own end of a pair.
    pub policy: Option<Errno>,
    /// A change of the policy of the other end, through its own end.
    pub peer_policy: Option<Errno>,
    /// A pair of which one end is made in the other namespace.
    pub pair: Option<Errno>,
}

impl Stranger {
    /// Starts it, with a descriptor of a network namespace in which it has no rights.
    ///
    /// # Errors
    /// It can't be started, or the kernel makes no user namespace.
    pub fn beside(other: &Netns) -> io::Result<Self> {
        let other: OwnedFd = other.fd().try_clone_to_owned()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg(STRANGER).stdin(Stdio::from(other)).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let said = child.stdout.take().ok_or_else(|| io::Error::other("no pipe"))?;
        let mut stranger = Self { child, said: BufReader::new(said) };
        let line = stranger.line()?;
        if line == READY { Ok(stranger) } else { Err(io::Error::other(line)) }
    }

    /// Its network namespace.
    ///
    /// # Errors
    /// It has ended.
    pub fn netns(&self) -> io::Result<Netns> {
        let file = File::open(format!("/proc/{}/ns/net", self.child.id()))?;
        Netns::of("stranger", file.into()).map_err(io::Error::other)
    }

    /// Waits for its attempts, which begin once its namespace has a device named [`GIVEN`]. Its namespace and what is in it stay
    /// until the process is dropped.
    ///
    /// # Errors
    /// It ended before.
    pub fn attempts(&mut self) -> io::Result<ContainerAttempts> {
        let mut next = || -> io::Result<Option<Errno>> {
            let line = self.line()?;
            let number = line.parse::<i32>().map_err(|_| io::Error::other(line))?;
            Ok((number != 0).then(|| Errno::from_raw(number)))
        };
        Ok(ContainerAttempts { policy: next()?, peer_policy: next()?, pair: next()? })
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.said.by_ref().take(1000).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // There may be nothing left to do.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// The process itself.
pub fn act() -> ExitCode {
    let Err(problem) = attempt();
    println!("{problem}");
    ExitCode::FAILURE
}

fn attempt() -> Result<Infallible, String> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| format!("unshare(CLONE_NEWUSER | CLONE_NEWNET): {errno}"))?;
    let own = File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())?;
    let own = Netns::of("own", own.into()).map_err(|error| error.to_string())?;
    println!("{READY}");
    let deadline = Instant::now() + PATIENCE;
    while link::info(&own, GIVEN).is_err() {
        if Instant::now() > deadline {
            return Err(format!("no device `{GIVEN}` came"));
        }
        thread::sleep(POLL);
    }
    let blackhole = Some(Policy::Blackhole);
    let stdin = io::stdin();
    for what in TRIED {
        let done = match what {
            "policy" => link::change(&own, GIVEN, &NetkitOptions { policy: blackhole, ..NetkitOptions::default() }),
            "peer policy" => {
                link::change(&own, GIVEN, &NetkitOptions { peer_policy: blackhole, ..NetkitOptions::default() })
            }
            _ => {
                let request = PairRequest::new(LinkKind::NetkitL2, OWN.0, OWN.1);
                link::create_pair(&own, &PairRequest { peer_netns: Some(stdin.as_fd()), ..request })
            }
        };
        let errno = match done {
            Ok(()) => 0,
            Err(error) => error.errno().map_or(-1, |errno| AsErrno::errno(&error).map_or(errno, |errno| errno as i32)),
        };
        println!("{errno}");
    }
    loop {
        thread::park();
    }
}

/// Why a process can't make a user namespace.
#[derive(Debug, thiserror::Error)]
pub enum NoUserNamespaces {
    /// The limit is 0 (Documentation/admin-guide/sysctl/user.rst).
    #[error("{0} is 0")]
    Forbidden(&'static str),
    /// The kernel has no such setting.
    #[error("{0}: {1}")]
    Unknown(&'static str, std::io::Error),
}

/// Whether the kernel makes user namespaces: with `CONFIG_USER_NS`, and unless `user.max_user_namespaces` is 0.
///
/// # Errors
/// The setting that forbids it.
pub fn possible() -> Result<String, NoUserNamespaces> {
    const SETTING: &str = "/proc/sys/user/max_user_namespaces";
    match std::fs::read_to_string(SETTING) {
        Ok(value) if value.trim() != "0" => Ok(format!("{SETTING} is {}", value.trim())),
        Ok(_) => Err(NoUserNamespaces::Forbidden(SETTING)),
        Err(error) => Err(NoUserNamespaces::Unknown(SETTING, error)),
    }
}
