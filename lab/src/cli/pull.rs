//! `lab pull`.

use super::{Cli, Command, run};
use crate::{
    error::Error,
    project,
    pull::{JobBatch, JobQueue, PreparedJob, PullError, PullJob, Web},
};
use clap::{Args, Parser};
use lab_base::{
    file::{self, FileError},
    interrupt::Interrupt,
    say::say,
    text,
};
use lab_record::{exit::Exit, log};
use lab_report::{kcidb, results::directory};
use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// The token of submissions, as KernelCI's own programs name it.
const TOKEN: &str = "KCIDB_JWT";
/// In a job's directory: the report to submit, and what became of the job. A job with the latter is not run again.
const REPORT: &str = "kcidb.json";
const DONE: &str = "done";
/// In the directory of all jobs: the time of the last event.
const SINCE: &str = "since";
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Address of the API that has the events of jobs, for example https://api.kernelci.org/latest.
    #[arg(long, value_name = "URL")]
    queue: String,
    /// This lab's name in KernelCI (runtime): only jobs for it are run.
    #[arg(long, value_name = "NAME")]
    runtime: String,
    /// Only jobs for this platform.
    #[arg(long, value_name = "NAME")]
    platform: Option<String>,
    /// Address that takes KCIDB reports, with the token in KCIDB_JWT. Without it reports are only written.
    #[arg(long, value_name = "URL")]
    submit: Option<String>,
    /// Name of this CI system in KernelCI's database.
    #[arg(long, value_name = "NAME", default_value = kcidb::ORIGIN, value_parser = kcidb::origin)]
    origin: String,
    /// Name of the CI system that submits the builds of the jobs.
    #[arg(long, value_name = "NAME", default_value = "maestro", value_parser = kcidb::origin)]
    build_origin: String,
    /// Ask once, run what waits, and end. Exit code 3: a job has no result.
    #[arg(long)]
    once: bool,
    /// Time between two questions.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Directory of the jobs, a directory for each. Default: pull/ in the project's results.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Use the existing builds of the agent and the eBPF object.
    #[arg(long)]
    no_build: bool,
}

pub(super) fn pull(named: Option<PathBuf>, args: &PullArgs) -> Result<Exit, Error> {
    let home = match &args.out {
        Some(out) => out.clone(),
        None => project::root(named.clone())?.join("results/pull"),
    };
    fs::create_dir_all(&home).map_err(Error::file("create", &home))?;
    let puller = Puller {
        web: Web::new()?,
        queue: JobQueue { url: args.queue.clone(), runtime: args.runtime.clone(), platform: args.platform.clone() },
        project: named,
        home,
        args,
    };
    loop {
        match puller.round() {
            Ok(exit) if args.once => return Ok(exit),
            Ok(_) => {}
            // A queue that is away comes back.
            Err(Error::Pull(error)) if !args.once && error.is_transient() && Interrupt::raised().is_none() => {
                say(&format!("{error}; asking again in {}", humantime::format_duration(args.every)));
            }
            Err(error) => return Err(error),
        }
        let next = Instant::now() + args.every;
        while Instant::now() < next {
            if let Some(signal) = Interrupt::raised() {
                return Ok(Exit::Interrupted(signal));
            }
            thread::sleep(POLL);
        }
    }
}

struct Puller<'a> {
    web: Web,
    queue: JobQueue,
    project: Option<PathBuf>,
    home: PathBuf,
    args: &'a PullArgs,
}

impl Puller<'_> {
    /// Asks the queue, and runs its jobs.
    fn round(&self) -> Result<Exit, Error> {
        let since = self.home.join(SINCE);
        let from = lab_guard::bounded::text(&since).ok();
        let JobBatch { jobs, refused, until } = self.queue.ask(self.web, from.as_deref(), &self.home)?;
        refused.iter().for_each(|error| say(&error.to_string()));
        let (mut lost, mut again) = (refused.len(), false);
        for job in jobs.iter().filter(|job| !self.place(job).join(DONE).exists()) {
            let Err(error) = self.work(job) else { continue };
            if Interrupt::raised().is_some() {
                return Err(error);
            }
            say(&format!("job {}: {error}", job.node));
            lost += 1;
            if is_final(&error) {
                self.note(job, &error.to_string())?;
            } else {
                again = true;
            }
        }
        // Where a job is to be tried again, its event is asked for again.
        if let Some(until) = until.filter(|_| !again) {
            file::replace(&since, until.as_bytes()).map_err(Error::file("write", &since))?;
        }
        Ok(if lost > 0 { Exit::Infra } else { Exit::Passed })
    }

    fn place(&self, job: &PullJob) -> PathBuf {
        self.home.join(job.node.as_str())
    }

    /// Notes what became of a job.
    fn note(&self, job: &PullJob, what: &str) -> Result<(), Error> {
        let path = self.place(job).join(DONE);
        file::replace(&path, format!("{what}\n").as_bytes()).map_err(Error::file("write", path))
    }

    /// Runs a job and submits its report. A report that is there already only failed to be submitted.
    fn work(&self, job: &PullJob) -> Result<(), Error> {
        let report = self.place(job).join(REPORT);
        if !report.exists() {
            say(&format!("job {}: {}", job.node, text::line(&job.definition, 200)));
            let prepared = job.prepare(self.web, &self.place(job))?;
            self.run(job, &prepared, &report)?;
        }
        match &self.args.submit {
            Some(url) => {
                self.web.post(url, &report, env::var(TOKEN).ok().as_deref())?;
                say(&format!("job {}: submitted", job.node));
                self.note(job, "submitted")
            }
            None => self.note(job, "not submitted: there was no --submit"),
        }
    }

    fn run(&self, job: &PullJob, prepared: &PreparedJob, report: &Path) -> Result<(), Error> {
        let out = self.place(job).join("results");
        let option = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let mut words = vec!["lab".to_owned(), "run".to_owned(), option("image", &prepared.image.display())];
        words.extend(prepared.modules.iter().map(|modules| option("modules", &modules.display())));
        words.extend(prepared.cases.iter().map(|case| option("case", case)));
        words.extend(prepared.timeout_s.iter().map(|seconds| option("deadline", &format!("run={seconds}s"))));
        words.push(option("out", &out.display()));
        words.extend(self.args.no_build.then(|| "--no-build".to_owned()));
        let parsed = Cli::try_parse_from(words).map_err(|error| Error::Usage(text::line(&error.to_string(), 300)))?;
        let Command::Run(run) = parsed.command else {
            return Err(Error::Usage("a job is a run, and nothing else".to_owned()));
        };
        if let interrupted @ Exit::Interrupted(_) = run::run(self.project.clone(), &run)? {
            return Err(Error::Host(format!("ended with {}", interrupted.code())));
        }
        let record = log::read(&out.join(directory::LATEST))?;
        let text = job.submission(&kcidb::render(&record, &self.args.origin), &self.args.build_origin);
        let text = text.map_err(|error| Error::Host(error.to_string()))?;
        file::replace(report, text.as_bytes()).map_err(|error| FileError::of("write", report)(error).into())
    }
}

/// Whether another attempt would end in the same way.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Pull(error) => !error.is_transient() && !matches!(error, PullError::Token(_)),
        error => matches!(error.exit(), Exit::Usage | Exit::Nothing),
    }
}
