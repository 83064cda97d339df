//! Crashes an unmodified kernel: it loads one of the kernel's own modules with other instructions at the start of its
//! init function. Debian's kernels have no LKDTM, and a module built for this purpose would need every kernel's
//! headers. The module is only loaded in guests that are discarded afterwards.

use nix::kmod::{DeleteModuleFlags, ModuleInitFlags, delete_module, finit_module};
use object::{Object, ObjectSection, ObjectSymbol};
use std::{
    fs,
    io::{self, Seek, Write},
    path::Path,
};

/// The modified module: small, and used by no cell while a canary runs.
const MODULE: &str = "dummy";
/// Directory of modules in the image, and the file that maps names to files.
const MODULES: &str = "/lib/modules";

/// Writes through a null pointer: `xor %eax, %eax; mov %al, (%rax)`.
pub const OOPS: &[u8] = &[0x31, 0xc0, 0x88, 0x00];
/// Spins, interrupts on: `jmp .`.
pub const SPIN: &[u8] = &[0xeb, 0xfe];
/// Spins with interrupts off, so that nothing in the guest can detect it: `cli; jmp .`.
pub const DEAF: &[u8] = &[0xfa, 0xeb, 0xfe];

/// Executes these instructions in the kernel. Returns only if the kernel refuses the module or survives.
///
/// # Errors
/// The module has no file, has unexpected content, or is refused.
pub fn run(instructions: &[u8]) -> io::Result<()> {
    let order = fs::read_to_string(Path::new(MODULES).join("load-order"))?;
    let files = order.lines().find_map(|line| line.strip_prefix(MODULE)?.strip_prefix(':'));
    let file = files.and_then(|files| files.split_whitespace().last());
    let file = file.ok_or_else(|| io::Error::other(format!("this kernel has no module {MODULE} to modify")))?;
    let image = spoil(fs::read(Path::new(MODULES).join(file))?, instructions).map_err(io::Error::other)?;
    // The module is loaded, like all of the image's modules; it is unused as long as none of its devices exists.
    delete_module(c"dummy", DeleteModuleFlags::O_NONBLOCK)?;
    let mut spoiled = fs::File::from(nix::sys::memfd::memfd_create(c"spoiled", nix::sys::memfd::MFdFlags::empty())?);
    spoiled.write_all(&image)?;
    spoiled.rewind()?;
    finit_module(&spoiled, c"", ModuleInitFlags::empty())?;
    Ok(())
}

/// The module with the instructions at the first place in its init function that relocations do not overwrite.
fn spoil(mut image: Vec<u8>, instructions: &[u8]) -> Result<Vec<u8>, String> {
    let at = place(&image, instructions.len())?;
    image[at..at + instructions.len()].copy_from_slice(instructions);
    unsign(&mut image);
    Ok(image)
}

/// Offset after `endbr64` and the call that ftrace replaces.
fn place(image: &[u8], length: usize) -> Result<usize, String> {
    let object = object::File::parse(image).map_err(|error| format!("{MODULE}: {error}"))?;
    let init = object.symbols().find(|symbol| symbol.name() == Ok("init_module"));
    let init = init.ok_or_else(|| format!("{MODULE} has no init_module"))?;
    let section = init.section_index().and_then(|index| object.section_by_index(index).ok());
    let section = section.ok_or_else(|| format!("{MODULE}: init_module is in no section"))?;
    let (file_at, _) = section.file_range().ok_or_else(|| format!("{MODULE}: init_module is not in the file"))?;
    let code = section.data().map_err(|error| format!("{MODULE}: {error}"))?;
    let mut at = usize::try_from(init.address()).unwrap_or(usize::MAX);
    let follows = |at: usize, bytes: &[u8]| code.get(at..).is_some_and(|code| code.starts_with(bytes));
    if follows(at, &[0xf3, 0x0f, 0x1e, 0xfa]) {
        at += 4;
    }
    if follows(at, &[0xe8]) {
        at += 5;
    }
    let (begin, end) = (at as u64, (at + length) as u64);
    let relocated = section.relocations().any(|(place, _)| place < end && place + 8 > begin && place >= begin);
    if relocated || at + length > code.len() {
        return Err(format!("{MODULE}: init_module has no space for {length} bytes"));
    }
    usize::try_from(file_at).map(|file_at| file_at + at).map_err(|error| error.to_string())
}

/// Removes the signature, `struct module_signature` and the mark after it (`include/linux/module_signature.h`): the
/// kernel accepts a module without signature, but refuses an invalid one.
fn unsign(image: &mut Vec<u8>) {
    const MARK: &[u8] = b"~Module signature appended~\n";
    const HEADER: usize = 12;
    let Some(signed) = image.strip_suffix(MARK) else { return };
    let Some((_, length)) = signed.split_last_chunk::<4>() else { return };
    let length = u32::from_be_bytes(*length) as usize + HEADER;
    let rest = signed.len().saturating_sub(length);
    image.truncate(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signature_is_removed() {
        let body = b"\x7fELF...".to_vec();
        let mut signed = body.clone();
        signed.extend([7; 20]);
        signed.extend([0; 8]);
        signed.extend(20u32.to_be_bytes());
        signed.extend(b"~Module signature appended~\n");
        unsign(&mut signed);
        assert_eq!(signed, body);
        let mut plain = body.clone();
        unsign(&mut plain);
        assert_eq!(plain, body);
    }

    #[test]
    fn a_file_that_is_not_a_module_is_refused() {
        assert!(spoil(b"no ELF".to_vec(), OOPS).unwrap_err().starts_with("dummy: "));
    }
}
