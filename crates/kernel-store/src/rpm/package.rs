//! Reads an `.rpm` (format 4 and 6 of RPM): lead, signature, header and payload (rpm, `docs/manual/format_*.md`).
//!
//! Everything is read from a file that may be hostile: it is bounded before it is believed, and no size that the file states
//! is reserved before as many bytes were read.

use crate::{
    compressed::decompressed,
    digest::Digest,
    error::{KernelsError, Result},
    openpgp::Keyring,
    untar::{Bounded, EntryKind, MOST_ENTRIES, MOST_NAME, Refusal, UnpackedFiles, damaged},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use lab_base::interrupt::Interrupt;
use std::{
    fs,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

const LEAD: usize = 96;
const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];
const HEADER_MAGIC: [u8; 4] = [0x8e, 0xad, 0xe8, 1];
/// Limits of RPM itself are 64 Ki tags and 256 MiB; a header of a kernel's modules has 1 MiB.
const MOST_TAGS: usize = 1 << 16;
const MOST_DATA: usize = 64 << 20;

/// Tags (rpm, `include/rpm/rpmtag.h`).
mod tag {
    pub const DSA_HEADER: u32 = 267;
    pub const RSA_HEADER: u32 = 268;
    pub const OPENPGP: u32 = 278;
    pub const NAME: u32 = 1000;
    pub const VERSION: u32 = 1001;
    pub const RELEASE: u32 = 1002;
    pub const ARCHITECTURE: u32 = 1022;
    pub const PAYLOAD_FORMAT: u32 = 1124;
    pub const PAYLOAD_SHA256: u32 = 5092;
}

/// Types of a tag's values.
const STRING: u32 = 6;
const BINARY: u32 = 7;
const STRINGS: u32 = 8;

/// What the package must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Claims<'a> {
    pub name: &'a str,
    /// `version-release`.
    pub version: &'a str,
}

/// A header with its bytes, of which a few tags are read.
struct Header {
    /// As in the file, from the magic on: what signatures are over.
    bytes: Vec<u8>,
    tags: usize,
}

impl Header {
    const INTRO: usize = 16;
    const ENTRY: usize = 16;

    fn read(input: &mut impl Read, what: &str) -> std::result::Result<Self, Refusal> {
        let mut intro = [0; Self::INTRO];
        input.read_exact(&mut intro).map_err(damaged)?;
        if intro[..4] != HEADER_MAGIC {
            return Err(Refusal::Archive(format!("is no RPM package: it has no {what}")));
        }
        let number = |at: usize| u32::from_be_bytes([intro[at], intro[at + 1], intro[at + 2], intro[at + 3]]) as usize;
        let (tags, data) = (number(8), number(12));
        if tags > MOST_TAGS || data > MOST_DATA {
            return Err(Refusal::Archive(format!("has a {what} of {tags} tags and {data} bytes, which no kernel has")));
        }
        let length = tags * Self::ENTRY + data;
        let mut bytes = intro.to_vec();
        input.take(length as u64).read_to_end(&mut bytes).map_err(damaged)?;
        if bytes.len() != Self::INTRO + length {
            return Err(Refusal::Archive(format!("ends in its {what}")));
        }
        Ok(Self { bytes, tags })
    }

    /// Bytes of the header's data.
    fn data(&self) -> &[u8] {
        &self.bytes[Self::INTRO + self.tags * Self::ENTRY..]
    }

