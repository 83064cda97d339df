//! The functions of the classifier, which is a module on most kernels.

use super::HOOKS;
use crate::{
    attr,
    btf::{Btf, BtfKind},
    sys::{self, Command},
};
use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Its module.
const CLASSIFIER: &str = "cls_bpf";

/// The classifier's module, or the classifier in the kernel itself.
pub(super) struct Module {
    pub fd: Option<OwnedFd>,
    /// Each with the slots of its arguments.
    pub functions: HashMap<&'static str, (u32, Option<u32>)>,
    /// `cls_bpf_prog.filter`.
    pub filter: u32,
}

impl Module {
    pub fn find(kernel: &Btf<'_>) -> Option<Self> {
        let functions = HOOKS.iter().filter(|hook| hook.of_module).map(|hook| (BtfKind::Function, hook.function));
        let wanted: Vec<_> = functions.chain([(BtfKind::Struct, "cls_bpf_prog")]).collect();
        let bytes = fs::read(Path::new("/sys/kernel/btf").join(CLASSIFIER)).ok();
        let of = |btf: &Btf<'_>, fd| {
            let found = btf.find(&wanted);
            let filter = btf.offset(*found.get("cls_bpf_prog")?, "filter").ok()?;
            let functions = found.into_iter().map(|(name, id)| (name, (id, btf.argument_slots(id)))).collect();
            Some(Self { fd, functions, filter })
        };
        match bytes {
            Some(bytes) => of(&Btf::parse(bytes, Some(kernel)).ok()?, Some(module_fd()?)),
            None => of(kernel, None),
        }
    }
}

/// The descriptor of the module's type information, which is found by its name.
fn module_fd() -> Option<OwnedFd> {
    let mut start_id = 0;
    loop {
        let mut next = attr::NextId { start_id, ..attr::NextId::default() };
        sys::bpf(Command::BtfGetNextId, &mut next).ok()?;
        start_id = next.next_id;
        let mut by_id = attr::NextId { start_id, ..attr::NextId::default() };
        // One that has gone meanwhile.
        let Ok(fd) = sys::bpf_fd(Command::BtfGetFdById, &mut by_id) else { continue };
        if sys::btf_name(fd.as_fd()).is_ok_and(|name| name == CLASSIFIER) {
            return Some(fd);
        }
    }
}
