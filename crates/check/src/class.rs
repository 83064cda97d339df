//! Why a load failed: from what the loader and the verifier said, in the order in which causes hide each other, and never from the
//! error's number alone.

use crate::{
    facts::{CheckFacts, LoadAttempt, LoadFact},
    kfuncs,
};
use std::fmt;

/// Classes of failed loads. The names are those of `check.toml`: `load = "fails: kfunc"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoadClass {
    /// The kernel has no such kfunc.
    Kfunc,
    /// The kernel's kfunc has another signature.
    KfuncSignature,
    /// The kfunc is in a module that is not loaded.
    KfuncModule,
    /// The kfunc, or the helper, is not for this type of program.
    NotAllowed,
    /// The kernel has no such helper.
    Helper,
    /// The kernel has no such type of map.
    MapType,
    /// The kernel has no such type of program.
    ProgramType,
    /// The kernel has no such type of attachment.
    AttachType,
    /// The function that a tracing program is for does not exist.
    Target,
    /// A field or type that the program reads does not exist.
    Core,
    /// A value of the kernel's configuration.
    Kconfig,
    /// A variable of the kernel.
    Ksym,
    /// The section's name says no type.
    Section,
    /// `SEC("maps")`.
    LegacyMaps,
    /// A static function in a section of programs.
    StaticProgram,
    /// A pinned map has other parameters.
    PinnedMap,
    /// A program does not fit into a slot of a program array.
    ProgArray,
    /// No memory for a map.
    Memory,
    /// A map can't be created.
    Map,
    /// Too many instructions or jumps for the verifier.
    TooComplex,
    /// It needs programs that were left out.
    Companions,
    /// The kernel is locked down, or the loader lacks privileges.
    Refused,
    /// The verifier refused it for another reason.
    Verifier,
    /// The file is not what libbpf reads.
    Object,
    /// Something else.
    Other,
}

impl LoadClass {
    /// Every class.
    pub const ALL: [Self; 25] = [
        Self::Kfunc,
        Self::KfuncSignature,
        Self::KfuncModule,
        Self::NotAllowed,
        Self::Helper,
        Self::MapType,
        Self::ProgramType,
        Self::AttachType,
        Self::Target,
        Self::Core,
        Self::Kconfig,
        Self::Ksym,
        Self::Section,
        Self::LegacyMaps,
        Self::StaticProgram,
        Self::PinnedMap,
        Self::ProgArray,
        Self::Memory,
        Self::Map,
        Self::TooComplex,
        Self::Companions,
        Self::Refused,
        Self::Verifier,
        Self::Object,
        Self::Other,
    ];