    /// The first tag of this number: type, number of values, and the data from its values on.
    fn find(&self, tag: u32) -> Option<(u32, usize, &[u8])> {
        let entries = &self.bytes[Self::INTRO..Self::INTRO + self.tags * Self::ENTRY];
        entries.chunks_exact(Self::ENTRY).find_map(|entry| {
            let mut words = entry.chunks_exact(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
            let (found, kind, offset, count) = (words.next()?, words.next()?, words.next()?, words.next()?);
            (found == tag).then_some((kind, count as usize, self.data().get(offset as usize..)?))
        })
    }

    /// Values of a text tag, at most `most`.
    fn texts(&self, tag: u32, most: usize) -> Vec<&str> {
        let Some((STRING | STRINGS, count, data)) = self.find(tag) else { return Vec::new() };
        let texts = data.split_inclusive(|byte| *byte == 0).take(count.min(most));
        texts.map_while(|text| str::from_utf8(text.strip_suffix(b"\0")?).ok()).collect()
    }

    fn text(&self, tag: u32) -> Option<&str> {
        self.texts(tag, 1).first().copied()
    }

    fn binary(&self, tag: u32) -> Option<&[u8]> {
        let (BINARY, count, data) = self.find(tag)? else { return None };
        data.get(..count)
    }
}

/// A package whose headers were read.
pub(crate) struct RpmFile<F> {
    file: F,
    signature: Header,
    header: Header,
    /// Where in the file the payload begins.
    payload: u64,
}

impl<F: Read + Seek> RpmFile<F> {
    /// Reads the headers.
    ///
    /// # Errors
    /// It is no package, or its headers are damaged.
    pub fn open(file: F) -> std::result::Result<Self, Refusal> {
        let mut input = BufReader::new(file);
        let mut lead = [0; LEAD];
        input.read_exact(&mut lead).map_err(damaged)?;
        if lead[..4] != LEAD_MAGIC {
            return Err(Refusal::Archive("is no RPM package".into()));
        }
        let signature = Header::read(&mut input, "signature header")?;
        // The next header begins at a multiple of eight.
        let mut padding = [0; 8];
        let rest = (8 - signature.bytes.len() % 8) % 8;
        input.read_exact(&mut padding[..rest]).map_err(damaged)?;
        let header = Header::read(&mut input, "header")?;
        let payload = (LEAD + signature.bytes.len() + rest + header.bytes.len()) as u64;
        Ok(Self { file: input.into_inner(), signature, header, payload })
    }

