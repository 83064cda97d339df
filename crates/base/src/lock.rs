//! Locks whose data stays usable after a panic of another thread.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, whether or not a thread has panicked with the lock held: for data that is whole between any two of its changes,
/// where the panic itself is reported by whoever joins the thread.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_leaves_the_data_readable() {
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
