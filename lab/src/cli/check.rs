//! `lab check`.

use super::args::{KernelArgs, OutputArgs};
use crate::{
    check::{
        AskedLoader, Beside, Bundles, CheckAnswer, CheckInput, CheckPlan, ChosenLoader, Earlier, answers, choose,
        inputs, json, predict, told,
    },
    error::Error,
    guests::{GuestOptions, Guests, Order, Talk, machine::Shape},
    project::{Project, absolute, select::Selected},
    run::{program::Streams, queue::Isolate},
};
use clap::{Args, Parser};
use lab_base::say::{say, show};
use lab_check::CheckFault;
use lab_kernel_store::Kernel;
use lab_protocol::{CellInfo, Raw, witness::PRELOAD};
use lab_record::{exit::Exit, plan::Plan};
use sha2::{Digest, Sha256};
use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Time for one object on one kernel: the verifier takes more than a minute for its limit in an emulated guest.
const TIMEOUT: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    kernels: KernelArgs,
    /// The objects: ELF files for BPF, as clang, rustc or bpftool write them.
    #[arg(required = true, value_name = "OBJECT")]
    objects: Vec<PathBuf>,
    /// What the objects need and what is expected of them. Default: OBJECT.check.toml or check.toml beside each object.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Boot nothing: tell what the type information and the configuration of the kernels in the cache say against the objects. A
    /// prediction is no verdict: the exit code is 0.
    #[arg(long)]
    predict: bool,
    /// Compare with an earlier run: its name in results/, its directory, or `yesterday` for the newest check from before today. What
    /// got worse fails the check.
    #[arg(long, value_name = "RUN", conflicts_with = "predict")]
    against: Option<PathBuf>,
    /// Load the objects by this loader too, and tell where it differs from libbpf: aya, tc, bpftool, or `cmd:PROGRAM ARGUMENTS` for a
    /// program of yours that takes the object as its last argument or in place of {}; repeatable.
    #[arg(long, value_name = "LOADER", conflicts_with = "predict")]
    loader: Vec<AskedLoader>,
    /// A fault of the check itself, which must be noticed.
    #[arg(long, value_name = "NAME", hide = true, value_parser = fault)]
    mutant: Option<CheckFault>,
    /// Findings fail the check too: hooks or kernels that disagree, programs that never ran.
    #[arg(long)]
    strict: bool,
    /// Memory of the guests: 512M, 2G. Default: 1G, or what kernels.toml has for the kernel if that is more.
    #[arg(long, value_name = "SIZE", value_parser = super::args::memory)]
    memory: Option<u32>,
    /// End an object's check on a kernel after this time: 90, 5m.
    #[arg(long, value_name = "TIME", value_parser = super::args::time)]
    timeout: Option<Duration>,
    /// Boot every guest. By default, guests are restored from snapshots of booted guests.
    #[arg(long)]
    cold: bool,
    /// Maximum number of parallel guests. Default: one per processor, limited by memory.
    #[arg(short, long, value_name = "N", value_parser = super::args::size)]
    jobs: Option<std::num::NonZeroUsize>,
    /// Which objects share a guest.
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    isolate: Isolate,
    /// Never build the agent, the eBPF objects and the loader.
    #[arg(long)]
    no_build: bool,
    /// Directory for results. Default: results/exec/ in the project.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

fn fault(name: &str) -> Result<CheckFault, UnknownFault> {
    CheckFault::named(name).ok_or(UnknownFault)
}

/// No fault of the check has the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such fault of the check; they are {}", CheckFault::ALL.map(CheckFault::name).join(", "))]
struct UnknownFault;

/// First of the words by which a run says that it was a check.
pub(super) const WORD: &str = lab_record::run::CHECK;

pub(super) fn check(named: Option<PathBuf>, args: &CheckArgs) -> Result<Exit, Error> {
    run(named, args, |plan| plan)
}

/// Runs a check of an earlier run again, on the kernels of `narrow`.
pub(super) fn again(
    named: Option<PathBuf>,
    kernels: &[String],
    words: &[Raw],
    narrow: impl FnOnce(Plan) -> Plan,
) -> Result<Exit, Error> {
    let words = words.iter().map(|word| OsString::from_vec(word.0.clone()));
    let names = kernels.iter().flat_map(|kernel| ["--kernel".into(), OsString::from(kernel)]);
    let line = std::iter::once(OsString::from("lab")).chain(words).chain(names);
    let parsed = super::Cli::try_parse_from(line).map_err(|error| Error::Usage(error.to_string()))?;
    match parsed.command {
        super::Command::Check(args) => run(named, &args, narrow),
        _ => Err(Error::Usage("the run does not say how it was started".to_owned())),
    }
}

