//! The backend that sleeps in a completion ring: one enter waits for the socket with the receive
//! already posted, so the bytes that end the sleep are in the ring when it returns.
//!
//! A turn makes plain calls, as `epoll`'s does: for one socket a `send` or `recv` that does not wait
//! costs less than the same by way of two queues.
//!
//! **Who owns the memory.** Between two calls of this backend the kernel holds nothing of it: what a
//! park has posted is reaped, or cancelled and then reaped, before it returns. So a ring need not
//! belong to an endpoint: each thread has one, for all of its endpoints, since a ring takes only its
//! own thread's requests and counts as locked memory (8 KiB). So an endpoint may move to another
//! thread, which sleeps in that thread's ring; so a detach has nothing to wait for, and a drop is
//! sound anywhere. Should the kernel not give a request back, though the socket was shut down under
//! it, then the ring is forgotten, the next detach is a [`Leak`], and plain calls go on.

mod ring;

use std::cell::RefCell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::calls::Calls;
use super::epoll::new_epoll;
use super::plain::{Plain, Sleep};
use super::{Errno, Kind, Leak, Watch};
use crate::fork::OwnSocket;
use crate::say::Remark;
use ring::{Job, Ring};

/// How long a request that was cancelled may take, before and after its socket is shut down. Both
/// are immediate, unless the machine is.
const DRAIN: Duration = Duration::from_secs(2);
/// Between two looks meanwhile.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// See the module.
pub type Uring = Plain<InRing>;

/// Sleeps in the calling thread's ring.
#[derive(Debug)]
pub struct InRing {
    /// An epoll of what is watched.
    watched: Option<OwnedFd>,
    /// A bell is among it.
    has_bell: bool,
    /// The kernel has kept a span.
    leaked: bool,
}

impl Uring {
    /// A backend without a socket. A handful of system calls, the first time on a thread.
    ///
    /// # Errors
    /// `EPERM`, `ENOSYS`, `EINVAL`: io_uring is not to be had here. `EMFILE`, `ENFILE`, `ENOMEM`
    /// (which may be the limit of locked memory).
    pub fn new() -> Result<Self, Errno> {
        // On a thread that is ending there is nothing to ask: its parks poll.
        RING.try_with(|slot| slot.borrow_mut().open()).unwrap_or(Ok(()))?;
        Ok(Self::with(InRing { watched: None, has_bell: false, leaked: false }))
    }
}

impl InRing {
    /// Sleeps in the thread's ring. False: it has none.
    fn park_in_ring(&mut self, calls: &mut Calls, timeout: Duration) -> bool {
        let parked = RING.try_with(|slot| {
            let mut slot = slot.borrow_mut();
            let Some(ring) = slot.ring() else { return false };
            self.post(calls, ring);
            let entered = ring.enter(1, Some(timeout));
            gather(calls, ring);
            drain(calls, ring);
            let kept = ring.is_in_flight();
            if kept {
                self.leaked = true;
                // Whoever waits for a completion hangs up, and with that detaches.
                for kind in [Kind::Send, Kind::Recv] {
                    if calls.is_waiting(kind) {
                        calls.settle(kind, Err(Errno(libc::EIO)));
                    }
                }
            }
            if kept || entered.is_err() {
                // What was posted and not taken goes with it.
                *slot = Slot::Lost;
                say_lost(entered.err().unwrap_or(Errno(libc::EBUSY)));
            }
            entered.is_ok()
        });
        parked.unwrap_or(false)
    }

    /// Posts what a park waits for.
    fn post(&self, calls: &Calls, ring: &mut Ring) {
        let waiting = &calls.waiting;
        if let Some(socket) = &calls.socket {
            let fd = socket.as_raw_fd();
            if let Some(span) = waiting.send {
                // SAFETY: submitted and not given back, and that stays so until `drain` has had it
                // reaped: no other method runs before the park returns. If `drain` fails, the span
                // is never given back (`leaked`).
                unsafe { ring.post_send(fd, span) };
            }
            if let Some(span) = waiting.recv {
                // SAFETY: likewise.
                unsafe { ring.post_recv(fd, span) };
            }
            if waiting.send.is_none() && waiting.recv.is_none() {
                ring.post_wait(Job::Dial, fd, libc::POLLOUT);
            }
        }
        if let Some(watched) = &self.watched
            && (self.has_bell || waiting.recv.is_none())
        {
            // What does not end the park has to be cancelled when it ends, by an enter of its own between
            // a message and who waits for it: 2 us of a round trip of 11. A door can do without.
            ring.post_wait(Job::Watch, watched.as_raw_fd(), libc::POLLIN);
        }
    }

