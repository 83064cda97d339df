//! What a search needs of the world: kernels that can be asked, and somebody who says which one is next.

use serde::{Deserialize, Serialize};

/// What is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Subject {
    /// A point of the history.
    Point(usize),
    /// The new end without this point's change.
    Without(usize),
}

/// What one run showed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// The failure that is looked for.
    Fails {
        /// What was seen of it, one line.
        symptom: String,
    },
    /// It is not there.
    Passes,
    /// The run says nothing about it: it failed in another way, did not boot, or the kernel lacks what the case needs.
    Untestable {
        /// Why, one line.
        reason: String,
    },
}

/// What became of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// As at the old end.
    Old,
    /// As at the new end.
    New,
    /// Nobody can tell.
    Skip,
}

/// Why a search ended without a finding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The question can't be answered as it was asked.
    #[error("{0}")]
    Question(String),
    /// The host could not do its part, also when asked again. What was seen so far is kept.
    #[error("{0}")]
    Trouble(String),
    /// A signal. What was seen so far is kept.
    #[error("interrupted")]
    Interrupted(i32),
}

/// Tests kernels.
pub trait Trial {
    /// Brings a kernel about. The inner value is its image's name, the same for the same content, or why there is none:
    /// it does not compile, the change can't be taken back.
    ///
    /// # Errors
    /// [`Stop`].
    fn prepare(&mut self, subject: Subject) -> Result<Result<String, String>, Stop>;

    /// Runs the case once, in a fresh guest, on a kernel that was prepared.
    ///
    /// # Errors
    /// [`Stop`].
    fn run(&mut self, subject: Subject) -> Result<Answer, Stop>;
}

/// Walks through a history by halves.
pub trait Walk {
    /// The point to test next; none where the history is decided as far as it can be.
    ///
    /// # Errors
    /// [`Stop`].
    fn next(&mut self) -> Result<Option<usize>, Stop>;

    /// Takes a point's mark.
    ///
    /// # Errors
    /// [`Stop`].
    fn mark(&mut self, point: usize, mark: Mark) -> Result<(), Stop>;

    /// Takes the marks that hold in the end, in the order in which the points were tested: later runs may have overturned
    /// what was marked on the way.
    ///
    /// # Errors
    /// [`Stop`].
    fn settle(&mut self, marks: &[(usize, Mark)]) -> Result<(), Stop>;
}