/// The words that `lab rerun` needs; paths hold from every directory.
fn words(args: &CheckArgs) -> Result<Vec<Raw>, Error> {
    let mut words: Vec<OsString> = vec![WORD.into()];
    let mut option = |name: &str, value: Option<OsString>| {
        if let Some(value) = value {
            words.extend([name.into(), value]);
        }
    };
    option("--config", args.config.as_deref().map(absolute).transpose()?.map(Into::into));
    option("--memory", args.memory.map(|mib| format!("{mib}M").into()));
    option("--against", args.against.as_deref().filter(|run| run.is_dir()).map(absolute).transpose()?.map(Into::into));
    option("--timeout", args.timeout.map(|time| time.as_secs_f64().to_string().into()));
    for loader in &args.loader {
        words.extend(["--loader".into(), loader.word()?.into()]);
    }
    for object in &args.objects {
        words.push(absolute(object)?.into());
    }
    Ok(words.iter().map(|word| Raw::from(word.as_encoded_bytes())).collect())
}

fn run(named: Option<PathBuf>, args: &CheckArgs, narrow: impl FnOnce(Plan) -> Plan) -> Result<Exit, Error> {
    // Before anything is built or booted.
    let mut inputs = inputs(&args.objects, args.config.as_deref()).map_err(|error| Error::Usage(error.to_string()))?;
    inputs.iter_mut().for_each(|input| input.config.order.fault = args.mutant);
    let loaders = choose(&args.loader)?;
    let project = Project::open(named)?;
    let kernels = project.kernels_for_programs(&args.kernels.filter())?;
    if args.predict {
        return predicted(&project, &kernels, &inputs, &args.output);
    }
    let results = args.results.clone().unwrap_or_else(|| project.root.join("results"));
    let earlier = args.against.as_deref().map(|run| Earlier::open(&results, run, WORD, &inputs)).transpose()?;
    project.ready()?;
    let builder = project.builder();
    let loader = if args.no_build { builder.existing_loader()? } else { builder.loader()? };
    let selected = super::exec::built(&project, args.no_build)?;
    let facts = kernels.iter().map(|kernel| project.facts(kernel)).collect::<Result<Vec<_>, _>>()?;
    let timeout = Some(args.timeout.unwrap_or(TIMEOUT));
    let CheckPlan { cells, world, bundles } =
        CheckPlan::new(&inputs, &facts, &loader, &loaders, timeout, project.cache.root())?;
    let streams = Streams::silent().map_err(Error::file("open", "/dev/null"))?;
    let how = GuestOptions {
        jobs: args.jobs,
        cold: args.cold,
        isolate: args.isolate,
        streams: Some(Arc::new(streams)),
        shape: shape(args.memory),
        exec: words(args)?,
        world: Some(world),
        ..GuestOptions::default()
    };
    let order = Order { how, out: args.results.clone(), talk: Talk::Guests };
    let selected = Selected { cells, every_cell: false, ..selected };
    let done = Guests::execute(&project, &kernels, selected, order, false, narrow)?;
    let kept = bundles.keep_artifacts(&done.name)?;
    let all = answers(&done.record, &done.name, &inputs);
    let ran: Vec<&Kernel> =
        kernels.iter().copied().filter(|kernel| all.iter().any(|answer| answer.kernel == *kernel.id)).collect();
    let changed = earlier.map(|earlier| (earlier.directory.display().to_string(), earlier.changed(&all)));
    let beside = Beside { predicted: compared(&project, &ran, &inputs, &all), changed };
    let told = told(&inputs, &all, &beside);
    if args.output.is_json() {
        super::args::show_json("objects", &json(&inputs, &all, &beside))?;
    } else {
        show(told.text)?;
        let logs = if kept > 0 { ", and the verifier's logs below verifier/" } else { "" };
        show(format_args!("{}: report.html{logs}\n", done.name.display()))?;
    }
    let exit = done.record.finished.map_or(Exit::Infra, |(exit, _)| exit);
    let changed = beside.changed.iter().flat_map(|(_, changed)| changed).flat_map(|it| &it.changes);
    let is_worse = changed.into_iter().any(|change| change.is_worse);
    let fails = args.strict && told.findings > 0 || is_worse;
    Ok(if exit == Exit::Passed && fails { Exit::Failed } else { exit })
}

