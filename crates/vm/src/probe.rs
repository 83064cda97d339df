//! Boots a guest to find out whether KVM works.

use super::{Accel, Guest, GuestSpec, Launcher, Recv, VmError, process::POLL};
use lab_record::guest_exit::GuestExit;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Maximum wait for a virtual machine to end whose port has closed, so that its error output is complete.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Interval at which the console is checked.
const SLICE: Duration = Duration::from_millis(100);
/// Texts in QEMU's error output that mean that KVM is the cause: KVM's functions and messages, or a refused processor
/// register. Other errors may be temporary, for example a missing file of QEMU.
const OF_KVM: [&str; 2] = ["kvm", "msr"];
/// Errors of `strerror(3)` that mean a temporary shortage, not a failure of KVM.
const PASSING: [&str; 4] = [
    "Cannot allocate memory",
    "No space left on device",
    "Device or resource busy",
    "Resource temporarily unavailable",
];

/// Maximum time until the agent's first message.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the start of the machine until its first console output. The start of virtme-ng and QEMU before that, which
    /// a busy disk may delay, does not count.
    pub silent: Duration,
    /// Since the last output on its console.
    pub quiet: Duration,
    /// In total.
    pub most: Duration,
}

/// A guest under a working KVM sends its first message after about a second. If KVM does not work, QEMU ends at once,
/// or the console stays empty. On a busy or virtual host the boot is slow, but the console grows.
pub const PATIENCE: Patience =
    Patience { silent: Duration::from_secs(20), quiet: Duration::from_secs(30), most: Duration::from_secs(120) };

/// Result of the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KvmAnswer {
    /// The agent sent a message, after this time since the launch.
    Spoke(Duration),
    /// QEMU ended because of KVM.
    Died(String),
    /// The guest was too slow, or QEMU ended for another reason: the next guest may boot.
    Unclear(String),
}

/// Boots a guest like `spec` under KVM and waits for its agent's first message; `None` if `stop` returned true.
///
/// # Errors
/// Errors that prevent any launch.
pub fn ask(
    launcher: &dyn Launcher,
    spec: &GuestSpec,
    patience: Patience,
    stop: &dyn Fn() -> bool,
) -> Result<Option<KvmAnswer>, VmError> {
    let spec = GuestSpec { name: "kvm-probe".to_owned(), accel: Accel::Kvm, ..spec.clone() };
    let begin = Instant::now();
    let mut guest = launcher.launch(&spec)?;
    let waiting = Waiting { console: &spec.console, patience, begin, started: None, length: 0, grown: begin, stop };
    let answer = waiting.hear(guest.as_mut());
    guest.kill();
    Ok((!stop()).then_some(answer))
}

struct Waiting<'a> {
    console: &'a Path,
    patience: Patience,
    begin: Instant,
    /// Time at which the machine started.
    started: Option<Instant>,
    /// Length of the console, and time of its last growth.
    length: u64,
    grown: Instant,
    stop: &'a dyn Fn() -> bool,
}

impl Waiting<'_> {
    fn hear(mut self, guest: &mut dyn Guest) -> KvmAnswer {
        let mut channel = loop {
            match guest.connect(Instant::now() + SLICE) {
                Ok(channel) => break channel,
                Err(VmError::Exited { exit, .. }) => return died(Some(exit)),
                Err(VmError::ConnectTimeout { .. }) => {}
                Err(error) => return KvmAnswer::Unclear(error.to_string()),
            }
            if let Some(why) = self.over() {
                return KvmAnswer::Unclear(why);
            }
        };
        self.started = Some(Instant::now());
        loop {
            match channel.recv(&mut [0; 1], SLICE) {
                Ok(Recv::Bytes(_)) => return KvmAnswer::Spoke(self.begin.elapsed()),
                Ok(Recv::Timeout) => {}
                Ok(Recv::Closed) => return died(last_words(guest)),
                Err(error) => return KvmAnswer::Unclear(format!("reading from a guest under KVM failed: {error}")),
            }
            if let Some(why) = self.over() {
                return KvmAnswer::Unclear(why);
            }
        }
    }

    /// Why the wait is ended.
    fn over(&mut self) -> Option<String> {
        if (self.stop)() {
            return Some("the probe was interrupted".to_owned());
        }
        let length = fs::metadata(self.console).map_or(0, |metadata| metadata.len());
        if length != self.length {
            (self.length, self.grown) = (length, Instant::now());
        }
        let Patience { silent, quiet, most } = self.patience;
        let waited = self.begin.elapsed();
        if length == 0
            && let Some(started) = self.started
        {
            return (started.elapsed() >= silent).then(|| format!("a guest under KVM sent nothing for {silent:?}"));
        }
        (waited >= most || (length > 0 && self.grown.elapsed() >= quiet))
            .then(|| format!("a guest under KVM had not booted after {:.0} s", waited.as_secs_f32()))
    }
}

