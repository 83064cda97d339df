//! Reads `repomd.xml` and the packages of `primary.xml` (createrepo_c, `doc/` and `src/xml_dump_primary.c`).

use crate::digest::Digest;
use quick_xml::{
    Reader, XmlVersion,
    events::{BytesStart, Event},
};
use std::{
    cmp::Ordering,
    io::{self, BufRead, BufReader, Read},
};

/// Maximum bytes of one tag or text: the longest in a repository are descriptions and changelogs, some KiB.
const MOST_EVENT: usize = 1 << 20;
/// Maximum bytes of unpacked metadata: Fedora's `primary.xml` of everything has 200 MiB.
const MOST_BYTES: u64 = 1 << 30;
/// Maximum depth of elements: metadata have 5.
const MOST_DEPTH: usize = 32;
/// Maximum kernel packages: a repository that keeps all builds of a year has some thousands.
const MOST_PACKAGES: usize = 50_000;
/// Maximum characters of a value that is kept.
const MOST_VALUE: usize = 1024;
/// Prefix of the names of packages with kernels.
const PREFIX: &str = "kernel";
const ARCHITECTURE: &str = "x86_64";

/// Metadata that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadIndex(pub String);

type Result<T> = std::result::Result<T, BadIndex>;

fn bad<T>(reason: impl Into<String>) -> Result<T> {
    Err(BadIndex(reason.into()))
}

/// Where a repository's list of packages is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackageList {
    /// Path in the repository.
    pub href: String,
    pub digest: Digest,
    /// Bytes, compressed.
    pub size: u64,
}

/// A kernel package of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RpmPackage {
    pub name: String,
    pub epoch: String,
    pub version: String,
    pub release: String,
    pub digest: Digest,
    /// Bytes of the `.rpm`.
    pub size: u64,
    /// Path in the repository.
    pub href: String,
}

impl RpmPackage {
    /// `version-release`, with an epoch that is not 0 before it.
    pub fn evr(&self) -> String {
        let Self { epoch, version, release, .. } = self;
        if epoch == "0" { format!("{version}-{release}") } else { format!("{epoch}:{version}-{release}") }
    }

    /// The order of RPM's versions.
    pub fn compare(&self, other: &Self) -> Ordering {
        rpm_version::rpm_evr_compare(&self.evr(), &other.evr())
    }
}

/// Finds the list of packages in `repomd.xml`.
///
/// # Errors
/// It is no such file, or has no list in XML.
pub(crate) fn primary(repomd: &[u8]) -> Result<PackageList> {
    let mut found = None;
    let mut current = Pending::default();
    let mut inside = false;
    elements(repomd, "repomd", |element| {
        match element {
            Element::Start(["data"], tag) => {
                inside = attribute(tag, "type")?.as_deref() == Some("primary");
                current = Pending::default();
            }
            Element::Start(["data", "location"], tag) if inside => current.location(tag)?,
            Element::Start(["data", "checksum"], tag) if inside => current.algorithm = attribute(tag, "type")?,
            Element::End(["data", "checksum"], text) if inside => current.checksum = Some(text.to_owned()),
            Element::End(["data", "size"], text) if inside => current.size = Some(text.to_owned()),
            Element::End(["data"], _) if inside => {
                inside = false;
                let (href, digest, size) = std::mem::take(&mut current).finish("its list of packages")?;
                found = Some(PackageList { href, digest, size });
            }
            _ => {}
        }
        Ok(())
    })?;
    found.ok_or_else(|| BadIndex("names no list of packages (data type \"primary\")".into()))
}

