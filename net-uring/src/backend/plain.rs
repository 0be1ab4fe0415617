//! The backends that have a socket: plain calls at each turn, which is the same for all of them, and a
//! way to sleep, which is not.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::calls::Calls;
use super::{Backend, Completion, Kind, Leak, Watch};
use crate::fork::OwnSocket;
use crate::mirror::Span;

/// See the module.
#[derive(Debug)]
pub struct Plain<S> {
    calls: Calls,
    sleep: S,
}

/// How a backend sleeps, and what it has to know for it.
pub(crate) trait Sleep {
    /// The backend's name in an address.
    const NAME: &'static str;

    /// A socket is about to be used.
    fn attached(&mut self, _socket: &OwnSocket) {}

    /// The socket, if there was one, is about to be given back. As [`Backend::detach`].
    fn detached(&mut self, _socket: Option<&OwnSocket>) -> Result<(), Leak> {
        Ok(())
    }

    /// As [`Backend::park`]; what came ahead was taken from the kernel, and nothing has completed.
    fn park(&mut self, calls: &mut Calls, timeout: Duration);

    /// As [`Backend::watch`].
    fn watch(&mut self, fd: BorrowedFd<'_>, what: Watch);
}

impl<S> Plain<S> {
    /// Without a socket.
    pub(super) fn with(sleep: S) -> Self {
        Self { calls: Calls::default(), sleep }
    }
}

impl<S: Sleep> Backend for Plain<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn attach(&mut self, socket: OwnSocket) {
        self.sleep.attached(&socket);
        self.calls.attach(socket);
    }

    fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.calls.socket()
    }

    fn detach(&mut self) -> Result<Option<OwnSocket>, Leak> {
        let socket = self.calls.detach();
        self.sleep.detached(socket.as_ref())?;
        Ok(socket)
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
        self.calls.settle_ahead();
        if !self.calls.has_completed() {
            self.sleep.park(&mut self.calls, timeout);
        }
        self.calls.awake();
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, what: Watch) {
        self.sleep.watch(fd, what);
    }
}
