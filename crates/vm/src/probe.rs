//! A guest that is booted for one question: does it get anywhere under KVM?

use super::{Accel, Guest, GuestSpec, Launcher, Recv, VmError, process::POLL};
use lab_record::guest_exit::GuestExit;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// How long a virtual machine whose port has closed may take to be gone, so that its last words are complete.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How often the console is looked at.
const SLICE: Duration = Duration::from_millis(100);
/// What the last words of a virtual machine speak of that died of KVM: its functions and messages, or the processor's
/// registers that it refuses. Others died of something that may be mended in a minute, a missing file of QEMU's say.
const OF_KVM: [&str; 2] = ["kvm", "msr"];
/// Last words of a virtual machine that was short of something (`strerror(3)`): that is about the moment, not about KVM.
const PASSING: [&str; 4] = [
    "Cannot allocate memory",
    "No space left on device",
    "Device or resource busy",
    "Resource temporarily unavailable",
];

/// How long a guest may take to its agent's first word.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Before it has written anything to its console.
    pub silent: Duration,
    /// Since it last wrote.
    pub quiet: Duration,
    /// However much it writes.
    pub most: Duration,
}

/// Where KVM works a guest has spoken after about a second. Where it does not, the guest dies at once, or its console stays
/// empty. A host that is busy, or is a guest itself, takes its time, and meanwhile the console grows.
pub const PATIENCE: Patience =
    Patience { silent: Duration::from_secs(15), quiet: Duration::from_secs(30), most: Duration::from_secs(120) };

/// What became of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Its agent spoke, so long after the launch.
    Spoke(Duration),
    /// It died, of KVM.
    Died(String),
    /// It was too slow, or died of something else: this says nothing about the next one.
    Unclear(String),
}

/// Boots a guest like `spec` under KVM and waits for its agent's first word, or until `stop` says so.
///
/// # Errors
/// What prevents any launch.
pub fn ask(
    launcher: &dyn Launcher,
    spec: &GuestSpec,
    patience: Patience,
    stop: &dyn Fn() -> bool,
) -> Result<Answer, VmError> {
    let spec = GuestSpec { name: "kvm-probe".to_owned(), accel: Accel::Kvm, ..spec.clone() };
    let begin = Instant::now();
    let mut guest = launcher.launch(&spec)?;
    let waiting = Waiting { console: &spec.console, patience, begin, length: 0, grown: begin, stop };
    let answer = waiting.hear(guest.as_mut());
    guest.kill();
    Ok(answer)
}

struct Waiting<'a> {
    console: &'a Path,
    patience: Patience,
    begin: Instant,
    /// The console's length, and when it last grew.
    length: u64,
    grown: Instant,
    stop: &'a dyn Fn() -> bool,
}

