//! Makes cells of a suite.

use super::{
    SuiteKind,
    list::{self, ListError, Selftest},
};
use crate::run::program::suite::{SuiteCell, SuiteCells};
use lab_base::text;
use lab_dialects::ListedTest;
use lab_protocol::{CellInfo, Raw, Work};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Characters of a name in an id.
const NAME: usize = 300;

/// What is asked of a suite.
#[derive(Debug)]
pub struct SuiteRequest<'a> {
    pub kind: SuiteKind,
    /// The suite's command.
    pub argv: &'a [Raw],
    /// Where it is listed.
    pub cwd: &'a Path,
    /// Name of the suite, if the command line gives one.
    pub name: Option<&'a str>,
    /// A file with the names of its tests.
    pub tests: Option<&'a Path>,
    /// Whether all its tests run in one process.
    pub one_process: bool,
}

/// A suite that is ready to run.
#[derive(Debug)]
pub struct SuitePlan {
    pub cells: Vec<CellInfo>,
    pub readers: SuiteCells,
}

/// A test, or a whole suite, before it is a cell.
struct Unit {
    name: String,
    area: String,
    file: String,
    argv: Vec<Raw>,
    cwd: Option<PathBuf>,
    timeout_s: Option<u64>,
    own: Vec<String>,
    expected: Vec<Vec<String>>,
    base: String,
}

/// Lists a suite's tests on the host, and makes a cell of each, or one of all. `cells` makes the cells of a command, one for each
/// stage.
///
/// # Errors
/// The tests can't be listed.
pub fn plan(request: &SuiteRequest<'_>, cells: &dyn Fn(&str, &[Raw]) -> Vec<CellInfo>) -> Result<SuitePlan, ListError> {
    let kind = request.kind;
    let suite = request.name.map_or_else(|| suite_name(request), str::to_owned);
    let units = match kind {
        SuiteKind::Kselftest => list::selftests(request.argv, request.cwd)?.into_iter().map(of_selftest).collect(),
        _ => {
            let listed = match request.tests {
                Some(path) => Some(list::named(path)?),
                None => list::ask(kind, request.argv, request.cwd)?,
            };
            units(request, &suite, listed)
        }
    };
    let mut made = Vec::new();
    let mut readers = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for unit in units {
        let count = counts.entry(unit.name.clone()).or_default();
        *count += 1;
        let name = if *count == 1 { unit.name.clone() } else { format!("{}#{count}", unit.name) };
        for mut info in cells(&name, &unit.argv) {
            let variant = info.id.0.strip_prefix(&*name).unwrap_or_default().to_owned();
            info.area.clone_from(&unit.area);
            info.file.clone_from(&unit.file);
            if let Work::Program(program) = &mut info.work {
                if let Some(cwd) = &unit.cwd {
                    program.cwd = Raw::from(cwd.as_os_str().as_encoded_bytes());
                    if let Some(world) = &mut program.world {
                        world.cwd = cwd.as_os_str().as_encoded_bytes().to_vec();
                    }
                }
                let own = unit.timeout_s.map(|seconds| seconds.saturating_mul(1000));
                program.timeout_ms = program.timeout_ms.or(own);
            }
            let cell = SuiteCell {
                dialect: kind.dialect(),
                own: unit.own.clone(),
                expected: unit.expected.clone(),
                base: unit.base.clone(),
                variant,
                scaled: unit.timeout_s.is_some(),
            };
            readers.push((info.id.clone(), cell));
            made.push(info);
        }
    }
    Ok(SuitePlan { cells: made, readers: readers.into_iter().collect::<SuiteCells>() })
}

fn units(request: &SuiteRequest<'_>, suite: &str, listed: Option<Vec<ListedTest>>) -> Vec<Unit> {
    let kind = request.kind;
    // pytest's names say the file, the others' need the suite's name before them.
    let base = if kind == SuiteKind::Pytest { String::new() } else { format!("{suite}{}", joint(kind)) };
    let whole = |expected: Vec<Vec<String>>| Unit {
        name: suite.to_owned(),
        area: suite.to_owned(),
        file: String::new(),
        argv: kind.all(request.argv),
        cwd: None,
        timeout_s: None,
        own: Vec::new(),
        expected,
        base: base.clone(),
    };
    let Some(listed) = listed else { return vec![whole(Vec::new())] };
    if request.one_process {
        return vec![whole(listed.iter().map(|test| kind.path(test)).collect())];
    }
    let one = |test: &ListedTest| {
        let path = kind.path(test);
        Unit {
            name: text::line(&format!("{base}{}", path.join(kind.dialect().separator())), NAME),
            area: if test.class.is_empty() { suite.to_owned() } else { test.class.clone() },
            file: test.file.clone(),
            argv: kind.one(request.argv, test),
            cwd: None,
            timeout_s: None,
            own: path,
            expected: Vec::new(),
            base: base.clone(),
        }
    };
    listed.iter().map(one).collect()
}

fn of_selftest(test: Selftest) -> Unit {
    Unit {
        base: format!("{}::", test.name),
        file: format!("tools/testing/selftests/{}", test.name),
        name: test.name,
        area: test.area,
        argv: test.argv,
        cwd: Some(test.directory),
        timeout_s: test.timeout,
        own: Vec::new(),
        expected: Vec::new(),
    }
}

/// What stands between a suite's name and a test's.
const fn joint(kind: SuiteKind) -> &'static str {
    match kind {
        SuiteKind::Go | SuiteKind::TestProgs => "/",
        _ => "::",
    }
}

/// The command's file name, without what changes with every build: `tests-0a1b2c3d4e5f6071` is cargo's.
fn suite_name(request: &SuiteRequest<'_>) -> String {
    if request.kind == SuiteKind::Pytest {
        return "pytest".to_owned();
    }
    let command = request.argv.first().map(Raw::shown).unwrap_or_default();
    let base = command.rsplit('/').next().unwrap_or_default();
    let base = match base.rsplit_once('-') {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => base,
    };
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = base.chars().take(60).map(plain).collect();
    if name.is_empty() { request.kind.name().to_owned() } else { name }
}
