//! A selftest of the kernel's as the question of a search: `--case kselftest/net/fib_tests.sh`, or one of its subtests behind `::`. The
//! same test runs on every kernel, since it is the kernels that are to be compared.

use super::{Question, args::WhatArgs};
use crate::{
    bisect::predicate::Predicate,
    cli::exec::{self, SelftestsOf},
    error::Error,
    guests::GuestOptions,
    project::{Project, select::Selected},
};
use lab_base::text;
use lab_protocol::CellId;
use std::path::PathBuf;

/// What stands before the name of a selftest.
const PREFIX: &str = "kselftest/";
/// What stands between a test and one of its subtests.
const SUBTEST: &str = "::";

/// The test that is searched for.
#[derive(Debug)]
pub(super) struct AskedSelftest {
    /// As it was asked for.
    pub case: String,
    test: String,
    sources: AskedSources,
}

#[derive(Debug)]
enum AskedSources {
    Kernel(String),
    Tree(PathBuf),
}

impl AskedSelftest {
    /// The words of `lab kselftest` that run it.
    pub fn words(&self) -> String {
        let test = text::shell_quote(&self.test);
        match &self.sources {
            AskedSources::Kernel(id) => format!("--source-of {} {test}", text::shell_quote(id)),
            AskedSources::Tree(tree) => format!("--tree {} {test}", text::shell_quote(&tree.to_string_lossy())),
        }
    }
}

/// The question, if it is about a selftest.
pub(super) fn question(
    project: &Project,
    args: &WhatArgs,
    sources: SelftestsOf<'_>,
) -> Result<Option<Question>, Error> {
    let [case] = &*args.case else { return several(&args.case) };
    let Some(name) = case.strip_prefix(PREFIX) else { return Ok(None) };
    let (test, subtest) = name.split_once(SUBTEST).map_or((name, None), |(test, sub)| (test, Some(sub)));
    if test.is_empty() || test.contains(['*', '?']) {
        return Err(Error::Usage(format!("--case {case}: name one selftest, for example {PREFIX}net/fib_tests.sh")));
    }
    let built = exec::built(project, args.no_build)?;
    let (cells, how) = exec::selftest(project, &built, sources, test)?;
    let asked = match subtest {
        // It becomes a cell once the test has reported it.
        Some(_) => vec![CellId(name.into())],
        None => cells.iter().map(|info| info.id.clone()).collect(),
    };
    Ok(Some(Question {
        selected: Selected { cells, every_cell: false, ..built },
        predicate: Predicate::Cells { cells: asked, rule: args.match_ },
        promise: None,
        how: GuestOptions { deadlines: args.deadline.clone(), ..how },
        checked: None,
        selftest: Some(AskedSelftest {
            case: case.clone(),
            test: test.to_owned(),
            sources: match sources {
                SelftestsOf::Kernel(id) => AskedSources::Kernel(id.to_owned()),
                SelftestsOf::Tree(tree) => AskedSources::Tree(tree.to_owned()),
            },
        }),
    }))
}

/// Several cases are of the suite.
fn several(cases: &[String]) -> Result<Option<Question>, Error> {
    match cases.iter().find(|case| case.starts_with(PREFIX)) {
        Some(case) => {
            Err(Error::Usage(format!("--case {case}: a search is about one selftest, and no case beside it")))
        }
        None => Ok(None),
    }
}
