//! `lab setup`: installs what is missing, in order, and reports the duration of each step.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use super::{
    apt::{self, Privilege},
    catalogue::checks,
    check::{CheckState, Fix, Purpose, SetupCheck},
    error::SetupError,
    host::Host,
    private::PackageSet,
    progress::Progress,
    report::{SetupFinding, SetupReport},
    tools::Tools,
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupStep {
    /// Install all missing Debian packages at once.
    Packages(Vec<&'static str>),
    /// Unpack packages into the cache.
    Unpack(&'static PackageSet),
    /// Install the pinned virtme-ng.
    VirtmeNg,
    /// Build the pinned bpf-linker.
    BpfLinker,
    /// Install what only the tests start.
    TestTools,
    /// Build the pinned cargo-deny.
    CargoDeny,
}

impl SetupStep {
    /// Label of the step, and its action with its approximate duration on two cores.
    fn announcement(&self) -> (String, String) {
        match self {
            Self::Packages(names) => {
                ("Debian packages".into(), format!("installing {} ({}), about 30 s", names.len(), names.join(" ")))
            }
            Self::Unpack(set) => (format!("{}, into the cache", set.label), "reading the package index".into()),
            Self::VirtmeNg => ("virtme-ng 1.42".into(), "installing, about 10 s".into()),
            Self::BpfLinker => ("bpf-linker 0.13.0".into(), "building, about 90 s".into()),
            Self::CargoDeny => ("cargo-deny 0.20.2".into(), "building, about 100 s".into()),
            Self::TestTools => ("report readers for the tests".into(), "installing, about 30 s".into()),
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

/// Where setup installs packages of the distribution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InstallPlace {
    /// In the cache, which changes nothing of the host.
    #[default]
    Cache,
    /// On the host, by its package manager.
    System,
}

/// The packages that the user must install, collected so that one command installs all of them.
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

/// The steps of a setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupPlan {
    /// In order; empty if nothing is missing.
    pub steps: Vec<SetupStep>,
}

impl SetupPlan {
    /// Plans for a machine.
    ///
    /// # Errors
    /// [`SetupError::ByHand`] for the first finding that only the user can fix: no step is worth starting before that.
    pub fn of(host: &Host, purpose: Purpose, place: InstallPlace) -> Result<Self, SetupError> {
        let mut packages = Vec::new();
        let mut sets = Vec::new();
        let mut tools = Vec::new();
        let mut by_hand = ByHand::default();
        for SetupCheck { name, probe, fix, .. } in checks(purpose, host.installed) {
            match ((probe)(host), fix) {
                (CheckState::Ok { .. } | CheckState::Warn { .. }, _) => {}
                (CheckState::Unfit { found, advice }, _) => {
                    by_hand.error(host)?;
                    return Err(SetupError::ByHand { name, found, advice });
                }
                (CheckState::Missing { .. }, Fix::Packages { set: Some(set), .. })
                    if host.on_debian() && place == InstallPlace::Cache =>
                {
                    if !sets.contains(&set) {
                        sets.push(set);
                    }
                }
                (CheckState::Missing { .. }, Fix::Unpack(set)) => sets.push(set),
                (CheckState::Missing { absent }, Fix::Packages { .. }) if host.on_debian() => packages.extend(absent),
                (CheckState::Missing { .. }, Fix::VirtmeNg) => tools.push(SetupStep::VirtmeNg),
                (CheckState::Missing { .. }, Fix::BpfLinker) => tools.push(SetupStep::BpfLinker),
                (CheckState::Missing { .. }, Fix::CargoDeny) => tools.push(SetupStep::CargoDeny),
                (CheckState::Missing { .. }, Fix::TestTools) => tools.push(SetupStep::TestTools),
                (CheckState::Missing { absent }, _) => by_hand.add(name, absent),
            }
        }
        by_hand.error(host)?;
        let packages = (!packages.is_empty()).then_some(SetupStep::Packages(packages));
        Ok(Self { steps: packages.into_iter().chain(sets.into_iter().map(SetupStep::Unpack)).chain(tools).collect() })
    }
}

/// Unpacks and installs into the cache what a first run needs. What must be installed on the host is left to a `lab setup`
/// that somebody asks for; the error of what is missing names it.
///
/// # Errors
/// As of [`setup`].
pub fn on_demand(tools: &Tools, out: &mut dyn Write) -> Result<(), SetupError> {
    // The last step of all: this costs no look at the host where set-up was complete.
    if tools.virtme_ng().is_some() {
        return Ok(());
    }
    let plan = SetupPlan::of(&Host::look(tools), Purpose::Runs, InstallPlace::Cache)?;
    if plan.steps.iter().any(|step| matches!(step, SetupStep::Packages(_))) {
        return Ok(());
    }
    setup(Purpose::Runs, InstallPlace::Cache, out).map(drop)
}

/// Unpacks into the cache what guests of arm64 need, if it is not there.
///
/// # Errors
/// As of [`setup`].
pub fn arm64_on_demand(tools: &Tools, out: &mut dyn Write) -> Result<(), SetupError> {
    if tools.arm64().is_some() {
        return Ok(());
    }
    setup(Purpose::Arm64, InstallPlace::Cache, out).map(drop)
}

/// Makes this machine ready. Writes a line per step to `out`, and a note for each known weakness of the result. If
/// nothing is missing it changes and writes nothing.
///
/// # Errors
/// The failure of a step; later steps are not tried.
pub fn setup(purpose: Purpose, place: InstallPlace, out: &mut dyn Write) -> Result<SetupReport, SetupError> {
    let tools = Tools::in_cache(&lab_base::paths::cache_dir()?);
    let host = Host::look(&tools);
    if SetupPlan::of(&host, purpose, place)?.steps.is_empty() {
        return Ok(SetupReport::of(&host, purpose));
    }
    let _lock = tools.lock()?;
    // Another setup may have done the work while this one waited.
    let plan = SetupPlan::of(&Host::look(&tools), purpose, place)?;
    let privilege = Privilege::of_this_process();
    for (index, step) in plan.steps.iter().enumerate() {
        if let SetupStep::Packages(names) = step {
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
    let report = SetupReport::of(&Host::look(&tools), purpose);
    if let Some(finding) = report.findings.iter().find(|finding| !finding.usable()) {
        return Err(SetupError::StillMissing { name: finding.name, found: finding.found.clone() });
    }
    for SetupFinding { name, found, fix, .. } in &report.findings {
        if let Some(advice) = fix {
            say(out, format_args!("note: {name} {found}: {advice}\n"));
        }
    }
    Ok(report)
}

/// Write errors are ignored: a closed terminal must not stop an installation half-way.
fn say(out: &mut dyn Write, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text).and_then(|()| out.flush());
}
