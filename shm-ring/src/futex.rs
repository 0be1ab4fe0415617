//! The futex system call, nothing else. Who sleeps and who wakes, and why no wake-up is lost, is
//! told in `wait`.
//!
//! Shared futexes only (no `FUTEX_PRIVATE_FLAG`): the two sides are different processes.

use std::time::Duration;

use crate::sync::Word32;

/// Sleeps while `word` holds `expected`, for at most `timeout`. Returns on a wake, on a time-out,
/// on a signal, or at once if the word differs; the caller looks at its condition again whatever
/// the reason.
#[cfg(not(loom))]
pub fn wait(word: &Word32, expected: u32, timeout: Duration) {
    let timeout = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // SAFETY: `word` is a live, aligned 32-bit word for the whole call, `timeout` a live timespec;
    // FUTEX_WAIT only reads both.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT,
            expected,
            &raw const timeout,
        );
    }
}

/// Wakes all sleepers on `word`.
#[cfg(not(loom))]
pub fn wake_all(word: &Word32) {
    // SAFETY: `word` is a live, aligned 32-bit word; FUTEX_WAKE uses its address only.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
}

#[cfg(loom)]
pub use model::{wait, wake_all};

/// The kernel's promise, for models: compare and sleep are one step against a wake. No time-out: a
/// lost wake-up must hang the model, not be papered over.
#[cfg(loom)]
mod model {
    use super::{Duration, Word32};
    use loom::sync::{Condvar, Mutex};
    use std::sync::Arc;

    loom::lazy_static! {
        static ref KERNEL: Arc<(Mutex<()>, Condvar)> = Arc::new((Mutex::new(()), Condvar::new()));
    }

    pub fn wait(word: &Word32, expected: u32, _timeout: Duration) {
        let (lock, sleepers) = &**KERNEL;
        let guard = lock.lock().unwrap();
        if word.load_relaxed() == expected {
            drop(sleepers.wait(guard).unwrap());
        }
    }

    pub fn wake_all(_word: &Word32) {
        let (lock, sleepers) = &**KERNEL;
        let _guard = lock.lock().unwrap();
        sleepers.notify_all();
    }
}
