//! The memory of a restored machine for a program's streams: a file on the host, and a PCI device that shows it to the guest (QEMU's
//! docs/specs/ivshmem-spec).
//!
//! The machine that was saved does not have the device: QEMU loads no state where a device's shared memory is at another address than
//! when it was saved ("Mismatched GPAs for block", migration/ram.c), and that of a machine that has yet to load its state has none. It
//! is there all the same once the state is loaded, and the guest's kernel finds it when it looks for new devices.

use super::{GuestSpec, VmError, command::Files, tools::answer};
use lab_guard::foreign;
use lab_protocol::work::STREAM_MEMORY;
use std::{fs::File, io::ErrorKind, path::Path};

const DEVICE: &str = "ivshmem-plain";

/// Whether this QEMU has the device for [`super::Guest::stream_memory`]; some distributions leave it out.
pub fn has_stream_memory(qemu: &Path) -> bool {
    // It succeeds for an unknown device too, and prints nothing of it.
    answer(qemu, &["-device", &format!("{DEVICE},help")]).is_some_and(|told| told.starts_with(DEVICE))
}

/// Makes the memory where the guest is to have it, and gives QEMU's options for it.
pub fn make(spec: &GuestSpec, files: &Files) -> Result<Vec<String>, VmError> {
    if !spec.stream_memory {
        return Ok(Vec::new());
    }
    let failed = |cause| VmError::File { what: "memory for streams", path: files.streams.clone(), cause };
    File::create_new(&files.streams).and_then(|file| file.set_len(STREAM_MEMORY as u64)).map_err(failed)?;
    let path = files.streams.display();
    let object = format!("memory-backend-file,id=streams,size={STREAM_MEMORY},mem-path={path},share=on");
    Ok(vec!["-object".to_owned(), object, "-device".to_owned(), format!("{DEVICE},memdev=streams")])
}

/// Opens the memory, where the machine has it.
pub fn open(files: &Files) -> Result<Option<File>, VmError> {
    match foreign::open_for_writing(&files.streams) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(VmError::File { what: "memory for streams", path: files.streams.clone(), cause }),
    }
}
