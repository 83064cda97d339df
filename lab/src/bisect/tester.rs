//! Tests kernels in guests for a search.

use crate::{
    bisect::{
        Answer, NoKernel, SearchStop, Subject, Trial,
        predicate::{Loss, Predicate, Reading, is_subtest},
        state::{Learning, Lesson},
    },
    error::Error,
    guests::{GuestOptions, Guests},
    project::{
        Project,
        select::{Selected, facts, stated},
    },
};
use lab_base::{file::FileError, interrupt::Interrupt, say::say, text};
use lab_guard::Id;
use lab_kernel_store::BootableKernel;
use lab_protocol::{CellId, CellInfo};
use lab_record::{
    event::{Event, Stamped},
    log::EventLog,
    plan::Plan,
    reporter::Reporter,
    run::RunRecord,
};
use lab_report::results::directory;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Maximum number of attempts at a run if the host fails.
const ATTEMPTS: usize = 3;

/// Provides kernels: fetches or builds them.
pub trait Supply {
    /// The kernel, or why it cannot be provided.
    fn bring(&mut self, subject: Subject) -> Result<Result<BootableKernel, NoKernel>, SearchStop>;

    /// Name of the kernel; safe as a file name.
    fn name(&self, subject: Subject) -> String;
}

/// Tests the kernels of a source.
pub struct Tester<'a, S> {
    /// The project.
    pub project: &'a Project,
    /// The cases that are tested.
    pub selected: &'a Selected,
    /// Where the kernels come from.
    pub source: S,
    /// The failure under investigation.
    pub predicate: &'a Predicate,
    /// How guests run.
    pub how: GuestOptions,
    /// Ctrl-C.
    pub interrupt: Interrupt,
    /// Directory for the runs' events and consoles.
    pub directory: PathBuf,
    /// The subject that is known to fail: the signature of the failure is learned there.
    pub failing: Subject,
    /// The guests' machine, once the first kernel is available.
    pub guests: Option<Guests>,
    /// Kernels that are ready to boot.
    pub ready: BTreeMap<Subject, BootableKernel>,
    /// Identity of the failure.
    pub lesson: Lesson,
    /// Kernels that have already run: the first run of each boots, and is reported.
    pub begun: BTreeSet<Subject>,
    /// Limits the time without progress messages: the time of the last message, and the number of runs.
    pub spoken: Spoken,
}

/// Maximum time without a progress message.
const QUIET: Duration = Duration::from_secs(15);

/// Prints progress messages of a long search.
#[derive(Debug, Default)]
pub struct Spoken {
    last: Option<Instant>,
    runs: u32,
}

impl Spoken {
    /// Counts a run, and prints a progress message if there was none for a while.
    fn ran(&mut self, name: &str, answer: &Answer) {
        self.runs += 1;
        if self.last.get_or_insert_with(Instant::now).elapsed() < QUIET {
            return;
        }
        self.last = Some(Instant::now());
        let word = match answer {
            Answer::Fails { .. } => "the failure occurred",
            Answer::Passes => "it passes",
            Answer::Untestable { .. } => "no answer",
        };
        say(&format!("{name}: {word}; {} so far", text::count(self.runs as usize, "run")));
    }
}

