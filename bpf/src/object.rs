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
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

pub(crate) fn load(
    bytes: &[u8],
    kind: ProgramKind,
    config: &Config,
    options: &LoadOptions<'_>,
) -> Result<(OwnedFd, Maps), BpfError> {
    let mut object = Object::parse(bytes).map_err(|error| object_error(kind, error))?;
    object
        .patch_map_data(HashMap::from([("CONFIG", (sys::bytes_of(config), true))]))
        .map_err(|error| object_error(kind, error))?;

    let definitions: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
    let mut created = HashMap::new();
    for (name, definition) in &definitions {
        let data = match options.jump {
            Some(jump) if name == "JUMP" => {
                let fd = jump.as_fd().try_clone_to_owned().map_err(|error| object_error(kind, error))?;
                MapData::from_fd(fd).map_err(|error| object_error(kind, error))?
            }
            _ => create(kind, name, definition)?,
        };
        created.insert(name.as_str(), data);
    }

    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let fds = definitions
        .iter()
        .map(|(name, definition)| (name.as_str(), created[name.as_str()].fd().as_fd().as_raw_fd(), definition));
    object.relocate_maps(fds, &text).map_err(|error| object_error(kind, error))?;
    object.relocate_calls(&text).map_err(|error| object_error(kind, error))?;

    let program = object.programs.get(kind.name()).ok_or_else(|| missing(kind, kind.name()))?;
    let function = object.functions.get(&program.function_key()).ok_or_else(|| missing(kind, kind.name()))?;
    let fd = raw::prog_load(&raw::Load {
        prog_type: raw::BPF_PROG_TYPE_SCHED_CLS,
        expected_attach_type: options.expected_attach_type.unwrap_or(0),
        name: kind.name(),
        license: &program.license,
        instructions: &function.instructions,
    })?;
    let maps = Maps::new(kind, |name| created.remove(name).and_then(|data| Map::from_map_data(data).ok()))?;
    Ok((fd, maps))
}

fn create(kind: ProgramKind, name: &str, definition: &aya_obj::Map) -> Result<MapData, BpfError> {
    let fault = |errno: Errno| BpfError::call(format!("filling map {name}"), errno);
    let data = MapData::create(definition.clone(), name, None).map_err(|error| object_error(kind, error))?;
    if !definition.data().is_empty() {
        sys::map_update(data.fd().as_fd(), 0, definition.data()).map_err(fault)?;
    }
    if definition.section_kind() == EbpfSectionKind::Rodata {
        sys::map_freeze(data.fd().as_fd()).map_err(fault)?;
    }
    Ok(data)
}
