//! Bytes between the ring and the backend: what may be sent is offered, what has come is taken in, and what
//! broke is told. Who is connected with whom is not decided here.

use super::{Connection, Trouble};
use crate::backend::{Backend, Errno, Kind};
use crate::connection::Inbox;
use crate::mirror::Span;

/// The most that fits one packet of segments on loopback, less a reserve: one byte more than 65483
/// and throughput halves.
const BATCH_SMALL: u64 = 65_400;
/// From here on it does not matter any more.
const BATCH_LARGE: u64 = 256 << 10;
/// More at once gains nothing.
const BATCH_MOST: u64 = 1 << 20;

impl<H: Inbox, B: Backend> Connection<H, B> {
    /// Sends what may be sent, as far as the kernel takes it.
    #[inline(always)]
    pub(crate) fn push(&mut self) {
        while self.offer() {
            self.backend.turn();
            if !self.reap() || self.backend.is_outstanding(Kind::Send) {
                break;
            }
        }
        self.backend.recall(Kind::Send);
    }

    /// Sends, and takes in what has come. Whether anything came.
    #[inline(always)]
    pub(crate) fn pull(&mut self) -> bool {
        if self.dialing {
            return false;
        }
        let before = self.bytes_received;
        self.offer();
        self.want();
        self.backend.turn();
        if !self.reap() {
            return false;
        }
        self.backend.recall(Kind::Recv);
        self.backend.recall(Kind::Send);
        let came = self.bytes_received != before;
        self.empty_receives += u64::from(!came);
        came
    }

    /// Hands what may be sent to the backend. Whether it has something.
    #[inline(always)]
    pub(super) fn offer(&mut self) -> bool {
        if self.backend.is_outstanding(Kind::Send) {
            return true;
        }
        let transmit = self.session.poll_transmit(&*self.ring, self.now_ns);
        let span = if transmit.control.is_empty() {
            let data = transmit.data;
            let len = match data.end - data.start {
                0 => return false,
                len if len <= BATCH_SMALL => len,
                len if len < BATCH_LARGE => BATCH_SMALL,
                len => len.min(BATCH_MOST),
            };
            self.ring.span(data.start, len as usize)
        } else {
            let bytes = transmit.control;
            let len = bytes.len().min(self.control.out.len());
            self.control.out[..len].copy_from_slice(&bytes[..len]);
            Span { start: self.control.out.as_mut_ptr(), len }
        };
        // SAFETY: either committed bytes of the send ring, which the session keeps until they are
        // acknowledged, so after they were sent; or the control buffer, which is written only here,
        // when no send is outstanding. Both are freed only after the backend let go (Drop).
        unsafe { self.backend.submit(Kind::Send, span) };
        self.backend.is_outstanding(Kind::Send)
    }

    /// Hands room to receive into to the backend.
    #[inline(always)]
    pub(super) fn want(&mut self) {
        if self.backend.is_outstanding(Kind::Recv) {
            return;
        }
        let span = H::room(&self.session, &self.ring, &mut self.control);
        // SAFETY: the free tail of the receive ring, in which nobody looks before it is taken in,
        // or the small inbox, likewise. Both are freed only after the backend let go (Drop).
        unsafe { self.backend.submit(Kind::Recv, span) };
    }

    /// Takes what completed. False: the connection is gone.
    #[inline(always)]
    pub(super) fn reap(&mut self) -> bool {
        while let Some(completion) = self.backend.complete() {
            match (completion.kind, completion.result) {
                (Kind::Send, Ok(bytes)) => {
                    self.sends += 1;
                    self.bytes_sent += bytes as u64;
                    self.session.handle_sent(bytes, self.now_ns);
                }
                (Kind::Recv, Ok(bytes)) if bytes > 0 => {
                    self.receives += 1;
                    self.bytes_received += bytes as u64;
                    let (session, ring) = (&mut self.session, &self.ring);
                    H::take_in(session, ring, &mut self.control, bytes, self.now_ns);
                }
                (_, Err(errno)) if errno.is_later() || errno.0 == libc::ECANCELED => {}
                (kind, result) => {
                    self.broken(kind, result);
                    return false;
                }
            }
        }
        true
    }

    #[cold]
    fn broken(&mut self, kind: Kind, result: Result<usize, Errno>) {
        self.trouble = Some(match result {
            Err(errno) => Trouble::Broken { errno },
            Ok(_) => Trouble::Ended,
        });
        // What the peer said before it went is still to be heard: a refusal, its last words.
        if kind == Kind::Send {
            self.hear_out();
        }
        self.disconnect();
    }

    /// Takes in what is left of a connection that can't be sent on any more.
    fn hear_out(&mut self) {
        for _ in 0..1024 {
            self.want();
            self.backend.turn();
            let mut came = false;
            while let Some(completion) = self.backend.complete() {
                if let (Kind::Recv, Ok(bytes)) = (completion.kind, completion.result) {
                    came = bytes > 0;
                    self.bytes_received += bytes as u64;
                    let (session, ring) = (&mut self.session, &self.ring);
                    H::take_in(session, ring, &mut self.control, bytes, self.now_ns);
                }
            }
            if !came {
                return;
            }
        }
    }
}