impl Waiting<'_> {
    fn hear(mut self, guest: &mut dyn Guest) -> Answer {
        let mut channel = loop {
            match guest.connect(Instant::now() + SLICE) {
                Ok(channel) => break channel,
                Err(VmError::Exited { exit, .. }) => return died(Some(exit)),
                Err(VmError::ConnectTimeout { .. }) => {}
                Err(error) => return Answer::Unclear(error.to_string()),
            }
            if let Some(why) = self.over() {
                return Answer::Unclear(why);
            }
        };
        loop {
            match channel.recv(&mut [0; 1], SLICE) {
                Ok(Recv::Bytes(_)) => return Answer::Spoke(self.begin.elapsed()),
                Ok(Recv::Timeout) => {}
                Ok(Recv::Closed) => return died(last_words(guest)),
                Err(error) => return Answer::Unclear(format!("a guest under it could not be heard: {error}")),
            }
            if let Some(why) = self.over() {
                return Answer::Unclear(why);
            }
        }
    }

    /// Why it is not waited for any longer.
    fn over(&mut self) -> Option<String> {
        if (self.stop)() {
            return Some("the question was broken off".to_owned());
        }
        let length = fs::metadata(self.console).map_or(0, |metadata| metadata.len());
        if length != self.length {
            (self.length, self.grown) = (length, Instant::now());
        }
        let Patience { silent, quiet, most } = self.patience;
        let waited = self.begin.elapsed();
        if length == 0 {
            return (waited >= silent).then(|| format!("a guest under it said nothing for {silent:?}"));
        }
        (waited >= most || self.grown.elapsed() >= quiet)
            .then(|| format!("a guest under it had not booted after {:.0} s", waited.as_secs_f32()))
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

fn died(exit: Option<GuestExit>) -> Answer {
    let how = exit.as_ref().map_or_else(String::new, |exit| format!(" ({exit})"));
    let words = exit.map(|exit| exit.stderr).unwrap_or_default();
    let of_kvm = OF_KVM.iter().any(|word| words.to_ascii_lowercase().contains(word));
    let passing = PASSING.iter().any(|reason| words.contains(reason));
    let told = format!("the guest died under it{how}");
    if of_kvm && !passing { Answer::Died(told) } else { Answer::Unclear(told) }
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

    fn asked(launcher: &FakeLauncher, patience: Patience) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        ask(launcher, &specification(dir.path().to_owned()), patience, &|| false).unwrap()
    }

    fn hang(agent: &mut crate::fake::FakeAgent) {
        while agent.channel().recv(&mut [0; 8], Duration::from_secs(60)).unwrap() != Recv::Closed {}
    }

    #[test]
    fn a_guest_that_speaks_and_one_that_dies_are_told_apart() {
        let works = FakeLauncher::new(|agent| {
            assert_eq!(agent.spec().accel, Accel::Kvm);
            agent.channel().send(b"hello").unwrap();
        });
        assert!(matches!(asked(&works, PATIENCE), Answer::Spoke(_)));

        let dying = |words: &'static str| {
            FakeLauncher::new(move |agent| {
                agent.set_exit(GuestExit { code: Some(1), signal: None, stderr: words.to_owned() });
            })
        };
        let abort = "kvm_buf_set_msrs: Assertion failed";
        let told = format!("the guest died under it (exit code 1: {abort})");
        assert_eq!(asked(&dying(abort), PATIENCE), Answer::Died(told));
        let msr = "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69";
        assert!(matches!(asked(&dying(msr), PATIENCE), Answer::Died(_)));
        for passing in [
            "cannot set up guest memory 'ram': Cannot allocate memory",
            "failed to initialize kvm: Device or resource busy",
            "qemu: could not load PC BIOS 'bios-256k.bin'",
            "",
        ] {
            let answer = asked(&dying(passing), PATIENCE);
            assert!(matches!(answer, Answer::Unclear(_)), "{passing:?} is about this moment: {answer:?}");
        }
    }

    #[test]
    fn a_guest_that_writes_to_its_console_gets_more_time_than_one_that_does_not() {
        let mute = FakeLauncher::new(hang);
        assert_eq!(asked(&mute, SHORT), Answer::Unclear("a guest under it said nothing for 300ms".to_owned()));
        let slow = FakeLauncher::new(|agent| {
            for second in 0..5 {
                agent.console(&format!("[    {second}.0] still at it\n"));
                thread::sleep(SHORT.silent / 2);
            }
            agent.channel().send(b"hello").unwrap();
        });
        assert!(matches!(asked(&slow, SHORT), Answer::Spoke(_)));
        let stuck = FakeLauncher::new(|agent| {
            agent.console("Probing EDD (edd=off to disable)... ok\n");
            hang(agent);
        });
        let Answer::Unclear(why) = asked(&stuck, SHORT) else { panic!("it never spoke") };
        assert!(why.starts_with("a guest under it had not booted after "), "{why}");
    }

    #[test]
    fn nobody_waits_for_a_probe_that_is_broken_off() {
        let dir = tempfile::tempdir().unwrap();
        let mute = FakeLauncher::new(hang);
        let begin = Instant::now();
        let answer = ask(&mute, &specification(dir.path().to_owned()), PATIENCE, &|| true).unwrap();
        assert!(matches!(answer, Answer::Unclear(_)) && begin.elapsed() < PATIENCE.silent);
    }
}
