//! Options of `lab exec` for test suites.

use crate::{
    error::Error,
    exec::ExecRequest,
    foreign::{self, SuiteKind, SuitePlan, SuiteRequest},
};
use clap::Args;
use lab_protocol::Raw;
use std::{env, ffi::OsStr, path::PathBuf};

#[derive(Debug, Args)]
pub(super) struct SuiteArgs {
    /// The command is a test suite of this kind: its tests are listed before a guest boots, and each is a cell with a result of
    /// its own.
    #[arg(long, value_enum, value_name = "KIND")]
    suite: Option<SuiteKind>,
    /// File with the names of the suite's tests, one a line, where the suite can't be asked on this host.
    #[arg(long, value_name = "FILE", requires = "suite")]
    tests: Option<PathBuf>,
    /// Run all tests of the suite in one process. By default each test has a process of its own.
    #[arg(long, requires = "suite")]
    one_process: bool,
}

impl SuiteArgs {
    /// Lists the suite's tests, and makes cells of them; `None` if the command is no suite.
    pub(super) fn plan(
        &self,
        cwd: Option<&OsStr>,
        name: Option<&str>,
        request: &ExecRequest,
    ) -> Result<Option<SuitePlan>, Error> {
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
        };
        let cells = |name: &str, argv: &[Raw]| {
            let one = ExecRequest { argv: argv.to_vec(), name: Some(name.to_owned()), ..request.clone() };
            one.cells(false, None)
        };
        Ok(Some(foreign::plan(&asked, &cells)?))
    }
}
