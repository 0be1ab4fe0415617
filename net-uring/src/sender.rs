//! The sending end: messages of bytes, written in place into the send ring.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Peer, Trouble};
use crate::crowd::Peers;
use crate::error::Error;
use crate::fork::Birth;
use crate::frame::{ALIGN, HEADER_LEN, Header, frame_len};
use crate::gauge::Tally;
use crate::link::{Blank, Ending, Front, Out, Outgoing};
use crate::mirror::prefetch;
use crate::options::Options;
use crate::session::{CONTROL_ROOM, Death, End, Unacknowledged};
use crate::stats::Stats;

/// The sending end of a channel. Every method needs `&mut self`, so one thread at a time; the
/// handle may move between threads.
///
/// With `io=inline` the caller's own calls drive the socket: what the kernel does not take at once stays
/// in the ring and leaves with the next call of any kind, and acknowledgements are read by calls as well.
/// While nobody calls, nothing happens. With `io=thread` a thread does all that, and a call hands over a
/// position; see [`crate::options::Io`].
#[derive(Debug)]
pub struct NetSender<L: Outgoing = Out> {
    link: L,
    blank: Blank,
    birth: Birth,
    /// Where the next frame begins.
    tail: u64,
    /// Everything below may be written over, as far as known.
    free: u64,
    /// Below this tail a claim need not ask the link whether the session goes on, and where to write.
    until: u64,
    flushes: u64,
    queued: bool,
    total: Total,
    /// Where the totals are left for whoever shows them.
    tally: Option<Arc<Tally>>,
    linger: Duration,
    /// There is nothing left for a drop to do.
    closed: bool,
}

/// Over all sessions.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    messages: u64,
    bytes: u64,
    lost: u64,
    full_waits: u64,
}

/// Why a message was not sent. The message is still the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No room, and the call does not wait.
    #[error("the ring is full; {}", Waiting(.peer))]
    Full {
        /// The receiver, if one is or was connected in this session.
        peer: Option<Peer>,
    },
    /// No room came within the time allowed.
    #[error("timed out: the ring stayed full; {}", Waiting(.peer))]
    Timeout {
        /// The receiver, if one is or was connected in this session.
        peer: Option<Peer>,
    },
    /// The message can never fit.
    #[error(
        "a message of {len} bytes is larger than the channel takes ({max} bytes, half its \
         capacity less a header); open both ends with a larger `capacity`"
    )]
    TooLarge {
        /// Bytes of the message.
        len: usize,
        /// Most bytes that a message on this channel may have.
        max: usize,
    },
    /// The receiver closed. Told once; the next call waits for another.
    #[error(
        "the receiver has closed{}; the next call waits for another receiver", Lost(.lost)
    )]
    Disconnected {
        /// Messages that it had not released. They are gone.
        lost: u64,
    },
    /// The receiver is gone for good. Told once; the next call waits for another.
    #[error("the receiver ({peer}) is gone, {death}{}; the next call goes on", Lost(.lost))]
    PeerDied {
        /// Who.
        peer: Peer,
        /// Why it is taken for gone.
        death: Death,
        /// Messages that it had not released. They are gone.
        lost: u64,
    },
    /// A receiver is there, and the two ends do not fit together. Told once per attempt.
    #[error("no session came about, {death}{}; make both ends fit", Lost(.lost))]
    Refused {
        /// Why.
        death: Death,
        /// Messages that were waiting to be sent. They are gone.
        lost: u64,
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

struct Waiting<'a>(&'a Option<Peer>);

impl fmt::Display for Waiting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) => write!(f, "the receiver ({peer}) has not made room"),
            None => f.write_str("no receiver has come"),
        }
    }
}

struct Lost<'a>(&'a u64);

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, "; {count} messages that it had not released are lost"),
        }
    }
}

