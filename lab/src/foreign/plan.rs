//! Makes cells of a suite.

use super::{
    SelftestTrees, SuiteKind,
    list::{self, ListError, Selftest},
    selftests, test_progs,
};
use crate::run::program::suite::{OwnProgram, SuiteCell, SuiteCells};
use lab_base::{selection::Pattern, text};
use lab_dialects::{ListedTest, SuiteDialect};
use lab_protocol::{CellId, CellInfo, Raw, Work};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
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
    /// Timeouts of single tests; the first that matches counts.
    pub timeouts: &'a [TestTimeout],
    /// Where each kernel's selftests are, if not in `cwd`.
    pub sources: Option<&'a SelftestTrees>,
    /// Whether other kernels may have what these do not: selftests that no tree has are skips then, and no error.
    pub narrowed: bool,
}

/// The timeout of tests with such names.
#[derive(Debug, Clone)]
pub struct TestTimeout {
    pattern: Pattern,
    limit: Duration,
}

impl TestTimeout {
    /// Of the tests that a pattern matches.
    pub fn new(pattern: &str, limit: Duration) -> Self {
        Self { pattern: Pattern::new(pattern), limit }
    }
}

/// A suite that is ready to run.
#[derive(Debug)]
pub struct SuitePlan {
    pub cells: Vec<CellInfo>,
    pub readers: SuiteCells,
    /// Cells that a kernel's suite does not have, with why.
    pub absent: Vec<(String, CellId, String)>,
    /// By kernel, the selftests that its sources have.
    pub selftests: BTreeMap<String, Vec<String>>,
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
    dialect: SuiteDialect,
    /// Kernels that run a program of their own for it.
    on: BTreeMap<String, OwnProgram>,
    /// Kernels that do not have it, with why.
    absent: BTreeMap<String, String>,
}

/// Lists a suite's tests on the host, and makes a cell of each, or one of all. `cells` makes the cells of a command, one for each
/// stage.
///
/// # Errors
/// The tests can't be listed.
pub fn plan(request: &SuiteRequest<'_>, cells: &dyn Fn(&str, &[Raw]) -> Vec<CellInfo>) -> Result<SuitePlan, ListError> {
    let kind = request.kind;
    let suite = request.name.map_or_else(|| suite_name(request), str::to_owned);
    let units = match (kind, request.sources) {
        (SuiteKind::Kselftest, Some(trees)) => of_trees(request, trees)?,
        (SuiteKind::Kselftest, None) => {
            let tests = list::selftests(request.argv, request.cwd)?;
            // Only in sources of the lab's own is one of these built.
            if let Some(test) = tests.iter().find(|test| test_progs::program(&test.name).is_some()) {
                return Err(ListError::OwnTree(test.name.clone()));
            }
            tests.into_iter().map(of_selftest).collect()
        }
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
    let mut absent = Vec::new();
    let mut selftests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for unit in units {
        for kernel in unit.on.keys() {
            selftests.entry(kernel.clone()).or_default().push(unit.name.clone());
        }
        let count = counts.entry(unit.name.clone()).or_default();
        *count += 1;
        let name = if *count == 1 { unit.name.clone() } else { format!("{}#{count}", unit.name) };
        for mut info in cells(&name, &unit.argv) {
            let variant = info.id.0.strip_prefix(&*name).unwrap_or_default().to_owned();
            info.area.clone_from(&unit.area);
            info.file.clone_from(&unit.file);
            let (mut is_limited, mut scaled) = (false, None);
            if let Work::Program(program) = &mut info.work {
                if let Some(cwd) = &unit.cwd {
                    program.cwd = Raw::from(cwd.as_os_str().as_encoded_bytes());
                    if let Some(world) = &mut program.world {
                        world.cwd = cwd.as_os_str().as_encoded_bytes().to_vec();
                    }
                }
                let stated = request.timeouts.iter().find(|it| it.pattern.matches(&name));
                let stated = stated.map(|it| u64::try_from(it.limit.as_millis()).unwrap_or(u64::MAX));
                program.timeout_ms = stated.or(program.timeout_ms);
                is_limited = program.timeout_ms.is_some();
                scaled = unit.timeout_s.filter(|_| !is_limited);
                program.timeout_ms = program.timeout_ms.or(scaled.map(|seconds| seconds.saturating_mul(1000)));
            }
            let cell = SuiteCell {
                dialect: unit.dialect,
                own: unit.own.clone(),
                expected: unit.expected.clone(),
                base: unit.base.clone(),
                variant,
                is_limited,
                settings_s: scaled,
                on: unit.on.clone(),
            };
            absent.extend(unit.absent.iter().map(|(kernel, why)| (kernel.clone(), info.id.clone(), why.clone())));
            readers.push((info.id.clone(), cell));
            made.push(info);
        }
    }
    Ok(SuitePlan { cells: made, readers: readers.into_iter().collect::<SuiteCells>(), absent, selftests })
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
        dialect: kind.dialect(),
        on: BTreeMap::new(),
        absent: BTreeMap::new(),
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
            dialect: kind.dialect(),
            on: BTreeMap::new(),
            absent: BTreeMap::new(),
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
        dialect: SuiteDialect::Kselftest,
        on: BTreeMap::new(),
        absent: BTreeMap::new(),
    }
}