fn shape(memory_mib: Option<u32>) -> Shape {
    // The same machine as `lab exec` has, and so the same snapshot.
    Shape { memory_mib, cmdline: vec![PRELOAD.to_owned()], ..Shape::of_programs() }
}

/// An object for `lab bisect`.
pub(super) struct Asked {
    pub cells: Vec<CellInfo>,
    pub how: GuestOptions,
    /// Of the object, the loader, and what is expected.
    pub digest: Vec<u8>,
    /// Files that exist as long as this value.
    pub bundles: Bundles,
}

/// One object as the question of a search. What its `check.toml` expects holds for the kernels of kernels.toml; of a commit it is
/// only expected that the object loads and attaches.
pub(super) fn question(project: &Project, object: &Path, no_build: bool) -> Result<Asked, Error> {
    let inputs = inputs(&[object.to_owned()], None).map_err(|error| Error::Usage(error.to_string()))?;
    project.ready()?;
    let builder = project.builder();
    let loader = if no_build { builder.existing_loader()? } else { builder.loader()? };
    // A kernel whose version is not known is none that the search can use.
    let facts: Vec<_> = project.config.kernels.iter().filter_map(|kernel| project.facts(kernel).ok()).collect();
    let mut digest = Sha256::new();
    for input in &inputs {
        digest.update(Sha256::digest(&input.bytes));
        digest.update(Sha256::digest(format!("{:?}", input.config)));
    }
    digest.update(Sha256::digest(loader.bytes().map_err(Error::file("read", loader.path()))?));
    let plan =
        CheckPlan::new(&inputs, &facts, &loader, &[ChosenLoader::libbpf()], Some(TIMEOUT), project.cache.root())?;
    let streams = Streams::silent().map_err(Error::file("open", "/dev/null"))?;
    let how = GuestOptions {
        streams: Some(Arc::new(streams)),
        world: Some(plan.world),
        shape: shape(None),
        isolate: Isolate::Case,
        ..GuestOptions::default()
    };
    Ok(Asked { cells: plan.cells, how, digest: digest.finalize().to_vec(), bundles: plan.bundles })
}

/// What the boots have shown of the predictions. A kernel that can't be read is no fault of the objects.
fn compared(
    project: &Project,
    kernels: &[&Kernel],
    inputs: &[CheckInput],
    answers: &[CheckAnswer],
) -> Option<predict::Compared> {
    let fetched = kernels.iter().map(|kernel| project.store().fetch(kernel, &project.lock, &|_| ()));
    let fetched = fetched.collect::<Result<Vec<_>, _>>().map_err(Error::from);
    match fetched.and_then(|fetched| predict::predict(inputs, &fetched, project.cache.root())) {
        Ok(predicted) => Some(predict::compare(&predicted, answers)),
        Err(error) => {
            say(&format!("no predictions: {error}"));
            None
        }
    }
}

/// What the kernels that are in the cache say against the objects.
fn predicted(
    project: &Project,
    kernels: &[&Kernel],
    inputs: &[CheckInput],
    output: &OutputArgs,
) -> Result<Exit, Error> {
    let is_cached = |kernel: &&&Kernel| project.store().is_cached(kernel, &project.lock);
    let (cached, others): (Vec<&Kernel>, Vec<&Kernel>) = kernels.iter().partition(is_cached);
    let fetched = cached.iter().map(|kernel| project.store().fetch(kernel, &project.lock, &|_| ()));
    let fetched = fetched.collect::<Result<Vec<_>, _>>()?;
    let found = predict::predict(inputs, &fetched, project.cache.root())?;
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|kernel| &*kernel.id).collect();
        say(&format!("not in the cache, and left out: {}; `lab kernels fetch` fetches kernels", names.join(", ")));
    }
    output.show("predicted", &found, || predict::table(&found))?;
    Ok(Exit::Passed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_recorded_with_paths_that_hold_from_every_directory() {
        let line = ["lab", "check", "--config", "Cargo.toml", "src/lib.rs", "/dev/null", "--timeout", "90"];
        let super::super::Command::Check(args) = super::super::Cli::try_parse_from(line).unwrap().command else {
            panic!("no check");
        };
        // Tests run in the directory of their package.
        let at = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join(name).display().to_string();
        let told: Vec<String> = words(&args).unwrap().iter().map(Raw::shown).collect();
        let wanted = [WORD, "--config", &at("Cargo.toml"), "--timeout", "90", &at("src/lib.rs"), "/dev/null"];
        assert_eq!(told, wanted);
    }
}
