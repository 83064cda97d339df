//! Checks that the agent is a static program, because the guest has no dynamic loader.

use crate::error::ImageError;
use lab_base::held::HeldFile;
use object::read::elf::{FileHeader, ProgramHeader};

/// Refuses a program that a guest can't run.
pub fn check_agent(agent: &HeldFile) -> Result<(), ImageError> {
    let refused = |problem| Err(ImageError::Agent { path: agent.path().to_owned(), problem });
    match interpreter(agent.bytes().map_err(ImageError::io("agent", agent.path()))?) {
        Ok(None) => Ok(()),
        Ok(Some(loader)) => refused(format!("it needs the dynamic loader {loader}, which the guest does not have")),
        Err(error) => refused(error.to_string()),
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
        let path = std::env::current_exe().unwrap();
        let error = check_agent(&HeldFile::open(&path).unwrap()).unwrap_err().to_string();
        assert!(error.contains("it needs the dynamic loader /lib64/ld-linux"), "{error}");
        let script = check_agent(&HeldFile::of_bytes(&path, b"#!/bin/sh\n"));
        assert!(script.unwrap_err().to_string().contains("+crt-static"));
    }
}
