//! Checksums with the name of their algorithm: `sha256:…`, `sha512:…`.

use super::error::{KernelsError, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};
use std::{fmt, io, io::Read, path::Path, str::FromStr};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha512,
}

/// A checksum.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    /// Hexadecimal digits in lower case, as many as the algorithm has.
    hex: String,
}

/// A text is no checksum of a known algorithm.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no SHA-256 or SHA-512 checksum")]
pub struct NoDigest(String);

impl Digest {
    /// One of an algorithm and its hexadecimal digits.
    ///
    /// # Errors
    /// The algorithm is unknown or too weak, or it has another number of digits.
    pub(crate) fn new(algorithm: &str, hex: &str) -> std::result::Result<Self, NoDigest> {
        let wrong = || NoDigest(format!("{algorithm}:{hex}").chars().take(160).collect());
        let (algorithm, digits) = match algorithm {
            "sha256" => (Algorithm::Sha256, 64),
            "sha512" => (Algorithm::Sha512, 128),
            _ => return Err(wrong()),
        };
        let is_hex = hex.len() == digits && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { Ok(Self { algorithm, hex: hex.to_ascii_lowercase() }) } else { Err(wrong()) }
    }

    /// SHA-256 of bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self { algorithm: Algorithm::Sha256, hex: lab_base::hex::hex(&Sha256::digest(bytes)) }
    }

    /// SHA-256 of a stream.
    ///
    /// # Errors
    /// The stream can't be read.
    pub(crate) fn of_stream(stream: &mut impl Read) -> io::Result<Self> {
        Ok(Self { algorithm: Algorithm::Sha256, hex: through(Sha256::new(), stream)? })
    }

    /// Name of the algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self.algorithm {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Its hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// The checksum of a stream by the same algorithm.
    ///
    /// # Errors
    /// The stream can't be read.
    pub(crate) fn same_of_stream(&self, stream: &mut impl Read) -> io::Result<Self> {
        let hex = match self.algorithm {
            Algorithm::Sha256 => through(Sha256::new(), stream)?,
            Algorithm::Sha512 => through(Sha512::new(), stream)?,
        };
        Ok(Self { algorithm: self.algorithm, hex })
    }

    /// Whether it is the checksum of a file.
    ///
    /// # Errors
    /// The file can't be read.
    pub(crate) fn is_of(&self, path: &Path) -> Result<bool> {
        self.same_of_file(path).map(|found| found == *self)
    }

    fn same_of_file(&self, path: &Path) -> Result<Self> {
        let mut file = lab_guard::bounded::open(path).map_err(KernelsError::io(path))?;
        self.same_of_stream(&mut file).map_err(KernelsError::io(path))
    }

    /// Refuses a file whose checksum is another one. `what` is the file's name in the message.
    ///
    /// # Errors
    /// The file can't be read or differs.
    pub(crate) fn check(&self, path: &Path, what: &str) -> Result<()> {
        let found = self.same_of_file(path)?;
        if found == *self {
            return Ok(());
        }
        Err(KernelsError::Digest { what: what.to_owned(), found: found.to_string(), wanted: self.to_string() })
    }
}

fn through<D: sha2::Digest>(mut hasher: D, stream: &mut impl Read) -> io::Result<String> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(lab_base::hex::hex(&hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex)
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> std::result::Result<Self, NoDigest> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| NoDigest(text.chars().take(160).collect()))?;
        Self::new(algorithm, hex)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, output: S) -> std::result::Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(input: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_short_checksums_are_refused() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852B855";
        let digest: Digest = empty.parse().unwrap();
        assert_eq!((digest.to_string(), digest.clone()), (empty.to_lowercase(), Digest::of(b"")));
        for wrong in ["sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709", "sha256:ab", "sha256", "md5:", "sha256:../../x"]
        {
            let error = wrong.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains("is no SHA-256 or SHA-512 checksum"), "{error}");
        }
    }
}
