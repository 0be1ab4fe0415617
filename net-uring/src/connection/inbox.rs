//! The part of a half that touches memory: where bytes come in, and what the owner of a connection asks of
//! either half alike.

use crate::backend::ahead;
use crate::fork::OwnSocket;
use crate::frame::CONTROL_MAX;
use crate::link::inline;
use crate::mirror::{Ring, Span};
use crate::session::{Half, Receiving, Sending, Session};

/// Most bytes of one receive: they are looked at twice afterwards, for their headers and by the
/// application, and should be in a near cache then.
const RECV_MOST: u64 = 256 << 10;

/// The part of a half that touches memory: where bytes come in.
pub trait Inbox: Half {
    /// Before a connection's socket is used.
    fn prepare(socket: &OwnSocket);
    /// The owner is about to sleep.
    fn before_sleep(session: &mut Session<Self>);
    /// The caller has come so far: has committed, or released, everything below.
    fn take_over(session: &mut Session<Self>, position: u64);
    /// Up to where the caller may go, and whether that is all there will be.
    fn outcome(session: &Session<Self>) -> (u64, bool);
    /// Up to where there is something to send, in the end.
    fn goal(session: &Session<Self>) -> u64;
    /// Bytes of frames that wait here: to be sent, and to be released.
    fn waiting(session: &Session<Self>) -> (u64, u64);
    /// Whether no byte is in the ring, of what was below `position` or begins there.
    fn is_empty(session: &Session<Self>, position: u64) -> bool;
    /// Whether messages would be lost if there were never a connection again.
    fn has_debts(session: &Session<Self>) -> bool;
    /// Whether a peer that has closed would come back for nothing.
    fn is_through(session: &Session<Self>) -> bool;
    /// Where the next bytes from the connection go. Never empty.
    fn room(session: &Session<Self>, ring: &Ring, control: &mut Control) -> Span;
    /// So many came there.
    fn take_in(
        session: &mut Session<Self>,
        ring: &Ring,
        control: &mut Control,
        bytes: usize,
        now_ns: u64,
    );
}

/// Small buffers at a fixed place: a backend may still be at them while the endpoint moves.
#[derive(Debug)]
pub struct Control {
    /// Control frames on their way to the kernel.
    pub(super) out: [u8; CONTROL_MAX + 64],
    inbox: [u8; 4096],
}

impl Control {
    pub(super) fn blank() -> Self {
        Self { out: [0; CONTROL_MAX + 64], inbox: [0; 4096] }
    }
}

/// What a connection takes beside itself and its ring.
#[cfg(test)]
pub(crate) const CONTROL_BYTES: usize = size_of::<Control>();

impl Inbox for Sending {
    // What comes here is acknowledgements, which nobody waits for; and while some are unread, the end of
    // the process would be a reset, which takes with it what the receiver's host has and nobody read.
    fn prepare(_socket: &OwnSocket) {}

    fn before_sleep(_session: &mut Session<Self>) {}

    fn take_over(session: &mut Session<Self>, position: u64) {
        session.handle_committed(position);
    }

    fn outcome(session: &Session<Self>) -> (u64, bool) {
        (session.acknowledged(), inline::is_over(session))
    }

    fn goal(session: &Session<Self>) -> u64 {
        session.tail()
    }

    fn waiting(session: &Session<Self>) -> (u64, u64) {
        let tail = session.tail();
        (session.unsent_below(tail), tail - session.acknowledged())
    }

    fn is_empty(session: &Session<Self>, position: u64) -> bool {
        session.tail() == position && Self::waiting(session) == (0, 0)
    }

    fn has_debts(session: &Session<Self>) -> bool {
        session.acknowledged() != session.tail()
    }

    fn is_through(session: &Session<Self>) -> bool {
        session.has_answered()
    }

    fn room(_session: &Session<Self>, _ring: &Ring, control: &mut Control) -> Span {
        Span { start: control.inbox.as_mut_ptr(), len: control.inbox.len() }
    }

    fn take_in(
        session: &mut Session<Self>,
        ring: &Ring,
        control: &mut Control,
        bytes: usize,
        now_ns: u64,
    ) {
        let bytes = bytes.min(control.inbox.len());
        session.handle_received(&control.inbox[..bytes], ring, now_ns);
    }
}

impl Inbox for Receiving {
    fn prepare(socket: &OwnSocket) {
        ahead::allow(socket);
    }

    fn before_sleep(session: &mut Session<Self>) {
        session.acknowledge_now();
    }

    fn take_over(session: &mut Session<Self>, position: u64) {
        session.handle_released(position);
    }

    fn outcome(session: &Session<Self>) -> (u64, bool) {
        (session.received(), inline::is_complete(session))
    }

    fn goal(_session: &Session<Self>) -> u64 {
        0
    }

    fn waiting(session: &Session<Self>) -> (u64, u64) {
        (0, session.received() - session.released())
    }

    fn is_empty(session: &Session<Self>, position: u64) -> bool {
        let begins = session.received() == position && session.partial() == 0;
        begins && Self::waiting(session) == (0, 0)
    }

    fn has_debts(_session: &Session<Self>) -> bool {
        false
    }

    // A sender that was not told of what was released here would take it for lost.
    fn is_through(_session: &Session<Self>) -> bool {
        false
    }

    #[inline(always)]
    fn room(session: &Session<Self>, ring: &Ring, _control: &mut Control) -> Span {
        let free = session.free();
        ring.span(free.start, (free.end - free.start).min(RECV_MOST) as usize)
    }

    #[inline(always)]
    fn take_in(
        session: &mut Session<Self>,
        ring: &Ring,
        _control: &mut Control,
        bytes: usize,
        now_ns: u64,
    ) {
        let tail = ring.span(session.received(), session.partial() as usize + bytes);
        // SAFETY: from `received` to the end of what just came: behind everything that guards may
        // point into, and in front of nothing that is kept, because the bytes came into the free
        // tail that `room` gave. Nothing is outstanding with the backend in there any more.
        let tail = unsafe { std::slice::from_raw_parts_mut(tail.start, tail.len) };
        session.handle_received(tail, now_ns);
    }
}
