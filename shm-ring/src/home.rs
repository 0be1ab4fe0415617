//! Data that a forked child finds replaced, so that verbs whose first compare is with it need not ask
//! where they are.
//!
//! What replaces it is `fork`'s handler; in models nobody forks.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

#[cfg(not(loom))]
use crate::fork::{self, Birth, Home};

/// It belongs to the process that this one is a fork of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Foreign;

/// Data that says so itself when it is not this process's own.
pub trait Homing: Send + 'static {
    /// What a forked child finds in its place.
    const GONE: Self;
}

/// Data in a place of its own, where a child's handler finds it.
#[derive(Debug)]
pub struct Homed<T: Homing> {
    at: NonNull<T>,
    #[cfg(not(loom))]
    birth: Birth,
}

// SAFETY: it owns what it points to, as a Box does, and that is Send.
unsafe impl<T: Homing> Send for Homed<T> {}
// SAFETY: as a Box; `&Homed` lends `&T`.
unsafe impl<T: Homing + Sync> Sync for Homed<T> {}

impl<T: Homing> Homed<T> {
    /// Allocates.
    pub fn new(data: T) -> Self {
        let at = NonNull::from(Box::leak(Box::new(data)));
        #[cfg(not(loom))]
        fork::enlist(Home { at: at.cast(), leave: leave::<T> });
        Self {
            at,
            #[cfg(not(loom))]
            birth: Birth::now(),
        }
    }

    /// Where the data is, for as long as this lives.
    #[inline(always)]
    pub fn place(&self) -> NonNull<T> {
        self.at
    }

    /// Whether this process is a fork of the one that has the data.
    #[inline(always)]
    pub fn is_foreign(&self) -> bool {
        #[cfg(not(loom))]
        return self.birth.is_foreign();
        #[cfg(loom)]
        false
    }
}

// The references below live within one call of the ring's writer or reader, or of a queue's end, and none of
// these calls anybody else's code meanwhile, which might fork: the handler writes when there are none.
impl<T: Homing> Deref for Homed<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: from a Box, and freed in `drop` only.
        unsafe { self.at.as_ref() }
    }
}

impl<T: Homing> DerefMut for Homed<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; borrowed mutably.
        unsafe { self.at.as_mut() }
    }
}

impl<T: Homing> Drop for Homed<T> {
    fn drop(&mut self) {
        #[cfg(not(loom))]
        fork::strike(self.at.cast());
        // SAFETY: from a Box, and no handler knows it any more.
        drop(unsafe { Box::from_raw(self.at.as_ptr()) });
    }
}

/// # Safety
/// A live `T` is there, and nobody looks at it meanwhile.
#[cfg(not(loom))]
unsafe fn leave<T: Homing>(at: NonNull<()>) {
    // SAFETY: the caller's promise.
    unsafe { at.cast::<T>().write(T::GONE) };
}
