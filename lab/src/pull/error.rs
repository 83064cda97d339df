//! Errors of a pull lab; each is one line.

use lab_base::{file::FileError, process::ProcessError};
use lab_kernel_store::KernelsError;

/// Why a queue can't be asked, or a job can't be run.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The address is not one that curl may use.
    #[error("{0:?} is no http or https address without spaces")]
    Address(String),
    /// The program that fetches is missing.
    #[error("curl is not in PATH; it fetches jobs and kernels: apt-get install curl")]
    NoCurl,
    /// There is no directory for the settings of the transfer.
    #[error(transparent)]
    Untrusted(#[from] lab_guard::private::Untrusted),
    /// The transfer failed.
    #[error(transparent)]
    Transfer(#[from] ProcessError),
    /// The server refuses the request.
    #[error("can't fetch {url}: {problem}")]
    Refused {
        /// The address.
        url: String,
        /// curl's words.
        problem: String,
        /// Whether it may answer later: an error of the server, not of the request.
        transient: bool,
    },
    /// More bytes than expected.
    #[error("{url} has more than {} MiB, the most for {what}", most >> 20)]
    TooLarge {
        /// The address.
        url: String,
        /// What is there.
        what: &'static str,
        /// The limit, bytes.
        most: u64,
    },
    /// The answer is another one than expected, for example the page of a login.
    #[error("{url} is not {what}: {problem}; it begins with `{start}`")]
    Answer {
        /// The address.
        url: String,
        /// What is expected there.
        what: &'static str,
        /// The parser's words.
        problem: String,
        /// Its first characters.
        start: String,
    },
    /// An event that names no job that can be run.
    #[error("event {number} of {url} is not of a job: {problem}")]
    Event {
        /// From 1.
        number: usize,
        /// The queue.
        url: String,
        /// The parser's words.
        problem: String,
    },
    /// The job is for another lab.
    #[error("the job can't be run here: {0}")]
    Unfit(String),
    /// The file is not the one that the job means.
    #[error("{url} has the SHA-256 {found}, and the job says {wanted}")]
    OtherFile {
        /// The address.
        url: String,
        /// Of what was fetched.
        found: String,
        /// Of the job definition.
        wanted: String,
    },
    /// The token can't be passed on.
    #[error("{0} has characters that a header can't have")]
    Token(&'static str),
    /// The modules can't be unpacked.
    #[error(transparent)]
    Kernels(#[from] KernelsError),
    /// A file can't be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl PullError {
    /// Whether another attempt may succeed: the network failed, or this host did.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Transfer(_) | Self::NoCurl | Self::File(_) | Self::Refused { transient: true, .. })
    }
}
