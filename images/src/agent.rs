//! Checks that the agent is a static program, because the guest has no dynamic loader.

use crate::error::ImageError;
use object::read::elf::{FileHeader, ProgramHeader};
use std::path::Path;

/// Reads the agent, and refuses a program that needs a dynamic loader.
pub fn read_agent(path: &Path) -> Result<Vec<u8>, ImageError> {
    let bytes = std::fs::read(path).map_err(ImageError::io("agent", path))?;
    match interpreter(&bytes) {
        Ok(None) => Ok(bytes),
        Ok(Some(loader)) => {
            let problem = format!("it needs the dynamic loader {loader}, which the guest does not have");
            Err(ImageError::Agent { path: path.to_owned(), problem })
        }
        Err(error) => Err(ImageError::Agent { path: path.to_owned(), problem: error.to_string() }),
    }
}

/// The program's `PT_INTERP`, if any.
fn interpreter(bytes: &[u8]) -> object::read::Result<Option<String>> {
    type Header = object::elf::FileHeader64<object::Endianness>;
    let header = Header::parse(bytes)?;
    let endian = header.endian()?;
    for program in header.program_headers(endian, bytes)? {
        if let Some(path) = program.interpreter(endian, bytes)? {
            return Ok(Some(String::from_utf8_lossy(path).into_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_and_a_script_are_refused() {
        // The test program itself is linked dynamically on every target that builds the lab.
        let error = read_agent(&std::env::current_exe().unwrap()).unwrap_err().to_string();
        assert!(error.contains("it needs the dynamic loader /lib64/ld-linux"), "{error}");
        let script = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert!(read_agent(script.path()).unwrap_err().to_string().contains("+crt-static"));
    }
}