impl<S: Supply> Tester<'_, S> {
    /// The guests' machine; it is chosen with the first kernel.
    fn guests(&mut self, kernel: &BootableKernel) -> Result<&mut Guests, Error> {
        let guests = match self.guests.take() {
            Some(guests) => guests,
            None => Guests::of(self.project, vec![kernel.clone()], self.selected)?,
        };
        let guests = self.guests.insert(guests);
        let versions = guests.versions();
        self.lesson.environment = [
            ("virtme-ng", versions.virtme_ng.clone()),
            ("QEMU", versions.qemu.clone()),
            ("accelerator", guests.accelerator()),
            ("lab", format!("{}, agent {}", versions.lab, versions.agent)),
        ]
        .map(|(what, words)| (what.to_owned(), words))
        .to_vec();
        guests.add(kernel.clone());
        Ok(guests)
    }

    /// Once the signature is known, only the failing cells are run.
    fn cells(&self) -> Vec<CellInfo> {
        let Predicate::Cells { cells, .. } = self.predicate else { return Vec::new() };
        let known = &self.lesson.signatures;
        let wanted = |info: &&CellInfo| {
            let is_it = |id: &CellId| *id == info.id || is_subtest(id, &info.id);
            cells.iter().any(is_it) && (known.is_empty() || known.iter().any(|signature| is_it(&signature.cell)))
        };
        self.selected.cells.iter().filter(wanted).cloned().collect()
    }

    fn once(&mut self, subject: Subject, kernel: &BootableKernel) -> Result<(RunRecord, Vec<Loss>), Error> {
        if self.begun.insert(subject) {
            say(&format!("{}: booting {}", self.source.name(subject), kernel.release));
        }
        let name = Id::new(&format!("{}-{}", directory::fresh_id(), self.source.name(subject)))?;
        let place = directory::create(&self.directory, &name)?;
        let facts =
            facts(&kernel.id, kernel.class.name(), kernel.architecture, kernel.version, &kernel.unsupported, false);
        let facts = stated(facts, &kernel.has, kernel.believe_probes.as_deref());
        let plan = Plan::new(vec![facts], self.cells(), false);
        let (mut events, mut losses) = (EventLog::create(&place)?, Losses::default());
        let how = GuestOptions { jobs: Some(NonZeroUsize::MIN), ..self.how.clone() };
        let record =
            self.guests(kernel)?.run(directory::fresh_id(), plan, &place, &how, &mut [&mut events, &mut losses])?;
        Ok((record, losses.0))
    }

    fn interrupted(&self) -> Result<(), SearchStop> {
        self.interrupt.signal().map_or(Ok(()), |signal| Err(SearchStop::Interrupted(signal)))
    }
}

impl<S: Supply> Learning for Tester<'_, S> {
    fn lesson(&mut self) -> &mut Lesson {
        &mut self.lesson
    }
}

impl<S: Supply> Trial for Tester<'_, S> {
    fn prepare(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop> {
        self.interrupted()?;
        let kernel = self.source.bring(subject);
        self.interrupted()?;
        Ok(kernel?.map(|kernel| {
            let image = kernel.sha256.clone();
            self.ready.insert(subject, kernel);
            image
        }))
    }

    fn run(&mut self, subject: Subject) -> Result<Answer, SearchStop> {
        let Some(kernel) = self.ready.get(&subject).cloned() else {
            return Err(SearchStop::Trouble(format!("{} was not prepared", self.source.name(subject))));
        };
        let mut trouble = String::new();
        for _ in 0..ATTEMPTS {
            let (record, losses) =
                self.once(subject, &kernel).map_err(|error| SearchStop::Trouble(error.to_string()))?;
            self.interrupted()?;
            // At the failing end every failure counts and is learned: the first failure need not be the most frequent
            // one.
            let known = if subject == self.failing { &[][..] } else { &self.lesson.signatures };
            match self.predicate.read(&record, &losses, known)? {
                Reading::Trouble(why) => trouble = why,
                Reading::Answer { answer, signatures, evidence } => {
                    if subject == self.failing {
                        for signature in signatures {
                            if !self.lesson.signatures.contains(&signature) {
                                self.lesson.signatures.push(signature);
                            }
                        }
                        self.lesson.evidence = self.lesson.evidence.take().or(evidence);
                    }
                    self.spoken.ran(&self.source.name(subject), &answer);
                    return Ok(answer);
                }
            }
        }
        Err(SearchStop::Trouble(format!("{}, {ATTEMPTS} times: {trouble}", self.source.name(subject))))
    }
}

/// How guests were lost.
#[derive(Default)]
struct Losses(Vec<Loss>);

impl Reporter for Losses {
    fn event(&mut self, stamped: &Stamped, _record: &RunRecord) -> Result<(), FileError> {
        if let Event::GuestLost { kind, message, .. } = &stamped.event {
            self.0.push((*kind, message.clone()));
        }
        Ok(())
    }
}
