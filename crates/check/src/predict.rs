//! What a kernel's type information and configuration say against an object, without loading it.
//!
//! A cause is certain where libbpf or the verifier must meet it: [`crate::flow`] says which instructions that is so for. What only
//! may be met, or may be in a module of the kernel, is open, and told as such. That nothing speaks against an object is no proof that
//! it loads.

use crate::{
    btf::{TypeTable, essential, kind},
    class::LoadClass,
    code::{CodePlace, CodeTarget, Extern, ExternKind, ObjectCode},
    fault::CheckFault,
    flow::{Context, KernelEffect, KernelEffects, looked_at},
    kfuncs::module_of,
    order::CheckOrder,
    relocation::{CoreRelocation, Matcher, RelocationKind, Resolved},
    sections::SectionName,
};
use lab_protocol::KernelVersion;
use std::collections::{BTreeMap, BTreeSet};

/// `BPF_JMP | BPF_CALL`.
const CALL: u8 = 0x85;
/// `bpf_probe_read_user` and its kin, which libbpf replaces on kernels without them (`bpf_object__sanitize_prog`).
const REPLACED: std::ops::RangeInclusive<u32> = 112..=115;
/// Levels of prototypes within prototypes (`bpf_core_types_are_compat`).
const LEVELS: u32 = 32;
/// The first version whose modules have type information of their own (`CONFIG_DEBUG_INFO_BTF_MODULES`).
const MODULE_TYPES: KernelVersion = KernelVersion::new(5, 11, 0);
/// Types of programs of which every kernel since 5.10 compares the expected type of attachment with those that it knows
/// (`bpf_prog_load_check_attach_type`, kernel/bpf/syscall.c).
const COMPARED: [&str; 4] = ["CGROUP_SOCK", "CGROUP_SOCK_ADDR", "CGROUP_SOCKOPT", "CGROUP_SKB"];
/// Values that libbpf gives to externs itself.
const VIRTUAL: [&str; 3] = ["LINUX_KERNEL_VERSION", "LINUX_HAS_BPF_COOKIE", "LINUX_HAS_SYSCALL_WRAPPER"];
/// States of an object's programs that are followed, at most: bounds the time for ten thousand programs.
const BUDGET: usize = 1_000_000;
/// Reasons that are told, at most.
const TOLD: usize = 20;

/// What a kernel has.
#[derive(Debug)]
pub struct KernelTypes<'a> {
    btf: TypeTable<'a>,
    /// Names of the helpers, by number.
    helpers: BTreeMap<u32, &'a [u8]>,
    map_types: BTreeMap<u32, &'a [u8]>,
    program_types: BTreeMap<u32, &'a [u8]>,
    attach_types: BTreeMap<u32, &'a [u8]>,
    /// The options that are set; `None` without a configuration.
    config: Option<BTreeSet<String>>,
    /// A fault that is made on purpose.
    fault: Option<CheckFault>,
    /// Whether its modules have type information.
    has_module_types: bool,
}

/// What is predicted of an object on a kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Prediction {
    /// Whether it is certain that the object does not load as a whole.
    pub fails: bool,
    /// The class of that failure, where it is certain.
    pub class: Option<LoadClass>,
    /// Why, the open ones among them.
    pub reasons: Vec<String>,
}

/// Something that speaks against an object.
#[derive(Debug, Clone)]
struct Cause {
    class: LoadClass,
    is_certain: bool,
    text: String,
}

impl<'a> KernelTypes<'a> {
    /// From its type information, and the text of its configuration.
    pub fn read(btf: &'a [u8], config: Option<&str>, version: KernelVersion) -> Option<Self> {
        let btf = TypeTable::read(btf)?;
        let list = |name: &[u8]| {
            let found = btf.find(name, kind::ENUM).and_then(|id| btf.get(id)).map(|found| btf.values(found));
            let named = found.unwrap_or_default().into_iter().filter(|(name, _)| !name.starts_with(b"__"));
            named.map(|(name, value)| (value as u32, name)).collect::<BTreeMap<u32, &[u8]>>()
        };
        let set = |line: &str| Some(line.split_once('=').filter(|(name, _)| name.starts_with("CONFIG_"))?.0.to_owned());
        Some(Self {
            helpers: list(b"bpf_func_id"),
            map_types: list(b"bpf_map_type"),
            program_types: list(b"bpf_prog_type"),
            attach_types: list(b"bpf_attach_type"),
            config: config.map(|text| text.lines().filter_map(set).collect()),
            fault: None,
            has_module_types: version >= MODULE_TYPES,
            btf,
        })
    }