/// A close that was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{why}", Unconfirmed(.messages, .bytes))]
#[non_exhaustive]
pub struct CloseError {
    /// Messages that the receiving application had not released.
    pub messages: u64,
    /// Bytes of them, as serialised.
    pub bytes: u64,
    /// Why they were not waited for any longer.
    pub why: NotClosed,
}

/// Why a close was not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotClosed {
    /// The time was over.
    #[error(
        "the receiver did not answer in time, and gets no more than it has; close with more time, or look at \
         what the receiver does"
    )]
    Timeout,
    /// The receiver closed.
    #[error(
        "the receiver has closed; open the channel again, and send to the next one what it must have"
    )]
    Disconnected,
    /// The receiver is gone for good.
    #[error(
        "the receiver is gone, {death}; open the channel again, and send to the next one what it must have"
    )]
    PeerDied {
        /// Why it is taken for gone.
        death: Death,
    },
    /// A receiver is there, and the two ends do not fit together.
    #[error("no session came about, {death}; make both ends fit")]
    Refused {
        /// Why.
        death: Death,
    },
    /// This process is a fork of the one that opened the handle.
    #[error("this handle was opened before fork(), and is the parent's to close")]
    Forked,
    /// The thread of `io=thread` has ended by a panic, which is a defect of this library.
    #[error(
        "the thread that moves this end's bytes has panicked, as standard error tells; open the channel \
         again, and report it"
    )]
    Broken,
}

struct Unconfirmed<'a>(&'a u64, &'a u64);

impl fmt::Display for Unconfirmed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0, self.1) {
            (0, _) => Ok(()),
            (messages, bytes) => {
                write!(f, "{messages} messages ({bytes} bytes) were not confirmed: ")
            }
        }
    }
}

impl NetSender {
    /// Opens the sending end: resolves the host, and binds or connects. Does not wait for the other end's
    /// program; an end without a thread waits until its first attempt to connect has succeeded or failed, for 1.5 s
    /// at most. Allocates.
    ///
    /// # Errors
    /// [`Error`], whose text names the remedy.
    pub fn open(options: &Options) -> Result<Self, Error> {
        Ok(Self::with(Out::open(options)?, options))
    }
}

impl<L: Outgoing> NetSender<L> {
    pub(crate) fn with(link: L, options: &Options) -> Self {
        Self {
            tally: link.tally(),
            blank: link.blank(),
            birth: link.birth(),
            link,
            tail: 0,
            free: 0,
            until: 0,
            flushes: 0,
            queued: false,
            total: Total::default(),
            linger: options.linger,
            closed: false,
        }
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn link_mut(&mut self) -> &mut L {
        &mut self.link
    }

    /// Longest message, in bytes: half the capacity less a header.
    #[inline(always)]
    pub fn max_len(&self) -> usize {
        self.blank.body_max
    }

    /// Room for a message of `len` bytes, written in place. Never blocks, never allocates.
    ///
    /// # Errors
    /// [`SendError`].
    #[inline(always)]
    pub fn try_claim(&mut self, len: usize) -> Result<Claim<'_, L>, SendError> {
        self.ready()?;
        if !self.has_room(len) {
            self.no_room_now(len)?;
        }
        Ok(self.granted(len))
    }

