//! What a run and the process that holds guests say to each other.

use crate::run::held::HoldOrder;
use lab_vm::held::Loan;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// File of the cache that says where the socket is.
const FILE: &str = "serve.json";
/// Maximum bytes of a line: an order has a few cells.
const LONGEST: u64 = 1 << 20;
/// Maximum time for a line of the other side.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Where the process is that holds guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerPlace {
    pub socket: PathBuf,
    pub pid: u32,
    /// Its version of the lab.
    pub lab: String,
}

impl ServerPlace {
    pub fn file(cache: &Path) -> PathBuf {
        cache.join(FILE)
    }

    /// What the cache says.
    pub fn read(cache: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(Self::file(cache)).ok()?).ok()
    }
}

/// What a run asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HoldAsk {
    /// A guest that was restored from the snapshot of this key.
    Take {
        key: String,
        /// File for its console.
        console: PathBuf,
    },
    /// Guests for runs like this one.
    Hold(Box<HoldOrder>),
}

/// The answer to [`HoldAsk::Take`].
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TakeAnswer {
    /// Here it is.
    Lent(Loan),
    /// There is none.
    None,
}

/// Sends one line.
pub fn send<T: Serialize>(mut stream: &UnixStream, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line. Nothing may follow it until it was answered.
pub fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LONGEST)).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    /// What is received of these bytes.
    fn of(bytes: Vec<u8>) -> io::Result<TakeAnswer> {
        let (mine, mut other) = UnixStream::pair()?;
        let sender =
            thread::spawn(move || other.write_all(&bytes).and_then(|()| other.shutdown(std::net::Shutdown::Write)));
        let received = receive(&mine);
        drop(mine);
        let _ = sender.join();
        received
    }

    #[test]
    fn a_line_is_received_as_it_was_sent_and_anything_else_is_an_error() {
        let (mine, other) = UnixStream::pair().unwrap();
        let sent = TakeAnswer::Lent(Loan { dir: "/tmp/x".into(), leader: 7 });
        send(&other, &sent).unwrap();
        assert_eq!(receive::<TakeAnswer>(&mine).unwrap(), sent);
        for bytes in [&b""[..], b"{", b"\"lent\"\n", b"{\"lent\":{}}\n", b"\xff\n"] {
            assert!(of(bytes.to_vec()).is_err(), "{bytes:?}");
        }
        assert!(of(vec![b' '; 4 << 20]).is_err(), "a line without end");
    }
}
