//! The streams of this process, for the programs of a run.

use super::{
    sink::{OutputSink, Prefix, SinkTarget},
    source::{InputSource, Next},
    suite::SuiteCells,
};
use crate::shell::terminal::{Keyboard, RawMode, Screen, Shown};
use lab_base::lock::lock;
use lab_guard::Id;
use lab_protocol::{
    CellInfo, CellJob, Raw, Work,
    shell::{Size, Stream},
    witness::MARKER,
    work::Inherit,
    world::{ARTIFACTS, ARTIFACTS_AT},
};
use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    sync::Mutex,
};

/// How output is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// As the program writes it: there is one.
    Plain,
    /// Line by line, each behind its [`label`].
    Prefixed {
        /// Characters of the longest one.
        width: usize,
    },
}

/// The environment of this process.
fn variables() -> Vec<(Raw, Raw)> {
    let raw = |text: OsString| Raw::from(text.as_encoded_bytes());
    std::env::vars_os().map(|(name, value)| (raw(name), raw(value))).collect()
}

/// What lines of a cell on a kernel begin with: `6.12`, or `6.12 pods,nk-l3` where it has variants.
pub fn label(kernel: &Id, info: &CellInfo) -> String {
    match info.id.as_str().split_once('[') {
        Some((_, variant)) => format!("{kernel} {}", variant.trim_end_matches(']')),
        None => kernel.to_string(),
    }
}

/// The streams of this process, for the programs of a run.
pub struct Streams {
    show: Show,
    sinks: [Mutex<OutputSink>; 2],
    /// Opened for the first program that reads.
    source: Mutex<Feed>,
    terminal: Option<Mutex<Seat>>,
    /// The caller's environment.
    variables: Vec<(Raw, Raw)>,
    /// Cells whose output is that of a suite.
    pub(super) suite: SuiteCells,
}

/// Standard input, before and after its first use.
enum Feed {
    Closed(Option<Box<dyn HostInput>>),
    Open(InputSource),
}

/// What input is read from.
pub trait HostInput: Read + AsFd + Send {}

impl<T: Read + AsFd + Send> HostInput for T {}

/// The person's terminal.
struct Seat {
    keyboard: OwnedFd,
    screen: Screen,
    raw: Option<RawMode>,
    shown: Shown,
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("show", &self.show).finish_non_exhaustive()
    }
}

impl Streams {
    /// Streams over any files.
    pub fn new(
        show: Show,
        (output, errors): (impl SinkTarget + 'static, impl SinkTarget + 'static),
        input: Option<Box<dyn HostInput>>,
        variables: Vec<(Raw, Raw)>,
    ) -> Self {
        Self {
            show,
            sinks: [Mutex::new(OutputSink::new(output)), Mutex::new(OutputSink::new(errors))],
            source: Mutex::new(Feed::Closed(input)),
            terminal: None,
            variables,
            suite: SuiteCells::default(),
        }
    }

    /// Streams for commands whose output is kept in files only, and which read nothing.
    ///
    /// # Errors
    /// `/dev/null` can't be opened.
    pub fn silent() -> io::Result<Self> {
        let null = || File::options().write(true).open("/dev/null");
        Ok(Self::new(Show::Plain, (null()?, null()?), None, variables()))
    }

    /// Those of this process; with `screen`, programs run in a terminal that follows this one.
    ///
    /// # Errors
    /// `dup` failed.
    pub fn of_process(show: Show, screen: Option<Screen>) -> io::Result<Self> {
        let file = |descriptor: &dyn AsFd| descriptor.as_fd().try_clone_to_owned().map(File::from);
        let (output, errors) = (file(&io::stdout())?, file(&io::stderr())?);
        // A closed standard input is an empty one.
        let input = file(&io::stdin()).ok();
        let keyboard = input.as_ref().map(File::try_clone).transpose()?;
        let input = input.map(|file| Box::new(file) as Box<dyn HostInput>);
        let streams = Self::new(show, (output, errors), input, variables());
        let terminal = screen.zip(keyboard).map(|(screen, keyboard)| {
            Mutex::new(Seat { keyboard: keyboard.into(), screen, raw: None, shown: Shown::default() })
        });
        Ok(Self { terminal, ..streams })
    }

