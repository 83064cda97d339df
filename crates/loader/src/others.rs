//! Other loaders than libbpf: `tc`, `bpftool`, aya, or a program of the user's. What each says is kept; what is attached, the kernel
//! lists; packets go through the hooks where it lists something.

mod by_aya;
mod process;

use crate::{
    hooks::{absent, maps_of, packets_through, test_run},
    libbpf::{self, Messages, Object, SCHED_CLS},
    tell::Teller,
    wire::{self, Side, Wire},
};
use lab_bpf::{Observed, clsact_add, observe, prog_fd, prog_ids};
use lab_check::{
    AttachFact, CheckLoader, CheckOrder, FactLine, HookFact, LoadAttempt, LoadFact, OBJECT_WORD, ProgramFact, inspect,
};
use lab_protocol::{AttachType, Hook};
use process::{Said, StartedLoader, run};
use std::{
    collections::BTreeSet,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Instant,
};

/// Where bpftool pins programs.
const PINS: &str = "/sys/fs/bpf/lab-check-bpftool";
/// Characters of a program's name that the kernel keeps.
const KEPT: usize = 15;

/// A program of the object, as far as it is known before it is loaded.
struct Part {
    name: String,
    section: String,
    is_classifier: bool,
}

/// What a check by another loader works with.
struct ByOther<'a> {
    order: &'a CheckOrder,
    wire: Wire,
    object: PathBuf,
    parts: Vec<Part>,
    /// Programs that were told.
    told: BTreeSet<String>,
    tell: &'a mut Teller,
}

/// What came of loading.
#[derive(Default)]
struct Outcome {
    /// The program at which it failed.
    failed: Option<String>,
    /// Whether it failed.
    is_failure: bool,
    said: Vec<String>,
}

impl Outcome {
    /// Notes a failed step.
    fn fail(&mut self, program: Option<&str>, said: Vec<String>) {
        self.is_failure = true;
        self.failed = self.failed.take().or_else(|| program.map(str::to_owned));
        self.said.extend(said);
    }
}

/// Checks the object by the loader of the order. Returns the loader's name and version for [`FactLine::Loader`] beforehand by
/// [`name_of`].
pub fn check_by(order: &CheckOrder, bytes: &[u8], tell: &mut Teller) {
    tell.begin("making devices".to_owned());
    let wire = match Wire::make() {
        Ok(wire) => wire,
        Err(error) => return tell.note(format!("no devices for packets: {error}")),
    };
    let object = PathBuf::from(format!("/tmp/{}.o", order.name));
    if let Err(error) = fs::create_dir_all("/tmp").and_then(|()| fs::write(&object, bytes)) {
        return tell.note(format!("{}: {error}", object.display()));
    }
    let parts = parts(order, bytes);
    let mut by = ByOther { order, wire, object, parts, told: BTreeSet::new(), tell };
    let start = Instant::now();
    let outcome = match &order.loader {
        CheckLoader::Libbpf => return,
        CheckLoader::Aya => by_aya::check(&mut by, bytes),
        CheckLoader::Tc(words) => by.tc(words),
        CheckLoader::Bpftool(words) => by.bpftool(words),
        CheckLoader::Command(words) => by.command(words),
    };
    let mut said = outcome.said;
    said.retain(|line| !line.trim().is_empty());
    by.tell.fact(FactLine::Load(LoadFact {
        attempt: LoadAttempt::AsIs,
        program: None,
        // A program's exit code says no errno.
        errno: outcome.is_failure.then_some(0),
        failed: outcome.failed,
        said: crate::attempt::last_lines(said.iter().map(String::as_str)),
        verifier: Vec::new(),
        took_ms: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
    }));
}

/// The loader in reports: what its program says of its version.
pub fn name_of(loader: &CheckLoader) -> String {
    let asked = |words: &[String], option: &str| {
        let said = run(words, &[option]).map(|said| said.lines).unwrap_or_default();
        said.into_iter().next().unwrap_or_default()
    };
    match loader {
        CheckLoader::Libbpf => format!("libbpf {}", libbpf::version()),
        CheckLoader::Aya => "aya 0.14".to_owned(),
        CheckLoader::Tc(words) => asked(words, "-V"),
        CheckLoader::Bpftool(words) => asked(words, "version"),
        CheckLoader::Command(words) => words.first().cloned().unwrap_or_default(),
    }
}

/// The programs, by libbpf; by the symbols alone where it does not read the object.
fn parts(order: &CheckOrder, bytes: &[u8]) -> Vec<Part> {
    let wanted = |name: &str| order.only.is_empty() || order.only.iter().any(|it| it == name);
    // What libbpf says is not what is asked here.
    let _quiet = Messages::collect();
    if let Ok(object) = Object::open(bytes, &order.name, PINS) {
        let part = |program: &libbpf::ObjectProgram<'_>| Part {
            name: program.name(),
            section: program.section(),
            is_classifier: matches!(program.kind(), 0 | SCHED_CLS),
        };
        return object.programs().iter().filter(|program| wanted(&program.name())).map(part).collect();
    }
    let found = inspect(bytes).map(|object| object.programs).unwrap_or_default();
    let part =
        |program: lab_check::ElfProgram| Part { name: program.name, section: program.section, is_classifier: true };
    found.into_iter().filter(|program| wanted(&program.name)).map(part).collect()
}

