//! The only place of this crate that names an atomic type: words that two threads of one process share,
//! and the fences between them; from std, or from loom under `cfg(loom)`.
//!
//! Each word has one writer. What is published by which store is told where the words are: in
//! `thread::line`, the one protocol between threads here. A [`Flag`] publishes nothing.

#![allow(clippy::disallowed_types, reason = "this is this crate's file for them")]

#[cfg(loom)]
use loom::sync::atomic;
#[cfg(not(loom))]
use std::sync::atomic;

use atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

/// A word that one thread writes and another reads.
#[derive(Debug)]
pub struct Word(atomic::AtomicU64);

impl Word {
    /// A word that holds 0.
    pub fn zero() -> Self {
        Self(atomic::AtomicU64::new(0))
    }

    /// Reads without ordering anything.
    #[inline(always)]
    pub fn load_relaxed(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Reads; what the matching release published is visible afterwards.
    #[inline(always)]
    pub fn load_acquire(&self) -> u64 {
        self.0.load(Acquire)
    }

    /// Writes without ordering anything.
    #[inline(always)]
    pub fn store_relaxed(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Writes, after everything before it.
    #[inline(always)]
    pub fn store_release(&self, value: u64) {
        self.0.store(value, Release);
    }
}

/// Whether something was done in this process. Not loom's: models share nothing that lives longer than one of
/// their runs.
#[derive(Debug)]
pub struct Flag(std::sync::atomic::AtomicBool);

impl Flag {
    /// One that is down.
    pub const fn new() -> Self {
        Self(std::sync::atomic::AtomicBool::new(false))
    }

    /// Raises it, and tells whether it was down. Orders nothing.
    pub fn raise(&self) -> bool {
        !self.0.swap(true, std::sync::atomic::Ordering::Relaxed)
    }
}

impl Default for Flag {
    fn default() -> Self {
        Self::new()
    }
}

/// Nothing before it, stores included, comes after what is behind it. 5 ns.
#[inline(always)]
pub fn full_fence() {
    #[cfg(loom)]
    if mutation::is_removed() {
        return;
    }
    atomic::fence(SeqCst);
}

/// Keeps the compiler from moving memory accesses across; the processor may. For the side whose fence
/// the other one runs for it, by [`barrier`].
#[inline(always)]
pub fn compiler_fence() {
    std::sync::atomic::compiler_fence(SeqCst);
}

/// Whether [`barrier`] works in this process, from now on. False where the kernel, or a filter before
/// it, does not have it.
#[cfg(not(loom))]
pub fn has_barrier() -> bool {
    use std::sync::OnceLock;

    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED
        .get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) && barrier())
}

/// A full fence on every running thread of this process, by the system call membarrier: 0.5 to 10 us,
/// paid by a thread that is about to sleep, for 5 ns less at each publication of the other. False if it
/// did not happen.
#[cfg(not(loom))]
pub fn barrier() -> bool {
    membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED)
}

#[cfg(not(loom))]
fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: membarrier takes no pointers.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Models have no such call: they check the fences.
#[cfg(loom)]
pub fn has_barrier() -> bool {
    false
}

/// See [`has_barrier`].
#[cfg(loom)]
pub fn barrier() -> bool {
    false
}

/// Takes the full fences away in models, to show that they are needed.
#[cfg(loom)]
pub mod mutation {
    use std::cell::Cell;

    std::thread_local! {
        static REMOVED: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `body` without full fences. Loom runs its threads as coroutines of the calling thread, so
    /// a thread-local reaches them all.
    pub fn without_fences<T>(body: impl FnOnce() -> T) -> T {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                REMOVED.with(|removed| removed.set(false));
            }
        }
        REMOVED.with(|removed| removed.set(true));
        let _restore = Restore;
        body()
    }

    pub(super) fn is_removed() -> bool {
        REMOVED.with(Cell::get)
    }
}