/// The tests that words name in each kernel's tree; one that a tree does not have is told.
fn of_trees(request: &SuiteRequest<'_>, trees: &SelftestTrees) -> Result<Vec<Unit>, ListError> {
    let words: Vec<String> = request.argv.iter().map(Raw::shown).collect();
    let mut units: Vec<Unit> = Vec::new();
    let mut last = None;
    for (kernel, top) in &trees.trees {
        let mut names = Vec::new();
        for word in &words {
            match selftests::named(std::slice::from_ref(word), top) {
                Ok(found) => names.extend(found),
                Err(error) => last = Some(error),
            }
        }
        for name in names {
            let program = test_progs::program(&name);
            let (test, expected) = match program {
                Some(program) => test_progs::of_file(&name, program, top, trees.place(kernel))?,
                None => (list::selftest(&top.join(&name))?, Vec::new()),
            };
            let (cwd, argv) = (test.directory.clone(), test.argv.clone());
            let own = OwnProgram { cwd, argv, settings_s: test.timeout, expected };
            let unit = match units.iter_mut().find(|unit| unit.name == test.name) {
                Some(unit) => unit,
                None => {
                    units.push(of_selftest(test));
                    let Some(unit) = units.last_mut() else { continue };
                    if program.is_some() {
                        unit.dialect = SuiteDialect::TestProgs;
                    }
                    unit
                }
            };
            unit.on.insert(kernel.clone(), own);
        }
    }
    // A word that names nothing in any tree is wrong; one that only some trees have makes skips.
    for word in &words {
        let is_known = |top: &PathBuf| selftests::named(std::slice::from_ref(word), top).is_ok();
        if trees.trees.values().any(is_known) {
            continue;
        }
        let error = last.take().unwrap_or_else(|| ListError::NoTest(text::line(word, 200)));
        match absent(word, request.cwd).filter(|_| request.narrowed) {
            Some(test) => units.push(of_selftest(test)),
            None => return Err(error),
        }
    }
    for unit in &mut units {
        for kernel in trees.trees.keys().filter(|kernel| !unit.on.contains_key(*kernel)) {
            unit.absent.insert(kernel.clone(), trees.absent(&unit.name));
        }
    }
    if units.is_empty() {
        return Err(ListError::Nothing(words.join(" ")));
    }
    Ok(units)
}

/// A test that none of the trees has.
fn absent(word: &str, cwd: &Path) -> Option<Selftest> {
    let (collection, _) = word.rsplit_once('/')?;
    Some(Selftest {
        name: text::line(word, NAME),
        area: text::line(&format!("kselftest.{}", collection.replace('/', ".")), NAME),
        directory: cwd.to_owned(),
        argv: Vec::new(),
        timeout: None,
    })
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

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