    /// In tables and in `check.toml`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kfunc => "kfunc",
            Self::KfuncSignature => "kfunc-signature",
            Self::KfuncModule => "kfunc-module",
            Self::NotAllowed => "not-allowed",
            Self::Helper => "helper",
            Self::MapType => "map-type",
            Self::ProgramType => "program-type",
            Self::AttachType => "attach-type",
            Self::Target => "target",
            Self::Core => "core",
            Self::Kconfig => "kconfig",
            Self::Ksym => "ksym",
            Self::Section => "section",
            Self::LegacyMaps => "legacy-maps",
            Self::StaticProgram => "static-program",
            Self::PinnedMap => "pinned-map",
            Self::ProgArray => "prog-array",
            Self::Memory => "memory",
            Self::Map => "map",
            Self::TooComplex => "too-complex",
            Self::Companions => "companions",
            Self::Refused => "refused",
            Self::Verifier => "verifier",
            Self::Object => "object",
            Self::Other => "other",
        }
    }

    /// What can be done about it.
    pub const fn cure(self) -> &'static str {
        match self {
            Self::Kfunc => {
                "declare the kfunc __weak and ask bpf_ksym_exists() before the call, or require a newer kernel"
            }
            Self::KfuncSignature => "the prototype in the program is not the kernel's: build a variant per signature",
            Self::KfuncModule => "load the module first (`modules` in check.toml), or declare the kfunc __weak",
            Self::NotAllowed => {
                "leave this program out (`only` in check.toml), or load it with the type that may call it"
            }
            Self::Helper => "guard the call by a CO-RE check of enum bpf_func_id, or require a newer kernel",
            Self::MapType => "use another type of map on this kernel, or require a newer kernel",
            Self::ProgramType => "leave the program out on this kernel, or require a newer kernel",
            Self::AttachType => "leave the program out on this kernel, or require a newer kernel",
            Self::Target => "turn the program off where the kernel lacks the function (bpf_program__set_autoload)",
            Self::Core => "ask bpf_core_field_exists() or bpf_core_type_exists() before the access",
            Self::Kconfig => "declare the extern __weak, or require a kernel with the option",
            Self::Ksym => "declare the extern __weak, and ask whether its address is null",
            Self::Section => "name the type: `types` in check.toml, or a section name that libbpf knows (SEC(\"tc\"))",
            Self::LegacyMaps => {
                "define maps in SEC(\".maps\"): libbpf 1.x refuses SEC(\"maps\"), other loaders take it"
            }
            Self::StaticProgram => "make the function global, or move it to .text",
            Self::PinnedMap => "remove the pinned map, or give both objects the same parameters",
            Self::ProgArray => "programs of one prog_array need one type and one expected_attach_type",
            Self::Memory => {
                "give the guest more memory (--memory 2G), or the map a smaller size (`max_entries` in check.toml)"
            }
            Self::Map => "compare the map's type, sizes and flags with what the kernel takes",
            Self::TooComplex => {
                "split the program by tail calls, or use bpf_loop() or global functions: the limit is 1,000,000 instructions"
            }
            Self::Companions => "load it together with the programs that it jumps to",
            Self::Refused => {
                "the kernel refuses it: boot without lockdown, or give the loader CAP_BPF and CAP_NET_ADMIN"
            }
            Self::Verifier => "see the verifier's log",
            Self::Object => "see what libbpf says of the file",
            Self::Other => "see the loader's messages",
        }
    }

    /// The class of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

impl fmt::Display for LoadClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A failed load in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The class.
    pub class: LoadClass,
    /// One sentence.
    pub sentence: String,
}

/// The number of a helper that libbpf puts in place of a relocation that it could not resolve (`bpf_core_poison_insn`).
const POISONED: &str = "unknown#195896080";
/// How the loader tells that the kernel is locked down; the state follows.
pub const LOCKED: &str = "the kernel is locked down";
/// Helpers that a kernel which is locked down has no program use (`bpf_base_func_proto`, kernel/bpf/helpers.c,
/// `bpf_tracing_func_proto`, kernel/trace/bpf_trace.c: `LOCKDOWN_BPF_READ_KERNEL`, `LOCKDOWN_BPF_WRITE_USER`). To the verifier they are
/// helpers that the type of program does not have.
const LOCKED_HELPERS: [&str; 6] = [
    "bpf_probe_read_kernel_str",
    "bpf_probe_read_kernel",
    "bpf_probe_read_str",
    "bpf_probe_read#",
    "bpf_snprintf_btf",
    "bpf_probe_write_user",
];
const ENOMEM: i32 = 12;
const EPERM: i32 = 1;
const E2BIG: i32 = 7;

/// The program that made a load fail, by what libbpf said: the last one that is named, since it stops there.
pub fn failed_program(said: &[String]) -> Option<String> {
    let named = |line: &String| {
        line.split_once("prog '").map(|(_, rest)| rest.split('\'').next().unwrap_or_default().to_owned())
    };
    said.iter().rev().find_map(named).filter(|name| !name.is_empty())
}

/// Why the load failed.
///
/// The first cause wins: what libbpf says before it asks the kernel comes before the verifier's log, and in both the particular
/// before the general.
pub fn classify(load: &LoadFact) -> LoadClass {
    explain(load).class
}

/// Why an object did not load as a whole; `None` if it did, or if nothing is known.
pub fn failure(facts: &CheckFacts) -> Option<LoadClass> {
    let whole = facts.loads.iter().rfind(|load| load.attempt != LoadAttempt::Alone)?;
    whole.errno.map(|_| classify(whole))
}

