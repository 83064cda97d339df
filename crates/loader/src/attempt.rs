//! Loads the object: as it is, then as `check.toml` says, then with a type for sections that say none, then each program alone.

use crate::{
    libbpf::{self, INSTRUCTIONS, Messages, Object, ObjectProgram, SCHED_CLS, STATISTICS},
    settings,
    tell::Teller,
};
use lab_check::{
    CheckOrder, FactLine, KernelTypes, LOCKED, LoadAttempt, LoadClass, LoadFact, ProgramFact, classify, failed_program,
};
use lab_protocol::KernelVersion;
use std::{
    env, fs,
    path::{Path, PathBuf},
    time::Instant,
};

/// Bytes of a log of statistics and errors. Kernels before 6.4 refuse a program whose log does not fit.
const LOG: usize = 64 << 10;
/// Bytes of a log with instructions.
const FULL_LOG: usize = 16 << 20;
/// Lines of a log that go into a report.
const LINES: usize = 20;
/// Characters of such a line.
const WIDTH: usize = 300;
/// Where maps are pinned that objects pin by name.
const PINS: &str = "/sys/fs/bpf";
/// The directory for artefacts.
const ARTIFACTS: &str = "LAB_ARTIFACTS";
/// Programs that are loaded alone, at most.
const MOST_ALONE: usize = 200;
/// What the kernel says of its lockdown.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
/// The kernel's type information.
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";

/// A loaded object.
pub struct LoadedObject<'a> {
    object: Object<'a>,
    pins: PathBuf,
}

impl LoadedObject<'_> {
    /// Its programs that the kernel has.
    pub fn programs(&self) -> Vec<ObjectProgram<'_>> {
        self.object.programs().into_iter().filter(|program| program.fd().is_some()).collect()
    }
}

impl Drop for LoadedObject<'_> {
    fn drop(&mut self) {
        remove_pins(&self.pins);
    }
}

/// Loads the object as far as it loads. With several results, each has one program.
pub fn load_object<'a>(order: &CheckOrder, bytes: &'a [u8], tell: &mut Teller) -> Vec<LoadedObject<'a>> {
    let plain = CheckOrder { only: order.only.clone(), ..CheckOrder::default() };
    let is_told = has_settings(order);
    let first = try_load(&plain, order, bytes, LoadAttempt::AsIs, None, tell);
    let mut failed = match first {
        Ok(loaded) if !is_told => return vec![loaded],
        // LoadedObject again with what check.toml says.
        Ok(_) => None,
        Err(failure) => Some(failure),
    };
    if is_told {
        match try_load(order, order, bytes, LoadAttempt::AsTold, None, tell) {
            Ok(loaded) => return vec![loaded],
            Err(failure) => failed = Some(failure),
        }
    }
    let Some(failure) = failed else { return Vec::new() };
    if classify(&failure) == LoadClass::Section
        && let Ok(loaded) = try_load(order, order, bytes, LoadAttempt::Typed, None, tell)
    {
        return vec![loaded];
    }
    let Ok(object) = Object::open(bytes, &order.name, PINS) else { return Vec::new() };
    let wanted = |name: &String| order.only.is_empty() || order.only.contains(name);
    let names: Vec<String> = object.programs().iter().map(ObjectProgram::name).filter(wanted).collect();
    drop(object);
    if names.len() < 2 || names.len() > MOST_ALONE {
        return Vec::new();
    }
    let alone = names.into_iter().map(|name| try_load(order, order, bytes, LoadAttempt::Alone, Some(name), tell));
    alone.flatten().collect()
}

/// Whether `check.toml` says anything about loading.
fn has_settings(order: &CheckOrder) -> bool {
    !order.types.is_empty()
        || !order.globals.is_empty()
        || !order.maps.is_empty()
        || !order.slots.is_empty()
        || order.pins.is_some()
}

