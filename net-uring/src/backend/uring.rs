//! The backend that sleeps in a completion ring: one enter waits for the socket with the receive
//! already posted, so the bytes that end the sleep are in the ring when it returns.
//!
//! A turn makes plain calls, as `epoll`'s does: for one socket a `send` or `recv` that does not wait
//! costs less than the same by way of two queues.
//!
//! **Who owns the memory.** Between two calls of this backend the kernel holds nothing of it: what a
//! park has posted is reaped, or cancelled and then reaped, before it returns. So an endpoint may
//! move to another thread, whose first park builds a ring of its own; so a detach has nothing to
//! wait for; so a drop is sound anywhere. Should the kernel not give a request back, though the
//! socket was shut down under it, then the ring is forgotten, the next detach is a [`Leak`], and the
//! endpoint goes on with plain calls.

mod ring;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Once;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::calls::Calls;
use super::epoll::new_epoll;
use super::{Backend, Completion, Errno, Kind, Leak};
use crate::fork::OwnSocket;
use crate::mirror::Span;
use ring::{Job, Ring};

/// How long a request that was cancelled may take, before and after its socket is shut down. Both
/// are immediate, unless the machine is.
const DRAIN: Duration = Duration::from_secs(2);
/// Between two looks meanwhile.
const DRAIN_LOOK: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Uring {
    calls: Calls,
    /// `None`: the system took it away; plain calls go on.
    ring: Option<Box<Ring>>,
    /// An epoll of what is watched.
    doors: Option<OwnedFd>,
    /// The kernel has kept a span.
    leaked: bool,
}