/// As [`classify`], with a sentence.
pub fn explain(load: &LoadFact) -> Named {
    let of = |class: LoadClass, sentence: String| Named { class, sentence };
    let said = |part: &str| load.said.iter().find(|line| line.contains(part));
    let verified = |part: &str| load.verifier.iter().find(|line| line.contains(part));
    let either = |part: &str| said(part).or_else(|| verified(part));
    let named = |what: &str| match &load.failed {
        Some(program) => format!("program {program}: {what}"),
        None => what.to_owned(),
    };
    if let Some(line) = said("legacy map definitions") {
        return of(LoadClass::LegacyMaps, plain(line));
    }
    if let Some(line) = said("is static and not supported") {
        return of(LoadClass::StaticProgram, plain(line));
    }
    if let Some(line) = said("missing BPF prog type") {
        return of(LoadClass::Section, plain(line));
    }
    if let Some(line) = said("parameter mismatch") {
        return of(LoadClass::PinnedMap, plain(line));
    }
    if let Some(line) = said("(func ksym)").filter(|line| line.contains("not found in kernel")) {
        return missing_kfunc(quoted(line), |sentence| sentence.to_owned());
    }
    if let Some(line) = said("(func ksym)").filter(|line| line.contains("incompatible")) {
        return of(LoadClass::KfuncSignature, plain(line));
    }
    if let Some(line) = said("failed to open system Kconfig").or_else(|| {
        load.said.iter().find(|line| line.contains("(kcfg)") || line.contains("'CONFIG_") && line.contains("extern"))
    }) {
        return of(LoadClass::Kconfig, plain(line));
    }
    if let Some(line) = load
        .said
        .iter()
        .find(|line| line.contains("ksym)") && (line.contains("not found") || line.contains("not resolved")))
    {
        return of(LoadClass::Ksym, plain(line));
    }
    if let Some(line) = load.said.iter().find(|line| line.contains("extern ") && line.contains("not resolved")) {
        return of(LoadClass::Ksym, plain(line));
    }
    if let Some(line) = said("the kernel has no map type") {
        return of(LoadClass::MapType, plain(line));
    }
    if let Some(line) = load.said.iter().find(|line| line.contains("map '") && line.contains("failed to create")) {
        let class = if load.errno == Some(-ENOMEM) || load.errno == Some(ENOMEM) || line.contains("ENOMEM") {
            LoadClass::Memory
        } else if load.errno.is_some_and(|errno| errno.abs() == EPERM) {
            LoadClass::Refused
        } else {
            LoadClass::Map
        };
        return of(class, plain(line));
    }
    if let Some(line) = said("failed to initialize slot") {
        // A program that is not loaded has no descriptor.
        let is_left_out = load.attempt == LoadAttempt::Alone && line.contains(" fd=-");
        return of(if is_left_out { LoadClass::Companions } else { LoadClass::ProgArray }, plain(line));
    }
    if let Some(line) = said("the kernel has no program type") {
        return of(LoadClass::ProgramType, named(&plain(line)));
    }
    if let Some(line) = said("the kernel has no attach type") {
        return of(LoadClass::AttachType, named(&plain(line)));
    }
    if let Some(line) = either("failed to resolve CO-RE relocation") {
        return of(LoadClass::Core, named(&plain(line)));
    }
    if let Some(line) = said("failed to find kernel BTF type ID").or_else(|| said("failed to find BTF ID")) {
        return of(LoadClass::Target, named(&plain(line)));
    }
    if let Some(line) = either("is referenced but wasn't resolved") {
        return missing_kfunc(quoted(line), |sentence| named(sentence));
    }
    if let (Some(state), Some(line)) =
        (said(LOCKED), verified("cannot use helper").or_else(|| verified("unknown func ")))
        && let Some(helper) = LOCKED_HELPERS.into_iter().find(|helper| line.contains(*helper))
    {
        return of(LoadClass::Refused, named(&format!("{}: it refuses {helper}", plain(state))));
    }
    if let Some(line) = verified("is not allowed").filter(|line| line.contains("calling kernel function")) {
        return of(LoadClass::NotAllowed, named(&plain(line)));
    }
    if let Some(line) = verified("program of this type cannot use helper").or_else(|| verified("unknown func ")) {
        return of(LoadClass::NotAllowed, named(&plain(line)));
    }
    if let Some(line) = verified("invalid func ") {
        let class = if line.contains(POISONED) { LoadClass::Core } else { LoadClass::Helper };
        return of(class, named(&plain(line)));
    }
    if let Some(line) = verified("BPF program is too large").or_else(|| verified("jumps is too complex")) {
        return of(LoadClass::TooComplex, named(&plain(line)));
    }
    if load.errno.is_some_and(|errno| errno.abs() == E2BIG) {
        return of(LoadClass::TooComplex, named("the kernel refused it as too big (E2BIG)"));
    }
    if let Some(line) = last_words(&load.verifier) {
        return of(LoadClass::Verifier, named(&line));
    }
    if load.errno.is_some_and(|errno| errno.abs() == EPERM) {
        return of(LoadClass::Refused, named("the kernel refused it (EPERM)"));
    }
    if load.errno.is_some_and(|errno| errno.abs() == ENOMEM) {
        return of(LoadClass::Memory, named("out of memory (ENOMEM)"));
    }
    let last = load.said.iter().rev().find(|line| !line.trim().is_empty() && !line.starts_with(LOCKED));
    let sentence = last.map_or_else(|| "the loader gives no reason".to_owned(), |line| plain(line));
    let is_about_the_file = ["elf: ", "sec '", "BTF"].iter().any(|start| sentence.starts_with(start));
    let class = if load.failed.is_none() && is_about_the_file { LoadClass::Object } else { LoadClass::Other };
    of(if load.attempt == LoadAttempt::Alone { LoadClass::Companions } else { class }, named(&sentence))
}

