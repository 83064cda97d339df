//! Loads programs without aya's loader, which supports neither an expected attach type nor existing maps.
//!
//! Parsing, relocation and map creation still use aya; only the calls to the kernel differ.

use crate::{
    BpfError, LoadOptions, ProgramKind,
    load::{missing, object_error},
    program::Maps,
    raw, sys,
};
use aya::maps::{Map, MapData};
use aya_obj::{EbpfSectionKind, Object, generated::bpf_insn};
use lab_abi::Config;
use nix::errno::Errno;
use std::{
    collections::HashMap,
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// The global that every program has its settings from.
const CONFIG: &str = "CONFIG";
/// `BPF_LD | BPF_IMM | BPF_DW`, include/uapi/linux/bpf.h.
const LOAD_WIDE: u8 = 0x18;
/// `BPF_PSEUDO_MAP_FD` and `BPF_PSEUDO_MAP_VALUE`, include/uapi/linux/bpf.h.
const MAP: [u8; 2] = [1, 2];
/// `BPF_PSEUDO_BTF_ID`, include/uapi/linux/bpf.h.
const VARIABLE: u8 = 3;

/// An object file whose programs are relocated but for the descriptors of their maps. Parsing and relocation are most
/// of the work, so they are done once.
#[derive(Debug)]
pub(crate) struct Parsed {
    maps: Vec<(String, aya_obj::Map)>,
    /// The map with the settings, and where in its value they begin.
    settings: (String, usize),
    programs: HashMap<String, Relocated>,
}

/// A program, with the places of the maps in it.
#[derive(Debug)]
struct Relocated {
    license: CString,
    /// Where a map belongs there is its position among all maps.
    instructions: Vec<bpf_insn>,
    /// The instructions in which a map belongs.
    refer: Vec<usize>,
}

/// One program, and what it takes from outside.
pub(crate) struct Want<'a> {
    /// The function's name.
    pub program: &'a str,
    /// The bytes of the object's `CONFIG`.
    pub config: &'a [u8],
    /// Maps that are there already, by name; the others that it refers to are made.
    pub given: &'a [(&'a str, BorrowedFd<'a>)],
    /// Passed to `BPF_PROG_LOAD`.
    pub prog_type: u32,
    /// Passed to `BPF_PROG_LOAD`.
    pub expected_attach_type: u32,
    /// What a tracing program is for.
    pub function: Option<raw::Function<'a>>,
    /// A constant of the program that is a per-CPU variable of the kernel, and the id of the variable's type.
    pub variable: Option<(u64, u32)>,
}

impl Parsed {
    /// Parses; `config` is the length of the settings.
    pub fn new(bytes: &[u8], config: usize, of: &str) -> Result<Self, BpfError> {
        let whole = Object::parse(bytes).map_err(|error| object_error(of, error))?;
        let settings = settings(&whole, config, of)?;
        let maps: Vec<_> = whole.maps.iter().map(|(name, map)| (name.clone(), map.clone())).collect();
        let mut programs = HashMap::new();
        for name in whole.programs.keys() {
            programs.insert(name.clone(), relocated(&whole, name, &maps)?);
        }
        Ok(Self { maps, settings, programs })
    }

    /// Creates every map except the named ones, which are not shared.
    pub fn maps(&self, of: &str, but: &[&str]) -> Result<HashMap<String, MapData>, BpfError> {
        let shared = self
            .maps
            .iter()
            .filter(|(name, map)| map.section_kind() != EbpfSectionKind::Rodata && !but.contains(&name.as_str()));
        shared.map(|(name, definition)| Ok((name.clone(), create(of, name, definition)?))).collect()
    }

    /// Loads a program; gives back the maps that were made for it.
    pub fn load(&self, want: &Want<'_>) -> Result<(OwnedFd, HashMap<String, MapData>), BpfError> {
        let of = want.program;
        let program = self.programs.get(of).ok_or_else(|| missing(of, of))?;
        let mut instructions = program.instructions.clone();
        let mut made = HashMap::new();
        for &at in &program.refer {
            let instruction = &mut instructions[at];
            let (name, definition) = &self.maps[instruction.imm as usize];
            let given = want.given.iter().find(|(given, _)| given == name);
            instruction.imm = match (given, made.get(name)) {
                (Some((_, fd)), _) => fd.as_raw_fd(),
                (None, Some(data)) => number(data),
                (None, None) => {
                    let data = self.make(of, name, definition, want.config)?;
                    number(made.entry(name.clone()).or_insert(data))
                }
            };
        }
        if let Some((constant, id)) = want.variable {
            refer_to(&mut instructions, constant, id);
        }
        let fd = raw::prog_load(&raw::ProgramLoad {
            prog_type: want.prog_type,
            expected_attach_type: want.expected_attach_type,
            name: of,
            license: &program.license,
            instructions: &instructions,
            function: want.function,
        })?;
        Ok((fd, made))
    }

