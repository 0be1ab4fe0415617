//! What wakes a thread that sleeps in its backend: an eventfd among the descriptors that it watches.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::fork::Own;

/// See the module.
#[derive(Debug)]
pub struct Bell(Own<OwnedFd>);

impl Bell {
    /// Opens one.
    ///
    /// # Errors
    /// Lack of descriptors.
    pub fn new() -> io::Result<Self> {
        let open = || {
            // SAFETY: no pointers; the result is checked.
            let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: just opened, and nobody else knows of it.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        Own::open(open).map(Self)
    }

    /// Readable from now on, until [`Self::hush`].
    pub fn ring(&self) {
        let one = 1_u64;
        // SAFETY: eight bytes of a live value. It fails only when it has been rung 2^64 times.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
    }

    /// Silences it.
    pub fn hush(&self) {
        let mut count = 0_u64;
        // SAFETY: eight bytes of a live value. Nothing to read is well.
        unsafe { libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
    }

    /// What to watch.
    pub fn news(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
