//! The receiving end: messages of bytes, read in place in the receive ring.

use std::net::SocketAddr;
use std::ops::Deref;
use std::time::Duration;

use crate::backend::{Backend, Chosen};
use crate::connection::{Connection, Peer, Trouble};
use crate::error::Error;
use crate::frame::{HEADER_LEN, Header, frame_len};
use crate::options::Options;
use crate::session::{Death, End, Headers, Receiving};
use crate::stats::Stats;

/// Most messages of a batch.
const BATCH_MAX: usize = 1 << 20;

/// The receiving end of a channel. Every method needs `&mut self`, so one thread at a time; the
/// handle may move between threads.
///
/// The caller's own calls drive the socket, and the acknowledgements that make room at the sender
/// leave with them. While nobody calls, nothing happens: the sender fills both rings and then waits.
#[derive(Debug)]
pub struct NetReceiver<B: Backend = Chosen> {
    connection: Connection<Receiving, B>,
    /// Position at whose release enough has come together for an acknowledgement.
    tell_at: u64,
    messages: u64,
    bytes: u64,
    linger: Duration,
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
    /// A sender is there, and the two ends do not fit together. Told once per attempt.
    #[error("no session came about, {death}; make both ends fit")]
    Refused {
        /// Why.
        death: Death,
    },
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(); open the channel again in the child")]
    Forked,
}

/// A frame in the ring.
#[derive(Clone, Copy, Debug)]
struct Frame {
    payload: *const u8,
    len: usize,
    /// Position of what follows it.
    end: u64,
}

impl NetReceiver {
    /// Opens the receiving end: resolves the host, and binds or begins to connect. Does not wait for
    /// the other end. Allocates.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let backend = Chosen::open(options.backend)?;
        Ok(Self::with(Connection::open(options, backend)?, options))
    }
}

impl<B: Backend> NetReceiver<B> {
    pub(crate) fn with(connection: Connection<Receiving, B>, options: &Options) -> Self {
        let linger = options.linger;
        Self { connection, tell_at: 0, messages: 0, bytes: 0, linger }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn connection_mut(&mut self) -> &mut Connection<Receiving, B> {
        &mut self.connection
    }

    /// The next message, in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`RecvError::Empty`], and how the sender ended.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Received<'_, B>, RecvError> {
        if self.connection.is_foreign() {
            return Err(RecvError::Forked);
        }
        let frame = match self.peek() {
            Some(frame) => frame,
            None => self.nothing_now()?,
        };
        Ok(Received { receiver: self, frame })
    }

    /// As [`Self::try_recv`], but waits for a message, or for a sender to come.
    ///
    /// # Errors
    /// Never [`RecvError::Empty`].
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Received<'_, B>, RecvError> {
        let frame = self.frame(None)?;
        Ok(Received { receiver: self, frame })
    }

    /// As [`Self::recv`], for at most `timeout`.
    ///
    /// # Errors
    /// [`RecvError::Timeout`].
    #[inline(always)]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Received<'_, B>, RecvError> {
        let frame = self.frame(Some(timeout))?;
        Ok(Received { receiver: self, frame })
    }

    /// Up to `limit` messages (and no more than 2^20) that are there, released together when the
    /// batch is dropped. Does not wait; a batch is empty only if `limit` is 0.
    ///
    /// # Errors
    /// As [`Self::try_recv`].
    #[inline(always)]
    pub fn try_recv_batch(&mut self, limit: usize) -> Result<Batch<'_, B>, RecvError> {
        if self.connection.is_foreign() {
            return Err(RecvError::Forked);
        }
        if self.peek().is_none() {
            self.nothing_now()?;
        }
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
    ) -> Result<Batch<'_, B>, RecvError> {
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
    pub fn batch_again(&mut self, limit: usize) -> Batch<'_, B> {
        Batch { receiver: self, left: limit }
    }

    /// The sender of this session, if there was a handshake.
    pub fn peer(&self) -> Option<Peer> {
        self.connection.peer()
    }

    /// Where it listens, or from where it is connected.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.connection.local_addr()
    }

    /// Why there was no connection, when there last was none.
    pub fn trouble(&self) -> Option<Trouble> {
        self.connection.trouble()
    }

    /// Which backend moves the bytes: `uring` or `epoll`.
    pub fn backend(&self) -> &'static str {
        self.connection.backend_name()
    }

    /// Counters. No system call.
    pub fn stats(&self) -> Stats {
        Stats {
            messages: self.messages,
            bytes: self.bytes,
            released: self.messages,
            ..self.connection.stats()
        }
    }

    /// Tells the sender that nothing more will be received, and waits until it knows. Whether it
    /// answered in time.
    pub fn close(mut self, timeout: Duration) -> bool {
        if self.connection.is_foreign() {
            return false;
        }
        self.linger = Duration::ZERO;
        self.connection.close(timeout)
    }

    /// The frame that is next, if it is there. Its header was checked when it came in.
    #[inline(always)]
    fn peek(&self) -> Option<Frame> {
        let connection = &self.connection;
        let at = connection.taken;
        if at >= connection.session.received() {
            return None;
        }
        let len = Header::from_bytes(connection.ring.header(at)).len;
        let payload = connection.ring.span(at + HEADER_LEN as u64, len as usize).start;
        Some(Frame { payload, len: len as usize, end: at + frame_len(len) })
    }

    #[inline(always)]
    fn frame(&mut self, timeout: Option<Duration>) -> Result<Frame, RecvError> {
        if self.connection.is_foreign() {
            return Err(RecvError::Forked);
        }
        if let Some(frame) = self.peek() {
            return Ok(frame);
        }
        self.wait_for_frame(timeout)
    }

    /// One look at the socket.
    #[inline(always)]
    fn nothing_now(&mut self) -> Result<Frame, RecvError> {
        self.release();
        self.connection.step();
        self.connection.tend_sometimes();
        if let Some(frame) = self.peek() {
            return Ok(frame);
        }
        if self.is_over() {
            return Err(self.ended());
        }
        Err(RecvError::Empty)
    }

    #[inline(never)]
    fn wait_for_frame(&mut self, timeout: Option<Duration>) -> Result<Frame, RecvError> {
        match self.nothing_now() {
            Err(RecvError::Empty) => {}
            result => return result,
        }
        self.connection.wait(timeout, |connection| {
            connection.taken < connection.session.received() || is_over(connection)
        });
        if let Some(frame) = self.peek() {
            return Ok(frame);
        }
        if self.is_over() { Err(self.ended()) } else { Err(RecvError::Timeout) }
    }

    fn is_over(&self) -> bool {
        is_over(&self.connection)
    }

    #[cold]
    fn ended(&mut self) -> RecvError {
        let session = &self.connection.session;
        let (end, established) = (session.end(), session.is_established());
        let peer = self.connection.peer();
        self.connection.acknowledge_end();
        self.tell_at = 0;
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
        let connection = &mut self.connection;
        let taken = connection.taken;
        if taken > connection.session.released() {
            connection.session.handle_released(taken);
            if taken >= self.tell_at {
                self.tell();
            }
        }
    }

    /// The acknowledgement leaves, if the session finds that it is time.
    #[cold]
    fn tell(&mut self) {
        self.connection.push();
        let eighth = (self.connection.ring.capacity() / 8) as u64;
        self.tell_at = self.connection.taken + eighth;
    }

    #[inline(always)]
    fn advance(&mut self, frame: Frame) {
        self.connection.taken = frame.end;
        self.connection.messages += 1;
        self.messages += 1;
        self.bytes += frame.len as u64;
    }
}

