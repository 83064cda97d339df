//! Requests, as they come from a guest: any bytes.

use crate::wire::IN_HEADER;
use nix::errno::Errno;
use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

/// A request's header and the rest.
#[derive(Debug)]
pub struct FuseRequest<'a> {
    pub opcode: u32,
    pub unique: u64,
    pub node: u64,
    pub body: Body<'a>,
}

/// Reads the next request into `buffer`. `None` if the connection has ended.
///
/// # Errors
/// The connection broke, or what came is no request: the stream can't be followed any more.
pub fn next<'a>(stream: &mut impl Read, buffer: &'a mut [u8]) -> io::Result<Option<FuseRequest<'a>>> {
    let mut filled = 0;
    while filled < IN_HEADER {
        match stream.read(&mut buffer[filled..IN_HEADER]) {
            Ok(0) if filled == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = u32::from_le_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
    if length < IN_HEADER || length > buffer.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a request of {length} bytes")));
    }
    stream.read_exact(&mut buffer[IN_HEADER..length])?;
    let mut head = Body(&buffer[4..IN_HEADER]);
    let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
    Ok(Some(FuseRequest {
        opcode: head.u32().map_err(broken)?,
        unique: head.u64().map_err(broken)?,
        node: head.u64().map_err(broken)?,
        body: Body(&buffer[IN_HEADER..length]),
    }))
}

/// What follows the header; every value that is not there is `EINVAL`.
#[derive(Debug, Clone, Copy)]
pub struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (value, rest) = self.0.split_first_chunk::<N>().ok_or(Errno::EINVAL)?;
        self.0 = rest;
        Ok(*value)
    }

    pub fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// Leaves out padding and values that are not used.
    pub fn skip(&mut self, bytes: usize) -> Result<(), Errno> {
        self.0 = self.0.get(bytes..).ok_or(Errno::EINVAL)?;
        Ok(())
    }

    /// A text that ends with a zero byte.
    pub fn text(&mut self) -> Result<&'a OsStr, Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(OsStr::from_bytes(text))
    }

    /// A name in a directory: one component that leads nowhere else.
    pub fn name(&mut self) -> Result<&'a OsStr, Errno> {
        let name = self.text()?;
        let bytes = name.as_bytes();
        match bytes {
            b"" | b"." | b".." => Err(Errno::EINVAL),
            _ if bytes.contains(&b'/') => Err(Errno::EINVAL),
            _ if bytes.len() > 255 => Err(Errno::ENAMETOOLONG),
            _ => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for bad in ["\0", ".\0", "..\0", "a/b\0", "/\0", "no end", ""] {
            assert!(Body(bad.as_bytes()).name().is_err(), "{bad:?}");
        }
        assert_eq!(Body(b"...\0").name().unwrap(), "...");
        assert_eq!(Body(&[&[b'x'; 256][..], b"\0"].concat()).name(), Err(Errno::ENAMETOOLONG));
    }

    #[test]
    fn lengths_that_cannot_be_are_errors_and_an_end_is_an_end() {
        let mut buffer = [0; 64];
        assert!(next(&mut &b""[..], &mut buffer).unwrap().is_none());
        for length in [0u32, 39, 65, u32::MAX] {
            let bytes = [&length.to_le_bytes()[..], &[0; 36]].concat();
            assert!(next(&mut &*bytes, &mut buffer).is_err(), "{length}");
        }
        assert!(next(&mut &[41, 0, 0][..], &mut buffer).is_err(), "cut off");
        assert!(next(&mut &*[&41u32.to_le_bytes()[..], &[0; 36]].concat(), &mut buffer).is_err(), "cut off");
    }
}
