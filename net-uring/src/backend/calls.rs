//! Plain non-blocking sends and receives, tried at each turn: what every backend that has a socket
//! does while its caller spins, because nothing is faster for one connection. How to sleep is not
//! known here.
//!
//! A caller that spins asks whether anything has come (`poll(2)`), and receives when something has: a
//! receive locks the socket, come what may, and who is just delivering stands before the lock. Round trips
//! of 1 KiB took 1.12 to 1.15 times as long as over bare sockets, which spin on receives, and 1.03 to 1.12 so
//! (`ringway-bench pingpong --over tcp --size 1024`).
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
    idle: Idle,
}

/// Whether a caller spins, and on what.
#[derive(Debug, Default)]
struct Idle {
    /// Receives in a row that brought nothing.
    vain: u32,
    /// Bytes that came since there was nothing.
    came: usize,
}

impl Idle {
    /// After so many receives in vain a caller spins: one is what ends everybody's reading.
    const SPINS: u32 = 2;
    /// Who waits for more need not ask: to copy them takes longer than to deliver them. With questions, round
    /// trips of 64 KiB took 4 % longer, medians of three runs beside a bare socket in the same process.
    const LARGE: usize = 16 << 10;

    #[inline(always)]
    fn asks(&self) -> bool {
        self.vain >= Self::SPINS && self.came < Self::LARGE
    }

    #[inline(always)]
    fn note(&mut self, result: Result<usize, Errno>) {
        match result {
            Ok(bytes) if self.vain == 0 => self.came = self.came.saturating_add(bytes),
            Ok(bytes) => *self = Self { vain: 0, came: bytes },
            Err(_) => self.vain = self.vain.saturating_add(1),
        }
    }
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
        self.idle = Idle::default();
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

    /// After a sleep, which news has ended, or time: there is nothing to ask for.
    pub fn awake(&mut self) {
        let came = match self.received {
            Some(Ok(bytes)) => bytes,
            _ => self.idle.came,
        };
        self.idle = Idle { vain: 0, came };
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
            // What was looked at and not taken is there in any case.
            if self.idle.asks() && !self.ahead.has_some() && !has_news(socket) {
                return;
            }
            // SAFETY: submitted and not given back, so by `submit` it may be received into.
            let result = unsafe { self.ahead.receive(socket, span) };
            self.idle.note(result);
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

/// Whether a receive has something to tell: bytes, the end, or an error.
#[inline(always)]
fn has_news(socket: &OwnSocket) -> bool {
    let events = libc::POLLIN | libc::POLLRDHUP;
    let mut asked = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: one live entry, as told; it does not wait. If it fails, a receive tells why.
    unsafe { libc::poll(&raw mut asked, 1, 0) != 0 }
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use super::{Errno, Idle, has_news};
    use crate::fork::OwnSocket;

    #[test]
    fn who_spins_for_small_ones_asks_first() {
        let later = Err(Errno(libc::EAGAIN));
        let mut idle = Idle::default();
        // Somebody else has said that there is something; then there is nothing left.
        for result in [later, Ok(1000), later, Ok(1000)] {
            assert!(!idle.asks());
            idle.note(result);
        }
        for result in [later, later] {
            assert!(!idle.asks());
            idle.note(result);
        }
        assert!(idle.asks());
        // A large one in pieces, of which the last is small.
        for result in [Ok(Idle::LARGE), Ok(10), later, later, later] {
            idle.note(result);
            assert!(!idle.asks());
        }
        for result in [Ok(10), later, later] {
            idle.note(result);
        }
        assert!(idle.asks());
    }

    #[test]
    fn bytes_are_news_and_so_is_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut sends = TcpStream::connect(listener.local_addr().expect("bound")).expect("there");
        let (socket, _) = listener.accept().expect("who has connected");
        let socket = OwnSocket::open(|| std::io::Result::Ok(OwnedFd::from(socket))).expect("open");
        assert!(!has_news(&socket));
        let wait = |what| {
            let start = Instant::now();
            while !has_news(&socket) {
                assert!(start.elapsed() < Duration::from_secs(30), "no news of {what}");
            }
        };
        sends.write_all(b"hello").expect("connected");
        wait("bytes");
        let mut room = [0; 8];
        let span = crate::mirror::Span { start: room.as_mut_ptr(), len: room.len() };
        // SAFETY: a live array that nobody else touches.
        assert_eq!(unsafe { super::recv_now(&socket, span) }, Ok(5));
        assert!(!has_news(&socket));
        drop(sends);
        wait("the end");
    }
}