    /// Checks that one of the keys has signed the header, which has the checksum of the payload. Signatures of header
    /// and payload together, which RPM before 4.14 relied on, are not used.
    ///
    /// # Errors
    /// There is no signature, or none by one of the keys.
    pub fn verify(&self, keyring: &Keyring, what: &str, dir: &Path) -> Result<()> {
        let in_binary = [tag::RSA_HEADER, tag::DSA_HEADER].into_iter().filter_map(|tag| self.signature.binary(tag));
        let in_text = self.signature.texts(tag::OPENPGP, 8).into_iter().filter_map(|text| STANDARD.decode(text).ok());
        let signatures: Vec<Vec<u8>> = in_binary.map(<[u8]>::to_vec).chain(in_text).collect();
        let (signed, signature) = (dir.join("header"), dir.join("header.sig"));
        fs::write(&signed, &self.header.bytes).map_err(KernelsError::io(&signed))?;
        let mut refused = KernelsError::Archive {
            archive: what.to_owned(),
            reason: "has no signature of its header, and `signed` asks for one".to_owned(),
        };
        for bytes in signatures {
            fs::write(&signature, bytes).map_err(KernelsError::io(&signature))?;
            match keyring.check(what, &signature, &signed) {
                Ok(()) => return Ok(()),
                Err(error @ KernelsError::Program { .. }) => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Compares name, version and architecture of the header, and the payload with the header's checksum of it.
    ///
    /// # Errors
    /// Something differs: a repository may name a package that its maker has signed as another one.
    pub fn check(&mut self, claims: &Claims<'_>) -> std::result::Result<(), Refusal> {
        let text = |tag: u32| self.header.text(tag).unwrap_or_default().to_owned();
        let found =
            [text(tag::NAME), format!("{}-{}", text(tag::VERSION), text(tag::RELEASE)), text(tag::ARCHITECTURE)];
        let wanted = [claims.name, claims.version, "x86_64"];
        if found != wanted {
            let (found, wanted) = (found.join(" "), wanted.join(" "));
            return Err(Refusal::Archive(format!("is {}, but {wanted} was expected", found.escape_debug())));
        }
        if self.header.text(tag::PAYLOAD_FORMAT).is_some_and(|format| format != "cpio") {
            return Err(Refusal::Archive("has a payload that is no cpio archive".into()));
        }
        let wanted = self.header.text(tag::PAYLOAD_SHA256).and_then(|hex| Digest::new("sha256", hex).ok());
        let Some(wanted) = wanted else {
            return Err(Refusal::Archive("has no checksum of its payload: RPM before 4.14 made it".into()));
        };
        let found = wanted.same_of_stream(&mut self.payload().map_err(damaged)?).map_err(damaged)?;
        if found != wanted {
            return Err(Refusal::Archive(format!("is damaged: its payload is {found}, its header says {wanted}")));
        }
        Ok(())
    }

    /// Passes the files to [`UnpackedFiles::take`].
    ///
    /// # Errors
    /// The payload is damaged, or an entry is refused.
    pub fn unpack(&mut self, stage: &Path, found: &mut UnpackedFiles) -> std::result::Result<(), Refusal> {
        let payload = BufReader::new(self.payload().map_err(damaged)?);
        cpio(decompressed(payload).map_err(damaged)?, stage, found)
    }

    fn payload(&mut self) -> io::Result<&mut F> {
        self.file.seek(SeekFrom::Start(self.payload))?;
        Ok(&mut self.file)
    }
}

/// Extracts the kernel's files of an archive in cpio's "newc" format (cpio(5)).
pub(crate) fn cpio(stream: impl Read, stage: &Path, found: &mut UnpackedFiles) -> std::result::Result<(), Refusal> {
    let mut stream = Bounded::new(stream);
    for _ in 0..MOST_ENTRIES {
        if Interrupt::raised().is_some() {
            return Err(Refusal::Stopped);
        }
        let mut head = [0; 110];
        stream.read_exact(&mut head).map_err(damaged)?;
        match &head[..6] {
            b"070701" | b"070702" => {}
            b"07070X" => return Err(Refusal::Archive("has a file of more than 4 GiB".into())),
            _ => return Err(Refusal::Archive("is damaged (no header of an entry)".into())),
        }
        let field = |number: usize| {
            let digits = str::from_utf8(&head[6 + 8 * number..14 + 8 * number]).ok()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let fields = (field(1), field(4), field(6), field(11));
        let (Some(mode), Some(links), Some(size), Some(length)) = fields else {
            return Err(Refusal::Archive("is damaged (no number in a header)".into()));
        };
        if length > MOST_NAME {
            return Err(Refusal::Archive(format!("has a name of more than {} KiB", MOST_NAME >> 10)));
        }
        let mut name = vec![0; length as usize];
        stream.read_exact(&mut name).map_err(damaged)?;
        skip(&mut stream, 110 + length)?;
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name);
        if name == "TRAILER!!!" {
            return io::copy(&mut stream, &mut io::sink()).map(drop).map_err(damaged);
        }
        let kind = match mode & 0o170_000 {
            // The content of hard links is at the last of them only.
            0o100_000 if links > 1 && size == 0 => EntryKind::Special,
            0o100_000 => EntryKind::File,
            0o040_000 => EntryKind::Directory,
            0o120_000 => EntryKind::Link,
            _ => EntryKind::Special,
        };
        let mut content = (&mut stream).take(size);
        let is_boot_link =
            kind == EntryKind::Link && name.trim_start_matches("./").trim_start_matches('/').starts_with("boot/");
        // A package whose image is beside its modules has a link to it for the boot loader.
        if !is_boot_link {
            found.take(&absolute(&name), kind, &mut content, stage)?;
        }
        io::copy(&mut content, &mut io::sink()).map_err(damaged)?;
        if content.limit() != 0 {
            return Err(Refusal::Archive("ends in a file".into()));
        }
        skip(&mut stream, size)?;
    }
    Err(Refusal::Archive(format!("has more than {MOST_ENTRIES} entries")))
}

/// The name without the root, at which some makers of packages begin them.
fn absolute(name: &str) -> String {
    name.strip_prefix('/').map_or_else(|| name.to_owned(), |rest| format!("./{rest}"))
}

/// Skips to a multiple of four after so many bytes.
fn skip(stream: &mut impl Read, length: u64) -> std::result::Result<(), Refusal> {
    let mut padding = [0; 4];
    let rest = ((4 - length % 4) % 4) as usize;
    stream.read_exact(&mut padding[..rest]).map_err(damaged)
}

#[cfg(test)]
#[path = "package_tests.rs"]
mod tests;