/// The first word between single quotation marks.
fn quoted(line: &str) -> &str {
    line.split('\'').nth(1).unwrap_or_default()
}

/// A line without its prefix.
fn plain(line: &str) -> String {
    line.trim().trim_start_matches("libbpf: ").trim().to_owned()
}

/// The verifier's reason: the last line before its statistics that is neither an instruction nor a state.
fn last_words(log: &[String]) -> Option<String> {
    let is_reason = |line: &&String| {
        let line = line.trim();
        let is_instruction = line.split_once(':').is_some_and(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()));
        !line.is_empty()
            && !is_instruction
            && ![
                "processed ",
                ";",
                "verification time",
                "stack depth",
                "subprog ",
                "func#",
                "R",
                "from ",
                "arg#",
                "caller:",
                "callee:",
            ]
            .iter()
            .any(|start| line.starts_with(start) && !is_about_a_register(line))
            && !line.starts_with("-- ")
    };
    log.iter().rev().find(is_reason).map(|line| plain(line))
}

/// `R1 invalid mem access 'scalar'` is a reason, `R1=ctx() R10=fp0` is a state.
fn is_about_a_register(line: &str) -> bool {
    let mut rest = line.chars().skip_while(|c| c.is_ascii_alphanumeric());
    line.starts_with('R') && rest.next() == Some(' ') && !line.contains('=')
}

/// A kfunc that was not found.
fn missing_kfunc(name: &str, named: impl Fn(&str) -> String) -> Named {
    if let Some((since, title)) = kfuncs::since(name) {
        let sentence = format!("the kernel has no kfunc {name}; mainline has it since {since} ({title})");
        return Named { class: LoadClass::Kfunc, sentence: named(&sentence) };
    }
    if let Some(module) = kfuncs::module_of(name) {
        let sentence = format!("the kernel has no kfunc {name}; it is in the module {module}, if the kernel has one");
        return Named { class: LoadClass::KfuncModule, sentence: named(&sentence) };
    }
    Named { class: LoadClass::Kfunc, sentence: named(&format!("the kernel has no kfunc {name}")) }
}

#[cfg(test)]
#[path = "class_tests.rs"]
mod tests;