    /// As [`Self::try_claim`], but waits for room. What was queued leaves meanwhile.
    ///
    /// # Errors
    /// Never [`SendError::Full`].
    #[inline(always)]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_, L>, SendError> {
        self.ready()?;
        if !self.has_room(len) {
            self.wait_for_room(len, None)?;
        }
        Ok(self.granted(len))
    }

    /// As [`Self::claim`], for at most `timeout`.
    ///
    /// # Errors
    /// [`SendError::Timeout`], which names the receiver that made no room.
    #[inline(always)]
    pub fn claim_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<Claim<'_, L>, SendError> {
        self.ready()?;
        if !self.has_room(len) {
            self.wait_for_room(len, Some(timeout))?;
        }
        Ok(self.granted(len))
    }

    /// Whatever room is free, up to the longest message: for writers that learn the length of a
    /// message by writing it. Commit with [`Claim::commit_len`]. `None` says nothing but that
    /// [`Self::try_claim`] has to look further.
    ///
    /// # Errors
    /// [`SendError::Forked`], and how a session ended.
    #[inline(always)]
    pub fn claim_run(&mut self) -> Result<Option<Claim<'_, L>>, SendError> {
        self.ready()?;
        if !self.has_room(self.blank.body_max) {
            self.free = self.link.free();
        }
        // Everything in the ring is in multiples of 16, and so is the room.
        let room = self.room().saturating_sub(RESERVE + HEADER_LEN);
        if room == 0 {
            return Ok(None);
        }
        Ok(Some(self.granted(room.min(self.max_len()))))
    }

    /// Sends what was queued, as far as the kernel takes it now. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Forked`], and how a session ended.
    #[inline(always)]
    pub fn flush(&mut self) -> Result<(), SendError> {
        self.usable()?;
        self.publish();
        Ok(())
    }

    /// Flushes so far that had something queued.
    pub fn publications(&self) -> u64 {
        self.flushes
    }

    /// The receiver of this session, if there was a handshake.
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

    /// Counters. Walks through what is unacknowledged. Makes no system call with `io=inline`; with
    /// `io=thread` the thread is woken and lets go of the connection for a moment. In a fork of the process
    /// that opened the handle, all 0.
    pub fn stats(&self) -> Stats {
        if self.birth.is_foreign() {
            return Stats::default();
        }
        let waiting = self.unacknowledged().messages;
        Stats {
            messages: self.total.messages,
            bytes: self.total.bytes,
            released: self.total.messages - self.total.lost - waiting,
            lost: self.total.lost,
            unsent_bytes: self.link.unsent(self.tail),
            full_waits: self.total.full_waits,
            ..self.link.stats()
        }
    }

    /// Messages that were committed and that the receiving application has not released. In a fork of the
    /// process that opened the handle, none: the ring goes on without it, and says nothing there.
    pub fn unacknowledged(&self) -> Unacknowledged {
        if self.birth.is_foreign() {
            return Unacknowledged::default();
        }
        self.link.unacknowledged(self.tail)
    }

    /// Sends everything and waits until the receiving application has released it all.
    ///
    /// # Errors
    /// [`CloseError`] tells what was not acknowledged by then, and why.
    pub fn close(mut self, timeout: Duration) -> Result<(), CloseError> {
        if self.birth.is_foreign() {
            return Err(CloseError { messages: 0, bytes: 0, why: NotClosed::Forked });
        }
        self.link.publish(self.tail);
        let ending = self.link.close(timeout);
        self.closed = true;
        let Unacknowledged { messages, bytes } = self.unacknowledged();
        let why = match ending {
            Some(_) if messages == 0 => return Ok(()),
            Some(Ending { end: Some(End::Died(death)), established: true, .. }) => {
                NotClosed::PeerDied { death }
            }
            Some(Ending { end: Some(End::Died(death)), .. }) => NotClosed::Refused { death },
            Some(_) => NotClosed::Disconnected,
            None if self.link.is_broken() => NotClosed::Broken,
            None => NotClosed::Timeout,
        };
        Err(CloseError { messages, bytes, why })
    }

    /// Before a claim.
    #[inline(always)]
    fn ready(&mut self) -> Result<(), SendError> {
        if self.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        let goes_on = self.tail < self.until && !self.link.is_over_by_itself();
        if goes_on { Ok(()) } else { self.look_closer() }
    }

    /// Whether the session goes on, and where to write on. The latter never twice at one tail: a claim that
    /// was left is made again, and its bytes are written.
    #[inline(never)]
    fn look_closer(&mut self) -> Result<(), SendError> {
        if !self.link.is_over() {
            let Front { view, until } = self.link.front(self.tail);
            self.blank.view = view;
            self.until = until;
        }
        // Asked once more: to find the front is to look at the network, which may have brought the end.
        if self.link.is_over() { Err(self.ended()) } else { Ok(()) }
    }

    #[inline(always)]
    fn usable(&mut self) -> Result<(), SendError> {
        if self.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        if self.link.is_over() { Err(self.ended()) } else { Ok(()) }
    }

    /// Tells how the session ended, and begins the next one.
    #[cold]
    fn ended(&mut self) -> SendError {
        if self.link.is_broken() {
            return SendError::Broken;
        }
        let lost = self.unacknowledged().messages;
        self.total.lost += lost;
        self.note_all();
        let Ending { end, established, peer } = self.link.start_over(self.tail);
        (self.tail, self.free, self.until, self.queued) = (0, 0, 0, false);
        match (end, peer) {
            (Some(End::Died(death)), Some(peer)) if established => {
                SendError::PeerDied { peer, death, lost }
            }
            (Some(End::Died(death)), _) => SendError::Refused { death, lost },
            (Some(End::Closed) | None, _) => SendError::Disconnected { lost },
        }
    }

    /// Bytes behind the tail that may be written.
    #[inline(always)]
    fn room(&self) -> usize {
        (self.free + self.blank.view.capacity() as u64 - self.tail) as usize
    }

    /// Whether a message of that length may be written now.
    #[inline(always)]
    fn has_room(&self, len: usize) -> bool {
        // The room is a multiple of 16, as frames are.
        len <= self.blank.body_max && len + RESERVE + HEADER_LEN <= self.room()
    }

    #[inline(always)]
    fn granted(&mut self, len: usize) -> Claim<'_, L> {
        // Behind the header, in one piece with it wherever the ring ends.
        let frame = self.blank.view.span(self.tail, HEADER_LEN + len);
        let payload = frame.start.wrapping_add(HEADER_LEN);
        Claim { sender: self, payload, room: len }
    }

    #[cold]
    fn no_room_now(&mut self, len: usize) -> Result<(), SendError> {
        if len > self.blank.body_max {
            return Err(SendError::TooLarge { len, max: self.blank.body_max });
        }
        // What was queued is published: else the receiver could make no room.
        if std::mem::take(&mut self.queued) {
            self.flushes += 1;
            self.free = self.link.publish(self.tail);
        }
        self.free = self.link.look();
        self.usable()?;
        if self.has_room(len) {
            return Ok(());
        }
        self.total.full_waits += 1;
        self.note_all();
        Err(SendError::Full { peer: self.peer() })
    }

    #[cold]
    fn wait_for_room(&mut self, len: usize, timeout: Option<Duration>) -> Result<(), SendError> {
        match self.no_room_now(len) {
            Err(SendError::Full { .. }) => {}
            result => return result,
        }
        let missing = (len + RESERVE + HEADER_LEN).next_multiple_of(ALIGN) - self.room();
        self.free = self.link.wait(self.free + missing as u64, timeout);
        self.usable()?;
        if self.has_room(len) { Ok(()) } else { Err(SendError::Timeout { peer: self.peer() }) }
    }

    #[inline(always)]
    fn publish(&mut self) {
        if std::mem::take(&mut self.queued) {
            self.flushes += 1;
        }
        if let Some(tally) = &self.tally {
            tally.sent(self.total.messages, self.total.bytes);
        }
        self.free = self.link.publish(self.tail);
        if self.link.is_over() {
            self.until = 0;
        }
    }

    /// All of it is left for whoever shows it, what is seldom news, too.
    fn note_all(&self) {
        if let Some(tally) = &self.tally {
            tally.sent(self.total.messages, self.total.bytes);
            tally.missed(self.total.lost, self.total.full_waits);
        }
    }
}

