//! The receiving end: messages of bytes, read in place in the receive ring.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Peer, Trouble};
use crate::crowd::Peers;
use crate::error::Error;
use crate::fork::Birth;
use crate::frame::{AGAIN, GAP, HEADER_LEN, Header, frame_len};
use crate::gauge::Tally;
use crate::link::{Desk, Ending, In, Incoming};
use crate::options::Options;
use crate::session::{Death, End, Headers};
use crate::stats::Stats;

/// Most messages of a batch.
const BATCH_MAX: usize = 1 << 20;

/// The receiving end of a channel. Every method needs `&mut self`, so one thread at a time; the
/// handle may move between threads.
///
/// With `io=inline` the caller's own calls drive the socket, and the acknowledgements that make room at
/// the sender leave with them. While nobody calls, nothing happens: the sender fills both rings and then
/// waits. With `io=thread` a thread receives into the ring and acknowledges what was released; see
/// [`crate::options::Io`].
#[derive(Debug)]
pub struct NetReceiver<L: Incoming = In> {
    link: L,
    birth: Birth,
    desk: Desk,
    messages: u64,
    bytes: u64,
    /// Where both are left for whoever shows them.
    tally: Option<Arc<Tally>>,
    linger: Duration,
    /// There is nothing left for a drop to do.
    closed: bool,
}

/// Why no message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecvError {
    /// Nothing there, and the call does not wait.
    #[error("no message is waiting")]
    Empty,
    /// Nothing came within the time allowed.
    #[error("timed out: no message came")]
    Timeout,
    /// The sender closed, and everything it sent has been received. Told once; the next call waits
    /// for another sender.
    #[error("the sender has closed; everything it sent was received")]
    Disconnected,
    /// The sender is gone for good; what had come of its messages has been received. Told once; the
    /// next call waits for another.
    #[error("the sender ({peer}) is gone, {death}; what had come of its messages was received")]
    PeerDied {
        /// Who.
        peer: Peer,
        /// Why it is taken for gone.
        death: Death,
    },
    /// The sender of a broadcast that overwrites had no room for more here: so many messages are left
    /// out. The next call goes on behind them.
    #[error(
        "{missed} messages were left out, as there was no room for them; the next call goes on behind"
    )]
    Lagged {
        /// How many, exactly.
        missed: u64,
    },
    /// A sender is there, and the two ends do not fit together. Told once per attempt.
    #[error("no session came about, {death}; make both ends fit")]
    Refused {
        /// Why.
        death: Death,
    },
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(); open the channel again in the child")]
    Forked,
    /// The thread of `io=thread` has ended by a panic, which is a defect of this library.
    #[error(
        "the thread that moves this end's bytes has panicked, as standard error tells; drop the handle, \
         open the channel again, and report it"
    )]
    Broken,
}

/// A frame in the ring.
#[derive(Clone, Copy, Debug)]
struct Frame {
    payload: *const u8,
    len: usize,
    /// [`AGAIN`] or [`GAP`].
    flags: u8,
    /// Position of what follows it.
    end: u64,
}

impl NetReceiver {
    /// Opens the receiving end: resolves the host, and binds or connects. Does not wait for the other end's
    /// program; an end without a thread waits until its first attempt to connect has succeeded or failed, for 1.5 s
    /// at most. Allocates.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Ok(Self::with(In::open(options)?, options))
    }
}

impl<L: Incoming> NetReceiver<L> {
    pub(crate) fn with(link: L, options: &Options) -> Self {
        let (birth, desk, linger) = (link.birth(), link.desk(), options.linger);
        let tally = link.tally();
        Self { link, birth, desk, messages: 0, bytes: 0, tally, linger, closed: false }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// The next message, in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and how the sender ended.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Received<'_, L>, RecvError> {
        if self.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        let frame = match self.peek() {
            Some(frame) => frame,
            None => self.nothing_now()?,
        };
        self.pass_over(frame)?;
        Ok(Received { receiver: self, frame })
    }

