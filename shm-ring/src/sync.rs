//! The only place that names an atomic type: shared words and fences, from std, or from loom under
//! `cfg(loom)`.
//!
//! A [`Word`] lends out one method per ordering that the algorithms may use, so that a reader of
//! `spsc` or `wait` sees at each access what it costs. There is one read-modify-write, for words that
//! have several writers: [`Word::replace`], a compare-and-swap. Rings with one writer to each word do
//! without it, and their pages may be mapped read-only by everybody else.

#![allow(clippy::disallowed_types, reason = "this is the file the lint points everyone to")]

#[cfg(loom)]
use loom::sync::atomic;
#[cfg(not(loom))]
use std::sync::atomic;

use atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// A 64-bit word in memory that another process may read or write at any time.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word(atomic::AtomicU64);

/// A 32-bit word in shared memory; 32 bits because that is what a futex compares.
#[repr(transparent)]
#[derive(Debug)]
pub struct Word32(atomic::AtomicU32);

macro_rules! word {
    ($name:ident, $atomic:ident, $int:ident) => {
        impl $name {
            /// A word of its own, for memory that is not mapped (tests, models, process globals).
            #[cfg(not(loom))]
            pub const fn new(value: $int) -> Self {
                Self(atomic::$atomic::new(value))
            }

            /// A word of its own, for models.
            #[cfg(loom)]
            pub fn new(value: $int) -> Self {
                Self(atomic::$atomic::new(value))
            }

            /// Reads without ordering anything.
            #[inline(always)]
            pub fn load_relaxed(&self) -> $int {
                self.0.load(Relaxed)
            }

            /// Reads; what the matching release published is visible afterwards. A Relaxed load and
            /// a fence instead of an Acquire load, because std guarantees only Relaxed loads on
            /// pages that this process has mapped read-only. The code is the same on x86.
            #[inline(always)]
            pub fn load_acquire(&self) -> $int {
                if cfg!(tsan) {
                    // ThreadSanitizer knows nothing of fences.
                    return self.0.load(Acquire);
                }
                let value = self.0.load(Relaxed);
                atomic::fence(Acquire);
                value
            }

            /// As [`Self::load_acquire`], but pays for the fence only when there is something to
            /// acquire: a zero orders nothing.
            #[inline(always)]
            pub fn load_published(&self) -> $int {
                if cfg!(tsan) {
                    return self.0.load(Acquire);
                }
                let value = self.0.load(Relaxed);
                if value != 0 {
                    atomic::fence(Acquire);
                }
                value
            }

            /// Writes without ordering anything.
            #[inline(always)]
            pub fn store_relaxed(&self, value: $int) {
                self.0.store(value, Relaxed);
            }

            /// Writes, after everything before it.
            #[inline(always)]
            pub fn store_release(&self, value: $int) {
                self.0.store(value, Release);
            }
        }
    };
}

word!(Word, AtomicU64, u64);
word!(Word32, AtomicU32, u32);

impl Word {
    /// Adds to a counter that only this thread writes: a load and a store, no locked instruction.
    #[inline(always)]
    pub fn bump(&self, by: u64) {
        self.store_relaxed(self.load_relaxed().wrapping_add(by));
    }

    /// Writes `new` if the word holds `old`, in one step: a locked instruction, some 5 ns on a line
    /// that this core owns. Comes after everything before it, and everything after it comes after
    /// it; so does what follows a refusal, which returns what the word holds.
    #[inline(always)]
    pub fn replace(&self, old: u64, new: u64) -> Result<(), u64> {
        self.0.compare_exchange(old, new, AcqRel, Acquire).map(|_| ())
    }

    /// Adds to a counter that several write.
    pub fn add(&self, by: u64) {
        let mut old = self.load_relaxed();
        while let Err(found) = self.replace(old, old.wrapping_add(by)) {
            old = found;
        }
    }
}

impl Word32 {
    /// As [`Word::replace`].
    #[inline(always)]
    pub fn replace(&self, old: u32, new: u32) -> Result<(), u32> {
        self.0.compare_exchange(old, new, AcqRel, Acquire).map(|_| ())
    }

    /// The address that the kernel sleeps on.
    #[cfg(not(loom))]
    pub(crate) fn as_ptr(&self) -> *mut u32 {
        self.0.as_ptr()
    }
}

/// Fences that come in pairs: of "publish, then look for sleepers" and "announce sleep, then look for
/// messages", one sees the other, and of "mark, then look who has joined" and "join, then look at the
/// mark". Each is named, so that a model can take it away and show what breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dekker {
    /// Between a publication and the look at the sleeper's flag.
    Waker,
    /// Between raising the sleeper's flag and the last look at the ring.
    Sleeper,
    /// Between the mark where those who join would start, and the look at who has joined.
    Scan,
    /// Between a newcomer's entry in the roster, and the look at where to start.
    Join,
}

/// A full StoreLoad fence at the named place.
#[inline(always)]
pub fn fence_store_load(place: Dekker) {
    #[cfg(loom)]
    if mutation::removed(place) {
        return;
    }
    let _ = place;
    atomic::fence(SeqCst);
}

/// Nothing before it comes after the stores behind it: what a writer announces, before what it then
/// writes.
#[inline(always)]
pub fn fence_release() {
    #[cfg(loom)]
    if mutation::removed_release() {
        return;
    }
    atomic::fence(Release);
}

/// Nothing behind it comes before the loads in front of it: what a reader read, before it looks
/// whether that may have been overwritten meanwhile.
#[inline(always)]
pub fn fence_acquire() {
    #[cfg(loom)]
    if mutation::removed_acquire() {
        return;
    }
    atomic::fence(Acquire);
}

/// Keeps the compiler from moving memory accesses across; the processor may. For the side whose
/// fence somebody else runs for it.
#[inline(always)]
pub fn compiler_fence() {
    std::sync::atomic::compiler_fence(SeqCst);
}

/// Takes fences away in models, to show that each is needed.
#[cfg(loom)]
pub mod mutation {
    use super::Dekker;
    use std::cell::Cell;

    /// What can be taken away.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Fence {
        /// A StoreLoad fence.
        Full(Dekker),
        /// Those of [`super::fence_release`].
        Release,
        /// Those of [`super::fence_acquire`].
        Acquire,
    }

    std::thread_local! {
        static REMOVED: Cell<Option<Fence>> = const { Cell::new(None) };
    }

    /// Runs `body` with the fence at `place` missing.
    pub fn without<T>(place: Dekker, body: impl FnOnce() -> T) -> T {
        without_fence(Fence::Full(place), body)
    }

    /// Runs `body` without that fence. Loom runs its threads as coroutines of the calling thread, so
    /// a thread-local reaches them all.
    pub fn without_fence<T>(fence: Fence, body: impl FnOnce() -> T) -> T {
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                REMOVED.with(|removed| removed.set(None));
            }
        }
        REMOVED.with(|removed| removed.set(Some(fence)));
        let _restore = Restore;
        body()
    }

    pub(super) fn removed(place: Dekker) -> bool {
        REMOVED.with(|removed| removed.get() == Some(Fence::Full(place)))
    }

    pub(super) fn removed_release() -> bool {
        REMOVED.with(|removed| removed.get() == Some(Fence::Release))
    }

    pub(super) fn removed_acquire() -> bool {
        REMOVED.with(|removed| removed.get() == Some(Fence::Acquire))
    }
}