impl<L: Outgoing> Drop for NetSender<L> {
    /// Sends what was queued and says that this was all. Waits until the receiver's host has it, for
    /// at most the options' `linger`; whether the receiver reads it, [`Self::close`] tells.
    fn drop(&mut self) {
        if !self.birth.is_foreign() && !self.closed {
            self.link.publish(self.tail);
            self.link.leave(self.linger);
        }
    }
}

/// How far ahead of the tail lines are fetched to be written. Without it every other cycle of a writer of
/// small messages went into waiting for the first line of the next one: the ring is larger than the caches
/// nearest to the core.
const PREFETCH_AHEAD: usize = 1024;

/// Bytes of the send ring that stay free, as a receive ring of the same size keeps them for control
/// frames: so whatever fits in here fits over there, and a receiver that takes everything out need
/// not wait for this end to be called once more.
const RESERVE: usize = CONTROL_ROOM as usize;

/// Room for one message. Write it through `DerefMut`, then commit or queue; dropping it aborts, and
/// nobody sees that it was. The bytes hold whatever was there before.
#[derive(Debug)]
#[must_use = "a claim that is dropped is aborted"]
pub struct Claim<'a, L: Outgoing = Out> {
    sender: &'a mut NetSender<L>,
    payload: *mut u8,
    room: usize,
}