    /// The same with a fault.
    pub fn with_fault(mut self, fault: Option<CheckFault>) -> Self {
        match fault {
            // bpf_redirect.
            Some(CheckFault::HelperUnknown) => drop(self.helpers.remove(&23)),
            Some(CheckFault::AttachTypeUnknown) => {
                self.attach_types.retain(|_, name| !name.starts_with(b"BPF_TCX") && !name.starts_with(b"BPF_NETKIT"));
            }
            _ => {}
        }
        Self { fault, ..self }
    }

    /// Whether it knows the type of attachment; `None` where its type information does not say which it knows.
    pub fn has_attach_type(&self, name: &str) -> Option<bool> {
        let has = |types: &BTreeMap<u32, &[u8]>| types.values().any(|known| *known == name.as_bytes());
        (!self.attach_types.is_empty()).then(|| has(&self.attach_types))
    }

    /// The same by its number (`enum bpf_attach_type`).
    pub fn has_attach_number(&self, number: u32) -> Option<bool> {
        (!self.attach_types.is_empty()).then(|| self.attach_types.contains_key(&number))
    }

    /// Whether an option of the configuration is set; `None` without a configuration.
    pub fn has_option(&self, name: &str) -> Option<bool> {
        self.config.as_ref().map(|config| config.contains(name))
    }

    /// Its helpers' names by number.
    pub fn helpers(&self) -> impl Iterator<Item = (u32, String)> {
        let name = |name: &[u8]| String::from_utf8_lossy(name).replacen("BPF_FUNC_", "bpf_", 1);
        self.helpers.iter().map(move |(number, it)| (*number, name(it)))
    }

    /// What speaks against the object. `names` has the names of helpers that other kernels have.
    pub fn predict(&self, code: &ObjectCode, order: &CheckOrder, names: &BTreeMap<u32, String>) -> Prediction {
        let local = TypeTable::read(&code.btf);
        let mut found =
            Search { kernel: self, code, order, names, local: local.as_ref(), causes: Vec::new(), budget: BUDGET };
        found.run();
        let causes = found.causes;
        let end = causes.iter().position(|cause| cause.is_certain);
        let before = &causes[..end.map_or(0, |end| end + 1)];
        let class = before.first().map(|cause| cause.class);
        let mut reasons: Vec<String> = Vec::new();
        for cause in &causes {
            let text = if cause.is_certain { cause.text.clone() } else { format!("open: {}", cause.text) };
            if !reasons.contains(&text) && reasons.len() < TOLD {
                reasons.push(text);
            }
        }
        Prediction {
            fails: end.is_some(),
            class: class.filter(|class| before.iter().all(|cause| cause.class == *class)),
            reasons,
        }
    }
}

/// The search for what speaks against an object, in the order in which libbpf and the kernel would meet it.
struct Search<'a> {
    kernel: &'a KernelTypes<'a>,
    code: &'a ObjectCode,
    order: &'a CheckOrder,
    names: &'a BTreeMap<u32, String>,
    local: Option<&'a TypeTable<'a>>,
    causes: Vec<Cause>,
    /// States of programs that may still be followed.
    budget: usize,
}

/// What became of an extern.
enum Found {
    Yes,
    No,
    /// It may be in a module.
    Open,
}