impl ByOther<'_> {
    /// The program of that name in the kernel, which keeps fifteen characters.
    fn full_name(&self, listed: &str) -> String {
        let is_it = |part: &&Part| part.name == listed || listed.len() == KEPT && part.name.starts_with(listed);
        self.parts.iter().find(is_it).map_or_else(|| listed.to_owned(), |part| part.name.clone())
    }

    /// Tells of a loaded program, once.
    fn tell_program(&mut self, program: &OwnedFd) -> String {
        let Some(listed) = libbpf::listed(program) else { return String::new() };
        let name = self.full_name(&listed.name);
        if self.told.insert(name.clone()) {
            let section = self.parts.iter().find(|part| part.name == name).map(|part| part.section.clone());
            self.tell.fact(FactLine::Program(ProgramFact {
                name: name.clone(),
                section: section.unwrap_or_default(),
                kind: libbpf::type_name(listed.kind),
                attempt: LoadAttempt::AsIs,
                verified: listed.verified,
                translated: listed.translated,
                stats: None,
            }));
            if listed.kind == SCHED_CLS {
                for packet in &self.order.packets {
                    self.tell.begin(format!("BPF_PROG_TEST_RUN of program {name} with the packet {}", packet.name));
                    let fact = test_run(program, &name, &packet.name, &packet.frame);
                    self.tell.fact(FactLine::Run(fact));
                }
            }
        }
        name
    }

    /// What is attached to the devices, as the kernel lists it.
    fn attached(&self) -> Vec<Observed> {
        let devices: BTreeSet<u32> = self.order.hooks.iter().map(|hook| wire::device(*hook)).collect();
        let near = self.wire.side(Side::Near);
        let all = devices.into_iter().flat_map(|ifindex| near.run(|| observe(ifindex)).unwrap_or_default());
        all.filter(|found| self.order.hooks.contains(&found.hook)).collect()
    }

    /// Tells of everything that is attached now: sends packets through each.
    fn look(&mut self) -> usize {
        let attached = self.attached();
        for found in &attached {
            let Ok(program) = prog_fd(found.prog_id) else { continue };
            let name = self.tell_program(&program);
            self.tell.begin(format!("program {name} at {}", found.hook));
            let loaded = [program];
            let maps = maps_of(self.order, &loaded);
            let packets = packets_through(self.order, &self.wire, &loaded[0], &maps, found.hook);
            let fact = HookFact { program: name, hook: found.hook, attach: AttachFact::Listed, packets };
            self.tell.fact(FactLine::Hook(fact));
        }
        attached.len()
    }

    /// Whether the hook is asked for and the kernel has it. One that it does not have is told.
    fn has(&mut self, hook: Hook, program: &str) -> bool {
        if !self.order.hooks.contains(&hook) {
            return false;
        }
        let Some(why) = absent(&self.wire, hook) else { return true };
        let fact = HookFact { program: program.to_owned(), hook, attach: AttachFact::Absent(why), packets: Vec::new() };
        self.tell.fact(FactLine::Hook(fact));
        false
    }

    /// What a loader that attaches one program at one hook said, and what the kernel lists then.
    fn told_of(&mut self, said: Said, program: &str, hook: Hook, outcome: &mut Outcome) {
        if !said.is_good {
            let why = said.lines.last().cloned().unwrap_or_default();
            outcome.fail(Some(program), said.lines);
            let attach = AttachFact::Refused(why);
            let fact = HookFact { program: program.to_owned(), hook, attach, packets: Vec::new() };
            self.tell.fact(FactLine::Hook(fact));
        } else if self.look() == 0 {
            let fact =
                HookFact { program: program.to_owned(), hook, attach: AttachFact::Unlisted, packets: Vec::new() };
            self.tell.fact(FactLine::Hook(fact));
        }
    }

    /// `tc filter add`: the first program of each section, since a section is what tc is told.
    fn tc(&mut self, words: &[String]) -> Outcome {
        let mut outcome = Outcome::default();
        let device = wire::name(Side::Near, wire::device(Hook::ClsactIngress));
        let index = wire::device(Hook::ClsactIngress);
        if let Err(error) = self.wire.side(Side::Near).run(|| clsact_add(index)) {
            outcome.fail(None, vec![error.to_string()]);
            return outcome;
        }
        let mut sections = BTreeSet::new();
        let first = |part: &&Part| part.is_classifier && sections.insert(part.section.clone());
        let parts: Vec<(String, String)> =
            self.parts.iter().filter(first).map(|part| (part.name.clone(), part.section.clone())).collect();
        let object = self.object.display().to_string();
        for (name, section) in parts {
            for (hook, list) in [(Hook::ClsactIngress, "ingress"), (Hook::ClsactEgress, "egress")] {
                if !self.has(hook, &name) {
                    continue;
                }
                self.tell.begin(format!("tc loads section {section} at {hook}"));
                let add = ["filter", "add", "dev", &device, list, "pref", "1", "handle", "1", "bpf", "direct-action"];
                let add = [&add[..], &["object-file", &object, "section", &section]].concat();
                let said = self.run(words, &add);
                self.told_of(said, &name, hook, &mut outcome);
                // Where nothing was added there is nothing to remove.
                _ = self.run(words, &["filter", "del", "dev", &device, list]);
            }
        }
        outcome
    }

    /// `bpftool prog loadall`, and `bpftool net attach` for tcx.
    fn bpftool(&mut self, words: &[String]) -> Outcome {
        let mut outcome = Outcome::default();
        let object = self.object.display().to_string();
        _ = fs::remove_dir_all(PINS);
        self.tell.begin("bpftool prog loadall".to_owned());
        let said = self.run(words, &["prog", "loadall", &object, PINS]);
        if !said.is_good {
            outcome.fail(None, said.lines);
            return outcome;
        }
        outcome.said = said.lines;
        let mut pinned: Vec<PathBuf> = fs::read_dir(PINS).into_iter().flatten().flatten().map(|it| it.path()).collect();
        pinned.sort();
        let device = wire::name(Side::Near, wire::device(Hook::TcxIngress));
        for path in &pinned {
            let Ok(program) = libbpf::pinned_program(&path.to_string_lossy()) else { continue };
            let is_classifier = libbpf::listed(&program).is_some_and(|it| it.kind == SCHED_CLS);
            let name = self.tell_program(&program);
            for (hook, kind) in [(Hook::TcxIngress, "tcx_ingress"), (Hook::TcxEgress, "tcx_egress")] {
                if !is_classifier || !self.has(hook, &name) {
                    continue;
                }
                self.tell.begin(format!("bpftool net attach {kind}"));
                let said = self.run(words, &["net", "attach", kind, "pinned", &path.to_string_lossy(), "dev", &device]);
                self.told_of(said, &name, hook, &mut outcome);
                _ = self.run(words, &["net", "detach", kind, "dev", &device]);
            }
        }
        pinned.iter().for_each(|path| _ = fs::remove_file(path));
        _ = fs::remove_dir(PINS);
        outcome
    }

    /// A program of the user's: what is attached is looked at when it has ended or has attached something.
    fn command(&mut self, words: &[String]) -> Outcome {
        let mut outcome = Outcome::default();
        let object = self.object.display().to_string();
        let mut line: Vec<String> = words.iter().map(|word| word.replace(OBJECT_WORD, &object)).collect();
        if !words.iter().any(|word| word.contains(OBJECT_WORD)) {
            line.push(object);
        }
        let before: BTreeSet<u32> = prog_ids().unwrap_or_default().into_iter().collect();
        self.tell.begin(format!("starting {}", line.first().map(String::as_str).unwrap_or_default()));
        let names = self.names();
        let started = self.wire.side(Side::Near).run(|| StartedLoader::start(&line, &names));
        let mut started = match started {
            Ok(started) => started,
            Err(error) => {
                outcome.fail(None, vec![error.to_string()]);
                return outcome;
            }
        };
        started.wait_until(|| !self.attached().is_empty());
        let count = self.look();
        // Loaded by it, and attached nowhere that this check looks at.
        let new = prog_ids().unwrap_or_default().into_iter().filter(|id| !before.contains(id));
        new.filter_map(|id| prog_fd(id).ok()).for_each(|program| drop(self.tell_program(&program)));
        let said = started.end();
        if !said.is_good {
            outcome.fail(None, said.lines);
        } else {
            outcome.said = said.lines;
        }
        if count == 0 && !outcome.is_failure {
            self.tell.note(format!("{} attached nothing to the devices of the check", words.join(" ")));
        }
        outcome
    }

    /// The devices' names, for a program of the user's.
    fn names(&self) -> Vec<(&'static str, String)> {
        let name = |hook| wire::name(Side::Near, wire::device(hook));
        let mut names = vec![("LAB_DEVICE", name(Hook::TcxIngress))];
        if self.order.hooks.iter().any(|hook| hook.attach_type() == AttachType::Netkit) && self.wire.no_netkit.is_none()
        {
            names.push(("LAB_NETKIT", name(Hook::NetkitPrimary)));
        }
        names
    }

    /// Runs a program in the namespace of the devices, to its end.
    fn run(&self, words: &[String], more: &[&str]) -> Said {
        let near = self.wire.side(Side::Near);
        near.run(|| run(words, more)).unwrap_or_else(|error| Said::failed(error.to_string()))
    }
}

/// Of the object's file, which the loader wrote.
impl Drop for ByOther<'_> {
    fn drop(&mut self) {
        _ = fs::remove_file(Path::new(&self.object));
    }
}
