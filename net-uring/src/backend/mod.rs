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
//! the kernel knows of. `uring` sleeps with the spans posted in a completion ring and takes them back
//! before it returns; if the kernel will not give one back, `detach` fails, and the memory is then
//! leaked rather than freed under the kernel's hands.
//!
//! `joint` is for one connection among many, with one epoll for all. These three make the same calls, and
//! differ in how they sleep (`plain`). `chosen` is one of the first two, as the options say and the system
//! allows. `fake` is scripted, for tests: completions that are short, late, cancelled or out of order.

pub(crate) mod ahead;
mod calls;
pub mod chosen;
pub mod epoll;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod joint;
pub mod plain;
pub mod uring;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::fork::OwnSocket;
use crate::mirror::Span;

pub(crate) use calls::{recv_now, send_now};
pub use chosen::Chosen;
pub use epoll::Epoll;
#[cfg(any(test, feature = "testing"))]
pub use fake::Fake;
pub use uring::Uring;

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

/// What is watched, and so how long it may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// Somebody of this process wants the sleeper: every park ends at once.
    Bell,
    /// Somebody may want to connect. While there is a connection to receive from, that may wait for the end
    /// of a park.
    Door,
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
    /// Its name in an address.
    fn name(&self) -> &'static str;

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
    /// or for `timeout`; or shorter. A caller has taken its turn before, and found nothing. A socket
    /// for which nothing was submitted is one that still connects: it is waited for as well.
    fn park(&mut self, timeout: Duration);

    /// Has [`Self::park`] end when `fd` is readable, from now on and until it is closed; as soon as `what`
    /// asks for it.
    fn watch(&mut self, fd: BorrowedFd<'_>, what: Watch);
}

/// The kernel still holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leak;