fn last_words(guest: &mut dyn Guest) -> Option<GuestExit> {
    let deadline = Instant::now() + LAST_WORDS;
    loop {
        let exit = guest.exited();
        if exit.is_some() || Instant::now() >= deadline {
            return exit;
        }
        thread::sleep(POLL);
    }
}

fn died(exit: Option<GuestExit>) -> KvmAnswer {
    let how = exit.as_ref().map_or_else(String::new, |exit| format!(" ({exit})"));
    let words = exit.map(|exit| exit.stderr).unwrap_or_default();
    let of_kvm = OF_KVM.iter().any(|word| words.to_ascii_lowercase().contains(word));
    let passing = PASSING.iter().any(|reason| words.contains(reason));
    let told = format!("QEMU ended under KVM{how}");
    if of_kvm && !passing { KvmAnswer::Died(told) } else { KvmAnswer::Unclear(told) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{FakeLauncher, specification};

    const SHORT: Patience = Patience {
        silent: Duration::from_millis(300),
        quiet: Duration::from_millis(600),
        most: Duration::from_secs(20),
    };

    fn asked(launcher: &FakeLauncher, patience: Patience) -> KvmAnswer {
        let dir = tempfile::tempdir().unwrap();
        ask(launcher, &specification(dir.path().to_owned()), patience, &|| false).unwrap().unwrap()
    }

    fn hang(agent: &mut crate::fake::FakeAgent) {
        while agent.channel().recv(&mut [0; 8], Duration::from_secs(60)).unwrap() != Recv::Closed {}
    }

    #[test]
    fn guests_that_answer_and_guests_that_end_are_distinguished() {
        let works = FakeLauncher::new(|agent| {
            assert_eq!(agent.spec().accel, Accel::Kvm);
            agent.channel().send(b"hello").unwrap();
        });
        assert!(matches!(asked(&works, PATIENCE), KvmAnswer::Spoke(_)));

        let dying = |words: &'static str| {
            FakeLauncher::new(move |agent| {
                agent.set_exit(GuestExit { code: Some(1), signal: None, stderr: words.to_owned() });
            })
        };
        let abort = "kvm_buf_set_msrs: Assertion failed";
        let told = format!("QEMU ended under KVM (exit code 1: {abort})");
        assert_eq!(asked(&dying(abort), PATIENCE), KvmAnswer::Died(told));
        let msr = "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69";
        assert!(matches!(asked(&dying(msr), PATIENCE), KvmAnswer::Died(_)));
        for passing in [
            "cannot set up guest memory 'ram': Cannot allocate memory",
            "failed to initialize kvm: Device or resource busy",
            "qemu: could not load PC BIOS 'bios-256k.bin'",
            "",
        ] {
            let answer = asked(&dying(passing), PATIENCE);
            assert!(matches!(answer, KvmAnswer::Unclear(_)), "{passing:?} is a temporary error: {answer:?}");
        }
    }

    #[test]
    fn a_guest_that_writes_to_its_console_gets_more_time_than_one_that_does_not() {
        let mute = FakeLauncher::new(hang);
        assert_eq!(asked(&mute, SHORT), KvmAnswer::Unclear("a guest under KVM sent nothing for 300ms".to_owned()));
        let slow = FakeLauncher::new(|agent| {
            for second in 0..5 {
                agent.console(&format!("[    {second}.0] still at it\n"));
                thread::sleep(SHORT.silent / 2);
            }
            agent.channel().send(b"hello").unwrap();
        });
        assert!(matches!(asked(&slow, SHORT), KvmAnswer::Spoke(_)));
        let stuck = FakeLauncher::new(|agent| {
            agent.console("Probing EDD (edd=off to disable)... ok\n");
            hang(agent);
        });
        let KvmAnswer::Unclear(why) = asked(&stuck, SHORT) else { panic!("it sent no message") };
        assert!(why.starts_with("a guest under KVM had not booted after "), "{why}");
    }

    #[test]
    fn the_start_of_virtme_ng_does_not_count_as_the_guests_silence() {
        let launcher = FakeLauncher::new(|agent| agent.channel().send(b"hello").unwrap());
        let launcher = launcher.offering_its_port_after(SHORT.silent * 2);
        assert!(matches!(asked(&launcher, SHORT), KvmAnswer::Spoke(_)));
    }

    #[test]
    fn an_interrupted_probe_ends_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mute = FakeLauncher::new(hang);
        let begin = Instant::now();
        let answer = ask(&mute, &specification(dir.path().to_owned()), PATIENCE, &|| true).unwrap();
        assert!(answer.is_none() && begin.elapsed() < PATIENCE.silent);
    }
}