    /// Sleeps without a ring.
    fn park_in_poll(&self, calls: &Calls, timeout: Duration) {
        let waiting = &calls.waiting;
        let mut events = 0;
        if waiting.recv.is_some() {
            events |= libc::POLLIN;
        }
        if waiting.send.is_some() || waiting.recv.is_none() {
            events |= libc::POLLOUT;
        }
        // poll(2) passes over a descriptor of -1.
        let of = |fd: Option<BorrowedFd<'_>>| fd.map_or(-1, |fd| fd.as_raw_fd());
        let mut fds = [
            libc::pollfd { fd: of(calls.socket()), events, revents: 0 },
            libc::pollfd {
                fd: of(self.watched.as_ref().map(AsFd::as_fd)),
                events: libc::POLLIN,
                revents: 0,
            },
        ];
        let limit = libc::timespec {
            tv_sec: timeout.as_secs().min(i32::MAX as u64).cast_signed(),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the array has as many entries as told, the time is a live value, and no signal
        // mask is passed. A failure is a short sleep.
        unsafe {
            libc::ppoll(
                fds.as_mut_ptr(),
                fds.len() as libc::nfds_t,
                &raw const limit,
                std::ptr::null(),
            );
        }
    }
}

impl Sleep for InRing {
    const NAME: &'static str = "uring";

    fn detached(&mut self, _socket: Option<&OwnSocket>) -> Result<(), Leak> {
        if std::mem::take(&mut self.leaked) { Err(Leak) } else { Ok(()) }
    }

    fn park(&mut self, calls: &mut Calls, timeout: Duration) {
        if !self.park_in_ring(calls, timeout) {
            self.park_in_poll(calls, timeout);
        }
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, what: Watch) {
        self.has_bell |= what == Watch::Bell;
        if self.watched.is_none() {
            // Without one, parks end by their time-out.
            self.watched = new_epoll().ok();
        }
        let Some(watched) = &self.watched else { return };
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        // SAFETY: open descriptors and a live value. Without memory for it, time-outs do the work.
        unsafe {
            let (epoll, fd) = (watched.as_raw_fd(), fd.as_raw_fd());
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event);
        }
    }
}

/// Takes what has completed.
fn gather(calls: &mut Calls, ring: &mut Ring) {
    while let Some((job, result)) = ring.reap() {
        match job {
            Job::Send => calls.settle(Kind::Send, result),
            Job::Recv => calls.settle(Kind::Recv, result),
            Job::Dial | Job::Watch => {}
        }
    }
}

/// Takes back whatever has not completed.
fn drain(calls: &mut Calls, ring: &mut Ring) {
    for last in [false, true] {
        if !ring.is_in_flight() {
            return;
        }
        if last && let Some(socket) = &calls.socket {
            // Nothing can wait on a socket that is shut down.
            let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
        }
        ring.cancel_all();
        let start = Instant::now();
        while ring.is_in_flight() && start.elapsed() < DRAIN {
            let entered = ring.enter(ring.outstanding(), Some(DRAIN_LOOK));
            gather(calls, ring);
            if entered.is_err() {
                break;
            }
        }
    }
}

thread_local! {
    static RING: RefCell<Slot> = const { RefCell::new(Slot::Untried) };
}

/// A thread's ring.
enum Slot {
    Untried,
    Here(Box<Ring>),
    /// The system took it away, or had none for this thread: parks poll.
    Lost,
}

impl Slot {
    /// Makes the ring, if it isn't there.
    fn open(&mut self) -> Result<(), Errno> {
        if !matches!(self, Self::Here(ring) if !ring.is_foreign()) {
            *self = Self::Here(Box::new(Ring::new()?));
        }
        Ok(())
    }

    /// The ring, which is made now if this is the thread's first park.
    fn ring(&mut self) -> Option<&mut Ring> {
        if !matches!(self, Self::Lost)
            && let Err(errno) = self.open()
        {
            say_lost(errno);
            *self = Self::Lost;
        }
        match self {
            Self::Here(ring) => Some(ring),
            Self::Untried | Self::Lost => None,
        }
    }
}

/// Requests of the calling thread that the kernel holds: between two calls none, unless it kept
/// some. And completions that it had no room for: none, ever.
pub fn in_flight_and_overflows() -> (usize, u32) {
    RING.with(|slot| match &mut *slot.borrow_mut() {
        Slot::Here(ring) => (ring.outstanding(), ring.overflows()),
        Slot::Untried | Slot::Lost => (0, 0),
    })
}

/// Says once per process that parks which should be in a ring are not.
#[cold]
fn say_lost(errno: Errno) {
    static LOST: Remark = Remark::new();
    LOST.say(|| {
        format!(
            "a thread has no io_uring to sleep in ({errno}), though there was one when its connection was \
             opened; it goes on with poll(2)"
        )
    });
}
