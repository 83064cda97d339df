//! `/sbin/modprobe` of the agent's own root: the kernel runs it where something needs a module (`request_module()` in
//! kernel/module/kmod.c), in the root of PID 1, whatever root the program has that caused it.
//!
//! It reads the indexes that depmod(8) writes, from the kernel's complete modules, which the host exports.

use crate::kmsg;
use lab_protocol::world::MODULES;
use nix::{
    errno::Errno,
    kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module},
};
use std::{
    collections::HashMap,
    ffi::CStr,
    fs::{self, File},
    io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Once,
};

/// Default of `kernel.modprobe` (`CONFIG_MODPROBE_PATH`).
const MODPROBE: &str = "/sbin/modprobe";
/// `MODULE_INIT_COMPRESSED_FILE` (include/uapi/linux/module.h): the kernel decompresses it (Linux 5.17).
const COMPRESSED: ModuleInitFlags = ModuleInitFlags::from_bits_retain(4);

/// Makes the kernel find this program as modprobe.
///
/// # Errors
/// The root can't be written.
pub fn install() -> io::Result<()> {
    fs::create_dir_all("/sbin")?;
    match symlink("/init", MODPROBE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::write("/proc/sys/kernel/modprobe", MODPROBE),
    }
}

/// The program itself: `modprobe -q -- NAME` as the kernel calls it, and `modprobe [-a] NAME…` in roots that have none.
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    let (options, names): (Vec<String>, Vec<String>) = arguments.partition(|argument| argument.starts_with('-'));
    let quiet = options.iter().any(|option| option == "-q");
    let fail = |problem: String| {
        if quiet {
            kmsg::note(&problem);
        } else {
            eprintln!("{problem}");
        }
        ExitCode::FAILURE
    };
    if let Some(other) = options.iter().find(|option| !["-q", "-a", "--"].contains(&&***option)) {
        return fail(format!(
            "modprobe: {other} is not known to the guest's modprobe, which loads modules by their names only"
        ));
    }
    let Some(modules) = modules() else { return fail("modprobe: the kernel's modules are not there".to_owned()) };
    for name in &names {
        match load(&modules, name) {
            Ok(true) => {}
            // The kernel asks for many names that no module has.
            Ok(false) if quiet => return ExitCode::FAILURE,
            Ok(false) => return fail(format!("modprobe: no module of this kernel is {name}")),
            Err(problem) => return fail(format!("modprobe {name}: {problem}")),
        }
    }
    if names.is_empty() { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

/// The kernel's modules, in the agent's own root or in another one.
fn modules() -> Option<PathBuf> {
    let release = nix::sys::utsname::uname().ok()?.release().to_owned();
    let places = [Path::new(super::SHARE).join(MODULES), Path::new("/lib/modules").join(release)];
    places.into_iter().find(|place| place.join("modules.dep").is_file())
}

/// Modules of the lab's own cases that put a device into every network namespace: `tunl0` and `ip6tnl0` (net/ipv4/ip_tunnel.c,
/// ip_tunnel_init_net()).
const DEVICE_IN_EACH_NAMESPACE: [&CStr; 2] = [c"ipip", c"ip6_tunnel"];

/// Removes these modules, once, where the kernel finds them again when it needs them. With them their devices go: it is for programs
/// without one of the lab's topologies. A normal Linux has not loaded them, and the
/// devices change the indices of others: one that is moved to a new namespace doesn't keep an index that is taken there.
pub fn unload_device_makers() {
    static DONE: Once = Once::new();
    DONE.call_once(|| {
        if modules().is_none() {
            return;
        }
        for name in DEVICE_IN_EACH_NAMESPACE {
            match delete_module(name, DeleteModuleFlags::O_NONBLOCK) {
                // Built in, or not of this kernel.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => kmsg::note(&format!("module {} stays: {errno}", name.to_string_lossy())),
            }
        }
    });
}

/// Whether the program was started under this name.
pub fn is_meant(name: &str) -> bool {
    Path::new(name).file_name() == Some("modprobe".as_ref())
}

/// Loads the kernel's module of that name, with those that it needs. One that is built in or loaded is no error.
///
/// # Errors
/// The kernel has no such module, or refuses it.
pub fn load_named(name: &str) -> io::Result<()> {
    let modules = modules().ok_or_else(|| io::Error::other("the kernel's modules are not there"))?;
    match load(&modules, name).map_err(io::Error::other)? {
        true => Ok(()),
        false => Err(io::Error::other("the kernel has no such module")),
    }
}

/// Loads what a name or an alias stands for. Returns whether there is such a module.
fn load(modules: &Path, wanted: &str) -> Result<bool, String> {
    let read = |name: &str| fs::read_to_string(modules.join(name)).map_err(|error| format!("{name}: {error}"));
    let index = Index::parse(&read("modules.dep")?);
    let builtin = read("modules.builtin").unwrap_or_default();
    if builtin.lines().any(|path| module_name(path) == normal(wanted)) {
        return Ok(true);
    }
    let named = index.files.contains_key(&normal(wanted));
    let names = if named { vec![normal(wanted)] } else { aliased(&read("modules.alias")?, wanted) };
    let softdeps = read("modules.softdep").unwrap_or_default();
    for name in &names {
        let before = softdeps.lines().filter_map(|line| before(line, name)).flatten();
        // What is wanted softly may be missing.
        for soft in before.filter(|soft| index.files.contains_key(soft)).collect::<Vec<_>>() {
            let _ = insert(modules, &index, &soft);
        }
        insert(modules, &index, name)?;
    }
    Ok(!names.is_empty())
}

fn insert(modules: &Path, index: &Index, name: &str) -> Result<(), String> {
    for file in index.order(name) {
        let known = Path::new("/sys/module").join(module_name(&file)).join("initstate");
        if known.exists() {
            continue;
        }
        load_file(&modules.join(&file)).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// Loads one file. One that is there already is no error.
///
/// # Errors
/// It can't be read, or the kernel refuses it.
pub fn load_file(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    let packed = path.extension().is_some_and(|extension| extension != "ko");
    match finit_module(&file, c"", if packed { COMPRESSED } else { ModuleInitFlags::empty() }) {
        Ok(()) | Err(nix::Error::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// `modules.dep`.
struct Index {
    /// The file of every module, and the files that it needs.
    files: HashMap<String, (String, Vec<String>)>,
}

impl Index {
    fn parse(text: &str) -> Self {
        let line = |line: &str| {
            let (file, needs) = line.split_once(':')?;
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            Some((module_name(file), (file.to_owned(), needs)))
        };
        Self { files: text.lines().filter_map(line).collect() }
    }

    /// The files to load, in their order: depmod lists what a module needs in reverse.
    fn order(&self, name: &str) -> Vec<String> {
        let Some((file, needs)) = self.files.get(name) else { return Vec::new() };
        needs.iter().rev().chain([file]).cloned().collect()
    }
}

/// The modules behind an alias; there may be several.
fn aliased(text: &str, wanted: &str) -> Vec<String> {
    let wanted = normal(wanted);
    let found = text.lines().filter_map(|line| {
        let (pattern, module) = line.strip_prefix("alias ")?.rsplit_once(' ')?;
        matches(normal(pattern).as_bytes(), wanted.as_bytes()).then(|| normal(module))
    });
    found.collect()
}

/// The modules that a line of `modules.softdep` wants before this one: `softdep NAME pre: A B post: C`.
fn before(line: &str, name: &str) -> Option<Vec<String>> {
    let mut words = line.split_whitespace();
    if words.next()? != "softdep" || normal(words.next()?) != name {
        return None;
    }
    let listed = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| !word.ends_with(':'));
    Some(listed.map(normal).collect())
}

/// The name of a module's file.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    normal(file.split_once(".ko").map_or(file, |(name, _)| name))
}

/// Modules are named with either sign.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

/// fnmatch(3) with `*`, `?` and `[…]`, as far as aliases use it.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            matches(rest, text) || text.split_first().is_some_and(|(_, later)| matches(pattern, later))
        }
        (Some((b'?', rest)), Some((_, later))) => matches(rest, later),
        (Some((b'[', set)), Some((byte, later))) => {
            let Some(end) = set.iter().position(|byte| *byte == b']') else { return false };
            let listed = &set[..end];
            // `-` between two bytes is a range; it has been made `_` as everywhere.
            let in_range = listed.windows(3).any(|it| it[1] == b'_' && (it[0]..=it[2]).contains(byte));
            (in_range || listed.contains(byte)) && matches(&set[end + 1..], later)
        }
        (Some((sign, rest)), Some((byte, later))) if sign == byte => matches(rest, later),
        _ => false,
    }
}

/// Loads modules of the user's own, in their order.
///
/// # Errors
/// The path of the one that the kernel refuses, and why.
pub fn load_own(directory: &Path, names: &[String]) -> Result<(), (PathBuf, io::Error)> {
    names.iter().try_for_each(|name| {
        let path = directory.join(name);
        load_file(&path).map_err(|error| (path, error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_aliases_lead_to_files_in_the_order_in_which_they_load() {
        let dep = "kernel/net/ip6_gre.ko.xz: kernel/net/gre.ko.xz kernel/net/ip6-tunnel.ko.xz kernel/net/tunnel6.ko.xz\n\
                   kernel/net/tunnel6.ko.xz:\n";
        let index = Index::parse(dep);
        assert_eq!(
            index.order("ip6_gre").join(" "),
            "kernel/net/tunnel6.ko.xz kernel/net/ip6-tunnel.ko.xz kernel/net/gre.ko.xz kernel/net/ip6_gre.ko.xz"
        );
        assert!(index.order("absent").is_empty());
        let alias = "# Aliases\nalias rtnl-link-ip6gre ip6_gre\nalias net-pf-*-proto-6 tcp-thing\n\
                     alias usb:v04[0-9]*p? usbx\nalias xt_[uU]dp a\n";
        assert_eq!(aliased(alias, "rtnl-link-ip6gre"), ["ip6_gre"]);
        assert_eq!(aliased(alias, "net-pf-10-proto-6"), ["tcp_thing"]);
        assert_eq!(aliased(alias, "usb:v047fp1"), ["usbx"]);
        assert_eq!(aliased(alias, "xt_udp"), ["a"]);
        assert!(aliased(alias, "net-pf-10-proto-7").is_empty() && aliased(alias, "usb:v0fp1").is_empty());
        let line = "softdep nf_conntrack pre: a-b c post: d";
        assert_eq!(before(line, "nf_conntrack").unwrap(), ["a_b", "c"]);
        assert_eq!(before(line, "other"), None);
    }
}
