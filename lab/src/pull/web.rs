//! Transfers, by curl: with the host's proxies and certificates, limits of bytes and of time, and http and https alone.

use super::PullError;
use lab_base::{file::FileError, process, programs, text};
use serde::de::DeserializeOwned;
use std::{fs, path::Path};

/// Maximum bytes of an answer that is read into memory.
const MOST_JSON: u64 = 16 << 20;
/// Options of every transfer: no settings of the user's, no patterns in addresses, five redirects, and an end where the server
/// sends less than 1000 bytes a second for a minute.
const OPTIONS: [&str; 16] = [
    "--disable",
    "--globoff",
    "--silent",
    "--show-error",
    "--fail",
    "--location",
    "--max-redirs",
    "5",
    "--proto",
    "=http,https",
    "--connect-timeout",
    "30",
    "--speed-limit",
    "1000",
    "--speed-time",
    "60",
];

/// curl.
#[derive(Debug, Clone, Copy)]
pub struct Web(());

/// Refuses what is no address.
fn checked(url: &str) -> Result<&str, PullError> {
    let plain = url.bytes().all(|byte| byte.is_ascii_graphic());
    let scheme = url.starts_with("http://") || url.starts_with("https://");
    if plain && scheme { Ok(url) } else { Err(PullError::Address(text::line(url, 200))) }
}

impl Web {
    /// Finds curl.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Result<Self, PullError> {
        programs::on_host("curl").map(|_| Self(())).ok_or(PullError::NoCurl)
    }

    /// Fetches a file of at most `most` bytes. The server may not know its length before, so the file's growth is limited, too.
    ///
    /// # Errors
    /// The transfer fails, or there is more.
    pub fn fetch(self, url: &str, what: &'static str, most: u64, to: &Path) -> Result<(), PullError> {
        let (limit, size) = (format!("--fsize={most}"), most.to_string());
        let name = to.display().to_string();
        let words = [&limit, "--", "curl"].into_iter().chain(OPTIONS);
        let words = words.chain(["--max-filesize", &size, "--output", &name, "--url", checked(url)?]);
        let done = process::capture(&format!("curl {url}"), "curl", process::command("prlimit", words));
        let error = match done {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Exit code 63 of curl, or the signal of the limit.
        let grown = to.metadata().is_ok_and(|file| file.len() >= most);
        let told = error.to_string();
        let _ = fs::remove_file(to);
        if grown || told.contains("curl: (63)") {
            return Err(PullError::TooLarge { url: url.to_owned(), what, most });
        }
        // Exit code 22: the status of the answer is 400 or more, and curl quotes it.
        if let Some((_, problem)) = told.split_once("curl: (22) ") {
            let transient = !problem.contains("error: 4");
            return Err(PullError::Refused { url: url.to_owned(), problem: problem.to_owned(), transient });
        }
        Err(error.into())
    }

    /// Fetches and reads JSON.
    ///
    /// # Errors
    /// The transfer fails, or the answer is something else.
    pub fn json<T: DeserializeOwned>(self, url: &str, what: &'static str, scratch: &Path) -> Result<T, PullError> {
        let file = scratch.join("answer");
        self.fetch(url, what, MOST_JSON, &file)?;
        let bytes = lab_guard::bounded::file(&file, MOST_JSON).map_err(FileError::of("read", &file))?;
        fs::remove_file(&file).map_err(FileError::of("remove", &file))?;
        serde_json::from_slice(&bytes).map_err(|error| PullError::Answer {
            url: url.to_owned(),
            what,
            problem: text::reason(&error),
            start: text::line(&String::from_utf8_lossy(&bytes[..bytes.len().min(200)]), 60),
        })
    }

    /// Sends a file as JSON. The token is passed in a file of this user's, since arguments can be read by others.
    ///
    /// # Errors
    /// The transfer fails, the server refuses it, or the token is no word of a header.
    pub fn post(self, url: &str, file: &Path, token: Option<&str>) -> Result<(), PullError> {
        let mut settings = "header = \"Content-Type: application/json\"\n".to_owned();
        if let Some(token) = token {
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte)) {
                return Err(PullError::Token("KCIDB_JWT"));
            }
            settings += &format!("header = \"Authorization: Bearer {token}\"\n");
        }
        let kept = lab_vm::scratch()?;
        let kept = kept.path().join("settings");
        fs::write(&kept, settings).map_err(FileError::of("write", &kept))?;
        let (named, body) = (kept.display().to_string(), format!("@{}", file.display()));
        // A redirect could lead the token to another server.
        let options = OPTIONS.into_iter().filter(|word| !["--location", "--max-redirs", "5"].contains(word));
        let more = ["--config", &named, "--output", "/dev/null", "--data-binary", &body, "--url", checked(url)?];
        let command = process::command("curl", options.chain(more));
        process::capture(&format!("curl (submission to {url})"), "curl", command)?;
        Ok(())
    }
}
