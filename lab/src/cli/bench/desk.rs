//! `lab bench desk`.

use super::{
    call::Caller,
    served::{nobody_serves, served, were_held},
};
use crate::{
    bench::{
        boot::seconds,
        desk::{DeskBench, DeskRound, DeskStep, DeskSubject},
    },
    error::Error,
    guests::Guests,
    project::{
        Project,
        filter::{CellFilter, KernelFilter},
        home::Home,
        select::{build, select_cells},
    },
};
use clap::Args;
use lab_base::say::{say, show};
use lab_protocol::CellId;
use lab_record::{
    exit::Exit,
    plan::{Expectation, Plan},
};
use lab_report::results::directory;
use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    thread::available_parallelism,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct DeskArgs {
    /// Kernels by id, of which the last is measured; a stock virtme-ng must be able to boot it, unless --stock is 0. Default: the
    /// generic builds of the default matrix.
    #[arg(short, long, value_name = "GLOB")]
    kernel: Vec<String>,
    /// The cell, or the case or number whose first cell is run. Default: the first cell that runs on the kernel.
    #[arg(short, long, value_name = "GLOB")]
    case: Vec<String>,
    /// Number of runs with nothing changed, and of runs that do not look for changes.
    #[arg(long, value_name = "N", default_value = "10", value_parser = crate::cli::args::count::<NonZeroU32>)]
    repeat: NonZeroU32,
    /// Number of edits of an eBPF program and of edits of a case, each with a run; 0 edits nothing. A source is changed meanwhile,
    /// and has its content again when the program ends.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = crate::cli::args::within(0, 1000))]
    edits: u32,
    /// Number of stock boots (`vng --exec true`) that the times are compared with.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = crate::cli::args::within(0, 1000))]
    stock: u32,
}

/// Kernels that stock vng can boot.
const KERNELS: &str = "*-generic";
/// File name in the project's results directory.
const FILE: &str = "bench-desk.json";

/// A source that is edited, and what is appended for the edit with a number: something that is kept in the build.
struct EditedSource {
    step: DeskStep,
    path: &'static str,
    text: fn(u32) -> String,
}

const EDITED: [EditedSource; 2] = [
    EditedSource {
        step: DeskStep::EbpfEdited,
        path: "ebpf/src/count.rs",
        text: |number| format!("\n#[classifier]\nfn bench_desk(_: TcContext) -> i32 {{\n    {number}\n}}\n"),
    },
    EditedSource {
        step: DeskStep::CaseEdited,
        path: "crates/suite/src/areas/redirect/delivery.rs",
        text: |number| format!("\n#[used]\nstatic BENCH_DESK: u32 = {number};\n"),
    },
];

pub(super) fn desk(named: Option<PathBuf>, args: &DeskArgs) -> Result<Exit, Error> {
    let project = Project::open(named)?;
    nobody_serves(project.cache.root())?;
    let patterns = if args.kernel.is_empty() { vec![KERNELS.to_owned()] } else { args.kernel.clone() };
    let kernels = project.kernels_for_programs(&KernelFilter { kernel: patterns, ..KernelFilter::default() })?;
    let kernel = *kernels.last().ok_or(Error::NothingSelected)?;
    let selected = build(&project, false, false)?;
    let wanted = select_cells(&selected.cells, &CellFilter { case: args.case.clone(), ..CellFilter::default() })?;
    let guests = Guests::open(&project, &[kernel], &selected)?;
    let plan = Plan::new(guests.facts(), wanted, false);
    let runs = |id: &&CellId| {
        plan.kernels.iter().all(|it| it.cell(id).is_some_and(|cell| cell.expectation == Expectation::Run))
    };
    let cell = plan.cells.iter().map(|info| &info.id).find(runs).ok_or(Error::NothingSelected)?.clone();

    let scratch = lab_vm::scratch()?;
    let desk = Desk { lab: Caller::new(&project.root)?, kernel: &kernel.id, cell: &cell, results: scratch.path() };
    // Making the snapshot is not part of a rerun.
    desk.run(false)?;
    let mut stock = Vec::new();
    if args.stock > 0 {
        guests.stock(&kernel.id)?.prove()?;
    }
    for number in 1..=args.stock {
        let took = seconds(guests.stock(&kernel.id)?.boot()?.took);
        say(&format!("stock boot {number} of {}: {took:.2} s", args.stock));
        stock.push(took);
    }
    let mut rounds = Vec::new();
    for _ in 0..args.repeat.get() {
        rounds.push(DeskRound { step: DeskStep::Unchanged, seconds: desk.run(false)? });
        rounds.push(DeskRound { step: DeskStep::NoBuild, seconds: desk.run(true)? });
    }
    rounds.extend(held(&project, &desk, args.repeat.get())?);
    if args.edits > 0 {
        rounds.extend(edited(&project, &desk, args.edits)?);
    }

    let subject = DeskSubject {
        accelerator: guests.accelerator(),
        qemu: guests.qemu(),
        processors: available_parallelism().map_or(1, usize::from),
        kernel: kernel.id.to_string(),
        cell: cell.to_string(),
    };
    let bench = DeskBench::new(subject, stock, rounds);
    let results = project.root.join("results");
    let path = results.join(FILE);
    let text = serde_json::to_string_pretty(&bench).map_err(|error| Error::Host(error.to_string()))?;
    fs::create_dir_all(&results).map_err(Error::file("create", &results))?;
    directory::replace(&path, text.as_bytes())?;
    show(format_args!("{}\n{}\n", bench.table(), path.display()))?;
    Ok(Exit::Passed)
}

