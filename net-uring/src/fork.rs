//! What fork() does to endpoints: the child gets copies of the sockets. While one is open there, the
//! peer does not see the connection end when the parent dies; and a child that shuts one down ends
//! the parent's connection. So a child handler closes its copies, which ends nothing, and marks every
//! endpoint as not this process's own.
//!
//! Nothing here knows what a descriptor is for.

use std::cell::UnsafeCell;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Once;

/// In which process an endpoint was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth(u32);

impl Birth {
    /// Now, here.
    pub fn now() -> Self {
        install_handlers();
        Self(forks())
    }

    /// Whether this process is a fork of the one it happened in.
    #[inline(always)]
    pub fn is_foreign(self) -> bool {
        forks() != self.0
    }
}

/// The owner of a descriptor that a forked child closes at once. In such a child, dropping it does
/// nothing.
#[derive(Debug)]
pub struct Own<T: AsRawFd> {
    fd: ManuallyDrop<T>,
    birth: Birth,
}

/// A socket.
pub type OwnSocket = Own<OwnedFd>;

impl<T: AsRawFd> Own<T> {
    /// Opens a descriptor and takes it in charge. No fork can come between the two.
    ///
    /// # Errors
    /// Those of `open`, which may return nothing as well.
    pub fn open<E>(open: impl FnOnce() -> Result<T, E>) -> Result<Self, E> {
        let birth = Birth::now();
        let _no_fork = Taking::lock();
        let fd = open()?;
        // SAFETY: TAKING is held, so nobody else looks into the table.
        unsafe { (*TABLE.0.get()).push(fd.as_raw_fd()) };
        Ok(Self { fd: ManuallyDrop::new(fd), birth })
    }

    /// Whether this process is a fork of the one that opened it.
    pub(crate) fn is_foreign(&self) -> bool {
        self.birth.is_foreign()
    }

    /// What it owns. It must stay the same descriptor.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self) -> &mut T {
        &mut self.fd
    }
}

impl<T: AsRawFd + AsFd> AsFd for Own<T> {
    #[inline(always)]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<T: AsRawFd> AsRawFd for Own<T> {
    #[inline(always)]
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl<T: AsRawFd> Drop for Own<T> {
    fn drop(&mut self) {
        if self.birth.is_foreign() {
            return;
        }
        let _no_fork = Taking::lock();
        // SAFETY: TAKING is held, so nobody else looks into the table.
        let table = unsafe { &mut *TABLE.0.get() };
        if let Some(index) = table.iter().position(|fd| *fd == self.fd.as_raw_fd()) {
            table.swap_remove(index);
        }
        // SAFETY: dropped here and nowhere else.
        unsafe { ManuallyDrop::drop(&mut self.fd) };
    }
}

/// Forks since the program started, as this process sees it.
struct Forks(UnsafeCell<u32>);

// SAFETY: written only by `in_child`, at which time the process has one thread.
unsafe impl Sync for Forks {}

static FORKS: Forks = Forks(UnsafeCell::new(0));

#[inline(always)]
fn forks() -> u32 {
    // SAFETY: nothing writes it while another thread runs. Volatile, because a fork is no call that
    // the compiler sees.
    unsafe { FORKS.0.get().read_volatile() }
}

/// Descriptors to close in a child.
struct Table(UnsafeCell<Vec<RawFd>>);

// SAFETY: looked into only with TAKING held.
unsafe impl Sync for Table {}

static TABLE: Table = Table(UnsafeCell::new(Vec::new()));

/// Held while the table changes, and by the handlers across a fork. A pthread mutex, because the
/// handlers lock and unlock in different functions.
struct Taking(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: a mutex is made to be used by several threads; nothing else looks into the cell.
unsafe impl Sync for Taking {}

static TAKING: Taking = Taking(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

impl Taking {
    fn lock() -> TakingGuard {
        before_fork();
        TakingGuard
    }
}

struct TakingGuard;

impl Drop for TakingGuard {
    fn drop(&mut self) {
        after_fork();
    }
}

extern "C" fn before_fork() {
    // SAFETY: an initialised mutex of static life, which no thread locks twice: no lock is taken
    // and no fork made while it is held.
    unsafe {
        libc::pthread_mutex_lock(TAKING.0.get());
    }
}

extern "C" fn after_fork() {
    // SAFETY: locked by this thread, or by the thread of which this one is the copy.
    unsafe {
        libc::pthread_mutex_unlock(TAKING.0.get());
    }
}

extern "C" fn in_child() {
    // SAFETY: the only thread of this process, which holds TAKING.
    unsafe {
        FORKS.0.get().write_volatile(forks().wrapping_add(1));
        for fd in (*TABLE.0.get()).drain(..) {
            // Open descriptors that only Own closes, and in this process it no longer does.
            drop(OwnedFd::from_raw_fd(fd));
        }
    }
    after_fork();
}

fn install_handlers() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handlers are extern "C" functions that live for ever and do only what is
        // allowed around a fork of a multi-threaded process: loads, stores, close, and a mutex that
        // is locked before and unlocked after. A failure (ENOMEM) leaves the endpoints usable; only
        // a fork would go unnoticed.
        unsafe {
            libc::pthread_atfork(Some(before_fork), Some(after_fork), Some(in_child));
        }
    });
}
