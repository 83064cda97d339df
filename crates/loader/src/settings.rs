//! What `check.toml` says of an object: modules before it is loaded, types, variables and sizes before the load, contents and slots
//! after it.

use crate::{
    libbpf::{self, Object},
    tell::Teller,
};
use lab_check::CheckOrder;
use socket2::{Domain, Socket, Type};
use std::{
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

/// Has the kernel load modules. The request for the flags of a device that does not exist asks for the module of that name
/// (`dev_load`, net/core/dev_ioctl.c).
pub fn modules(order: &CheckOrder, tell: &mut Teller) {
    for module in &order.modules {
        let done = Socket::new(Domain::IPV4, Type::DGRAM, None).and_then(|socket| request(&socket, module));
        let path = format!("/sys/module/{}", module.replace('-', "_"));
        if !std::path::Path::new(&path).exists() {
            let why = done.err().map_or_else(String::new, |error| format!(": {error}"));
            tell.note(format!("the module {module} is not loaded{why}"));
        }
    }
}

fn request(socket: &Socket, module: &str) -> std::io::Result<()> {
    // SAFETY: an ifreq of zeros is a valid one.
    let mut ask: libc::ifreq = unsafe { std::mem::zeroed() };
    if module.len() >= ask.ifr_name.len() {
        return Err(std::io::Error::other("its name has more than 15 characters"));
    }
    for (to, from) in ask.ifr_name.iter_mut().zip(module.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: the request takes the address of an ifreq, which lives across the call. Its answer, no such device, does not matter.
    unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut ask) };
    Ok(())
}

/// Before the object is opened. Returns what could not be done.
pub fn pins(order: &CheckOrder, directory: &Path) -> Vec<String> {
    let pinned = order.maps.iter().filter_map(|(name, map)| Some((name, map.pinned.as_ref()?)));
    let made = pinned.filter_map(|(name, wanted)| {
        let errno = libbpf::pin_map(&directory.join(name).to_string_lossy(), name, wanted).err()?;
        Some(format!("maps: a map of the type {} can't be pinned as `{name}`: {}", wanted.kind, name_of(errno)))
    });
    made.collect()
}

/// Before the load. Returns what could not be done.
pub fn before(order: &CheckOrder, object: &Object<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    for program in object.programs() {
        let (name, section) = (program.name(), program.section());
        if let Some(kind) = order.types.get(&name).or_else(|| order.types.get(&section)) {
            match libbpf::type_named(kind) {
                Some(kind) => program.set_kind(kind),
                None => problems.push(format!("types: libbpf knows no type of programs `{kind}`")),
            }
        }
        if !order.only.is_empty() {
            program.set_wanted(order.only.contains(&name));
        }
    }
    for (name, value) in &order.globals {
        match object.set_global(name, value) {
            Ok(()) => {}
            Err(None) => {
                problems.push(format!("globals: the object has no global variable `{name}` with type information"))
            }
            Err(Some(size)) => {
                problems.push(format!("globals: `{name}` has {size} bytes, the value has {}", value.len()))
            }
        }
    }
    for (name, wanted) in &order.maps {
        match (object.maps().into_iter().find(|map| map.name() == *name), wanted.max_entries) {
            (Some(map), Some(count)) => map.set_max_entries(count),
            (Some(_), None) => {}
            (None, _) => problems.push(format!("maps: the object has no map `{name}`")),
        }
    }
    problems
}

/// After the load. Returns what could not be done.
pub fn after(order: &CheckOrder, object: &Object<'_>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, wanted) in &order.maps {
        let Some(map) = object.maps().into_iter().find(|map| map.name() == *name) else { continue };
        for (key, value) in &wanted.entries {
            if let Err(errno) = map.write(key, value) {
                let (key_size, value_size) = map.sizes();
                problems.push(format!(
                    "maps: writing to `{name}`: {} (its keys have {key_size} bytes, its values {value_size})",
                    name_of(errno)
                ));
            }
        }
    }
    for slot in &order.slots {
        let map = object.maps().into_iter().find(|map| map.name() == slot.map);
        let program = object.programs().into_iter().find(|program| program.name() == slot.program);
        let (Some(map), Some(fd)) = (map, program.and_then(|program| program.fd())) else {
            problems.push(format!(
                "slot {} of `{}`: no such map, or the program `{}` is not loaded",
                slot.index, slot.map, slot.program
            ));
            continue;
        };
        if let Err(errno) = map.write(&slot.index.to_ne_bytes(), &fd.to_ne_bytes()) {
            problems.push(format!(
                "slot {} of `{}`: the kernel refused `{}`: {}",
                slot.index,
                slot.map,
                slot.program,
                name_of(errno)
            ));
        }
    }
    problems
}

/// `EINVAL`.
pub fn name_of(errno: i32) -> String {
    format!("{:?}", nix::errno::Errno::from_raw(errno.abs()))
}