/// Runs the cell in guests that are held, each time as soon as there are as many as there are to be.
fn held(project: &Project, desk: &Desk<'_>, repeat: u32) -> Result<Vec<DeskRound>, Error> {
    served(project.cache.root(), |ready| {
        let mut rounds = Vec::new();
        desk.run(true)?;
        for _ in 0..repeat {
            for (step, no_build) in [(DeskStep::Held, false), (DeskStep::HeldNoBuild, true)] {
                ready.after(1, rounds.len())?;
                rounds.push(DeskRound { step, seconds: desk.run(no_build)? });
                were_held(desk.results)?;
            }
        }
        Ok(rounds)
    })
}

/// Edits each source as often as asked, and runs the cell after each edit.
fn edited(project: &Project, desk: &Desk<'_>, edits: u32) -> Result<Vec<DeskRound>, Error> {
    let root = match &project.home {
        Home::Checkout(root) if EDITED.iter().all(|source| root.join(source.path).is_file()) => root,
        _ => {
            say("no edit is measured: this lab has no sources of what guests run; --edits 0 says that none is wanted");
            return Ok(Vec::new());
        }
    };
    let mut rounds = Vec::new();
    for EditedSource { step, path, text } in EDITED {
        let source = Restored::read(root.join(path))?;
        for number in 1..=edits {
            source.append(&text(number))?;
            let seconds = desk.run(false)?;
            say(&format!("{}, {number} of {edits}: {seconds:.2} s", step.told()));
            rounds.push(DeskRound { step, seconds });
        }
        drop(source);
        // What was built of the edited source must not be taken for a build of this one.
        build(project, false, false)?;
    }
    Ok(rounds)
}

/// One cell on one kernel.
struct Desk<'a> {
    lab: Caller,
    kernel: &'a str,
    cell: &'a CellId,
    /// Directory for results.
    results: &'a Path,
}

impl Desk<'_> {
    /// Runs the cell as a person does; gives the seconds until the program's exit.
    fn run(&self, no_build: bool) -> Result<f64, Error> {
        let out = self.results.to_string_lossy();
        let mut words = vec!["run", "--kernel", self.kernel, "--case", self.cell.as_str(), "--out", &out];
        words.extend(no_build.then_some("--no-build"));
        self.lab.timed(words).map(seconds)
    }
}

/// A file that has its content again once this is dropped.
struct Restored {
    path: PathBuf,
    content: String,
}

impl Restored {
    fn read(path: PathBuf) -> Result<Self, Error> {
        let content = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
        Ok(Self { path, content })
    }

    /// Gives it this text behind its content.
    fn append(&self, text: &str) -> Result<(), Error> {
        fs::write(&self.path, format!("{}{text}", self.content)).map_err(Error::file("write", &self.path))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.content) {
            say(&format!("cannot restore {}: {error}; `git checkout` it", self.path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_that_are_edited_have_what_the_edits_use() {
        let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        let read = |source: &EditedSource| fs::read_to_string(root.join(source.path)).unwrap();
        let [ebpf, case] = &EDITED;
        assert!(read(ebpf).contains("use aya_ebpf::{macros::classifier, programs::TcContext};"));
        assert!(!read(case).contains("BENCH_DESK"), "an edit was not taken back");
    }

    #[test]
    fn a_source_has_its_content_again_whatever_happens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("source.rs");
        fs::write(&path, "fn one() {}\n").unwrap();
        let source = Restored::read(path.clone()).unwrap();
        source.append("two").unwrap();
        source.append("three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "fn one() {}\nthree");
        drop(source);
        assert_eq!(fs::read_to_string(&path).unwrap(), "fn one() {}\n");
    }
}