fn try_load<'a>(
    settings_of: &CheckOrder,
    order: &CheckOrder,
    bytes: &'a [u8],
    attempt: LoadAttempt,
    alone: Option<String>,
    tell: &mut Teller,
) -> Result<LoadedObject<'a>, LoadFact> {
    let whom = alone.as_ref().map_or_else(|| order.name.clone(), |program| format!("program {program}"));
    tell.begin(format!("loading {whom} {}", attempt.text()));
    let start = Instant::now();
    let pins = match &settings_of.pins {
        Some(told) => PathBuf::from(told),
        None => PathBuf::from(format!("{PINS}/lab-check-{}", std::process::id())),
    };
    remove_pins(&pins);
    if let Err(error) = fs::create_dir_all(&pins) {
        tell.note(format!("{}: {error}: maps that are pinned by name fail", pins.display()));
    }
    let unpinned = settings::pins(settings_of, &pins);
    let mut messages = Messages::collect().ok();
    let mut fact = LoadFact {
        attempt,
        program: alone.clone(),
        errno: None,
        failed: None,
        said: Vec::new(),
        verifier: Vec::new(),
        took_ms: 0,
    };
    let opened = Object::open(bytes, &order.name, &pins.to_string_lossy());
    let done = opened.map_err(|errno| (errno, None, Vec::new())).and_then(|mut object| {
        let mut problems = unpinned;
        let mut prepared = settings::before(settings_of, &object);
        problems.append(&mut prepared.problems);
        prepare(&object, attempt, alone.as_deref());
        object.log(|_| (STATISTICS, LOG));
        match object.load() {
            Ok(()) => {
                problems.extend(settings::after(settings_of, &object, &prepared));
                if problems.is_empty() { Ok(object) } else { Err((-libc::EINVAL, Some(object), problems)) }
            }
            Err(errno) => Err((errno, Some(object), problems)),
        }
    });
    let mut said = messages.as_mut().map(Messages::lines).unwrap_or_default();
    fact.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    let object = match done {
        Ok(object) => object,
        Err((errno, object, problems)) => {
            said.extend(problems);
            fact.errno = Some(errno);
            fact.failed = failed_program(&said);
            said.extend(lockdown());
            if let Some(object) = &object {
                said.extend(types_that_are_missing(object, &said, fact.failed.as_deref()));
                let log = fact.failed.as_deref().map(|program| object.log_of(program)).unwrap_or_default();
                fact.verifier = last_lines(log.lines());
            }
            fact.said = last_lines(said.iter().map(String::as_str));
            if let Some(program) =
                fact.failed.clone().filter(|_| !fact.verifier.is_empty() && attempt != LoadAttempt::Alone)
                && classify(&fact) != LoadClass::TooComplex
            {
                let log = full_log(order, settings_of, bytes, &program, tell);
                // Since 7.3 the verifier explains at length in this one, and the other has the reason in one line: it comes last.
                let mut both = last_lines(log.lines());
                both.retain(|line| !fact.verifier.contains(line));
                both.append(&mut fact.verifier);
                fact.verifier = both;
            }
            tell.fact(FactLine::Load(fact.clone()));
            remove_pins(&pins);
            return Err(fact);
        }
    };
    fact.said = last_lines(said.iter().map(String::as_str));
    tell.fact(FactLine::Load(fact));
    let loaded = LoadedObject { object, pins };
    for program in loaded.programs() {
        let name = program.name();
        let listed = libbpf::listed(&program);
        tell.fact(FactLine::Program(ProgramFact {
            section: program.section(),
            kind: libbpf::type_name(program.kind()),
            attempt,
            verified: listed.as_ref().map_or(0, |it| it.verified),
            translated: listed.as_ref().map_or(0, |it| it.translated),
            stats: loaded.object.stats(&name),
            name,
        }));
    }
    Ok(loaded)
}

/// Whether the kernel is locked down, in words (`lockdown(7)`).
fn lockdown() -> Option<String> {
    let state = fs::read_to_string(LOCKDOWN).ok()?;
    let state = state.split('[').nth(1)?.split(']').next()?;
    (state != "none").then(|| format!("{LOCKED} ({state})"))
}