impl Uring {
    /// A backend without a socket, for the calling thread; another thread's first park makes a new
    /// ring. A handful of system calls.
    ///
    /// # Errors
    /// `EPERM`, `ENOSYS`, `EINVAL`: io_uring is not to be had here. `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> Result<Self, Errno> {
        let ring = Some(Box::new(Ring::new()?));
        Ok(Self { calls: Calls::default(), ring, doors: None, leaked: false })
    }

    /// Requests that the kernel holds. Between two calls there are none, unless it kept some.
    pub fn in_flight(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.outstanding())
    }

    /// Completions that the kernel had no room for. Always 0.
    pub fn overflows(&mut self) -> u32 {
        self.ring.as_mut().map_or(0, |ring| ring.overflows())
    }

    /// Sleeps in the ring. False: there is none.
    fn park_in_ring(&mut self, timeout: Duration) -> bool {
        // Once more after a move between threads.
        for _ in 0..2 {
            if !self.post() {
                return false;
            }
            let Some(ring) = &mut self.ring else { return false };
            let entered = ring.enter(1, Some(timeout));
            self.gather();
            match entered {
                Ok(()) => {
                    self.drain();
                    return true;
                }
                Err(errno) => self.refused(errno),
            }
        }
        false
    }

    /// Posts what a park waits for. False: there is no ring.
    fn post(&mut self) -> bool {
        let Some(ring) = &mut self.ring else { return false };
        let waiting = &self.calls.waiting;
        if let Some(socket) = &self.calls.socket {
            let fd = socket.as_raw_fd();
            if let Some(span) = waiting.send {
                // SAFETY: submitted and not given back, and that stays so until `drain` has had
                // it reaped: no other method runs before the park returns.
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
        if let Some(doors) = &self.doors {
            ring.post_wait(Job::Door, doors.as_raw_fd(), libc::POLLIN);
        }
        true
    }

    /// Takes what has completed.
    fn gather(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        while let Some((job, result)) = ring.reap() {
            match job {
                Job::Send => self.calls.settle(Kind::Send, result),
                Job::Recv => self.calls.settle(Kind::Recv, result),
                Job::Dial | Job::Door => {}
            }
        }
    }

    /// Takes back whatever has not completed.
    fn drain(&mut self) {
        for last in [false, true] {
            let Some(ring) = &mut self.ring else { return };
            if !ring.is_in_flight() {
                return;
            }
            if last && let Some(socket) = &self.calls.socket {
                // Nothing can wait on a socket that is shut down.
                let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Both);
            }
            ring.cancel_all();
            let start = Instant::now();
            while let Some(ring) = &mut self.ring
                && ring.is_in_flight()
                && start.elapsed() < DRAIN
            {
                let entered = ring.enter(ring.outstanding(), Some(DRAIN_LOOK));
                self.gather();
                if entered.is_err_and(|errno| !errno.is_later()) {
                    break;
                }
            }
        }
        if self.ring.as_ref().is_some_and(|ring| ring.is_in_flight()) {
            self.kept();
        }
    }

    /// The ring would not take what was posted.
    #[cold]
    fn refused(&mut self, errno: Errno) {
        self.drain();
        // Dropped before there is another, so that the thread has one at the most. What was posted
        // and not taken goes with it.
        self.ring = None;
        if errno.0 == libc::EEXIST && !self.leaked {
            match Ring::new() {
                Ok(ring) => self.ring = Some(Box::new(ring)),
                Err(errno) => say_lost(errno),
            }
        } else {
            say_lost(errno);
        }
    }

    /// The kernel kept a span.
    #[cold]
    fn kept(&mut self) {
        // Forgotten, not closed (Ring's Drop).
        self.ring = None;
        self.leaked = true;
        // Whoever waits for a completion hangs up, and with that detaches.
        for kind in [Kind::Send, Kind::Recv] {
            if self.calls.is_waiting(kind) {
                self.calls.settle(kind, Err(Errno(libc::EIO)));
            }
        }
        say_lost(Errno(libc::EBUSY));
    }

    /// Sleeps without a ring.
    fn park_in_poll(&self, timeout: Duration) {
        let waiting = &self.calls.waiting;
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
            libc::pollfd { fd: of(self.calls.socket()), events, revents: 0 },
            libc::pollfd {
                fd: of(self.doors.as_ref().map(AsFd::as_fd)),
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

impl Backend for Uring {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn attach(&mut self, socket: OwnSocket) {
        self.calls.attach(socket);
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.calls.socket()
    }

    fn detach(&mut self) -> Result<Option<OwnSocket>, Leak> {
        let socket = self.calls.detach();
        if std::mem::take(&mut self.leaked) { Err(Leak) } else { Ok(socket) }
    }

    #[inline(always)]
    unsafe fn submit(&mut self, kind: Kind, span: Span) {
        self.calls.submit(kind, span);
    }

    #[inline(always)]
    fn is_outstanding(&self, kind: Kind) -> bool {
        self.calls.is_outstanding(kind)
    }

    #[inline(always)]
    fn recall(&mut self, kind: Kind) -> bool {
        self.calls.recall(kind)
    }

    #[inline(always)]
    fn turn(&mut self) {
        // SAFETY: what waits came through `submit`, with its caller's promise.
        unsafe { self.calls.turn() };
    }

    #[inline(always)]
    fn complete(&mut self) -> Option<Completion> {
        self.calls.complete()
    }

    fn park(&mut self, timeout: Duration) {
        if !self.calls.has_completed() && !self.park_in_ring(timeout) {
            self.park_in_poll(timeout);
        }
    }

    fn watch(&mut self, fd: BorrowedFd<'_>) {
        if self.doors.is_none() {
            // Without one, parks end by their time-out.
            self.doors = new_epoll().ok();
        }
        let Some(doors) = &self.doors else { return };
        let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        // SAFETY: open descriptors and a live value. Without memory for it, time-outs do the work.
        unsafe {
            let (epoll, fd) = (doors.as_raw_fd(), fd.as_raw_fd());
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event);
        }
    }
}

/// Says once per process that endpoints which had a ring go on without.
#[cold]
fn say_lost(errno: Errno) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        eprintln!(
            "ringway: io_uring was taken away from this process ({errno}); its connections go on \
             with plain calls and poll(2)"
        );
    });
}
