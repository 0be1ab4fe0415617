//! Plain non-blocking sends and receives, tried at each turn: what every backend that has a socket
//! does while its caller spins, because nothing is faster for one connection. How to sleep is not
//! known here.
//!
//! A span that was submitted waits here until a call has moved some of it; the kernel knows of it
//! only during the call.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use super::ahead::Ahead;
use super::{Completion, Errno, Kind};
use crate::fork::OwnSocket;
use crate::mirror::Span;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(super) socket: Option<OwnSocket>,
    /// The spans that are with the backend and have not completed.
    pub(super) waiting: Slots,
    ahead: Ahead,
    sent: Option<Result<usize, Errno>>,
    received: Option<Result<usize, Errno>>,
}

/// `None`: nothing of that kind is waiting.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub send: Option<Span>,
    pub recv: Option<Span>,
}

impl Calls {
    pub fn attach(&mut self, socket: OwnSocket) {
        self.forget();
        self.ahead = Ahead::of(&socket);
        self.socket = Some(socket);
    }

    pub fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    pub fn detach(&mut self) -> Option<OwnSocket> {
        // The socket is about to be closed, and must have nothing unread then.
        let _ = self.take_ahead();
        self.forget();
        self.socket.take()
    }

    /// Before somebody else receives from the socket or sleeps on it: what was received is taken from the
    /// kernel. If that fails, the receive that waits completes with it.
    pub fn settle_ahead(&mut self) {
        if let Err(errno) = self.take_ahead()
            && self.waiting.recv.is_some()
        {
            self.settle(Kind::Recv, Err(errno));
        }
    }

    fn take_ahead(&mut self) -> Result<(), Errno> {
        match &self.socket {
            Some(socket) => self.ahead.take(socket),
            None => Ok(()),
        }
    }

    /// `Backend::submit`, which has the caller's promise; it is kept until [`Self::turn`] needs it.
    #[inline(always)]
    pub fn submit(&mut self, kind: Kind, span: Span) {
        debug_assert!(!self.is_outstanding(kind), "one {kind:?} at a time");
        if self.socket.is_some() {
            *self.slot(kind) = Some(span);
        }
    }

    #[inline(always)]
    pub fn is_outstanding(&self, kind: Kind) -> bool {
        match kind {
            Kind::Send => self.waiting.send.is_some() || self.sent.is_some(),
            Kind::Recv => self.waiting.recv.is_some() || self.received.is_some(),
        }
    }

    /// Whether a span of that kind has not completed.
    pub fn is_waiting(&mut self, kind: Kind) -> bool {
        self.slot(kind).is_some()
    }

    #[inline(always)]
    pub fn recall(&mut self, kind: Kind) -> bool {
        *self.slot(kind) = None;
        !self.is_outstanding(kind)
    }

    /// One call for each span that waits.
    ///
    /// # Safety
    /// Every span that waits was submitted under the promise of `Backend::submit`.
    #[inline(always)]
    pub unsafe fn turn(&mut self) {
        let Some(socket) = &self.socket else { return };
        if let Some(span) = self.waiting.send {
            // SAFETY: submitted and not given back, so by `submit` it may be sent from.
            let result = unsafe { send_now(socket, span) };
            self.settle(Kind::Send, result);
        }
        let Some(socket) = &self.socket else { return };
        if let Some(span) = self.waiting.recv {
            // SAFETY: submitted and not given back, so by `submit` it may be received into.
            let result = unsafe { self.ahead.receive(socket, span) };
            self.settle(Kind::Recv, result);
        }
    }

    /// What became of a span that waits: it completes, or it waits on.
    #[inline(always)]
    pub fn settle(&mut self, kind: Kind, result: Result<usize, Errno>) {
        if matches!(result, Err(errno) if errno.is_later() || errno.0 == libc::ECANCELED) {
            return;
        }
        *self.slot(kind) = None;
        match kind {
            Kind::Send => self.sent = Some(result),
            Kind::Recv => self.received = Some(result),
        }
    }

    #[inline(always)]
    pub fn complete(&mut self) -> Option<Completion> {
        if let Some(result) = self.sent.take() {
            return Some(Completion { kind: Kind::Send, result });
        }
        let result = self.received.take()?;
        Some(Completion { kind: Kind::Recv, result })
    }

    /// Whether [`Self::complete`] has something.
    pub fn has_completed(&self) -> bool {
        self.sent.is_some() || self.received.is_some()
    }

    #[inline(always)]
    fn slot(&mut self, kind: Kind) -> &mut Option<Span> {
        match kind {
            Kind::Send => &mut self.waiting.send,
            Kind::Recv => &mut self.waiting.recv,
        }
    }

    fn forget(&mut self) {
        self.waiting = Slots::default();
        (self.sent, self.received) = (None, None);
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
