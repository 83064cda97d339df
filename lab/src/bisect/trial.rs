//! Interfaces of a search: testing kernels, and selecting the next one.

use serde::{Deserialize, Serialize};

/// A kernel to test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A point of the history.
    Point(usize),
    /// The new end with this point's change reverted.
    Without(usize),
}

/// Result of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The failure under investigation.
    Fails {
        /// What was observed, one line.
        symptom: String,
    },
    /// The failure did not occur.
    Passes,
    /// No result: a different failure, no boot, or the kernel lacks a capability that the case needs.
    Untestable {
        /// The reason, one line.
        reason: String,
    },
}

/// State of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// As the old end.
    Old,
    /// As the new end.
    New,
    /// Can't be determined.
    Skip,
}

/// Why a search ended without a finding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SearchStop {
    /// The question is invalid.
    #[error("{0}")]
    Question(String),
    /// The host failed repeatedly. Results so far are kept.
    #[error("{0}")]
    Trouble(String),
    /// A signal was received. Results so far are kept.
    #[error("interrupted")]
    Interrupted(i32),
}

/// Why there is no kernel for a subject, one line: it does not compile, its change can't be reverted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(transparent)]
#[error("{0}")]
pub struct NoKernel(pub String);

/// Tests kernels.
pub trait Trial {
    /// Brings a kernel about. The inner value is its image's name, the same for the same content, or why there is none.
    ///
    /// # Errors
    /// [`SearchStop`].
    fn prepare(&mut self, subject: Subject) -> Result<Result<String, NoKernel>, SearchStop>;

    /// Runs the case once, in a fresh guest, on a prepared kernel.
    ///
    /// # Errors
    /// [`SearchStop`].
    fn run(&mut self, subject: Subject) -> Result<Answer, SearchStop>;
}

/// Selects the points of a binary search.
pub trait Walk {
    /// The next point to test; `None` if the search can't be narrowed further.
    ///
    /// # Errors
    /// [`SearchStop`].
    fn next(&mut self) -> Result<Option<usize>, SearchStop>;

    /// Records a point's mark.
    ///
    /// # Errors
    /// [`SearchStop`].
    fn mark(&mut self, point: usize, mark: Mark) -> Result<(), SearchStop>;

    /// Records the final marks, in the order in which the points were tested: later runs may have changed marks that
    /// were set during the search.
    ///
    /// # Errors
    /// [`SearchStop`].
    fn settle(&mut self, marks: &[(usize, Mark)]) -> Result<(), SearchStop>;
}