    /// The same, for cells whose output is that of a suite.
    #[must_use]
    pub fn reading(self, suite: SuiteCells) -> Self {
        Self { suite, ..self }
    }

    /// The suite's part of a cell.
    pub fn suite(&self, info: &CellInfo) -> Option<&super::suite::SuiteCell> {
        self.suite.get(&info.id)
    }

    /// A cell as the guest gets it: with the caller's environment, which no report holds. The guest is `scale` times slower than one
    /// under KVM.
    pub fn job(&self, kernel: &Id, info: &CellInfo, scale: f32) -> CellJob {
        let mut work = info.work.clone();
        if let Work::Program(program) = &mut work {
            let is_stated = |name: &Raw| program.env.iter().any(|(stated, _)| stated == name);
            let is_wanted = |name: &Raw| match &program.inherit {
                Inherit::All => true,
                Inherit::Named(names) => names.iter().any(|wanted| wanted.as_bytes() == name.as_bytes()),
            };
            let own = [
                ("LAB_KERNEL", kernel.to_string()),
                ("LAB_CELL", info.id.to_string()),
                ("LAB_MARK", MARKER.to_owned()),
            ];
            let out = program.world.iter().flat_map(|world| &world.mounts).any(|mount| mount.export == ARTIFACTS);
            let out = out.then(|| ("LAB_ARTIFACTS", ARTIFACTS_AT.to_owned()));
            let own = own.into_iter().chain(out).map(|(name, value)| (Raw::from(name), Raw::from(&*value)));
            let inherited = self.variables.iter().filter(|(name, _)| is_wanted(name)).cloned().chain(own);
            let inherited: Vec<(Raw, Raw)> = inherited.filter(|(name, _)| !is_stated(name)).collect();
            program.env.splice(..0, inherited);
        }
        if let Some(cell) = self.suite.get(&info.id) {
            cell.prepare(&mut work, kernel.as_str(), scale);
        }
        let requires = if work.is_case() { Vec::new() } else { info.requires.clone() };
        CellJob { cell: info.id.clone(), work, requires }
    }

    /// Waits until everything that programs wrote is written.
    pub fn finish(&self) {
        self.sinks.iter().for_each(|sink| lock(sink).finish());
    }

    /// One of the two output streams.
    pub(super) fn sink(&self, stream: Stream) -> std::sync::MutexGuard<'_, OutputSink> {
        lock(&self.sinks[usize::from(stream == Stream::Error)])
    }

    /// What comes before each line of a cell on a kernel.
    pub(super) fn prefix(&self, kernel: &Id, info: &CellInfo) -> Option<Prefix> {
        match self.show {
            Show::Plain => None,
            Show::Prefixed { width } => {
                let name = label(kernel, info);
                Some(Prefix::new(format!("{name:<width$}")))
            }
        }
    }

    /// The next piece of input; the first call opens it.
    pub(super) fn input(&self) -> Next {
        let mut feed = lock(&self.source);
        if let Feed::Closed(input) = &mut *feed {
            match input.take() {
                Some(input) => *feed = Feed::Open(InputSource::new(input)),
                // Nobody typed here, or an earlier attempt has read it.
                None => return Next::Over,
            }
        }
        match &*feed {
            Feed::Open(source) => source.next(),
            Feed::Closed(_) => Next::Over,
        }
    }

    /// Whether programs have a terminal.
    pub(super) const fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// From now on every key is the program's.
    pub(super) fn begin_terminal(&self) {
        if let Some(seat) = &self.terminal {
            let mut seat = lock(seat);
            seat.raw = Keyboard::new(seat.keyboard.as_fd()).raw();
        }
    }

    /// Restores the terminal. A program that was lost has not put its modes right.
    pub(super) fn end_terminal(&self, orderly: bool) {
        let Some(seat) = &self.terminal else { return };
        let mut seat = lock(seat);
        if let Some(raw) = seat.raw.take()
            && !orderly
        {
            raw.end(&seat.shown);
        }
    }

    /// The terminal's new size, if it has changed.
    pub(super) fn resized(&self) -> Option<Size> {
        self.terminal.as_ref().and_then(|seat| lock(seat).screen.changed())
    }

    /// The program wrote to the terminal.
    pub(super) fn shown(&self, bytes: &[u8]) {
        if let Some(seat) = &self.terminal {
            lock(seat).shown.write(bytes);
        }
    }
}