fn is_over<B: Backend>(connection: &Connection<Receiving, B>) -> bool {
    let session = &connection.session;
    !connection.is_end_told()
        && connection.taken >= session.received()
        && (session.is_complete() || session.end().is_some())
}

impl<B: Backend> Drop for NetReceiver<B> {
    /// Tells the sender that nothing more will be received; what was not received is lost, and the
    /// sender is told how much. Waits until the sender's host has it, for at most the options'
    /// `linger`.
    fn drop(&mut self) {
        if !self.connection.is_foreign() && !self.linger.is_zero() {
            self.connection.leave(self.linger);
        }
    }
}

/// A message, read in place; dropping it gives its room back.
#[derive(Debug)]
pub struct Received<'a, B: Backend = Chosen> {
    receiver: &'a mut NetReceiver<B>,
    frame: Frame,
}

// SAFETY: the pointer goes into the ring that the borrowed receiver, itself Send, keeps.
unsafe impl<B: Backend + Send> Send for Received<'_, B> {}

impl<B: Backend> Received<'_, B> {
    /// Number of the message in its session, from 0.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.receiver.connection.messages
    }

    /// Bytes of the message.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.frame.len
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

impl<B: Backend> Deref for Received<'_, B> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: a whole frame below `received`, which stays as it is until it is released, and
        // that is when this guard is dropped. The kernel writes into the free tail only.
        unsafe { std::slice::from_raw_parts(self.frame.payload, self.frame.len) }
    }
}

impl<B: Backend> Drop for Received<'_, B> {
    #[inline]
    fn drop(&mut self) {
        if self.receiver.connection.is_foreign() {
            return;
        }
        self.receiver.advance(self.frame);
        self.receiver.release();
    }
}

/// Several messages, released together when it is dropped.
#[derive(Debug)]
pub struct Batch<'a, B: Backend = Chosen> {
    receiver: &'a mut NetReceiver<B>,
    left: usize,
}

/// A message of a [`Batch`], in place.
#[derive(Clone, Copy, Debug)]
pub struct BatchMessage<'b> {
    /// Its bytes.
    pub payload: &'b [u8],
    /// Its number in its session, from 0.
    pub sequence: u64,
}

impl<B: Backend> Batch<'_, B> {
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
        if self.receiver.connection.is_foreign() {
            return Err(RecvError::Forked);
        }
        let Some(frame) = self.receiver.peek() else { return Ok(None) };
        self.left -= 1;
        let sequence = self.receiver.connection.messages;
        self.receiver.advance(frame);
        // SAFETY: as in Received::deref; released when `self` is dropped, which the result borrows,
        // and only by `self`.
        let payload = unsafe { std::slice::from_raw_parts(frame.payload, frame.len) };
        Ok(Some(BatchMessage { payload, sequence }))
    }
}

impl<B: Backend> Drop for Batch<'_, B> {
    #[inline]
    fn drop(&mut self) {
        if !self.receiver.connection.is_foreign() {
            self.receiver.release();
        }
    }
}
