//! The backend that runs everywhere: plain calls at each turn, and `epoll` to sleep on.
//!
//! A spinning caller never calls epoll: it has one socket, and asks that (`calls`). The kernel holds no span
//! between two calls.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::calls::Calls;
use super::plain::{Plain, Sleep};
use super::{Errno, Leak, Watch};
use crate::fork::OwnSocket;

/// See the module.
pub type Epoll = Plain<InEpoll>;

/// Sleeps in an epoll.
#[derive(Debug)]
pub struct InEpoll {
    epoll: OwnedFd,
    /// Whether the socket is in it.
    added: bool,
    /// Whether the kernel takes time-outs in nanoseconds (`epoll_pwait2`, Linux 5.11).
    fine: bool,
}

impl Epoll {
    /// A backend without a socket. One system call.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self::with(InEpoll { epoll: new_epoll()?, added: false, fine: true }))
    }
}

impl InEpoll {
    /// Before the first sleep only: a socket that an epoll watches has every segment tell it, which a
    /// caller that spins would pay for (`floor-tcp-epoll` beside `floor-tcp-spin`).
    fn watch_socket(&mut self, calls: &Calls) {
        if let Some(socket) = calls.socket()
            && !self.added
        {
            // Edge-triggered for both directions, once and for all: what is there already counts as an
            // edge, and before each sleep a turn has found the end of it, so the next edge is the next
            // news.
            let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
            self.add(socket, events);
            self.added = true;
        }
    }

    fn add(&self, fd: BorrowedFd<'_>, events: i32) {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: 0 };
        // SAFETY: both descriptors are open, and the event is a live value. It fails for lack of
        // memory or because it is there already: then parks end by their time-out.
        unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &raw mut event,
            );
        }
    }
}

impl Sleep for InEpoll {
    const NAME: &'static str = "epoll";

    fn attached(&mut self, _socket: &OwnSocket) {
        self.added = false;
    }

    fn detached(&mut self, socket: Option<&OwnSocket>) -> Result<(), Leak> {
        if let Some(socket) = socket.filter(|_| self.added) {
            // SAFETY: open descriptors; no event is passed. A socket that was never added (no
            // memory) is not there to be removed.
            unsafe {
                libc::epoll_ctl(
                    self.epoll.as_raw_fd(),
                    libc::EPOLL_CTL_DEL,
                    socket.as_raw_fd(),
                    std::ptr::null_mut(),
                );
            }
        }
        Ok(())
    }

    fn park(&mut self, calls: &mut Calls, timeout: Duration) {
        self.watch_socket(calls);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        if self.fine {
            let limit = libc::timespec {
                tv_sec: timeout.as_secs().min(i32::MAX as u64).cast_signed(),
                tv_nsec: timeout.subsec_nanos().into(),
            };
            // SAFETY: the array has room for as many events as told, the time is a live value, and
            // no signal mask is passed.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    self.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    events.len() as libc::c_int,
                    &raw const limit,
                    std::ptr::null::<libc::sigset_t>(),
                    0_usize,
                )
            };
            // An interrupted sleep is a short one.
            if result >= 0 || Errno::last().0 == libc::EINTR {
                return;
            }
            self.fine = false;
        }
        let milliseconds = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX).max(1);
        // SAFETY: the array has room for as many events as told.
        unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                milliseconds,
            );
        }
    }

    /// All of it ends every park: here that costs nothing.
    fn watch(&mut self, fd: BorrowedFd<'_>, _what: Watch) {
        self.add(fd, libc::EPOLLIN);
    }
}

/// An empty epoll.
pub(super) fn new_epoll() -> Result<OwnedFd, Errno> {
    // SAFETY: no pointers; the result is checked.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: just opened, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
