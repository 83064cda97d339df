//! Signatures of files, checked by gpgv against a keyring that the project names.

use super::error::{KernelsError, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use lab_base::process;
use std::{
    fs,
    path::{Path, PathBuf},
};

const BEGIN: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";
const END: &str = "-----END PGP PUBLIC KEY BLOCK-----";

/// Keys in the form that gpgv reads.
pub(super) struct Keyring(PathBuf);

impl Keyring {
    /// Reads a keyring, binary or armoured, and writes it to `dir` for gpgv.
    ///
    /// # Errors
    /// It is no keyring, or can't be read or written.
    pub fn open(path: &Path, dir: &Path) -> Result<Self> {
        let wrong = || KernelsError::BadKernel {
            path: path.to_owned(),
            reason: "is no keyring: correct `keyring` of the source in kernels.toml".to_owned(),
        };
        if !path.is_file() {
            return Err(wrong());
        }
        let bytes = lab_guard::bounded::file(path, 16 << 20).map_err(KernelsError::io(path))?;
        let keys = match str::from_utf8(&bytes) {
            Ok(text) if text.contains(BEGIN) => dearmoured(text).ok_or_else(wrong)?,
            _ => bytes,
        };
        if keys.is_empty() {
            return Err(wrong());
        }
        let place = dir.join("keyring.gpg");
        fs::write(&place, keys).map_err(KernelsError::io(&place))?;
        Ok(Self(place))
    }

    /// Whether one of the keys has signed the file: a key that has expired or was revoked does not count, nor does a
    /// signature over SHA-1.
    ///
    /// # Errors
    /// gpgv is not installed, or rejects the signature; the error has its words.
    pub fn check(&self, what: &str, signature: &Path, signed: &Path) -> Result<()> {
        let keyring = self.0.as_os_str();
        let options = ["--status-fd", "1", "--weak-digest", "SHA1", "--keyring"];
        let arguments = options.iter().map(AsRef::as_ref).chain([keyring, signature.as_os_str(), signed.as_os_str()]);
        let command = process::command("gpgv", arguments).env("LC_ALL", "C");
        let said = process::capture(&format!("gpgv of {what}"), "gpgv", command)?;
        let is_good = |line: &str| line.starts_with("[GNUPG:] GOODSIG ");
        if said.lines().any(is_good) {
            return Ok(());
        }
        let detail = "no good signature by a valid key of the keyring".to_owned();
        Err(KernelsError::Program { what: format!("gpgv of {what}"), detail })
    }
}

/// The packets of all armoured blocks of a file (RFC 9580, 6.2).
fn dearmoured(text: &str) -> Option<Vec<u8>> {
    let mut packets = Vec::new();
    for block in text.split(BEGIN).skip(1) {
        let (block, _) = block.split_once(END)?;
        let lines = block.lines().map(str::trim);
        // Headers, an empty line, the data, and a checksum that begins with `=`.
        let data =
            lines.skip_while(|line| line.is_empty() || line.contains(": ")).take_while(|line| !line.starts_with('='));
        packets.extend(STANDARD.decode(data.collect::<String>()).ok()?);
    }
    Some(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_an_armoured_file_is_read() {
        let block = |data: &str| format!("{BEGIN}\nComment: a key\n\n{data}\n=abcd\n{END}\n");
        assert_eq!(dearmoured(&(block("AAEC\nAw==") + &block("BA=="))).unwrap(), [0, 1, 2, 3, 4]);
        assert_eq!(dearmoured(&block("AAEC").replace(END, "")), None);
        assert_eq!(dearmoured(&block("!")), None);
    }
}