/// Reads the kernel packages for x86-64 of an unpacked `primary.xml`.
///
/// # Errors
/// It is no such file, is damaged, or exceeds a limit.
pub(crate) fn packages(primary: impl Read) -> Result<Vec<RpmPackage>> {
    let mut found = Vec::new();
    let mut current = Pending::default();
    elements(BufReader::new(primary.take(MOST_BYTES)), "metadata", |element| {
        match element {
            Element::Start(["package"], _) => current = Pending::default(),
            Element::Start(["package", "version"], tag) => {
                let value = |name: &str, absent: &str| -> Result<String> {
                    match attribute(tag, name)? {
                        Some(text) if is_word(&text) => Ok(text),
                        Some(text) => bad(format!("{text:?} is no {name} of a package")),
                        None => Ok(absent.to_owned()),
                    }
                };
                current.evr = Some((value("epoch", "0")?, value("ver", "")?, value("rel", "")?));
            }
            Element::Start(["package", "location"], tag) => current.location(tag)?,
            Element::Start(["package", "size"], tag) => current.size = attribute(tag, "package")?,
            Element::Start(["package", "checksum"], tag) => current.algorithm = attribute(tag, "type")?,
            Element::End(["package", "checksum"], text) => current.checksum = Some(text.to_owned()),
            Element::End(["package", "name"], text) => current.name = text.to_owned(),
            Element::End(["package", "arch"], text) => current.arch = text.to_owned(),
            Element::End(["package"], _) => {
                let done = std::mem::take(&mut current);
                if done.arch == ARCHITECTURE && done.name.starts_with(PREFIX) {
                    if found.len() == MOST_PACKAGES {
                        return bad(format!("lists more than {MOST_PACKAGES} kernel packages"));
                    }
                    found.push(done.package()?);
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// What is known of an entry before its end.
#[derive(Default)]
struct Pending {
    name: String,
    arch: String,
    evr: Option<(String, String, String)>,
    href: Option<String>,
    algorithm: Option<String>,
    checksum: Option<String>,
    size: Option<String>,
}

impl Pending {
    fn location(&mut self, tag: &BytesStart<'_>) -> Result<()> {
        // The address of another repository, which nobody has named in kernels.toml.
        if let Some(base) = attribute(tag, "xml:base")? {
            return bad(format!("names a file of another place, {base:?}"));
        }
        self.href = attribute(tag, "href")?;
        Ok(())
    }

    fn package(mut self) -> Result<RpmPackage> {
        let name = std::mem::take(&mut self.name);
        if !is_word(&name) {
            return bad(format!("{name:?} is no name of a package"));
        }
        let Some((epoch, version, release)) = self.evr.take() else { return bad(format!("{name} has no version")) };
        if version.is_empty() || release.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
            return bad(format!("{name} has no version"));
        }
        let (href, digest, size) = self.finish(&name)?;
        Ok(RpmPackage { name, epoch, version, release, digest, size, href })
    }

    fn finish(self, what: &str) -> Result<(String, Digest, u64)> {
        let Some(href) = self.href.filter(|href| is_inside(href)) else {
            return bad(format!("{what} has no path in the repository"));
        };
        let digest = Digest::new(&self.algorithm.unwrap_or_default(), &self.checksum.unwrap_or_default());
        let digest = digest.map_err(|error| BadIndex(format!("{what}: {error}")))?;
        let Some(size) = self.size.and_then(|size| size.parse().ok()) else {
            return bad(format!("{what} has no size"));
        };
        Ok((href, digest, size))
    }
}

/// Whether a text has the characters of RPM's names and versions.
fn is_word(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~^-:".contains(&byte);
    !text.is_empty() && text.len() <= 256 && text.bytes().all(plain)
}

/// Whether a path stays in the repository and fits into an address as it is.
pub(crate) fn is_inside(href: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~^-/%=@".contains(&byte);
    let parts = |part: &str| !part.is_empty() && part != "." && part != "..";
    href.len() <= MOST_VALUE
        && href.bytes().all(plain)
        && href.split('/').all(parts)
        && !href.to_ascii_lowercase().contains("%2")
}

/// Value of an attribute.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>> {
    let damaged = |error: &dyn std::fmt::Display| BadIndex(format!("is damaged ({error})"));
    let Some(found) = tag.try_get_attribute(name).map_err(|error| damaged(&error))? else { return Ok(None) };
    let value = found.normalized_value(XmlVersion::Implicit1_0).map_err(|error| damaged(&error))?;
    if value.len() > MOST_VALUE {
        return bad(format!("has a value of more than {MOST_VALUE} bytes"));
    }
    Ok(Some(value.into_owned()))
}

/// Begin or end of an element: the names of the elements below the root that it is in, without prefixes, and its tag or
/// its text.
enum Element<'a> {
    Start(&'a [&'a str], &'a BytesStart<'a>),
    End(&'a [&'a str], &'a str),
}

/// Bounds the bytes of one event.
struct Metered<R> {
    inner: R,
    left: usize,
}

impl<R: BufRead> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Metered<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.left = self.left.saturating_sub(amount);
        self.inner.consume(amount);
    }
}

/// Passes every element of a file whose root has this name to `take`.
fn elements(input: impl BufRead, root: &str, mut take: impl FnMut(Element<'_>) -> Result<()>) -> Result<()> {
    let mut reader = Reader::from_reader(Metered { inner: input, left: MOST_EVENT });
    reader.config_mut().expand_empty_elements = true;
    let (mut open, mut text, mut buffer): (Vec<String>, String, Vec<u8>) = Default::default();
    let mut ended = false;
    loop {
        buffer.clear();
        reader.get_mut().left = MOST_EVENT;
        let event = reader.read_event_into(&mut buffer).map_err(|error| match error {
            quick_xml::Error::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                BadIndex(format!("has a tag or text of more than {} MiB", MOST_EVENT >> 20))
            }
            error => BadIndex(format!("is damaged ({error})")),
        })?;
        match event {
            Event::Start(tag) => {
                let name = String::from_utf8_lossy(tag.local_name().as_ref()).into_owned();
                if open.is_empty() && (ended || name != root) {
                    return bad(format!("is no {root} of a repository"));
                }
                if open.len() == MOST_DEPTH || name.len() > MOST_VALUE {
                    return bad(format!("has elements in more than {MOST_DEPTH} others"));
                }
                open.push(name);
                text.clear();
                let path: Vec<&str> = open.iter().skip(1).map(|name| &**name).collect();
                take(Element::Start(&path, &tag))?;
            }
            Event::End(_) => {
                let path: Vec<&str> = open.iter().skip(1).map(|name| &**name).collect();
                take(Element::End(&path, text.trim()))?;
                open.pop();
                text.clear();
                ended = open.is_empty();
            }
            Event::Text(more) if text.len() <= MOST_VALUE => {
                text += &more.decode().map_err(|error| BadIndex(format!("is damaged ({error})")))?;
            }
            Event::Eof if ended => return Ok(()),
            Event::Eof => return bad("ends in the middle"),
            // Neither names nor checksums have references, and nothing that is declared is read.
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