    fn make(&self, of: &str, name: &str, definition: &aya_obj::Map, config: &[u8]) -> Result<MapData, BpfError> {
        let (settings, at) = &self.settings;
        if name != settings {
            return create(of, name, definition);
        }
        let mut definition = definition.clone();
        let place = definition.data_mut().get_mut(*at..at + config.len());
        place.ok_or_else(|| object_error(of, "CONFIG has another length"))?.copy_from_slice(config);
        create(of, name, &definition)
    }
}

/// Makes the loads of a constant loads of the variable's address.
fn refer_to(instructions: &mut [bpf_insn], constant: u64, id: u32) {
    for at in 1..instructions.len() {
        let (low, high) = (instructions[at - 1], instructions[at]);
        let value = u64::from(low.imm.cast_unsigned()) | u64::from(high.imm.cast_unsigned()) << 32;
        if low.code == LOAD_WIDE && low.src_reg() == 0 && value == constant {
            instructions[at - 1].set_src_reg(VARIABLE);
            instructions[at - 1].imm = id.cast_signed();
            instructions[at].imm = 0;
        }
    }
}

fn number(map: &MapData) -> i32 {
    map.fd().as_fd().as_raw_fd()
}

/// Finds the settings in the object, whose symbols the parser keeps to itself: they are what differs once they are set
/// one way and the other.
fn settings(whole: &Object, length: usize, of: &str) -> Result<(String, usize), BpfError> {
    let set = |byte: u8| {
        let mut object = whole.clone();
        let all = vec![byte; length];
        object
            .patch_map_data(HashMap::from([(CONFIG, (all.as_slice(), true))]))
            .map_err(|error| object_error(of, error))?;
        Ok::<_, BpfError>(object.maps)
    };
    let (zeros, ones) = (set(0)?, set(0xff)?);
    let found = zeros.iter().find_map(|(name, map)| {
        let differs = map.data().iter().zip(ones.get(name)?.data()).position(|(zero, one)| zero != one);
        Some((name.clone(), differs?))
    });
    found.ok_or_else(|| missing(of, CONFIG))
}

/// The program without the others. What it calls stays: that belongs to no program.
fn relocated(whole: &Object, name: &str, maps: &[(String, aya_obj::Map)]) -> Result<Relocated, BpfError> {
    let fault = |error: &dyn std::fmt::Display| object_error(name, error);
    let mut object = whole.clone();
    // Type information is for relocations against the kernel's only.
    (object.btf, object.btf_ext) = (None, None);
    object.programs.retain(|other, _| other == name);
    let others: Vec<_> =
        whole.programs.iter().filter(|(other, _)| *other != name).map(|(_, other)| other.function_key()).collect();
    object.functions.retain(|key, _| !others.contains(key));

    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let positions = maps.iter().zip(0..).map(|((name, map), position)| (name.as_str(), position, map));
    object.relocate_maps(positions, &text).map_err(|error| fault(&error))?;
    object.relocate_calls(&text).map_err(|error| fault(&error))?;

    let program = object.programs.remove(name).ok_or_else(|| missing(name, name))?;
    let function = object.functions.remove(&program.function_key()).ok_or_else(|| missing(name, name))?;
    let refers = |insn: &bpf_insn| insn.code == LOAD_WIDE && MAP.contains(&insn.src_reg());
    let refer = function.instructions.iter().enumerate().filter(|(_, insn)| refers(insn)).map(|(at, _)| at).collect();
    Ok(Relocated { license: program.license, instructions: function.instructions, refer })
}

pub(crate) fn load(
    parsed: &Parsed,
    kind: ProgramKind,
    config: &Config,
    options: &LoadOptions<'_>,
) -> Result<(OwnedFd, Maps), BpfError> {
    let jump = options.jump.map(|jump| ("JUMP", jump.as_fd()));
    let (fd, mut created) = parsed.load(&Want {
        program: kind.name(),
        config: sys::bytes_of(config),
        given: jump.as_slice(),
        prog_type: raw::BPF_PROG_TYPE_SCHED_CLS,
        expected_attach_type: options.expected_attach_type.unwrap_or(0),
        function: None,
        variable: None,
    })?;
    let maps = Maps::new(kind, |name| created.remove(name).and_then(|data| Map::from_map_data(data).ok()))?;
    Ok((fd, maps))
}

fn create(of: &str, name: &str, definition: &aya_obj::Map) -> Result<MapData, BpfError> {
    let fault = |errno: Errno| BpfError::call(format!("filling map {name}"), errno);
    let data = MapData::create(definition.clone(), name, None).map_err(|error| object_error(of, error))?;
    if !definition.data().is_empty() {
        sys::map_update(data.fd().as_fd(), 0, definition.data()).map_err(fault)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        sys::map_freeze(data.fd().as_fd()).map_err(fault)?;
    }
    Ok(data)
}
