//! What `check.toml` says of an object: modules before it is loaded, types, variables and sizes before the load, contents and slots
//! after it.

use crate::{
    libbpf::{self, InnerShape, Object},
    tell::Teller,
};
use lab_check::CheckOrder;
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, AsRawFd, OwnedFd},
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

/// What was set before the load, and is needed until after it.
#[derive(Default)]
pub struct PreparedObject {
    /// What could not be done.
    pub problems: Vec<String>,
    /// What the inner maps of maps are, by the outer map.
    inner: BTreeMap<String, InnerShape>,
    /// Maps that libbpf holds the descriptors of.
    _kept: Vec<OwnedFd>,
}

/// Before the load.
pub fn before(order: &CheckOrder, object: &Object<'_>) -> PreparedObject {
    let mut prepared = PreparedObject::default();
    let problems = &mut prepared.problems;
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
        let Some(map) = object.maps().into_iter().find(|map| map.name() == *name) else {
            problems.push(format!("maps: the object has no map `{name}`"));
            continue;
        };
        if let Some(count) = wanted.max_entries {
            map.set_max_entries(count);
        }
        let told = wanted.inner.as_ref().map(InnerShape::told);
        if told.is_some_and(|shape| shape.is_none()) {
            let kind = wanted.inner.as_ref().map(|inner| &*inner.kind).unwrap_or_default();
            problems.push(format!("maps: `inner` of `{name}`: libbpf knows no type of maps `{kind}`"));
            continue;
        }
        match (told.flatten(), map.inner()) {
            (Some(shape), _) => {
                let made = shape.make("inner").and_then(|inner| map.set_inner(&inner).map(|()| inner));
                match made {
                    Ok(inner) => prepared._kept.push(inner),
                    Err(errno) => problems.push(format!("maps: `inner` of `{name}`: {}", name_of(errno))),
                }
                prepared.inner.insert(name.clone(), shape);
            }
            (None, Some(shape)) => drop(prepared.inner.insert(name.clone(), shape)),
            (None, None) if wanted.inner_maps.is_empty() => {}
            (None, None) => problems
                .push(format!("maps: the object does not say what the inner maps of `{name}` are: say it by `inner`")),
        }
    }
    prepared
}

/// After the load. Returns what could not be done.
pub fn after(order: &CheckOrder, object: &Object<'_>, prepared: &PreparedObject) -> Vec<String> {
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
    for (name, wanted) in &order.maps {
        let (Some(map), Some(shape)) =
            (object.maps().into_iter().find(|map| map.name() == *name), prepared.inner.get(name).copied())
        else {
            continue;
        };
        for inner in &wanted.inner_maps {
            let made = libbpf::inner_map_of(shape, &inner.entries);
            // The outer map keeps it once it is in there.
            let put = made.and_then(|made| map.write(&inner.key, &made.as_raw_fd().to_ne_bytes()));
            if let Err(errno) = put {
                let ((outer, _), (key, value)) = (map.sizes(), shape.sizes());
                problems.push(format!(
                    "maps: a map for `{name}`: {} (its keys have {outer} bytes, those of its inner maps {key}, their values \
                     {value})",
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
