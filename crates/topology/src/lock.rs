//! Locks whose holder panicked.

use std::sync::{LockResult, PoisonError};

/// What a lock holds even if a thread has panicked while it held the lock: `unpoisoned(mutex.lock())`. Use it only for data that
/// is consistent after each single change. The panic itself is reported by the code that joins the thread. The host's crates have
/// `lab_base::lock` for the same purpose.
pub fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
