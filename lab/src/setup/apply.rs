//! `lab setup`: brings about what is missing, in order, and says what takes how long.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::{
    apt::{self, Privilege},
    catalogue::checks,
    check::{Check, Fix, Purpose, State},
    error::SetupError,
    host::Host,
    private::Set,
    progress::Progress,
    report::{Finding, Report},
    tools::Tools,
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Install all missing Debian packages at once.
    Packages(Vec<&'static str>),
    /// Unpack packages into the cache.
    Unpack(&'static Set),
    /// Install the pinned virtme-ng.
    VirtmeNg,
    /// Build the pinned bpf-linker.
    BpfLinker,
    /// Install what only the tests start.
    TestTools,
    /// Build the pinned cargo-deny.
    CargoDeny,
}

impl Step {
    /// What it is, and what is done with it for about how long on two cores.
    fn announcement(&self) -> (String, String) {
        match self {
            Self::Packages(names) => {
                ("Debian packages".into(), format!("installing {} ({}), about 30 s", names.len(), names.join(" ")))
            }
            Self::Unpack(set) => (format!("{}, into the cache", set.label), "reading the package index".into()),
            Self::VirtmeNg => ("virtme-ng 1.42".into(), "installing, about 10 s".into()),
            Self::BpfLinker => ("bpf-linker 0.13.0".into(), "building, about 90 s".into()),
            Self::CargoDeny => ("cargo-deny 0.20.2".into(), "building, about 100 s".into()),
            Self::TestTools => ("readers of the reports, for the tests".into(), "installing, about 30 s".into()),
        }
    }

    fn log_name(&self) -> &'static str {
        match self {
            Self::Packages(_) => "packages",
            Self::Unpack(set) => set.name,
            Self::VirtmeNg => "virtme-ng",
            Self::BpfLinker => "bpf-linker",
            Self::TestTools => "test-tools",
            Self::CargoDeny => "cargo-deny",
        }
    }

    fn run(
        &self,
        tools: &Tools,
        privilege: Privilege,
        log: &Path,
        progress: &mut Progress<'_>,
    ) -> Result<(), SetupError> {
        match self {
            Self::Packages(names) => apt::install(names, privilege, log),
            Self::Unpack(set) => tools.unpack(set, progress),
            Self::VirtmeNg => tools.install_virtme_ng(log),
            Self::BpfLinker => tools.install_bpf_linker(log),
            Self::TestTools => tools.install_test_tools(log),
            Self::CargoDeny => tools.install_cargo_deny(log),
        }
    }
}

/// Where setup puts what the distribution has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the cache, which changes nothing of the host.
    #[default]
    Cache,
    /// On the host, by its package manager.
    System,
}

/// What only a person can install: all of it at once, so that one command does.
#[derive(Debug, Default)]
struct ByHand {
    names: Vec<&'static str>,
    absent: Vec<&'static str>,
}

impl ByHand {
    fn add(&mut self, name: &'static str, absent: Vec<&'static str>) {
        self.names.push(name);
        let new: Vec<_> = absent.into_iter().filter(|it| !self.absent.contains(it)).collect();
        self.absent.extend(new);
    }

    fn error(&self, host: &Host) -> Result<(), SetupError> {
        let Some(name) = self.names.first() else { return Ok(()) };
        let found = format!("{} missing", self.absent.join(", "));
        Err(SetupError::ByHand { name, found, advice: host.distribution.advice(&self.absent) })
    }
}

/// What setup would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In order; empty where everything is there.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Plans for a machine.
    ///
    /// # Errors
    /// [`SetupError::ByHand`] for the first finding that only a person can mend: nothing else is worth its time before.
    pub fn of(host: &Host, purpose: Purpose, place: Place) -> Result<Self, SetupError> {
        let mut packages = Vec::new();
        let mut sets = Vec::new();
        let mut tools = Vec::new();
        let mut by_hand = ByHand::default();
        for Check { name, probe, fix, .. } in checks(purpose, host.installed) {
            match ((probe)(host), fix) {
                (State::Ok { .. } | State::Warn { .. }, _) => {}
                (State::Unfit { found, advice }, _) => {
                    by_hand.error(host)?;
                    return Err(SetupError::ByHand { name, found, advice });
                }
                (State::Missing { .. }, Fix::Packages { set: Some(set), .. })
                    if host.on_debian() && place == Place::Cache =>
                {
                    if !sets.contains(&set) {
                        sets.push(set);
                    }
                }
                (State::Missing { absent }, Fix::Packages { .. }) if host.on_debian() => packages.extend(absent),
                (State::Missing { .. }, Fix::VirtmeNg) => tools.push(Step::VirtmeNg),
                (State::Missing { .. }, Fix::BpfLinker) => tools.push(Step::BpfLinker),
                (State::Missing { .. }, Fix::CargoDeny) => tools.push(Step::CargoDeny),
                (State::Missing { .. }, Fix::TestTools) => tools.push(Step::TestTools),
                (State::Missing { absent }, _) => by_hand.add(name, absent),
            }
        }
        by_hand.error(host)?;
        let packages = (!packages.is_empty()).then_some(Step::Packages(packages));
        Ok(Self { steps: packages.into_iter().chain(sets.into_iter().map(Step::Unpack)).chain(tools).collect() })
    }
}

/// Makes this machine ready, writing a line per step to `out`, and what is known to be weak about the result. Where
/// nothing is missing it only looks, and writes nothing.
///
/// # Errors
/// The first step's failure; later steps are not tried.
pub fn setup(purpose: Purpose, place: Place, out: &mut dyn Write) -> Result<Report, SetupError> {
    let tools = Tools::in_cache(&lab_base::paths::cache_dir()?);
    let host = Host::look(&tools);
    if Plan::of(&host, purpose, place)?.steps.is_empty() {
        return Ok(Report::of(&host, purpose));
    }
    let _lock = tools.lock()?;
    // Another setup may have done the work while this one waited.
    let plan = Plan::of(&Host::look(&tools), purpose, place)?;
    let privilege = Privilege::of_this_process();
    for (index, step) in plan.steps.iter().enumerate() {
        if let Step::Packages(names) = step {
            privilege.or_name_command(names)?;
        }
        let started = Instant::now();
        let (label, doing) = step.announcement();
        let label = format!("[{}/{}] {label}", index + 1, plan.steps.len());
        let mut progress = Progress::new(out, lab_base::say::is_said_to_people(), label);
        progress.begin(&doing);
        let result = step.run(&tools, privilege, &tools.log(step.log_name()), &mut progress);
        let elapsed = started.elapsed().as_secs();
        progress.end(&format!("{} {elapsed} s", if result.is_ok() { "done in" } else { "failed after" }));
        result?;
    }
    tools.clear_downloads()?;
    let report = Report::of(&Host::look(&tools), purpose);
    if let Some(finding) = report.findings.iter().find(|finding| !finding.usable()) {
        return Err(SetupError::StillMissing { name: finding.name, found: finding.found.clone() });
    }
    for Finding { name, found, fix, .. } in &report.findings {
        if let Some(advice) = fix {
            say(out, format_args!("note: {name} {found}: {advice}\n"));
        }
    }
    Ok(report)
}

/// Progress is a courtesy: a closed terminal must not stop an installation half-way.
fn say(out: &mut dyn Write, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}
