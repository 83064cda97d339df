//! Options of `lab exec` for test suites.

use super::values::WrongWord;
use crate::{
    cli::args::time,
    error::Error,
    exec::ExecRequest,
    foreign::{self, SelftestTrees, SuiteKind, SuitePlan, SuiteRequest, TestTimeout},
    project::Project,
};
use clap::Args;
use lab_kernel_store::Kernel;
use lab_protocol::Raw;
use std::{
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct SuiteArgs {
    /// The command is a test suite of this kind: its tests are listed before a guest boots, and each is a cell with a result of
    /// its own.
    #[arg(long, value_enum, value_name = "KIND")]
    suite: Option<SuiteKind>,
    /// File with the names of the suite's tests, one a line, where the suite can't be asked on this host.
    #[arg(long, value_name = "FILE")]
    tests: Option<PathBuf>,
    /// Run all tests of the suite in one process. By default each test has a process of its own.
    #[arg(long)]
    one_process: bool,
    /// Timeout of tests by name, `*` and `?` allowed, before --timeout: 'net/fib*=20m'. The first that matches counts; repeatable.
    #[arg(long, value_name = "TEST=TIME", value_parser = test_timeout)]
    test_timeout: Vec<TestTimeout>,
    /// With --suite kselftest, where the tests come from: kernel, the sources of each kernel, from Debian's package of its version;
    /// kernel=ID, those of this kernel for all; or the directory of a kernel tree. Default: the working directory.
    #[arg(long, value_name = "WHERE")]
    sources: Option<PathBuf>,
    /// Whether the command line names fewer kernels than the workload.
    #[arg(skip)]
    pub(super) narrowed: bool,
}

/// `--sources` for each kernel's own.
const OF_KERNEL: &str = "kernel";
/// `--sources` for those of one kernel.
const OF_ONE: &[u8] = b"kernel=";

fn test_timeout(text: &str) -> Result<TestTimeout, WrongWord> {
    let wrong = || WrongWord::from(format!("`{text}` is not TEST=TIME, for example net/fib*=20m"));
    let (pattern, limit) = text.rsplit_once('=').filter(|(pattern, _)| !pattern.is_empty()).ok_or_else(wrong)?;
    let limit = time(limit).map_err(|error| WrongWord::from(error.to_string()))?;
    Ok(TestTimeout::new(pattern, limit))
}

/// Whether `--sources` has a word and not a tree of this host.
pub(in crate::cli) fn is_word(sources: &Path) -> bool {
    sources.as_os_str() == OF_KERNEL || sources.as_os_str().as_bytes().starts_with(OF_ONE)
}

impl SuiteArgs {
    /// Options that only a suite has a use for.
    fn needs_suite(&self) -> Option<&'static str> {
        let given = [
            ("--tests", self.tests.is_some()),
            ("--one-process", self.one_process),
            ("--test-timeout", !self.test_timeout.is_empty()),
            ("--sources", self.sources.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(name, _)| name).filter(|_| self.suite.is_none())
    }

    /// Makes the command one of selftests, from these sources unless others are named.
    pub(super) fn of_kernel(&mut self, sources: PathBuf) -> Result<(), Error> {
        if self.suite.is_some_and(|kind| kind != SuiteKind::Kselftest) {
            return Err(Error::Usage("lab kselftest runs selftests of kernels: leave --suite out".to_owned()));
        }
        self.suite = Some(SuiteKind::Kselftest);
        self.sources.get_or_insert(sources);
        Ok(())
    }

    /// Where each kernel's selftests are; `None` for those in the working directory.
    pub(super) fn sources(
        &self,
        project: &Project,
        kernels: &[&Kernel],
        fetches: bool,
    ) -> Result<Option<SelftestTrees>, Error> {
        match (&self.sources, self.suite) {
            (None, _) => Ok(None),
            (Some(_), kind) if kind != Some(SuiteKind::Kselftest) => {
                Err(Error::Usage("--sources is about a kernel's selftests: say so with --suite kselftest".to_owned()))
            }
            (Some(place), _) if place.as_os_str() == OF_KERNEL => {
                SelftestTrees::of_kernels(project, kernels, fetches).map(Some)
            }
            (Some(place), _) if place.as_os_str().as_bytes().starts_with(OF_ONE) => {
                let name = String::from_utf8_lossy(&place.as_os_str().as_bytes()[OF_ONE.len()..]).into_owned();
                SelftestTrees::of_one(project, &name, kernels, fetches).map(Some)
            }
            (Some(tree), _) => SelftestTrees::of_tree(tree, kernels).map(Some),
        }
    }

    /// Lists the suite's tests, and makes cells of them; `None` if the command is no suite.
    pub(super) fn plan(
        &self,
        cwd: Option<&OsStr>,
        name: Option<&str>,
        request: &ExecRequest,
        sources: Option<&SelftestTrees>,
    ) -> Result<Option<SuitePlan>, Error> {
        if let Some(name) = self.needs_suite() {
            return Err(Error::Usage(format!("{name} is about a test suite: say its kind with --suite")));
        }
        let Some(kind) = self.suite else { return Ok(None) };
        let cwd = match cwd {
            Some(cwd) => PathBuf::from(cwd),
            None => env::current_dir().map_err(Error::file("find", "the working directory"))?,
        };
        let asked = SuiteRequest {
            kind,
            argv: &request.argv,
            cwd: &cwd,
            name,
            tests: self.tests.as_deref(),
            one_process: self.one_process,
            timeouts: &self.test_timeout,
            sources,
            narrowed: self.narrowed,
        };
        let cells = |name: &str, argv: &[Raw]| {
            let one = ExecRequest { argv: argv.to_vec(), name: Some(name.to_owned()), ..request.clone() };
            one.cells(false, None)
        };
        Ok(Some(foreign::plan(&asked, &cells)?))
    }
}
