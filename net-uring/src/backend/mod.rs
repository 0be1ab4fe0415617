//! Who moves bytes between a ring and a socket. A backend is handed spans of a ring, moves what the
//! kernel will move, and says how much that was; it knows nothing of frames and sessions.
//!
//! ```text
//!   submit ── here are bytes to send, here is room to receive into; one of each at most
//!   turn   ── the kernel gets its chance: one system call for each, or one for all
//!   complete ─ what came of it; whatever did not complete stays with the backend
//!   park   ── sleep until a turn is worth while
//! ```
//!
//! A submitted span belongs to the backend until it completes, is recalled, or the socket is
//! detached: the kernel may be reading or writing it at any time. Exactly one send is in flight per
//! stream, because two interleave. `epoll` does everything within the turn, so it holds nothing that
//! the kernel knows of; a completion ring holds what it has posted, which is why `detach` may fail
//! and the memory is then leaked rather than freed under the kernel's hands.
//!
//! `fake` is scripted, for tests: completions that are short, late, cancelled or out of order.

pub mod epoll;
#[cfg(any(test, feature = "testing"))]
pub mod fake;

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use crate::fork::OwnSocket;
use crate::mirror::Span;

pub use epoll::Epoll;
#[cfg(any(test, feature = "testing"))]
pub use fake::Fake;

/// What is done with a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its bytes go to the peer.
    Send,
    /// The peer's bytes come into it.
    Recv,
}

/// What came of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Of which.
    pub kind: Kind,
    /// How many bytes from the front of the span, or why none will be. A receive of 0 bytes is the
    /// end of the stream.
    pub result: Result<usize, Errno>,
}

/// The system's number for why not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    /// That of the last system call of this thread.
    #[cold]
    pub fn last() -> Self {
        Self(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    }

    /// Whether it says that nothing is wrong: not now, or interrupted.
    pub fn is_later(self) -> bool {
        self.0 == libc::EAGAIN || self.0 == libc::EWOULDBLOCK || self.0 == libc::EINTR
    }
}

impl std::fmt::Debug for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&std::io::Error::from_raw_os_error(self.0), f)
    }
}

/// The seam. One socket at a time; every method is for the thread that holds the endpoint.
pub trait Backend {
    /// Takes charge of a connected socket. Nothing is outstanding then.
    fn attach(&mut self, socket: OwnSocket);

    /// The socket, if there is one: for its options, and to shut it down.
    fn socket(&self) -> Option<BorrowedFd<'_>>;

    /// Gives the socket back, with nothing outstanding: the spans that were submitted are the
    /// caller's again. `Err`: the kernel could not be made to let go; the memory that the spans are
    /// in must never be freed.
    fn detach(&mut self) -> Result<Option<OwnSocket>, Leak>;

    /// Hands a span over. Nothing happens before the next turn. Without a socket it does nothing.
    ///
    /// # Safety
    /// Until it completes, is recalled or the socket is detached: the span is mapped, nobody writes
    /// to one that is sent, nobody else touches one that is received into.
    unsafe fn submit(&mut self, kind: Kind, span: Span);

    /// Whether a span of that kind is with the backend.
    fn is_outstanding(&self, kind: Kind) -> bool;

    /// Takes a span back. False: too late, it will complete.
    fn recall(&mut self, kind: Kind) -> bool;

    /// Lets the kernel do what it can without waiting.
    fn turn(&mut self);

    /// What has completed since, in any order.
    fn complete(&mut self) -> Option<Completion>;

    /// Sleeps until a turn may complete something, until one of the watched descriptors is readable,
    /// or for `timeout`; or shorter. A caller has taken its turn before, and found nothing.
    fn park(&mut self, timeout: Duration);

    /// Has [`Self::park`] end when `fd` is readable, from now on and until it is closed.
    fn watch(&mut self, fd: BorrowedFd<'_>);
}

/// The kernel still holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak;

/// The two spans that a backend may hold, for backends that do not post them to the kernel.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// `None`: nothing of that kind is outstanding.
    pub send: Option<Span>,
    pub recv: Option<Span>,
}

impl Slots {
    #[inline(always)]
    pub fn of(&mut self, kind: Kind) -> &mut Option<Span> {
        match kind {
            Kind::Send => &mut self.send,
            Kind::Recv => &mut self.recv,
        }
    }
}

/// One `send(2)` that does not wait and raises no signal.
///
/// # Safety
/// The span is mapped and nobody writes to it meanwhile.
#[inline(always)]
pub(crate) unsafe fn send_now(socket: &OwnSocket, span: Span) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the caller's promise; the kernel only reads.
    let sent = unsafe { libc::send(socket.as_raw_fd(), span.start.cast(), span.len, flags) };
    usize::try_from(sent).map_err(|_| Errno::last())
}

/// One `recv(2)` that does not wait.
///
/// # Safety
/// The span is mapped and nobody else touches it meanwhile.
#[inline(always)]
pub(crate) unsafe fn recv_now(socket: &OwnSocket, span: Span) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the caller's promise.
    let came = unsafe { libc::recv(socket.as_raw_fd(), span.start.cast(), span.len, flags) };
    usize::try_from(came).map_err(|_| Errno::last())
}