/// Chooses what is loaded, and types.
fn prepare(object: &Object<'_>, attempt: LoadAttempt, alone: Option<&str>) {
    for program in object.programs() {
        if matches!(attempt, LoadAttempt::Typed | LoadAttempt::Alone) && program.kind() == 0 {
            program.set_kind(SCHED_CLS);
        }
        if let Some(alone) = alone {
            program.set_wanted(program.name() == alone);
        }
    }
}

/// Types of maps and programs that the kernel does not have: its error for them is the same as for any other fault.
fn types_that_are_missing(object: &Object<'_>, said: &[String], failed: Option<&str>) -> Vec<String> {
    let mut found = Vec::new();
    for map in object.maps() {
        // Where memory was lacking, libbpf's own attempt lacks it too: that says nothing of the type.
        let is_it = |line: &String| {
            line.contains(&format!("map '{}'", map.name()))
                && line.contains("failed to create")
                && !line.contains("ENOMEM")
        };
        let is_named = said.iter().any(is_it);
        if is_named && libbpf::has_map_type(map.kind()) == Some(false) {
            found.push(format!(
                "the kernel has no map type {} (map '{}')",
                libbpf::map_type_name(map.kind()),
                map.name()
            ));
        }
    }
    let program = object.programs().into_iter().find(|program| Some(&*program.name()) == failed);
    if let Some(program) = program.filter(|it| it.is_wanted() && it.kind() != 0)
        && libbpf::has_program_type(program.kind()) == Some(false)
    {
        found.push(format!("the kernel has no program type {}", libbpf::type_name(program.kind())));
    } else if let Some(program) = program.filter(|it| it.is_wanted() && it.attach_kind() != 0)
        && has_attach_type(program.attach_kind()) == Some(false)
    {
        found.push(format!("the kernel has no attach type {}", libbpf::attach_type_name(program.attach_kind())));
    }
    found
}

/// Whether the kernel's type information has the type of attachment. It can't be asked otherwise: the error for one that is unknown is
/// that for any other fault.
fn has_attach_type(kind: u32) -> Option<bool> {
    let btf = fs::read(KERNEL_TYPES).ok()?;
    KernelTypes::read(&btf, None, KernelVersion::new(0, 0, 0))?.has_attach_number(kind)
}

/// The whole log of the program that failed, which is kept as an artefact. libbpf explains what it put in place of relocations
/// that it could not resolve in this one alone.
fn full_log(order: &CheckOrder, settings_of: &CheckOrder, bytes: &[u8], program: &str, tell: &mut Teller) -> String {
    tell.begin(format!("loading program {program} for the verifier's whole log"));
    let _quiet = Messages::collect();
    let Ok(mut object) = Object::open(bytes, &order.name, PINS) else { return String::new() };
    let _kept = settings::before(settings_of, &object);
    prepare(&object, LoadAttempt::Typed, None);
    object.log(|name| if name == program { (INSTRUCTIONS, FULL_LOG) } else { (STATISTICS, LOG) });
    // It fails as before; what is wanted is the log.
    let _failure = object.load();
    let log = object.log_of(program);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = format!("{}.{program}.verifier.txt", order.name).chars().map(plain).collect();
    if let Some(directory) = env::var_os(ARTIFACTS).map(PathBuf::from)
        && let Err(error) = fs::write(directory.join(&name), &log)
    {
        tell.note(format!("the verifier's whole log can't be kept: {error}"));
    }
    log
}

/// The last lines that are not empty, as a report has them.
pub fn last_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let all: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
    let cut = |line: &&str| line.chars().take(WIDTH).collect();
    all[all.len().saturating_sub(LINES)..].iter().map(cut).collect()
}

/// What was pinned goes with its directory and those above it that are empty then; there are no directories in it.
fn remove_pins(pins: &Path) {
    for entry in fs::read_dir(pins).into_iter().flatten().flatten() {
        _ = fs::remove_file(entry.path());
    }
    let own = pins.ancestors().take_while(|directory| *directory != Path::new(PINS));
    own.for_each(|directory| _ = fs::remove_dir(directory));
}
