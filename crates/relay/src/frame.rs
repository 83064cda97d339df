//! What is on the stream: channel, kind, length, body.

use std::io::{self, Read};

const HEADER: usize = 9;

/// The family of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopbackFamily {
    /// 127.0.0.1.
    V4,
    /// ::1.
    V6,
}

/// A connection that is to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceCall {
    /// Number of the service in the list of both sides.
    pub service: u16,
    /// By which address it was asked for.
    pub family: LoopbackFamily,
    /// Datagrams instead of a stream.
    pub datagrams: bool,
}

impl ServiceCall {
    pub(crate) fn encode(self) -> [u8; 4] {
        let [low, high] = self.service.to_le_bytes();
        [low, high, u8::from(self.family == LoopbackFamily::V6), u8::from(self.datagrams)]
    }

    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        let [low, high, family @ 0..=1, datagrams @ 0..=1] = *body else { return None };
        let family = if family == 1 { LoopbackFamily::V6 } else { LoopbackFamily::V4 };
        Some(Self { service: u16::from_le_bytes([low, high]), family, datagrams: datagrams == 1 })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Open = 1,
    Data = 2,
    /// One direction has ended.
    End = 3,
    /// The connection has ended.
    Reset = 4,
    /// Bytes were taken out of the window.
    Taken = 5,
}

#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub channel: u32,
    pub kind: Kind,
    pub body: Vec<u8>,
}

impl Frame {
    pub fn encode(channel: u32, kind: Kind, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&channel.to_le_bytes());
        bytes.push(kind as u8);
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    /// The next frame; `None` at the end of the stream.
    pub fn read(port: &mut impl Read, most: usize) -> io::Result<Option<Self>> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        while filled < HEADER {
            match port.read(&mut header[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let [a, b, c, d, kind, e, f, g, h] = header;
        let length = u32::from_le_bytes([e, f, g, h]) as usize;
        let kind = match kind {
            1 => Kind::Open,
            2 => Kind::Data,
            3 => Kind::End,
            4 => Kind::Reset,
            5 => Kind::Taken,
            other => return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {other}"))),
        };
        if length > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
        }
        let mut body = vec![0; length];
        port.read_exact(&mut body)?;
        Ok(Some(Self { channel: u32::from_le_bytes([a, b, c, d]), kind, body }))
    }
}
