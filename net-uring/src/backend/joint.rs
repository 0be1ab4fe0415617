//! The backend of one connection among many: plain calls at each turn, and one epoll for all of them,
//! which says whose turn is worth while. It never sleeps by itself: who has the [`Set`] does.
//!
//! Why not a completion ring: with many connections what counts is to call for those only that have
//! news, which one `epoll_wait` tells for all, and the calls are the same.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use super::calls::Calls;
use super::epoll::new_epoll;
use super::plain::{Plain, Sleep};
use super::{Errno, Leak, Watch};
use crate::fork::OwnSocket;

/// News taken at once.
const EVENTS: usize = 128;

/// An epoll, and which number is whose.
#[derive(Clone, Debug)]
pub struct Set {
    epoll: Arc<OwnedFd>,
}

impl Set {
    /// An empty one.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: Arc::new(new_epoll()?) })
    }

    /// Tells `number` while `fd` is readable.
    pub fn watch(&self, fd: BorrowedFd<'_>, number: u64) {
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, number);
    }

    /// Waits for news for at most `timeout`, and tells whose. Fewer than there are is no harm: the rest
    /// comes with the next look.
    pub fn look(&self, timeout: Duration, mut tell: impl FnMut(u64)) {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        // Whole milliseconds, up: a timer that is due is not asked for again and again.
        let milliseconds = timeout.as_micros().div_ceil(1000);
        let milliseconds = i32::try_from(milliseconds).unwrap_or(i32::MAX);
        // SAFETY: the array has room for as many events as told.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EVENTS as libc::c_int,
                milliseconds,
            )
        };
        // An interrupted sleep is a short one.
        for event in &events[..usize::try_from(count).unwrap_or(0)] {
            tell(event.u64);
        }
    }

    fn control(&self, what: i32, fd: BorrowedFd<'_>, events: i32, number: u64) {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: number };
        // SAFETY: open descriptors and a live value. Without memory for it, the clock's looks at
        // everybody do the work.
        unsafe {
            libc::epoll_ctl(self.epoll.as_raw_fd(), what, fd.as_raw_fd(), &raw mut event);
        }
    }
}

/// See the module.
pub type Joint = Plain<WithOthers>;

/// Sleeps where all of them do.
#[derive(Debug)]
pub struct WithOthers {
    set: Set,
    number: u64,
}

impl Joint {
    /// A backend without a socket, of that number.
    pub fn new(set: &Set, number: u64) -> Self {
        Self::with(WithOthers { set: set.clone(), number })
    }
}

impl Sleep for WithOthers {
    const NAME: &'static str = "epoll";

    fn attached(&mut self, socket: &OwnSocket) {
        // Edge-triggered: whoever is told takes turns until nothing comes.
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDHUP | libc::EPOLLET;
        self.set.control(libc::EPOLL_CTL_ADD, socket.as_fd(), events, self.number);
    }

    fn detached(&mut self, socket: Option<&OwnSocket>) -> Result<(), Leak> {
        if let Some(socket) = socket {
            self.set.control(libc::EPOLL_CTL_DEL, socket.as_fd(), 0, 0);
        }
        Ok(())
    }

    /// Whoever has the set is about to sleep.
    fn park(&mut self, _calls: &mut Calls, _timeout: Duration) {}

    fn watch(&mut self, _fd: BorrowedFd<'_>, _what: Watch) {}
}