// SAFETY: the pointer goes into the ring that the borrowed sender, itself Send, keeps.
unsafe impl<L: Outgoing + Send> Send for Claim<'_, L> {}

impl<'a, L: Outgoing> Claim<'a, L> {
    /// Sends the message, with everything queued before it, as far as the kernel takes it now.
    ///
    /// # Errors
    /// [`SendError::Forked`]: the room is the parent's.
    #[inline(always)]
    pub fn commit(self) -> Result<(), SendError> {
        let len = self.room;
        self.commit_len(len)
    }

    /// As [`Self::commit`], the first `len` bytes; more than claimed counts as all.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn commit_len(self, len: usize) -> Result<(), SendError> {
        let sender = self.finish(len)?;
        sender.publish();
        Ok(())
    }

    /// Keeps the message back until [`NetSender::flush`] or the next commit; it leaves earlier if
    /// some call waits for room.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue(self) -> Result<(), SendError> {
        let len = self.room;
        self.queue_len(len)
    }

    /// As [`Self::queue`], with the first `len` bytes only.
    ///
    /// # Errors
    /// As [`Self::commit`].
    #[inline(always)]
    pub fn queue_len(self, len: usize) -> Result<(), SendError> {
        let sender = self.finish(len)?;
        sender.queued = true;
        Ok(())
    }

    #[inline(always)]
    fn finish(self, len: usize) -> Result<&'a mut NetSender<L>, SendError> {
        let Claim { sender, payload, room } = self;
        if sender.birth.is_foreign() {
            return Err(SendError::Forked);
        }
        let len = len.min(room);
        let header = Header::data(len as u32, sender.tail).to_bytes();
        let size = frame_len(len as u32);
        let padding = size as usize - HEADER_LEN - len;
        // Where the frame begins: `granted` puts the payload right behind the header.
        let start = payload.wrapping_sub(HEADER_LEN);
        // SAFETY: the frame lies behind the tail, in room that was checked when it was claimed, of a
        // ring that the sender's link keeps. It is this claim's alone: nothing of it was published, and
        // everything that lay there was acknowledged.
        unsafe {
            start.cast::<[u8; HEADER_LEN]>().write(header);
            // Few messages have any, and a length that is not known costs a call.
            if padding > 0 {
                payload.add(len).write_bytes(0, padding);
            }
        }
        prefetch(start.wrapping_add(PREFETCH_AHEAD));
        sender.tail += size;
        sender.total.messages += 1;
        sender.total.bytes += len as u64;
        Ok(sender)
    }
}

impl<L: Outgoing> Deref for Claim<'_, L> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: behind the tail of the send ring, in room that was checked; only this claim, which
        // borrows the sender, knows of it.
        unsafe { std::slice::from_raw_parts(self.payload, self.room) }
    }
}

impl<L: Outgoing> DerefMut for Claim<'_, L> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.payload, self.room) }
    }
}