impl Search<'_> {
    fn add(&mut self, class: LoadClass, is_certain: bool, text: String) {
        self.causes.push(Cause { class, is_certain, text });
    }

    fn is_settled(&self) -> bool {
        self.causes.last().is_some_and(|cause| cause.is_certain)
    }

    fn run(&mut self) {
        let (code, kernel) = (self.code, self.kernel);
        if code.has_legacy_maps {
            self.add(
                LoadClass::LegacyMaps,
                true,
                "its maps are in SEC(\"maps\"), which libbpf 1.x does not read".to_owned(),
            );
            return;
        }
        if let Some(name) = code.statics.first() {
            self.add(LoadClass::StaticProgram, true, format!("the function {name} is static"));
            return;
        }
        self.externs();
        if self.is_settled() || self.local.is_none() && !code.btf.is_empty() {
            return;
        }
        let missing = code.maps.iter().find(|map| !kernel.map_types.contains_key(&map.kind));
        if let Some(map) = missing.filter(|_| !kernel.map_types.is_empty()) {
            let text = format!("map {} has the type {}, which the kernel does not know", map.name, map.kind);
            // The kernel's answer for the pattern of inner maps is not told apart.
            self.add(if map.is_inner { LoadClass::Map } else { LoadClass::MapType }, !map.is_inner, text);
            if !map.is_inner {
                return;
            }
        }
        let (effects, refusals) = self.effects();
        for program in &code.programs {
            self.program(program.place, &program.name, &effects, &refusals);
            if self.is_settled() {
                return;
            }
        }
    }

    fn externs(&mut self) {
        let (code, kernel) = (self.code, self.kernel);
        let strong = |it: &&Extern| !it.is_weak;
        let is_made_up = |it: &&Extern| it.kind == ExternKind::Kconfig && !it.name.starts_with("CONFIG_");
        let made_up = code.externs.iter().filter(strong).find(|it| is_made_up(it) && !VIRTUAL.contains(&&*it.name));
        if let Some(it) = made_up {
            return self.add(LoadClass::Kconfig, true, format!("libbpf does not know the extern {}", it.name));
        }
        for it in code.externs.iter().filter(strong) {
            let (class, what) = match &it.kind {
                ExternKind::Kfunc(prototype) => {
                    if let (Some(id), Some(local)) = (self.kfunc(&it.name), self.local) {
                        let target = kernel.btf.get(id).map_or(0, |found| found.target());
                        let fits = Matcher { local, kernel: &kernel.btf }.types_fit(*prototype, target, LEVELS);
                        if fits != Some(true) {
                            let text = format!("the kernel's kfunc {} has another prototype", it.name);
                            self.add(LoadClass::KfuncSignature, true, text);
                            return;
                        }
                    }
                    (kfunc_class(&it.name), "kfunc")
                }
                ExternKind::Variable => (LoadClass::Ksym, "variable"),
                _ => continue,
            };
            match self.found(it) {
                Found::Yes => {}
                Found::No => return self.add(class, true, format!("no {what} {}", it.name)),
                Found::Open => {
                    let module = module_of(&it.name).map(|module| format!("; it is in the module {module}"));
                    self.add(
                        class,
                        false,
                        format!("no {what} {} in the kernel itself{}", it.name, module.unwrap_or_default()),
                    );
                }
            }
        }
        for it in code.externs.iter().filter(strong) {
            match it.kind {
                ExternKind::Kconfig if it.name.starts_with("CONFIG_") => match kernel.has_option(&it.name) {
                    Some(true) => {}
                    Some(false) => return self.add(LoadClass::Kconfig, true, format!("{} is not set", it.name)),
                    None => self.add(LoadClass::Kconfig, false, format!("{}: no configuration is at hand", it.name)),
                },
                // Symbols without types are in no file that is at hand.
                ExternKind::Symbol => self.add(LoadClass::Ksym, false, format!("the symbol {}", it.name)),
                _ => {}
            }
        }
    }

    /// The kernel's function of that name.
    fn kfunc(&self, name: &str) -> Option<u32> {
        self.kernel.btf.find(essential(name.as_bytes()), kind::FUNC)
    }

    fn found(&self, it: &Extern) -> Found {
        let name = essential(it.name.as_bytes());
        let (found, is_open) = match it.kind {
            ExternKind::Kfunc(prototype) => {
                let fits = self.kfunc(&it.name).zip(self.local).map(|(id, local)| {
                    let target = self.kernel.btf.get(id).map_or(0, |found| found.target());
                    Matcher { local, kernel: &self.kernel.btf }.types_fit(prototype, target, LEVELS) == Some(true)
                });
                // Modules with kfuncs are few and known; functions with other names are whatever a module exports as a kfunc.
                (fits, module_of(&it.name).is_some() || !name.starts_with(b"bpf_"))
            }
            ExternKind::Variable => (self.kernel.btf.find(name, kind::VAR).map(|_| true), false),
            ExternKind::Symbol => return Found::Open,
            ExternKind::Kconfig => return Found::Yes,
        };
        match found {
            Some(true) => Found::Yes,
            Some(false) => Found::No,
            None if self.kernel.has_module_types && (is_open || !self.order.modules.is_empty()) => Found::Open,
            None => Found::No,
        }
    }

    /// What instructions become, and the causes of those that are refused.
    fn effects(&self) -> (KernelEffects, Vec<Cause>) {
        let (mut effects, mut refusals) = (KernelEffects::new(), Vec::new());
        let refuse = |refusals: &mut Vec<Cause>, cause: Cause| {
            refusals.push(cause);
            KernelEffect::Refused(refusals.len() - 1)
        };
        let externs: BTreeMap<&str, &Extern> = self.code.externs.iter().map(|it| (&*it.name, it)).collect();
        for (number, section) in &self.code.sections {
            for (at, relocation) in &section.relocations {
                let (class, text) = (LoadClass::Core, self.describe(relocation));
                let found = self.local.map(|local| Matcher { local, kernel: &self.kernel.btf }.resolve(relocation));
                let has_modules = self.kernel.has_module_types;
                use RelocationKind as K;
                let effect = match found.flatten() {
                    Some(Resolved::Answer(answer)) => {
                        KernelEffect::Number(i64::from(answer || self.kernel.fault == Some(CheckFault::AnswersYes)))
                    }
                    Some(Resolved::Value) => continue,
                    Some(Resolved::Poisoned) => refuse(&mut refusals, Cause { class, is_certain: true, text }),
                    Some(Resolved::Unknown) => match relocation.kind {
                        K::Field | K::EnumValue => {
                            let text = format!("{text}; the kernel itself does not have the type");
                            refuse(&mut refusals, Cause { class, is_certain: !has_modules, text })
                        }
                        K::TypeMatches => KernelEffect::Unknown,
                        _ if has_modules => KernelEffect::Unknown,
                        _ => KernelEffect::Number(0),
                    },
                    None => refuse(
                        &mut refusals,
                        Cause { class, is_certain: false, text: format!("{text}: not understood") },
                    ),
                };
                effects.insert((*number, *at), effect);
            }
            for (at, instruction) in section.instructions.iter().enumerate() {
                let place: CodePlace = (*number, at);
                match section.targets.get(&at) {
                    Some(CodeTarget::Extern(name)) => {
                        let Some(it) = externs.get(&**name).copied() else { continue };
                        let is_call = instruction.code == CALL;
                        let effect = match (self.found(it), is_call) {
                            (_, false) if it.kind == ExternKind::Kconfig => continue,
                            (Found::Yes, true) => continue,
                            (Found::Yes, false) => KernelEffect::Address,
                            (Found::No, false) => KernelEffect::Number(0),
                            (Found::Open, false) => KernelEffect::Unknown,
                            (found, true) => {
                                let (class, text) = (
                                    kfunc_class(name),
                                    format!("it calls the kfunc {name}, which the kernel does not have"),
                                );
                                let is_certain = matches!(found, Found::No);
                                refuse(&mut refusals, Cause { class, is_certain, text })
                            }
                        };
                        effects.insert(place, effect);
                    }
                    None if instruction.code == CALL && instruction.from == 0 => {
                        let helper = instruction.number.cast_unsigned();
                        let helpers = &self.kernel.helpers;
                        if !helpers.is_empty() && !helpers.contains_key(&helper) && !REPLACED.contains(&helper) {
                            let name = self.names.get(&helper).map(|name| format!("{name}, "));
                            let text = format!(
                                "it calls the helper {}number {helper}, which the kernel does not have",
                                name.unwrap_or_default()
                            );
                            let cause = Cause { class: LoadClass::Helper, is_certain: true, text };
                            effects.entry(place).or_insert_with(|| refuse(&mut refusals, cause));
                        }
                    }
                    _ => {}
                }
            }
        }
        (effects, refusals)
    }

    /// A field, type or enumerator in words.
    fn describe(&self, relocation: &CoreRelocation) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Some(local) = self.local else { return "a CO-RE relocation".to_owned() };
        let Some(root) = local.get(relocation.root) else { return "a CO-RE relocation".to_owned() };
        let name = text(local.name(root));
        let mut id = local.plain(relocation.root);
        if let Some((_, found)) = id.filter(|(_, found)| found.is_enum()) {
            let value = relocation.access.first().and_then(|at| local.values(found).get(*at as usize).copied());
            return format!("the enumerator {} of {name}", value.map(|(name, _)| text(name)).unwrap_or_default());
        }
        let mut path = name;
        for step in relocation.access.iter().skip(1) {
            let Some((_, found)) = id else { break };
            let member = local.members(found).get(*step as usize).copied();
            if let Some(member) = member.filter(|member| !member.name.is_empty()) {
                path = format!("{path}.{}", text(member.name));
            }
            id = member
                .map(|member| member.kind)
                .or_else(|| found.array().map(|(of, _)| of))
                .and_then(|id| local.plain(id));
        }
        format!("the field {path}")
    }

    fn program(&mut self, place: CodePlace, name: &str, effects: &KernelEffects, refusals: &[Cause]) {
        let (code, kernel, order) = (self.code, self.kernel, self.order);
        let Some(section) = code.sections.get(&place.0) else { return };
        let read = SectionName::read(&section.name);
        let is_wanted = if order.only.is_empty() { read.is_loaded } else { order.only.iter().any(|it| it == name) };
        if !is_wanted {
            return;
        }
        let told = order.types.get(name).or_else(|| order.types.get(&section.name)).map(|kind| kind.to_uppercase());
        // What has no type is loaded as a classifier.
        let kind = told.clone().unwrap_or_else(|| read.program_type.unwrap_or("SCHED_CLS").to_owned());
        let attach = read.attach_type;
        if let (Some("BPF_LSM_MAC" | "BPF_LSM_CGROUP"), Some(target)) = (attach, read.target)
            && kernel.btf.find(format!("bpf_lsm_{target}").as_bytes(), kind::FUNC).is_none()
        {
            return self.add(LoadClass::Target, true, format!("program {name}: the kernel has no LSM hook {target}"));
        }
        if kind == "TRACING"
            && let (Some(attach), Some(target)) = (attach, read.target)
        {
            let (prefix, of) = match attach {
                "BPF_TRACE_RAW_TP" => ("btf_trace_", kind::TYPEDEF),
                "BPF_TRACE_ITER" => ("bpf_iter_", kind::FUNC),
                _ => ("", kind::FUNC),
            };
            let target = target.rsplit(':').next().unwrap_or_default();
            if kernel.btf.find(format!("{prefix}{target}").as_bytes(), of).is_none() {
                let text = format!("program {name}: no {target} in the kernel itself");
                return self.add(LoadClass::Target, !kernel.has_module_types, text);
            }
        }
        let known = |types: &BTreeMap<u32, &[u8]>, name: &str| {
            types.is_empty() || types.values().any(|known| *known == name.as_bytes())
        };
        if let Some(attach) = attach.filter(|attach| !known(&kernel.attach_types, attach))
            && known(&kernel.program_types, &format!("BPF_PROG_TYPE_{kind}"))
            && COMPARED.contains(&&*kind)
            && told.is_none()
        {
            return self.add(
                LoadClass::AttachType,
                true,
                format!("program {name}: the kernel has no attach type {attach}"),
            );
        }
        if !known(&kernel.program_types, &format!("BPF_PROG_TYPE_{kind}")) {
            return self.add(
                LoadClass::ProgramType,
                true,
                format!("program {name}: the kernel has no type of programs {}", kind.to_lowercase()),
            );
        }
        let context = match &*kind {
            "SCHED_CLS" | "SCHED_ACT" | "SOCKET_FILTER" | "CGROUP_SKB" | "LWT_IN" | "LWT_OUT" | "LWT_XMIT" => {
                Context::Skb
            }
            "XDP" => Context::Xdp,
            _ => Context::Other,
        };
        let looked = looked_at(code, effects, context, place, &mut self.budget);
        let mut own: Vec<Cause> = Vec::new();
        for number in &looked.possible {
            let Some(cause) = refusals.get(*number) else { continue };
            let is_certain = cause.is_certain && looked.certain.contains(number);
            own.push(Cause { is_certain, text: format!("program {name}: {}", cause.text), ..cause.clone() });
        }
        // The order in which the verifier meets them is not known: the certain ones last, so that the others count for the class.
        own.sort_by_key(|cause| cause.is_certain);
        self.causes.extend(own);
    }
}

/// The class of a failure for a kfunc that is not found.
fn kfunc_class(name: &str) -> LoadClass {
    if module_of(name).is_some() { LoadClass::KfuncModule } else { LoadClass::Kfunc }
}

#[cfg(test)]
#[path = "predict_tests.rs"]
mod tests;