    /// As [`Self::try_recv`], but waits for a message, or for a sender to come.
    ///
    /// # Errors
    /// Never [`RecvError::Empty`].
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Received<'_, L>, RecvError> {
        let frame = self.frame(None)?;
        Ok(Received { receiver: self, frame })
    }

    /// As [`Self::recv`], for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::Timeout`].
    #[inline(always)]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Received<'_, L>, RecvError> {
        let frame = self.frame(Some(timeout))?;
        Ok(Received { receiver: self, frame })
    }

    /// As [`Self::try_recv`], if a message is there and nothing else is to be said. `None` says nothing:
    /// another verb does.
    #[inline(always)]
    pub fn recv_at_once(&mut self) -> Option<Received<'_, L>> {
        if self.birth.is_foreign() {
            return None;
        }
        let frame = self.peek().filter(|frame| frame.flags != GAP)?;
        Some(Received { receiver: self, frame })
    }

    /// Up to `limit` messages (and no more than 2^20) that are there, released together when the
    /// batch is dropped. Does not wait; a batch is empty only if `limit` is 0.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    #[inline(always)]
    pub fn try_recv_batch(&mut self, limit: usize) -> Result<Batch<'_, L>, RecvError> {
        if self.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        let frame = match self.peek() {
            Some(frame) => frame,
            None => self.nothing_now()?,
        };
        self.pass_over(frame)?;
        Ok(Batch { receiver: self, left: limit.min(BATCH_MAX) })
    }

    /// As [`Self::try_recv_batch`], but waits for the first message, for at most `timeout` if
    /// there is one.
    ///
    /// # Errors
    /// As [`Self::recv_timeout`].
    #[inline(always)]
    pub fn recv_batch(
        &mut self,
        limit: usize,
        timeout: Option<Duration>,
    ) -> Result<Batch<'_, L>, RecvError> {
        self.frame(timeout)?;
        Ok(Batch { receiver: self, left: limit.min(BATCH_MAX) })
    }

    /// Gives back the message that was received last and whose guard was forgotten: what dropping the
    /// guard would have done.
    pub fn give_back(&mut self) {
        if let Some(frame) = self.peek() {
            drop(Received { receiver: self, frame });
        }
    }

    /// A batch that was forgotten, to go on with, for `limit` more messages.
    #[inline(always)]
    pub fn batch_again(&mut self, limit: usize) -> Batch<'_, L> {
        Batch { receiver: self, left: limit }
    }

    /// The sender of this session, if there was a handshake.
    pub fn peer(&self) -> Option<Peer> {
        self.link.peer()
    }

    /// Who is there, and, of an end with many on the other side, who has come and gone since it was last
    /// asked. Allocates.
    pub fn peers(&mut self) -> Peers {
        self.link.peers()
    }

    /// Where it listens, or from where it is connected.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.link.local_addr()
    }

    /// Why there was no connection, when there last was none.
    pub fn trouble(&self) -> Option<Trouble> {
        self.link.trouble()
    }

    /// Which backend moves the bytes: `uring` or `epoll`.
    pub fn backend(&self) -> &'static str {
        self.link.backend()
    }

    /// Counters. Makes no system call with `io=inline`; with `io=thread` the thread is woken and lets go of
    /// the connection for a moment. In a fork of the process that opened the handle, all 0.
    pub fn stats(&self) -> Stats {
        if self.birth.is_foreign() {
            return Stats::default();
        }
        Stats {
            messages: self.messages,
            bytes: self.bytes,
            released: self.messages,
            ..self.link.stats()
        }
    }

    /// Tells the sender that nothing more will be received, and waits until it knows. Whether it
    /// answered in time, or has closed as well and is gone.
    pub fn close(mut self, timeout: Duration) -> bool {
        if self.birth.is_foreign() {
            return false;
        }
        self.closed = true;
        self.link.close(timeout).is_some()
    }

    /// The frame that is next, if it is there. Its header was checked when it came in.
    #[inline(always)]
    fn peek(&self) -> Option<Frame> {
        let desk = &self.desk;
        if desk.is_empty() {
            return None;
        }
        let at = desk.taken;
        let Header { len, flags, .. } = Header::from_bytes(desk.view.header(at));
        let payload = desk.view.span(at + HEADER_LEN as u64, len as usize).start;
        Some(Frame { payload, len: len as usize, flags, end: at + frame_len(len) })
    }

    #[inline(always)]
    fn frame(&mut self, timeout: Option<Duration>) -> Result<Frame, RecvError> {
        if self.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        let frame = match self.peek() {
            Some(frame) => frame,
            None => self.wait_for_frame(timeout)?,
        };
        self.pass_over(frame)?;
        Ok(frame)
    }

    /// A gap is told and taken away.
    #[inline(always)]
    fn pass_over(&mut self, frame: Frame) -> Result<(), RecvError> {
        if frame.flags == GAP { Err(self.missed(frame)) } else { Ok(()) }
    }

    #[cold]
    fn missed(&mut self, frame: Frame) -> RecvError {
        // SAFETY: as in Received::deref: a whole frame that was not released, with a body of
        // `GAP_BODY` bytes, as was checked when it came.
        let missed = u64::from_le(unsafe { frame.payload.cast::<u64>().read_unaligned() });
        self.desk.taken = frame.end;
        // So was how many all gaps say: far from where the sum would wrap.
        self.desk.messages += missed;
        self.release();
        RecvError::Lagged { missed }
    }

    /// One look at the network.
    #[inline(always)]
    fn nothing_now(&mut self) -> Result<Frame, RecvError> {
        self.release();
        if let Some(tally) = &self.tally {
            tally.received(self.messages, self.bytes);
        }
        self.link.look(&mut self.desk);
        if let Some(frame) = self.peek() {
            return Ok(frame);
        }
        if self.link.is_over(&mut self.desk) {
            return Err(self.ended());
        }
        self.peek().ok_or(RecvError::Empty)
    }

    #[inline(never)]
    fn wait_for_frame(&mut self, timeout: Option<Duration>) -> Result<Frame, RecvError> {
        match self.nothing_now() {
            Err(RecvError::Empty) => {}
            result => return result,
        }
        self.link.wait(&mut self.desk, timeout);
        if let Some(frame) = self.peek() {
            return Ok(frame);
        }
        if self.link.is_over(&mut self.desk) {
            return Err(self.ended());
        }
        self.peek().ok_or(RecvError::Timeout)
    }

    #[cold]
    fn ended(&mut self) -> RecvError {
        if self.link.is_broken() {
            return RecvError::Broken;
        }
        let Ending { end, established, peer } = self.link.acknowledge_end(&mut self.desk);
        match (end, peer) {
            (Some(End::Died(death)), Some(peer)) if established => {
                RecvError::PeerDied { peer, death }
            }
            (Some(End::Died(death)), _) => RecvError::Refused { death },
            (Some(End::Closed) | None, _) => RecvError::Disconnected,
        }
    }

    /// Gives back everything that was handed out.
    #[inline(always)]
    fn release(&mut self) {
        if self.desk.taken > self.desk.released {
            self.desk.released = self.desk.taken;
            self.link.release(&self.desk);
        }
    }

    #[inline(always)]
    fn advance(&mut self, frame: Frame) {
        self.desk.taken = frame.end;
        self.desk.messages += 1;
        self.messages += 1;
        self.bytes += frame.len as u64;
    }
}

