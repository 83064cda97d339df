//! What selftests need beyond their own files, built or told before a guest boots.

use super::{ExecArgs, Root, planned};
use crate::{
    error::Error,
    foreign::{self, SelftestTrees, SuitePlan, lacking, missing},
    project::{Project, loader::ElfLibrary},
    setup::Tools,
    world::RootChoice,
};
use lab_base::{
    say::{note, say},
    text,
};
use lab_image::type_info;
use lab_kernel_store::{Kernel, KernelConfig, SelftestBuild, TestProgsBuild};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
};

/// Tests that a line names.
const NAMED: usize = 4;
/// Characters of a compiler's message.
const REASON: usize = 200;

/// What is told, with the kernels that it is true of.
type Lines = BTreeMap<String, Vec<String>>;

/// Tests by the program that they miss.
type Missed<K> = BTreeMap<K, Vec<String>>;

impl ExecArgs {
    /// Builds the programs that tests of a kernel's own sources need, if `builds`, and tells what is missing all the same.
    pub(super) fn tell_needs(
        &self,
        project: &Project,
        kernels: &[&Kernel],
        (trees, plan): (&SelftestTrees, &SuitePlan),
        builds: bool,
    ) -> Result<(), Error> {
        let path = self.search_path(project)?.or_else(|| env::var_os("PATH")).unwrap_or_default();
        let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
        // Another root has programs of its own.
        let sees_host = matches!(self.root, Root::World(RootChoice::Host));
        let has = |tool: &str| !sees_host || dirs.iter().any(|dir| dir.join(tool).is_file());
        let configs = planned::configs(project, kernels, builds)?;
        let compiler = Tools::in_cache(project.cache.root()).bpf_compiler();
        let mut lines = Lines::new();
        for kernel in kernels {
            let id = kernel.id.as_str();
            let (Some(top), Some(names)) = (trees.trees.get(id), plan.selftests.get(id)) else { continue };
            if builds && let Some(owner) = trees.owners.get(id) {
                for (collection, programs) in unbuilt(top, names, &has) {
                    let files: Vec<String> = programs.into_keys().collect();
                    let wants = SelftestBuild { collection: &collection, files: &files, compiler: &compiler };
                    let failed = project.store().build_selftests(owner, &project.lock, wants, &note)?;
                    for (program, why) in failed {
                        let why = text::line(last_line(&why), REASON);
                        add(&mut lines, id, format!("{program} of {collection} can't be built: {why}"));
                    }
                }
            }
            if builds {
                for line in build_test_progs(project, kernel, trees, names)? {
                    add(&mut lines, id, line);
                }
            }
            tell(top, names, &has, &mut |line| add(&mut lines, id, line));
            if let Some(Some(config)) = configs.get(id) {
                tell_config(top, names, config, &mut |line| add(&mut lines, id, line));
            }
        }
        for (line, of) in lines {
            say(&format!("{}: {line}", of.join(", ")));
        }
        Ok(())
    }
}

/// Builds what of the tests are files of test_progs, for the kernel on which they will run. Gives a line for each that can't be built.
fn build_test_progs(
    project: &Project,
    kernel: &Kernel,
    trees: &SelftestTrees,
    names: &[String],
) -> Result<Vec<String>, Error> {
    let id = kernel.id.as_str();
    let files: Vec<String> = names.iter().filter_map(|name| foreign::program(name)).map(str::to_owned).collect();
    let (Some(owner), Some(place)) = (trees.owners.get(id), trees.places.get(id)) else { return Ok(Vec::new()) };
    if files.is_empty() {
        return Ok(Vec::new());
    }
    project.ready()?;
    let bootable = project.store().fetch(kernel, &project.lock, &note)?;
    let cache = project.cache.root();
    let types = type_info(&bootable.vmlinuz, cache).map_err(|error| Error::Host(error.to_string()))?;
    let Some(types) = types else {
        return Ok(vec!["no test of test_progs can be built: the kernel has no type information (BTF)".to_owned()]);
    };
    let tools = Tools::in_cache(cache);
    let elf = ElfLibrary::find(cache);
    let wants = TestProgsBuild {
        files: &files,
        place,
        types: &types,
        clang: &tools.bpf_compiler().clang,
        bpftool: &tools.bpftool(),
        elf: elf.as_ref().map(|elf| (&*elf.include, &*elf.libraries)),
    };
    let failed = project.store().build_test_progs(owner, &project.lock, wants, &note)?;
    let line = |(file, why): (String, String)| {
        format!("{file} of test_progs can't be built: {}", text::line(last_line(&why), REASON))
    };
    Ok(failed.into_iter().map(line).collect())
}

fn add(lines: &mut Lines, kernel: &str, line: String) {
    lines.entry(line).or_default().push(kernel.to_owned());
}

fn last_line(text: &str) -> &str {
    text.lines().find(|line| line.contains("error")).or_else(|| text.lines().next()).unwrap_or_default()
}

fn collection(test: &str) -> &str {
    if foreign::program(test).is_some() {
        return foreign::COLLECTION;
    }
    test.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// By collection, the programs that nobody has built, each with the tests that need it.
fn unbuilt(top: &Path, names: &[String], has: &dyn Fn(&str) -> bool) -> BTreeMap<String, Missed<String>> {
    let mut all: BTreeMap<String, Missed<String>> = BTreeMap::new();
    for name in names {
        for program in missing(top, name, has).unbuilt {
            let of = all.entry(collection(name).to_owned()).or_default();
            of.entry(program).or_default().push(name.clone());
        }
    }
    all
}

fn tell(top: &Path, names: &[String], has: &dyn Fn(&str) -> bool, say: &mut dyn FnMut(String)) {
    for (collection, programs) in unbuilt(top, names, has) {
        for (program, tests) in programs {
            say(format!("{program} of {collection} is not built: {}", named(&tests)));
        }
    }
    let mut tools: Missed<(&str, &str)> = Missed::new();
    for name in names {
        for tool in missing(top, name, has).tools {
            tools.entry(tool).or_default().push(name.clone());
        }
    }
    for ((tool, package), tests) in tools {
        say(format!("{tool} (package {package}) is not in PATH: {}", named(&tests)));
    }
}

fn tell_config(top: &Path, names: &[String], config: &KernelConfig, say: &mut dyn FnMut(String)) {
    let collections: BTreeSet<&str> = names.iter().map(|name| collection(name)).collect();
    for collection in collections {
        let Some((all, lacks)) = lacking(top, collection, config) else { continue };
        if !lacks.is_empty() {
            let options = text::count(all, "option");
            say(format!(
                "{collection}/config has {options}, and the kernel lacks {}: {}",
                lacks.len(),
                lacks.join(", ")
            ));
        }
    }
}

/// The first of many tests.
fn named(tests: &[String]) -> String {
    let first = tests.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if tests.len() > NAMED { format!("{first} and {} more", tests.len() - NAMED) } else { first }
}
