//! What can go wrong, with the request that it went wrong for.

use nix::errno::Errno;

/// A request that did not work out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// The kernel answered with an error.
    #[error("{asked}: {}{}", Errno::from_raw(*errno), extack.as_ref().map_or(String::new(), |text| format!(" ({text})")))]
    Refused {
        /// The request: `RTM_NEWLINK nk0`.
        asked: String,
        /// Positive errno of `NLMSG_ERROR`.
        errno: i32,
        /// The kernel's explanation, `NLMSGERR_ATTR_MSG`.
        extack: Option<String>,
    },
    /// The socket itself failed, or the kernel did not answer in [`crate::Netlink::ANSWER_WITHIN`].
    #[error("{asked}: netlink socket: {}", Errno::from_raw(*errno))]
    Socket {
        /// The request, in words.
        asked: String,
        /// Positive errno; `EAGAIN` stands for silence.
        errno: i32,
    },
    /// The answer is not what the request asked for.
    #[error("{asked}: the kernel's answer can't be read: {detail}")]
    Answer {
        /// The request, in words.
        asked: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The dump kept changing under the reader (`NLM_F_DUMP_INTR`).
    #[error("{asked}: interrupted by changes {attempts} times in a row; try again when the namespace is quieter")]
    Unstable {
        /// The request, in words.
        asked: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl NetlinkError {
    /// The kernel's errno, where there is one.
    pub const fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { errno, .. } | Self::Socket { errno, .. } => Some(*errno),
            Self::Answer { .. } | Self::Unstable { .. } => None,
        }
    }

    /// The kernel's explanation, where it gave one.
    pub fn extack(&self) -> Option<&str> {
        match self {
            Self::Refused { extack, .. } => extack.as_deref(),
            _ => None,
        }
    }
}
