//! Mutex access that ignores poisoning.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Locks a mutex even if a thread has panicked while it held the lock. Use it only for data that is consistent after
/// each single change. The panic itself is reported by the code that joins the thread.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, at most for the given time; the lock is held again afterwards.
pub fn wait<'a, T>(condition: &Condvar, held: MutexGuard<'a, T>, limit: Duration) -> MutexGuard<'a, T> {
    condition.wait_timeout(held, limit).unwrap_or_else(PoisonError::into_inner).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_stays_readable_after_a_panic() {
        let data = Mutex::new(1);
        let panicked = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let mut held = lock(&data);
                *held = 2;
                panic!("with the lock held");
            });
            thread.join().is_err()
        });
        assert!(panicked && data.is_poisoned());
        assert_eq!(*lock(&data), 2);
    }
}