impl<L: Incoming> Drop for NetReceiver<L> {
    /// Tells the sender that nothing more will be received; what was not received is lost, and the
    /// sender is told how much. Waits until the sender's host has it, for at most the options'
    /// `linger`.
    fn drop(&mut self) {
        if !self.birth.is_foreign() && !self.closed {
            self.link.leave(self.linger);
        }
    }
}

/// A message, read in place; dropping it gives its room back.
#[derive(Debug)]
pub struct Received<'a, L: Incoming = In> {
    receiver: &'a mut NetReceiver<L>,
    frame: Frame,
}

// SAFETY: the pointer goes into the ring that the borrowed receiver, itself Send, keeps.
unsafe impl<L: Incoming + Send> Send for Received<'_, L> {}

impl<L: Incoming> Received<'_, L> {
    /// Number of the message in its session, from 0.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.receiver.desk.messages
    }

    /// Bytes of the message.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.frame.len
    }

    /// Whether another receiver had it and did not release it: it may have been acted upon.
    #[inline(always)]
    pub fn redelivered(&self) -> bool {
        self.frame.flags == AGAIN
    }

    /// Whether the message is empty.
    pub fn is_empty(&self) -> bool {
        self.frame.len == 0
    }

    /// Copies the front of the message out, as far as `to` has room.
    pub fn copy_to(&self, to: &mut [u8]) {
        let len = to.len().min(self.frame.len);
        to[..len].copy_from_slice(&self[..len]);
    }
}

impl<L: Incoming> Deref for Received<'_, L> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: a whole frame below `received`, which stays as it is until it is released, and
        // that is when this guard is dropped. The kernel writes into the free tail only.
        unsafe { std::slice::from_raw_parts(self.frame.payload, self.frame.len) }
    }
}

impl<L: Incoming> Drop for Received<'_, L> {
    #[inline]
    fn drop(&mut self) {
        if self.receiver.birth.is_foreign() {
            return;
        }
        self.receiver.advance(self.frame);
        self.receiver.release();
    }
}

/// Several messages, released together when it is dropped.
#[derive(Debug)]
pub struct Batch<'a, L: Incoming = In> {
    receiver: &'a mut NetReceiver<L>,
    left: usize,
}

/// A message of a [`Batch`], in place.
#[derive(Clone, Copy, Debug)]
pub struct BatchMessage<'b> {
    /// Its bytes.
    pub payload: &'b [u8],
    /// Its number in its session, from 0.
    pub sequence: u64,
    /// Whether another receiver had it and did not release it.
    pub redelivered: bool,
}

impl<L: Incoming> Batch<'_, L> {
    /// The next message of the batch, if there is one.
    ///
    /// # Errors
    /// [`RecvError::Forked`]; the end of a sender is left to the next call on the receiver.
    #[inline(always)]
    #[allow(clippy::should_implement_trait, reason = "lends, which Iterator can't")]
    pub fn next(&mut self) -> Result<Option<BatchMessage<'_>>, RecvError> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.receiver.birth.is_foreign() {
            return Err(RecvError::Forked);
        }
        let Some(frame) = self.receiver.peek() else { return Ok(None) };
        if frame.flags == GAP {
            // Told by the next call on the receiver.
            return Ok(None);
        }
        self.left -= 1;
        let sequence = self.receiver.desk.messages;
        self.receiver.advance(frame);
        // SAFETY: as in Received::deref; released when `self` is dropped, which the result borrows,
        // and only by `self`.
        let payload = unsafe { std::slice::from_raw_parts(frame.payload, frame.len) };
        Ok(Some(BatchMessage { payload, sequence, redelivered: frame.flags == AGAIN }))
    }
}

impl<L: Incoming> Drop for Batch<'_, L> {
    #[inline]
    fn drop(&mut self) {
        if !self.receiver.birth.is_foreign() {
            self.receiver.release();
        }
    }
}
