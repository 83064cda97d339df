//! Loading past aya's loader, for what that cannot say: an expected attach type, and a map that is there already.
//!
//! Parsing, relocation and map creation are aya's all the same; only the calls to the kernel differ.

use crate::{
    BpfError, LoadOptions, ProgramKind,
    load::{missing, object_error},
    program::Maps,
    raw, sys,
};
use aya::maps::{Map, MapData};
use aya_obj::{EbpfSectionKind, Object};
use lab_abi::Config;
use nix::errno::Errno;
use std::{
    collections::HashMap,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// A parsed object file. Parsing is most of the work, so it is done once; loading takes a copy of what concerns one program.
#[derive(Debug)]
pub(crate) struct Parsed {
    whole: Object,
    /// The object with one program in it each, by the program's name.
    alone: HashMap<String, Object>,
}

/// One program, and what it takes from outside.
pub(crate) struct Want<'a> {
    /// The function's name.
    pub program: &'a str,
    /// The bytes of the object's `CONFIG`.
    pub config: &'a [u8],
    /// Maps that are there already, by name; every other one is made.
    pub given: &'a [(&'a str, BorrowedFd<'a>)],
    /// Passed to `BPF_PROG_LOAD`.
    pub expected_attach_type: u32,
}

impl Parsed {
    pub fn new(bytes: &[u8], of: &str) -> Result<Self, BpfError> {
        let whole = Object::parse(bytes).map_err(|error| object_error(of, error))?;
        let alone = whole.programs.keys().map(|program| (program.clone(), alone(&whole, program))).collect();
        Ok(Self { whole, alone })
    }

    /// Makes every map but the named ones, which nobody shares.
    pub fn maps(&self, of: &str, but: &[&str]) -> Result<HashMap<String, MapData>, BpfError> {
        let shared = self
            .whole
            .maps
            .iter()
            .filter(|(name, map)| map.section_kind() != EbpfSectionKind::Rodata && !but.contains(&name.as_str()));
        shared.map(|(name, definition)| Ok((name.clone(), create(of, name, definition)?))).collect()
    }

    /// Loads a program; gives back the maps that were made for it.
    pub fn load(&self, want: &Want<'_>) -> Result<(OwnedFd, HashMap<String, MapData>), BpfError> {
        let of = want.program;
        let mut object = self.alone.get(of).ok_or_else(|| missing(of, of))?.clone();
        let fault = |error: &dyn std::fmt::Display| object_error(of, error);
        object.patch_map_data(HashMap::from([("CONFIG", (want.config, true))])).map_err(|error| fault(&error))?;

        let definitions: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let mut created = HashMap::new();
        let mut fds = Vec::new();
        for (name, definition) in &definitions {
            let fd = match want.given.iter().find(|(given, _)| given == name) {
                Some((_, fd)) => fd.as_raw_fd(),
                None => {
                    let data = create(of, name, definition)?;
                    created.entry(name.clone()).insert_entry(data).get().fd().as_fd().as_raw_fd()
                }
            };
            fds.push((name.as_str(), fd, definition));
        }

        let text = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(fds.into_iter(), &text).map_err(|error| fault(&error))?;
        object.relocate_calls(&text).map_err(|error| fault(&error))?;

        let program = object.programs.get(of).ok_or_else(|| missing(of, of))?;
        let function = object.functions.get(&program.function_key()).ok_or_else(|| missing(of, of))?;
        let fd = raw::prog_load(&raw::Load {
            prog_type: raw::BPF_PROG_TYPE_SCHED_CLS,
            expected_attach_type: want.expected_attach_type,
            name: of,
            license: &program.license,
            instructions: &function.instructions,
        })?;
        Ok((fd, created))
    }
}

/// The object without other programs than this one, and without type information, which only relocations against the
/// kernel's would need. What programs call stays: it belongs to no program.
fn alone(whole: &Object, program: &str) -> Object {
    let mut object = whole.clone();
    (object.btf, object.btf_ext) = (None, None);
    object.programs.retain(|name, _| name == program);
    let others: Vec<_> =
        whole.programs.iter().filter(|(name, _)| *name != program).map(|(_, other)| other.function_key()).collect();
    object.functions.retain(|key, _| !others.contains(key));
    object
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
        expected_attach_type: options.expected_attach_type.unwrap_or(0),
    })?;
    if let Some(jump) = options.jump {
        let fd = jump.as_fd().try_clone_to_owned().map_err(|error| object_error(kind.name(), error))?;
        let data = MapData::from_fd(fd).map_err(|error| object_error(kind.name(), error))?;
        created.insert("JUMP".to_owned(), data);
    }
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
